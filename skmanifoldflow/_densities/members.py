"""Members of a stack of densities: the default ones, and how they are fitted."""

import time
import warnings

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from .._chart_atlas import ChartAtlasFlow
from .._folds import takes_groups
from .._noisy_injective import NoisyInjectiveFlow
from ..backend.device import single_threaded, standard_context
from ..backend.training import train_all
from .mixture import ValidatedMixture
from .normal_scores import NormalScores
from .student_t import StudentT
from .transformed import TransformedDensity

__all__ = ["default_members", "exchangeable", "few_members", "fit_members", "scores_of"]

# Flows that are averaged, and from how many rows on fewer are: their starts differ less then.
_N_FLOWS, _N_FLOWS_OF_MANY_ROWS, _MANY_ROWS = 3, 2, 5000
# Epochs of the first look at an atlas, and the nats per row by which it may be behind the best
# member then.
_FIRST_EPOCHS, _FAR_BEHIND = 5, 1.0
# Share of the time for the flows that are trained as one stack, where others follow.
_TIME_OF_FLOWS = 0.5


def default_members(n_rows):
    """Return the pairs of names and densities of which a stack is made by default."""
    n_flows = _N_FLOWS if n_rows < _MANY_ROWS else _N_FLOWS_OF_MANY_ROWS
    return [
        *((f"flow {k + 1}", NoisyInjectiveFlow()) for k in range(n_flows)),
        ("mixture", ValidatedMixture()),
        ("normal scores", TransformedDensity(ValidatedMixture(), transformer=NormalScores())),
        ("t", StudentT()),
        ("atlas", ChartAtlasFlow()),
    ]


def few_members():
    """Return of the default members one of each kind, and no atlas: what there is time for."""
    kinds = {"flow 1": "flow", "mixture": "mixture", "normal scores": "normal scores", "t": "t"}
    return [(kinds[name], member) for name, member in default_members(0) if name in kinds]


@standard_context()
def _fit_flows(flows, X, groups):
    """Fit flows to the same rows; those of one structure take their steps together."""
    plans = []
    for flow in flows:
        flow._validate_params()
        plans.append(flow._plan(X, groups=groups))
    with single_threaded(max(plan.work for plan in plans)):
        restarts = [
            flow._prepare_restart(plan, plan.seeds[0], None)
            for flow, plan in zip(flows, plans, strict=True)
        ]
        reports = train_all([restart.job for restart in restarts])
        for flow, plan, restart, report in zip(flows, plans, restarts, reports, strict=True):
            flow._finish_fit(plan, [restart], [report], False)


def fit_members(members, X, groups=None, *, X_left_out=None, max_time=None):
    """Fit copies of densities to rows, and return them; plain flows are trained as one stack.

    Those that take groups of rows get them.

    With rows left out, an atlas that is far behind the others after some epochs is not trained to
    the end, which would take longer than all else. Seconds that are given are shared by the members
    that have a `max_time`, of which only None is replaced.
    """
    fitted = [clone(member) for member in members]
    deadline = None if max_time is None else time.monotonic() + max_time
    flows = [member for member in fitted if _is_plain(member)]

    def fit(member):
        has_groups = groups is not None and takes_groups(member)
        return member.fit(X, groups=groups) if has_groups else member.fit(X)

    with warnings.catch_warnings():
        # The weights tell how good a member is.
        warnings.simplefilter("ignore", ConvergenceWarning)
        n_timed = sum(_takes_time(member) for member in fitted if not _is_plain(member))
        _set_time(flows, deadline, _TIME_OF_FLOWS if n_timed else 1.0)
        if flows:
            _fit_flows(flows, X, groups)
        slow = [k for k, member in enumerate(fitted) if isinstance(member, ChartAtlasFlow)]
        for k, member in enumerate(fitted):
            if k not in slow and not _is_plain(member):
                n_timed = _set_time([member], deadline, 1 / max(n_timed, 1), n_timed)
                fit(member)
        best = -np.inf
        if X_left_out is not None and len(slow) < len(fitted):
            others = [member for k, member in enumerate(fitted) if k not in slow]
            best = scores_of(others, X_left_out).mean(axis=0).max()
        for k in slow:
            n_timed = _set_time([fitted[k]], deadline, 1 / max(n_timed, 1), n_timed)
            look = clone(fitted[k])
            look.set_params(max_iter=min(look.max_iter, _FIRST_EPOCHS))
            if X_left_out is not None and fit(look).score(X_left_out) < best - _FAR_BEHIND:
                fitted[k] = look
            else:
                fit(fitted[k])
    return fitted


def _time_parameter(member):
    """Return the name of the parameter that limits the time of a fit, if it is not set, or None."""
    parameters = member.get_params()
    for name in ("max_time", "density__max_time"):
        if parameters.get(name, 0) is None:
            return name
    return None


def _takes_time(member):
    return _time_parameter(member) is not None


def _set_time(members, deadline, share, n_timed=0):
    """Give members a share of the time that is left; return how many go on waiting for theirs."""
    waiting = [member for member in members if _takes_time(member)]
    if waiting and deadline is not None:
        # What is late is fitted all the same, as fast as it can be.
        left = max(deadline - time.monotonic(), 1e-3)
        for member in waiting:
            member.set_params(**{_time_parameter(member): share * left})
    return n_timed - len(waiting)


def exchangeable(members):
    """Return the number of the group of each member; of one group differ in random states only."""
    groups: list[dict] = []
    numbers = []
    for member in members:
        parameters = {
            name: repr(value)
            for name, value in member.get_params().items()
            if name.split("__")[-1] != "random_state" and not hasattr(value, "fit")
        }
        kinds = [type(value) for value in member.get_params().values() if hasattr(value, "fit")]
        group = {"type": type(member), "parts": kinds, **parameters}
        if group not in groups:
            groups.append(group)
        numbers.append(groups.index(group))
    return np.array(numbers)


def _is_plain(member):
    return type(member) is NoisyInjectiveFlow and member.n_init == 1 and not member.warm_start


def scores_of(members, X):
    """Return the log-densities (n, m) of rows under each member, in float64."""
    return np.column_stack([m.score_samples(X).astype(np.float64) for m in members])
