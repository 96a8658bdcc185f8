"""Pictures of rows in the plane: ours with a guide and without, beside PCA, UMAP and a network.

    python benchmarks/pictures.py digits     # images of digits, 128 units, 80 epochs
    python benchmarks/pictures.py table      # the same rows as a table, defaults
    python benchmarks/pictures.py penbased   # 2000 rows of a KEEL table, defaults
    python benchmarks/pictures.py fashion    # Fashion-MNIST, 10000 rows
    python benchmarks/pictures.py smooth     # S-curve and diabetes: no clusters
    python benchmarks/pictures.py rolls      # swiss rolls guided by Isomap
    python benchmarks/pictures.py part       # a guide fitted to 2000 of 8000 rows of penbased
    python benchmarks/pictures.py digits --set guide_weight=3

All methods are fitted to the training rows and place the test rows; ``--seeds`` splits are drawn
from ``--seeds-from`` on, with one fit each. 5-NN, trustworthiness and continuity (both with 12
neighbours) are those of test rows. "unexplained" is the squared error of rebuilt test rows over
their variance, nats are means of test rows, seconds those of the CPU, one thread. UMAP needs
umap-learn, and is left out without it. Integers of digits and penbased have U[0, 1) added, once.

Settings were chosen on splits of 100 and above; those reported start at 0. penbased is a file of
KEEL, Fashion-MNIST of Debian: ``--data-dir``, see `_data.py`.
"""

import argparse
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from _data import load_fashion_mnist, load_keel
from _peers import timed
from joint import setting
from sklearn.datasets import load_diabetes, load_digits
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression
from sklearn.manifold import Isomap, trustworthiness
from sklearn.neighbors import KNeighborsClassifier
from threadpoolctl import threadpool_limits

from skmanifoldflow import JointManifoldFlow
from skmanifoldflow._joint_manifold import guides
from skmanifoldflow.datasets import SCurve, SwissRoll
from skmanifoldflow.metrics import continuity

N_NEIGHBORS = 12


class Autoencoder:
    """A plain autoencoder, two layers of 256 units on each side, trained for some CPU seconds."""

    def __init__(self, seed, seconds):
        self.seed, self.seconds = seed, seconds

    def fit(self, X):
        torch.manual_seed(self.seed)
        self.mean, self.scale = X.mean(axis=0), X.std()
        rows, D = self._rows(X), X.shape[1]

        def network(*sizes):
            layers = []
            for n_in, n_out in pairwise(sizes):
                layers += [torch.nn.Linear(n_in, n_out), torch.nn.SiLU()]
            return torch.nn.Sequential(*layers[:-1])

        self.encoder, self.decoder = network(D, 256, 256, 2), network(2, 256, 256, D)
        parameters = [*self.encoder.parameters(), *self.decoder.parameters()]
        optimizer = torch.optim.Adam(parameters, 1e-3)

        def step():
            batch = rows[torch.randint(len(rows), (128,))]
            optimizer.zero_grad()
            (self.decoder(self.encoder(batch)) - batch).square().mean().backward()
            optimizer.step()

        spent = 0.0
        while spent < self.seconds:
            spent += timed(lambda: [step() for _ in range(100)])[1]
        return self

    def _rows(self, X):
        return torch.as_tensor((X - self.mean) / self.scale, dtype=torch.float32)

    @torch.no_grad()
    def transform(self, X):
        return self.encoder(self._rows(X)).numpy()

    @torch.no_grad()
    def inverse_transform(self, Z):
        return self.decoder(torch.as_tensor(Z)).numpy() * self.scale + self.mean


def split(X, y, seed, n_train, n_test, scale=1.0):
    """Training and test rows and classes; integers of a scale have one draw of U[0, 1) added."""
    rng = np.random.RandomState(seed)
    order = rng.permutation(len(X))
    X = (X + rng.random_sample(X.shape)) / scale
    test, train = order[:n_test], order[n_test : n_test + n_train]
    return X[train], y[train], X[test], y[test]


def digits(seed):
    X, y = load_digits(return_X_y=True)
    return split(X, y, seed, 1438, 359, 16)


def penbased(seed, data_dir, n_train=2000):
    return split(*load_keel("penbased", data_dir, with_class=True), seed, n_train, 500)


HEADER = "split method               5-NN  trust  cont  unexplained    nats  guide R^2  CPU s"


def report(seed, name, model, seconds, X, y, test, y_test, inverse=None):
    """Print the figures of a fitted model; y is None where there are no classes."""
    Z = np.asarray(model.transform(test))
    accuracy = np.nan
    if y is not None:
        accuracy = KNeighborsClassifier(5).fit(model.transform(X), y).score(Z, y_test)
    unexplained = nats = np.nan
    if hasattr(model, "inverse_transform"):
        # UMAP takes a second for each row.
        some = slice(60 if inverse == "some" else None)
        rebuilt = model.inverse_transform(Z[some])
        variance = np.square(test[some] - test[some].mean(axis=0)).sum()
        unexplained = np.square(rebuilt - test[some]).sum() / variance
    if hasattr(model, "score_samples"):
        nats = model.score_samples(test).mean()
    trust = trustworthiness(test, Z, n_neighbors=N_NEIGHBORS)
    print(
        f"{seed:5d} {name:19} {accuracy:6.3f} {trust:6.3f} "
        f"{continuity(test, Z, n_neighbors=N_NEIGHBORS):6.3f} {unexplained:12.3f} {nats:7.2f} "
        f"{getattr(model, 'guide_score_', np.nan):10.4f} {seconds:6.1f}",
        flush=True,
    )


def umap(seed):
    """UMAP, or None where umap-learn is not installed."""
    try:
        from umap import UMAP
    except ImportError:
        return None
    return UMAP(random_state=seed, n_jobs=1)


def compare(args, seed, X, y, test, y_test, guide="tsne", **parameters):
    """Figures of all methods on one split."""
    parameters |= dict(args.set)
    models = {"PCA": PCA(2, random_state=seed), "UMAP": umap(seed)}
    models["unguided"] = JointManifoldFlow(2, random_state=seed, **parameters | {"guide": None})
    guided = JointManifoldFlow(2, random_state=seed, **{"guide": guide} | parameters)
    models[f"guided by {guided.guide}"] = guided
    seconds = 0.0
    for name, model in models.items():
        if model is None or (args.only and name.split()[0] not in args.only):
            continue
        _, seconds = timed(model.fit, X)
        report(seed, name, model, seconds, X, y, test, y_test, "some" if name == "UMAP" else None)
    if not args.only or "autoencoder" in args.only:
        network = Autoencoder(seed, args.seconds or seconds)
        _, seconds = timed(network.fit, X)
        report(seed, "autoencoder", network, seconds, X, y, test, y_test)


def seeds(args):
    return range(args.seeds_from, args.seeds_from + args.seeds)


def row_digits(args):
    shape = {"image_shape": (1, 8, 8), "hidden_layer_sizes": (128, 128), "max_iter": 80}
    for seed in seeds(args):
        compare(args, seed, *digits(seed), **shape)


def row_table(args):
    for seed in seeds(args):
        compare(args, seed, *digits(seed))


def row_penbased(args):
    for seed in seeds(args):
        compare(args, seed, *penbased(seed, args.data_dir))


def row_fashion(args):
    X, y, test, y_test = load_fashion_mnist(args.data_dir)
    for seed in seeds(args):
        rng = np.random.RandomState(seed)
        train, some = rng.permutation(len(X))[:10_000], rng.permutation(len(test))[:2000]
        rows = [(r + rng.random_sample(r.shape)) / 256 for r in (X[train], test[some])]
        shape = {"image_shape": (1, 28, 28), "max_iter": 60}
        compare(args, seed, rows[0], y[train], rows[1], y_test[some], **shape)


def row_smooth(args):
    for seed in seeds(args):
        curve = [SCurve().sample(2000, random_state=2 * seed + k)[0] for k in (0, 1)]
        print("S-curve")
        compare(args, seed, curve[0], None, curve[1], None)
        print("diabetes")
        rows, sex = load_diabetes(scaled=False).data, 1
        rng = np.random.RandomState(seed)
        rows = np.delete(rows, sex, axis=1)
        order = rng.permutation(len(rows))
        train, test = rows[order[:342]], rows[order[342:]]
        # Its columns are measured in steps, which none of the methods is told.
        compare(args, seed, train, None, test, None, discrete_features=None)


def row_rolls(args):
    """R^2 of the true coordinates by an affine map, and the exact log-density minus the model's."""
    print(" seed method           R^2     gap  worst row  > 1 unit  CPU s")
    roll = SwissRoll(noise=0.05)
    for seed in seeds(args):
        X, _ = roll.sample(2500, random_state=2 * seed)
        test, truth = roll.sample(2500, random_state=2 * seed + 1)
        exact = roll.log_density(test).mean()
        guided = {"unguided": None, "guided": "isomap"}
        models = {n: JointManifoldFlow(2, guide=g, random_state=seed) for n, g in guided.items()}
        for name, model in {**models, "Isomap": Isomap(n_neighbors=10)}.items():
            _, seconds = timed(model.fit, X)
            Z = model.transform(test)
            r2 = LinearRegression().fit(Z, truth).score(Z, truth)
            gap = worst = far = np.nan
            if name != "Isomap":
                gap = exact - model.score_samples(test).mean()
                distance = np.linalg.norm(model.reconstruct(test) - test, axis=1)
                worst, far = distance.max(), (distance > 1).mean()
            print(
                f"{seed:5d} {name:14} {r2:6.3f} {gap:7.2f} {worst:10.2f} {far:9.4f} {seconds:6.1f}",
                flush=True,
            )


def row_part(args):
    for seed in seeds(args):
        rows = penbased(seed, args.data_dir, 8000)
        for most in (10_000, 2000):
            guides._MAX_ROWS = most
            model = JointManifoldFlow(2, guide="tsne", random_state=seed, **dict(args.set))
            _, seconds = timed(model.fit, rows[0])
            report(seed, f"guided, {most}", model, seconds, *rows)


ROWS = {name.removeprefix("row_"): f for name, f in list(globals().items()) if name[:4] == "row_"}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="+", choices=ROWS, metavar="row", help=str(list(ROWS)))
    parser.add_argument("--only", nargs="+", help="first words of the methods")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seeds-from", type=int, default=0)
    parser.add_argument(
        "--seconds", type=float, help="of the autoencoder; those of ours if not given"
    )
    parser.add_argument("--set", type=setting, nargs="*", default=[], metavar="name=value")
    parser.add_argument("--data-dir", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ConvergenceWarning)
    warnings.filterwarnings("ignore", "n_jobs value")
    with threadpool_limits(1):
        for name in args.rows:
            print(f"# {name}\n{HEADER}" if name != "rolls" else f"# {name}")
            ROWS[name](args)


if __name__ == "__main__":
    main()
