"""ManifoldPriorFlow against closed forms, quadrature and finite differences."""

import pickle

import numpy as np
import pytest
from helpers import without_background
from scipy.integrate import trapezoid
from scipy.stats import gamma, kstest, multivariate_normal, norm, spearmanr
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression

from skmanifoldflow import ManifoldPriorFlow
from skmanifoldflow._manifold_prior import geometry
from skmanifoldflow.datasets import FadingSquare, Line, SCurve, SinCurve

# Fits of a few epochs know little of a dimension, and say so.
pytestmark = pytest.mark.filterwarnings("ignore:The fitted (flow|mixture) is:UserWarning")

SMALL = {"n_layers": 4, "hidden_layer_sizes": (32,), "random_state": 0}


@pytest.fixture(scope="module")
def sin_rows():
    return SinCurve(noise=0.05).sample(1000, random_state=0)[0]


@pytest.fixture(scope="module")
def sin_model(sin_rows):
    return ManifoldPriorFlow(max_iter=40, **SMALL).fit(sin_rows)


@pytest.fixture(scope="module")
def sheet_model():
    X, _ = SCurve(noise=0.05).sample(600, random_state=0)
    return ManifoldPriorFlow(max_iter=30, **SMALL).fit(X)


def test_density_integrates_to_one_on_a_grid(sin_rows, sin_model):
    low, high = sin_rows.min(0) - 1.5, sin_rows.max(0) + 1.5
    axes = [np.linspace(a, b, 1500) for a, b in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    cell = np.prod([axis[1] - axis[0] for axis in axes])
    density = np.exp(sin_model.score_samples(grid.astype(np.float32)).astype(np.float64))
    assert density.sum() * cell == pytest.approx(1, abs=0.01)


def test_density_integrates_to_one_by_importance_sampling(sheet_model):
    # Samples of the model, blurred, half of them widely so that its tails are covered: a proposal
    # with a density of its own.
    rng = np.random.RandomState(0)
    centres = sheet_model.sample(1500, random_state=0)
    widths = np.array([0.15, 0.6])
    blur = widths[rng.randint(2, size=8000), None] * rng.randn(8000, 3)
    proposal = centres[rng.randint(len(centres), size=8000)] + blur
    distances = ((proposal[:, None] - centres[None]) ** 2).sum(-1)
    kernel = np.mean(
        [np.exp(-0.5 * distances / w**2) / (2 * np.pi * w**2) ** 1.5 for w in widths], axis=0
    )
    ratio = np.exp(sheet_model.score_samples(proposal)) / kernel.mean(axis=1)
    error = ratio.std() / np.sqrt(len(ratio))
    assert error < 0.02
    assert ratio.mean() == pytest.approx(1, abs=max(0.01, 3 * error))


def test_a_curve_is_found(sin_model):
    assert sin_model.intrinsic_dimension_ == 1
    assert sin_model.n_components_ == 1
    x = SinCurve(noise=0.05)
    test, coordinates = x.sample(1000, random_state=1)
    Z = sin_model.transform(test)
    assert LinearRegression().fit(Z, coordinates).score(Z, coordinates) > 0.95
    normal = multivariate_normal(test.mean(0), np.cov(test.T)).logpdf(test).mean()
    assert normal + 0.5 < sin_model.score(test) < x.log_density(test).mean()


@pytest.mark.parametrize("n_components", [None, 1, 2])
def test_initialization_is_the_linear_gaussian_ancestor(n_components):
    """With too few rows to train on, the model is the closed form: PPCA of the scaled rows."""
    rng = np.random.RandomState(0)
    X = rng.randn(39, 3) @ np.array([[2.0, 0.3, 1.0], [0, 0.5, 0.2], [0, 0, 0.4]]) + [3, -2, 50]
    floor = 1e-4
    model = ManifoldPriorFlow(n_components, noise_floor=floor, random_state=0).fit(X)
    assert model.n_iter_ == 1
    scale = X.std(0)
    Y = (X - X.mean(0)) / scale
    if n_components is None:
        expected = multivariate_normal(np.zeros(3), Y.T @ Y / len(Y)).logpdf(Y)
    else:
        # PCA divides by n - 1, maximum likelihood by n.
        pca = PCA(n_components).fit(Y)
        covariance = pca.get_covariance() * (len(Y) - 1) / len(Y)
        expected = multivariate_normal(np.zeros(3), covariance).logpdf(Y)
    scores = without_background(model).score_samples(X)
    np.testing.assert_allclose(scores, expected - np.log(scale).sum(), atol=2e-3)


def test_one_column_is_a_normal_distribution():
    X = np.random.RandomState(0).logistic(size=(500, 1))
    model = ManifoldPriorFlow(marginals="normal", random_state=0).fit(X)
    sd = X.std() * np.sqrt(1 + 0.02**2)
    np.testing.assert_allclose(
        model.score_samples(X), norm(X.mean(), sd).logpdf(X[:, 0]), atol=0.03
    )
    np.testing.assert_allclose(model.reconstruct(X), X, atol=1e-12)
    assert model.transform(X).std() == pytest.approx(X.std(), rel=1e-6)


def test_all_components_reconstruct_exactly(sin_rows):
    model = ManifoldPriorFlow(2, max_iter=5, **SMALL).fit(sin_rows)
    np.testing.assert_allclose(model.reconstruct(sin_rows), sin_rows, atol=1e-10)


def test_score_samples_is_the_change_of_variables(sin_rows, sin_model):
    """With all components the density is that of the coordinates times a Jacobian taken here by
    finite differences."""
    model = ManifoldPriorFlow(2, marginals="normal", max_iter=5, **SMALL).fit(sin_rows)
    X = sin_rows[:20]
    h = 1e-5
    columns = [
        (model.transform(X + h * e) - model.transform(X - h * e)) / (2 * h) for e in np.eye(2)
    ]
    log_det = np.linalg.slogdet(np.stack(columns, axis=-1))[1]
    Z = model.transform(X)
    latent = norm(0, np.sqrt(model.prior_eigenvalues_)).logpdf(Z)
    scores = without_background(model).score_samples(X)
    np.testing.assert_allclose(scores, latent.sum(1) + log_det, atol=1e-6)


def test_manifold_density_is_the_density_of_the_coordinates_over_the_volume():
    """The normal density of the coordinates over the volume element, taken here by finite
    differences of inverse_transform."""
    X, _ = SCurve(noise=0.05).sample(600, random_state=0)
    sheet_model = ManifoldPriorFlow(2, marginals="normal", max_iter=10, **SMALL).fit(X)
    X = sheet_model.sample(20, random_state=1)
    Z = sheet_model.transform(X)
    h = 1e-5
    d = sheet_model.n_components_
    jacobian = np.stack(
        [
            (sheet_model.inverse_transform(Z + h * e) - sheet_model.inverse_transform(Z - h * e))
            / (2 * h)
            for e in np.eye(d)
        ],
        axis=-1,
    )
    volume = 0.5 * np.linalg.slogdet(jacobian.transpose(0, 2, 1) @ jacobian)[1]
    latent = norm(0, np.sqrt(sheet_model.prior_eigenvalues_[:d])).logpdf(Z).sum(1)
    np.testing.assert_allclose(sheet_model.score_samples_manifold(X), latent - volume, atol=1e-6)


def test_marginals_are_those_of_the_rows():
    """One column is a shift and a marginal: that of the rows, a gamma distribution."""
    X = np.random.RandomState(0).gamma(3, size=(4000, 1))
    model = ManifoldPriorFlow(random_state=0).fit(X)
    test = np.random.RandomState(1).gamma(3, size=(4000, 1))
    divergence = (gamma(3).logpdf(test[:, 0]) - model.score_samples(test)).mean()
    normal = (gamma(3).logpdf(test) - norm(X.mean(), X.std()).logpdf(test)).mean()
    assert divergence < 0.03 < 0.1 < normal
    samples = model.sample(4000, random_state=0)
    assert kstest(samples[:, 0], gamma(3).cdf).statistic < 0.03
    grid = np.linspace(-5, 40, 20001)
    density = np.exp(model.score_samples(grid[:, None]))
    assert trapezoid(density, grid) == pytest.approx(1, abs=1e-3)


def test_density_along_a_curve():
    """Total variation from the exact density by arc length."""
    data = SinCurve(noise=0.0)
    X, _ = data.sample(2500, random_state=100)
    model = ManifoldPriorFlow(1, max_iter=25, random_state=1).fit(X)
    grid = np.linspace(-9, 9, 2001)[:, None]
    true = np.exp(data.log_density_manifold(grid))
    ours = np.exp(model.score_samples_manifold(data.embed(grid)))
    assert 0.5 * trapezoid(np.abs(ours - true), grid[:, 0]) < 0.06


def test_manifold_density_of_a_line_is_normal():
    """x1 = x2 = t, t ~ N(0, 1): arc length has standard deviation sqrt(2)."""
    X, _ = Line(noise=0.01).sample(400, random_state=0)
    model = ManifoldPriorFlow(1, max_iter=2, **SMALL).fit(X)
    arc = X.sum(1) / np.sqrt(2)
    expected = norm(arc.mean(), arc.std()).logpdf(arc)
    assert np.abs(model.score_samples_manifold(X) - expected).mean() < 0.1


@pytest.mark.parametrize(
    "settings",
    [
        {"recipe": "paper"},
        {"flow": "additive"},
        {"isometry": 0.0},
        {"recipe": "paper", "n_components": 1},
    ],
    ids=str,
)
def test_every_variant_beats_the_normal_distribution_and_is_normalised(sin_rows, settings):
    model = ManifoldPriorFlow(max_iter=40, **SMALL, **settings).fit(sin_rows)
    normal = multivariate_normal(sin_rows.mean(0), np.cov(sin_rows.T)).logpdf(sin_rows).mean()
    assert model.score(sin_rows) > normal + 0.3
    drawn = model.sample(3000, random_state=0)
    np.testing.assert_allclose(drawn.mean(0), sin_rows.mean(0), atol=0.2)
    # E[1 / p] over samples of p inside a box is the volume of the box where p > 0.
    edge = np.linspace(-3, 3, 600)
    grid = np.stack(np.meshgrid(edge, edge, indexing="ij"), axis=-1).reshape(-1, 2)
    mass = np.exp(model.score_samples(grid)).sum() * (edge[1] - edge[0]) ** 2
    inside = (np.abs(model.sample(20000, random_state=1)) < 3).all(1).mean()
    assert mass == pytest.approx(inside, abs=0.02)


def test_sampling_options(sin_model):
    on_manifold = sin_model.sample(200, random_state=0, manifold_deviation=0.0)
    np.testing.assert_allclose(sin_model.reconstruct(on_manifold), on_manifold, atol=1e-8)
    hot = sin_model.sample(4000, random_state=0, temperature=0.25)
    Z = sin_model.transform(hot)
    assert Z.std() == pytest.approx(0.5 * np.sqrt(sin_model.prior_eigenvalues_[0]), rel=0.05)


@pytest.mark.parametrize("power", [-20, 3, 40])
def test_powers_of_two_change_the_score_by_the_jacobian_only(sin_rows, power):
    X = sin_rows[:200]
    factor = np.array([2.0**power, 1.0])
    settings = {"max_iter": 4, **SMALL}
    plain = ManifoldPriorFlow(**settings).fit(X)
    scaled = ManifoldPriorFlow(**settings).fit(X * factor)
    expected = plain.score(X) - power * np.log(2)
    assert scaled.score(X * factor) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("factor", "shift"), [(1e-8, 0), (1e8, 0), (0.37, 1000.0), (1, -1e5)])
def test_changes_of_units(sin_rows, factor, shift):
    X = sin_rows[:200]
    settings = {"max_iter": 4, **SMALL}
    plain = ManifoldPriorFlow(**settings).fit(X).score(X)
    changed = X * factor + shift
    score = ManifoldPriorFlow(**settings).fit(changed).score(changed)
    assert score == pytest.approx(plain - 2 * np.log(factor), abs=0.01)


def degenerate_rows():
    rng = np.random.RandomState(0)
    t = rng.randn(200)
    yield "constant column", np.c_[t, np.full(200, 7.0), rng.randn(200)]
    yield "duplicated column", np.c_[t, t, rng.randn(200)]
    yield "collinear columns", np.c_[t, 2 * t + 1, -t]
    yield "duplicate rows", np.repeat(rng.randn(20, 3), 10, axis=0)
    yield "one column", t[:, None]
    yield "more columns than rows", rng.randn(50, 70)
    yield "heavy tails", rng.standard_cauchy((200, 3))
    yield "tiny and huge", rng.randn(200, 3) * [1e-6, 1, 1e6]


@pytest.mark.filterwarnings("ignore:200 of 200 rows are equal to others.*:UserWarning")
@pytest.mark.parametrize(("name", "X"), list(degenerate_rows()), ids=lambda v: str(v)[:22])
def test_degenerate_rows_give_finite_results(name, X):
    model = ManifoldPriorFlow(max_iter=10, **SMALL).fit(X)
    for result in (
        model.score_samples(X),
        model.transform(X),
        model.reconstruct(X),
        model.sample(20, random_state=0),
        model.score_samples_manifold(X),
        model.prior_eigenvalues_,
        model.loss_curve_,
    ):
        assert np.isfinite(result).all()
    if name == "duplicated column":
        assert model.intrinsic_dimension_ == 2
    if name == "collinear columns":
        assert model.intrinsic_dimension_ == 1


def test_a_large_offset_is_no_constant():
    """Time stamps in milliseconds: 1.7e12 with a standard deviation of 5."""
    rng = np.random.RandomState(0)
    X = 1.7e12 + 5 * rng.randn(20000, 1)
    model = ManifoldPriorFlow(max_iter=1, **SMALL).fit(X)
    assert model.score(X) == pytest.approx(norm(0, 5).logpdf(X - X.mean()).mean(), abs=0.01)


@pytest.mark.parametrize("value", [0.0, 1e3, 1e6])
def test_a_constant_column_does_not_scale_the_embedding(value):
    rng = np.random.RandomState(0)
    t = rng.randn(300)
    X = np.c_[t, t**2 + 0.1 * rng.randn(300), np.full(300, value)]
    model = ManifoldPriorFlow(2, max_iter=3, **SMALL).fit(X)
    assert model.transform(X).std(axis=0).max() < 5


def test_constant_rows_are_one_component():
    X = np.full((60, 3), 4.0)
    model = ManifoldPriorFlow(max_iter=3, **SMALL).fit(X)
    assert model.n_components_ == 1
    assert np.isfinite(model.score_samples(X)).all()
    np.testing.assert_allclose(model.reconstruct(X), X, atol=0.3)


def test_eigenvalues_are_variances_in_data_units():
    """On a plane the model is linear: its eigenvalues are those of the covariance, as for PCA."""
    rng = np.random.RandomState(0)
    basis = np.linalg.qr(rng.randn(3, 3))[0]
    X = (rng.randn(1000, 3) * [3.0, 1.0, 0.0]) @ basis
    model = ManifoldPriorFlow(n_components=2, max_iter=5, **SMALL).fit(X)
    assert model.intrinsic_dimension_ == 2
    ratio = model.prior_eigenvalues_[:2] / PCA(2).fit(X).explained_variance_
    assert np.all((ratio > 0.6) & (ratio < 1.6))
    np.testing.assert_allclose(model.transform(X).var(0), model.prior_eigenvalues_[:2], rtol=0.05)


def test_local_dimension_of_a_plane():
    rng = np.random.RandomState(0)
    X = np.c_[rng.randn(300, 2), 1e-3 * rng.randn(300)]
    X[:, 2] += X[:, 0]
    model = ManifoldPriorFlow(max_iter=2, **SMALL).fit(X)
    np.testing.assert_array_equal(model.local_dimension(X), 2)


@pytest.mark.parametrize(("spread", "recipe"), [("data", "default"), ("latent", "paper")])
@pytest.mark.parametrize("prior_update", ["closed_form", "gradient"])
def test_parameters_of_earlier_versions_become_a_recipe(sin_model, spread, recipe, prior_update):
    state = {name: v for name, v in sin_model.__getstate__().items() if name != "recipe"}
    state |= {"spread": spread, "prior_update": prior_update, "entropy": "ignore"}
    model = ManifoldPriorFlow()
    model.__setstate__(state)
    assert model.get_params() == sin_model.get_params() | {"recipe": recipe}
    assert not vars(model).keys() & {"spread", "prior_update", "entropy"}
    X = sin_model.sample(20, random_state=0)
    np.testing.assert_array_equal(model.score_samples(X), sin_model.score_samples(X))


def test_integers_of_digits_are_finite():
    X = load_digits().data[:150]
    model = ManifoldPriorFlow(dequantize=True, max_iter=2, **SMALL).fit(X)
    assert np.isfinite(model.score_samples(X)).all()


IMAGE = {"image_shape": (1, 8, 8), "n_layers": 4, "hidden_layer_sizes": (8,), "random_state": 0}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"n_components": 5},
        {"n_components": 64, "flow": "additive"},
        {"recipe": "paper"},
        {"isometry": 0.0, "batch_size": 16},
    ],
    ids=str,
)
def test_images(settings):
    """Every method works on images, pixels that are constant included."""
    X = load_digits().data[:200]
    model = ManifoldPriorFlow(dequantize=True, max_iter=3, **IMAGE, **settings).fit(X)
    d = model.n_components_
    assert d == settings.get("n_components", model.intrinsic_dimension_)
    Z = model.transform(X)
    assert Z.shape == (200, d)
    np.testing.assert_allclose(model.transform(model.inverse_transform(Z)), Z, atol=1e-6)
    scores = model.score_samples(X + 0.5)
    assert scores.shape == (200,)
    assert np.isfinite(scores).all()
    assert model.score(X + 0.5) == pytest.approx(scores.mean())
    assert np.isfinite(model.score_samples_manifold(X[:5])).all()
    assert model.sample(20, random_state=0).shape == (20, 64)
    flat = model.sample(20, random_state=0, manifold_deviation=0.0)
    np.testing.assert_allclose(model.reconstruct(flat), flat, atol=1e-6)
    local = model.local_dimension(X[:3])
    assert ((local >= 1) & (local <= 64)).all()


def test_pixels_are_standardised_alike():
    X = load_digits().data[:200]
    model = ManifoldPriorFlow(dequantize=True, max_iter=1, **IMAGE).fit(X)
    scale = model.__getstate__()["_standardizer"]["scale"]
    np.testing.assert_allclose(scale, (X + 0.5).std(), rtol=0.02)


def test_image_score_is_the_change_of_variables():
    """With all components the density is that of the coordinates times a Jacobian taken here by
    finite differences."""
    rng = np.random.RandomState(0)
    t = rng.randn(300, 2)
    X = np.tanh(t @ rng.randn(2, 12)) + 0.1 * rng.randn(300, 12)
    settings = {**IMAGE, "image_shape": (1, 3, 4)}
    model = ManifoldPriorFlow(12, marginals="normal", max_iter=20, **settings).fit(X)
    rows, h = X[:10], 1e-5
    columns = [
        (model.transform(rows + h * e) - model.transform(rows - h * e)) / (2 * h)
        for e in np.eye(12)
    ]
    log_det = np.linalg.slogdet(np.stack(columns, axis=-1))[1]
    latent = norm(0, np.sqrt(model.prior_eigenvalues_)).logpdf(model.transform(rows)).sum(1)
    scores = without_background(model).score_samples(rows)
    np.testing.assert_allclose(scores, latent + log_det, atol=1e-5)


def test_images_on_a_curved_surface():
    """A surface that fills five columns but for noise; its linear model has no gap at two."""
    rng = np.random.RandomState(0)
    t = rng.uniform(-1, 1, size=(1500, 2))
    bent = np.c_[t, t[:, 0] ** 2, t[:, 1] ** 2, t[:, 0] * t[:, 1]] * [1.5, 1.2, 2, 1.5, 2]
    basis = np.linalg.qr(rng.randn(36, 5))[0]
    X = bent @ basis.T + 0.01 * rng.randn(1500, 36)
    settings = {**IMAGE, "image_shape": (1, 6, 6), "hidden_layer_sizes": (8, 64)}
    model = ManifoldPriorFlow(max_iter=25, learning_rate_init=5e-3, **settings).fit(X[:1200])
    normal = multivariate_normal(X[:1200].mean(0), np.cov(X[:1200].T)).logpdf(X[1200:]).mean()
    assert model.score(X[1200:]) > normal + 2
    assert model.intrinsic_dimension_ == 2
    model = ManifoldPriorFlow(max_iter=1, early_stopping=False, **settings).fit(X[:39])
    assert model.dimension_report_.spectral_dimension != 2


@pytest.mark.filterwarnings("ignore:.*hold many ties.*:UserWarning")
def test_a_fading_square_has_one_dimension():
    X, coordinates = FadingSquare().sample(150, random_state=0)
    X = X.reshape(-1, 32, 32)[:, 7:25, 7:25].reshape(150, -1).astype(np.float32)
    settings = {**IMAGE, "image_shape": (1, 18, 18)}
    model = ManifoldPriorFlow(max_iter=1, isometry=0.0, **settings).fit(X)
    assert model.intrinsic_dimension_ == 1
    assert model.local_spectrum_.shape == (324,)
    np.testing.assert_array_equal(model.local_dimension(X[:5]), 1)
    assert abs(spearmanr(model.transform(X)[:, 0], coordinates[:, 0])[0]) > 0.999
    # 36 pixels of one grey value with variance 1 / 12.
    assert model.prior_eigenvalues_[0] == pytest.approx(36 * (X.max(1).var()), rel=0.1)
    outside = model.sample(50, random_state=0)[:, np.abs(X).max(0) == 0]
    assert np.sqrt(np.mean(outside**2)) < 0.01


def test_spectrum_of_many_columns_is_that_of_the_full_jacobian(monkeypatch):
    """Leading eigenvalues, the dimension and the log-determinant, on a flow that bends."""
    rng = np.random.RandomState(0)
    t = rng.randn(400, 3)
    X = np.tanh(t @ rng.randn(3, 100)) + 0.02 * rng.randn(400, 100)
    settings = {**IMAGE, "image_shape": (1, 10, 10)}
    model = ManifoldPriorFlow(max_iter=10, learning_rate_init=5e-3, **settings).fit(X)
    model._units = "standardised"
    exact = model._local_spectra(X[:8], np.dtype(np.float64))
    monkeypatch.setattr(geometry, "_MAX_FULL_FEATURES", 99)
    leading = model._local_spectra(X[:8], np.dtype(np.float64))
    np.testing.assert_allclose(leading[:, :20], exact[:, :20], rtol=0.05)
    np.testing.assert_allclose(np.log(leading).sum(1), np.log(exact).sum(1), atol=1e-6)
    assert (np.diff(leading, axis=1) <= 0).all()


def test_a_model_of_images_survives_pickling():
    X = load_digits().data[:100]
    model = ManifoldPriorFlow(dequantize=True, max_iter=2, **IMAGE).fit(X)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.score_samples(X), model.score_samples(X))
    warm = model.set_params(warm_start=True, max_iter=1).fit(X)
    assert np.isfinite(warm.score_samples(X)).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_shape": (1, 2)}, r"image_shape must be \(C, H, W\)"),
        ({"image_shape": (1, 2, 2)}, "has 4 pixels, but X has 2 features"),
        ({"image_shape": (1, 1, 2), "hidden_layer_sizes": ()}, "at least one size"),
    ],
)
def test_bad_image_parameters(sin_rows, settings, message):
    with pytest.raises(ValueError, match=message):
        ManifoldPriorFlow(**settings).fit(sin_rows)
