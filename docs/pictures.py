"""The pictures of README.md and of the user guide: each is drawn from fits made here.

    python docs/pictures.py                  # all of them, into docs/images
    python docs/pictures.py first_picture    # some

All is at the defaults but for what a function names; together they take some three CPU minutes.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KernelDensity

from skmanifoldflow import (
    ChartAtlasFlow,
    JointManifoldFlow,
    ManifoldPriorFlow,
    NoisyInjectiveFlow,
    NoveltyDetector,
)
from skmanifoldflow.datasets import FigureEight, LinkedCircles, PolynomialSurface, SCurve, SinCurve
from skmanifoldflow.plotting import EmbeddingDisplay

IMAGES = Path(__file__).parent / "images"
DIGIT_COLORS = plt.get_cmap("tab10")


def cloud(figure, position, rows, title, elev=10, azim=-75, zoom=1.25, **settings):
    """Rows of three columns, without axes."""
    ax = figure.add_subplot(*position, projection="3d", title=title)
    ax.view_init(elev, azim)
    ax.set_axis_off()
    ax.set_box_aspect(np.ptp(rows, axis=0), zoom=zoom)
    ax.scatter(*rows.T, **{"s": 4, "linewidths": 0} | settings)
    return ax


def plane(figure, position, coordinates, title, **settings):
    """Rows of two columns, one unit as long on both axes."""
    ax = figure.add_subplot(*position, title=title, xticks=[], yticks=[], aspect="equal")
    ax.scatter(*coordinates.T, **{"s": 4, "linewidths": 0} | settings)
    return ax


def first_picture():
    """One fit: coordinates, dimension, log-density and new rows."""
    sheet = SCurve(noise=0.05)
    X, position = sheet.sample(2000, random_state=0)
    flow = ManifoldPriorFlow(random_state=0).fit(X)
    rng = np.random.RandomState(0)
    strange = rng.uniform(X.min(axis=0), X.max(axis=0), (400, 3))
    strange = strange[sheet.distance(strange) > 0.4][:10]
    log_density = flow.score_samples(np.vstack([X, strange]))
    found = np.sum(np.argsort(log_density)[:10] >= len(X))
    samples = flow.sample(2000, random_state=0)
    # The first coordinate upwards, and of the two directions that in which the colours run.
    Z = flow.transform(X)
    up = np.sign(np.corrcoef(Z[:, 0], X[:, 2])[0, 1])

    figure = plt.figure(figsize=(12.5, 4), layout="constrained")
    cloud(figure, (1, 4, 1), X, "your rows: three columns", c=position[:, 0])
    title = f"two numbers are enough\nintrinsic_dimension_ = {flow.intrinsic_dimension_}"
    plane(figure, (1, 4, 2), Z[:, ::-1] * [1, up], title, c=position[:, 0])
    title = f"how usual is each row?\n{found} of 10 strange rows are the least dense"
    colors = np.clip(log_density[: len(X)], -4, None)
    ax = cloud(figure, (1, 4, 3), X, title, c=colors, cmap="cividis")
    ax.scatter(*strange.T, c="red", marker="x", s=50, depthshade=False)
    colors = np.sign(np.corrcoef(Z[:, 0], position[:, 0])[0, 1]) * flow.transform(samples)[:, 0]
    cloud(figure, (1, 4, 4), samples, "new rows like yours", c=colors)
    return figure


def guided_digits():
    """Digits placed as t-SNE places them, the way back, and a walk between two of them."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.RandomState(0).permutation(len(images))
    train, test = order[360:], order[:360]
    flow = JointManifoldFlow(
        2,
        guide="tsne",
        image_shape=(1, 8, 8),
        dequantize=True,
        hidden_layer_sizes=(128, 128),
        max_iter=80,
        random_state=0,
    ).fit(images[train])
    Z, Z_test = (flow.transform(images[part] + 0.5) for part in (train, test))
    low, high = np.quantile(Z, [0.01, 0.99], axis=0)
    side = 16
    axes = [np.linspace(low[k], high[k], side) for k in (0, 1)]
    grid = np.stack(np.meshgrid(axes[0], axes[1][::-1]), axis=-1).reshape(-1, 2)
    tiles = flow.inverse_transform(grid).reshape(side, side, 8, 8).transpose(0, 2, 1, 3)
    log_density = flow.score_samples_manifold(flow.inverse_transform(grid)).reshape(side, side)
    # What is rebuilt where no digit is near is no image.
    is_empty = log_density < np.quantile(log_density, 0.3)
    tiles[np.broadcast_to(is_empty[:, None, :, None], tiles.shape)] = 0

    figure, panels = plt.subplots(1, 3, figsize=(12.5, 4.3), layout="constrained")
    left, middle, right = panels
    for digit in range(10):
        left.scatter(*Z_test[labels[test] == digit].T, s=9, color=DIGIT_COLORS(digit))
        middle_of_digit = np.median(Z_test[labels[test] == digit], axis=0)
        left.annotate(str(digit), middle_of_digit, ha="center", va="center", size=13, weight="bold")
    left.set(title="new digits, placed by a map\nlearned from t-SNE")
    middle.imshow(tiles.reshape(8 * side, 8 * side), cmap="gray_r", vmin=0, vmax=16)
    middle.set(title="the way back:\nthe image that each place stands for")
    right.imshow(np.where(is_empty, np.nan, log_density))
    right.set(title="the density, which marks places\nthat no digit is near")
    for ax in panels:
        ax.set(xticks=[], yticks=[])
    left.set(aspect="auto")
    return figure


def manifold_prior_flow():
    """A bent sheet: PCA folds it, the flow unrolls it and tells its dimension."""
    sheet = SCurve(noise=0.05)
    X, position = sheet.sample(2000, random_state=0)
    flow = ManifoldPriorFlow(random_state=0).fit(X)
    figure = plt.figure(figsize=(12.5, 3.8), layout="constrained")
    color = {"c": position[:, 0]}
    cloud(figure, (1, 4, 1), X, "rows: a bent sheet", elev=20, azim=-60, **color)
    plane(figure, (1, 4, 2), PCA(2).fit_transform(X)[:, ::-1], "PCA folds it", **color)
    Z = flow.transform(X)[:, ::-1]
    plane(figure, (1, 4, 3), Z, "ManifoldPriorFlow\nunrolls it", **color)
    ax = figure.add_subplot(1, 4, 4, title=f"and tells its dimension: {flow.intrinsic_dimension_}")
    ax.bar([1, 2, 3], np.sqrt(flow.local_spectrum_), color=["C0", "C0", "0.7"])
    ax.set(xlabel="direction", ylabel="standard deviation around a row", xticks=[1, 2, 3])
    return figure


def noisy_injective_flow():
    """A density in the plane beside those of other models, and samples on its manifold."""
    curve = SinCurve(noise=0.05)
    X, _ = curve.sample(1000, random_state=0)
    X_test, _ = curve.sample(2000, random_state=1)
    exact = curve.log_density(X_test)
    axes = np.linspace(-3, 3, 301), np.linspace(-1.6, 1.6, 161)
    grid = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    flow = NoisyInjectiveFlow(1, reconstruction=0.1, random_state=0).fit(X)
    mixtures = [GaussianMixture(k, random_state=0).fit(X) for k in (5, 10, 15, 20, 30)]
    kernels = [KernelDensity(bandwidth=h) for h in (0.03, 0.04, 0.05, 0.07, 0.1, 0.15)]
    models = {
        "GaussianMixture by BIC": min(mixtures, key=lambda mixture: mixture.bic(X)),
        "KernelDensity": max(kernels, key=lambda k: cross_val_score(k, X).mean()).fit(X),
        "NoisyInjectiveFlow": flow,
    }
    figure, panels = plt.subplots(1, 4, figsize=(12.5, 2.6), layout="constrained", sharey=True)
    panels[0].scatter(*X.T, s=2, color="0.3", linewidths=0)
    panels[0].set(title="1000 rows")
    for ax, (name, model) in zip(panels[1:], models.items(), strict=True):
        density = np.exp(model.score_samples(grid)).reshape(161, 301)
        ax.imshow(density, extent=(-3, 3, -1.6, 1.6), origin="lower", cmap="Blues", vmax=1.2)
        gap = np.mean(exact - model.score_samples(X_test))
        ax.set(title=f"{name}:\n{gap:.2f} nats below the truth")
    Z = flow.transform(X)
    on_manifold = flow.inverse_transform(np.linspace(Z.min(), Z.max(), 200)[:, None])
    panels[3].plot(*on_manifold.T, color="C3", linewidth=1.2, label="its manifold")
    panels[3].legend(loc="lower right", fontsize=8, frameon=False)
    for ax in panels:
        ax.set(xticks=[], yticks=[], xlim=(-3, 3), ylim=(-1.6, 1.6), aspect="equal")
    return figure


def chart_atlas_flow():
    """Linked circles: one map leaves bridges, an atlas does not."""
    circles = LinkedCircles(noise=0.05)
    X, _ = circles.sample(2000, random_state=0)
    plain = ChartAtlasFlow(n_charts=1, tol=0.01, random_state=0).fit(X)
    atlas = ChartAtlasFlow(n_charts=12, tol=0.01, random_state=0).fit(X)
    figure = plt.figure(figsize=(12.5, 3.4), layout="constrained")
    view = {"elev": 25, "azim": -60, "zoom": 1.3}
    cloud(figure, (1, 4, 1), X, "rows: two linked circles", **view, color="0.3")
    for k, (name, model) in enumerate({"one map": plain, "an atlas": atlas}.items()):
        samples = model.sample(2000, random_state=0)
        astray = circles.distance(samples) > 4 * circles.noise
        title = f"samples of {name}:\n{astray.mean():.1%} off the circles"
        colors = np.where(astray, "C3", "C0")
        cloud(figure, (1, 4, 2 + k), samples, title, **view, c=colors)
    colors = DIGIT_COLORS(atlas.predict(X) % 10)
    cloud(figure, (1, 4, 4), X, "its charts, each with coordinates", **view, c=colors)
    return figure


def joint_manifold_flow():
    """Rows rebuilt from two coordinates, and a curve that outliers do not pull away."""
    surface = PolynomialSurface(noise=0.0)
    X, position = surface.sample(5000, random_state=0)
    X_test, position = surface.sample(2000, random_state=1)
    flow = JointManifoldFlow(2, max_iter=40, random_state=0).fit(X)
    pca = PCA(2).fit(X)
    panels = {
        "rows on a surface": X_test,
        "rebuilt by PCA\nfrom two numbers": pca.inverse_transform(pca.transform(X_test)),
        "rebuilt by JointManifoldFlow\nfrom two numbers": flow.reconstruct(X_test),
    }
    figure = plt.figure(figsize=(12.5, 3.8), layout="constrained")
    for k, (title, rows) in enumerate(panels.items()):
        if k:
            error = np.sum((rows - X_test) ** 2) / np.sum((X_test - X.mean(axis=0)) ** 2)
            title += f": {error:.1%} is lost" if error > 0.001 else ": less than 0.1% is lost"
        cloud(figure, (1, 4, 1 + k), rows, title, elev=20, azim=-50, c=position[:, 0])
    curve = SinCurve(noise=0.02)
    X, _ = curve.sample(2000, random_state=0)
    X[:100] = 4 * np.random.RandomState(0).randn(100, 2)
    flow = JointManifoldFlow(1, max_iter=60, tol=0.05, random_state=0).fit(X)
    on_manifold = flow.sample(1000, manifold_deviation=0.0, random_state=0)
    ax = figure.add_subplot(1, 4, 4, xticks=[], yticks=[], xlim=(-4, 4), ylim=(-3, 3))
    ax.scatter(*X.T, s=5, color="0.7", linewidths=0)
    ax.scatter(*on_manifold.T, s=3, color="C3", linewidths=0)
    ax.set(title="one row in twenty is spoilt:\nits manifold goes through the others")
    return figure


def getting_started():
    """The map and the detector of the page "A table in ten minutes"."""
    data = load_breast_cancer(as_frame=True)
    table = data.data.filter(like="mean ").drop(columns=["mean perimeter", "mean area"])
    benign = data.target == 1
    model = ManifoldPriorFlow(2, discrete_features=None, random_state=0).fit(table)
    density = NoisyInjectiveFlow(noise_floor=0.1, n_layers=4, max_iter=20, discrete_features=None)
    detector = NoveltyDetector(density, random_state=0).fit(table[benign][::2])
    groups = {
        "benign, fitted to": table[benign][::2],
        "benign, new": table[benign][1::2],
        "malignant": table[~benign],
    }
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    labels = np.where(benign, "benign", "malignant")
    EmbeddingDisplay.from_estimator(model, table, labels, y_name="tumour", ax=left)
    rng = np.random.RandomState(0)
    left.set_title("a map of the table")
    names = []
    for k, (name, rows) in enumerate(groups.items()):
        p_values = detector.p_value(rows)
        heights = k + 0.6 * rng.uniform(-0.5, 0.5, len(rows))
        right.scatter(p_values, heights, s=8, linewidths=0, color=f"C{int(k == 2)}")
        share = np.mean(detector.predict(rows) == -1)
        names.append(f"{name}:\n{share:.0%} strange")
    right.axvline(0.05, color="0.4", linewidth=1)
    right.set(xscale="log", xlabel="p-value", yticks=range(3), title="how strange?")
    right.set_yticklabels(names)
    return figure


def parameters():
    """What four parameters do: a row of panels for each."""
    figure, panels = plt.subplots(4, 3, figsize=(10.5, 11), layout="constrained")
    curve = SinCurve(noise=0.05)
    X, _ = curve.sample(1000, random_state=0)
    axes = np.linspace(-3, 3, 201), np.linspace(-1.6, 1.6, 107)
    grid = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    for ax, value in zip(panels[0], (0.001, 0.1, 0.5), strict=True):
        flow = NoisyInjectiveFlow(1, noise_floor=value, random_state=0).fit(X)
        density = np.exp(flow.score_samples(grid)).reshape(107, 201)
        ax.imshow(density, extent=(-3, 3, -1.6, 1.6), origin="lower", cmap="Blues")
        ax.set_title(f"NoisyInjectiveFlow\nnoise_floor={value}")
    for ax, value in zip(panels[1], (0.0, 0.1, 1.0), strict=True):
        flow = NoisyInjectiveFlow(1, reconstruction=value, random_state=0).fit(X)
        Z = flow.transform(X)
        ax.scatter(*X.T, s=2, color="0.7", linewidths=0)
        on_manifold = flow.inverse_transform(np.linspace(Z.min(), Z.max(), 300)[:, None])
        ax.plot(*on_manifold.T, color="C3")
        ax.set(xlim=(-3, 3), ylim=(-1.6, 1.6), aspect="equal")
        nats = flow.score(curve.sample(2000, random_state=1)[0])
        ax.set_title(f"NoisyInjectiveFlow\nreconstruction={value}: {nats:.2f} nats")
    sheet = SCurve(noise=0.05)
    X, position = sheet.sample(1500, random_state=0)
    X_test, _ = sheet.sample(2000, random_state=1)
    for ax, value in zip(panels[2], (0.0, 0.1, 1.0), strict=True):
        flow = ManifoldPriorFlow(2, isometry=value, random_state=0).fit(X)
        ax.scatter(*flow.transform(X).T, c=position[:, 0], s=4, linewidths=0)
        ax.set(aspect="equal")
        ax.set_title(f"ManifoldPriorFlow\nisometry={value}: {flow.score(X_test):.2f} nats")
    circles = FigureEight(noise=0.05)
    X, _ = circles.sample(1500, random_state=0)
    for ax, value in zip(panels[3], (1, 4, 12), strict=True):
        atlas = ChartAtlasFlow(2, n_charts=value, random_state=0).fit(X)
        samples, charts = atlas.sample(1500, random_state=0, return_charts=True)
        ax.scatter(*samples[:, :2].T, c=DIGIT_COLORS(charts % 10), s=4, linewidths=0)
        astray = np.mean(circles.distance(samples) > 4 * circles.noise)
        ax.set(aspect="equal")
        ax.set_title(f"ChartAtlasFlow\nn_charts={value}: {astray:.1%} astray")
    for ax in panels.flat:
        ax.set(xticks=[], yticks=[])
    return figure


PICTURES = (
    first_picture,
    guided_digits,
    manifold_prior_flow,
    noisy_injective_flow,
    chart_atlas_flow,
    joint_manifold_flow,
    getting_started,
    parameters,
)


def main():
    torch.set_num_threads(1)
    names = [picture.__name__ for picture in PICTURES]
    unknown = set(sys.argv[1:]) - set(names)
    if unknown:
        raise SystemExit(f"unknown pictures {sorted(unknown)}: there are {', '.join(names)}")
    for picture in PICTURES:
        if not sys.argv[1:] or picture.__name__ in sys.argv[1:]:
            figure = picture()
            figure.savefig(IMAGES / f"{picture.__name__}.png", dpi=100)
            plt.close(figure)


if __name__ == "__main__":
    main()
