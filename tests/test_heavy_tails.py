"""The background of heavy tails in every estimator."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer

from skmanifoldflow import ChartAtlasFlow, JointManifoldFlow, ManifoldPriorFlow, NoisyInjectiveFlow

SMALL = {"n_layers": 2, "hidden_layer_sizes": (8,), "max_iter": 3, "random_state": 0}
ESTIMATORS = (NoisyInjectiveFlow, ManifoldPriorFlow, ChartAtlasFlow, JointManifoldFlow)


@pytest.fixture(scope="module")
def models():
    rng = np.random.RandomState(0)
    X = rng.standard_t(2, (400, 2)) @ [[1, 0.5], [0, 0.4]]
    return [Estimator(1, **SMALL).fit(X) for Estimator in ESTIMATORS[:2]] + [
        ChartAtlasFlow(2, **SMALL).fit(X),
        JointManifoldFlow(1, **SMALL).fit(X),
    ]


@pytest.mark.parametrize("k", range(4), ids=[Estimator.__name__ for Estimator in ESTIMATORS])
def test_density_integrates_to_one_far_beyond_the_rows(models, k):
    """Over a grid that is even in the inverse hyperbolic sine of both columns."""
    t = np.linspace(-10, 10, 250)
    grid = np.stack(np.meshgrid(np.sinh(t), np.sinh(t)), -1).reshape(-1, 2)
    slope = np.cosh(t) * (t[1] - t[0])
    density = np.exp(models[k].score_samples(grid)).reshape(250, 250)
    assert slope @ density @ slope == pytest.approx(1, abs=5e-3)


@pytest.mark.parametrize("k", range(4), ids=[Estimator.__name__ for Estimator in ESTIMATORS])
def test_density_falls_as_that_of_a_t_distribution(models, k):
    """Its logarithm falls by nu + D = 5 for each factor e of the distance."""
    far = np.array([[1e5, 0.0], [1e7, 0.0], [0.0, -1e5], [0.0, -1e7]])
    scores = models[k].score_samples(far)
    slopes = np.diff(scores)[::2] / np.log(100)
    np.testing.assert_allclose(slopes, -5, rtol=1e-3)


@pytest.mark.parametrize("k", range(4), ids=[Estimator.__name__ for Estimator in ESTIMATORS])
def test_samples_have_the_weight_of_the_background(models, k):
    """Beyond a distance that the flow alone does not reach the share of samples is that of it."""
    model = models[k]
    with torch.no_grad():
        alone = model._flow.sample(20_000, torch.Generator().manual_seed(0))
        tail = model._background.sample(200_000, torch.Generator().manual_seed(0))
    limit = 1.5 * float(alone.abs().max())
    share = model.tail_weight_ * float((tail.abs().amax(1) > limit).double().mean())

    def n_far(**options):
        X = model.sample(20_000, random_state=0, rounded=False, **options)
        rows = model._standardizer.forward_and_log_det(torch.from_numpy(X))[0]
        return int((rows.abs().amax(1) > limit).sum())

    expected = 20_000 * share
    assert abs(n_far() - expected) < 4 * np.sqrt(expected) + 1
    assert n_far(manifold_deviation=0.0) == 0


@pytest.mark.parametrize("k", range(4), ids=[Estimator.__name__ for Estimator in ESTIMATORS])
def test_stored_models_keep_it(models, k):
    X = np.array([[0.0, 0.0], [1e4, 3.0]])
    stored = pickle.loads(pickle.dumps(models[k]))
    np.testing.assert_array_equal(stored.score_samples(X), models[k].score_samples(X))
    np.testing.assert_array_equal(*(m.sample(9, random_state=0) for m in (stored, models[k])))


def test_rows_of_the_background_have_no_chart(models):
    atlas = models[2]
    _, charts = atlas.sample(20_000, random_state=0, return_charts=True)
    expected = 20_000 * atlas.tail_weight_
    assert abs((charts == -1).sum() - expected) < 4 * np.sqrt(expected)
    _, charts = atlas.sample(2000, random_state=0, manifold_deviation=0, return_charts=True)
    assert charts.min() == 0


def test_normal_rows_hardly_have_any():
    X = np.random.RandomState(0).randn(500, 3)
    model = NoisyInjectiveFlow(**SMALL).fit(X)
    assert 1 / 501 == pytest.approx(model.tail_weight_)


def test_no_row_of_a_real_table_costs_a_hundred_nats():
    """Fifty rows of breast_cancer, whose columns have heavy tails; the worst was below -500."""
    X = load_breast_cancer().data
    X = X[np.random.RandomState(0).permutation(len(X))]
    for Estimator in (NoisyInjectiveFlow, ManifoldPriorFlow):
        assert Estimator(**SMALL).fit(X[:50]).score_samples(X[50:]).min() > -100
