"""Weights of rows: whole ones are copies, zeros are absent, others count in the mean."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn import config_context
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmanifoldflow import (
    ChartAtlasFlow,
    JointManifoldFlow,
    ManifoldPriorFlow,
    NoisyInjectiveFlow,
)
from skmanifoldflow import _base as base_module
from skmanifoldflow import _plan as plan_module
from skmanifoldflow import _table as table_module
from skmanifoldflow._manifold_prior import estimator as prior_module
from skmanifoldflow._table import Table, counted_once, drawn, drawn_anew
from skmanifoldflow.backend.device import make_generator
from skmanifoldflow.backend.standardize import Standardizer

SMALL = {"n_layers": 2, "hidden_layer_sizes": (8,), "max_iter": 3, "random_state": 0}
every_estimator = pytest.mark.parametrize(
    "Estimator", [ManifoldPriorFlow, NoisyInjectiveFlow, ChartAtlasFlow, JointManifoldFlow]
)


@pytest.fixture
def rng():
    return np.random.RandomState(0)


@pytest.fixture(name="X")
def table(rng):
    return rng.standard_normal((120, 4)) @ rng.standard_normal((4, 4))


# ------------------------------------------------------------------ systematic sampling


def test_whole_weights_are_numbers_of_copies(rng):
    weights = rng.randint(1, 5, 50)
    expected = np.repeat(np.arange(50), weights)
    for shift in (0.0, 0.3, 0.999):
        index = drawn(torch.tensor(weights, dtype=torch.float64), int(weights.sum()), shift)
        assert index.tolist() == expected.tolist()


def test_rows_are_drawn_as_often_as_their_weights_in_the_mean(rng):
    weights = torch.tensor(rng.exponential(size=40))
    n_rows = round(float(weights.sum()))
    expected = weights.numpy() * n_rows / float(weights.sum())
    generator, n_draws = make_generator(0), 4000
    counts = np.zeros(40)
    for _ in range(n_draws):
        of_draw = np.bincount(drawn_anew(weights, n_rows, generator).numpy(), minlength=40)
        assert of_draw.sum() == n_rows
        assert np.all((of_draw >= np.floor(expected)) & (of_draw <= np.ceil(expected)))
        counts += of_draw
    # A draw has a variance of at most 1/4.
    assert np.abs(counts / n_draws - expected).max() < 5 * 0.5 / np.sqrt(n_draws)


def test_tables_give_rows_of_any_dtype_and_layout(rng):
    X = rng.standard_normal((50, 3))
    index = torch.tensor([4, 4, 0])
    for given in (X, X.astype(np.float32), np.asfortranarray(X), X[::-1]):
        rows = Table(given).take(index)
        assert rows.dtype == torch.float64
        np.testing.assert_array_equal(rows.numpy(), given[index.numpy()].astype(float))
        np.testing.assert_array_equal(
            torch.cat([block for block, _ in Table(given).blocks()]).numpy(), given.astype(float)
        )


def test_small_weights_count_once_in_part():
    weights = torch.tensor([0.5, 0.5, 1.0, 7.0], dtype=torch.float64)
    index = counted_once(torch.arange(4), weights).tolist()
    assert len(index) == 3
    assert index[1:] == [2, 3]


# ------------------------------------------------------------------ standardisation


@pytest.mark.parametrize("sizes", [(100,), (1, 99), (30, 50, 20)])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_moments_of_blocks_are_those_of_the_rows(rng, sizes, is_weighted):
    X = 1e3 + rng.standard_normal((100, 3)) * [1, 10, 0]
    weights = rng.exponential(size=100) if is_weighted else None
    blocks, start = [], 0
    for size in sizes:
        part = slice(start, start + size)
        of_part = None if weights is None else torch.tensor(weights[part])
        blocks.append((torch.tensor(X[part]), of_part))
        start += size
    standardizer = Standardizer(3).fit_blocks(blocks)
    mean = np.average(X, axis=0, weights=weights)
    scale = np.sqrt(np.average((X - mean) ** 2, axis=0, weights=weights))
    np.testing.assert_allclose(standardizer.mean.numpy(), mean, rtol=1e-12)
    np.testing.assert_allclose(standardizer.scale.numpy()[:2], scale[:2], rtol=1e-10)
    # That of a constant column is its value.
    assert standardizer.scale[2] == pytest.approx(1e3)


# ------------------------------------------------------------------ fits


@every_estimator
def test_weights_of_one_zeros_and_whole_numbers(Estimator, X, rng):
    model, whole = Estimator(2, **SMALL), rng.randint(0, 4, len(X))
    for weights, rows in (
        (np.ones(len(X)), X),
        (whole, np.repeat(X, whole, axis=0)),
        (np.where(whole > 0, 1, 0), X[whole > 0]),
    ):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".* rows are equal to others", UserWarning)
            expected = model.fit(rows).score_samples(X)
        np.testing.assert_array_equal(model.fit(X, None, weights).score_samples(X), expected)


@every_estimator
def test_the_order_of_the_rows_is_none_of_the_model(Estimator, X, rng):
    expected = Estimator(2, **SMALL).fit(X).score_samples(X)
    order = rng.permutation(len(X))
    found = Estimator(2, **SMALL).fit(X[order]).score_samples(X)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("has_groups", [False, True])
def test_the_order_of_equal_rows_with_weights_is_none_of_the_model(X, rng, has_groups):
    twice, weights = np.concatenate([X, X]), 0.5 + rng.exponential(size=2 * len(X))
    groups = rng.randint(0, 30, 2 * len(X)) if has_groups else None
    model, order = NoisyInjectiveFlow(2, **SMALL), rng.permutation(2 * len(X))
    expected = model.fit(twice, None, weights, groups=groups).score_samples(X)
    of_order = None if groups is None else groups[order]
    found = model.fit(twice[order], None, weights[order], groups=of_order).score_samples(X)
    np.testing.assert_array_equal(found, expected)


def test_a_row_of_a_great_weight_is_trained_on(rng):
    """It would be most of the validation rows, and the training would never see it."""
    X, weights = rng.standard_normal((200, 3)), np.full(200, 1.001)
    weights[0] = 60
    for seed in range(20):
        plan = NoisyInjectiveFlow(2, random_state=seed)._plan(X, weights)
        held_out = row_numbers(plan.table.take(plan.split.validation), X)
        assert 0 not in held_out
        assert len(held_out) >= 10


@pytest.mark.parametrize("give", [pd.Series, list, lambda w: torch.tensor(w).numpy()])
def test_weights_of_any_kind_are_left_alone(X, rng, give):
    weights = rng.exponential(size=len(X))
    expected = NoisyInjectiveFlow(2, **SMALL).fit(X, None, weights).score_samples(X)
    given = give(weights.copy())
    found = NoisyInjectiveFlow(2, **SMALL).fit(X, sample_weight=given).score_samples(X)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.asarray(given), weights)


@every_estimator
def test_weights_of_another_distribution(Estimator, rng):
    """Rows of a wide normal distribution, weighted by the ratio to a narrow one."""
    scale = np.array([1, 0.2])
    X, fresh = 1.5 * scale * rng.standard_normal((600, 2)), scale * rng.standard_normal((2000, 2))
    narrow, wide = stats.norm(scale=scale), stats.norm(scale=1.5 * scale)
    weights = (narrow.pdf(X) / wide.pdf(X)).prod(axis=1)
    weights *= len(X) / weights.sum()
    n_worth = int(weights.sum() ** 2 / (weights**2).sum())
    model = Estimator(max_iter=10, random_state=0)
    score = model.fit(X, sample_weight=weights).score(fresh)
    # As many rows of the narrow distribution, and the rows without their weights.
    assert score > model.fit(X[:n_worth] / 1.5).score(fresh) - 0.1
    assert score > model.fit(X).score(fresh) + 0.1


@every_estimator
def test_rules_by_the_number_of_rows_go_by_the_sum_of_the_weights(Estimator, X):
    model = Estimator(2, **SMALL)
    plan = model._plan(X, np.full(len(X), 30.5))
    assert plan.batch_size == model._batch_size(round(30.5 * len(X)), 4)
    settings = model._prepare_restart(plan, 0, None).job.settings
    assert settings.weight_decay == model._weight_decay(round(30.5 * len(X)))
    n_validation = plan.split.n_validation
    assert n_validation == model._plan(X).split.n_validation == 12
    # An epoch has as many rows as the weights of those that are trained on.
    job = model._prepare_restart(plan, 0, None).job
    assert job.rows.n_rows == round(30.5 * (len(X) - n_validation))
    with pytest.warns(UserWarning, match="fewer than 40 rows train no network"):
        assert model._plan(X, np.full(len(X), 0.3)).split.n_validation == 0


def row_numbers(rows, X):
    """Return the numbers of rows in X."""
    number = {tuple(row): i for i, row in enumerate(X.tolist())}
    return np.array([number[tuple(row)] for row in rows.tolist()])


def test_validation_rows_are_weighted(X, rng):
    """As many rows as those set aside are worth, each as often as its weight says."""
    weights = 0.5 + rng.exponential(size=len(X))
    plan = NoisyInjectiveFlow(2, **SMALL)._plan(X, weights)
    held_out = row_numbers(plan.table.take(plan.split.validation), X)
    assert len(held_out) == 12
    counts = np.bincount(row_numbers(plan.validation, X), minlength=len(X))
    of_rows = weights[held_out]
    n_worth = round(of_rows.sum() ** 2 / (of_rows**2).sum())
    assert len(plan.validation) == counts[held_out].sum() == n_worth < 12
    assert np.all(np.abs(counts[held_out] - n_worth * of_rows / of_rows.sum()) < 1)


def test_groups_and_weights_of_copies(X, rng):
    """Groups stay on one side, and the weights of copies add up."""
    weights, twice = rng.exponential(size=2 * len(X)), np.concatenate([X, X])
    plan = NoisyInjectiveFlow(2, **SMALL)._plan(twice, weights)
    assert plan.split.n_validation == 24
    held_out = np.unique(row_numbers(plan.table.take(plan.split.validation), X))
    assert len(held_out) == 12
    of_rows = weights.reshape(2, -1).sum(axis=0)[held_out]
    counts = np.bincount(row_numbers(plan.validation, X), minlength=len(X))[held_out]
    n_worth = round(of_rows.sum() ** 2 / (of_rows**2).sum())
    assert np.all(np.abs(counts - n_worth * of_rows / of_rows.sum()) < 1)
    # Each of these groups has rows of its own.
    groups = np.tile(np.repeat(np.arange(24), 5), 2)
    plan = NoisyInjectiveFlow(2, **SMALL)._plan(twice, weights, groups)
    validation, training = (
        set(groups[row_numbers(plan.table.take(index), X)])
        for index in (plan.split.validation, plan.split.training)
    )
    assert validation
    assert not validation & training


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, 2.0], "sample_weight.shape"),
        (np.full(120, -1.0), "Negative values"),
        (np.full(120, np.nan), "NaN"),
        (np.zeros(120), "at least one non-zero"),
        (np.full(120, 1 / 120), "Multiply weights that sum to 1"),
        (np.r_[9.0, np.zeros(119)], "1 weights are positive"),
    ],
)
@every_estimator
def test_weights_that_cannot_be_used(Estimator, X, weights, message):
    with pytest.raises(ValueError, match=message):
        Estimator(2, **SMALL).fit(X, sample_weight=weights)


def test_huge_weights_end(X):
    """Of weights that sum to more rows than an epoch can have only the ratios count."""
    weights = np.where(np.arange(len(X)) < 60, 1e12, 2e12) + 0.5
    model = NoisyInjectiveFlow(2, **SMALL | {"max_iter": 1}, batch_size=2**16)
    plan = model._plan(X, weights)
    rows = model._prepare_restart(plan, 0, None).job.rows
    assert rows.n_rows == 2**20
    assert np.isfinite(model.fit(X, sample_weight=weights).score(X))


def test_weights_are_routed(X, rng):
    weights = rng.exponential(size=len(X))
    flow = NoisyInjectiveFlow(2, **SMALL)
    plain = make_pipeline(StandardScaler(), flow)
    expected = plain.fit(X, noisyinjectiveflow__sample_weight=weights).score_samples(X)
    assert not np.array_equal(plain.fit(X).score_samples(X), expected)
    with config_context(enable_metadata_routing=True):
        flow.set_fit_request(sample_weight=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        routed = make_pipeline(scaler, flow).fit(X, sample_weight=weights)
        np.testing.assert_array_equal(routed.score_samples(X), expected)


# ------------------------------------------------------------------ starts


@pytest.mark.parametrize("Estimator", [NoisyInjectiveFlow, ChartAtlasFlow])
def test_a_start_that_is_kept_is_fitted_to_all_rows(Estimator, rng):
    """With a vanishing learning rate it is that of the same rows without any set aside."""
    X = rng.standard_normal((60, 4)) @ rng.standard_normal((4, 4))
    settings = {"n_layers": 2, "hidden_layer_sizes": (8,), "max_iter": 2, "random_state": 0}
    model = Estimator(2, learning_rate_init=1e-12, **settings)
    if Estimator is ChartAtlasFlow:
        model.set_params(n_charts=1)
    kept = model.fit(X).score_samples(X)
    model.set_params(early_stopping=False)
    np.testing.assert_allclose(kept, model.fit(X).score_samples(X), rtol=0.01, atol=0.01)
    # It knows all rows: a warm fit would validate on rows that it knows.
    model.set_params(early_stopping="auto", warm_start=True).fit(X)
    np.testing.assert_allclose(model.fit(X).score_samples(X), kept, atol=1e-6)


def test_flow_and_mixture_are_scored_on_the_same_rows(rng, monkeypatch):
    """The score of a start that was kept is that of its validation: nothing is refitted."""
    X = rng.standard_normal((60, 10))
    settings = {"n_layers": 2, "hidden_layer_sizes": (8,), "max_iter": 2, "random_state": 0}
    better, scores = prior_module.better_mixture, []

    def watched(objective, rows, units, score, *args):
        scores.append(score)
        return better(objective, rows, units, score, *args)

    monkeypatch.setattr(prior_module, "better_mixture", watched)
    model = ManifoldPriorFlow(learning_rate_init=1e-12, **settings).fit(X)
    assert scores[-1] == pytest.approx(max(model.validation_scores_), abs=0.05)


# ------------------------------------------------------------------ many rows


@pytest.fixture
def many(monkeypatch):
    """Sixty rows are many, and are taken batch by batch."""
    for module in (base_module, plan_module, table_module):
        monkeypatch.setattr(module, "ENOUGH_ROWS", 60)
    monkeypatch.setattr(base_module, "_MAX_KEPT_VALUES", 1)


@pytest.mark.parametrize("is_weighted", [False, True])
@every_estimator
def test_some_of_many_rows_stand_for_all(Estimator, many, rng, is_weighted):
    """Rows in the order of time: what is taken comes from all of it."""
    n = 1200
    X = np.c_[np.linspace(-1, 1, n), rng.standard_normal((n, 2))].astype(np.float32)
    weights = 0.5 + rng.uniform(size=n) if is_weighted else None
    # Even distances are a grid, over which values would be spread.
    model = Estimator(2, discrete_features=None, **SMALL)
    plan = model._plan(X, weights)
    restart = model._prepare_restart(plan, 0, None)
    assert len(restart.job.rows.sample) == 60
    order = restart.standardizer.signed_order
    assert abs(float(order.inverse(restart.job.rows.sample)[:, 0].mean())) < 0.5
    assert plan.split.n_validation == len(plan.split.distinct(plan.split.validation)) == 60
    mean, standardizer = np.average(X, axis=0, weights=weights), restart.standardizer
    found = standardizer.signed_order.inverse(standardizer.mean[None])[0]
    np.testing.assert_allclose(found.numpy(), mean, atol=1e-6)
    rows, split, _ = model._fitted_rows(plan, restart)
    assert len(rows) == 60
    assert split.n_validation == 3
    # The rows are in the order of the table, and those of the split are what it says.
    times = standardizer.signed_order.inverse(rows)[:, 0]
    assert bool((times.diff() >= 0).all())
    held_out = {tuple(row) for row in rows[split.validation].tolist()}
    known = restart.standardizer.forward_and_log_det(plan.table.take(plan.split.validation))[0]
    assert held_out <= {tuple(row) for row in known.to(rows).tolist()}
    assert np.isfinite(model.fit(X, sample_weight=weights).score(X))


@every_estimator
def test_rows_taken_by_batches_are_the_same(Estimator, monkeypatch, X, rng):
    weights = rng.exponential(size=len(X))
    expected = Estimator(2, **SMALL).fit(X, None, weights).score_samples(X)
    monkeypatch.setattr(base_module, "_MAX_KEPT_VALUES", 1)
    found = Estimator(2, **SMALL).fit(X, None, weights).score_samples(X)
    np.testing.assert_array_equal(found, expected)


def test_a_mapped_matrix_is_not_copied(many, tmp_path, rng):
    rows = rng.standard_normal((500, 3)).astype(np.float32)
    np.save(tmp_path / "X.npy", rows)
    X = np.load(tmp_path / "X.npy", mmap_mode="r")
    model = NoisyInjectiveFlow(2, **SMALL)
    assert np.shares_memory(model._plan(X).table.X, X)
    np.testing.assert_array_equal(
        model.fit(X).score_samples(rows), model.fit(rows).score_samples(X)
    )
