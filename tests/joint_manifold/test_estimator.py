"""JointManifoldFlow against its linear ancestor, quadrature and its own promises."""

import pickle
import warnings
from dataclasses import replace

import joblib
import numpy as np
import pytest
from helpers import without_background
from scipy.integrate import trapezoid
from scipy.spatial import cKDTree
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.datasets import load_digits, make_moons
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler

from skmanifoldflow import JointManifoldFlow
from skmanifoldflow._joint_manifold import estimator as module
from skmanifoldflow._joint_manifold.objective import JointLikelihood
from skmanifoldflow.datasets import SCurve

SMALL = {"n_layers": 2, "hidden_layer_sizes": (16,), "max_iter": 10}
# A fit that takes one step too small to matter, on all rows, and so keeps its start.
FROZEN = {**SMALL, "max_iter": 1, "learning_rate_init": 1e-12, "early_stopping": False}


# A parabola t -> (t, t^2 / 2), t ~ N(0, 1), with noise of this standard deviation.
NOISE = 0.05


def _parabola(n_rows, seed):
    rng = np.random.RandomState(seed)
    t = rng.randn(n_rows)
    return np.column_stack([t, 0.5 * t**2]) + NOISE * rng.randn(n_rows, 2)


def _distance(X):
    """Distance of rows to the parabola."""
    t = np.linspace(-6, 6, 20_001)
    return cKDTree(np.column_stack([t, 0.5 * t**2])).query(X)[0]


def _log_density(X):
    """By a sum over a fine grid of t."""
    t = np.linspace(-6, 6, 6001)
    log_weight = norm.logpdf(t) + np.log(t[1] - t[0])
    log_noise = norm.logpdf(X[:, :1], t, NOISE) + norm.logpdf(X[:, 1:], 0.5 * t**2, NOISE)
    return logsumexp(log_weight + log_noise, axis=1)


@pytest.fixture(scope="module")
def curve():
    return _parabola(1000, 0)


@pytest.fixture(scope="module")
def curve_model(curve):
    settings = {"n_layers": 4, "hidden_layer_sizes": (32,), "max_iter": 40}
    return JointManifoldFlow(1, random_state=0, **settings).fit(curve)


@pytest.fixture(scope="module")
def factor_rows():
    rng = np.random.RandomState(0)
    return (rng.randn(600, 3) @ rng.randn(3, 6) + 0.3 * rng.randn(600, 6)) * np.logspace(-2, 2, 6)


@pytest.mark.parametrize("flow", ["affine", "spline", "additive"])
@pytest.mark.parametrize("d", [1, 3, 5])
@pytest.mark.parametrize("n", [39, 600])
def test_starts_at_probabilistic_pca(factor_rows, n, d, flow, monkeypatch):
    """PCA of the standardised rows, minus the log-Jacobian of the standardisation."""
    # The covariance of few rows would be shrunk.
    monkeypatch.setattr("skmanifoldflow._plan.are_few", lambda n_rows, n_features: False)
    X = factor_rows[:n]
    scaler = StandardScaler().fit(X)
    pca = PCA(d).fit(scaler.transform(X))
    expected = pca.score_samples(scaler.transform(factor_rows)) - np.log(scaler.scale_).sum()
    model = JointManifoldFlow(d, flow=flow, penalty="gaussian", random_state=0, **FROZEN).fit(X)
    scores = without_background(model).score_samples(factor_rows)
    np.testing.assert_allclose(scores, expected, rtol=1e-4)
    rebuilt = scaler.inverse_transform(
        pca.inverse_transform(pca.transform(scaler.transform(factor_rows)))
    )
    scale = scaler.scale_
    np.testing.assert_allclose(model.reconstruct(factor_rows) / scale, rebuilt / scale, atol=1e-4)


@pytest.mark.parametrize("penalty", ["huber", "laplace", "gaussian"])
def test_density_integrates_to_one(curve, penalty):
    model = JointManifoldFlow(1, penalty=penalty, random_state=0, **SMALL).fit(curve)
    x1, x2 = np.linspace(-8, 8, 801), np.linspace(-6, 8, 801)
    grid = np.stack(np.meshgrid(x1, x2, indexing="ij"), axis=-1).reshape(-1, 2)
    for stage in (1, None):
        density = np.exp(model.score_samples(grid, stage=stage)).reshape(len(x1), len(x2))
        total = trapezoid(trapezoid(density, x2, axis=1), x1)
        assert total == pytest.approx(1, abs=0.01)


def test_manifold_density_integrates_to_one_along_the_curve(curve, curve_model):
    """Over the polyline through points of the manifold, with its lengths as weights."""
    Z = curve_model.transform(curve)
    u = np.linspace(-3 * np.ptp(Z), 3 * np.ptp(Z), 8001)[:, None]
    points = curve_model.inverse_transform(u)
    density = np.exp(curve_model.score_samples_manifold(points))
    lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
    assert np.sum(0.5 * (density[1:] + density[:-1]) * lengths) == pytest.approx(1, abs=0.01)


def test_manifold_goes_through_the_curve(curve, curve_model):
    """Reconstructions and samples are nearer to the curve than the noise; PCA's are not."""
    test = _parabola(1000, 1)
    assert _distance(curve_model.reconstruct(test)).mean() < 0.5 * NOISE
    on = curve_model.sample(2000, random_state=0, manifold_deviation=0.0)
    assert _distance(on).mean() < 0.5 * NOISE
    pca = PCA(1).fit(curve)
    assert _distance(pca.inverse_transform(pca.transform(test))).mean() > 4 * NOISE
    assert curve_model.reconstruction_error_ < 0.1 * curve_model.pca_reconstruction_error_
    np.testing.assert_allclose(curve_model.reconstruct(on), on, atol=1e-7)


def test_density_is_near_the_exact_one(curve_model):
    """The Huber distribution of normal noise costs .06 nats."""
    test = _parabola(1000, 1)
    gap = np.mean(_log_density(test) - curve_model.score_samples(test))
    # So short a fit is up to .3 nats from its end, depending on its random numbers: in this one
    # the background has the rows that the map has not reached.
    assert 0 < gap < 0.4


def test_stages_do_not_lower_the_held_out_likelihood():
    """Coordinates with two clusters: a second stage is far better than a normal u."""
    rng = np.random.RandomState(0)
    t = rng.choice([-2.0, 2.0], size=700) + 0.3 * rng.randn(700)
    X = np.column_stack([t, 0.3 * t**2]) + 0.05 * rng.randn(700, 2)
    model = JointManifoldFlow(1, n_stages=3, random_state=0, **{**SMALL, "max_iter": 30}).fit(X)
    assert model.stage_components_ == (1, 1, 1)
    steps = np.diff(model.stage_scores_)
    assert steps[0] > 0.3
    assert steps[1] > -0.01
    test = X[rng.permutation(700)]
    scores = [model.score_samples(test, stage=k).mean() for k in (1, 2, 3)]
    assert scores[1] > scores[0] + 0.3
    assert model.score(test) == pytest.approx(scores[2])


@pytest.fixture(scope="module")
def nested():
    """A curved sheet of three dimensions in six columns, and its model of 3, 2 and 1 dimensions."""
    rng = np.random.RandomState(0)
    u = rng.randn(250, 3) * [2.0, 1.0, 0.4]
    X = np.column_stack([u, u[:, 0] ** 2 / 3, np.sin(u[:, 1]), u[:, 0] * u[:, 1] / 3])
    X = X @ np.linalg.qr(rng.randn(6, 6))[0] + 0.02 * rng.randn(250, 6)
    settings = {"n_layers": 4, "hidden_layer_sizes": (16,), "max_iter": 25, "random_state": 0}
    # Without outliers, which would have no part in the units of the coordinates.
    return X, JointManifoldFlow(3, penalty="gaussian", stage_components=(2, 1), **settings).fit(X)


def test_embeddings_are_nested(nested):
    X, model = nested
    assert model.stage_components_ == (3, 2, 1)
    assert model.n_components_ == 3
    assert len(model.stage_scores_) == 3
    np.testing.assert_array_equal(model.transform(X, stage=1), model.transform(X))
    errors = []
    for stage, d in enumerate((3, 2, 1), start=1):
        Z = model.transform(X, stage=stage)
        assert Z.shape == (250, d)
        assert np.all(np.diff(Z.var(axis=0)) <= 0)
        rebuilt = model.inverse_transform(Z, stage=stage)
        np.testing.assert_allclose(model.transform(rebuilt, stage=stage), Z, atol=1e-6)
        # The manifold of every stage lies in that of the first.
        np.testing.assert_allclose(model.reconstruct(rebuilt), rebuilt, atol=1e-6)
        errors.append(np.mean((rebuilt - X) ** 2))
    assert errors[0] < errors[1] < errors[2] < X.var(axis=0).mean()


def test_coordinates_are_in_data_units(nested):
    """Steps of a unit are unit distances, and orthogonal, root mean square over the rows.

    Over all of them, since there are no more than the geometry is read from.
    """
    X, model = nested
    for stage, d in enumerate((3, 2, 1), start=1):
        Z, step = model.transform(X, stage=stage), 1e-4
        there = model.inverse_transform(Z, stage=stage)
        J = [(model.inverse_transform(Z + step * e, stage=stage) - there) / step for e in np.eye(d)]
        metric = np.einsum("inj,knj->ik", J, J) / len(X)
        np.testing.assert_allclose(metric, np.eye(d), atol=1e-3)


def test_narrowing_stages_survive_a_pickle(nested):
    X, model = nested
    again = pickle.loads(pickle.dumps(model))
    assert joblib.hash(again) == joblib.hash(model)
    for stage in (1, 2, 3):
        np.testing.assert_array_equal(
            again.transform(X, stage=stage), model.transform(X, stage=stage)
        )
        np.testing.assert_array_equal(
            again.score_samples(X, stage=stage), model.score_samples(X, stage=stage)
        )


def test_the_best_stage_is_used(nested, monkeypatch):
    """Whichever it is, `score`, `score_samples` and `sample` follow that stage."""
    X, model = nested
    assert model.best_stage_ == 1 + np.argmax(model.stage_scores_)
    train = module.train_stages
    for best in (1, 2, 3):
        scores = tuple(float(stage == best) for stage in (1, 2, 3))

        def scored(*args, scores=scores):
            return replace(train(*args), scores=scores)

        monkeypatch.setattr(module, "train_stages", scored)
        other = JointManifoldFlow(**model.get_params() | {"max_iter": 8}).fit(X)
        assert other.best_stage_ == best
        np.testing.assert_array_equal(other.score_samples(X), other.score_samples(X, stage=best))
        assert other.score(X) == pytest.approx(other.score_samples(X, stage=best).mean())
        # A density is that of its samples: where it is high, there are many of them.
        drawn = other.sample(4000, random_state=0)
        gap = other.score_samples(drawn) - other.score_samples(drawn, stage=1 + best % 3)
        assert gap.mean() > 0.02
        again = pickle.loads(pickle.dumps(other))
        np.testing.assert_array_equal(again.score_samples(X), other.score_samples(X))
        np.testing.assert_array_equal(again.sample(4000, random_state=0), drawn)


def test_stages_that_do_not_exist(nested):
    X, model = nested
    for stage in (0, 4, 1.5):
        with pytest.raises(ValueError, match="stage must be between 1 and 3"):
            model.transform(X, stage=stage)
        with pytest.raises(ValueError, match="stage must be between 1 and 3"):
            model.score_samples(X, stage=stage)
    with pytest.raises(ValueError, match=r"expecting 2 features .* at stage=2"):
        model.inverse_transform(X, stage=2)


def test_column_names_are_those_of_the_first_stage(nested):
    X, model = nested
    other = pickle.loads(pickle.dumps(model)).set_output(transform="pandas")
    assert other.transform(X).shape == (250, 3)
    with pytest.raises(ValueError, match="names for 3 columns only"):
        other.transform(X, stage=2)


@pytest.fixture
def worse(monkeypatch):
    """PCA as it seems when its error is a tenth of what it is."""
    error = JointLikelihood.mean_squared_pca_residual
    monkeypatch.setattr(
        JointLikelihood, "mean_squared_pca_residual", lambda *args: 0.1 * error(*args)
    )


@pytest.fixture
def fits(monkeypatch):
    """Return a list that gets the result of each restart that is trained."""
    fits, train = [], module.train_stages
    monkeypatch.setattr(module, "train_stages", lambda *args: fits.append(train(*args)) or fits[-1])
    return fits


def test_a_manifold_worse_than_pca_is_tried_again_and_reported(factor_rows, worse, fits):
    """On normal rows no manifold can be ten times as good as PCA's."""
    model = JointManifoldFlow(2, n_init=2, random_state=0, **SMALL)
    with pytest.warns(ConvergenceWarning, match="reconstructed with") as record:
        model.fit(factor_rows)
    assert len(fits) == 2
    message = next(str(w.message) for w in record if "reconstructed" in str(w.message))
    assert f"{model.reconstruction_error_:.3g}" in message
    assert f"{model.pca_reconstruction_error_:.3g}" in message


def test_a_manifold_as_good_as_pca_is_kept(factor_rows, fits):
    model = JointManifoldFlow(2, n_init=5, random_state=0, **SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="The score still rose")
        model.fit(factor_rows)
    assert len(fits) == 1
    # On the rows that were set aside, of a PCA fitted to the others: near to that of all rows.
    rows = StandardScaler().fit_transform(factor_rows)
    left_out = np.linalg.eigvalsh(np.cov(rows.T))[:-2].sum() / 6
    assert model.pca_reconstruction_error_ == pytest.approx(left_out, rel=0.3)
    assert model.reconstruction_error_ < 1.1 * model.pca_reconstruction_error_


@pytest.mark.parametrize("seed", [0, 1])
def test_heavy_tails_resist_outliers(seed):
    """One row in twenty is a gross outlier.

    A density of all rows draws such rows too, and lies as far from the curve as they do on average.
    A fit that outliers have no part in draws rows as near to it as clean rows are.
    """
    rng = np.random.RandomState(seed)
    X = _parabola(1000, seed)
    is_outlier = np.arange(1000) < 50
    X[is_outlier] = 5 * rng.randn(50, 2)
    clean = _distance(_parabola(2000, seed + 100)).mean()
    settings = {"n_layers": 4, "hidden_layer_sizes": (32,), "max_iter": 40, "n_init": 1}
    models = {
        penalty: JointManifoldFlow(1, penalty=penalty, random_state=seed, **settings).fit(X)
        for penalty in ("huber", "gaussian")
    }
    distance = {
        penalty: _distance(model.sample(2000, random_state=0)).mean()
        for penalty, model in models.items()
    }
    assert distance["huber"] < 2 * clean < 0.5 * _distance(X).mean()
    assert distance["huber"] < 0.5 * distance["gaussian"]
    # Some outliers lie on the curve, and some clean rows at its sparse ends count as outliers.
    far = _distance(X) > 10 * NOISE
    assert -0.01 < models["huber"].outlier_share_ - far.mean() < 0.04
    assert models["gaussian"].outlier_share_ == 0
    # The density is one of all rows nevertheless: outliers are rare, not impossible.
    scores = models["huber"].score_samples(X)
    assert scores[far].max() < np.quantile(scores[~is_outlier], 0.05)
    assert scores[far].min() > -20


def test_as_many_coordinates_as_columns_is_a_plain_flow(curve):
    model = JointManifoldFlow(2, random_state=0, **SMALL).fit(curve)
    np.testing.assert_allclose(model.reconstruct(curve), curve, atol=1e-8)
    assert model.reconstruction_error_ == pytest.approx(0, abs=1e-9)
    assert model.deviation_scale_.shape == (0,)


def test_warm_start_goes_on_from_the_model():
    """A refit that hardly moves scores what the model scored, also on more rows."""
    X = SCurve(noise=0.05).sample(900, random_state=0)[0]
    model = JointManifoldFlow(2, random_state=0, warm_start=True, **SMALL).fit(X[:600])
    first, scores = model.score(X), model.stage_scores_
    model.set_params(max_iter=1, learning_rate_init=1e-12, early_stopping=False).fit(X[:600])
    assert model.score(X) == pytest.approx(first, abs=1e-3)
    assert scores[1] >= scores[0]
    model.fit(X)
    # The standardisation is that of the new rows.
    assert model.score(X) == pytest.approx(first, abs=0.2)


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
    X = change(make_moons(400, noise=0.05, random_state=0)[0])
    model = JointManifoldFlow(random_state=0, **SMALL).fit(X)
    scores = model.score_samples(X)
    assert np.isfinite(scores).all()
    # Each empty direction is worth at most a normal distribution at the floor of the noise.
    assert scores.max() < 10 + 8 * X.shape[1]
    assert np.isfinite(model.sample(50, random_state=0)).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"n_components": 4},
        {"n_components": 16, "split": "channel"},
        {"n_components": 5, "split": "channel", "stage_components": (3, 2)},
    ],
    ids=["flat", "channels", "channels of one pixel"],
)
def test_images(settings):
    X = load_digits().data[:200]
    model = JointManifoldFlow(
        image_shape=(1, 8, 8), dequantize=True, random_state=0, **settings, **SMALL
    ).fit(X)
    Z = model.transform(X + 0.5)
    assert Z.shape == (200, settings["n_components"])
    np.testing.assert_allclose(model.transform(model.inverse_transform(Z)), Z, atol=1e-5)
    assert np.isfinite(model.score_samples(X + 0.5)).all()
    flat = model.sample(20, random_state=0, manifold_deviation=0.0)
    np.testing.assert_allclose(model.reconstruct(flat), flat, atol=1e-5)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.score_samples(X), model.score_samples(X))
    scale = model.__getstate__()["_standardizer"]["scale"]
    np.testing.assert_allclose(scale, (X + 0.5).std(), rtol=0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_shape": (1, 2)}, r"image_shape must be \(C, H, W\)"),
        ({"image_shape": (1, 2, 2)}, "has 4 pixels, but X has 3 features"),
        ({"split": "channel"}, "needs image_shape"),
        ({"n_stages": 0}, "n_stages"),
        ({"penalty": "cauchy"}, "penalty"),
        ({"n_components": 2, "stage_components": (3,)}, "must not rise"),
        ({"stage_components": (1, 2)}, "must not rise"),
        ({"stage_components": ()}, "must hold integers >= 1"),
        ({"stage_components": (1.5,)}, "must hold integers >= 1"),
    ],
)
def test_bad_parameters(settings, message):
    X = SCurve(noise=0.05).sample(100, random_state=0)[0]
    with pytest.raises(ValueError, match=message):
        JointManifoldFlow(**settings).fit(X)


@pytest.mark.parametrize("d", [None, 3, 64])
def test_channels_say_which_sizes_there_are(d):
    X = np.random.RandomState(0).randn(60, 36)
    with pytest.raises(ValueError, match=r"a multiple of one of \[9\]"):
        JointManifoldFlow(d and min(d, 36), split="channel", image_shape=(1, 6, 6)).fit(X)


@pytest.mark.parametrize("scale", [1.0, 2.0**-456, 2.0**300])
def test_coordinates_that_move_nothing_in_any_units(scale):
    """Two rows in four columns that vary: most coordinates have nothing to tell."""
    X = scale * np.array([[0.0, 1, 1, 0, 1, 1, 1], [1.0, 1, 1, 1, 0, 0, 1]])
    model = JointManifoldFlow(6, random_state=0, **SMALL).fit(X)
    rebuilt = model.inverse_transform(model.transform(X))
    varies = X[0] != X[1]
    # Two rows are trained on with noise.
    np.testing.assert_allclose(rebuilt[:, varies] / scale, X[:, varies] / scale, atol=0.2)


def test_distances_of_reconstructions(curve, curve_model):
    """Those of rows set aside agree with fresh rows, and are in units of the data."""
    fresh = _parabola(4000, 2)
    distance = np.linalg.norm(curve_model.reconstruct(fresh) - fresh, axis=1)
    mean, high = curve_model.reconstruction_distances_
    assert mean == pytest.approx(distance.mean(), rel=0.5)
    # Of the hundred rows set aside one is above it.
    assert np.quantile(distance, 0.94) < high < np.quantile(distance, 0.999)
    scaled = JointManifoldFlow(1, random_state=0, **FROZEN).fit(100 * curve)
    unscaled = JointManifoldFlow(1, random_state=0, **FROZEN).fit(curve)
    np.testing.assert_allclose(
        scaled.reconstruction_distances_, 100 * unscaled.reconstruction_distances_, rtol=1e-3
    )
    pca = PCA(1).fit(curve / curve.std(axis=0))
    rebuilt = pca.inverse_transform(pca.transform(curve / curve.std(axis=0))) * curve.std(axis=0)
    expected = np.linalg.norm(rebuilt - curve, axis=1)
    found = unscaled.reconstruction_distances_
    np.testing.assert_allclose(found, [expected.mean(), np.quantile(expected, 0.99)], rtol=1e-2)
