"""Groups of rows stay on one side of a split."""

import numpy as np
import pytest
import torch

from skmanifoldflow._split import split_groups, split_rows

N = 200


@pytest.fixture
def order():
    return torch.randperm(N, generator=torch.Generator().manual_seed(0))


def test_rows_that_are_alone_are_set_aside_in_order(order):
    split = split_rows(order, np.arange(N), 20)
    assert torch.equal(split.order, order)
    assert torch.equal(split.validation, order[:20])
    assert torch.equal(split.training, order[20:])
    assert torch.equal(split.distinct(split.training), order[20:])


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_whole(order, seed):
    groups = np.unique(np.random.RandomState(seed).randint(60, size=N), return_inverse=True)[1]
    n_groups = groups.max() + 1
    split = split_rows(order, groups, 12)
    held_out, trained = groups[split.validation], groups[split.training]
    assert not set(held_out) & set(trained)
    assert len(set(held_out)) == 12
    assert sorted(split.order.tolist()) == list(range(N))
    # One row of each, the first in the order.
    distinct = split.distinct(split.training)
    assert len(distinct) == n_groups - 12
    assert sorted(groups[distinct]) == sorted(set(trained))
    position = {row: i for i, row in enumerate(split.order.tolist())}
    for row in distinct.tolist():
        of_group = [position[i] for i in np.flatnonzero(groups == groups[row]).tolist()]
        assert position[row] == min(of_group)


def test_each_group_is_as_likely_to_be_set_aside():
    groups = np.repeat(np.arange(40), [1, 9] * 20)
    times = np.zeros(40)
    for seed in range(2000):
        order = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
        times[np.unique(groups[split_rows(order, groups, 8).validation])] += 1
    # 2000 * 8 / 40, with a standard deviation of 18.
    assert (np.abs(times - 400) < 5 * 18).all()
    assert times[1::2].mean() == pytest.approx(400, abs=20)


def test_a_group_of_many_rows_is_trained_on(order):
    groups = np.r_[np.zeros(120, dtype=int), np.arange(1, 81)]
    split = split_rows(order, groups, 20)
    assert split.n_validation == 20
    assert 0 not in groups[split.validation]


@pytest.mark.parametrize("seed", range(10))
def test_groups_of_many_sizes_are_not_too_many_rows(seed):
    groups = np.r_[np.repeat(np.arange(10), 18), np.repeat(np.arange(10, 20), 2)]
    order = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
    assert split_rows(order, groups, 4).n_validation <= 1.5 * 4 * N / 20


@pytest.mark.parametrize(
    ("sizes", "n_validation"),
    [([4, 4, 4], 10), ([60, 40], 70), ([1, 1, 198], 20), ([100, 100], 20)],
)
def test_rows_are_left_on_both_sides(sizes, n_validation):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(0))
    split = split_groups(order, groups, n_validation)
    assert len(split.validation) >= 2
    assert len(split.training) >= 2
    assert not set(groups[split.validation]) & set(groups[split.training])


@pytest.mark.parametrize("sizes", [[10], [1, 199]])
def test_no_group_that_can_be_set_aside(sizes):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    with pytest.raises(ValueError, match="there is none"):
        split_groups(torch.arange(len(groups)), groups, 2)


def test_few_large_groups_leave_nothing_to_set_aside(order):
    assert split_rows(order, np.arange(N) % 3, 1).n_validation == 0
