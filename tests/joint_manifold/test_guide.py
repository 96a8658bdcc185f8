"""Coordinates that follow a guide."""

import builtins
import pickle
from dataclasses import replace

import numpy as np
import pytest
import sklearn
import torch
from scipy.spatial import procrustes
from sklearn.base import BaseEstimator, clone
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.manifold import TSNE, Isomap
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from skmanifoldflow import JointManifoldFlow
from skmanifoldflow._joint_manifold import estimator as estimator_module
from skmanifoldflow._joint_manifold import guides as module
from skmanifoldflow._joint_manifold.guide_term import GuidedRows, GuideTerm
from skmanifoldflow._joint_manifold.guides import guide_rows
from skmanifoldflow.backend.bijections import Chain, Orthogonal
from skmanifoldflow.datasets import SCurve, SwissRoll

SMALL = {"n_layers": 2, "hidden_layer_sizes": (16,), "max_iter": 3, "random_state": 0}
CHECKED = {**SMALL, "hidden_layer_sizes": (8,)}


class Recording(PCA):
    """PCA that remembers the rows that it has seen."""

    seen: list = []

    def fit_transform(self, X, y=None):
        self.seen.append(X)
        return super().fit_transform(X)


class Constant(BaseEstimator):
    """A guide that gives the coordinates it was made with."""

    def __init__(self, coordinates, random_state=None):
        self.coordinates = coordinates
        self.random_state = random_state

    def fit_transform(self, X, y=None):
        return self.coordinates(len(X))


@pytest.fixture(scope="module")
def roll():
    return SwissRoll(noise=0.05).sample(600, random_state=0)


@parametrize_with_checks(
    [
        JointManifoldFlow(guide="tsne", **CHECKED),
        JointManifoldFlow(guide="isomap", **CHECKED),
        JointManifoldFlow(guide=PCA(1), n_components=1, **CHECKED),
    ]
)
# Rows of some of the checks lie in parts, and others are few.
@pytest.mark.filterwarnings("ignore:.*connected components of the neighbors graph:UserWarning")
def test_scikit_learn_checks(estimator, check):
    check(estimator)


# ------------------------------------------------------------------ the term


def _term(rows, coordinates, generator, weights=None, spacing=0.0):
    """The term of a chain that only turns rows (n, 4), and that chain."""
    chain = Chain([Orthogonal(4, generator=generator)]).double()
    neighbors = torch.arange(1, len(rows) + 1)[:, None] % len(rows)
    guided = GuidedRows(rows, coordinates, weights, neighbors, spacing, (rows, coordinates))
    return GuideTerm(guided, chain, 1.0, rows, 0.5, torch.Generator().manual_seed(0)), chain


@pytest.fixture
def guided(generator):
    """Rows, and coordinates that are those of no linear map."""
    rows = torch.randn(400, 4, dtype=torch.float64, generator=generator)
    return rows, torch.tanh(3 * rows[:, :2]) + 0.1


def _loss(term, chain, progress):
    """Return the term of rows that it draws."""
    drawn, given = term.draw()
    return term.loss(chain.forward_and_log_det(drawn)[0], given, progress)


def test_value_of_the_term(guided, generator):
    """Without noise and neighbours it is the mean absolute error, 4 nats for each of 4 columns."""
    rows, coordinates = guided
    term, chain = _term(rows, coordinates, generator)
    term.mix, term.n_rows = 0.0, 40_000
    u = chain.forward_and_log_det(rows)[0][:, :2].numpy()
    signs = np.where((u * coordinates.numpy()).sum(0) < 0, -1, 1)
    scale, shift = signs * [0.5, 2.0], np.array([1.0, -1.0])
    term.log_scale.data, term.shift.data = torch.tensor([0.5, 2.0]).log(), torch.tensor(shift)
    predicted = u * scale + shift
    expected = 16 * np.abs(predicted - coordinates.numpy()).mean()
    term.requires_grad_(False)
    for progress, factor in ((0.5, 1), (0.0, 8)):
        assert float(_loss(term, chain, progress)) == pytest.approx(factor * expected, rel=0.02)
    expected = r2_score(coordinates, predicted, multioutput="variance_weighted")
    assert term.score(chain) == pytest.approx(expected, rel=1e-6)


def test_rows_of_the_term(guided, generator):
    """They lie between a row and its neighbour, with noise as long as rows are apart."""
    rows, coordinates = guided
    weights = torch.zeros(400, dtype=torch.float64)
    weights[7] = 2.0
    term, _ = _term(rows, coordinates, generator, weights, spacing=0.01)
    term.n_rows = 4000
    found, given = (t.numpy() for t in term.draw())
    ends = (torch.stack([t[7], t[8]]).numpy() for t in (rows, coordinates))
    (start, end), (of_start, of_end) = ends
    share = (found - start) @ (end - start) / ((end - start) ** 2).sum()
    assert 0.24 < share.mean() < 0.26
    assert share.max() < 0.52
    noise = found - start - share[:, None] * (end - start)
    # One of four directions is that of the neighbour.
    assert np.sqrt((noise**2).sum(1).mean() * 4 / 3) == pytest.approx(0.01, rel=0.05)
    expected = of_start + share[:, None] * (of_end - of_start)
    np.testing.assert_allclose(given, expected, atol=0.05 * np.abs(of_end - of_start).max())


def test_gradient_of_the_term(guided, generator):
    """By finite differences, with the same draws of rows and noise."""
    term, chain = _term(*guided, generator, spacing=0.3)

    def loss(log_scale, shift):
        term.generator.manual_seed(1)
        term.log_scale.data, term.shift.data = log_scale, shift
        return _loss(term, chain, 1.0)

    start = term.log_scale.detach().clone(), term.shift.detach().clone()
    loss(*start).backward()
    for k, p in enumerate((term.log_scale, term.shift)):
        for j in range(2):
            moved = [t.clone() for t in start]
            moved[k][j] += 1e-6
            slope = float((loss(*moved) - loss(*start)).detach()) / 1e-6
            assert float(p.grad[j]) == pytest.approx(slope, rel=1e-3, abs=1e-6)


def test_coordinates_are_turned_to_their_principal_axes():
    rng = np.random.RandomState(0)
    rows, given = torch.tensor(rng.randn(200, 3)), rng.randn(200, 2) @ [[9, 1], [3, 2]] + 5
    guided = guide_rows("precomputed", rows, None, 2, 0, given)
    expected = PCA(2).fit_transform(given)
    found = torch.cat([guided.left_out[1], guided.coordinates]).numpy()
    np.testing.assert_allclose(np.abs(found) * expected.std(), np.abs(expected), rtol=0.01)
    assert (found**2).mean() == pytest.approx(1, rel=0.01)
    kept = guided.rows.numpy()
    assert len(kept) == 180
    gaps = np.sqrt(((kept[:, None] - kept) ** 2).sum(-1)) + 99 * np.eye(180)
    assert guided.spacing == pytest.approx(gaps.min(1).mean())
    np.testing.assert_array_equal(guided.neighbors, np.argsort(gaps, axis=1)[:, :5])


# ------------------------------------------------------------------ what a guide sees


def test_guide_sees_standardised_training_rows_once():
    rng = np.random.RandomState(0)
    X = rng.randn(200, 3) * [1, 10, 100] + 7
    X = np.concatenate([X, X[:20]])
    Recording.seen.clear()
    guide = Recording(2)
    with pytest.warns(UserWarning, match="are equal to others"):
        model = JointManifoldFlow(2, guide=guide, **SMALL).fit(X)
    with pytest.warns(UserWarning, match="are equal to others"):
        unguided = JointManifoldFlow(2, **SMALL).fit(X)
    (seen,) = Recording.seen
    assert len(seen) == 180  # of 200 distinct rows a tenth is validated on
    rows = model._standardizer.forward_and_log_det(torch.tensor(X))[0].numpy()
    gaps = np.abs(seen[:, None] - rows).max(-1)
    assert gaps.min(1).max() < 1e-12
    assert len(np.unique(gaps.argmin(1))) == 180
    # The parameter is left as it was, and no rows are kept.
    assert not hasattr(guide, "components_")
    assert len(pickle.dumps(model)) < len(pickle.dumps(unguided)) + 500


def test_rows_given_to_validate_on_are_not_seen(roll):
    Recording.seen.clear()
    JointManifoldFlow(2, guide=Recording(2), **SMALL).fit(roll[0][:300], X_val=roll[0][300:])
    assert len(Recording.seen[0]) == 300


def test_many_rows_are_guided_in_part(roll, monkeypatch):
    monkeypatch.setattr(module, "_MAX_ROWS", 100)
    monkeypatch.setattr(module, "_MAX_ROWS_ISOMAP", 50)
    Recording.seen.clear()
    model = JointManifoldFlow(2, guide=Recording(2), **SMALL).fit(roll[0])
    assert len(Recording.seen[0]) == 100
    assert np.isfinite(model.guide_score_)
    assert module.most_rows("isomap") == module.most_rows(Isomap()) == 50


def test_parameters_of_a_guide():
    rows = np.zeros((20, 3))
    tsne = module.new_guide("tsne", 2, rows, 7)
    assert (tsne.perplexity, tsne.random_state, tsne.n_components) == (19 / 3, 7, 2)
    assert module.new_guide("isomap", 2, rows[:6], 7).n_neighbors == 5
    chosen = make_pipeline(StandardScaler(), TSNE(3, random_state=1, perplexity=4))
    new = module.new_guide(chosen, 3, rows, 7)
    assert (new[-1].random_state, new[-1].perplexity) == (1, 4)
    assert new is not chosen
    model = JointManifoldFlow(2, guide=TSNE())
    assert clone(model).set_params(guide__perplexity=5).guide.perplexity == 5


def test_few_rows_train_nothing(roll):
    model = JointManifoldFlow(2, guide=Recording(2), **SMALL)
    Recording.seen.clear()
    assert np.isnan(model.fit(roll[0][:30]).guide_score_)
    assert not Recording.seen


def test_without_a_guide_there_is_no_score(roll):
    assert np.isnan(JointManifoldFlow(2, **SMALL).fit(roll[0][:100]).guide_score_)


# ------------------------------------------------------------------ coordinates given


def test_given_coordinates_belong_to_their_rows(roll):
    """Whatever the order of the rows, and the weights that leave some out."""
    X, u = roll
    model = JointManifoldFlow(2, guide="precomputed", **SMALL)
    expected = model.fit(X, guide_coordinates=u).transform(X)
    order = np.random.RandomState(1).permutation(len(X))
    found = clone(model).fit(X[order], guide_coordinates=u[order]).transform(X)
    np.testing.assert_array_equal(found, expected)
    weights = np.r_[np.ones(600), np.zeros(50)]
    more, wild = np.concatenate([X, X[:50] + 1]), np.concatenate([u, 1e3 + u[:50]])
    model.fit(more, sample_weight=weights, guide_coordinates=wild)
    np.testing.assert_array_equal(model.transform(X), expected)


def test_a_guide_that_is_given_is_the_guide_itself(roll):
    X, _ = roll
    own = JointManifoldFlow(2, guide=Constant(lambda n: np.arange(2.0 * n).reshape(n, 2) % 7))
    assert np.isfinite(own.set_params(**SMALL).fit(X).guide_score_)


def test_routing(roll):
    X, u = roll
    with sklearn.config_context(enable_metadata_routing=True):
        flow = JointManifoldFlow(2, guide="precomputed", **SMALL)
        flow.set_fit_request(guide_coordinates=True)
        pipeline = make_pipeline(StandardScaler(), flow).fit(X, guide_coordinates=u)
        assert np.isfinite(pipeline[-1].guide_score_)
        search = GridSearchCV(flow, {"guide_weight": [0.5, 2.0]}, cv=2, error_score="raise")
        search.fit(X, guide_coordinates=u)
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()


# ------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("guide", "message"),
    [
        (Constant(lambda n: np.ones((n - 1, 2))), r"shape \(539, 2\), but 540 rows"),
        (Constant(lambda n: np.ones((n, 3))), r"n_components=2"),
        (Constant(lambda n: np.full((n, 2), np.nan)), "contains NaN"),
        (Constant(lambda n: np.ones((n, 2))), "same coordinates to all rows"),
    ],
)
def test_coordinates_of_a_guide_are_checked(roll, guide, message):
    model = JointManifoldFlow(2, guide=guide, **SMALL)
    with pytest.raises(ValueError, match=message):
        model.fit(roll[0])
    assert not hasattr(model, "n_features_in_")


def test_parameters_are_checked(roll):
    X, u = roll
    with pytest.raises(ValueError, match="at most 3 components, got n_components=4"):
        JointManifoldFlow(4, guide="tsne").fit(np.hstack([X, X**2]))
    for guide, coordinates in (("precomputed", None), ("tsne", u), (None, u), (PCA(2), u)):
        with pytest.raises(ValueError, match="need each other"):
            JointManifoldFlow(2, guide=guide).fit(X, guide_coordinates=coordinates)
    given = JointManifoldFlow(2, guide="precomputed", **SMALL)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        given.fit(X, guide_coordinates=u[:-1])
    with pytest.raises(ValueError, match="guide_coordinates contains NaN"):
        given.fit(X, guide_coordinates=np.full((len(X), 2), np.nan))
    with pytest.raises(TypeError, match="instance of scikit-learn estimator instead of a class"):
        JointManifoldFlow(2, guide=StandardScaler, **SMALL).fit(X)


def test_umap_that_is_missing(roll, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "umap":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="pip install umap-learn"):
        JointManifoldFlow(2, guide="umap", **SMALL).fit(roll[0])


# ------------------------------------------------------------------ the model


@pytest.fixture(scope="module")
def sheet():
    """A sheet that every start unrolls."""
    return SCurve(noise=0.05).sample(600, random_state=0)


@pytest.fixture(scope="module")
def unrolled(sheet):
    settings = {"n_layers": 6, "hidden_layer_sizes": (32, 32), "max_iter": 120}
    X, u = sheet
    model = JointManifoldFlow(2, guide="precomputed", random_state=0, **settings)
    return model.fit(X, guide_coordinates=u)


def test_coordinates_are_those_of_the_guide(unrolled):
    X, u = SCurve(noise=0.05).sample(500, random_state=1)
    # Up to a turn, a shift and one unit.
    assert procrustes(u, unrolled.transform(X))[2] < 0.03
    assert unrolled.guide_score_ > 0.97


def test_units_of_guided_coordinates(sheet, unrolled):
    """A step of length one moves a row by one unit, in the mean over rows and directions."""
    Z, step = unrolled.transform(sheet[0])[:250], 1e-4
    moved = [
        (unrolled.inverse_transform(Z + step * e) - unrolled.inverse_transform(Z - step * e))
        / (2 * step)
        for e in np.eye(2)
    ]
    assert np.mean([(d**2).sum(1).mean() for d in moved]) == pytest.approx(1, rel=0.1)
    variances = unrolled.transform(sheet[0]).var(axis=0)
    assert variances[0] > variances[1]


def test_a_guided_model_is_stored(sheet, unrolled):
    again = pickle.loads(pickle.dumps(unrolled))
    np.testing.assert_array_equal(again.transform(sheet[0]), unrolled.transform(sheet[0]))
    assert again.guide_score_ == unrolled.guide_score_


def test_inverse_and_density_stay_what_they_are(sheet, unrolled):
    X = SCurve(noise=0.05).sample(500, random_state=2)[0]
    Z = unrolled.transform(X)
    np.testing.assert_allclose(
        unrolled.transform(unrolled.inverse_transform(Z)), Z, atol=1e-3 * Z.std()
    )
    assert unrolled.score(X) > JointManifoldFlow(2, random_state=0, n_layers=2).fit(X[:39]).score(X)


def test_of_level_starts_the_closest_to_the_guide_is_kept(roll, monkeypatch):
    """The second start scores level and follows the guide better; the third scores worse."""
    X, u = roll
    rng = np.random.RandomState(0)
    first = rng.randn(60)
    row_scores = [first, first - 0.01 + 0.5 * rng.randn(60), first - 5]
    guide_scores, train, seen = [0.5, 0.9, 0.99], estimator_module.train_stages, []

    def train_stages(job, log):
        stages, k = train(job, log), len(seen)
        seen.append(job)
        stages.report.best_score = float(row_scores[k].mean())
        return replace(
            stages,
            # No start finds the manifold, so that there are three.
            reconstruction_error=1e9,
            row_scores=torch.tensor(row_scores[k]),
            guide_score=guide_scores[k],
        )

    monkeypatch.setattr(estimator_module, "train_stages", train_stages)
    with pytest.warns(ConvergenceWarning, match="not found"):
        model = JointManifoldFlow(2, guide="precomputed", **SMALL).fit(X, guide_coordinates=u)
    assert len(seen) == 3
    assert model.guide_score_ == 0.9


def test_a_guide_that_is_not_reached_is_tried_again(roll, monkeypatch):
    """The second start, which is close to the guide, is kept, though the first scores better."""
    X, u = roll
    guide_scores, train, seen = [0.8, 0.95], estimator_module.train_stages, []

    def train_stages(job, log):
        stages, k = train(job, log), len(seen)
        seen.append(job)
        stages.report.best_score = -float(k)
        row_scores = torch.full((60,), -float(k), dtype=torch.float64)
        found = {"reconstruction_error": 0.0, "row_scores": row_scores}
        return replace(stages, guide_score=guide_scores[k], **found)

    monkeypatch.setattr(estimator_module, "train_stages", train_stages)
    model = JointManifoldFlow(2, guide="precomputed", **SMALL).fit(X, guide_coordinates=u)
    assert len(seen) == 2
    assert model.guide_score_ == 0.95
