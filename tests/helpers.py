"""Rows, weights and comparisons that tests in several folders use."""

import copy
import math

import numpy as np
import pytest
import torch

from skmanifoldflow import ChartAtlasFlow, JointManifoldFlow, ManifoldPriorFlow, NoisyInjectiveFlow
from skmanifoldflow.backend.device import make_generator

ESTIMATORS = [ChartAtlasFlow, JointManifoldFlow, ManifoldPriorFlow, NoisyInjectiveFlow]

# Two even scales, three, one; colour; odd sides, one of them or both; lines; a single pixel.
IMAGE_SHAPES = [
    (1, 4, 4),
    (1, 8, 8),
    (1, 6, 6),
    (3, 4, 2),
    (1, 5, 4),
    (2, 5, 3),
    (1, 1, 8),
    (1, 5, 1),
    (3, 1, 1),
    (1, 1, 1),
]

every_estimator = pytest.mark.parametrize("Estimator", ESTIMATORS)
every_image = pytest.mark.parametrize("image_shape", IMAGE_SHAPES, ids=str)


def without_background(model):
    """Return a fitted model without its background of heavy tails: the density is the flow's."""
    alone = copy.copy(model)
    alone._background = None
    return alone


def random_rows(*shape, dtype=torch.float64, seed=1):
    """Return standard normal values of this shape."""
    return torch.randn(shape, dtype=dtype, generator=make_generator(seed))


def random_images(image_shape, n_rows, generator):
    """Return flat images with standard normal values."""
    n_features = math.prod(image_shape)
    return torch.randn(n_rows, n_features, dtype=torch.float64, generator=generator)


def randomize(module, scale, generator):
    """Replace all weights by normal ones of standard deviation `scale`; return the module."""
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(scale * torch.randn(p.shape, generator=generator))
    return module


def perturb(module, scale, generator):
    """Add normal noise of standard deviation `scale` to all weights; return the module."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(scale * torch.randn(p.shape, generator=generator))
    return module


def perturb_by_fan_in(module, generator):
    """Add noise to all weights that moves the output of a layer alike whatever its width."""
    with torch.no_grad():
        for p in module.parameters():
            scale = 0.5 / math.sqrt(p[0].numel()) if p.ndim > 1 else 0.2
            p.add_(scale * torch.randn(p.shape, generator=generator))
    return module


def assert_near(actual, expected, tolerance):
    """Compare tensors with one tolerance, absolute and relative."""
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def assert_inverse(bijection, x, tolerance):
    """Compare rows that went forward and back with the rows, and log-determinants."""
    z, log_det = bijection.forward_and_log_det(x)
    back, inverse_log_det = bijection.inverse_and_log_det(z)
    assert z.dtype == log_det.dtype == back.dtype == x.dtype
    assert log_det.shape == inverse_log_det.shape == (len(x),)
    assert back.shape == x.shape
    assert z.numel() == x.numel()
    assert_near(back, x, tolerance)
    assert_near(inverse_log_det, -log_det, tolerance)


def assert_log_det(bijection, x, tolerance):
    """Compare log-determinants with those of Jacobians by autograd."""

    def row(x):
        return bijection.forward_and_log_det(x[None])[0].flatten()

    jacobian = torch.func.vmap(torch.func.jacrev(row))(x).detach().flatten(2)
    log_det = bijection.forward_and_log_det(x)[1].detach()
    assert_near(log_det, torch.linalg.slogdet(jacobian).logabsdet, tolerance)


class PlaneGrid:
    """Points of the plane with the areas that they stand for, dense where rows are.

    Parameters
    ----------
    rows : ndarray of shape (n, 2)
        Rows, positive where `support` is "positive".
    n : int
        Points along each axis.
    support : {"all", "positive"}
        Which part of the plane is covered.
    """

    def __init__(self, rows, n, support="all"):
        t = np.linspace(-9, 9, n)
        self.axes, weights = [], []
        for x in rows.T:
            if support == "positive":
                centre, scale = np.log(np.median(x)), np.log(x).std()
                axis = np.exp(centre + scale * t)
                weight = axis * scale
            else:
                centre = np.median(x)
                scale = np.percentile(np.abs(x - centre), 60)
                axis, weight = centre + scale * np.sinh(t), scale * np.cosh(t)
            self.axes.append(axis)
            weights.append(weight * (t[1] - t[0]))
        self.points = np.stack(np.meshgrid(*self.axes, indexing="ij"), -1).reshape(-1, 2)
        self.volumes = np.outer(*weights).ravel()

    def z_of_samples(self, density, samples):
        """Distance of samples from a density on the grid, in standard deviations beyond chance.

        The total variation over some 400 cells, against that of draws of the cells.
        """
        n = len(self.axes[0])
        mass = (density * self.volumes).reshape(n, n)
        lines, cuts = [], []
        for axis, x in zip(self.axes, samples.T, strict=True):
            line = np.searchsorted((axis[1:] + axis[:-1]) / 2, x)
            inner = np.quantile(line, np.linspace(0, 1, 21)[1:-1]).astype(int)
            lines.append(line)
            cuts.append(np.unique(np.r_[0, inner, n]))
        expected = np.add.reduceat(mass, cuts[0][:-1], 0)
        expected = np.add.reduceat(expected, cuts[1][:-1], 1).ravel()
        counts = np.histogram2d(*lines, bins=cuts)[0].ravel()
        expected = np.append(expected, max(0, 1 - expected.sum()))
        expected /= expected.sum()
        found = np.append(counts, len(samples) - counts.sum()) / len(samples)
        rng = np.random.RandomState(0)
        by_chance = rng.multinomial(len(samples), expected, size=200) / len(samples)
        distances = np.abs(by_chance - expected).sum(axis=1) / 2
        distance = np.abs(found - expected).sum() / 2
        return (distance - distances.mean()) / distances.std()
