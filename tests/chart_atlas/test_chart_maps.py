"""Frames and chart maps against scipy and exact Jacobians."""

import numpy as np
import pytest
import torch
from helpers import perturb, random_rows
from scipy.stats import multivariate_normal

from skmanifoldflow._chart_atlas.chart_maps import AmbientChartMap, ChartFrames, ConformalChartMap
from skmanifoldflow.backend.architectures import density_flow
from skmanifoldflow.backend.device import make_generator

N_CHARTS, N_CONTEXT = 3, 2


def _frames(n_features=4, n_axes=4, seed=0):
    """Return frames of three charts with random means, axes and scales."""
    rng = np.random.RandomState(seed)
    axes = [np.linalg.qr(rng.randn(n_features, n_features))[0] for _ in range(N_CHARTS)]
    frames = ChartFrames(N_CHARTS, n_features, n_axes).double()
    frames.set(
        torch.tensor(rng.randn(N_CHARTS, n_features)),
        torch.tensor(np.stack(axes)[:, :, :n_axes].copy()),
        torch.tensor(rng.uniform(0.3, 2.0, (N_CHARTS, n_axes))),
        torch.tensor(rng.uniform(0.3, 2.0, (N_CHARTS, 1))),
    )
    return frames


def _covariances(frames):
    """Return the covariances of the charts, from their axes and variances."""
    across = torch.eye(frames.axes.shape[1]) - frames.axes @ frames.axes.mT
    along = frames.axes * frames.scale[:, None].square() @ frames.axes.mT
    return (along + frames.rest[..., None].square() * across).numpy()


def _chart_map(name, n_features=4, flow="affine"):
    """Return a perturbed map: of all columns, or bent with two flat coordinates."""
    n_flat = n_features if name.startswith("ambient") else n_features // 2
    bijection = density_flow(
        flow, n_flat, 3, (8,), generator=make_generator(0), n_context=N_CONTEXT
    )
    n_axes = 2 if name == "ambient, few axes" else n_features
    frames = _frames(n_features, n_axes)
    if name == "conformal":
        chart_map = ConformalChartMap(frames, bijection, n_flat)
    else:
        chart_map = AmbientChartMap(frames, bijection, frames_last=name == "ambient, frames last")
    chart_map = chart_map.double()
    perturb(chart_map, 0.3, make_generator(7))
    return chart_map.requires_grad_(False)


def _rows(n_rows=12, n_features=4):
    charts = torch.arange(n_rows) % N_CHARTS
    return random_rows(n_rows, n_features), charts, random_rows(n_rows, N_CONTEXT, seed=2)


def _jacobians(function, x):
    """Return the Jacobian (n, m, m) of a rowwise function, row by row."""
    return torch.stack(
        [
            torch.autograd.functional.jacobian(lambda row, i=i: function(row[None], [i])[0], x[i])
            for i in range(len(x))
        ]
    )


# Forty columns are beyond the size of a matrix that is copied for every row.
FRAMES = [(4, 4), (4, 2), (4, 1), (1, 1), (40, 40), (40, 5)]


@pytest.mark.parametrize(("n_features", "n_axes"), FRAMES)
def test_frames_whiten_and_unwhiten(n_features, n_axes):
    frames = _frames(n_features, n_axes)
    x, charts = random_rows(9, n_features), torch.arange(9) % N_CHARTS
    z = frames.whiten(x, charts)
    torch.testing.assert_close(frames.unwhiten(z, charts), x)
    # The squared length is that of Mahalanobis.
    inverses = np.linalg.inv(_covariances(frames))[charts]
    centred = (x - frames.mean[charts]).numpy()
    expected = np.einsum("ni,nij,nj->n", centred, inverses, centred)
    np.testing.assert_allclose(z.square().sum(1), expected)


@pytest.mark.parametrize(("n_features", "n_axes"), FRAMES)
def test_frames_know_their_log_determinant(n_features, n_axes):
    frames = _frames(n_features, n_axes)
    x = random_rows(N_CHARTS, n_features)
    jacobians = _jacobians(lambda row, i: frames.whiten(row, torch.tensor(i)), x)
    np.testing.assert_allclose(frames.log_det(), torch.linalg.slogdet(jacobians)[1], rtol=1e-9)


@pytest.mark.parametrize(("n_features", "n_axes"), FRAMES)
def test_frames_know_their_normal_distributions(n_features, n_axes):
    frames, x = _frames(n_features, n_axes), random_rows(9, n_features)
    expected = [
        multivariate_normal(mean, covariance).logpdf(x)
        for mean, covariance in zip(frames.mean.numpy(), _covariances(frames), strict=True)
    ]
    np.testing.assert_allclose(frames.log_normal(x), np.transpose(expected), rtol=1e-9)


@pytest.mark.parametrize(("n_features", "n_axes"), [(4, 4), (4, 2), (40, 5)])
def test_tangential_part_moves_along_the_first_axes(n_features, n_axes):
    """Moving by it moves the row within the span of as many axes as the dimension says."""
    frames = _frames(n_features, n_axes)
    charts, dimensions = torch.arange(6) % N_CHARTS, torch.tensor([1, 2, 1, 2, 2, 1])
    z = random_rows(6, n_features)
    part = frames.tangential(z, charts, dimensions)
    origin = frames.unwhiten(torch.zeros_like(z), charts)
    moved = frames.unwhiten(part, charts) - origin
    whole = frames.unwhiten(z, charts) - origin
    for i in range(6):
        axes = frames.axes[charts[i], :, : dimensions[i]]
        torch.testing.assert_close(moved[i], axes @ axes.T @ whole[i])


MAPS = ["ambient", "ambient, few axes", "ambient, frames last", "conformal"]


@pytest.mark.parametrize("flow", ["affine", "spline", "autoregressive"])
@pytest.mark.parametrize("name", MAPS)
def test_maps_are_inverted(name, flow):
    chart_map, (x, charts, context) = _chart_map(name, flow=flow), _rows()
    z, _ = chart_map.forward_and_log_det(x, charts, context)
    back = chart_map.inverse(z, charts, context)
    torch.testing.assert_close(back, x, atol=1e-6, rtol=1e-6)
    again, _ = chart_map.forward_and_log_det(chart_map.inverse(x, charts, context), charts, context)
    torch.testing.assert_close(again, x, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("n_features", [2, 4, 5])
@pytest.mark.parametrize("name", MAPS)
def test_log_determinants_are_those_of_exact_jacobians(name, n_features):
    chart_map = _chart_map(name, n_features)
    x, charts, context = _rows(n_features=n_features)
    _, log_det = chart_map.forward_and_log_det(x, charts, context)
    jacobians = _jacobians(
        lambda row, i: chart_map.forward_and_log_det(row, charts[i], context[i])[0], x
    )
    np.testing.assert_allclose(log_det, torch.linalg.slogdet(jacobians)[1], atol=1e-9)


def test_gradients_reach_all_parameters():
    for name in MAPS:
        chart_map, (x, charts, context) = _chart_map(name).requires_grad_(), _rows()
        z, log_det = chart_map.forward_and_log_det(x, charts, context)
        (z.square().sum() - log_det.sum()).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in chart_map.parameters())


def test_special_conformal_map_is_conformal():
    """J'J is the square of the stretch times the identity, and S_-b inverts S_b."""
    w, b = random_rows(10, 3), 0.4 * random_rows(10, 3, seed=3)
    y, log_stretch = ConformalChartMap._special_conformal(w, b)
    square = (w**2).sum(1, keepdim=True)
    numerator = w + b * square
    denominator = 1 + 2 * (b * w).sum(1, True) + (b**2).sum(1, True) * square
    torch.testing.assert_close(y, numerator / denominator)
    jacobians = _jacobians(lambda row, i: ConformalChartMap._special_conformal(row, b[i])[0], w)
    expected = (2 * log_stretch).exp()[:, None, None] * torch.eye(3).double()
    torch.testing.assert_close(jacobians.mT @ jacobians, expected)
    back, log_shrink = ConformalChartMap._special_conformal(y, -b)
    torch.testing.assert_close(back, w)
    torch.testing.assert_close(log_shrink, -log_stretch)


@pytest.mark.parametrize("d", [1, 2])
def test_volume_along_the_chart_has_the_exponent_d(d):
    """1/2 logdet(J'J) of w in R^d -> S_b(w, 0) is d log stretch, not log stretch."""
    u, b = random_rows(10, d), 0.4 * random_rows(10, 3, seed=3)

    def embed(row, i):
        flat = torch.cat([row, torch.zeros(len(row), 3 - d, dtype=row.dtype)], dim=1)
        return ConformalChartMap._special_conformal(flat, b[i])[0]

    jacobians = _jacobians(embed, u)
    volume = 0.5 * torch.linalg.slogdet(jacobians.mT @ jacobians)[1]
    flat = torch.cat([u, torch.zeros(10, 3 - d).double()], dim=1)
    torch.testing.assert_close(volume, d * ConformalChartMap._special_conformal(flat, b)[1])


@pytest.mark.parametrize("d", [1, 2])
def test_conformal_charts_are_circles_and_spheres(d):
    """Rows without noise obey one linear equation in x and |x|^2, those of a circle two."""
    bijection = density_flow("affine", d, 2, (8,), generator=make_generator(0), n_context=N_CONTEXT)
    chart_map = ConformalChartMap(_frames(3, 3), bijection, d).double()
    perturb(chart_map, 0.3, make_generator(7))
    z = torch.cat([2 * random_rows(200, d), torch.zeros(200, 3 - d)], dim=1)
    context = random_rows(1, N_CONTEXT).expand(200, -1)
    for k in range(N_CHARTS):
        x = chart_map.inverse(z, torch.full((200,), k), context).detach()
        lifted = torch.cat([torch.ones(200, 1), x, x.square().sum(1, True)], dim=1)
        singular = torch.linalg.svdvals(lifted)
        assert int((singular < 1e-9 * singular[0]).sum()) == 3 - d
        # A plane would obey an equation in x alone.
        assert torch.linalg.svdvals(x - x.mean(0))[d] > 1e-3


def test_conformal_maps_start_at_the_frames():
    frames = _frames(4, 4)
    bijection = density_flow("affine", 2, 2, (8,), generator=make_generator(0), n_context=2)
    chart_map = ConformalChartMap(frames, bijection, 2).double()
    x, charts, context = _rows()
    z, log_det = chart_map.forward_and_log_det(x, charts, context)
    torch.testing.assert_close(z, frames.whiten(x, charts))
    torch.testing.assert_close(log_det, frames.log_det()[charts])


def test_the_tangential_part_of_a_bent_chart_is_its_flat_one():
    chart_map, (x, charts, context) = _chart_map("conformal"), _rows()
    z, _ = chart_map.forward_and_log_det(x, charts, context)
    part = chart_map.tangential(z, charts, torch.full((len(z),), 4))
    np.testing.assert_array_equal(part[:, :2], z[:, :2])
    np.testing.assert_array_equal(part[:, 2:], 0)
