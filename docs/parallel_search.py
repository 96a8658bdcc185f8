"""The same search by processes of one machine, by dask or by ray.

python docs/parallel_search.py loky
python docs/parallel_search.py dask     # pip install 'dask[distributed]'
python docs/parallel_search.py ray      # pip install ray
"""

import sys

import joblib
from sklearn.model_selection import GridSearchCV

from skmanifoldflow import NoisyInjectiveFlow
from skmanifoldflow.datasets import SCurve


def search_with_loky(search, X):
    return search.set_params(n_jobs=2).fit(X)


def search_with_dask(search, X):
    from dask.distributed import Client

    # Client("tcp://SCHEDULER:8786") for a cluster.
    with Client(n_workers=2, threads_per_worker=1), joblib.parallel_config(backend="dask"):
        return search.fit(X)


def search_with_ray(search, X):
    import ray
    from ray.util.joblib import register_ray

    ray.init(num_cpus=2)  # ray.init(address="auto") for a cluster
    register_ray()
    with joblib.parallel_config(backend="ray"):
        return search.fit(X)


def main():
    X, _ = SCurve(noise=0.05).sample(400, random_state=0)
    flow = NoisyInjectiveFlow(2, n_layers=2, max_iter=5, random_state=0)
    search = GridSearchCV(flow, {"n_components": [1, 2, 3]}, cv=2)
    run = {"loky": search_with_loky, "dask": search_with_dask, "ray": search_with_ray}[sys.argv[1]]
    found = run(search, X)
    for value, score in zip([1, 2, 3], found.cv_results_["mean_test_score"], strict=True):
        print(f"n_components={value}: {score:.4f} nats")


if __name__ == "__main__":
    main()
