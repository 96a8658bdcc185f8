"""Distances along the data, and the places of a sheet that can be unrolled."""

import numpy as np
import pytest
import torch
from scipy.spatial import procrustes
from scipy.spatial.distance import pdist, squareform
from sklearn.datasets import make_moons
from sklearn.decomposition import PCA

from skmanifoldflow._manifold_prior.geodesics import geodesic_distances, unrolled
from skmanifoldflow._manifold_prior.objective import Geodesics
from skmanifoldflow.backend.device import make_generator
from skmanifoldflow.datasets import Sphere, SwissRoll


def _geodesics(rows, distances):
    distances = torch.tensor(distances)
    return Geodesics(torch.tensor(rows), distances, float(distances.square().mean()))


@pytest.fixture
def plane():
    """Rows of a plane in four dimensions, and their distances."""
    rng = np.random.RandomState(0)
    rows = rng.randn(80, 2) @ np.linalg.qr(rng.randn(4, 2))[0].T + rng.randn(4)
    return rows, squareform(pdist(rows))


def test_places_of_a_plane_are_its_rows_turned_to_the_latents(plane):
    rows, distances = plane
    turn = np.linalg.qr(np.random.RandomState(1).randn(4, 4))[0]
    latents = rows @ turn + 3.0
    places = unrolled(_geodesics(rows, distances), torch.tensor(latents)).places
    np.testing.assert_allclose(places, latents, atol=1e-6)


def test_places_have_the_distances(plane):
    rows, distances = plane
    latents = torch.tensor(np.random.RandomState(2).randn(80, 4))
    places = unrolled(_geodesics(rows, distances), latents).places
    np.testing.assert_allclose(squareform(pdist(places)), distances, atol=1e-8)
    np.testing.assert_allclose(places.mean(0), latents.mean(0), atol=1e-7)


def test_a_swiss_roll_is_unrolled():
    X, u = SwissRoll(noise=0.05).sample(1500, random_state=0)
    rows = torch.tensor(X)
    geodesics = geodesic_distances(rows, make_generator(0))
    places = unrolled(geodesics, geodesics.rows).places.numpy()
    of_rows = np.abs(X[:, None] - geodesics.rows.numpy()).sum(-1).argmin(0)
    assert procrustes(u[of_rows], PCA(2).fit_transform(places))[2] < 0.01


@pytest.mark.parametrize(
    "rows",
    [
        Sphere(noise=0.0).sample(800, random_state=0)[0],
        make_moons(800, noise=0.02, random_state=0)[0],
        np.random.RandomState(0).randn(800, 6),
    ],
    ids=["a sphere", "two parts", "no sheet"],
)
def test_what_cannot_be_unrolled_has_no_places(rows):
    geodesics = geodesic_distances(torch.tensor(rows), make_generator(0))
    assert geodesics is not None
    assert unrolled(geodesics, geodesics.rows) is geodesics
