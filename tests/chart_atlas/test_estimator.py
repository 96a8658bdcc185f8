"""ChartAtlasFlow against mixtures of normal distributions, quadrature and Bayes' rule."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import without_background
from scipy.integrate import simpson
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from skmanifoldflow import ChartAtlasFlow
from skmanifoldflow._mixture_of_pca import best_number_of_charts
from skmanifoldflow.datasets import FigureEight, LinkedCircles, Sphere

# The autoencoder takes most of a small fit: where it does not matter, principal axes do.
SMALL = {
    "n_layers": 2,
    "hidden_layer_sizes": (16,),
    "quantizer": "kmeans",
    "max_iter": 10,
    "random_state": 0,
}
TRAINED = {**SMALL, "quantizer": "vq-ae"}
# A fit that takes one step too small to matter, on all rows, and so keeps its start.
FROZEN = {**SMALL, "max_iter": 1, "learning_rate_init": 1e-12, "early_stopping": False}
MAPS = ["ambient", "conformal"]


@pytest.fixture(scope="module")
def curve():
    return FigureEight(noise=0.05).sample(400, random_state=0)[0] * [3.0, 1.0] + [5.0, -2.0]


@pytest.fixture(scope="module", params=MAPS)
def curve_model(request, curve):
    return ChartAtlasFlow(2, n_charts=6, chart_map=request.param, **SMALL).fit(curve)


@pytest.fixture(scope="module")
def model(curve):
    return ChartAtlasFlow(2, n_charts=6, **TRAINED).fit(curve)


def _normal_distributions(model):
    """Yield weight, mean and covariance of every chart at the start, in data units."""
    unit = model._standardizer.scale.numpy()
    order = model._standardizer.signed_order
    place, signs = order.order.argsort().numpy(), order.signs.numpy()
    k = 0
    for partition in model._flow.partitions:
        frames = partition.chart_map.frames
        parts = (frames.mean, frames.axes, frames.scale, frames.rest)
        for mean, axes, scale, rest in zip(*(part.numpy() for part in parts), strict=True):
            across = np.eye(len(axes)) - axes @ axes.T
            covariance = axes * scale**2 @ axes.T + rest**2 * across
            mean = signs * (mean * unit + model._standardizer.mean.numpy())
            covariance = covariance * np.outer(signs * unit, signs * unit)
            yield model.chart_weights_[k], mean[place], covariance[np.ix_(place, place)]
            k += 1


def _mixture_log_density(model, X):
    return logsumexp(
        [
            np.log(w) + multivariate_normal(m, c).logpdf(X)
            for w, m, c in _normal_distributions(model)
        ],
        axis=0,
    )


# ---------------------------------------------------------------------- the start


@pytest.mark.parametrize("n", [39, 400])
@pytest.mark.parametrize("chart_map", MAPS)
def test_a_single_chart_starts_at_the_normal_distribution(n, chart_map):
    """With two columns: mean and maximum-likelihood covariance of the rows, in their units."""
    rng = np.random.RandomState(0)
    X = rng.randn(n, 2) @ [[30.0, 0.5], [0.0, 0.1]] + [100.0, 0.0]
    distribution = multivariate_normal(X.mean(0), np.cov(X.T, bias=True))
    model = ChartAtlasFlow(n_charts=1, chart_map=chart_map, **FROZEN).fit(X)
    scores = without_background(model).score_samples(X)
    np.testing.assert_allclose(scores, distribution.logpdf(X), atol=1e-4)


@pytest.mark.parametrize("settings", [{"n_charts": 5}, {}, {"n_charts": 4, "flow": "spline"}])
@pytest.mark.parametrize("chart_map", MAPS)
def test_starts_at_a_mixture(curve, settings, chart_map):
    model = ChartAtlasFlow(2, chart_map=chart_map, **{**FROZEN, **settings}).fit(curve)
    expected = _mixture_log_density(model, curve)
    np.testing.assert_allclose(without_background(model).score_samples(curve), expected, atol=1e-5)
    # And the mixture is a good one, which few distributions of the plane are.
    plain = multivariate_normal(curve.mean(0), np.cov(curve.T)).logpdf(curve).mean()
    assert model.score(curve) > plain + 0.3


def test_blobs_start_at_their_normal_distributions():
    """As scipy has them, one for each blob, with its share of the rows.

    All but half a row of all rows, which holds small charts back.
    """
    rng = np.random.RandomState(0)
    parts = [
        rng.randn(300, 2) @ [[1.0, 0.5], [0.0, 0.4]],
        rng.randn(100, 2) @ [[0.3, 0.0], [0.2, 1.0]] + [40.0, 0.0],
    ]
    X = rng.permutation(np.concatenate(parts))
    expected = logsumexp(
        [
            np.log(len(part) / 400)
            + multivariate_normal(part.mean(0), np.cov(part.T, bias=True)).logpdf(X)
            for part in parts
        ],
        axis=0,
    )
    model = ChartAtlasFlow(n_charts=2, **FROZEN).fit(X)
    assert model.score(X) == pytest.approx(expected.mean(), abs=0.05)
    np.testing.assert_allclose(np.sort(model.chart_weights_), [0.25, 0.75], atol=0.005)
    centres = model.chart_centers_[np.argsort(model.chart_centers_[:, 0])]
    np.testing.assert_allclose(centres, [part.mean(0) for part in parts], atol=0.25)


def test_wide_tables_start_at_a_mixture_of_few_axes():
    rng = np.random.RandomState(0)
    X = np.concatenate([rng.randn(60, 3) @ rng.randn(3, 80), rng.randn(60, 80) + 3.0])
    X = rng.permutation(X + 0.1 * rng.randn(120, 80))
    model = ChartAtlasFlow(3, n_charts=2, **FROZEN).fit(X)
    expected = _mixture_log_density(model, X)
    np.testing.assert_allclose(without_background(model).score_samples(X), expected, rtol=1e-5)
    trained = ChartAtlasFlow(3, n_charts=2, **{**SMALL, "max_iter": 2}).fit(X)
    assert np.isfinite(trained.score_samples(X)).all()
    Z, charts = trained.chart_transform(X)
    np.testing.assert_allclose(trained.chart_inverse_transform(Z, charts), X, atol=1e-4)


def test_conformal_charts_of_wide_tables_are_refused():
    """Their frames need all axes, of which wide tables keep some only."""
    with pytest.raises(ValueError, match="needs 2 to 64 features, got n_features=70"):
        ChartAtlasFlow(2, n_charts=2, chart_map="conformal").fit(np.eye(70))


# ---------------------------------------------------------------------- density


def test_density_integrates_to_one_in_the_plane(curve, curve_model):
    x = np.linspace(curve[:, 0].min() - 6, curve[:, 0].max() + 6, 301)
    y = np.linspace(curve[:, 1].min() - 2, curve[:, 1].max() + 2, 301)
    grid = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2)
    density = np.exp(curve_model.score_samples(grid)).reshape(len(x), len(y))
    assert simpson(simpson(density, x=y), x=x) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("chart_map", MAPS)
def test_density_integrates_to_one_in_space(chart_map):
    """By importance sampling from normal distributions around the rows, wider than their noise."""
    X = Sphere(noise=0.1).sample(500, random_state=0)[0]
    model = ChartAtlasFlow(3, n_charts=5, chart_map=chart_map, **SMALL).fit(X)
    rng = np.random.RandomState(0)
    centres, width = X[:150], 0.4
    points = centres[rng.randint(150, size=20_000)] + width * rng.randn(20_000, 3)
    # A tenth of the points are far from the rows.
    wide = multivariate_normal(X.mean(0), 4.0)
    is_wide = rng.uniform(size=len(points)) < 0.1
    points[is_wide] = wide.rvs(is_wide.sum(), random_state=rng)
    squares = ((points[:, None] - centres) ** 2).sum(2) / width**2
    near = np.exp(-squares / 2).mean(1) / (2 * np.pi * width**2) ** 1.5
    ratio = np.exp(model.score_samples(points)) / (0.9 * near + 0.1 * wide.pdf(points))
    error = ratio.std() / np.sqrt(len(points))
    assert error < 0.01
    assert ratio.mean() == pytest.approx(1, abs=4 * error)


def test_a_density_on_the_line_integrates_to_one():
    rng = np.random.RandomState(0)
    X = np.concatenate([rng.randn(200, 1), 8 + 0.2 * rng.randn(200, 1)])
    model = ChartAtlasFlow(n_charts=3, **SMALL).fit(X)
    grid = np.linspace(-15, 20, 20_001)[:, None]
    assert simpson(np.exp(model.score_samples(grid)), x=grid[:, 0]) == pytest.approx(1, abs=1e-4)


def test_charts_beat_a_plain_flow_on_linked_circles():
    manifold = LinkedCircles(noise=0.05)
    X, test = manifold.sample(1000, random_state=0)[0], manifold.sample(1000, random_state=1)[0]
    settings = {**SMALL, "n_layers": 3, "hidden_layer_sizes": (32,), "max_iter": 15}
    settings["random_state"] = 1
    plain = ChartAtlasFlow(3, n_charts=1, **settings).fit(X).score(test)
    atlas = ChartAtlasFlow(3, n_charts=12, **settings).fit(X)
    assert atlas.score(test) > plain + 0.3
    start = ChartAtlasFlow(3, n_charts=12, **{**FROZEN, "random_state": 1}).fit(X)
    start = _mixture_log_density(start, test).mean()
    assert atlas.score(test) > start


# ---------------------------------------------------------------------- charts


def test_chart_probabilities_are_those_of_bayes(curve, curve_model):
    """p_k p(x|k) over their sum, each density by the exact Jacobian of the chart in data units."""
    X = curve[:4]
    log_joint = np.empty((4, 6))
    for k in range(6):
        Z = curve_model.chart_transform(X, np.full(4, k))[0]
        for i in range(4):
            columns = []
            for step in 1e-6 * np.eye(2):
                ends = np.stack([X[i] + step, X[i] - step])
                up, down = curve_model.chart_transform(ends, np.full(2, k))[0]
                columns.append((up - down) / 2e-6)
            log_det = np.linalg.slogdet(np.array(columns))[1]
            log_joint[i, k] = norm.logpdf(Z[i]).sum() + log_det
    log_joint += np.log(curve_model.chart_weights_)
    np.testing.assert_allclose(
        without_background(curve_model).score_samples(X), logsumexp(log_joint, axis=1), atol=1e-5
    )
    expected = np.exp(log_joint - logsumexp(log_joint, axis=1, keepdims=True))
    np.testing.assert_allclose(curve_model.predict_proba(X), expected, atol=1e-5)
    np.testing.assert_array_equal(curve_model.predict(X), expected.argmax(1))


def test_chart_probabilities_sum_to_one(curve, model):
    """Also of rows so far away that no chart has any density left."""
    far = np.array([[1e6, -1e6], [1e200, 1e200]])
    probabilities = model.predict_proba(np.concatenate([curve, far]))
    assert probabilities.min() >= 0
    np.testing.assert_allclose(probabilities.sum(1), 1)


def test_a_chart_without_weight_is_no_error():
    """Far more charts than the rows fill lose their weight; rows far away still have charts."""
    rng = np.random.RandomState(0)
    X = np.concatenate([0.1 * rng.randn(40, 2), 0.1 * rng.randn(40, 2) + 50])
    settings = {**SMALL, "hidden_layer_sizes": (8,), "max_iter": 60}
    model = ChartAtlasFlow(2, n_charts=20, early_stopping=False, **settings).fit(X)
    far = [[1e200, -1e200]]
    np.testing.assert_allclose(model.predict_proba(far).sum(1), 1)
    assert model.score_samples(far)[0] < -1e100
    assert np.isfinite(model.score_samples(X)).all()


def test_chart_coordinates_have_an_inverse(curve, curve_model):
    Z, charts = curve_model.chart_transform(curve)
    assert Z.shape == curve.shape
    np.testing.assert_array_equal(charts, curve_model.predict(curve))
    back = curve_model.chart_inverse_transform(Z, charts)
    np.testing.assert_allclose(back, curve, atol=1e-6)
    # In charts that are given too.
    others = (charts + 1) % 6
    Z, same = curve_model.chart_transform(curve[:50], others[:50])
    np.testing.assert_array_equal(same, others[:50])
    back = curve_model.chart_inverse_transform(Z, same)
    np.testing.assert_allclose(back, curve[:50], atol=1e-4)


def test_weights_and_attributes(curve, model):
    assert model.n_charts_ == 6
    assert model.chart_weights_.sum() == pytest.approx(1, abs=1e-12)
    assert model.chart_centers_.shape == (6, 2)
    assert model.codebook_.shape == (6, 2)
    assert model.chart_dimensions_.shape == (6,)
    # The mean of the probabilities is what the weights follow.
    np.testing.assert_allclose(model.predict_proba(curve).mean(0), model.chart_weights_, atol=0.04)
    low, high = curve.min(0) - 1, curve.max(0) + 1
    assert ((model.chart_centers_ > low) & (model.chart_centers_ < high)).all()


def test_sampled_charts_have_their_weights(model):
    model = without_background(model)
    X, charts = model.sample(10_000, random_state=0, return_charts=True)
    expected = 10_000 * model.chart_weights_
    observed = np.bincount(charts, minlength=6)
    assert ((observed - expected) ** 2 / expected).sum() < 25
    np.testing.assert_array_equal(X, model.sample(10_000, random_state=0))
    # A row comes from a chart as probable as its probability says.
    probabilities = model.predict_proba(X)
    share = (probabilities.argmax(1) == charts).mean()
    assert share == pytest.approx(probabilities.max(1).mean(), abs=0.02)


def test_samples_follow_the_density(model):
    """Cross-entropies of samples and of rows of a grid: the mean score is minus the entropy."""
    grid = np.stack(
        np.meshgrid(np.linspace(-6, 16, 221), np.linspace(-6, 2, 221), indexing="ij"), axis=-1
    )
    log_density = model.score_samples(grid.reshape(-1, 2))
    cell = (22 / 220) * (8 / 220)
    minus_entropy = (np.exp(log_density) * log_density).sum() * cell
    scores = model.score_samples(model.sample(20_000, random_state=0))
    assert scores.mean() == pytest.approx(minus_entropy, abs=5 * scores.std() / np.sqrt(20_000))


def test_samples_without_deviation_are_nearer_to_the_manifold():
    manifold = LinkedCircles(noise=0.03)
    X = manifold.sample(600, random_state=0)[0]
    model = ChartAtlasFlow(3, n_charts=12, **SMALL).fit(X)
    far = manifold.distance(model.sample(1000, random_state=0)).mean()
    near = manifold.distance(model.sample(1000, random_state=0, manifold_deviation=0)).mean()
    assert near < 0.75 * far
    still = model.sample(1000, random_state=0, manifold_deviation=0, temperature=0)
    assert len(np.unique(still.round(6), axis=0)) == 12


def test_latent_samples_are_coordinates_in_charts_of_their_probability(curve, model):
    row = curve[model.predict_proba(curve).max(1).argmin()]
    probabilities = model.predict_proba(row[None])[0]
    Z = model.latent_samples(np.repeat(row[None], 4000, axis=0), random_state=0)
    choices = model.chart_transform(np.repeat(row[None], 6, axis=0), np.arange(6))[0]
    distances = np.linalg.norm(Z[:, None] - choices, axis=2)
    np.testing.assert_allclose(distances.min(1), 0, atol=1e-9)
    shares = np.bincount(distances.argmin(1), minlength=6) / 4000
    np.testing.assert_allclose(shares, probabilities, atol=0.04)
    again = model.latent_samples(curve, random_state=3)
    np.testing.assert_array_equal(again, model.latent_samples(curve, random_state=3))


def test_expected_latent_is_the_mean_over_charts(curve, model):
    X = curve[:40]
    probabilities = model.predict_proba(X)
    expected = sum(
        probabilities[:, k, None] * model.chart_transform(X, np.full(40, k))[0] for k in range(6)
    )
    np.testing.assert_allclose(model.expected_latent(X), expected, atol=1e-9)


def test_clusters_have_dimensions_of_their_own():
    """A line and a sheet, far apart."""
    rng = np.random.RandomState(0)
    line = np.column_stack([rng.uniform(-2, 2, 400), np.zeros(400), np.zeros(400)])
    sheet = np.column_stack([rng.uniform(-2, 2, (600, 2)), np.full(600, 12.0)])
    X = np.concatenate([line, sheet]) + 0.02 * rng.randn(1000, 3)
    model = ChartAtlasFlow(3, n_charts=6, **SMALL).fit(X)
    dimension = model.local_dimension(X)
    assert (dimension[:400] == 1).mean() > 0.95
    assert (dimension[400:] == 2).mean() > 0.95
    # Most rows are on the sheet.
    assert np.bincount(model.chart_dimensions_, weights=model.chart_weights_).argmax() == 2


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_of_the_rows_hides_no_dimension(order, monkeypatch):
    """Two clusters of different dimension, one after the other, each beyond what is looked at."""
    monkeypatch.setattr("skmanifoldflow._chart_atlas.dimensions._MAX_COMPARED_ROWS", 100)
    rng = np.random.RandomState(0)
    blob = rng.randn(300, 2)
    line = np.repeat(rng.uniform(9, 15, (300, 1)), 2, axis=1) + 0.01 * rng.randn(300, 2)
    X = np.concatenate([blob, line][::order])
    model = ChartAtlasFlow(2, n_charts=2, **{**SMALL, "max_iter": 1}).fit(X)
    assert (model.local_dimension(blob[:50]) == 2).all()
    assert (model.local_dimension(line[:50]) == 1).all()


def test_the_order_of_the_rows_hides_no_chart(monkeypatch):
    """Four blobs, one after the other, the first of which is all that is looked at."""
    monkeypatch.setattr("skmanifoldflow._mixture_of_pca._MAX_COMPARED_ROWS", 500)
    rng = np.random.RandomState(0)
    centres = [[0, 0], [0, 20], [20, 0], [20, 20]]
    X = np.concatenate(
        [rng.randn(n, 2) + c for n, c in zip((500, 50, 50, 500), centres, strict=True)]
    )
    assert best_number_of_charts(X, 1e-3) == 4


# ---------------------------------------------------------------------- embedding


def test_linear_embedding_is_that_of_principal_components(curve):
    """Of the rows that are trained on, standardised; the signs are free."""
    model = ChartAtlasFlow(1, n_charts=4, **FROZEN).fit(curve)
    rows = StandardScaler().fit_transform(curve)
    coordinates = PCA(1).fit_transform(rows)
    correlation = np.corrcoef(coordinates[:, 0], model.transform(curve)[:, 0])[0, 1]
    assert abs(correlation) == pytest.approx(1, abs=1e-9)


def test_a_trained_embedding_rebuilds_rows_better_than_principal_components():
    """A closed curve of three equal columns, whose third one follows from the others."""
    angle = np.random.RandomState(0).uniform(0, 2 * np.pi, 1000)
    X = StandardScaler().fit_transform(
        np.column_stack([np.cos(angle), np.sin(angle), np.cos(angle) * np.sin(angle)])
    )
    model = ChartAtlasFlow(2, n_charts=8, **{**TRAINED, "hidden_layer_sizes": (32,)}).fit(X)
    pca = PCA(2).fit(X)
    linear = np.mean((pca.inverse_transform(pca.transform(X)) - X) ** 2)
    assert np.mean((model.reconstruct(X) - X) ** 2) < 0.5 * linear


def test_default_number_of_components_follows_the_dimension():
    """2 d + 1 for the dimension that small cells show, at most the number of columns."""
    rng = np.random.RandomState(0)
    X = np.column_stack([rng.uniform(-3, 3, 600), 0.01 * rng.randn(600, 5)])
    X = X @ np.linalg.qr(rng.randn(6, 6))[0]
    model = ChartAtlasFlow(n_charts=4, **FROZEN).fit(X)
    assert model.n_components_ == 3
    assert model.transform(X).shape == (600, 3)


# ---------------------------------------------------------------------- parameters


def test_several_partitions_are_one_mixture(curve):
    model = ChartAtlasFlow(2, **{**SMALL, "max_iter": 3}).fit(curve)
    assert model.n_charts_ > 16
    assert len(model.chart_weights_) == len(model.codebook_) == model.n_charts_
    probabilities = model.predict_proba(curve)
    assert probabilities.shape == (400, model.n_charts_)
    Z, charts = model.chart_transform(curve)
    np.testing.assert_allclose(model.chart_inverse_transform(Z, charts), curve, atol=1e-5)
    grid = np.stack(
        np.meshgrid(np.linspace(-6, 16, 221), np.linspace(-6, 2, 221), indexing="ij"), axis=-1
    )
    density = np.exp(model.score_samples(grid.reshape(-1, 2)))
    assert density.sum() * (22 / 220) * (8 / 220) == pytest.approx(1, abs=0.01)


def test_warm_start_keeps_the_charts(curve):
    model = ChartAtlasFlow(2, n_charts=6, warm_start=True, **SMALL).fit(curve)
    first, centres = model.score(curve), model.chart_centers_
    model.set_params(max_iter=5).fit(curve)
    np.testing.assert_allclose(model.chart_centers_, centres, atol=1e-6)
    assert model.score(curve) > first - 0.05
    # Another number of charts is another model.
    model.set_params(n_charts=3).fit(curve)
    assert model.n_charts_ == 3


@pytest.mark.parametrize("chart_map", MAPS)
def test_float32_rows(curve, chart_map):
    X = curve.astype(np.float32)
    model = ChartAtlasFlow(2, n_charts=4, chart_map=chart_map, **SMALL).fit(X)
    Z, charts = model.chart_transform(X)
    results = (
        Z,
        model.chart_inverse_transform(Z, charts),
        model.score_samples(X),
        model.expected_latent(X),
        model.latent_samples(X, random_state=0),
        model.sample(5, random_state=0),
    )
    assert all(result.dtype == np.float32 for result in results)
    np.testing.assert_allclose(results[1], X, atol=1e-3)
    np.testing.assert_allclose(results[2], model.score_samples(curve), atol=0.01)
    np.testing.assert_allclose(model.predict_proba(X).sum(1), 1, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"objective": "sampled"},
        {"quantizer": "vq-ae"},
        {"overlap": 0.0, "n_neighbors_charts": 1},
        {"noise_start": 0.1},
        {"n_neighbors_charts": 20},
    ],
)
def test_other_settings_train_too(curve, settings):
    """None ends below the mixture that it starts from."""
    model = ChartAtlasFlow(2, n_charts=5, **{**SMALL, **settings}).fit(curve)
    start = clone(model).set_params(learning_rate_init=1e-12, max_iter=1).fit(curve)
    assert model.score(curve) > start.score(curve) - 0.05


def test_dequantized_rows_spread_over_their_steps():
    """The mass of a unit square is the frequency of its integers."""
    rng = np.random.RandomState(0)
    X = rng.binomial([3, 4], 0.5, size=(600, 2)).astype(float)
    model = ChartAtlasFlow(2, n_charts=6, dequantize=True, **{**SMALL, "max_iter": 30}).fit(X)
    for corner in ([1, 2], [2, 2], [1, 1]):
        points = np.asarray(corner) + rng.uniform(size=(4000, 2))
        mass = np.exp(model.score_samples(points)).mean()
        assert mass == pytest.approx((corner == X).all(1).mean(), abs=0.04)


def test_charts_are_counted_on_dequantized_rows():
    """Ties look like as many clusters, which the rows that are trained on do not have."""
    rng = np.random.RandomState(0)
    X = rng.binomial(6, 0.4, size=(400, 1)).astype(float)
    spread = ChartAtlasFlow(**FROZEN).fit(X + rng.uniform(size=X.shape))
    assert ChartAtlasFlow(dequantize=True, **FROZEN).fit(X).n_charts_ == spread.n_charts_


def test_bounded_rows_stay_in_the_box():
    rng = np.random.RandomState(0)
    X = rng.beta(2, 1, size=(500, 2))
    model = ChartAtlasFlow(2, n_charts=3, bounded=(0.0, 1.0), **SMALL).fit(X)
    middle = (np.arange(400) + 0.5) / 400
    grid = np.stack(np.meshgrid(middle, middle), axis=-1).reshape(-1, 2)
    assert np.exp(model.score_samples(grid)).mean() == pytest.approx(1, abs=0.02)
    assert model.score_samples([[0.5, 1.1]])[0] == -np.inf
    drawn = model.sample(500, random_state=0)
    assert drawn.min() > 0
    assert drawn.max() < 1
    Z, charts = model.chart_transform(X)
    np.testing.assert_allclose(model.chart_inverse_transform(Z, charts), X, atol=1e-5)
    assert ((model.chart_centers_ > 0) & (model.chart_centers_ < 1)).all()


def test_frames_of_pandas_pass_every_method(curve):
    """Rows whose columns have names raise no warning about names."""
    X = pd.DataFrame(curve, columns=["a", "b"])
    model = ChartAtlasFlow(2, n_charts=3, **{**SMALL, "max_iter": 1}).fit(X)
    for method in ("predict", "predict_proba", "expected_latent", "local_dimension"):
        assert len(getattr(model, method)(X)) == len(X)
    assert len(model.chart_transform(X)[0]) == len(X)
    assert len(model.latent_samples(X, random_state=0)) == len(X)


@pytest.mark.parametrize(
    "X",
    [np.zeros((50, 2)), np.repeat(np.eye(3), 30, axis=0), np.arange(4.0).reshape(2, 2)],
    ids=["constant", "repeated", "two rows"],
)
def test_degenerate_rows(X):
    for settings in ({}, {"n_charts": 2}, {"n_charts": 2, "chart_map": "conformal"}):
        model = ChartAtlasFlow(**settings, **{**SMALL, "max_iter": 2}).fit(X)
        assert np.isfinite(model.score_samples(X)).all()
        assert np.isfinite(model.transform(X)).all()
        assert np.isfinite(model.sample(5, random_state=0)).all()


def test_fit_leaves_no_gradient_and_knows_its_charts_after_a_copy(curve, model):
    assert not any(p.requires_grad for p in model._flow.parameters())
    other = copy.deepcopy(model)
    for options in ({}, {"manifold_deviation": 0}):
        np.testing.assert_array_equal(
            other.sample(9, random_state=0, **options), model.sample(9, random_state=0, **options)
        )
    np.testing.assert_array_equal(other.local_dimension(curve), model.local_dimension(curve))
    assert torch.equal(other._flow.dimensions, model._flow.dimensions)


@pytest.mark.parametrize(
    ("settings", "n_features", "message"),
    [
        ({"n_charts": 91}, 2, "n_charts=91 must be at most the number of rows .* 90"),
        ({"n_charts": 0}, 2, "n_charts"),
        ({"chart_map": "conformal"}, 1, "needs 2 to 64 features"),
        ({"chart_map": "flat"}, 2, "chart_map"),
        ({"quantizer": "vq"}, 2, "quantizer"),
        ({"overlap": -0.1}, 2, "overlap"),
        ({"objective": "likelihood"}, 2, "objective"),
        ({"n_neighbors_charts": 0}, 2, "n_neighbors_charts"),
    ],
)
def test_bad_parameters(settings, n_features, message):
    X = np.random.RandomState(0).randn(100, n_features)
    with pytest.raises(ValueError, match=message):
        ChartAtlasFlow(**settings).fit(X)


def test_bad_charts_and_coordinates(curve, model):
    X = curve[:3]
    with pytest.raises(ValueError, match="between 0 and n_charts_ - 1 = 5"):
        model.chart_transform(X, [0, 1, 6])
    with pytest.raises(ValueError, match="between 0 and n_charts_ - 1 = 5"):
        model.chart_inverse_transform(X, [0, -1, 2])
    with pytest.raises(ValueError, match="an integer for each of 3 rows"):
        model.chart_transform(X, [0, 1])
    with pytest.raises(ValueError, match="an integer for each of 3 rows"):
        model.chart_transform(X, [0.0, 1.0, 2.0])
    with pytest.raises(ValueError, match="expecting 2 features as input of chart_inverse"):
        model.chart_inverse_transform(np.zeros((3, 1)), [0, 1, 2])
    with pytest.raises(ValueError, match="temperature must be >= 0"):
        model.sample(1, temperature=-1, return_charts=True)


@pytest.mark.parametrize(
    "settings",
    [
        {"n_charts": 6, "n_neighbors_charts": 1, "overlap": 0.0},
        {"n_charts": 6, "n_neighbors_charts": 2},
        {"n_charts": 6, "n_neighbors_charts": 9},
        {"n_charts": None, "n_neighbors_charts": 2, "overlap": 0.5},
    ],
)
def test_charts_cover_the_rows_near_their_centres(curve, settings):
    """By the definition, from the codes and the codebook, in each partition of the rows."""
    model = ChartAtlasFlow(2, **{**SMALL, "max_iter": 1}, **settings).fit(curve)
    codes = model.transform(curve)
    distances = np.linalg.norm(codes[:, None] - model.codebook_, axis=2)
    expected = np.empty_like(distances, dtype=bool)
    for chart_slice in model._flow.slices:
        d = distances[:, chart_slice]
        m = min(settings["n_neighbors_charts"], d.shape[1])
        reach = np.sort(d, axis=1)[:, m - 1, None]
        expected[:, chart_slice] = d <= (1 + model.overlap) * reach
    covers = model.covering_charts(curve)
    assert covers.dtype == bool
    np.testing.assert_array_equal(covers, expected)
    assert 0 < expected.mean() < 1 or settings["n_neighbors_charts"] == 9
    np.testing.assert_array_equal(model.covering_charts(curve[:1]), covers[:1])
    float32 = model.covering_charts(curve.astype(np.float32))
    assert (float32 == covers).mean() > 0.99


def test_the_step_of_repeated_values_is_that_of_all_rows():
    """Whichever rows are set aside: the only 9 of each column may be among them."""
    X = np.random.RandomState(0).choice([0.0, 4.0, 8.0], size=(100, 2))
    X[0] = 9
    for seed in range(10):
        model = ChartAtlasFlow(
            dequantize=True, bounded=(0.0, 10.0), **SMALL | {"random_state": seed}
        )
        plan = model._plan(X)
        assert plan.spread.step.tolist() == [1, 1]


def test_more_charts_than_rows_are_an_error_after_a_warm_start_too():
    rng = np.random.RandomState(0)
    model = ChartAtlasFlow(n_charts=20, warm_start=True, **SMALL)
    model.fit(rng.standard_normal((200, 2)))
    with pytest.raises(ValueError, match="n_charts=20 must be at most the number of rows"):
        model.fit(rng.standard_normal((12, 2)))
