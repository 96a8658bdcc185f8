"""JointManifoldFlow: density, manifolds, nested embeddings, images, outliers, odd rows.

    python benchmarks/joint.py density     # integral of the density, each penalty
    python benchmarks/joint.py surface     # a noiseless surface: samples, reconstructions, seconds
    python benchmarks/joint.py hierarchy   # held-out nats after each stage
    python benchmarks/joint.py digits      # test error per pixel, 5-NN accuracy, beside PCA
    python benchmarks/joint.py fashion     # the same of Fashion-MNIST, 10000 training rows
    python benchmarks/joint.py outliers    # S-curve with 5 % gross outliers, each penalty
    python benchmarks/joint.py odd         # AUC of rows off an S-curve, beside the exact density's
    python benchmarks/joint.py surface odd --seeds 5

Every number is that of the defaults and of what the row is about, unless ``--set name=value`` says
otherwise; times are CPU seconds of one thread. Defaults are tuned on seeds of 100 and above,
``--seeds-from 100``, and on parts of the training rows of images; those reported start at 0.

Fashion-MNIST needs files: ``--data-dir``, see `_data.py`.
"""

import argparse
import ast
import warnings
from pathlib import Path

import numpy as np
import torch
from _data import load_fashion_mnist
from _peers import timed
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.manifold import trustworthiness
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from threadpoolctl import threadpool_limits

from skmanifoldflow import JointManifoldFlow
from skmanifoldflow.datasets import PolynomialSurface, SCurve, SinCurve, SwissRoll

PENALTIES = ("huber", "laplace", "gaussian")


def joint_manifold_flow(args, *positional, **parameters):
    """The estimator with the parameters of a row, those of ``--set`` above them."""
    return JointManifoldFlow(*positional, **(parameters | dict(args.set)))


def seeds(args):
    return range(args.seeds_from, args.seeds_from + args.seeds)


def chosen(args, names):
    """The names that ``--only`` leaves."""
    return [name for name in names if not args.only or name in args.only]


def density(args):
    """Integral of the density of a curve in the plane over a box, by the trapezoidal rule."""
    print(f"{'penalty':10} {'seed':>4} {'integral':>9}")
    x1, x2 = np.linspace(-8, 8, 1601), np.linspace(-6, 6, 1201)
    grid = np.stack(np.meshgrid(x1, x2, indexing="ij"), axis=-1).reshape(-1, 2)
    for penalty in chosen(args, PENALTIES):
        for seed in seeds(args):
            X, _ = SinCurve(noise=0.1).sample(2000, random_state=seed)
            model = joint_manifold_flow(args, 1, penalty=penalty, random_state=seed).fit(X)
            values = np.exp(model.score_samples(grid)).reshape(len(x1), len(x2))
            integral = np.trapezoid(np.trapezoid(values, x2, axis=1), x1)
            print(f"{penalty:10} {seed:4d} {integral:9.4f}", flush=True)


def surface(args):
    """Distances in units of the root mean variance of the columns, 20000 rows without noise."""
    data = PolynomialSurface(noise=0.0)
    print(f"{'seed':>4} {'samples':>8} {'on it':>8} {'reconstr.':>9} {'PCA':>7} {'CPU s':>6}")
    for seed in seeds(args):
        X, _ = data.sample(20_000, random_state=2 * seed)
        test, _ = data.sample(5000, random_state=2 * seed + 1)
        scale = np.sqrt(X.var(axis=0).mean())
        model = joint_manifold_flow(args, 2, random_state=seed)
        _, seconds = timed(model.fit, X)
        distances = [
            data.distance(model.sample(5000, random_state=0, manifold_deviation=s)).mean() / scale
            for s in (1.0, 0.0)
        ]
        pca = PCA(2).fit(X)
        errors = [
            np.linalg.norm(rows - test, axis=1).mean() / scale
            for rows in (model.reconstruct(test), pca.inverse_transform(pca.transform(test)))
        ]
        print(
            f"{seed:4d} {distances[0]:8.4f} {distances[1]:8.4f} {errors[0]:9.4f} {errors[1]:7.4f} "
            f"{seconds:6.1f}",
            flush=True,
        )


def five_modes(n_rows, seed):
    """Rows of a swiss roll whose density along the roll has five modes."""
    rng = np.random.RandomState(seed)
    data = SwissRoll(noise=0.0)
    coordinates = data.sample(20_000, random_state=0)[1]
    low, high = coordinates.min(axis=0), coordinates.max(axis=0)
    along = low[0] + (high[0] - low[0]) * (np.arange(5) + 0.5) / 5
    deviation = 0.025 * (high[0] - low[0])
    rows = np.column_stack(
        [
            along[rng.randint(5, size=n_rows)] + deviation * rng.standard_normal(n_rows),
            rng.uniform(low[1], high[1], size=n_rows),
        ]
    )
    noise = 0.05 * rng.standard_normal((n_rows, 3))
    return data.embed(np.clip(rows, low, high)) + noise


def hierarchy(args):
    """Test nats per row of the data after each stage."""
    digits = load_digits().data
    order = np.random.RandomState(0).permutation(len(digits))
    digit_rows = digits[order[360:]], digits[order[:360]] + 0.5
    image = {"image_shape": (1, 8, 8), "dequantize": True}
    cases = {
        "five modes": (five_modes, 2, {"n_stages": 3}),
        "S-curve": (lambda n, seed: SCurve().sample(n, random_state=seed)[0], 2, {"n_stages": 3}),
        "digits": (None, 10, {"n_stages": 3, **image}),
        "digits, narrowing": (None, 10, {"stage_components": (8, 2), **image}),
    }
    print(f"{'rows':18} {'seed':>4} {'stages':14} {'CPU s':>6}  nats after each, least step")
    for name in chosen(args, cases):
        draw, d, parameters = cases[name]
        for seed in seeds(args):
            if draw is None:
                train, test = digit_rows
            else:
                train, test = draw(5000, 2 * seed), draw(5000, 2 * seed + 1)
            model = joint_manifold_flow(args, d, random_state=seed, **parameters)
            _, seconds = timed(model.fit, train)
            n_stages = len(model.stage_components_)
            nats = [model.score_samples(test, stage=k + 1).mean() for k in range(n_stages)]
            print(
                f"{name:18} {seed:4d} {model.stage_components_!s:14} {seconds:6.1f}  "
                f"{' '.join(f'{value:.3f}' for value in nats)}, {np.diff(nats).min():+.3f}",
                flush=True,
            )


def images(args, name, train, y_train, test, y_test, shape, levels, dimensions):
    """Test error per pixel in [0, 1] and 5-NN accuracy, beside PCA."""
    print(
        f"{'rows':9} {'d':>2} {'model':18} {'seed':>4} {'MSE':>7} {'5-NN':>6} {'trust':>6} "
        f"{'nats':>8} {'CPU s':>6}"
    )

    def report(label, seed, d, model, train, test, reconstruct, nats, seconds):
        Z, Z_test = model.transform(train), model.transform(test)
        error = np.mean((reconstruct(test) - test) ** 2) / levels**2
        neighbors = KNeighborsClassifier(5, algorithm="brute").fit(Z, y_train)
        accuracy = neighbors.score(Z_test, y_test)
        trust = trustworthiness(test[:2000], Z_test[:2000], n_neighbors=10)
        print(
            f"{name:9} {d:2d} {label:18} {seed:>4} {error:7.4f} {accuracy:6.3f} {trust:6.3f} "
            f"{nats:8.2f} {seconds:6.1f}",
            flush=True,
        )

    for d in map(int, chosen(args, map(str, dimensions))):
        pca = PCA(d, random_state=0).fit(train)
        report(
            "PCA", "-", d, pca, train, test,
            lambda rows, pca=pca: pca.inverse_transform(pca.transform(rows)), np.nan, 0.0,
        )  # fmt: skip
        for seed in seeds(args):
            model = joint_manifold_flow(
                args, d, image_shape=shape, dequantize=True, random_state=seed
            )
            _, seconds = timed(model.fit, train)
            # The middle of the cell of every integer.
            half = train.dtype.type(0.5)
            report(
                "JointManifoldFlow", seed, d, model, train + half, test + half,
                model.reconstruct, model.score(test + half), seconds,
            )  # fmt: skip


def digits(args):
    X, y = load_digits(return_X_y=True)
    order = np.random.RandomState(0).permutation(len(X))
    test, train = order[:360], order[360:]
    images(args, "digits", X[train], y[train], X[test], y[test], (1, 8, 8), 16, (2, 10))


def fashion(args):
    X, y, X_test, y_test = load_fashion_mnist(args.data_dir)
    X, y = X[:10000].astype(np.float32), y[:10000]
    images(args, "fashion", X, y, X_test.astype(np.float32), y_test, (1, 28, 28), 255, (2, 10))


def outliers(args):
    """Mean distance of samples to the S-curve, 5 % of 5000 training rows being outliers."""
    data = SCurve(noise=0.01)
    print(f"{'penalty':10} {'seed':>4} {'samples':>8} {'on manifold':>12} {'reconstr.':>10}")
    for seed in seeds(args):
        rng = np.random.RandomState(seed)
        X, _ = data.sample(5000, random_state=2 * seed)
        test, _ = data.sample(5000, random_state=2 * seed + 1)
        X[:250] = 5 * rng.standard_normal((250, 3))
        for penalty in chosen(args, PENALTIES):
            model = joint_manifold_flow(args, 2, penalty=penalty, random_state=seed).fit(X)
            samples, on_manifold = (
                data.distance(model.sample(5000, random_state=0, manifold_deviation=s)).mean()
                for s in (1.0, 0.0)
            )
            error = np.linalg.norm(model.reconstruct(test) - test, axis=1).mean()
            print(
                f"{penalty:10} {seed:4d} {samples:8.4f} {on_manifold:12.4f} {error:10.4f}",
                flush=True,
            )


def odd(args):
    """AUC of log-densities, rows with noise .01 against the same with N(0, .1^2) added."""
    data = SCurve(noise=0.01)
    print(f"{'seed':>4} {'AUC':>7} {'exact':>7} {'ratio':>7} {'gap, nats':>10} {'CPU s':>6}")
    for seed in seeds(args):
        X, _ = data.sample(5000, random_state=2 * seed)
        test, _ = data.sample(5000, random_state=2 * seed + 1)
        moved = test + 0.1 * np.random.RandomState(seed).standard_normal(test.shape)
        model = joint_manifold_flow(args, 2, random_state=seed)
        _, seconds = timed(model.fit, X)
        labels = np.repeat([1, 0], len(test))
        both = np.concatenate([test, moved])
        area, exact = (
            roc_auc_score(labels, score(both)) for score in (model.score_samples, data.log_density)
        )
        gap = np.mean(data.log_density(test) - model.score_samples(test))
        print(
            f"{seed:4d} {area:7.4f} {exact:7.4f} {area / exact:7.4f} {gap:10.3f} {seconds:6.1f}",
            flush=True,
        )


ROWS = {row.__name__: row for row in (density, surface, hierarchy, digits, fashion, outliers, odd)}


def setting(text):
    name, value = text.split("=")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", choices=[[], *ROWS], metavar="row", help=str(list(ROWS)))
    parser.add_argument("--only", nargs="+", help="penalties, cases or dimensions of the rows")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seeds-from", type=int, default=0)
    parser.add_argument("--set", type=setting, nargs="*", default=[], metavar="name=value")
    parser.add_argument("--data-dir", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ConvergenceWarning)
    with threadpool_limits(1):
        for name in args.rows or ROWS:
            print(f"# {name}")
            ROWS[name](args)


if __name__ == "__main__":
    main()
