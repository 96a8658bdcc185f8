"""NoisyInjectiveFlow against its linear ancestors, quadrature and its own equations."""

import pickle
import warnings

import joblib
import numpy as np
import pytest
from helpers import without_background
from scipy.integrate import trapezoid
from scipy.stats import multivariate_normal
from sklearn.datasets import load_digits, make_moons
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.preprocessing import StandardScaler

from skmanifoldflow import NoisyInjectiveFlow, _base
from skmanifoldflow.datasets import SCurve, SinCurve, Sphere

SMALL = {"n_layers": 2, "hidden_layer_sizes": (16,), "max_iter": 10}
# A fit that takes one step too small to matter, on all rows, and so keeps its start.
FROZEN = {**SMALL, "max_iter": 1, "learning_rate_init": 1e-12, "early_stopping": False}


@pytest.fixture(scope="module")
def factor_rows():
    """Three factors in eight columns of different units, with noise."""
    rng = np.random.RandomState(0)
    loadings = rng.randn(3, 8)
    noise = rng.randn(600, 8) * np.linspace(0.2, 0.6, 8)
    return (rng.randn(600, 3) @ loadings + noise) * np.logspace(-2, 2, 8) + 5.0


@pytest.fixture(scope="module")
def curve():
    return SinCurve(noise=0.05).sample(1000, random_state=0)[0]


@pytest.fixture(scope="module")
def curve_model(curve):
    return NoisyInjectiveFlow(1, n_layers=4, max_iter=30, random_state=0).fit(curve)


@pytest.mark.parametrize("flow", ["spline", "affine", "additive", "autoregressive"])
@pytest.mark.parametrize("d", [1, 3, 7, 8])
@pytest.mark.parametrize("n", [39, 600])
def test_starts_at_probabilistic_pca(factor_rows, n, d, flow, monkeypatch):
    """To 1e-6: PCA of the standardised rows, minus the log-Jacobian of the standardisation."""
    # The covariance of few rows would be shrunk.
    monkeypatch.setattr("skmanifoldflow._plan.are_few", lambda n_rows, n_features: False)
    X = factor_rows[:n]
    scaler = StandardScaler().fit(X)
    pca = PCA(d).fit(scaler.transform(X))
    expected = pca.score_samples(scaler.transform(factor_rows)) - np.log(scaler.scale_).sum()
    model = NoisyInjectiveFlow(d, flow=flow, random_state=0, **FROZEN).fit(X)
    scores = without_background(model).score_samples(factor_rows)
    np.testing.assert_allclose(scores, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("d", [1, 3])
def test_starts_at_factor_analysis(factor_rows, d):
    scaler = StandardScaler().fit(factor_rows)
    rows = scaler.transform(factor_rows)
    analysis = FactorAnalysis(d, tol=1e-8, max_iter=1000, svd_method="lapack").fit(rows)
    expected = analysis.score_samples(rows) - np.log(scaler.scale_).sum()
    model = NoisyInjectiveFlow(d, noise_covariance="diag", random_state=0, **FROZEN)
    model.fit(factor_rows)
    # Both stop when the likelihood of all rows rises by less than 1e-8 in a step.
    scores = without_background(model).score_samples(factor_rows)
    np.testing.assert_allclose(scores, expected, atol=1e-5, rtol=0)
    # The posterior mean is the embedding of factor analysis, but for the order of the factors.
    coordinates = model.posterior_mean(factor_rows) / np.sqrt(model.explained_variance_)
    factors = analysis.transform(rows)
    correlation = np.abs(np.corrcoef(coordinates.T, factors.T)[:d, d:])
    np.testing.assert_allclose(correlation.max(0), 1, atol=1e-4)
    np.testing.assert_allclose(np.sort(coordinates.std(0)), np.sort(factors.std(0)), rtol=1e-4)


def test_factor_analysis_of_fewer_rows_than_components_is_finite():
    X = np.random.RandomState(0).randn(12, 30)
    model = NoisyInjectiveFlow(20, noise_covariance="diag", random_state=0).fit(X)
    assert np.isfinite(model.score_samples(X)).all()


def test_unsupported_columns_are_dropped(factor_rows):
    rows = StandardScaler().fit_transform(factor_rows)
    noise = np.random.RandomState(1).randn(600, 8)
    three = rows @ PCA(3).fit(rows).components_.T @ PCA(3).fit(rows).components_
    model = NoisyInjectiveFlow(random_state=0, **FROZEN).fit(three + 0.1 * noise)
    assert model.n_components_ == 3
    assert NoisyInjectiveFlow(random_state=0, **FROZEN).fit(noise).n_components_ == 1
    # A generic covariance is supported in full.
    full = noise @ np.diag(np.logspace(0, 2, 8)) @ np.random.RandomState(2).randn(8, 8)
    assert NoisyInjectiveFlow(random_state=0, **FROZEN).fit(full).n_components_ >= 7


def test_density_integrates_to_one(curve_model):
    x1, x2 = np.linspace(-9, 9, 901), np.linspace(-4, 4, 801)
    grid = np.stack(np.meshgrid(x1, x2, indexing="ij"), axis=-1).reshape(-1, 2)
    density = np.exp(curve_model.score_samples(grid)).reshape(901, 801)
    total = trapezoid(trapezoid(density, x2, axis=1), x1)
    assert total == pytest.approx(1, abs=0.01)


def test_flow_beats_its_initialization(curve, curve_model):
    test = SinCurve(noise=0.05).sample(1000, random_state=1)[0]
    normal = multivariate_normal(curve.mean(0), np.cov(curve.T)).logpdf(test).mean()
    assert curve_model.score(test) > normal + 1.5


def test_best_validation_weights_are_kept(curve, monkeypatch):
    """On the rows that were set aside the model scores what the best epoch scored."""
    train_all, seen = _base.train_all, []

    def watched(jobs, log):
        seen.append(jobs[0].validation_rows)
        return train_all(jobs, log)

    monkeypatch.setattr(_base, "train_all", watched)
    # Long steps on few rows: the last epochs are worse than the best one.
    settings = {"max_iter": 60, "learning_rate_init": 0.03, "random_state": 2}
    model = NoisyInjectiveFlow(**settings).fit(curve[:200])
    best = max(model.validation_scores_)
    assert model.validation_scores_[-1] < best - 0.01
    standardizer = model._standardizer
    rows = standardizer.inverse(seen[0].double()).numpy()
    log_det = -float(standardizer.scale.log().sum())
    assert without_background(model).score(rows) - log_det == pytest.approx(best, abs=1e-4)


def test_coordinates_are_in_data_units(curve, curve_model):
    """A unit of a coordinate is a unit of distance, root mean square over the rows."""
    Z = curve_model.transform(curve)
    step = 1e-4
    moved = curve_model.inverse_transform(Z + step) - curve_model.inverse_transform(Z)
    lengths = np.linalg.norm(moved, axis=1) / step
    assert np.sqrt((lengths**2).mean()) == pytest.approx(1, abs=0.1)
    on = curve_model.sample(20_000, random_state=0, manifold_deviation=0.0)
    assert curve_model.transform(on).var() == pytest.approx(
        curve_model.explained_variance_[0], rel=0.05
    )


def test_manifold_deviation_0_lies_on_the_manifold(curve_model):
    on = curve_model.sample(200, random_state=0, manifold_deviation=0.0)
    np.testing.assert_allclose(curve_model.reconstruct(on), on, atol=1e-8)
    off = curve_model.sample(200, random_state=0)
    assert np.abs(curve_model.reconstruct(off) - off).max() > 0.02
    still = curve_model.sample(200, random_state=0, temperature=0.0, manifold_deviation=0.0)
    np.testing.assert_allclose(still, still[:1].repeat(200, axis=0), atol=1e-12)


def test_stochastic_inverse_spreads_around_the_pseudo_inverse(curve, curve_model):
    draws = curve_model.sample_latent(curve[:20], 4000, random_state=0)
    assert draws.shape == (4000, 20, 1)
    spread = draws.std(0)
    np.testing.assert_allclose(
        draws.mean(0), curve_model.transform(curve[:20]), atol=5 * spread.max() / 60
    )
    again = curve_model.sample_latent(curve[:20], 4000, random_state=0)
    np.testing.assert_array_equal(again, draws)
    shrunk = curve_model.posterior_mean(curve)
    centre = curve_model.transform(curve)
    assert np.all(np.abs(shrunk) <= np.abs(centre) + 1e-12)


@pytest.mark.parametrize(
    ("data", "dimension"),
    [(SinCurve(noise=0.05), 1), (SCurve(noise=0.05), 2), (Sphere(2, noise=0.05), 2)],
    ids=["sin curve", "S-curve", "sphere"],
)
def test_dimension_of_the_manifold_is_read(data, dimension):
    X = data.sample(2500, random_state=100)[0]
    model = NoisyInjectiveFlow(max_iter=25, random_state=0).fit(X)
    assert model.intrinsic_dimension_ == dimension
    assert np.median(model.local_dimension(X[:100])) == dimension


KINDS = {
    "plain": {"n_components": 3},
    "diag": {"n_components": 2, "noise_covariance": "diag"},
    "prior flow": {"n_components": 2, "n_latent_layers": 2, "objective": "elbo"},
    "prior flow, plain": {"n_components": 3, "n_latent_layers": 2, "objective": "elbo"},
    "coupling": {"n_components": 2, "injection": "coupling", "objective": "elbo"},
    "autoregressive": {"n_components": 2, "flow": "autoregressive"},
    "affine": {"n_components": 1, "flow": "affine"},
    "bounded": {"n_components": 2, "bounded": (-9.0, 9.0)},
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_contract_of_every_kind(kind, dtype):
    """Copies, single rows, dtypes and the inverse."""
    X = SCurve(noise=0.05).sample(200, random_state=0)[0].astype(dtype)
    model = NoisyInjectiveFlow(random_state=0, **KINDS[kind], **{**SMALL, "max_iter": 3}).fit(X)
    copy = pickle.loads(pickle.dumps(model))
    assert joblib.hash(copy) == joblib.hash(model)
    tolerance = {"rtol": 1e-10, "atol": 1e-10} if dtype == np.float64 else {"atol": 1e-3}
    for method in ("transform", "score_samples", "posterior_mean", "score_samples_manifold"):
        result = getattr(model, method)(X)
        assert result.dtype == dtype
        assert np.isfinite(result).all()
        np.testing.assert_array_equal(getattr(copy, method)(X), result)
        alone = np.concatenate([getattr(model, method)(row[None]) for row in X[:20]])
        np.testing.assert_allclose(alone, result[:20], **tolerance)
    Z = model.transform(X)
    tolerance = 1e-7 if dtype == np.float64 else 1e-2
    np.testing.assert_allclose(model.transform(model.inverse_transform(Z)), Z, atol=tolerance)
    np.testing.assert_array_equal(copy.sample(5, random_state=0), model.sample(5, random_state=0))
    assert copy.to("cpu").device_ == "cpu"


@pytest.mark.parametrize(
    "settings", [{}, {"n_components": 1}, {"injection": "coupling", "objective": "elbo"}]
)
def test_warm_start_goes_on_from_the_model(settings):
    """A refit that hardly moves scores what the model scored, also on more rows."""
    X = np.exp(1.5 * SCurve(noise=0.05).sample(900, random_state=0)[0])
    model = NoisyInjectiveFlow(random_state=0, warm_start=True, **settings, **SMALL).fit(X[:600])
    first = model.score(X)
    model.set_params(max_iter=1, learning_rate_init=1e-12, early_stopping=False).fit(X[:600])
    assert model.score(X) == pytest.approx(first, abs=1e-3)
    model.fit(X)
    # The standardisation is that of the new rows, a half more of heavy tails.
    assert model.score(X) == pytest.approx(first, abs=0.4)


def test_unsupported_columns_do_not_spoil_importance_samples():
    """Rank 2 in 6 columns, 4 components: with the prior flow at rest scores are the exact ones."""
    rng = np.random.RandomState(0)
    X = rng.randn(300, 2) @ rng.randn(2, 6)
    exact = NoisyInjectiveFlow(4, random_state=0, **FROZEN).fit(X)
    estimated = NoisyInjectiveFlow(
        4, n_latent_layers=2, objective="elbo", random_state=0, **FROZEN
    ).fit(X)
    np.testing.assert_allclose(estimated.score_samples(X), exact.score_samples(X), atol=0.3, rtol=0)


@pytest.mark.parametrize("settings", [{"n_latent_layers": 2}, {"injection": "coupling"}])
def test_bounds_tighten_with_more_importance_samples(settings):
    X = SCurve(noise=0.05).sample(400, random_state=0)[0]
    means = [
        NoisyInjectiveFlow(
            2,
            objective="elbo",
            n_importance_samples=k,
            early_stopping=False,
            random_state=0,
            **settings,
            **SMALL,
        )
        .fit(X)
        .score(X)
        for k in (4, 32, 512)
    ]
    # Validation apart, the fits are the same: only their scores differ.
    assert means[0] < means[1] < means[2]


@pytest.mark.parametrize("settings", [{"n_latent_layers": 2}, {"injection": "coupling"}])
def test_estimated_density_integrates_to_one(settings):
    """By importance sampling from a broad normal distribution in 3-D."""
    X = SCurve(noise=0.1).sample(400, random_state=0)[0]
    model = NoisyInjectiveFlow(
        2, objective="elbo", n_importance_samples=64, random_state=0, **settings, **SMALL
    ).fit(X)
    reference = multivariate_normal(X.mean(0), 3 * np.cov(X.T))
    rows = reference.rvs(40_000, random_state=0)
    ratio = np.exp(model.score_samples(rows) - reference.logpdf(rows))
    assert ratio.mean() == pytest.approx(1, abs=0.05)


def test_elbo_of_a_normal_prior_still_scores_exactly():
    """The bound trains, the closed form scores: the density is normalised."""
    X = SinCurve(noise=0.1).sample(400, random_state=0)[0]
    model = NoisyInjectiveFlow(1, objective="elbo", random_state=0, **SMALL).fit(X)
    reference = multivariate_normal(X.mean(0), 3 * np.cov(X.T))
    rows = reference.rvs(40_000, random_state=0)
    ratio = np.exp(model.score_samples(rows) - reference.logpdf(rows))
    assert ratio.mean() == pytest.approx(1, abs=0.05)
    assert np.isfinite(model.validation_scores_).all()


def _moons():
    return make_moons(400, noise=0.05, random_state=0)[0]


@pytest.mark.parametrize(
    ("change", "log_jacobian"),
    [
        (lambda X: 0.01 * X, -2 * np.log(0.01)),
        (lambda X: 100 * X + 1000, -2 * np.log(100)),
        (lambda X: X * [1e-8, 1e8], 0.0),
    ],
    ids=["x 0.01", "x 100 + 1000", "columns"],
)
def test_units_do_not_matter(change, log_jacobian):
    X = _moons()
    reference = NoisyInjectiveFlow(random_state=0, **SMALL).fit(X).score(X)
    changed = change(X)
    score = NoisyInjectiveFlow(random_state=0, **SMALL).fit(changed).score(changed)
    assert score - log_jacobian == pytest.approx(reference, abs=1e-2)


@pytest.mark.filterwarnings("ignore:400 of 400 rows are equal to others.*:UserWarning")
@pytest.mark.parametrize(
    "change",
    [
        lambda X: np.hstack([X, X, X, X]),
        lambda X: np.hstack([X, np.full((len(X), 2), 3.0)]),
        lambda X: np.repeat(X[:100], 4, axis=0),
        lambda X: X[:, :1],
    ],
    ids=["repeated columns", "constant columns", "duplicate rows", "one column"],
)
def test_degenerate_rows_stay_bounded(change):
    X = change(_moons())
    model = NoisyInjectiveFlow(random_state=0, **SMALL).fit(X)
    scores = model.score_samples(X)
    assert np.isfinite(scores).all()
    # Each empty direction is worth at most a normal distribution at the floor of the noise.
    assert scores.max() < 10 + 8 * X.shape[1]
    drawn = model.sample(50, random_state=0)
    assert np.isfinite(drawn).all()
    assert (model.score_samples(model.reconstruct(X)) > -50).all()


@pytest.fixture(scope="module")
def images():
    X, y = load_digits(return_X_y=True)
    return X[:200], y[:200]


IMAGE = {"image_shape": (1, 8, 8), "dequantize": True, "n_layers": 1, "hidden_layer_sizes": (8,)}


@pytest.mark.parametrize(
    "settings",
    [
        {"n_components": 10},
        {"n_components": 64},
        {"n_components": 16, "injection": "upsampling"},
        {"n_components": 4, "injection": "upsampling"},
        {
            "n_components": 16,
            "injection": "upsampling",
            "n_latent_layers": 1,
            "objective": "elbo",
            "n_importance_samples": 4,
        },
        {
            "n_components": 12,
            "injection": "coupling",
            "objective": "elbo",
            "n_importance_samples": 4,
        },
    ],
    ids=["linear", "plain", "upsampling", "upsampling by 4", "deep upsampling", "coupling"],
)
def test_images(images, settings):
    """Every layer of the image architecture works in both directions."""
    X, _ = images
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = NoisyInjectiveFlow(random_state=0, max_iter=3, **IMAGE, **settings).fit(X)
    Z = model.transform(X)
    assert Z.shape == (200, settings["n_components"])
    np.testing.assert_allclose(model.transform(model.inverse_transform(Z)), Z, atol=1e-6)
    assert np.isfinite(model.score_samples(X + 0.5)).all()
    drawn = model.sample(20, random_state=0)
    assert drawn.shape == (20, 64)
    assert np.isfinite(drawn).all()
    assert model.posterior_mean(X).shape == Z.shape
    if settings["n_components"] < 64:
        flat = model.sample(20, random_state=0, manifold_deviation=0.0)
        np.testing.assert_allclose(model.reconstruct(flat), flat, atol=1e-6)
        assert np.abs(flat - drawn).max() > 0.1


def test_pixels_are_standardised_alike(images):
    X, _ = images
    model = NoisyInjectiveFlow(4, random_state=0, **{**IMAGE, "max_iter": 1}).fit(X)
    scale = model.__getstate__()["_standardizer"]["scale"]
    np.testing.assert_allclose(scale, (X + 0.5).std(), rtol=0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_shape": (1, 2)}, r"image_shape must be \(C, H, W\)"),
        ({"image_shape": (1, 2, 2)}, "has 4 pixels, but X has 3 features"),
        ({"image_shape": (1, 1, 3), "hidden_layer_sizes": ()}, "at least one size"),
        ({"n_latent_layers": 2}, "use objective='elbo'"),
        ({"injection": "coupling"}, "use objective='elbo'"),
        (
            {"injection": "coupling", "objective": "elbo", "n_components": 1},
            "at least 2 features and 2 components",
        ),
        ({"injection": "upsampling"}, "needs image_shape"),
        ({"injection": "upsampling", "image_shape": (3, 1, 1)}, "even height and width"),
    ],
)
def test_bad_parameters(settings, message):
    X = SCurve(noise=0.05).sample(100, random_state=0)[0]
    with pytest.raises(ValueError, match=message):
        NoisyInjectiveFlow(**settings).fit(X)


def test_upsampling_says_which_sizes_there_are():
    X = np.random.RandomState(0).randn(60, 64)
    with pytest.raises(ValueError, match=r"expected one of \[1, 4, 16\]"):
        NoisyInjectiveFlow(5, injection="upsampling", image_shape=(1, 8, 8)).fit(X)


def test_number_of_draws_is_checked(curve, curve_model):
    with pytest.raises(ValueError, match="n_draws must be an integer >= 1"):
        curve_model.sample_latent(curve, 0)


@pytest.mark.parametrize("settings", [{}, {"n_latent_layers": 2, "objective": "elbo"}])
def test_manifold_density_integrates_to_one_along_the_curve(curve, settings):
    """Over the polyline through points of the manifold, with its lengths as weights."""
    model = NoisyInjectiveFlow(1, random_state=0, **settings, **SMALL).fit(curve)
    u = np.linspace(-12, 12, 6001)[:, None] * np.sqrt(model.explained_variance_)
    points = model.inverse_transform(u)
    density = np.exp(model.score_samples_manifold(points))
    lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
    assert np.sum(0.5 * (density[1:] + density[:-1]) * lengths) == pytest.approx(1, abs=0.01)


def test_reconstruction_weight_brings_the_manifold_to_the_rows():
    """The error of rows rebuilt from two coordinates falls below that of PCA."""
    X = SCurve(noise=0.05).sample(600, random_state=0)[0]
    test = SCurve(noise=0.05).sample(600, random_state=1)[0]
    scale = X.std(axis=0)

    def error(reconstructed):
        return np.mean(((reconstructed - test) / scale) ** 2)

    pca = PCA(2).fit(X / scale)
    linear = error(pca.inverse_transform(pca.transform(test / scale)) * scale)
    settings = {"n_layers": 4, "hidden_layer_sizes": (32,), "max_iter": 40}
    model = NoisyInjectiveFlow(2, reconstruction=1.0, random_state=0, **settings).fit(X)
    assert error(model.reconstruct(test)) < 0.7 * linear
