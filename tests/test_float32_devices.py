"""Fits and calls on a device that has no float64, as MPS, which tensors of the CPU stand in for."""

import pickle

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

import skmanifoldflow._inference
import skmanifoldflow._plan
import skmanifoldflow.backend.device
from skmanifoldflow import ChartAtlasFlow, JointManifoldFlow, ManifoldPriorFlow, NoisyInjectiveFlow
from skmanifoldflow._chart_atlas import initialization
from skmanifoldflow.datasets import SCurve
from skmanifoldflow.model_selection import StackedSearchCV

aten = torch.ops.aten
# The one device beside the CPU that every build of torch knows.
DEVICE = torch.device("meta")
INDEXING = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)


class OnDevice(torch.Tensor):
    """A tensor that is on the device for torch; its numbers are those of `host`, on the CPU."""

    host: torch.Tensor

    @staticmethod
    def __new__(cls, host):
        if host.dtype == torch.float64:
            raise TypeError("This device has no float64.")
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            host.shape,
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            device=DEVICE,
        )
        tensor.host = host
        return tensor

    # What torch does out of sight of what is dispatched.
    @property
    def data(self):
        return self.detach()

    @data.setter
    def data(self, value):
        self.host = value.host

    def new_tensor(self, value):
        return torch.tensor(value, dtype=self.dtype).to(DEVICE)

    def tolist(self):
        return self.host.tolist()

    def __getitem__(self, index):
        return super().__getitem__(torch.tensor(index) if isinstance(index, list) else index)

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _compute(func, args, kwargs or {})


def _compute(func, args, kwargs):
    """Compute on the CPU what an operation gives on the device, or raise where MPS would."""
    tensors = [t for t in tree_iter((args, kwargs)) if isinstance(t, torch.Tensor)]
    mine = [t for t in tensors if isinstance(t, OnDevice)]
    if any(t.device == DEVICE for t in tensors if not isinstance(t, OnDevice)):
        raise RuntimeError(f"{func} takes a tensor that was made out of sight, without numbers.")
    is_there = bool(mine)
    if func is aten.copy_.default:
        is_there, source, dtype = isinstance(args[0], OnDevice), args[1], args[0].dtype
    elif func is aten._to_copy.default:
        source, dtype = args[0], kwargs.get("dtype") or args[0].dtype
    else:
        source = dtype = None
        others = [t for t in tensors if not isinstance(t, OnDevice) and t.ndim > 0]
        if mine and others and func not in INDEXING:
            raise RuntimeError(f"{func} takes tensors of the device and of the CPU.")
    if isinstance(source, OnDevice) and dtype == torch.float64:
        # A copy to the CPU is cast before it leaves.
        raise TypeError("This device has no float64.")
    if kwargs.get("device") is not None:
        is_there = kwargs["device"] == DEVICE
        kwargs = kwargs | {"device": torch.device("cpu")}
    hosts = {id(t.host): t for t in mine}
    args, kwargs = tree_map(lambda v: v.host if isinstance(v, OnDevice) else v, (args, kwargs))

    def on_device(value):
        # What is changed in place stays the tensor that it was.
        return hosts[id(value)] if id(value) in hosts else OnDevice(value)

    results = func(*args, **kwargs)
    return tree_map(
        lambda v: on_device(v) if is_there and isinstance(v, torch.Tensor) else v, results
    )


class DeviceMode(TorchDispatchMode):
    """Make tensors on the device, and send them there."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _compute(func, args, kwargs or {})


@pytest.fixture
def device(monkeypatch):
    """The name of a device that refuses float64 as MPS does."""
    monkeypatch.setattr(skmanifoldflow.backend.device, "_WITHOUT_FLOAT64", (DEVICE.type,))
    for module in (skmanifoldflow._plan, skmanifoldflow._inference):
        monkeypatch.setattr(module, "resolve_device", torch.device)
    # So many steps of an autoencoder are no use here.
    monkeypatch.setattr(initialization, "_QUANTIZER_STEPS", 3)
    monkeypatch.setattr(initialization, "_QUANTIZER_IMAGE_STEPS", 3)
    with DeviceMode():
        yield DEVICE.type


ROWS, _ = SCurve(noise=0.05).sample(120, random_state=0)
IMAGES = np.random.RandomState(0).uniform(size=(60, 16)).cumsum(axis=1)
IMAGE = {"image_shape": (1, 4, 4), "hidden_layer_sizes": (4,)}
SMALL = {"max_iter": 1, "n_layers": 2, "hidden_layer_sizes": (6,), "random_state": 0}

MODELS = {
    "prior": (ManifoldPriorFlow, {}),
    "prior, paper": (ManifoldPriorFlow, {"recipe": "paper"}),
    "prior, images": (ManifoldPriorFlow, IMAGE | {"n_components": 2}),
    "injection": (NoisyInjectiveFlow, {"n_components": 2}),
    "injection, bound": (
        NoisyInjectiveFlow,
        {"n_components": 2, "objective": "elbo", "flow": "affine"},
    ),
    "injection, starts": (NoisyInjectiveFlow, {"n_components": 2, "n_init": 2}),
    "injection, images": (NoisyInjectiveFlow, IMAGE | {"injection": "upsampling"}),
    "atlas": (ChartAtlasFlow, {"n_charts": 3}),
    "atlas, images": (ChartAtlasFlow, IMAGE | {"n_charts": 2, "quantizer": "kmeans"}),
    "joint": (JointManifoldFlow, {"n_components": 2, "stage_components": (1,), "n_init": 1}),
}


def new_model(name, device):
    kind, parameters = MODELS[name]
    rows = IMAGES if "image_shape" in parameters else ROWS
    return kind(**(SMALL | parameters), device=device), rows


def results(model, rows):
    """Return what does not depend on draws, by name."""
    coordinates = model.transform(rows)
    found = {
        "transform": coordinates,
        "score_samples": model.score_samples(rows),
        "inverse_transform": model.inverse_transform(coordinates),
        "reconstruct": model.reconstruct(rows),
    }
    for name in ("score_samples_manifold", "posterior_mean", "predict_proba", "expected_latent"):
        if hasattr(model, name):
            found[name] = getattr(model, name)(rows)
    if isinstance(model, ChartAtlasFlow):
        found["chart_inverse"] = model.chart_inverse_transform(*model.chart_transform(rows))
    if isinstance(model, JointManifoldFlow):
        found["stage 2"] = model.inverse_transform(model.transform(rows, stage=2), stage=2)
    return found


@pytest.mark.parametrize("name", MODELS)
def test_a_device_without_float64_computes_what_the_cpu_does(name, device):
    model, rows = new_model(name, device)
    score = model.fit(rows).score(rows)
    assert model.device_ == device
    assert all(isinstance(t, OnDevice) for t in model._flow.state_dict().values())
    on_device = {dtype: results(model, rows[:9].astype(dtype)) for dtype in ("f8", "f4")}
    assert model.local_dimension(rows[:2]).shape == (2,)
    drawn = model.sample(3, random_state=0, manifold_deviation=0.5)
    assert drawn.shape == (3, rows.shape[1])
    if isinstance(model, NoisyInjectiveFlow):
        drawn = model.sample_latent(rows[:3], 2, random_state=0)
        assert drawn.shape == (2, 3, model.n_components_)
    copy = pickle.loads(pickle.dumps(model))
    assert copy.device_ == device
    on_cpu = results(copy.to("cpu"), rows[:9])
    for part, expected in on_cpu.items():
        for found in on_device.values():
            np.testing.assert_allclose(found[part], expected, rtol=2e-3, atol=2e-3, err_msg=part)
    # From the weights of the last fit, which hardly move.
    model.set_params(warm_start=True, learning_rate_init=1e-9)
    assert model.fit(rows).score(rows) == pytest.approx(score, rel=0.05, abs=0.05)


@pytest.mark.parametrize("reconstruction", [0.0, 1.0], ids=["stacked", "alone"])
def test_a_stack_of_fits(reconstruction, device, capsys):
    model = NoisyInjectiveFlow(2, reconstruction=reconstruction, device=device, **SMALL)
    grid = {"learning_rate_init": [1e-3, 1e-2]}
    search = StackedSearchCV(model, grid, cv=2, verbose=1).fit(ROWS)
    # Where a stack fails, the search goes on without it.
    assert "not stacked" not in capsys.readouterr().out
    assert search.best_estimator_.device_ == device
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_this_device_refuses_what_mps_does(device):
    there, here = torch.ones(3).to(device), torch.ones(3, dtype=torch.float64)
    refused = [
        lambda: here.to(device),
        lambda: there.double(),
        lambda: there.to("cpu", torch.float64),
        lambda: here.copy_(there),
        lambda: torch.zeros(3, dtype=torch.float64, device=device),
    ]
    for call in refused:
        with pytest.raises(TypeError, match="no float64"):
            call()
    with pytest.raises(RuntimeError, match="of the device and of the CPU"):
        there + here
    assert torch.equal((there + there.sum()).cpu(), torch.full((3,), 4.0))
