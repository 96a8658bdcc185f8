"""Columns are described as they were made, from decimals, known generators and their rounding."""

import copy
import pickle
from decimal import Decimal

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skmanifoldflow import Column, Columns
from skmanifoldflow._describe import describe_columns, describe_pixels

N = 1000


def describe(values):
    """Return the description of one column, in the precision that it has."""
    values = np.asarray(values)
    eps = np.finfo(values.dtype if values.dtype == np.float32 else np.float64).eps
    return describe_columns(values.astype(float)[:, None], ["x"], float(eps))[0]


def digits(values, n):
    """Round each value to n significant digits."""
    return np.array([float(f"{value:.{n}g}") for value in values])


def replaced(values, index, by):
    values = np.array(values, dtype=float)
    values[index] = by
    return values


def sometimes(rng, share, value, otherwise):
    return np.where(rng.rand(len(otherwise)) < share, value, otherwise)


@pytest.fixture
def rng():
    return np.random.RandomState(0)


# ------------------------------------------------------------------ steps


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("seed", range(40))
def test_step_and_offset_are_the_decimals_that_made_the_rows(seed, dtype):
    rng = np.random.RandomState(seed)
    places = rng.randint(-3, 4)
    step = Decimal(int(rng.choice([1, 2, 5, 7, 25]))).scaleb(-places)
    offset = step * int(rng.randint(0, 8)) / 8
    numbers = rng.randint(-40, 120, N)
    column = describe(np.array([float(offset + int(k) * step) for k in numbers], dtype=dtype))
    assert (column.kind, column.step, column.offset) == ("discrete", float(step), float(offset))
    assert column.atoms == ()
    assert column.off_grid == 0
    assert column.n_values == len(set(numbers))


# What is added to decimals with a step, and how many orders of magnitude they span.
@pytest.mark.parametrize(
    ("start", "step", "width"),
    [
        ("1.7e9", "1", 86_400),
        ("1.7e9", "1", 10**8),
        ("5200000", "0.01", 10**5),
        ("500000", "5", 100),
        ("1e6", "0.25", 4000),
        ("-273.15", "0.1", 500),
        ("0", "1e-9", 50),
        ("0", "1e-20", 50),
        ("1.7e18", "1e9", 10**6),
        ("0", "1", 10**12),
    ],
)
def test_steps_far_from_zero_and_of_any_size(rng, start, step, width):
    numbers = rng.randint(0, width, N)
    column = describe([float(Decimal(start) + int(k) * Decimal(step)) for k in numbers])
    assert (column.kind, column.step) == ("discrete", float(step))
    # The remainder of a decimal has the sign of the decimal.
    remainder = Decimal(start) % Decimal(step)
    assert column.offset == float((remainder + Decimal(step)) % Decimal(step))


@pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 20, 60])
def test_few_rows(n):
    rng = np.random.RandomState(n)
    for _ in range(20):
        # Distinct numbers without a common divisor are single steps.
        numbers = np.r_[0, 1, rng.permutation(np.arange(2, 3 * n))[: n - 2]]
        for places in (0, 1, 2):
            column = describe([float(Decimal(int(k)).scaleb(-places)) for k in numbers])
            assert column.kind == "discrete"
            if n > 2:
                assert column.step == float(Decimal(1).scaleb(-places))
        for values in (rng.standard_normal(n), rng.standard_cauchy(n), 1e4 + rng.rand(n)):
            assert describe(values).kind == "continuous"
            assert describe(values.astype(np.float32)).step is None


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_steps_that_are_no_decimals(rng, dtype):
    numbers = rng.randint(0, 20, N)
    for step in (1 / 3, 5 / 9, 1 / 255):
        column = describe((numbers * step).astype(dtype))
        assert (column.kind, column.step, column.offset) == ("discrete", step, 0.0)
    # As a scaler leaves them.
    mean, deviation = numbers.mean(), numbers.std()
    column = describe(((numbers - mean) / deviation).astype(dtype))
    assert column.kind == "discrete"
    assert column.step == pytest.approx(1 / deviation, rel=10 * float(np.finfo(dtype).eps))
    assert column.offset == pytest.approx((-mean / deviation) % column.step, rel=1e-4)


def test_booleans_and_two_values(rng):
    is_true = rng.rand(N) < 0.3
    column = describe(is_true)
    assert (column.kind, column.step, column.offset, column.n_values) == ("discrete", 1, 0, 2)
    assert (column.low, column.high) == (0, 1)
    column = describe(np.where(is_true, 3.7, -1.2))
    assert (column.kind, column.step, column.offset) == ("discrete", 4.9, 3.7)
    column = describe(np.where(is_true, np.pi, np.e))
    assert (column.kind, column.step) == ("discrete", np.pi - np.e)
    assert column.offset == pytest.approx(np.e % (np.pi - np.e))


def test_one_value():
    assert str(describe([-0.0] * 9).low) == "0.0"
    for values in (np.full(50, 0.3), [0.3, 0.1 * 3] * 25, np.zeros(2)):
        column = describe(values)
        assert (column.kind, column.step, column.scale, column.n_values) == ("constant", None, 0, 1)
        assert column.low == column.high == pytest.approx(values[0])


def test_rows_beside_the_grid(rng):
    hundredths = np.round(rng.standard_normal(N), 2)
    assert describe(replaced(hundredths, 3, hundredths[3] + 1e-9)).off_grid == 0
    beside = replaced(hundredths, [1, 2, 3], rng.standard_normal(3))
    column = describe(beside)
    assert (column.kind, column.step, column.offset) == ("discrete", 0.01, 0.0)
    assert column.off_grid == pytest.approx(3 / N)
    few = describe(replaced(rng.randint(0, 9, 40), [1, 2, 3], rng.standard_normal(3)))
    assert (few.kind, few.step, few.off_grid) == ("discrete", 1.0, 3 / 40)
    # Rare values of a grid are no exceptions to a coarser one, as of 3, 4, 5, 6 and 8 cylinders.
    cylinders = np.repeat([4.0, 6, 8, 3, 5], [200, 84, 107, 4, 3])
    assert describe(cylinders).step == 1
    assert describe(np.where(np.arange(N) < 15, 0.5, 0) + rng.randint(0, 60, N)).step == 0.5


def test_two_grids_have_a_common_one(rng):
    is_one, numbers = rng.rand(N) < 0.5, rng.randint(0, 300, N)
    assert describe(np.where(is_one, numbers // 4, numbers / 4)).step == 0.25
    assert describe(np.where(is_one, numbers, 5 * (numbers // 5))).step == 1
    assert describe(np.where(is_one, numbers // 10 / 10, numbers / 100)).step == 0.01
    column = describe(np.where(is_one, numbers, np.pi * numbers))
    assert (column.kind, column.step) == ("continuous", None)


def test_repeated_sums_have_the_step_of_the_terms():
    column = describe(np.r_[0.1 * np.arange(50), np.cumsum(np.full(49, 0.1))])
    assert (column.kind, column.step, column.offset) == ("discrete", 0.1, 0.0)


# ------------------------------------------------------------------ no grid


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_continuous_columns(rng, dtype):
    normal = rng.standard_normal(N)
    for values in (
        normal,
        5.2e6 + 1000 * normal,
        10 ** rng.uniform(-6, 6, N),
        rng.standard_cauchy(N),
        rng.standard_t(2, N),
        rng.lognormal(0, 3, N),
        normal.astype(np.float16),
    ):
        column = describe(np.asarray(values).astype(dtype))
        assert (column.kind, column.step, column.atoms) == ("continuous", None, ())


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_significant_digits_are_not_one_step(rng, dtype):
    for values in (rng.lognormal(0, 1, N), 10 ** rng.uniform(-6, 6, N), rng.gamma(2, 40, N)):
        column = describe(digits(values, 3).astype(dtype))
        assert (column.kind, column.step) == ("continuous", None)


def test_repeated_rows_are_no_atoms(rng):
    for n_times in (2, 10):
        column = describe(np.repeat(rng.standard_normal(N // n_times), n_times))
        assert (column.kind, column.atoms) == ("continuous", ())
    # Atoms of rows that repeat are still found.
    zeros = sometimes(rng, 0.5, 0, rng.standard_normal(N))
    column = describe(np.repeat(zeros, 10))
    assert column.kind == "mixed"
    assert [atom.value for atom in column.atoms] == [0]
    for _ in range(20):
        assert describe(rng.choice(rng.standard_normal(N), N)).kind == "continuous"


def test_few_scattered_values_are_discrete_without_a_step(rng):
    column = describe(np.log1p(rng.poisson(3, N)))
    assert (column.kind, column.step, column.offset, column.atoms) == ("discrete", None, None, ())


def test_precision_of_numbers_is_no_step(rng):
    values = rng.standard_normal(N)
    assert describe(np.round(values, 6)).step == 1e-6
    assert describe(np.round(values, 12)).step is None
    # float32 numbers around 1e5 are 2^-7 apart: with many rows, that is their grid.
    near = (1e5 + 0.1 * rng.standard_normal(20 * N)).astype(np.float32)
    assert describe(near).step == 2.0**-7
    assert describe(near[:20]).step is None


# ------------------------------------------------------------------ atoms


def test_atoms_of_a_continuous_column(rng):
    values = rng.lognormal(size=N)
    cases = [([0.0], values), ([values.mean()], values), ([-9999.0], values), ([0.0, -1.0], values)]
    for atoms, continuous in cases:
        column_values, shares = continuous.copy(), []
        for i, atom in enumerate(atoms):
            column_values[i * 300 : i * 300 + 200] = atom
            shares.append(0.2)
        column = describe(rng.permutation(column_values))
        assert (column.kind, column.step) == ("mixed", None)
        assert dict(column.atoms) == dict(zip(sorted(atoms), shares, strict=True))
    assert describe(sometimes(rng, 0.01, 0, values)).kind == "continuous"


def test_scale_is_that_of_the_rows_beside_the_atoms(rng):
    normal = 3 * rng.standard_normal(20 * N)
    assert describe(normal).scale == pytest.approx(3, rel=0.03)
    assert describe(sometimes(rng, 0.4, -9999, normal)).scale == pytest.approx(3, rel=0.03)
    assert describe(np.r_[normal, 1e12]).scale == pytest.approx(3, rel=0.03)
    rare = rng.rand(N) < 0.02
    assert describe(rare).scale == pytest.approx(rare.std())


def test_atoms_beside_a_grid(rng):
    for numbers in (rng.randint(0, 4, N), rng.poisson(5, N)):
        column = describe(replaced(numbers, slice(300), 2.37))
        assert (column.kind, column.step, column.offset) == ("discrete", 1.0, 0.0)
        assert column.atoms == ((2.37, 0.3),)
        mean = numbers[300:].mean()
        column = describe(replaced(numbers, slice(300), mean))
        assert (column.step, column.atoms) == (1.0, ((mean, 0.3),))
    binary = rng.rand(N) < 0.5
    column = describe(replaced(binary, slice(300), binary.mean() + 1e-5))
    assert (column.step, len(column.atoms)) == (1.0, 1)


def test_atoms_on_a_grid(rng):
    # Frequent values of a few are just discrete.
    for values in (
        rng.choice(4, N, p=[0.5, 0.2, 0.2, 0.1]),
        rng.poisson(0.05, N),
        sometimes(rng, 0.5, 0, rng.poisson(5, N)),
        rng.geometric(0.3, N),
    ):
        column = describe(values)
        assert (column.kind, column.step, column.atoms) == ("discrete", 1.0, ())
    amounts = sometimes(rng, 0.9, 0, rng.randint(0, 100_000, N))
    assert [atom.value for atom in describe(amounts).atoms] == [0.0]
    for values in (rng.randint(18, 90, N), rng.randint(1, 6, N), 5 * rng.randint(0, 30, N)):
        for share in (0.05, 0.4):
            column = describe(sometimes(rng, share, -9999, values))
            assert column.kind == "discrete"
            assert [atom.value for atom in column.atoms] == [-9999.0]
            assert column.step == (5.0 if values.max() > 90 else 1.0)
    halves = describe(rng.choice([0, 0.5, 1], N))
    assert (halves.step, halves.atoms) == (0.5, ())


def test_powers_and_doses(rng):
    assert describe(2.0 ** rng.randint(0, 11, N)).step == 1
    assert describe(rng.choice([0, 0.1, 1], N)).step == 0.1


# ------------------------------------------------------------------ random columns


@pytest.mark.parametrize("seed", range(60))
def test_any_column_agrees_with_its_description(seed):
    """Rows, in exact fractions of the step, are where the description says."""
    rng = np.random.RandomState(seed)
    n = int(rng.choice([2, 3, 7, 30, 100, 500]))
    kinds = [
        rng.standard_normal(n),
        rng.randint(0, 50, n),
        rng.standard_cauchy(n),
        rng.rand(n) < 0.5,
    ]
    values = np.array(kinds[rng.randint(len(kinds))], dtype=float)
    for change in rng.permutation(6)[:3]:
        if change == 0:
            values = np.round(values, rng.randint(-1, 5))
        elif change == 1:
            values = values * 10.0 ** rng.randint(-9, 9)
        elif change == 2:
            values = values + 10.0 ** rng.randint(-3, 9)
        elif change == 3:
            values = sometimes(rng, rng.rand(), -999.0, values)
        elif change == 4:
            values = (values - values.mean()) / (values.std() or 1)
        else:
            values[: n // 30] = rng.standard_normal(n // 30)
    column = describe(values)
    assert (column.low, column.high) == pytest.approx((values.min(), values.max()), rel=1e-12)
    assert column.kind in ("constant", "continuous", "discrete", "mixed")
    assert (column.kind == "mixed") <= bool(column.atoms)
    for value, share in column.atoms:
        assert share == pytest.approx(np.mean(np.isclose(values, value, rtol=1e-14, atol=0)))
    if column.step is not None:
        assert column.kind == "discrete"
        assert 0 <= column.offset < column.step
        multiples = (values - column.offset) / column.step
        rounding = 1e-5 + 1e-15 * np.abs(values / column.step)
        is_beside = np.abs(multiples - np.round(multiples)) > rounding
        is_atom = np.isin(values, [atom.value for atom in column.atoms])
        assert np.mean(is_beside & ~is_atom) == pytest.approx(column.off_grid)


# ------------------------------------------------------------------ dummies


def categories(rng, *sizes, n=400):
    """Return the dummies of several categories, each value of which occurs."""
    columns = [np.r_[np.arange(size), rng.randint(0, size, n - size)] for size in sizes]
    return OneHotEncoder(sparse_output=False).fit_transform(np.column_stack(columns))


def dummies(X):
    return [
        column.dummies
        for column in describe_columns(np.ascontiguousarray(X), range(X.shape[1]), 2e-16)
    ]


@pytest.mark.parametrize("scaled", [False, True])
def test_dummies(rng, scaled):
    X = categories(rng, 2, 5, 30)
    others = np.column_stack([rng.standard_normal(400), rng.rand(400) < 0.2, np.ones(400)])
    X = np.column_stack([others[:, :2], X, others[:, 2:]])
    if scaled:
        X = StandardScaler().fit_transform(X)
    sets = [tuple(range(2, 4)), tuple(range(4, 9)), tuple(range(9, 39))]
    expected = [(), (), *(s for s in sets for _ in s), ()]
    assert dummies(X) == expected
    order = rng.permutation(X.shape[1])
    place = np.argsort(order)
    found = dummies(X[:, order])
    for j, indices in enumerate(expected):
        assert found[place[j]] == tuple(sorted(place[list(indices)]))


def test_incomplete_dummies_are_none(rng):
    X = categories(rng, 2, 5)
    assert not any(dummies(X[:, 3:]))
    X[7, 2:] = 0
    assert dummies(X) == [(0, 1), (0, 1), *[()] * 5]
    # Exclusive by accident.
    assert not any(dummies(np.array([[0.0, 1], [1, 0], [0, 1]])))


def test_many_two_valued_columns_end_in_time(rng):
    X = (rng.rand(2000, 300) < 0.02).astype(float)
    X[np.arange(2000), rng.randint(0, 300, 2000)] = 1
    assert len(dummies(X)) == 300


# ------------------------------------------------------------------ columns together


@pytest.fixture
def columns(rng):
    frame = pd.DataFrame(
        {
            "height": 170 + 10 * rng.standard_normal(N),
            "age": rng.randint(18, 90, N),
            "income": sometimes(rng, 0.6, 0, rng.lognormal(8, 1, N)),
            "bias": np.ones(N),
        }
    )
    return describe_columns(frame.to_numpy(dtype=float), list(frame.columns), 2.2e-16)


def test_columns_are_a_sequence(columns):
    assert len(columns) == 4
    assert [column.name for column in columns] == ["height", "age", "income", "bias"]
    assert columns["age"] is columns[1] is columns[-3]
    assert isinstance(columns[1:], Columns)
    assert [column.kind for column in columns] == ["continuous", "discrete", "mixed", "constant"]
    with pytest.raises(KeyError, match="weight"):
        columns["weight"]
    with pytest.raises(AttributeError):
        columns[0].kind = "discrete"


def test_columns_can_be_copied_and_stored(columns):
    for copied in (
        pickle.loads(pickle.dumps(columns)),
        copy.deepcopy(columns),
        clone(columns, safe=False),
    ):
        assert copied == columns
        assert joblib.hash(copied) == joblib.hash(columns)
    plain = (str, int, float, tuple, type(None))
    for column in columns:
        for value in vars(column).values():
            assert type(value) in plain


def test_table(columns):
    lines = str(columns).splitlines()
    assert repr(columns) == str(columns)
    assert len(lines) == 5
    head = lines[0].split()
    assert head == ["column", "kind", "step", "atoms", "low", "high", "scale", "values"]
    assert lines[2].split() == ["age", "discrete", "1", "18", "89", *lines[2].split()[-2:]]
    assert f"0 ({columns['income'].atoms[0].share:.0%})" in lines[3]
    # Numbers end, and texts begin, in one column.
    assert (
        len(
            {
                line.index(kind)
                for line, kind in zip(
                    lines[1:], ("continuous", "discrete", "mixed", "constant"), strict=True
                )
            }
        )
        == 1
    )
    assert len({len(line) for line in lines}) == 1


def test_table_of_many_columns(rng):
    X = np.column_stack([categories(rng, 60), rng.standard_normal((400, 40))])
    lines = str(describe_columns(X, range(100), 2.2e-16)).splitlines()
    assert len(lines) == 43
    assert lines[31] == "..."
    assert lines[-1] == "100 columns: 40 continuous, 60 discrete"
    assert lines[1].endswith("0-59")


def test_pixels_are_described_together():
    images = load_digits().data
    columns = describe_pixels(images, 2.2e-16)
    assert len(columns) == 64
    assert len({id(column) for column in columns}) == 1
    assert (columns[0].kind, columns[0].step, columns[0].high) == ("discrete", 1.0, 16.0)
    _, line = str(columns).splitlines()
    assert line.startswith("all pixels")


def test_iris():
    iris = load_iris(as_frame=True).data
    columns = describe_columns(iris.to_numpy(), list(iris.columns), 2.2e-16)
    assert all((c.kind, c.step, c.offset) == ("discrete", 0.1, 0.0) for c in columns)
    assert all(isinstance(column, Column) for column in columns)
