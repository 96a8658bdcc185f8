"""Weights as numpy arrays."""

import numpy as np
import pytest
import torch
from helpers import random_rows, randomize

from skmanifoldflow._manifold_prior.distribution import LearnedCovariance
from skmanifoldflow.backend.bijections import AffineCoupling, Chain, Orthogonal, Permutation
from skmanifoldflow.backend.device import make_generator
from skmanifoldflow.backend.flow import ManifoldFlow
from skmanifoldflow.backend.serialization import arrays_from_module, load_arrays


@pytest.fixture(autouse=True)
def no_gradients():
    # Loaded weights ask for none, and a pass with gradients may differ in its last bits.
    with torch.no_grad():
        yield


def build(seed):
    generator = make_generator(seed)
    chain = Chain(
        [
            Orthogonal(4, generator=generator),
            AffineCoupling(4, 2, (8,), generator=generator),
            Permutation(4, generator=generator),
            # Its conditioner has no inputs, so some of its weights are empty.
            AffineCoupling(4, 4, (8,), generator=generator),
        ]
    )
    randomize(chain, 0.3, generator)
    latent = LearnedCovariance(4, n_free=2)
    factor = torch.randn(4, 4, dtype=torch.float64, generator=generator)
    latent.set_moments(torch.arange(4.0), factor @ factor.T)
    return ManifoldFlow(chain, latent)


def test_arrays_are_numpy_copies_of_everything():
    flow, rows = build(0), random_rows(9, 4, dtype=torch.float32)
    arrays = arrays_from_module(flow)
    assert arrays.keys() == flow.state_dict().keys()
    before = flow.log_prob(rows)
    for array in arrays.values():
        assert type(array) is np.ndarray
        assert array.flags.owndata
        array *= 0
    assert torch.equal(flow.log_prob(rows), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_round_trip_is_exact(dtype):
    flow, loaded = build(0).move_to(torch.device("cpu"), dtype), build(1)
    load_arrays(loaded, arrays_from_module(flow))
    rows = random_rows(9, 4, dtype=dtype)
    assert torch.equal(loaded.log_prob(rows), flow.log_prob(rows))
    assert torch.equal(loaded.project(rows), flow.project(rows))
    assert loaded.tensor_options == flow.tensor_options
    assert not any(p.requires_grad for p in loaded.parameters())


def read_only(array, directory, name):
    array.flags.writeable = False
    return array


def memory_mapped(array, directory, name):
    np.save(directory / f"{name}.npy", array)
    return np.load(directory / f"{name}.npy", mmap_mode="r" if array.size else None)


def strided(array, directory, name):
    return np.repeat(array, 2, axis=-1)[..., ::2]


@pytest.mark.parametrize("kind", [read_only, memory_mapped, strided])
def test_arrays_of_every_layout_load(kind, tmp_path):
    flow, loaded = build(0), build(1)
    arrays = {name: kind(array, tmp_path, name) for name, array in arrays_from_module(flow).items()}
    load_arrays(loaded, arrays)
    rows = random_rows(9, 4, dtype=torch.float32)
    assert torch.equal(loaded.log_prob(rows), flow.log_prob(rows))
    # The module owns its weights, whatever becomes of the file or the array.
    for p in loaded.parameters():
        p.mul_(2)
    assert all(
        np.array_equal(arrays[name], array) for name, array in arrays_from_module(flow).items()
    )


def test_missing_arrays_are_named():
    arrays = arrays_from_module(build(0))
    del arrays["latent.mean"]
    with pytest.raises(RuntimeError, match=r"latent\.mean"):
        load_arrays(build(1), arrays)
