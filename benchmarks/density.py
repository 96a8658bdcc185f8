"""NoisyInjectiveFlow against other densities: toys, tables, images, speed and awkward columns.

    python benchmarks/density.py toys      # gap to the exact density, 5 manifolds, 3 seeds
    python benchmarks/density.py tables    # held-out nats of satellite, shuttle, letter, digits
    python benchmarks/density.py images    # Fashion-MNIST: bits/dim, Frechet ratio, 5-NN accuracy
    python benchmarks/density.py speed     # CPU s to .1 nat on the S-curve, beside zuko and nflows
    python benchmarks/density.py robust    # units, repeated and constant columns

Every number is that of the defaults unless the table or ``--set name=value`` says otherwise; times
are CPU seconds of one thread. Defaults are tuned on seeds of 100 and above, ``--seeds-from 100``;
those reported start at 0. ``--models peers`` leaves the flow out, ``--models flow`` the others.

Tables and images need files: ``--data-dir``, see `_data.py`. Tables need ``pip install rdata``,
speed ``pip install --no-deps zuko nflows UMNN`` beside torch, matplotlib and tqdm.
"""

import argparse
import warnings
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import torch
from _data import TABLES, load_fashion_mnist, split_table
from _peers import SPLINES, TABLE_PEERS, TOY_PEERS, seconds_to_gap, timed
from _workers import add_set
from sklearn.datasets import make_moons
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier
from threadpoolctl import threadpool_limits
from torch import nn

import skmanifoldflow
from skmanifoldflow.datasets import SCurve, SinCurve, SwissRoll, Torus, TwoSpheres
from skmanifoldflow.metrics import bits_per_dim, frechet_distance


def noisy_injective_flow(args, **parameters):
    """The estimator with the parameters of a benchmark, those of ``--set`` above them."""
    return skmanifoldflow.NoisyInjectiveFlow(**(parameters | dict(args.set)))


def chosen_peers(args, peers):
    return {} if args.models == "flow" else peers


# toys


def toys(args):
    """Mean of exact minus model log-density on 5000 test rows, 5000 training rows, noise .05."""
    sets = {
        "sin_curve": SinCurve(noise=0.05),
        "s_curve": SCurve(noise=0.05),
        "swiss_roll": SwissRoll(noise=0.05),
        "torus": Torus(noise=0.05),
        "two_spheres": TwoSpheres(noise=0.05),
    }
    seeds = range(args.seeds_from, args.seeds_from + args.seeds)
    gaps_title = f"{'gaps':{8 * len(seeds)}}"
    print(f"{'set':12} {'model':22} {'mean gap':>9}  {gaps_title} {'CPU s':>6}  setting")
    for name, data in sets.items():
        if not name.startswith(args.only):
            continue
        draws = []
        for seed in seeds:
            X, _ = data.sample(5000, random_state=2 * seed)
            test, _ = data.sample(5000, random_state=2 * seed + 1)
            draws.append((seed, X, test, data.log_density(test).mean()))

        def report(label, fit, name=name, draws=draws):
            gaps, seconds, settings = [], [], []
            for seed, X, test, exact in draws:
                (model, setting), duration = timed(fit, X, seed)
                gaps.append(exact - model.score_samples(test).mean())
                seconds.append(duration)
                settings.append(setting)
            print(
                f"{name:12} {label:22} {np.mean(gaps):9.3f}  "
                f"{''.join(f'{gap:<8.3f}' for gap in gaps)} {np.mean(seconds):6.1f}  "
                f"{'; '.join(settings)}",
                flush=True,
            )

        for label, peer in chosen_peers(args, TOY_PEERS).items():
            report(label, lambda X, seed, peer=peer: peer(X))
        if args.models != "peers":

            def fit(X, seed):
                model = noisy_injective_flow(args, random_state=seed).fit(X)
                return model, f"d={model.n_components_}, {model.n_iter_} epochs"

            report("NoisyInjectiveFlow", fit)


# tables


def tables(args):
    """Held-out nats per row of dequantised integers, in standardised columns (digits: 1/16)."""
    print(f"{'set':10} {'train':>6} {'D':>3}  {'model':23} {'nats':>8} {'CPU s':>7}  setting")
    for name in TABLES:
        if not name.startswith(args.only):
            continue
        integers, train, test = split_table(name, args.data_dir)
        mean, scale = train.mean(axis=0), train.std(axis=0)
        unit = 16.0 if name == "digits" else scale
        integers_to_unit, standardised_to_unit = (
            np.log(np.broadcast_to(factor, len(scale))).sum() for factor in (unit, unit / scale)
        )
        size = f"{name:10} {len(train):6d} {train.shape[1]:3d} "
        nats = {}

        def report(label, setting, value, seconds, size=size, nats=nats):
            nats[label] = value
            print(f"{size} {label:23} {value:8.2f} {seconds:7.1f}  {setting}", flush=True)

        for label, peer in chosen_peers(args, TABLE_PEERS).items():
            (model, setting), seconds = timed(peer, (train - mean) / scale)
            score = model.score_samples((test - mean) / scale).mean()
            report(label, setting, score + standardised_to_unit, seconds)
        best_peer = max(nats, key=nats.get, default=None)
        for seed in range(args.seeds_from, args.seeds_from + args.seeds):
            if args.models == "peers":
                break
            # Integers, so that each epoch draws its own noise, if it is that of the test rows: the
            # flow spreads a value over the spacing, which is 2 in two columns of shuttle.
            spacings = [np.diff(np.unique(column)) for column in integers.T]
            fresh = all(spacing.min() == 1 for spacing in spacings if len(spacing))
            model = noisy_injective_flow(args, dequantize=fresh, random_state=seed)
            _, seconds = timed(model.fit, integers if fresh else train)
            score = model.score(test) + integers_to_unit
            setting = f"d={model.n_components_}, {model.n_iter_} epochs"
            setting += ", fresh noise" if fresh else ", one draw of noise"
            if model.validation_scores_:
                # In the units of the fit: each tells of overfitting by itself alone.
                best, last = max(model.validation_scores_), model.validation_scores_[-1]
                setting += f", validation best {best:.2f}, last {last:.2f}"
            report(f"NoisyInjectiveFlow {seed}", setting, score, seconds)
            if best_peer is not None:
                print(f"{size} above {best_peer}: {score - nats[best_peer]:.2f}", flush=True)


# images


IMAGE_FLOW = {
    "image_shape": (1, 28, 28),
    "dequantize": True,
    "n_layers": 6,
    "hidden_layer_sizes": (48, 64),
    "learning_rate_init": 8e-3,
}
# The same flow, with the whole space as its manifold, with 64 normal coordinates as in the paper,
# and with 64 coordinates that have a flow of their own and have to reconstruct the rows.
IMAGE_MODELS = {
    "plain flow": {"n_components": 784},
    "64, normal prior": {"n_components": 64},
    "64, flow prior": {
        "n_components": 64,
        "n_latent_layers": 8,
        "objective": "elbo",
        "reconstruction": 0.1,
    },
}


def fitted_flow(args, X, name, max_iter):
    """One of the image models after a number of epochs, and the CPU seconds of its fit.

    Fits are kept in the folder ``--output`` and found there again.
    """
    parameters = {
        **IMAGE_FLOW,
        **IMAGE_MODELS[name],
        "max_iter": max_iter,
        # All flows run all their epochs; the best one is kept all the same.
        "n_iter_no_change": max_iter,
        "random_state": args.seeds_from,
    } | dict(args.set)
    path = None
    if args.output:
        path = args.output / f"flow-{joblib.hash((parameters, X))[:10]}.joblib"
        if path.exists():
            return joblib.load(path)
    model = skmanifoldflow.NoisyInjectiveFlow(**parameters)
    result = model, timed(model.fit, X)[1]
    if path:
        joblib.dump(result, path)
    return result


def convolutional_features():
    """A small convolutional net up to its layer of 128 features."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 128),
        nn.ReLU(),
    )


def image_tensor(X):
    return torch.tensor(X, dtype=torch.float32).reshape(-1, 1, 28, 28) / 255


def trained_classifier(X, y, output, n_epochs=3, batch_size=128):
    """Features and linear head trained on images and labels, the same each time."""
    torch.manual_seed(0)
    features, head = convolutional_features(), nn.Linear(128, 10)
    classifier = nn.Sequential(features, head)
    path = output and output / "classifier.pt"
    if path and path.exists():
        classifier.load_state_dict(torch.load(path))
        return features, classifier
    images, labels = image_tensor(X), torch.tensor(y, dtype=torch.int64)
    n_steps = n_epochs * (len(images) // batch_size)
    optimizer = torch.optim.Adam(classifier.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=n_steps)
    for _ in range(n_epochs):
        order = torch.randperm(len(images))
        for batch in order[: len(order) // batch_size * batch_size].split(batch_size):
            optimizer.zero_grad()
            nn.functional.cross_entropy(classifier(images[batch]), labels[batch]).backward()
            optimizer.step()
            schedule.step()
    if path:
        torch.save(classifier.state_dict(), path)
    return features, classifier


@torch.no_grad()
def evaluated(network, X):
    return torch.cat([network(part) for part in image_tensor(X).split(1000)]).numpy()


def generated(model, draw, n_images=2000, **knobs):
    """Images of a flow, with values of 8 bits as the real ones have."""
    rows = model.sample(n_images, random_state=draw, **knobs)
    return np.clip(np.floor(rows), 0, 255)


def images(args):
    """Fashion-MNIST, 10000 training rows: bits/dim, Frechet ratio of dimension 64, 5-NN."""
    X, y, X_test, y_test = load_fashion_mnist(args.data_dir)
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
    (features, classifier), seconds = timed(trained_classifier, X, y, args.output)
    accuracy = (evaluated(classifier, X_test).argmax(axis=1) == y_test).mean()
    print(f"classifier on {len(X)} rows: test accuracy {accuracy:.4f}, {seconds:.0f} CPU s")

    # One order of the test rows for each draw: 2000 to compare with, the next 2000 as the floor.
    orders = [np.random.RandomState(draw).permutation(len(X_test)) for draw in range(args.draws)]
    real_features = evaluated(features, X_test).astype(np.float64)
    floor = np.array(
        [frechet_distance(real_features[o[:2000]], real_features[o[2000:4000]]) for o in orders]
    )

    def distance(model, draw, **knobs):
        """Frechet distance above the floor."""
        fake = evaluated(features, generated(model, draw, **knobs)).astype(np.float64)
        return frechet_distance(fake, real_features[orders[draw][:2000]]) - floor.mean()

    print(f"Frechet floor, 2000 real against 2000 real rows: {spread(floor)}", flush=True)
    X, y = X[:10000], y[:10000]
    pca = PCA(64, random_state=0).fit(X)
    neighbors = partial(neighbor_accuracy, y=y, y_test=y_test)
    print(f"5-NN accuracy: PCA-64 {neighbors(pca.transform(X), pca.transform(X_test)):.4f}")
    if args.models == "peers":
        return

    integers = X.astype(np.float32)
    print(f"{'model':18} {'epochs':>6} {'CPU s':>6} {'bits/dim':>8}")
    fits = {}
    for max_iter in args.max_iter:
        # Shorter budgets are for the bits per dimension alone.
        names = IMAGE_MODELS if max_iter == max(args.max_iter) else ["plain flow"]
        for name in names:
            fits[name], seconds = fitted_flow(args, integers, name, max_iter)
            bits = bits_per_dim(fits[name], X_test, random_state=0)
            print(f"{name:18} {fits[name].n_iter_:6d} {seconds:6.0f} {bits:8.3f}", flush=True)

    plain = np.array([distance(fits["plain flow"], draw) for draw in range(args.draws)])
    print(f"Frechet distance above the floor, plain flow: {spread(plain)}")
    for name in ("64, normal prior", "64, flow prior"):
        low = np.array(
            [distance(fits[name], draw, manifold_deviation=0) for draw in range(args.draws)]
        )
        print(f"Frechet distance above the floor, {name}, on the manifold: {spread(low)}")
        print(f"ratio {low.mean() / plain.mean():.3f}", flush=True)
    print(f"{'manifold_deviation':>18} {'temperature':>11}  " + "  ".join(IMAGE_MODELS))
    for deviation, temperature in [(0, 1), (0, 0.7), (0.25, 1), (0.5, 1), (1, 1)]:
        knobs = {"manifold_deviation": deviation, "temperature": temperature}
        distances = [f"{distance(model, 0, **knobs):10.1f}" for model in fits.values()]
        print(f"{deviation:18} {temperature:11}  " + "  ".join(distances), flush=True)
    for name, model in fits.items():
        # The middle of the cell of every integer.
        Z, Z_test = model.transform(integers + 0.5), model.transform(X_test + np.float32(0.5))
        print(f"5-NN accuracy: {name} {neighbors(Z, Z_test):.4f}", flush=True)


def spread(values):
    return f"{values.mean():.2f} ({' '.join(f'{value:.2f}' for value in values)})"


def neighbor_accuracy(Z, Z_test, y, y_test):
    """Accuracy on embedded test rows of a vote of the 5 nearest embedded training rows."""
    return KNeighborsClassifier(5, algorithm="brute").fit(Z, y).score(Z_test, y_test)


# speed


def speed(args):
    """CPU seconds until the gap to the exact density of the S-curve is .1 nat, 5000 rows."""
    data = SCurve(noise=0.05)
    for seed in range(args.seeds_from, args.seeds_from + args.seeds):
        X, _ = data.sample(5000, random_state=2 * seed)
        test, _ = data.sample(5000, random_state=2 * seed + 1)
        exact = data.log_density(test).mean()
        if args.models != "peers":
            best = np.inf
            for rate in (5e-3, 1e-2):
                max_iter = None
                while True:
                    budget = {} if max_iter is None else {"max_iter": max_iter}
                    model = noisy_injective_flow(
                        args, random_state=seed, learning_rate_init=rate, **budget
                    )
                    _, seconds = timed(model.fit, X)
                    gap = exact - model.score(test)
                    print(
                        f"seed {seed}: NoisyInjectiveFlow, learning rate {rate:g}, "
                        f"{seconds:.1f} CPU s, {model.n_iter_} epochs, gap {gap:.3f}",
                        flush=True,
                    )
                    max_iter = round(model.n_iter_ / 1.25)
                    if gap > 0.1 or max_iter < 1 or "max_iter" in dict(args.set):
                        break
                    best = min(best, seconds)
            print(f"seed {seed}: NoisyInjectiveFlow, shortest fit {best:.1f} CPU s")
        if args.models == "flow":
            continue
        mean, scale = X.mean(axis=0), X.std(axis=0)
        rows, test_rows = (torch.tensor((part - mean) / scale).float() for part in (X, test))
        target = exact + np.log(scale).sum() - 0.1
        grid = [(n, lr, b) for b in (256, 128) for lr in (2e-3, 5e-3, 1e-3) for n in (4, 8)]
        for label, build in SPLINES.items():
            # Only the fastest setting counts: the others stop when they are slower.
            fastest, fastest_settings = args.limit, None
            for settings in grid:
                seconds, step, best = seconds_to_gap(
                    build, rows, test_rows, target, settings, fastest, seed
                )
                print(
                    f"seed {seed}: {label}, {settings[0]} transforms, learning rate "
                    f"{settings[1]:g}, batch {settings[2]}: {seconds:.1f} CPU s, {step} steps, "
                    f"gap {target + 0.1 - best:.3f}",
                    flush=True,
                )
                if seconds < fastest:
                    fastest, fastest_settings = seconds, settings
            print(
                f"seed {seed}: {label}, best setting {fastest_settings}: "
                f"{'' if fastest_settings else 'more than '}{fastest:.1f} CPU s",
                flush=True,
            )


# robust


def robust(args):
    """Mean test log-density of moons in other columns and units, their log-Jacobian removed."""
    print(f"{'columns':24} {'seed':>4} {'nats':>8}  finite")
    for seed in range(args.seeds_from, args.seeds_from + args.seeds):
        X, _ = make_moons(2000, noise=0.05, random_state=2 * seed)
        test, _ = make_moons(2000, noise=0.05, random_state=2 * seed + 1)
        changes = {
            "as they are": (lambda rows: rows, 1.0),
            "repeated 4 times": (lambda rows: np.tile(rows, 4), 1.0),
            "two constant columns": (lambda rows: np.pad(rows, [(0, 0), (0, 2)]), 1.0),
            "constants 0 and 1000": (
                lambda rows: np.column_stack([rows, np.tile([0.0, 1000.0], (len(rows), 1))]),
                1.0,
            ),
            "x 0.01": (lambda rows: 0.01 * rows, 0.01),
            "x 100 + 1000": (lambda rows: 100 * rows + 1000, 100.0),
        }
        for name, (change, factor) in changes.items():
            model = noisy_injective_flow(args, random_state=seed).fit(change(X))
            scores = model.score_samples(change(test)) + X.shape[1] * np.log(factor)
            samples = model.sample(1000, random_state=seed)
            values = (scores, samples, model.transform(change(test)))
            finite = all(np.isfinite(value).all() for value in values)
            print(f"{name:24} {seed:4d} {scores.mean():8.3f}  {finite}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="what", required=True)
    for run, n_seeds in ((toys, 3), (tables, 1), (images, 1), (speed, 1), (robust, 1)):
        command = commands.add_parser(run.__name__, help=run.__doc__.splitlines()[0])
        command.set_defaults(run=run)
        command.add_argument(
            "--models", choices=("all", "flow", "peers"), default="all", help="what is fitted"
        )
        add_set(command, "the flow")
        command.add_argument("--seeds", type=int, default=n_seeds, help="number of seeds")
        command.add_argument("--seeds-from", type=int, default=0, help="first seed")
        if run in (toys, tables):
            command.add_argument("--only", default="", help="sets whose name begins so")
        if run in (tables, images):
            command.add_argument("--data-dir", help="folder of unpacked data files")
        if run is images:
            command.add_argument(
                "--max-iter", type=int, nargs="+", default=[30], help="epochs of each budget"
            )
            command.add_argument("--draws", type=int, default=3, help="draws of 2000 images")
            command.add_argument("--output", type=Path, help="folder that keeps fitted models")
        if run is speed:
            command.add_argument(
                "--limit", type=float, default=120.0, help="CPU seconds a peer's setting may take"
            )
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with threadpool_limits(1):
        args.run(args)


if __name__ == "__main__":
    main()
