"""Members of a stack of densities: the default ones, and flows that are trained together."""

import warnings

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from .._chart_atlas import ChartAtlasFlow
from .._noisy_injective import NoisyInjectiveFlow
from ..backend.device import single_threaded, standard_context
from ..backend.training import train_all
from .mixture import ValidatedMixture
from .normal_scores import NormalScores
from .student_t import StudentT
from .transformed import TransformedDensity

__all__ = ["default_members", "fit_members", "scores_of"]

_N_FLOWS = 3


def default_members():
    """Return the pairs of names and densities of which a stack is made by default."""
    return [
        *((f"flow {k + 1}", NoisyInjectiveFlow()) for k in range(_N_FLOWS)),
        ("atlas", ChartAtlasFlow()),
        ("mixture", ValidatedMixture()),
        ("normal scores", TransformedDensity(ValidatedMixture(), transformer=NormalScores())),
        ("t", StudentT()),
    ]


def fit_members(members, X):
    """Fit copies of densities to rows, and return them; plain flows are trained as one stack."""
    fitted = [clone(member) for member in members]
    plain = [member for member in fitted if _is_plain(member)]
    with warnings.catch_warnings():
        # The weights tell how good a member is.
        warnings.simplefilter("ignore", ConvergenceWarning)
        if len(plain) > 1:
            _fit_flows(plain, X)
        for member in fitted:
            if len(plain) < 2 or not _is_plain(member):
                member.fit(X)
    return fitted


def _is_plain(member):
    return type(member) is NoisyInjectiveFlow and member.n_init == 1 and not member.warm_start


@standard_context()
def _fit_flows(flows, X):
    """Fit flows to the same rows; those of one structure take their steps together."""
    plans = []
    for flow in flows:
        flow._validate_params()
        plans.append(flow._plan(X))
    with single_threaded(max(plan.work for plan in plans)):
        restarts = [
            flow._prepare_restart(plan, plan.seeds[0], None)
            for flow, plan in zip(flows, plans, strict=True)
        ]
        reports = train_all([restart.job for restart in restarts])
        for flow, plan, restart, report in zip(flows, plans, restarts, reports, strict=True):
            flow._finish_fit(plan, [restart], [report], False)


def scores_of(members, X):
    """Return the log-densities (n, m) of rows under each member, in float64."""
    return np.column_stack([m.score_samples(X).astype(np.float64) for m in members])
