"""ChartAtlasFlow on images: does an atlas draw better images than its flow without charts?

    python benchmarks/atlas_images.py --data-dir FOLDER

Fashion-MNIST, the first 10000 training rows. The flow without charts is the same one with
``n_charts=1``, trained for as many epochs. Frechet distances are those of `density.py`: moments of
128 features of a small classifier, 2000 drawn against 2000 test rows, above the distance of two
parts of the test rows from each other. Times are CPU seconds of one thread; files as in `_data.py`.
"""

import argparse
import warnings

import numpy as np
import torch
from _data import load_fashion_mnist
from _peers import timed
from density import evaluated, generated, spread, trained_classifier
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits

from skmanifoldflow import ChartAtlasFlow
from skmanifoldflow.metrics import bits_per_dim, frechet_distance

FLOW = {
    "image_shape": (1, 28, 28),
    "dequantize": True,
    "n_layers": 4,
    "hidden_layer_sizes": (48,),
    "learning_rate_init": 8e-3,
}


def frechet_distances(model, features, real, n_draws):
    """Distances of drawn from test images, each above the mean of those of the test images."""
    orders = [np.random.RandomState(draw).permutation(len(real)) for draw in range(n_draws)]
    floor = np.mean([frechet_distance(real[o[:2000]], real[o[2000:4000]]) for o in orders])
    distances = []
    for draw, order in enumerate(orders):
        fake = evaluated(features, generated(model, draw)).astype(np.float64)
        distances.append(frechet_distance(fake, real[order[:2000]]) - floor)
    return np.array(distances)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="folder of unpacked data files")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of both fits")
    parser.add_argument("--n-charts", type=int, default=32, help="charts of the atlas")
    parser.add_argument("--rows", type=int, default=10000, help="training rows")
    parser.add_argument("--draws", type=int, default=3, help="draws of 2000 images")
    parser.add_argument("--scored", type=int, default=1000, help="test rows that are scored")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with threadpool_limits(1):
        compare(args)


def compare(args):
    X, y, X_test, y_test = load_fashion_mnist(args.data_dir)
    features, _ = trained_classifier(X, y, None)
    real = evaluated(features, X_test).astype(np.float64)
    rows, scored = X[: args.rows].astype(np.float32), X_test[: args.scored]
    print(f"{'charts':>6} {'epochs':>6} {'CPU s':>6} {'bits/dim':>8} {'ARI':>5}  Frechet distance")
    means = []
    for n_charts in (1, args.n_charts):
        model = ChartAtlasFlow(
            n_charts=n_charts,
            max_iter=args.epochs,
            # All epochs are run; the best one is kept all the same.
            n_iter_no_change=args.epochs,
            random_state=args.seed,
            **FLOW,
        )
        _, seconds = timed(model.fit, rows)
        distances = frechet_distances(model, features, real, args.draws)
        means.append(distances.mean())
        bits = bits_per_dim(model, scored, random_state=0)
        # The middle of the cell of every integer.
        charts = model.predict(scored + np.float32(0.5))
        agreement = adjusted_rand_score(y_test[: args.scored], charts)
        print(
            f"{n_charts:6d} {model.n_iter_:6d} {seconds:6.0f} {bits:8.3f} {agreement:5.2f}  "
            f"{spread(distances)}",
            flush=True,
        )
    print(f"ratio {means[1] / means[0]:.3f}")


if __name__ == "__main__":
    main()
