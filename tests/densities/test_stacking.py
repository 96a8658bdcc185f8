"""Mixtures of densities with weights that fit rows left out."""

import warnings

import numpy as np
import pytest
from helpers import PlaneGrid
from scipy.optimize import minimize
from scipy.special import logsumexp
from scipy.stats import multivariate_t, norm
from sklearn.base import clone
from sklearn.datasets import make_moons
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GroupKFold, KFold
from sklearn.neighbors import KernelDensity
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from skmanifoldflow import (
    ChartAtlasFlow,
    NoisyInjectiveFlow,
    StackingDensity,
    TransformedDensity,
    log_abs_det_jacobian,
)
from skmanifoldflow._densities.members import fit_members
from skmanifoldflow._densities.mixing import mixing_weights
from skmanifoldflow._densities.mixture import ValidatedMixture
from skmanifoldflow._densities.normal_scores import NormalScores
from skmanifoldflow._densities.student_t import StudentT

SMALL = {"n_layers": 2, "hidden_layer_sizes": (8,), "max_iter": 3}


@pytest.fixture(scope="module")
def rows():
    return make_moons(400, noise=0.1, random_state=0)[0] * [3.0, 0.5]


# ------------------------------------------------------------------ weights


def test_weights_are_those_of_the_highest_posterior():
    """By a general optimiser, under a Dirichlet prior of one row."""
    rng = np.random.RandomState(0)
    scores = rng.standard_normal((200, 3)) * [1.0, 2.0, 0.5] - [0.0, 0.5, 0.2]

    def loss(logits):
        log_weights = logits - logsumexp(logits)
        return -logsumexp(scores + log_weights, axis=1).sum() - log_weights.sum() / 3

    logits = minimize(loss, np.zeros(3), tol=1e-10).x
    np.testing.assert_allclose(
        mixing_weights(scores), np.exp(logits - logsumexp(logits)), atol=1e-4
    )


def test_a_member_that_is_never_better_keeps_its_prior():
    scores = np.zeros((99, 2)) - [0, 50]
    np.testing.assert_allclose(mixing_weights(scores), [99.5 / 100, 0.5 / 100], atol=1e-6)
    np.testing.assert_allclose(mixing_weights(np.full((5, 2), -np.inf)), [0.5, 0.5])


def test_weights_are_known_for_a_mixture_that_is():
    rng = np.random.RandomState(0)
    x = np.where(
        rng.random_sample(20_000) < 0.3, rng.normal(-1, 1, 20_000), rng.normal(2, 1, 20_000)
    )
    scores = np.column_stack([norm(-1).logpdf(x), norm(2).logpdf(x)])
    np.testing.assert_allclose(mixing_weights(scores), [0.3, 0.7], atol=0.015)


def test_rows_of_the_weights_are_left_out(rows):
    """Each member is scored on rows that it was not fitted to, and fitted again to all of them."""
    kernel = KernelDensity(bandwidth=0.15)
    members = [("mixture", GaussianMixture(3, random_state=0)), ("kernel", kernel)]
    cv = KFold(4)
    model = StackingDensity(members, cv=cv, random_state=0).fit(rows)
    scores = np.empty((len(rows), 2))
    for train, test in cv.split(rows):
        for k, (_, member) in enumerate(members):
            scores[test, k] = clone(member).fit(rows[train]).score_samples(rows[test])
    np.testing.assert_allclose(model.scores_, scores.mean(axis=0))
    np.testing.assert_allclose(model.weights_, mixing_weights(scores), atol=1e-6)
    fitted = np.column_stack([clone(m).fit(rows).score_samples(rows) for _, m in members])
    expected = logsumexp(fitted + np.log(model.weights_), axis=1)
    np.testing.assert_allclose(model.score_samples(rows), expected)
    assert model.score(rows) == pytest.approx(expected.mean())
    assert list(model.named_estimators_) == ["mixture", "kernel"]


# ------------------------------------------------------------------ is it a density?


def test_integral_is_one_and_samples_have_the_density(rows):
    members = [
        ("flow", NoisyInjectiveFlow(2, **SMALL)),
        ("atlas", ChartAtlasFlow(2, n_charts=3, **SMALL)),
        ("mixture", ValidatedMixture()),
        ("scores", TransformedDensity(GaussianMixture(3), transformer=NormalScores())),
        ("t", StudentT()),
    ]
    model = StackingDensity(members, random_state=0).fit(rows)
    # So that each of them counts.
    model.weights_ = np.full(5, 0.2)
    grid = PlaneGrid(rows, 700)
    density = np.exp(model.score_samples(grid.points))
    assert density @ grid.volumes == pytest.approx(1, abs=0.005)
    drawn = model.sample(20_000, random_state=0)
    assert grid.z_of_samples(density, drawn) < 4
    # Members take turns in no order.
    assert abs(np.corrcoef(np.arange(20_000), model.score_samples(drawn))[0, 1]) < 0.03
    np.testing.assert_array_equal(drawn[:3], model.sample(20_000, random_state=0)[:3])


def test_default_members_and_a_stack_ahead_of_them(rows):
    test = make_moons(1000, noise=0.1, random_state=1)[0] * [3.0, 0.5]
    model = StackingDensity(cv=2, random_state=0).fit(rows[:120])
    members = [member.score(test) for member in model.estimators_]
    assert model.score(test) > max(members) - 0.1
    assert model.weights_.min() > 0
    assert model.weights_.sum() == pytest.approx(1)
    # The background has a density where no flow has one.
    assert model.score_samples([[1e4, 0.0]])[0] > -70


@pytest.mark.parametrize(("n_rows", "n_folds"), [(60, 5), (300, 2), (500, 1)])
def test_few_rows_are_left_out_more_than_once(n_rows, n_folds, monkeypatch):
    """A hundred at least, or all; the last fit is to all rows."""
    sizes, fit = [], GaussianMixture.fit

    def counted(self, X, y=None):
        sizes.append(len(X))
        return fit(self, X, y)

    monkeypatch.setattr(GaussianMixture, "fit", counted)
    X = np.random.RandomState(0).standard_normal((n_rows, 2))
    StackingDensity([("mixture", GaussianMixture())], random_state=0).fit(X)
    assert sizes == [n_rows - n_rows // 5] * n_folds + [n_rows]


def test_flows_of_a_stack_are_those_that_are_trained_alone(rows):
    flows = [NoisyInjectiveFlow(2, random_state=seed, **SMALL) for seed in range(3)]
    for together, flow in zip(fit_members(flows, rows), flows, strict=True):
        alone = flow.fit(rows)
        np.testing.assert_allclose(
            together.score_samples(rows), alone.score_samples(rows), atol=1e-3
        )
        assert vars(together).keys() == vars(alone).keys()


def test_members_that_differ_in_random_states_alone_weigh_the_same(rows):
    def behind_scores(size, seed):
        mixture = GaussianMixture(size, random_state=seed)
        return TransformedDensity(mixture, transformer=StandardScaler())

    members = [
        *((f"flow {seed}", NoisyInjectiveFlow(2, random_state=seed, **SMALL)) for seed in range(2)),
        ("other flow", NoisyInjectiveFlow(1, random_state=0, **SMALL)),
        *((f"mixture {seed}", behind_scores(12, seed)) for seed in range(2)),
        ("small mixture", behind_scores(3, 0)),
    ]
    weights = StackingDensity(members, random_state=0).fit(rows).weights_
    assert weights[0] == weights[1] != weights[2]
    assert weights[3] == weights[4] != weights[5]
    assert weights.sum() == pytest.approx(1)


def test_an_atlas_that_is_far_behind_is_given_up(rows):
    """Behind a t distribution it is not, and is trained to the end."""
    atlas = ChartAtlasFlow(2, n_charts=2, n_layers=1, hidden_layer_sizes=(4,), random_state=0)
    atlas.set_params(max_iter=8, n_iter_no_change=8)
    for others, n_epochs in ([StudentT()], 8), ([Exact()], 5):
        fitted = fit_members([*others, atlas], rows[:200], X_left_out=rows[200:])
        assert fitted[-1].n_iter_ == n_epochs


class Exact(StudentT):
    """A density that is better than any."""

    def score_samples(self, X):
        return super().score_samples(X) + 100


def test_groups_and_copies_are_left_out_together(rows):
    X = np.repeat(rows[:60], 6, axis=0)
    members = [("kernel", KernelDensity(bandwidth=0.05)), ("normal", GaussianMixture())]
    apart = StackingDensity(members, cv=KFold(5, shuffle=True, random_state=0)).fit(X)
    together = StackingDensity(members, random_state=0).fit(X)
    grouped = StackingDensity(members, cv=GroupKFold(5)).fit(X, groups=np.arange(360) // 6)
    # A kernel density knows the copies by heart.
    assert apart.weights_[0] > 0.9
    assert together.weights_[0] < 0.9
    assert grouped.scores_[0] < apart.scores_[0] - 1


def test_about_a_fifth_is_left_out_of_groups_of_any_size(rows):
    """One group of half of the rows, and many small ones: no fold is a fifth of the rows."""
    groups = np.r_[np.zeros(200), np.arange(1, 21).repeat(10)]
    seen = []

    class Recorder(GaussianMixture):
        def fit(self, X, y=None, groups=None):
            seen.append((len(X), groups))
            return super().fit(X)

    for seed in range(5):
        StackingDensity([("mixture", Recorder())], random_state=seed).fit(rows, groups=groups)
        (n_trained, of_fold), (_, of_all) = seen[-2:]
        # Five folds of four or five groups: 40 or 50 rows, or 230 and more with the large one.
        assert n_trained in (350, 360)
        assert len(of_fold) == n_trained
        assert len(np.unique(of_fold)) in (16, 17)
        np.testing.assert_array_equal(of_all, groups)
    with pytest.raises(ValueError, match="All rows are of one group"):
        StackingDensity([("mixture", Recorder())]).fit(rows, groups=np.ones(len(rows)))


@pytest.mark.parametrize(
    ("estimators", "message"),
    [
        ([], "at least one"),
        ([("a", GaussianMixture()), ("a", KernelDensity())], "must be distinct"),
        ([("a", StandardScaler())], "'a' must have fit and score_samples"),
        ("flow", "The 'estimators' parameter of StackingDensity must be"),
    ],
)
def test_bad_parameters(estimators, message, rows):
    with pytest.raises(ValueError, match=message):
        StackingDensity(estimators).fit(rows)


@parametrize_with_checks(
    [
        StackingDensity(
            [
                ("mixture", GaussianMixture(init_params="random_from_data")),
                ("flow", NoisyInjectiveFlow(early_stopping=False, **SMALL)),
                ("t", StudentT()),
            ],
            cv=2,
        ),
        ValidatedMixture(),
        StudentT(),
        NormalScores(),
    ]
)
@pytest.mark.filterwarnings("ignore:.*(equal to others|readings of the same).*:UserWarning")
def test_scikit_learn_checks(estimator, check):
    check(estimator)


# ------------------------------------------------------------------ members


def test_the_background_is_a_t_distribution(rows):
    model = StudentT().fit(rows)
    exact = multivariate_t(model.location_, model.scale_, df=3)
    np.testing.assert_allclose(model.score_samples(rows), exact.logpdf(rows))
    for factor in (0.9, 1.1):
        other = multivariate_t(model.location_, factor * model.scale_, df=3)
        assert other.logpdf(rows).sum() < model.score(rows) * len(rows)
    drawn = model.sample(50_000, random_state=0)
    grid = PlaneGrid(rows, 700)
    assert grid.z_of_samples(np.exp(exact.logpdf(grid.points)), drawn) < 4


def test_the_background_knows_few_rows_and_no_units():
    X = np.random.RandomState(0).standard_normal((220, 15))
    few, new = X[:20], X[20:]
    # The covariance of so few rows is a shrunk one: that of the distribution costs a nat at most.
    exact = multivariate_t(np.zeros(15), np.eye(15), df=3).logpdf(new).mean()
    model = StudentT().fit(few)
    assert model.score(new) > exact - 1
    units = 2.0 ** np.array([-20, 20, *range(13)])
    scaled = StudentT().fit(X * units).score_samples(X * units) + np.log(units).sum()
    np.testing.assert_allclose(scaled, StudentT().fit(X).score_samples(X), atol=1e-6)


def test_a_constant_column_has_the_density_of_noise(rows):
    """No member gains without bound where a column is constant."""
    X = np.c_[rows[:100], np.full(100, 7.0)]
    for member in (StudentT(), ValidatedMixture(random_state=0)):
        gain = clone(member).fit(X).score(X) - clone(member).fit(rows[:100]).score(rows[:100])
        assert gain < 8


def test_normal_scores_are_normal_and_invertible():
    X = np.random.RandomState(0).standard_normal((3000, 3)) ** [1, 3, 1] * [1.0, 1.0, 1e6]
    X[:, 2] = np.round(np.exp(X[:, 2] / 1e6))
    scores = NormalScores().fit(X)
    Z = scores.transform(X)
    assert np.abs(Z[:, :2].mean(axis=0)).max() < 0.05
    np.testing.assert_allclose(Z[:, :2].std(axis=0), 1, atol=0.08)
    far = np.r_[X, 3 * X]
    np.testing.assert_allclose(scores.inverse_transform(scores.transform(far)), far, atol=1e-8)
    # Few of these rows are near a knot.
    rows = np.random.RandomState(1).uniform([-2, -3, 0.1], [2, 3, 3], size=(200, 3))
    step = 1e-6
    slopes = (scores.transform(rows + step) - scores.transform(rows - step)) / (2 * step)
    errors = log_abs_det_jacobian(scores, rows) - np.log(slopes).sum(axis=1)
    assert (np.abs(errors) < 1e-6).mean() > 0.98


def test_the_mixture_of_the_best_held_out_score():
    """Three round clusters of two units, and a normal distribution of correlated columns."""
    rng = np.random.RandomState(0)
    clusters = (rng.randint(3, size=(900, 1)) * 6 + rng.standard_normal((900, 2))) * [1, 100]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = ValidatedMixture(random_state=0).fit(clusters)
    assert model.mixture_.n_components >= 4
    exact = logsumexp(
        [norm(6 * k).logpdf(clusters / [1, 100]).sum(axis=1) for k in range(3)], axis=0
    )
    exact = exact - np.log(3) - np.log(100)
    assert model.score(clusters) == pytest.approx(exact.mean(), abs=0.1)
    normal = rng.standard_normal((500, 2)) @ [[1, 0.9], [0, 0.5]]
    one = ValidatedMixture(random_state=0).fit(normal)
    assert one.mixture_.n_components <= 2
    assert one.mixture_.covariance_type == "full"
