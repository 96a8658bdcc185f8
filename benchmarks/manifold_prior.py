"""ManifoldPriorFlow: dimension, likelihood, embedding, time, digits and images.

    python benchmarks/manifold_prior.py dimension     # 10 seeds of 8 data sets
    python benchmarks/manifold_prior.py likelihood    # gap to the exact density, 3 seeds
    python benchmarks/manifold_prior.py time          # beside Isomap and a grid of mixtures
    python benchmarks/manifold_prior.py digits        # Pipeline and GridSearchCV over n_components
    python benchmarks/manifold_prior.py rescaling     # units of the columns
    python benchmarks/manifold_prior.py fading        # a square of one grey value, 1024 pixels
    python benchmarks/manifold_prior.py vae --data-dir FOLDER      # images of 5 and 10 dimensions
    python benchmarks/manifold_prior.py fashion --data-dir FOLDER  # Fashion-MNIST, 10000 rows

Every number is that of the defaults unless the table says otherwise; times are CPU seconds of one
thread. Files of images as in `_data.py` and `_vae_images.py`.
"""

import argparse
import time
import warnings

import numpy as np
import torch
from _data import load_fashion_mnist
from _vae_images import vae_images
from scipy.stats import multivariate_normal, spearmanr
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.manifold import Isomap
from sklearn.metrics import r2_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmanifoldflow import ManifoldPriorFlow
from skmanifoldflow.datasets import FadingSquare, Line, SCurve, SinCurve, SwissRoll

# Of rows from an autoencoder and of Fashion-MNIST. The floor is the first noise of the paper on
# images, 0.05 of the range of grey values; networks are wider than those of tables.
IMAGES = {
    "image_shape": (1, 28, 28),
    "n_layers": 11,
    "hidden_layer_sizes": (16, 128, 128),
    "noise_start": 1.0,
    "noise_floor": 0.25,
    "isometry": 0.0,
    "learning_rate_init": 3e-3,
}
# Epochs by the number of codes: the more dimensions, the longer it takes to see the last of them.
VAE_EPOCHS = {5: 12, 10: 24}


def affine_r2(embedding, coordinates):
    """R^2 of the true coordinates from the embedding by an affine map, mean over coordinates."""
    predicted = LinearRegression().fit(embedding, coordinates).predict(embedding)
    return r2_score(coordinates, predicted)


def timed_fit(model, X):
    start = time.process_time()
    model.fit(X)
    return time.process_time() - start


def dimension(n_seeds, only=""):
    """The dimension read, and on the S-curve embedding and scale, n = 2500."""
    sets = [
        (SinCurve(noise=0.0), "sin_curve, noise 0"),
        (SinCurve(noise=0.05), "sin_curve, noise .05"),
        (Line(noise=0.0), "line, noise 0"),
        (Line(noise=0.05), "line, noise .05"),
        (SCurve(noise=0.0), "s_curve, noise 0"),
        (SCurve(noise=0.05), "s_curve, noise .05"),
        (SwissRoll(noise=0.0), "swiss_roll, noise 0"),
        (SwissRoll(noise=0.05), "swiss_roll, noise .05"),
    ]
    print(
        f"{'set':22} {'truth':>5}  {'read':24} {'right':>6} {'R2 mean':>8} {'R2 min':>7} "
        f"{'eigenvalue / variance':>22} {'CPU s':>6}"
    )
    for data, name in sets:
        if not name.startswith(only):
            continue
        read, r2, ratios, seconds = [], [], [], []
        for seed in range(n_seeds):
            X, _ = data.sample(2500, random_state=seed)
            test, coordinates = data.sample(2500, random_state=seed + 1000)
            model = ManifoldPriorFlow(random_state=seed)
            seconds.append(timed_fit(model, X))
            read.append(model.intrinsic_dimension_)
            if model.intrinsic_dimension_ == data.dimension:
                r2.append(affine_r2(model.transform(test), coordinates))
                true = np.sort(coordinates.var(axis=0))[::-1]
                ratios.append(model.prior_eigenvalues_[: data.dimension] / true)
        right = np.mean(np.array(read) == data.dimension)
        ratios = np.array(ratios) if ratios else np.full((1, 1), np.nan)
        print(
            f"{name:22} {data.dimension:5d}  {' '.join(map(str, read)):24} {right:6.0%} "
            f"{np.mean(r2):8.3f} {np.min(r2):7.3f} "
            f"{ratios.min():10.2f} to {ratios.max():4.2f}   {np.mean(seconds):6.1f}",
            flush=True,
        )


def likelihood(n_seeds):
    """Mean of exact minus model log-density on 5000 test rows, 5000 training rows."""
    print(
        f"{'set':12} {'seed':>4} {'gap':>7} {'Gaussian gap':>13} {'R2':>6} {'PCA R2':>7} "
        f"{'Isomap R2':>10} {'CPU s':>6}"
    )
    for data, name in ((SinCurve(noise=0.05), "sin_curve"), (SCurve(noise=0.05), "s_curve")):
        gaps = []
        for seed in range(n_seeds):
            X, _ = data.sample(5000, random_state=2 * seed)
            test, coordinates = data.sample(5000, random_state=2 * seed + 1)
            model = ManifoldPriorFlow(random_state=seed)
            seconds = timed_fit(model, X)
            exact = data.log_density(test).mean()
            normal = multivariate_normal(X.mean(0), np.cov(X.T)).logpdf(test).mean()
            gaps.append(exact - model.score(test))
            r2 = affine_r2(model.transform(test), coordinates)
            pca = affine_r2(PCA(data.dimension).fit(X).transform(test), coordinates)
            isomap = Isomap(n_neighbors=10, n_components=data.dimension).fit(X[:2500])
            isomap = affine_r2(isomap.transform(test), coordinates)
            print(
                f"{name:12} {seed:4d} {gaps[-1]:7.3f} {exact - normal:13.3f} {r2:6.3f} "
                f"{pca:7.3f} {isomap:10.3f} {seconds:6.1f}",
                flush=True,
            )
        print(f"{name:12} mean {np.mean(gaps):7.3f}", flush=True)


def duration(n_rounds):
    """Ratio of CPU times in alternating rounds: one fit against Isomap and 30 mixtures."""
    print(f"{'round':>5} {'flow s':>7} {'Isomap s':>9} {'mixtures s':>11} {'ratio':>6}")
    ratios = []
    for seed in range(n_rounds):
        X, _ = SCurve(noise=0.05).sample(2500, random_state=seed)
        flow = timed_fit(ManifoldPriorFlow(random_state=seed), X)
        isomap = timed_fit(Isomap(n_neighbors=10, n_components=2), X)
        mixtures = sum(timed_fit(GaussianMixture(k, random_state=seed), X) for k in range(1, 31))
        ratios.append(flow / (isomap + mixtures))
        print(f"{seed:5d} {flow:7.1f} {isomap:9.1f} {mixtures:11.1f} {ratios[-1]:6.2f}", flush=True)
    print(f"median ratio {np.median(ratios):.2f}")


def digits(n_seeds):
    """Held-out nats of (pixel + u) / 16 in original units, chosen by GridSearchCV."""
    X, _ = load_digits(return_X_y=True)
    rng = np.random.RandomState(0)
    order = rng.permutation(len(X))
    X = (X + rng.rand(*X.shape)) / 16
    n_test = round(0.2 * len(X))
    test, train = X[order[:n_test]], X[order[n_test:]]
    normal = multivariate_normal(train.mean(0), np.cov(train.T)).logpdf(test).mean()
    print(f"normal distribution {normal:.2f}")
    for seed in range(n_seeds):
        pipeline = make_pipeline(StandardScaler(), ManifoldPriorFlow(random_state=seed))
        grid = {"manifoldpriorflow__n_components": [None, 20, 40]}
        start = time.perf_counter()
        search = GridSearchCV(pipeline, grid, cv=3, n_jobs=2).fit(train)
        seconds = time.perf_counter() - start
        # The pipeline's score is in the scaler's units.
        to_data_units = -np.log(search.best_estimator_[0].scale_).sum()
        scores = search.cv_results_["mean_test_score"] + to_data_units
        for parameters, score in zip(search.cv_results_["params"], scores, strict=True):
            print(f"seed {seed}: cross-validated {score:6.2f}  {parameters}")
        print(
            f"seed {seed}: held out {search.score(test) + to_data_units:.2f} with "
            f"{search.best_params_}, {seconds:.0f} s",
            flush=True,
        )
        model = search.best_estimator_[1]
        print(f"seed {seed}: dimension read {model.intrinsic_dimension_}")


def rescaling(n_seeds):
    """Change of the mean score, after the log-Jacobian, under changes of units."""
    print(f"{'change':24} {'seed':>4} {'|difference|':>13}")
    for seed in range(n_seeds):
        X, _ = SCurve(noise=0.05).sample(2500, random_state=seed)
        reference = ManifoldPriorFlow(random_state=seed).fit(X).score(X)
        changes = {
            "x 2^-20": (2.0**-20, 0.0),
            "x 2^7": (2.0**7, 0.0),
            "x (2^3, 2^-9, 2^20)": (2.0 ** np.array([3, -9, 20]), 0.0),
            "x 1e-8": (1e-8, 0.0),
            "x 3.7": (3.7, 0.0),
            "x 1e8": (1e8, 0.0),
            "x (1e-8, 1, 1e8)": (np.array([1e-8, 1, 1e8]), 0.0),
            "+ 1000": (1.0, 1000.0),
            "x 0.01 - 300": (0.01, -300.0),
            "+ 1e6": (1.0, 1e6),
        }
        for name, (factor, shift) in changes.items():
            changed = X * factor + shift
            score = ManifoldPriorFlow(random_state=seed).fit(changed).score(changed)
            log_jacobian = -np.log(np.broadcast_to(factor, 3)).sum()
            difference = abs(score - reference - log_jacobian)
            print(f"{name:24} {seed:4d} {difference:13.2e}", flush=True)


def fading(n_seeds):
    """Dimension, order of the grey values, and samples outside the square, 2000 images."""
    print(
        f"{'seed':>4} {'read':>4} {'|Spearman|':>10} {'eigenvalue / variance':>22} "
        f"{'RMSE outside':>12} {'next eigenvalues':>18} {'CPU s':>6}"
    )
    data = FadingSquare()
    for seed in range(n_seeds):
        X, _ = data.sample(2000, random_state=seed)
        test, coordinates = data.sample(2000, random_state=seed + 1000)
        model = ManifoldPriorFlow(image_shape=(1, 32, 32), max_iter=4, random_state=seed)
        seconds = timed_fit(model, X.astype(np.float32))
        order = abs(spearmanr(model.transform(test)[:, 0], coordinates[:, 0])[0])
        drawn = model.sample(1000, random_state=seed)
        outside = np.sqrt(np.mean(drawn[:, X.max(axis=0) == 0] ** 2))
        spectrum = model.local_spectrum_ / model.noise_floor**2
        print(
            f"{seed:4d} {model.intrinsic_dimension_:4d} {order:10.4f} "
            f"{model.prior_eigenvalues_[0] / X.sum(axis=1).var() * 36:22.3f} {outside:12.4f} "
            f"{spectrum[1]:8.2f} {spectrum[-1]:9.2f} {seconds:6.0f}",
            flush=True,
        )


def show_spectrum(name, seed, model, seconds):
    """The reading and its parts, the widest gaps as position: ratio, and the first eigenvalues."""
    spectrum = np.maximum(model.local_spectrum_, 2 * model.noise_floor**2)
    ratios = spectrum[:-1] / spectrum[1:]
    widest = np.argsort(-ratios, kind="stable")[:4]
    report = model.dimension_report_
    print(
        f"{name} seed {seed}: reads {model.intrinsic_dimension_}, {model.n_iter_} epochs, "
        f"{seconds:.0f} CPU s\n  gaps after "
        + ", ".join(f"{k + 1}: {ratios[k]:.2f}" for k in widest)
        + "\n  spectrum "
        + " ".join(f"{value:.3g}" for value in model.local_spectrum_[:24])
        + f"\n  spectrum reads {report.spectral_dimension}, neighbours {report.estimate:.2f}",
        flush=True,
    )


def vae(n_seeds, data_dir, dimensions):
    """The dimension read on what a decoder of 5 and of 10 codes draws, 10000 images."""
    for d in dimensions:
        X = vae_images(d, data_dir=data_dir).astype(np.float32)
        for seed in range(n_seeds):
            model = ManifoldPriorFlow(max_iter=VAE_EPOCHS[d], random_state=seed, **IMAGES)
            seconds = timed_fit(model, X)
            show_spectrum(f"{d} codes,", seed, model, seconds)


def fashion(n_seeds, data_dir):
    """The spectrum of Fashion-MNIST, first 10000 training images."""
    X = load_fashion_mnist(data_dir)[0][:10000].astype(np.float32)
    for seed in range(n_seeds):
        model = ManifoldPriorFlow(max_iter=12, dequantize=True, random_state=seed, **IMAGES)
        seconds = timed_fit(model, X)
        show_spectrum("Fashion-MNIST,", seed, model, seconds)


def main():
    runs = {
        "dimension": (dimension, 10),
        "likelihood": (likelihood, 3),
        "time": (duration, 3),
        "digits": (digits, 1),
        "rescaling": (rescaling, 1),
        "fading": (fading, 3),
        "vae": (vae, 3),
        "fashion": (fashion, 1),
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=runs)
    parser.add_argument("--seeds", type=int, help="number of seeds or rounds")
    parser.add_argument("--only", default="", help="dimension: sets whose name begins so")
    parser.add_argument("--data-dir", help="folder of unpacked data files: vae and fashion")
    parser.add_argument("--dimensions", type=int, nargs="+", default=[5, 10], help="codes: vae")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    run, default = runs[args.what]
    options = {
        "dimension": {"only": args.only},
        "vae": {"data_dir": args.data_dir, "dimensions": args.dimensions},
        "fashion": {"data_dir": args.data_dir},
    }.get(args.what, {})
    run(args.seeds or default, **options)


if __name__ == "__main__":
    main()
