"""What is known before a fit: rows that count, those set aside, columns, and what to build."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from numbers import Integral
from typing import NamedTuple

import numpy as np
import torch
from sklearn.utils import check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.validation import _check_sample_weight

from ._checks import check_parameters, check_rows, column_bounds, is_pair, warn
from ._columns import Spread, describe, spread_of
from ._config import FlowConfig
from ._dimension import read_distinct_rows
from ._duplicates import distinct_rows, find_duplicates, row_ranks
from ._few_rows import Shrinkage, are_few, shrinkage_of
from ._inference import FittedFlow
from ._signed_order import signed_order
from ._split import Split, split_groups, split_rows
from ._table import ENOUGH_ROWS, Table, counted_once, drawn, rows_to_tensor
from .backend.device import make_generator, resolve_device, statistics_dtype
from .backend.flow import FlowModel

__all__ = ["Plan", "PlannedFlow"]

# With fewer rows there is nothing to validate on, and a network would only learn them by heart.
_MIN_ROWS_VALIDATED = 40
_MIN_VALIDATION_ROWS = 10
# Share of the rows that are copies from which on somebody has to be told.
_SHARE_TOLD = 0.05
# Dimensions, in those of the columns, from which on rows lie on no manifold to speak of.
_SHARE_FILLED = 0.7


class Plan(NamedTuple):
    """What is known before the first start of a fit."""

    table: Table
    split: Split
    # Raw rows that are validated on.
    validation: torch.Tensor | None
    # What is done with the values of its columns.
    spread: Spread
    # How much the covariance of few rows is shrunk, None for that of many.
    shrinkage: Shrinkage | None
    config: FlowConfig
    previous: FlowModel | None
    device: torch.device
    dtype: torch.dtype
    batch_size: int
    seeds: list[int]
    # Rows that are copies of no other, which the dimension is read from.
    distinct: np.ndarray
    # Multiply-adds of the largest product of a step.
    work: float
    # `time.monotonic` when the fit began.
    began: float
    # Coordinates (n, d) that were given for the rows of the table.
    guide_coordinates: np.ndarray | None = None


def _in_own_order(X, groups, weights, index, columns):
    """Return rows, groups, weights and indices in an order that depends on the rows alone.

    `columns` is the order of columns that it goes by, or None.
    """
    if len(X) > ENOUGH_ROWS:
        # They may lie on a disk.
        return X, groups, weights, index
    # Equal rows may differ in their weights and groups.
    ranked = X if columns is None else columns.forward(rows_to_tensor(X)).numpy()
    keys = [row_ranks(ranked)]
    if groups is not None:
        keys.insert(0, np.unique(groups, return_inverse=True)[1])
    if weights is not None:
        keys.insert(0, weights.numpy())
    order = np.lexsort(keys)
    groups = None if groups is None else groups[order]
    weights = None if weights is None else weights[torch.from_numpy(order)]
    return X[order], groups, weights, index[order]


class PlannedFlow(FittedFlow, ABC):
    """The steps of an estimator that come before the first start of a fit."""

    @abstractmethod
    def _check_method_parameters(self, n_features: int) -> None:
        """Raise ValueError where parameters contradict each other or the data."""

    @abstractmethod
    def _choices(self, n_features: int) -> FlowConfig:
        """Return what the flow is built from, with None for what is read from the rows."""

    def _read_rows(
        self,
        choices: FlowConfig,
        n_rows: int,
        rows: Callable[[], np.ndarray],
        shrinkage: Shrinkage | None,
    ) -> FlowConfig:
        """Return the choices with what is read from training rows, validation rows left out.

        `rows` returns them, spread and standardised; they are `n_rows`. `shrinkage` is that of
        their covariance, where they are few.
        """
        return choices

    def _plan(self, X, sample_weight=None, groups=None, X_val=None, guide_coordinates=None) -> Plan:
        """Check rows and parameters, and settle what all starts of a fit have in common."""
        began = time.monotonic()
        X = check_rows(self, X, ensure_min_samples=2)
        n_features = X.shape[1]
        check_parameters(self, X)
        self._check_method_parameters(n_features)
        device = resolve_device(self.device)
        dtype = statistics_dtype(device) if X.dtype == np.float64 else torch.float32
        if groups is not None:
            groups = column_or_1d(groups)
            check_consistent_length(X, groups)
        choices = replace(self._choices(n_features), bounded=self._bounds(n_features))
        # A start that has been fitted to the rows set aside cannot be compared on them.
        is_warm = self.warm_start and hasattr(self, "_config") and not self._is_refitted
        previous = self._flow if is_warm and self._config.agrees_with(choices) else None
        X, groups, weights, index = self._counted(X, groups, sample_weight)
        columns = self._column_order(X, choices, previous)
        X, groups, weights, index = _in_own_order(X, groups, weights, index, columns)
        table = Table(X, weights)
        n_rows = table.n_counted

        random_state = check_random_state(self.random_state)
        self._dtype = X.dtype
        n_restarts = 1 if previous else self.n_init
        order_seed, *seeds = random_state.randint(2**31, size=1 + n_restarts).tolist()
        order = torch.randperm(len(table), generator=make_generator(order_seed))
        self._check_validation(groups, X_val)
        split = self._split(table, order, groups, X_val, is_told=sample_weight is None)
        if X_val is not None:
            X_val = check_rows(self, X_val, reset=False, ensure_min_samples=2)
            check_parameters(self, X_val)
            validation = rows_to_tensor(X_val)
        else:
            validation = self._rows_set_aside(table, split)
        # Equal values of rows that repeat are no ties.
        distinct, has_copies = X, split.groups is not None
        if has_copies and len(X) <= ENOUGH_ROWS:
            has_copies = False
            distinct = X[split.distinct(torch.arange(len(X))).numpy()]
        eps = float(np.finfo(X.dtype).eps)
        is_image = choices.image_shape is not None
        self.columns_ = describe(self, distinct, is_image, eps)

        def counted():
            return table.take(table.repeated(order)).numpy()

        only = distinct if groups is None and not has_copies else distinct_rows(X)

        def fills_space():
            return read_distinct_rows(only).dimension > _SHARE_FILLED * n_features

        spread = spread_of(self, distinct, counted, is_image, fills_space, columns, eps)

        def new_standardizer():
            return self._new_standardizer(choices, spread.maps, columns)

        if X_val is not None and self.bounded is not None and spread.step.any():
            if bool((validation.amax(0) + spread.step > self.bounded[1]).any()):
                raise ValueError(
                    "Each value of a discrete column of X_val is spread over a step, so bounded="
                    f"{self.bounded} must reach to the largest value plus its step."
                )
        # Copies of rows know no more than one of them.
        read = split.distinct(split.training)
        read = counted_once(read, None if weights is None else split.weights_of(read, weights))

        def standardized(standardizer=None):
            raw = spread.rows(table.take(read), make_generator(0))
            standardizer = standardizer or new_standardizer()
            return standardizer.fit(raw).forward_and_log_det(raw)[0].numpy()

        shrinkage = None
        if choices.image_shape is None and are_few(len(read), n_features):
            standardizer = new_standardizer()
            shrinkage = shrinkage_of(standardized(standardizer), standardizer.scale.numpy())
        if previous:
            config = self._config
        else:
            config = self._read_rows(choices, len(read), standardized, shrinkage)
        width = max(self._layer_sizes(), default=1)
        batch_size = self._batch_size(n_rows, n_features)
        work = batch_size * width * max(width, n_features)
        return Plan(
            table=table,
            split=split,
            validation=validation,
            spread=spread,
            shrinkage=shrinkage,
            config=config,
            previous=previous,
            device=device,
            dtype=dtype,
            batch_size=batch_size,
            seeds=seeds,
            distinct=only,
            work=work,
            began=began,
            guide_coordinates=None if guide_coordinates is None else guide_coordinates[index],
        )

    def _column_order(self, X, choices, previous):
        """Return the order and the signs of columns within the fit, None where they are kept."""
        if previous:
            # Its weights are those of columns in their order.
            return self._standardizer.signed_order
        return None if choices.image_shape is not None else signed_order(X)

    def _bounds(self, n_features):
        """Return `bounded` as tuples of floats, which a configuration compares, or None."""
        bounds = column_bounds(self, n_features)
        return bounds and (bounds[0] if is_pair(self.bounded) else tuple(bounds))

    def _counted(self, X, groups, sample_weight):
        """Return the rows that count, their groups, weights, None where all are 1, and indices."""
        index = np.arange(len(X))
        if sample_weight is None:
            return X, groups, None, index
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        counts = weights > 0
        if not counts.all():
            # Rows that do not count are absent.
            X, weights, index = X[counts], weights[counts], index[counts]
            groups = None if groups is None else groups[counts]
        total = float(weights.sum())
        if len(X) < 2 or not 2 <= total < np.inf:
            raise ValueError(
                f"sample_weight counts rows, of which two are needed: {len(X)} weights are "
                f"positive, and they sum to {total:g}. Multiply weights that sum to 1 by the "
                "number of rows."
            )
        if total < _MIN_ROWS_VALIDATED <= len(X) and self.early_stopping == "auto":
            warn(
                f"sample_weight counts rows, and sums to {total:g} for {len(X)} of them: fewer "
                f"than {_MIN_ROWS_VALIDATED} rows train no network. Multiply weights that sum to 1 "
                "by the number of rows."
            )
        if total <= ENOUGH_ROWS and np.array_equal(weights, np.rint(weights)):
            # Whole numbers are copies.
            repeated = np.repeat(np.arange(len(X)), weights.astype(np.intp))
            X, weights, index = X[repeated], np.ones(len(repeated)), index[repeated]
            groups = None if groups is None else groups[repeated]
        return X, groups, None if (weights == 1).all() else torch.tensor(weights), index

    def _check_validation(self, groups, X_val):
        """Raise ValueError where what a fit is validated on contradicts its parameters."""
        if X_val is not None and not self.early_stopping:
            raise ValueError("X_val is of use with early_stopping=True or 'auto' only.")
        if groups is not None and X_val is not None:
            raise ValueError("With X_val no rows of X are set aside: groups must be None.")

    def _split(self, table, order, groups, X_val, is_told) -> Split:
        """Set rows aside, and with each of them its copies or those of its group.

        Weights may be copies: whoever gives them need not be told.
        """
        X, most = table.X, table.n_counted
        weights = None if table.weights is None else table.weights.numpy()
        if groups is not None:
            groups = np.unique(groups, return_inverse=True)[1]
            return split_groups(order, groups, self._n_validation(min(most, len(X))), weights)
        duplicates = find_duplicates(X)
        groups = duplicates.groups
        n_distinct = min(most, int(groups.max()) + 1)
        n_validation = 0 if X_val is not None else self._n_validation(n_distinct)
        split = split_rows(order, groups, n_validation, weights)
        if is_told and split.n_validation and duplicates.n_repeated >= _SHARE_TOLD * len(X):
            nearly = "nearly " if duplicates.kind == "near" else ""
            warn(
                f"{duplicates.n_repeated} of {len(X)} rows are {nearly}equal to others: "
                f"{int(groups.max()) + 1} are distinct. A row and its copies are set aside, or "
                "trained on, together."
            )
        if is_told and split.n_validation and duplicates.kind == "suspected":
            warn(
                "Rows look like readings of the same places, which are not clearly apart: a row "
                "that is set aside may have others like it that are trained on. Give the place of "
                "each row as groups."
            )
        return split

    @staticmethod
    def _rows_set_aside(table, split):
        """Return the raw rows that are validated on, as often as they count, or None."""
        held_out = split.distinct(split.validation)
        if len(held_out) and table.weights is not None:
            # As many rows as these are worth, for the standard errors of their scores.
            of_rows = split.weights_of(held_out, table.weights)
            n_worth = of_rows.sum().square() / of_rows.square().sum()
            held_out = held_out[drawn(of_rows, max(2, round(float(n_worth))))]
        return table.take(held_out) if len(held_out) else None

    def _n_validation(self, n_samples):
        """Return the number of rows that are set aside; copies of rows do not count.

        They are no more than it takes to compare epochs.
        """
        validate = self.early_stopping
        if validate == "auto":
            validate = n_samples >= _MIN_ROWS_VALIDATED
        if not validate:
            return 0
        n_validation = max(_MIN_VALIDATION_ROWS, round(self.validation_fraction * n_samples))
        if n_samples - n_validation < 2:
            raise ValueError(
                f"early_stopping={self.early_stopping!r} with validation_fraction="
                f"{self.validation_fraction} sets {n_validation} rows aside and needs at least 2 "
                f"more to train on, got n_samples={n_samples}."
            )
        return min(n_validation, ENOUGH_ROWS)

    def _layer_sizes(self):
        """Return `hidden_layer_sizes` as a tuple of int."""
        sizes = self.hidden_layer_sizes
        return (int(sizes),) if isinstance(sizes, Integral) else tuple(int(k) for k in sizes)

    def _batch_size(self, n_samples, n_features):
        """Return the rows of a gradient step."""
        if self.batch_size != "auto":
            return min(self.batch_size, n_samples)
        return min(n_samples, self._auto_batch_size(n_samples, n_features))

    def _auto_batch_size(self, n_samples, n_features):
        """Return the rows of a gradient step where they are not given.

        That is 64 to 128, and more where there are many columns, so that a batch has a covariance.
        """
        return max(64, min(max(128, min(512, 4 * n_features)), n_samples // 10))
