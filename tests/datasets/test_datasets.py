"""Data sets: the contract, distributions, coordinates, densities on the manifold and distances."""

import copy
import pickle

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import cKDTree
from sklearn.datasets import make_s_curve, make_swiss_roll
from sklearn.utils import check_random_state

from skmanifoldflow import datasets

ALL = [getattr(datasets, name) for name in datasets.__all__]
NOISY = [cls for cls in ALL if hasattr(cls, "log_density")]
ARC_LENGTH = [
    datasets.Line,
    datasets.SinCurve,
    datasets.Helix,
    datasets.LinkedCircles,
    datasets.TrefoilKnot,
    datasets.FigureEight,
    datasets.FadingSquare,
]
FLAT = [*ARC_LENGTH, datasets.SCurve, datasets.SwissRoll]


def jacobian(data, coordinates, step=1e-5):
    """Central differences of ``embed``, shape (n, D, d)."""
    columns = [
        (data.embed(coordinates + shift) - data.embed(coordinates - shift)) / (2 * step)
        for shift in step * np.eye(coordinates.shape[1])
    ]
    return np.stack(columns, axis=-1)


# The contract of all sets


@pytest.mark.parametrize("cls", ALL)
def test_sample_contract(cls):
    data = cls()
    X, coordinates = data.sample(50, random_state=3)
    again, coordinates_again = data.sample(50, random_state=np.random.RandomState(3))
    other, _ = data.sample(50, random_state=4)

    assert X.shape == (50, data.n_features)
    assert X.dtype == np.float64
    assert coordinates.shape == (50, data.dimension or 3)
    assert coordinates.dtype == np.float64
    np.testing.assert_array_equal(X, again)
    np.testing.assert_array_equal(coordinates, coordinates_again)
    assert not np.array_equal(X, other)
    local = data.local_dimension(coordinates)
    assert local.shape == (50,)
    assert np.issubdtype(local.dtype, np.integer)
    assert set(local) == ({data.dimension} if data.dimension else {1, 3})
    assert np.isfinite(data.log_density_manifold(coordinates)).all()


@pytest.mark.parametrize("cls", ALL)
def test_sampling_with_a_seed_leaves_the_global_state_alone(cls):
    data = cls(noise=0.1)
    global_state = check_random_state(None).get_state
    before = global_state()[1].copy()
    X, _ = data.sample(20, random_state=0)
    if cls in NOISY:
        data.log_density(X)
        data.distance(X)
    np.testing.assert_array_equal(global_state()[1], before)


@pytest.mark.parametrize("cls", ALL)
def test_noise_is_added_to_the_embedded_coordinates(cls):
    clean, coordinates = cls(noise=0).sample(2000, random_state=1)
    noisy, same = cls(noise=0.2).sample(2000, random_state=1)
    np.testing.assert_array_equal(coordinates, same)
    np.testing.assert_array_equal(clean, cls(noise=0).embed(coordinates))
    deviations = (noisy - clean).std(axis=0)
    # Five standard errors of a standard deviation estimated from 2000 draws.
    np.testing.assert_allclose(deviations, 0.2, atol=5 * 0.2 / np.sqrt(4000))


@pytest.mark.parametrize("cls", ALL)
def test_copies_and_pickles_give_the_same_rows(cls):
    data = cls()
    expected, _ = data.sample(10, random_state=0)
    for twin in (copy.deepcopy(data), pickle.loads(pickle.dumps(data))):
        np.testing.assert_array_equal(twin.sample(10, random_state=0)[0], expected)


@pytest.mark.parametrize("cls", ALL)
def test_invalid_arguments_raise(cls):
    for noise in (-0.1, np.nan, np.inf, "0.1"):
        with pytest.raises(ValueError, match="noise must be a finite number >= 0, got"):
            cls(noise=noise)
    data = cls(noise=0)
    for n_samples in (0, -3, 2.5):
        with pytest.raises(ValueError, match="n_samples must be an integer >= 1, got"):
            data.sample(n_samples)
    wrong = np.zeros((4, data.n_features + 1))
    with pytest.raises(ValueError, match="coordinates must have shape"):
        data.embed(np.zeros((4, (data.dimension or 3) + 1)))
    with pytest.raises(ValueError, match="coordinates must be finite"):
        data.log_density_manifold(np.full((4, data.dimension or 3), np.inf))
    if cls in NOISY:
        with pytest.raises(ValueError, match=r"log_density needs noise > 0"):
            data.log_density(np.zeros((4, data.n_features)))
        with pytest.raises(ValueError, match="X must have shape"):
            data.distance(wrong)
        with pytest.raises(ValueError, match="X must be finite"):
            data.distance(np.full((1, data.n_features), np.nan))


def test_invalid_dimensions_raise():
    for cls in (datasets.Sphere, datasets.RandomNetwork):
        with pytest.raises(ValueError, match="dimension must be an integer >= 1, got 0"):
            cls(dimension=0)
        with pytest.raises(ValueError, match="n_features must be an integer"):
            cls(dimension=5, n_features=4)
    with pytest.raises(ValueError, match="one number and two NaN"):
        datasets.StickAndBall().embed([[np.nan, 0.0, 0.0]])


def test_random_network_has_no_ambient_density():
    assert not hasattr(datasets.RandomNetwork(), "log_density")


# Distributions against scikit-learn


@pytest.mark.parametrize("noise", [0.0, 0.05])
@pytest.mark.parametrize(
    ("cls", "make"), [(datasets.SCurve, make_s_curve), (datasets.SwissRoll, make_swiss_roll)]
)
def test_same_rows_as_scikit_learn(cls, make, noise):
    X, coordinates = cls(noise=noise).sample(500, random_state=7)
    expected, t = make(500, noise=noise, random_state=7)
    np.testing.assert_allclose(X, expected, atol=1e-12)
    start, antiderivative = {
        datasets.SCurve: (-1.5 * np.pi, lambda t: t),
        datasets.SwissRoll: (
            1.5 * np.pi,
            lambda t: (t * np.sqrt(1 + t**2) + np.arcsinh(t)) / 2,
        ),
    }[cls]
    arc_length = antiderivative(t) - antiderivative(start)
    np.testing.assert_allclose(coordinates[:, 0], arc_length, atol=1e-11)


# Coordinates


@pytest.mark.parametrize("cls", FLAT)
def test_flat_coordinates_are_isometric(cls):
    data = cls()
    _, coordinates = data.sample(200, random_state=0)
    slopes = jacobian(data, coordinates)
    gram = slopes.transpose(0, 2, 1) @ slopes
    identity = np.broadcast_to(np.eye(data.dimension), gram.shape)
    np.testing.assert_allclose(gram, identity, atol=1e-7)


def test_coordinates_name_the_part():
    for data, centre in ((datasets.TwoSpheres(noise=0), 0.0), (datasets.StickAndBall(noise=0), 1)):
        X, coordinates = data.sample(2000, random_state=0)
        second = (
            coordinates[:, 1] >= 2 * np.pi
            if data.dimension
            else data.local_dimension(coordinates) == 1
        )
        np.testing.assert_array_equal(second, X[:, 0] > centre)
        # Five standard errors of a fair coin.
        assert abs(second.mean() - 0.5) < 5 * 0.5 / np.sqrt(2000)


def test_torus_and_ball_are_uniform_by_volume():
    _, coordinates = datasets.Torus().sample(5000, random_state=0)
    tube = coordinates[:, 1]
    assert stats.kstest(tube, lambda a: (a + 0.4 * np.sin(a)) / (2 * np.pi)).pvalue > 1e-3
    _, coordinates = datasets.StickAndBall().sample(5000, random_state=0)
    ball = coordinates[~np.isnan(coordinates[:, 1])]
    assert stats.kstest(np.linalg.norm(ball, axis=1) ** 3, "uniform").pvalue > 1e-3


# Densities on the manifold


@pytest.mark.parametrize(("dimension", "n_features"), [(1, 2), (2, 10), (4, 4), (5, 40)])
def test_random_network_density_by_change_of_variables(dimension, n_features):
    data = datasets.RandomNetwork(dimension, n_features, noise=0)
    _, z = data.sample(100, random_state=0)
    singular_values = np.linalg.svd(jacobian(data, z), compute_uv=False)
    expected = stats.norm.logpdf(z).sum(axis=1) - np.log(singular_values).sum(axis=1)
    np.testing.assert_allclose(data.log_density_manifold(z), expected, atol=1e-5)
    assert singular_values.min() > 1e-5


@pytest.mark.parametrize("cls", [datasets.SCurve, datasets.SwissRoll, datasets.Paraboloid])
def test_manifold_density_outside_the_support(cls):
    outside = [[1.0, -50.0], [1.0, 50.0], [-9.0, 0.5], [200.0, 0.5]]
    assert (cls().log_density_manifold(outside) == -np.inf).all()


# Distances


@pytest.mark.parametrize("cls", [c for c in NOISY if c is not datasets.TorusSphere])
def test_distance_against_many_points(cls):
    # The nearest of many noiseless draws bounds the distance from above. It lies within a few of
    # their gaps of the true foot, which adds less than (3 gap)^2 to the squared distance at the
    # curvatures and distances met here.
    data = cls(noise=0.3)
    X, _ = data.sample(200, random_state=0)
    n_draws = 2000 if data.n_features > 100 else 30_000
    points, _ = cls(noise=0).sample(n_draws, random_state=1)
    others, _ = cls(noise=0).sample(300, random_state=2)
    tree = cKDTree(points)
    bound, gap = tree.query(X)[0], np.quantile(tree.query(others)[0], 0.95)
    distance = data.distance(X)
    assert (distance <= bound + 1e-9).all()
    assert np.mean(bound <= np.hypot(distance, 3 * gap)) > 0.9
    np.testing.assert_allclose(data.distance(others), 0, atol=1e-7)


def test_distance_of_a_product():
    data = datasets.TorusSphere(noise=0.3)
    X, _ = data.sample(50, random_state=0)
    torus = np.hypot(np.hypot(X[:, 0], X[:, 1]) - 1, X[:, 2]) - 0.4
    sphere = np.linalg.norm(X[:, 3:], axis=1) - 1
    np.testing.assert_allclose(data.distance(X) ** 2, torus**2 + sphere**2, atol=1e-12)


def test_distance_of_far_rows_to_unbounded_sets():
    # Far to the side the sine is as near as anywhere else.
    X = np.array([[0.3, 0.1], [0.3 + 1000 * np.pi, 0.1]])
    near, far = datasets.SinCurve().distance(X)
    assert near == pytest.approx(far, abs=1e-9)
    # Far from its centre the polynomial surface is the plane x3 = 0 of its own frame.
    data = datasets.PolynomialSurface()
    plane = data.embed([[40.0, 0.0], [0.0, 40.0]])
    normal = np.cross(plane[0], plane[1]) / 1600
    np.testing.assert_allclose(data.distance(plane + 2 * normal), 2, atol=1e-6)
