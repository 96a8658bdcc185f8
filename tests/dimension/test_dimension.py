"""Readings of the dimension against spectra, distributions and shapes of known dimension."""

import pickle

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import multivariate_normal

from skmanifoldflow import ManifoldPriorFlow
from skmanifoldflow._dimension import (
    LocalMixture,
    Reading,
    calibrate,
    fit_local_mixture,
    neighbor_dimension,
    read_spectra,
    read_spectrum,
    spectral_dimension,
)
from skmanifoldflow.datasets import Sphere, StickAndBall

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


# Nearest neighbours


@pytest.mark.parametrize("n_features", [3, 20])
def test_neighbor_dimension_is_the_levina_bickel_estimate(n_features):
    """With all distances; the quarter of the rows in the thinnest places is left out."""
    X = np.random.RandomState(0).standard_normal((400, n_features))
    distances = np.sort(cdist(X, X), axis=1)[:, 1:11]
    distances = distances[np.argsort(distances[:, -1])[:300]]
    inverses = [np.mean(np.log(row[-1] / row[:-1])) for row in distances]
    assert neighbor_dimension(X) == pytest.approx(8 / 9 / np.mean(inverses))


@pytest.mark.parametrize("d", [1, 2, 5])
def test_neighbor_dimension_of_a_cube_in_more_columns(d):
    rng = np.random.RandomState(0)
    X = rng.uniform(size=(3000, d)) @ np.linalg.qr(rng.standard_normal((8, d)))[0].T
    # Low by the boundary and by d / (d + 1) of the average of inverses, more so in more dimensions.
    assert 0.75 * d < neighbor_dimension(X) < 1.05 * d


def test_repeated_rows_count_once():
    X = np.random.RandomState(0).standard_normal((200, 2))
    assert neighbor_dimension(np.repeat(X, 3, axis=0)) == neighbor_dimension(np.unique(X, axis=0))
    assert np.isnan(neighbor_dimension(np.repeat(X[:20], 30, axis=0)))


def normal_rows(rng, d, n=2000, n_features=12, noise=0.0):
    X = np.zeros((n, n_features))
    X[:, :d] = rng.standard_normal((n, d))
    return X + noise * rng.standard_normal(X.shape)


def read(d, n_features=12):
    """A reading of d equal variances and noise."""
    return Reading(d, "data", np.where(np.arange(n_features) < d, 1.0, 1e-3))


def test_calibration_keeps_a_model_whose_samples_look_like_the_rows():
    """In eight dimensions nearest neighbours alone read one too few."""
    rng = np.random.RandomState(0)
    data = neighbor_dimension(normal_rows(rng, 8))
    assert data < 7

    def sample(d):
        return normal_rows(rng, 8 if d is None else d)

    dimension, with_noise, on_manifold = calibrate(read(8), 4e-4, data, sample, 12)
    assert dimension == 8
    assert with_noise == pytest.approx(8, abs=0.5)
    assert on_manifold == pytest.approx(8, abs=0.5)


@pytest.mark.parametrize("hull", [5, 10])
def test_calibration_corrects_a_hull(hull):
    """Rows on a sphere in a model that fills the space around it, or twice that space."""
    rng = np.random.RandomState(0)
    data = neighbor_dimension(Sphere(4, 12, noise=0.0).sample(2000, random_state=0)[0])

    def sample(d):
        return normal_rows(rng, hull if d is None else d)

    assert calibrate(read(hull), 4e-4, data, sample, 12)[0] == 4


def test_calibration_takes_away_noise_that_the_model_knows():
    """Neighbours of noisy rows read five, those of samples with that noise as well."""
    rng = np.random.RandomState(0)
    data = neighbor_dimension(normal_rows(rng, 2, noise=0.03))
    assert data > 4

    def sample(d):
        return normal_rows(rng, 2, noise=0.03) if d is None else normal_rows(rng, d)

    dimension, with_noise, on_manifold = calibrate(read(2), 4e-4, data, sample, 12)
    assert dimension == 2
    assert with_noise == pytest.approx(2, abs=0.3)
    assert on_manifold > 4


def test_calibration_ignores_noise_that_the_rows_do_not_show():
    rng = np.random.RandomState(0)
    data = neighbor_dimension(normal_rows(rng, 2))

    def sample(d):
        return normal_rows(rng, 2, noise=0.05) if d is None else normal_rows(rng, d)

    dimension, with_noise, on_manifold = calibrate(read(2), 4e-4, data, sample, 12)
    assert dimension == 2
    assert with_noise < 1.5
    assert on_manifold == pytest.approx(2, abs=0.2)


def test_dimensions_behind_the_widest_gap_are_found():
    """Two long axes, six short ones of unequal length, and then the noise."""
    rng = np.random.RandomState(0)
    spectrum = np.array([50, 40, 4, 3, 2.5, 2, 1.5, 1, 0.02, 0.02, 0.02, 0.02])

    def sample(d):
        scales = np.sqrt(np.where(np.arange(12) < (8 if d is None else d), spectrum, 0.0))
        return scales * rng.standard_normal((2000, 12))

    data = neighbor_dimension(sample(8))
    misread = Reading(2, "data", spectrum)
    assert calibrate(misread, 0.01, data, sample, 12)[0] == 8


def test_calibration_ends_between_two_dimensions():
    """Rows that look 1.55-dimensional, and a model of five dimensions."""
    rng = np.random.RandomState(0)
    sheet = neighbor_dimension(normal_rows(rng, 2))

    def sample(d):
        return normal_rows(rng, 5 if d is None else d)

    assert calibrate(read(5), 4e-4, 1.55 / 2 * sheet, sample, 12)[0] in (1, 2)


def test_dimension_of_rows_far_from_zero():
    X = np.random.RandomState(0).standard_normal((500, 3))
    assert neighbor_dimension(X + 1e8) == pytest.approx(neighbor_dimension(X), rel=1e-5)


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


def test_samples_of_a_mixture():
    """Covariance less the noise that was added, and rows on the axes alone."""
    rng = np.random.RandomState(0)
    axes = np.linalg.qr(rng.standard_normal((3, 3)))[0][None]
    variances = np.array([[2.0, 1.0, 0.09]])
    mixture = LocalMixture(np.ones(1), np.zeros((1, 3)), axes, variances)
    rows = mixture.sample(20_000, rng, 0.3) @ axes[0]
    np.testing.assert_allclose(rows.var(axis=0), [1.91, 0.91, 0.0], atol=0.05)
    flat = mixture.sample(100, rng, 0.3, 2) @ axes[0]
    np.testing.assert_allclose(flat[:, 2], 0, atol=1e-12)


def test_samples_of_a_mixture_along_the_longest_axes_in_other_units():
    """Two standardised columns, of which the first is next to nothing in units of the data."""
    rng = np.random.RandomState(0)
    mixture = LocalMixture(np.ones(1), np.zeros((1, 2)), np.eye(2)[None], np.array([[1.1, 1.0]]))
    rows = mixture.sample(1000, rng, 0.0, 1)
    np.testing.assert_allclose(rows[:, 1], 0, atol=1e-12)
    rows = mixture.sample(1000, rng, 0.0, 1, slope=np.array([[1e-3, 1.0]]))
    assert rows[:, 0].std() < 0.01
    assert rows[:, 1].std() == pytest.approx(1, abs=0.1)


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


# Estimator


def test_a_circle_has_one_dimension():
    """No map of the plane lays it onto a line, but arcs of it are short lines."""
    angle = np.random.RandomState(0).uniform(0, 2 * np.pi, 1000)
    X = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    model = ManifoldPriorFlow(**SMALL).fit(X)
    report = model.dimension_report_
    assert (report.model, report.mixture) == ("mixture", 1)
    assert report.dimension == model.intrinsic_dimension_ == model.n_components_ == 1
    assert report.mixture_score > report.flow_score
    np.testing.assert_array_equal(model.local_dimension(X[:50]), 1)


def test_columns_of_noise_do_not_count():
    """Standardised, ten columns of nothing but noise are like those of the sphere."""
    X, _ = Sphere(4, 15, noise=0.05).sample(2500, random_state=100)
    model = ManifoldPriorFlow(**SMALL).fit(X)
    assert model.dimension_report_.units == "data"
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
    loaded = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(loaded.local_dimension(test), read)
    assert loaded.dimension_report_ == model.dimension_report_


def test_a_contradiction_is_told():
    """Two epochs learn nothing of a sheet rolled up in twelve columns."""
    rng = np.random.RandomState(0)
    angles = rng.uniform(0, 2 * np.pi, (600, 2))
    circles = [f(k * angles) for k in (1, 2, 3) for f in (np.cos, np.sin)]
    X = np.concatenate(circles, axis=1)
    settings = SMALL | {"max_iter": 2, "tol": 1e3}
    with pytest.warns(UserWarning, match="nearest neighbours of its samples"):
        model = ManifoldPriorFlow(**settings).fit(X)
    assert model.intrinsic_dimension_ < model.dimension_report_.jacobian


def test_scores_are_of_rows_that_were_set_aside():
    """On normal rows with many columns the flow scores nearly as the mixture does."""
    X = np.random.RandomState(0).standard_normal((300, 30))
    model = ManifoldPriorFlow(**SMALL | {"max_iter": 1, "tol": 1e3}).fit(X)
    # 30 variances and 435 covariances of 270 rows are .9 nats too good for these, and as much too
    # bad for others.
    in_standardised_units = model.score(X) + np.log(X.std(axis=0)).sum()
    assert model.dimension_report_.flow_score < in_standardised_units - 0.5


def test_few_rows_are_read_from_the_flow_alone():
    X = np.random.RandomState(0).standard_normal((30, 3)) * [1, 1, 1e-3]
    report = ManifoldPriorFlow(**SMALL).fit(X).dimension_report_
    assert report.model == "flow"
    assert report.mixture is None
    assert np.isnan([report.neighbors, report.with_noise, report.flow_score]).all()
