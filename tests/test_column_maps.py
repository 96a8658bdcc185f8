"""Maps of columns: against quadrature, finite differences, and the frequencies of the rows."""

import copy
import pickle
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers import every_estimator
from scipy.integrate import trapezoid
from scipy.stats import kstest, norm

from skmanifoldflow import ChartAtlasFlow, NoisyInjectiveFlow
from skmanifoldflow._column_maps import column_maps
from skmanifoldflow._describe import describe_columns
from skmanifoldflow.backend.column_maps import ColumnMaps, Shape
from skmanifoldflow.backend.serialization import arrays_from_module, load_arrays

SMALL = {"n_layers": 2, "hidden_layer_sizes": (8,), "max_iter": 3, "random_state": 0}
OPEN = (-np.inf, np.inf)
N = 1200


def rng_of(seed=0):
    return np.random.RandomState(seed)


def zeros(rng):
    return np.where(rng.rand(N) < 0.6, 0.0, np.exp(rng.normal(size=N)))


def imputed(rng):
    return np.where(rng.rand(N) < 0.3, 49.7, rng.normal(50, 10, N))


def sentinel(rng):
    return np.where(rng.rand(N) < 0.01, -9999.0, rng.normal(5, 1, N))


def counts(rng):
    return np.where(rng.rand(N) < 0.5, 0, rng.randint(1, 4, N)).astype(float)


def cents(rng):
    return rng.randint(100, 2000, N) / 100


def sparse_grid(rng):
    return rng.choice([0.0, 0.25, 5.0, 5.25], N)


def no_grid(rng):
    return np.log(rng.choice([1.0, 2.0, 3.0, 7.0, 11.0], N))


def whole_with_sentinel(rng):
    return np.where(rng.rand(N) < 0.2, -999.0, rng.poisson(200, N))


def two_sizes(rng):
    return np.where(rng.rand(N) < 0.5, rng.normal(size=N), rng.normal(1e4, 1e3, N))


def outlier(rng):
    x = rng.normal(size=N)
    x[0] = 1e6
    return x


def heavy(rng):
    return np.exp(3 * rng.normal(size=N))


KINDS = {
    f.__name__: f
    for f in (
        zeros,
        imputed,
        sentinel,
        counts,
        cents,
        sparse_grid,
        no_grid,
        whole_with_sentinel,
        two_sizes,
        outlier,
        heavy,
    )
}
HAVE_SHAPE = sorted(set(KINDS) - {"cents"})


def uniform(rng):
    return rng.uniform(0, 360, N)


def one_sided(rng):
    return rng.exponential(size=N)


def at_the_bound(rng):
    return np.maximum(rng.normal(size=N), 0)


def u_shaped(rng):
    return rng.beta(0.3, 0.3, N)


def bounded_counts(rng):
    return rng.randint(0, 4, N).astype(float)


BOUNDED = {
    "uniform": (uniform, (0.0, 360.0)),
    "one_sided": (one_sided, (0.0, np.inf)),
    "other_side": (lambda rng: -one_sided(rng), (-np.inf, 0.0)),
    "at_the_bound": (at_the_bound, (0.0, np.inf)),
    "u_shaped": (u_shaped, (0.0, 1.0)),
    "counts": (bounded_counts, (0.0, 3.0)),
    "constant": (lambda rng: np.full(N, 2.0), (0.0, 2.0)),
    "far_bound": (lambda rng: rng.normal(5, 1, N), (0.0, 1e3)),
}


def maps_of(X, bounds=None):
    X = X[:, None] if X.ndim == 1 else X
    columns = describe_columns(X, range(X.shape[1]), np.finfo(float).eps)
    bounds = bounds or [OPEN] * X.shape[1]
    every = np.ones(X.shape[1], dtype=bool)
    return column_maps(columns, X, X, bounds, 1e-3, every, ~every, np.ones(X.shape[1]))


def case(name):
    if name in KINDS:
        x = KINDS[name](rng_of())
        return x, maps_of(x), OPEN
    draw, bound = BOUNDED[name]
    x = draw(rng_of())
    return x, maps_of(x, [bound]), bound


def spread(maps, x, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.tensor(x.reshape(len(x), -1))
    uniform = torch.rand(rows.shape, dtype=rows.dtype, generator=generator)
    return maps.spread(rows, uniform)


@pytest.mark.parametrize("name", [*HAVE_SHAPE, *BOUNDED])
def test_spread_rows_become_normal_and_come_back(name):
    x, maps, _ = case(name)
    rows = spread(maps, x)
    z, log_det = maps.forward_and_log_det(rows)
    assert log_det.isfinite().all()
    assert kstest(z[:, 0].numpy(), "norm").statistic < 0.03
    # In the parts of a column that are small beside others few digits are left.
    np.testing.assert_allclose(maps.inverse(z), rows, rtol=1e-7, atol=1e-9 * np.abs(x).max())


@pytest.mark.parametrize("name", [*HAVE_SHAPE, *BOUNDED])
def test_density_of_a_mapped_normal_integrates_to_one(name):
    _, maps, bound = case(name)
    knots = maps.knots[0].unique().numpy()
    width = max(knots[-1] - knots[0], 1.0)
    slopes = maps.slopes[0].numpy()
    reach = [60 / s if s > 0 else 0.1 * width for s in slopes]
    ends = np.r_[knots[0] - reach[0], knots, knots[-1] + reach[1]]
    total = 0.0
    for low, high in pairwise(ends):
        x = torch.linspace(low, high, 4001, dtype=torch.float64)[1:-1, None]
        z, log_det = maps.forward_and_log_det(x)
        density = np.exp(norm.logpdf(z[:, 0].numpy()) + log_det.numpy())
        if low < bound[0] or high > bound[1]:
            # A bound of a grid is half a step further.
            assert not density[(x[:, 0] < bound[0] - 0.51) | (x[:, 0] > bound[1] + 0.51)].any()
        total += density.mean() * (high - low)
    assert total == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("name", [*HAVE_SHAPE, *BOUNDED])
def test_slopes_are_those_of_finite_differences(name):
    _, maps, _ = case(name)
    z = torch.tensor(rng_of(1).normal(size=(300, 1)))
    log_det = maps.forward_and_log_det(maps.inverse(z))[1]
    h = 1e-6
    low, high = maps.inverse(z - h), maps.inverse(z + h)
    slope = maps.inverse_slope(z)
    numeric = ((high - low) / (2 * h)).numpy()
    near = np.isclose(numeric, slope, rtol=1e-3)
    # All but those beside a knot.
    assert near.mean() > 0.97
    np.testing.assert_allclose(slope[:, 0].log(), -log_det, atol=1e-6)
    z = z.clone().requires_grad_(True)
    (derivative,) = torch.autograd.grad(maps.inverse(z).sum(), z)
    np.testing.assert_allclose(derivative, slope.detach(), rtol=1e-9)


@pytest.mark.parametrize("name", [*KINDS, "counts", "at_the_bound"])
def test_rounding_gives_the_values_back(name):
    x, maps, _ = case(name)
    rounded = maps.rounded(spread(maps, x))[:, 0].numpy()
    # Other rows within the interval of a value count as it.
    is_beside = (np.abs(x - 49.7) < 0.01) if name == "imputed" else np.zeros(N, dtype=bool)
    np.testing.assert_array_equal(rounded[~is_beside], x[~is_beside])
    assert set(rounded[is_beside]) <= {49.7}


def test_values_are_exact_decimals():
    maps = maps_of(cents(rng_of()))
    drawn = maps.rounded(torch.tensor([[0.281], [1.149999], [50.0], [-3.0]], dtype=torch.float64))
    values = cents(rng_of())
    assert drawn[1, 0] == 1.15
    # No value is beyond those that were seen.
    assert drawn[2, 0] == values.max()
    assert drawn[0, 0] == drawn[3, 0] == values.min()


def test_a_value_is_scored_in_the_middle_of_its_interval():
    x, maps, _ = case("counts")
    z, log_det = maps.forward_and_log_det(torch.tensor(x[:, None]))
    ends = norm.ppf(np.r_[0, np.cumsum(np.bincount(x.astype(int)))] / N)
    density = norm.logpdf(z[:, 0].numpy()) + log_det.numpy()
    # The density over unit steps is the share of each value.
    shares = np.bincount(x.astype(int)) / N
    np.testing.assert_allclose(density, np.log(shares[x.astype(int)]), atol=0.01)
    middle = norm.ppf(0.5 * (norm.cdf(ends[:-1]) + norm.cdf(ends[1:])))
    np.testing.assert_allclose(z[:, 0], middle[x.astype(int)], atol=0.01)


def test_rows_at_a_bound_are_in_an_interval_within_it():
    x, maps, _ = case("at_the_bound")
    z, log_det = maps.forward_and_log_det(torch.tensor([[0.0], [-1e-9]], dtype=torch.float64))
    share = (x == 0).mean()
    assert z[0, 0] == pytest.approx(norm.ppf(share / 2), abs=0.02)
    assert log_det[1] == -np.inf


# ------------------------------------------------------------------ dummies


def dummies(rng, n_levels=3, scale=1.0):
    shares = np.array([0.6, 0.3, 0.1]) if n_levels == 3 else np.full(n_levels, 1 / n_levels)
    category = rng.choice(n_levels, N, p=shares)
    X = np.eye(n_levels)[category] * scale
    return np.column_stack([X, rng.normal(size=N) + category]), category


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_dummies_are_one_category(scale):
    X, category = dummies(rng_of(), scale=scale)
    maps = maps_of(X)
    rows = spread(maps, X)
    z, log_det = maps.forward_and_log_det(rows)
    np.testing.assert_allclose(maps.inverse(z), rows, atol=1e-9)
    np.testing.assert_array_equal(maps.rounded(rows), X)
    assert kstest(z[:, 0].numpy(), "norm").statistic < 0.03
    assert kstest((z[:, 1] / z[:, 1].std()).numpy(), "norm").statistic < 0.05
    # Of independent normal columns: the share of each category over the cube around its corner.
    z, log_det = maps.forward_and_log_det(torch.tensor(X))
    expected = np.log(np.bincount(category) / N)[category] - 3 * np.log(scale)
    z = z.numpy()
    density = norm.logpdf(z[:, 0]) + norm.logpdf(z[:, 1:3], scale=0.1).sum(1) + log_det.numpy()
    np.testing.assert_allclose(density, expected, atol=0.01)


def test_there_is_no_density_between_the_corners():
    X, _ = dummies(rng_of())
    rows = torch.tensor([[0.7, 0.7, 0, 0], [0.9, 0.2, -0.3, 0], [0, 0, 0, 0]], dtype=torch.float64)
    log_det = maps_of(X).forward_and_log_det(rows)[1]
    assert log_det.isfinite().tolist() == [False, True, False]


def test_slopes_of_dummies_are_those_of_autograd():
    X, _ = dummies(rng_of(), scale=3.0)
    maps = maps_of(X)
    z = maps.forward_and_log_det(spread(maps, X))[0].requires_grad_(True)
    x = maps.inverse(z)
    for j in range(4):
        (gradient,) = torch.autograd.grad(x[:, j].sum(), z, retain_graph=True)
        np.testing.assert_allclose(gradient[:, j], maps.inverse_slope(z)[:, j].detach(), rtol=1e-9)


def test_maps_are_stored():
    X, _ = dummies(rng_of())
    maps = maps_of(np.column_stack([X, zeros(rng_of(1)), cents(rng_of(2))]))
    arrays = arrays_from_module(maps)
    other = ColumnMaps.like(arrays)
    load_arrays(other, arrays)
    rows = torch.randn(50, 6, dtype=torch.float64)
    np.testing.assert_array_equal(other.inverse(rows), maps.inverse(rows))


@pytest.mark.parametrize("draw", [lambda rng: rng.normal(size=N), lambda rng: np.full(N, 3.0)])
def test_other_columns_stay_as_they_are(draw):
    assert maps_of(draw(rng_of())) is None


# ------------------------------------------------------------------ fits


def table(rng):
    X, _ = dummies(rng)
    return np.column_stack([X, zeros(rng), counts(rng), cents(rng)])


@every_estimator
def test_samples_have_the_values_of_the_rows(Estimator):
    X = table(rng_of())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = Estimator(2, **SMALL).fit(X)
    drawn = model.sample(2000, random_state=0)
    assert (drawn[:, :3].sum(1) == 1).all()
    assert set(np.unique(drawn[:, :3])) == {0, 1}
    assert (drawn[:, 4] >= 0).all()
    assert (drawn[:, 4] == 0).mean() == pytest.approx((X[:, 4] == 0).mean(), abs=0.08)
    assert set(np.unique(drawn[:, 5])) <= {0, 1, 2, 3}
    np.testing.assert_array_equal(drawn[:, 6], drawn[:, 6].round(2))
    rows = model.sample(2000, random_state=0, rounded=False)
    assert len(np.unique(rows[:, 0])) == 2000
    assert np.isfinite(model.score_samples(rows)).all()
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(other.score_samples(X), model.score_samples(X))
        np.testing.assert_array_equal(other.sample(2000, random_state=0), drawn)
    scale = None if Estimator is ChartAtlasFlow else 0.2
    assert model.local_dimension(X[:5], scale=scale).shape == (5,)
    assert np.isfinite(model.reconstruct(X[:5])).all()


@every_estimator
@pytest.mark.parametrize("given", [((0, None), (0, 360)), {0: (0, None), 1: (0, 360)}])
def test_density_within_bounds_of_each_column_integrates_to_one(Estimator, given):
    rng = rng_of()
    X = np.column_stack([at_the_bound(rng), uniform(rng)])[:400]
    settings = {**SMALL, "n_charts": 3} if Estimator is ChartAtlasFlow else SMALL
    model = Estimator(1, bounded=given, **settings).fit(X)
    drawn = model.sample(2000, random_state=0)
    assert drawn.min() >= 0
    assert drawn[:, 1].max() <= 360
    assert np.isneginf(model.score_samples([[-0.1, 5], [1, 360.1], [1, -0.1]])).all()
    # The density is that of columns before their maps: knots are where it jumps.
    maps = model._standardizer.maps
    ends = [maps.knots[j].unique().tolist() for j in range(2)]
    ends[0].append(12.0)
    nodes, weights = np.polynomial.legendre.leggauss(6)
    points = []
    for knots in ends:
        low, high = np.array(knots[:-1])[:, None], np.array(knots[1:])[:, None]
        x = (low + high) / 2 + nodes * (high - low) / 2
        points.append((x.ravel(), (weights * (high - low) / 2).ravel()))
    (x, u), (y, v) = points
    grid = np.column_stack([np.repeat(x, len(y)), np.tile(y, len(x))])
    density = np.exp(model.score_samples(grid)).reshape(len(x), len(y))
    assert u @ density @ v == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (((0, 1), (0, 1), (0, 1)), "a pair or None for each of the 2 columns"),
        (((0, None), (3, 1)), "bounded of column 1 must be .low, high., None for an open end"),
        (((0, None), (0, "a")), "bounded of column 1"),
        (((2, None), None), r"bounded=\(2.0, inf\) must contain every value of column 0"),
        ({"x": (0, 1)}, "keys x, which are not columns"),
    ],
)
def test_bad_bounds(given, message):
    X = rng_of().uniform(0, 1, (100, 2))
    with pytest.raises(ValueError, match=message):
        NoisyInjectiveFlow(1, bounded=given, **SMALL).fit(X)


def test_bounds_of_columns_and_dequantize_are_told_apart():
    X = rng_of().randint(0, 3, (100, 2)).astype(float)
    with pytest.raises(ValueError, match="bounded must be one pair"):
        NoisyInjectiveFlow(1, bounded=((0, 4), None), dequantize=True, **SMALL).fit(X)


def test_scores_do_not_depend_on_how_integers_are_coded():
    """Those of k and of k / 10 differ by the log of the factor alone."""
    X = table(rng_of())[:, 4:]
    scale = np.array([10.0, 10.0, 1.0])
    model, other = (NoisyInjectiveFlow(2, **SMALL).fit(rows) for rows in (X, X * scale))
    shift = np.log(scale).sum()
    np.testing.assert_allclose(
        other.score_samples(X * scale) + shift, model.score_samples(X), atol=1e-4
    )


def test_integral_of_one_column_with_zeros():
    x = zeros(rng_of())[:, None]
    model = NoisyInjectiveFlow(1, **SMALL).fit(x)
    knots = model._standardizer.maps.knots[0].unique().numpy()
    ends = np.r_[knots[0] - 40, knots, knots[-1] + 400]
    total = 0.0
    for low, high in pairwise(ends):
        grid = np.linspace(low, high, 801)[1:-1]
        total += trapezoid(np.exp(model.score_samples(grid[:, None])), grid)
    assert total == pytest.approx(1, abs=0.01)


def test_the_map_of_a_mirrored_shape_is_the_mirrored_map():
    shape = Shape(
        knots=[-1.0, 0.0, 0.5, 3.0],
        ranks=[0.0, 0.3, 0.5, 0.9],
        values=[None, 0.2, None],
        is_uniform=[True, True, False],
        slopes=(0.0, 0.7),
    )
    maps, mirrored = (ColumnMaps(1, {0: s}, {}) for s in (shape, shape.mirrored()))
    x = torch.linspace(-0.99, 4.0, 50, dtype=torch.float64)[:, None]
    (z, log_det), (other, other_log_det) = (
        m.forward_and_log_det(s * x) for m, s in ((maps, 1), (mirrored, -1))
    )
    np.testing.assert_allclose(other, -z, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(other_log_det, log_det, rtol=1e-12)
    np.testing.assert_allclose(mirrored.inverse(-z), -x, rtol=1e-9, atol=1e-12)
    assert mirrored.rounded(torch.tensor([[-0.4]], dtype=torch.float64)) == -0.2
