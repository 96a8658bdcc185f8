"""The joint objective against its closed forms."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.stats import norm
from sklearn.decomposition import PCA

from skmanifoldflow._joint_manifold.distribution import PenalizedSplit
from skmanifoldflow._joint_manifold.objective import JointLikelihood
from skmanifoldflow._linear import principal_axes
from skmanifoldflow.backend.architectures import density_flow
from skmanifoldflow.backend.bijections import Chain, PrincipalAxes
from skmanifoldflow.backend.flow import ManifoldFlow, Outliers


@pytest.fixture
def rows(generator):
    mixing = torch.tensor([[2.0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0.3, 0], [0, 0, 0, 0.2]])
    return torch.randn(400, 4, dtype=torch.float64, generator=generator) @ mixing.double()


def _objective(rows, generator, d=2, **settings):
    axes = PrincipalAxes(4, d, floor=1e-6)
    flow = ManifoldFlow(Chain([axes]), PenalizedSplit(4, d, penalty="gaussian"))
    flow.move_to(torch.device("cpu"), torch.float64)
    axes.initialize(rows)
    options = {"reconstruction": 1.0, "noise_start": 1e-6, "noise_floor": 1e-6} | settings
    mean, principal, _ = principal_axes(rows.numpy())
    objective = JointLikelihood(flow, pca=(mean, principal[:, :d]), generator=generator, **options)
    return objective.requires_grad_(False)


def test_loss_at_the_linear_initialization(rows, generator):
    """Probabilistic PCA's likelihood, and that of its residuals at their own scale."""
    objective = _objective(rows, generator)
    objective.share_reconstructed = 1.0
    pca = PCA(2).fit(rows)
    residuals = rows.numpy() - pca.inverse_transform(pca.transform(rows))
    expected = -pca.score(rows) - norm.logpdf(residuals, scale=residuals.std()).sum(1).mean()
    loss = objective.loss(rows, 1.0)
    assert float(loss) == pytest.approx(expected, abs=1e-3)
    score = objective.log_likelihood(rows)
    assert score.shape == (400,)
    assert float(score.mean()) == pytest.approx(-expected, abs=1e-3)
    assert objective.mean_log_prob(rows) == pytest.approx(pca.score(rows), abs=1e-6)
    # Of the flow, which starts there, and of PCA.
    for error in (objective.mean_squared_residual, objective.mean_squared_pca_residual):
        assert error(rows) == pytest.approx((residuals**2).mean(), abs=1e-9)


def test_weight_of_residuals_does_not_depend_on_units(rows, generator):
    """Scaling the rows shifts the loss by the logarithm of the factor."""
    values = []
    for factor in (1.0, 100.0):
        objective = _objective(factor * rows, generator)
        loss = objective.loss(factor * rows, 1.0)
        values.append(float(loss))
    assert values[1] - values[0] == pytest.approx(2 * 4 * np.log(100), abs=0.05)


def test_without_weight_it_is_the_likelihood(rows, generator):
    objective = _objective(rows, generator, reconstruction=0.0)
    assert float(objective.loss(rows, 1.0)) == pytest.approx(
        -PCA(2).fit(rows).score(rows), abs=1e-4
    )


def test_nothing_to_reconstruct_with_all_coordinates(rows, generator):
    objective = _objective(rows, generator, d=4)
    assert not objective.reconstructs
    assert objective.mean_squared_residual(rows) == pytest.approx(0, abs=1e-20)


def test_residuals_are_those_of_the_clean_rows(rows, generator):
    """However large the noise, the target is not noisy: the loss is that of a fixed map of it."""
    objective = _objective(rows, generator, noise_start=1.0, noise_floor=0.5)
    z, _ = objective.flow.bijection.forward_and_log_det(rows + 100.0)
    residuals = objective.residuals(rows, z)
    pca = PCA(2).fit(rows)
    expected = rows.numpy() - pca.inverse_transform(pca.transform(rows.numpy() + 100.0))
    np.testing.assert_allclose(residuals, expected, atol=1e-8)


def test_noise_falls_to_its_floor(rows, generator):
    objective = _objective(rows, generator, noise_start=0.4, noise_floor=0.1)
    assert objective.noise(0.0) == pytest.approx(0.4)
    assert objective.noise(1 / 4) == pytest.approx(0.2)
    assert objective.noise(1 / 2) == objective.noise(1.0) == pytest.approx(0.1)


def test_scores_are_deterministic_and_noisy(rows, generator):
    """The same noise each time, and the likelihood of rows with noise at the floor."""
    objective = _objective(rows, generator, reconstruction=0.0, noise_start=0.3, noise_floor=0.3)
    scores = objective.log_likelihood(rows)
    np.testing.assert_array_equal(objective.log_likelihood(rows), scores)
    pca = PCA(2).fit(rows)
    expected = np.mean(
        [pca.score(rows.numpy() + 0.3 * np.random.RandomState(k).randn(400, 4)) for k in range(20)]
    )
    assert float(scores.mean()) == pytest.approx(expected, abs=0.3)


def test_a_stage_of_equal_size_adds_no_residuals(rows, generator):
    objective = _objective(rows, generator)
    refinement = density_flow("spline", 2, 2, (8,), generator=generator).double()
    objective.latent.set_stage(refinement, PenalizedSplit(2, 2, penalty="gaussian"))
    objective.requires_grad_(False)
    assert objective.stage == 2
    assert not objective.reconstructs
    # A refinement that is the identity changes nothing.
    assert float(objective.loss(rows, 1.0)) == pytest.approx(
        -PCA(2).fit(rows).score(rows), abs=1e-4
    )


def test_a_stage_that_narrows_reconstructs_from_fewer_coordinates(rows, generator):
    objective = _objective(rows, generator)
    refinement = density_flow("affine", 2, 2, (8,), generator=generator).double()
    objective.latent.set_stage(refinement, PenalizedSplit(2, 1, penalty="gaussian"))
    assert objective.reconstructs
    pca = PCA(1).fit(rows)
    expected = np.mean((rows.numpy() - pca.inverse_transform(pca.transform(rows))) ** 2)
    assert objective.mean_squared_residual(rows) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("penalty", ["huber", "laplace", "gaussian"])
def test_deviations_get_the_scale_of_largest_likelihood(rows, generator, penalty):
    """Of the rows given, by one factor, whatever the scales were."""
    objective = _objective(rows, generator)
    latent = PenalizedSplit(4, 2, penalty=penalty)
    latent.set_scales(torch.tensor([3.0, 1.5]), torch.full((2,), 1e-9, dtype=torch.float64))
    objective.flow.latent = latent.requires_grad_(False)

    def loss(log_factor):
        latent.set_scales(np.exp(log_factor) * before, latent.scale_floor)
        return -objective.mean_log_prob(rows)

    before = latent.scales().clone()
    best = np.exp(minimize_scalar(loss, bounds=(-5, 5), method="bounded").x)
    latent.set_scales(before, latent.scale_floor)
    objective.fit_deviations(rows)
    np.testing.assert_allclose(latent.scales(), best * before, rtol=1e-3)


def test_deviations_of_a_stage_that_narrows_have_their_own_scale(rows, generator):
    objective = _objective(rows, generator)
    refinement = density_flow("affine", 2, 2, (8,), generator=generator).double()
    inner = PenalizedSplit(2, 1, penalty="gaussian")
    objective.latent.set_stage(refinement, inner)
    objective.requires_grad_(False)
    outer_scales = objective.latent.scales().clone()
    objective.fit_deviations(rows)
    # The axes are whitened, and the refinement is the identity.
    np.testing.assert_allclose(inner.scales(), 1.0, rtol=0.01)
    np.testing.assert_array_equal(objective.latent.scales(), outer_scales)


def test_outliers_have_no_part_in_errors_and_scales(rows, generator):
    """Gross outliers change neither, nor the weight of the others."""
    objective = _objective(rows, generator)
    objective.outliers = Outliers()
    objective.outliers.rate = 0.0
    far = 1e3 * torch.ones(20, 4, dtype=torch.float64)
    both = torch.cat([rows, far])
    for error in (objective.mean_squared_residual, objective.mean_squared_pca_residual):
        assert error(both) == pytest.approx(error(rows), rel=1e-6)
    inlying = objective.inlying(both)
    np.testing.assert_allclose(inlying[400:], 0, atol=1e-12)
    assert inlying[:400].min() > 0.5
    scales, before = [], objective.latent.scales().clone()
    for evaluation_rows in (rows, both):
        # Weights depend on the scales that are known.
        objective.latent.set_scales(before, objective.latent.scale_floor)
        objective.fit_deviations(evaluation_rows)
        scales.append(objective.latent.scales().clone())
    np.testing.assert_allclose(*scales, rtol=1e-6)
    objective.share_reconstructed = 1.0
    losses = [objective.loss(evaluation_rows, 1.0) for evaluation_rows in (rows, both)]
    # What outliers cost is their own density alone.
    _, log_prob, _ = objective._log_prob(both)
    expected = losses[0] + log_prob[:400].mean() - log_prob.mean()
    assert float(losses[1]) == pytest.approx(float(expected), rel=1e-4)


def test_a_stage_of_equal_size_sees_the_least_noise(rows, generator):
    objective = _objective(rows, generator, noise_start=0.4, noise_floor=0.1)
    refinement = density_flow("spline", 2, 2, (8,), generator=generator).double()
    objective.latent.set_stage(refinement, PenalizedSplit(2, 2, penalty="gaussian"))
    assert objective.noise(0.0) == 0.1
