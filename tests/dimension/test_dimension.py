"""Readings of the dimension against spectra, distributions and shapes of known dimension."""

import pickle

import numpy as np
import pytest
from helpers import every_estimator
from scipy.spatial.distance import cdist
from scipy.stats import kurtosis, multivariate_normal, spearmanr
from sklearn.base import clone
from sklearn.datasets import make_moons

from skmanifoldflow import (
    ChartAtlasFlow,
    DimensionReport,
    JointManifoldFlow,
    ManifoldPriorFlow,
    NoisyInjectiveFlow,
    intrinsic_dimension,
)
from skmanifoldflow._dimension import (
    LocalMixture,
    check_scale,
    dimension_at_scale,
    fit_local_mixture,
    neighbor_dimensions,
    prepare_rows,
    read_distinct_rows,
    read_spectra,
    read_spectrum,
    spectral_dimension,
)
from skmanifoldflow._dimension.units import _dependence_of_squares
from skmanifoldflow.datasets import (
    Helix,
    RandomNetwork,
    SCurve,
    Sphere,
    StickAndBall,
    SwissRoll,
    TorusSphere,
)

SMALL = {"n_layers": 4, "hidden_layer_sizes": (32,), "max_iter": 30, "random_state": 0}


# Spectra


@pytest.mark.parametrize(
    ("spectrum", "dimension"),
    [
        ([5.0, 1.0, 0.002], 2),
        ([5.0, 0.02, 0.01], 1),
        # No gap: all of them.
        ([3.0, 2.0, 1.0], 3),
        ([3.0, 1.0, 0.2], 3),
        # Some are noise, so that a narrower gap will do.
        ([5.0, 4.0, 0.003, 0.0021, 0.0004], 2),
        ([0.05, 0.04, 0.01, 0.006, 0.0004], 4),
        # A gap below what was added is none.
        ([1.0, 0.0005, 0.00001], 1),
        ([0.0004, 0.0003, 0.0002], 1),
    ],
)
def test_widest_gap(spectrum, dimension):
    assert read_spectrum(np.array(spectrum), 0.02**2) == dimension


def test_the_noise_that_was_added_may_count_as_an_eigenvalue():
    """The one difference between both readings: .0075 is as far from the noise as from .066."""
    spectrum = np.array([0.22, 0.066, 0.0075])
    assert read_spectrum(spectrum, 0.02**2) == 2
    assert spectral_dimension(spectrum, 0.02**2) == 3


def test_spectra_are_read_in_the_clearer_units():
    flat, clear = np.full((4, 3), [1.0, 0.9, 0.8]), np.full((4, 3), [2.0, 1.0, 0.01])
    reading = read_spectra({"standardised": flat, "data": clear}, 0.02**2)
    assert (reading.dimension, reading.units) == (2, "data")
    reading = read_spectra({"standardised": clear, "data": flat}, 0.02**2)
    assert (reading.dimension, reading.units) == (2, "standardised")
    spectra = {"standardised": np.array([[1.0, 0.01], [1.0, 1.0]])}
    weighted = read_spectra(spectra, 0.02**2, weights=np.array([0.25, 0.75]))
    np.testing.assert_allclose(weighted.spectrum, [1.0, 0.01**0.25])


def test_dimension_at_a_scale():
    spectra = np.array([[4.0, 0.09, 0.01], [1.0, 0.5, 0.3], [1e-4, 1e-5, 0.0]])
    np.testing.assert_array_equal(dimension_at_scale(spectra, 0.2), [2, 3, 1])
    assert check_scale(1) == 1.0
    for scale in (0, -1.0, np.nan, np.inf, "1", True):
        with pytest.raises(ValueError, match="scale must be a positive finite number"):
            check_scale(scale)


# Nearest neighbours


@pytest.mark.parametrize("n_features", [3, 20])
def test_neighbor_dimensions_solve_the_likelihood_of_ratios(n_features):
    """At k = 1 the estimate is that of TwoNN; the thinnest quarter of the rows is left out."""
    X = np.random.RandomState(0).standard_normal((400, n_features))
    distances = np.sort(cdist(X, X), axis=1)[:, 1:]
    distances = distances[np.argsort(distances[:, 7])[:300]]
    found = neighbor_dimensions(X, 3)
    assert found[0] == pytest.approx(1 / np.mean(np.log(distances[:, 1] / distances[:, 0])))
    # E log(r_2k / r_k) = (1/k + ... + 1/(2k - 1)) / d.
    expected = (1 / 4 + 1 / 5 + 1 / 6 + 1 / 7) / np.mean(np.log(distances[:, 7] / distances[:, 3]))
    assert found[2] == pytest.approx(expected)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_neighbor_dimensions_of_a_cube_in_more_columns(d):
    rng = np.random.RandomState(0)
    X = rng.uniform(size=(3000, d)) @ np.linalg.qr(rng.standard_normal((8, d)))[0].T
    # Low by the boundary, more so in more dimensions and at larger scales.
    found = neighbor_dimensions(X)
    assert (found > 0.7 * d).all()
    assert (found < 1.05 * d).all()


# Units and noise


def test_prepared_rows_do_not_depend_on_units():
    rng = np.random.RandomState(0)
    X = np.sin(rng.uniform(-1, 1, (500, 3)) @ rng.standard_normal((3, 6)))
    rows = prepare_rows(X, True).rows
    scaled = prepare_rows(X * 10.0 ** rng.uniform(-2, 2, 6) + 7, True).rows
    np.testing.assert_allclose(cdist(scaled, scaled), cdist(rows, rows), atol=1e-9)
    repeated = prepare_rows(np.c_[X, np.ones(500), X[:, :2], X.sum(axis=1)], True).rows
    np.testing.assert_allclose(cdist(repeated, repeated), cdist(rows, rows), atol=1e-6)
    assert rows.var(axis=0).sum() == pytest.approx(rows.shape[1], rel=0.01)


@pytest.mark.parametrize("turned", [False, True], ids=["columns of noise", "turned"])
def test_noise_of_one_size_is_found(turned):
    X, _ = Sphere(2, 12, noise=0.0).sample(2000, random_state=0)
    rng = np.random.RandomState(0)
    if turned:
        X = X @ np.linalg.qr(rng.standard_normal((12, 12)))[0]
    prepared = prepare_rows(X + 0.05 * rng.standard_normal(X.shape), True)
    assert prepared.rows.shape[1] == 3
    assert prepared.noise_in_data == pytest.approx(0.05, rel=0.02)


def test_small_columns_are_no_noise_beside_other_quantities():
    """Nine equal columns beside one of another unit; and the columns of a ball beside a plane."""
    rng = np.random.RandomState(0)
    X = rng.standard_normal((2000, 10)) * ([4] + 9 * [1])
    assert prepare_rows(X, True).rows.shape[1] == 10
    ball, _ = Sphere(4, 5, noise=0.0).sample(2000, random_state=0)
    X = np.c_[100 * rng.uniform(size=(2000, 2)), ball]
    assert prepare_rows(X, True).noise == 0.0


def test_bends_are_no_noise():
    """The last five variances of this network are equal and its axes normal, without any noise."""
    rng = np.random.RandomState(0)
    X, _ = RandomNetwork(8, 20).sample(2500, random_state=105)
    assert prepare_rows(X, True).noise == 0.0
    noisy = prepare_rows(
        X[:, :5] @ rng.standard_normal((5, 20)) + rng.normal(0, 0.1, X.shape), True
    )
    assert noisy.noise_in_data == pytest.approx(0.1, rel=0.02)


def test_very_large_and_very_small_numbers():
    X, _ = SCurve(noise=0.0).sample(300, random_state=0)
    rows = prepare_rows(X, True).rows
    for factor in (1e-300, 1e300):
        scaled = prepare_rows(X * factor, True).rows
        np.testing.assert_allclose(cdist(scaled, scaled), cdist(rows, rows), atol=1e-6)


# The dimension


def bent_sheet(rng, n, d, n_features, noise=0.0):
    """d coordinates and a parabola of each, turned into more columns."""
    u = rng.uniform(-1, 1, (n, d))
    X = np.c_[u, 0.5 * u**2] @ np.linalg.qr(rng.standard_normal((n_features, 2 * d)))[0].T
    return X + noise * rng.standard_normal(X.shape)


@pytest.mark.parametrize(
    ("name", "dimension"),
    [
        ("circle", 1),
        ("helix with noise", 1),
        ("S-curve with noise", 2),
        ("sphere", 4),
        ("sphere with noise", 4),
        ("torus times sphere", 4),
        ("bent sheet", 5),
        ("bent sheet with noise", 3),
        ("network with noise", 5),
        ("six-sphere with noise", 6),
        ("normal", 4),
        ("cube", 3),
        ("faces of a cube", 3),
        ("heavy tails", 3),
    ],
)
def test_dimension(name, dimension):
    rng = np.random.RandomState(7)
    n = 1500
    angle = rng.uniform(0, 2 * np.pi, n)
    faces = rng.uniform(size=(n, 4))
    faces[np.arange(n), rng.randint(4, size=n)] = rng.randint(2, size=n)
    draw = {
        "circle": lambda: np.c_[np.cos(angle), np.sin(angle)],
        "helix with noise": lambda: Helix(noise=0.05).sample(n, random_state=7)[0],
        "S-curve with noise": lambda: SCurve(noise=0.05).sample(n, random_state=7)[0],
        "sphere": lambda: Sphere(4, 15, noise=0.0).sample(n, random_state=7)[0],
        "sphere with noise": lambda: Sphere(4, 15, noise=0.05).sample(n, random_state=7)[0],
        "torus times sphere": lambda: TorusSphere(noise=0.0).sample(2500, random_state=7)[0],
        "bent sheet": lambda: bent_sheet(rng, n, 5, 20),
        "bent sheet with noise": lambda: bent_sheet(rng, n, 3, 20, 0.05),
        "six-sphere with noise": lambda: Sphere(6, 20, noise=0.05).sample(2500, random_state=101)[
            0
        ],
        "network with noise": lambda: RandomNetwork(5, 30).sample(n, random_state=107)[0],
        "normal": lambda: rng.standard_normal((n, 4)),
        "cube": lambda: rng.uniform(size=(n, 3)),
        "faces of a cube": lambda: faces,
        "heavy tails": lambda: rng.standard_t(3, size=(n, 3)),
    }[name]
    report = intrinsic_dimension(draw())
    assert report.dimension == dimension
    # Noise as large as the distance of the windings fills all but the largest scales.
    assert report.agreement == ("fair" if name == "helix with noise" else "good")


def test_the_dimension_does_not_depend_on_units():
    rng = np.random.RandomState(0)
    n, hour = 1500, rng.uniform(0, 2 * np.pi, 1500)
    clock = np.c_[np.sin(hour), np.cos(hour), 15 + 5 * np.sin(hour) + rng.standard_normal(n)]
    sets = [
        (rng.standard_normal((n, 4)), 4),
        (clock, 2),
        (SwissRoll(noise=0.05).sample(n, random_state=0)[0], 2),
        (bent_sheet(rng, n, 5, 20), 5),
    ]
    for X, dimension in sets:
        factors = 10.0 ** rng.uniform(-2, 2, X.shape[1])
        one = np.ones(X.shape[1])
        one[0] = 100.0
        for same in (X, X * factors, X * one, X / one):
            assert intrinsic_dimension(same).dimension == dimension
        # A row number is one more dimension.
        assert intrinsic_dimension(np.c_[X, np.arange(n)]).dimension == dimension + 1


def test_repeated_columns_and_linear_maps():
    rng = np.random.RandomState(0)
    X = bent_sheet(rng, 1500, 3, 8)
    turned = np.linalg.qr(rng.standard_normal((8, 8)))[0] * np.geomspace(1, 0.1, 8)
    for same in (np.c_[X, X[:, :3]], np.c_[X, X[:, :2].sum(axis=1)], X @ turned):
        assert intrinsic_dimension(same).dimension == 3
    normal = rng.standard_normal((1500, 4)) @ np.diag(np.geomspace(1, 0.1, 4))
    mixed = normal @ np.linalg.qr(rng.standard_normal((4, 4)))[0]
    assert intrinsic_dimension(mixed).dimension == 4


def test_monotone_maps_of_columns_keep_the_dimension():
    """Prices, counts of many values, columns with long tails: each is a dimension."""
    rng, n = np.random.RandomState(100), 600
    z = rng.standard_normal((n, 4))
    tables = [np.exp(k * z) for k in (1, 2, 3)] + [z**3, rng.gamma(0.3, size=(n, 4))]
    tables += [np.c_[np.exp(2 * z[:, 0]), z[:, 1:]], np.c_[z[:, 0], rng.pareto(1, (n, 3))]]
    for X in tables:
        report = intrinsic_dimension(X)
        assert (report.dimension, report.agreement) == (4, "good")
    sheet = bent_sheet(rng, n, 2, 5)
    sheet /= sheet.std(axis=0)
    assert intrinsic_dimension(sheet).dimension == 2
    assert intrinsic_dimension(np.exp(2 * sheet)).dimension == 2


def test_skewed_columns_become_normal():
    rng = np.random.RandomState(0)
    z = rng.standard_normal((2000, 2))
    rows = prepare_rows(np.c_[np.exp(3 * z[:, 0]), z[:, 1]], True).rows
    assert spearmanr(np.abs(rows @ np.linalg.lstsq(rows, z[:, 0])[0]), np.abs(z[:, 0]))[0] > 0.99
    assert kurtosis(rows, axis=0) == pytest.approx([0, 0], abs=0.3)
    assert rows.var(axis=0) == pytest.approx([1, 1], rel=0.1)
    # Two values are as far apart as without, and nothing is mapped in units of the data.
    dummy = (rng.uniform(size=2000) < 0.1).astype(float)
    dummy_rows = prepare_rows(dummy[:, None], True).rows
    assert np.ptp(dummy_rows) == pytest.approx(1 / dummy.std(), rel=0.01)
    rows = prepare_rows(np.exp(3 * z), False).rows
    assert kurtosis(rows).max() > 100


@pytest.mark.parametrize("n", [300, 900])
@pytest.mark.parametrize("noise", [0.01, 0.05])
def test_images_with_noise(n, noise):
    """A blob at places in a picture that is noise elsewhere, of fewer and of more rows."""
    rng = np.random.RandomState(100)
    x = np.arange(20)
    place = rng.uniform(7, 13, (n, 2, 1))
    profile = np.exp(-0.5 * np.square((x - place) / 3))
    X = (profile[:, 0, :, None] * profile[:, 1, None, :]).reshape(n, -1)
    report = intrinsic_dimension(X + noise * rng.standard_normal(X.shape))
    assert report.dimension == 2
    assert report.noise in (0, pytest.approx(noise, rel=0.1))


@pytest.mark.parametrize("noise", [0.0, 1e-9, 1e-6])
@pytest.mark.parametrize("share", [0.05, 0.47])
def test_copies_count_once(noise, share):
    rng = np.random.RandomState(0)
    X = bent_sheet(rng, 1000, 5, 20)
    copies = X[: int(share * 1000)]
    copies = copies + noise * X.std() * rng.standard_normal(copies.shape)
    report = intrinsic_dimension(np.r_[X, copies])
    assert report.dimension == 5
    # A few near copies may be left; the estimate leaves them out.
    assert report.n_rows == pytest.approx(1000, abs=5)


def test_units_of_the_data_on_request():
    """A thin direction is a dimension after standardisation and noise before."""
    rng = np.random.RandomState(0)
    X = rng.standard_normal((1000, 2)) * [1, 1e-3]
    report = intrinsic_dimension(X)
    assert (report.dimension, report.other_units) == (2, 1)
    assert "in units of the data is 1" in str(report)
    report = intrinsic_dimension(X, scale=False)
    assert (report.dimension, report.other_units) == (1, 2)
    assert "after standardisation is 2" in str(report)
    assert intrinsic_dimension(rng.standard_normal((1000, 2))).other_units is None


def test_report():
    X, _ = Sphere(2, 10, noise=0.05).sample(1000, random_state=0)
    report = intrinsic_dimension(X)
    assert report == intrinsic_dimension(X)
    assert report.neighbors == (2, 4, 8, 16, 32, 64)
    np.testing.assert_allclose(report.rows_by_scale[-1], 2, atol=0.3)
    # Noise fills the small scales of the rows, and is taken away by calibration.
    assert report.rows_by_scale[0] > 2.5
    np.testing.assert_allclose(report.calibrated_by_scale, 2, atol=0.3)
    assert report.noise == pytest.approx(0.05, rel=0.05)
    assert report.spectral_dimension is None
    assert str(report).startswith("The 1000 different rows have 2 dimensions.")
    assert "noise of standard deviation 0.05" in str(report)


def test_agreement():
    """Noise as large as the shape: the sentence says where readings by scale disagree."""
    X = make_moons(1500, noise=0.05, random_state=0)[0]
    report = intrinsic_dimension(X)
    assert report.agreement == "fair"
    first, last = report.calibrated_by_scale[0], report.calibrated_by_scale[-1]
    assert first > 1.8
    assert last < 1.5
    says = f"Scale by scale they fall from {first:.1f} at 2 neighbours to {last:.1f} at 64, as with"
    assert says in str(report)
    scales = (2, 4, 8, 16)
    for calibrated, estimate, agreement in (
        ((2.1, 2.0, 2.0, 2.0), 2.0, "good"),
        ((3.2, 2.7, 2.4, 2.0), 2.0, "good"),
        ((3.2, 2.9, 2.7, 2.0), 2.0, "fair"),
        ((2.1, 2.0, 2.0, 2.0), 2.8, "fair"),
        ((3.2, 3.1, 3.3, 3.4), 2.0, "poor"),
        ((2.1, 2.0, 2.0, 2.0), 3.2, "poor"),
    ):
        report = DimensionReport(2, scales, calibrated, calibrated, estimate)
        assert report.agreement == agreement
        assert ("Scale by scale" in str(report)) == (max(calibrated) > 2.5)
    assert "rise from 1.8 at 2 neighbours to 2.7 at 16" in str(
        DimensionReport(2, scales, scales, (1.8, 1.9, 2.1, 2.7), 1.9)
    )
    assert "they say 2.0 to 2.7." in str(
        DimensionReport(2, scales, scales, (2.0, 2.7, 2.0, 2.1), 1.9)
    )


@pytest.mark.filterwarnings("ignore:.*no reading can be trusted:UserWarning")
@pytest.mark.parametrize("n", [2, 3, 10, 20, 60, 120])
def test_few_rows(n):
    X = np.random.RandomState(0).standard_normal((n, 3)) * [1, 1, 1e-9]
    report = intrinsic_dimension(X)
    assert 1 <= report.dimension <= 3
    assert bool(report.neighbors) == (n >= 16)
    assert ("too few" in str(report)) == (n < 16)


def test_a_grid_and_few_values():
    """Distances are equal or take few values there, and no estimate is infinite."""
    grid = np.stack(np.meshgrid(*3 * [np.arange(6.0)]), axis=-1).reshape(-1, 3)
    report = read_distinct_rows(grid)
    assert 1 <= report.dimension <= 3
    assert np.isfinite([report.estimate, *report.rows_by_scale]).all()
    dummies = np.random.RandomState(0).randint(2, size=(500, 4)).astype(float)
    assert 1 <= read_distinct_rows(dummies).dimension <= 4


def test_rows_that_are_equal_have_one_dimension():
    assert intrinsic_dimension(np.ones((50, 3))).dimension == 1
    assert intrinsic_dimension(np.c_[np.ones(500), np.arange(500.0)]).dimension == 1


def test_bad_rows():
    with pytest.raises(ValueError, match="NaN"):
        intrinsic_dimension([[1.0], [np.nan]])
    with pytest.raises(ValueError, match="minimum of 2"):
        intrinsic_dimension([[1.0, 2.0]])
    with pytest.raises(ValueError, match="cannot be used to seed"):
        intrinsic_dimension(np.eye(3), random_state="seed")


# Mixture


def test_mixture_has_the_densities_of_scipy():
    rng = np.random.RandomState(0)
    axes = np.stack([np.linalg.qr(rng.standard_normal((3, 3)))[0] for _ in range(2)])
    variances = np.array([[2.0, 1.0, 0.1], [1.0, 0.5, 0.5]])
    mixture = LocalMixture(np.array([0.3, 0.7]), rng.standard_normal((2, 3)), axes, variances)
    X = rng.standard_normal((10, 3))
    joint = mixture.log_joint(X)
    for k in range(2):
        distribution = multivariate_normal(mixture.means[k], (axes[k] * variances[k]) @ axes[k].T)
        expected = np.log(mixture.weights[k]) + distribution.logpdf(X)
        np.testing.assert_allclose(joint[:, k], expected)
    slope = np.array([[1.0, 2.0, 3.0], [0.5, 1.0, 1.0]])
    spectra = mixture.spectra(slope)
    for k in range(2):
        covariance = slope[k][:, None] * ((axes[k] * variances[k]) @ axes[k].T) * slope[k]
        np.testing.assert_allclose(spectra[k], np.linalg.eigvalsh(covariance)[::-1])


def test_dependence_of_squares():
    """Of columns with a common scale, by the correlation of the squares; of independent ones 0."""
    rng = np.random.RandomState(0)
    z = rng.standard_normal((20_000, 7))
    assert abs(_dependence_of_squares(z)) < 0.005
    # Squares on a sphere of q - 1 dimensions have the correlations -1 / (q - 1), those of noisy
    # coordinates x + s e less: cov(x_i^2, x_j^2) = -2 / (q^2 (q + 2)), and to the variance of x^2
    # come 4 s^2 / q + 2 s^4.
    q, s = 7, 0.1
    X = z / np.linalg.norm(z, axis=1, keepdims=True) + s * rng.standard_normal(z.shape)
    variance = 2 * (q - 1) / (q**2 * (q + 2)) + 4 * s**2 / q + 2 * s**4
    correlation = np.full((q, q), -2 / (q**2 * (q + 2)) / variance)
    np.fill_diagonal(correlation, 1)
    expected = -0.5 * np.linalg.slogdet(correlation)[1]
    found = _dependence_of_squares(X / X.std(axis=0))
    assert expected > 0.4
    assert found == pytest.approx(expected, rel=0.1)
    # Of a few rows they tell nothing, of columns of two values they are all the same.
    assert _dependence_of_squares(z[:60]) == 0
    assert _dependence_of_squares(np.sign(z)) == 0


def test_bends_are_no_dimensions():
    """A saddle over two axes with noise: what remains, and samples with it and without."""
    rng = np.random.RandomState(0)
    u = rng.standard_normal((4000, 2)) * [2.0, 1.0]
    third = 0.15 * u[:, 0] * u[:, 1] + 0.05 * (u[:, 0] ** 2 - 4)
    noise = 0.1 * rng.standard_normal((4000, 2))
    axes = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    X = np.c_[u, third + noise[:, 0], noise[:, 1]] @ axes.T
    variances = np.array([[4.0, 1.0, np.var(third) + 0.01, 0.01]])
    mixture = LocalMixture(np.ones(1), np.zeros((1, 4)), axes[None], variances)
    bends = mixture.bends(X)
    left = mixture.unbent_variances(bends)
    np.testing.assert_allclose(left, [[4.0, 1.0, 0.01, 0.01]], rtol=0.2)
    for with_rest, variance in ((False, 0.0), (True, 0.01)):
        drawn = mixture.sample(4000, rng, 0.0, 2, bends, with_rest=with_rest) @ axes
        np.testing.assert_allclose(drawn[:, :2].var(axis=0), [4.0, 1.0], rtol=0.1)
        bent = 0.15 * drawn[:, 0] * drawn[:, 1] + 0.05 * (drawn[:, 0] ** 2 - 4)
        rest = np.c_[drawn[:, 2] - bent, drawn[:, 3]]
        np.testing.assert_allclose(rest.var(axis=0), variance, atol=0.002)


def test_samples_of_a_mixture():
    """Covariance less the noise that was added, and rows on the axes alone."""
    rng = np.random.RandomState(0)
    axes = np.linalg.qr(rng.standard_normal((3, 3)))[0][None]
    variances = np.array([[2.0, 1.0, 0.09]])
    mixture = LocalMixture(np.ones(1), np.zeros((1, 3)), axes, variances)
    # Of so few rows no bend is known.
    bends = mixture.bends(rng.standard_normal((1, 3)))
    rows = mixture.sample(20_000, rng, 0.3, 3, bends) @ axes[0]
    np.testing.assert_allclose(rows.var(axis=0), [1.91, 0.91, 0.0], atol=0.05)
    flat = mixture.sample(100, rng, 0.3, 2, bends) @ axes[0]
    np.testing.assert_allclose(flat[:, 2], 0, atol=1e-12)


def test_held_out_rows_choose_the_number_of_parts():
    rng = np.random.RandomState(0)
    blob = rng.standard_normal((1000, 2))
    assert len(fit_local_mixture(blob[:800], blob[800:], 0.02)[0].weights) == 1
    angle = rng.uniform(0, 2 * np.pi, 1000)
    circle = np.stack([np.cos(angle), np.sin(angle)], 1) + 0.02 * blob
    mixture, score = fit_local_mixture(circle[:800], circle[800:], 0.02)
    assert len(mixture.weights) >= 8
    # Around the circle 1 / (2 pi), across it N(0, .02^2), whose entropy is -2.49 nats.
    best = 2.49 - np.log(2 * np.pi)
    assert best - 0.4 < score < best + 0.1
    assert fit_local_mixture(np.zeros((100, 65)), np.zeros((10, 65)), 0.02)[0] is None


# Estimators


@every_estimator
def test_estimators_take_the_number_of_the_rows(Estimator):
    X, _ = SCurve(noise=0.02).sample(300, random_state=0)
    small = {"n_layers": 2, "hidden_layer_sizes": (8,), "max_iter": 2, "random_state": 0}
    model = Estimator(**small).fit(X * [1, 100, 1])
    report = intrinsic_dimension(X)
    assert model.intrinsic_dimension_ == model.dimension_report_.dimension == report.dimension == 2
    assert model.dimension_report_.estimate == pytest.approx(report.estimate, rel=1e-6)
    assert 1 <= model.dimension_report_.spectral_dimension <= 3
    loaded = pickle.loads(pickle.dumps(model))
    assert loaded.dimension_report_ == model.dimension_report_
    # Copies count once, whatever the groups of a split are.
    repeated = clone(model).fit(np.repeat(X, 2, axis=0), groups=np.arange(600) // 60)
    assert repeated.dimension_report_.n_rows == 300


def test_a_circle_has_one_dimension():
    """No map of the plane lays it onto a line, but arcs of it are short lines."""
    angle = np.random.RandomState(0).uniform(0, 2 * np.pi, 1000)
    X = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    model = ManifoldPriorFlow(**SMALL).fit(X)
    assert model.intrinsic_dimension_ == model.n_components_ == 1
    np.testing.assert_array_equal(model.local_dimension(X[:50]), 1)


def test_columns_of_noise_do_not_count():
    """Standardised, ten columns of nothing but noise are like those of the sphere."""
    X, _ = Sphere(4, 15, noise=0.05).sample(2500, random_state=100)
    model = ManifoldPriorFlow(**SMALL).fit(X)
    assert model.intrinsic_dimension_ == 4
    # The components are those of the sphere, not of the noise.
    Z = model.transform(X)
    assert (Z.std(axis=0) > 0.2).all()


def test_local_dimension_of_a_stick_and_a_ball():
    data = StickAndBall(noise=0.0)
    X, _ = data.sample(1500, random_state=100)
    model = ManifoldPriorFlow(**SMALL).fit(X)
    test, coordinates = data.sample(400, random_state=101)
    truth, read = data.local_dimension(coordinates), model.local_dimension(test)
    assert np.median(read[truth == 1]) == 1
    assert np.median(read[truth == 3]) == 3
    at_scale = model.local_dimension(test, scale=0.1)
    assert (at_scale == truth).mean() > 0.95
    loaded = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(loaded.local_dimension(test), read)


@pytest.mark.parametrize("Estimator", [ManifoldPriorFlow, NoisyInjectiveFlow, JointManifoldFlow])
def test_local_dimension_at_scales_of_a_normal_distribution(Estimator):
    """Models of few rows are linear, so that eigenvalues are those of the covariance."""
    rng = np.random.RandomState(0)
    X = rng.standard_normal((39, 3)) * [100, 10, 1]
    model = Estimator(3, random_state=0).fit(X)
    lengths = np.sqrt(np.linalg.eigvalsh(np.cov(X.T)))[::-1]
    for d in (1, 2):
        scale = np.sqrt(lengths[d - 1] * lengths[d])
        np.testing.assert_array_equal(model.local_dimension(X, scale=scale), d)
    with pytest.raises(ValueError, match="scale must be"):
        model.local_dimension(X, scale=0)


def test_charts_have_no_scale():
    X, _ = SCurve(noise=0.02).sample(100, random_state=0)
    model = ChartAtlasFlow(n_charts=2, max_iter=1, random_state=0).fit(X)
    with pytest.raises(ValueError, match="scale must be None"):
        model.local_dimension(X, scale=0.1)
