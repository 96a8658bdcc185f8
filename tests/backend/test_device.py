"""Devices, generators and the thread setting."""

import threading

import pytest
import torch
from helpers import randomize

from skmanifoldflow._manifold_prior.distribution import LearnedCovariance
from skmanifoldflow.backend.architectures import volume_preserving_flow
from skmanifoldflow.backend.device import (
    make_generator,
    randn,
    resolve_device,
    single_threaded,
    statistics_dtype,
)
from skmanifoldflow.backend.flow import ManifoldFlow

SMALL, LARGE = 1e3, 1e12


def test_auto_is_cuda_where_there_is_one():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert resolve_device("auto").type == expected


def test_the_cpu_by_name():
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("quantum", "device='quantum' is not a device that torch knows. Expected 'auto', 'cpu'"),
        ("", "is not a device that torch knows"),
        ("meta", "device='meta' is not supported. Expected 'cpu', 'cuda' or 'mps'"),
        ("cuda:99", f"torch sees {torch.cuda.device_count()} CUDA devices"),
    ],
)
def test_unusable_devices_are_named(device, message):
    with pytest.raises(ValueError, match=message):
        resolve_device(device)


def test_missing_mps_is_named(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match="torch has no MPS device here"):
        resolve_device("mps")


def test_statistics_dtype_is_float64_wherever_it_exists():
    assert (
        statistics_dtype(torch.device("cpu"))
        == statistics_dtype(torch.device("cuda"))
        == torch.float64
    )
    assert statistics_dtype(torch.device("mps")) == torch.float32


def test_generators_are_reproducible_and_leave_the_global_one_alone():
    state = torch.get_rng_state()
    like = torch.zeros(1, dtype=torch.float64)
    first, again, other = (randn((50, 2), like, make_generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.dtype == torch.float64
    assert first.shape == (50, 2)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
class TestSingleThreaded:
    def test_holds_one_thread_and_restores(self):
        with single_threaded(SMALL):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3

    def test_large_products_keep_their_threads(self):
        with single_threaded(LARGE):
            assert torch.get_num_threads() == 3
        assert torch.get_num_threads() == 3

    def test_nested(self):
        with single_threaded(SMALL):
            with single_threaded(SMALL):
                assert torch.get_num_threads() == 1
            assert torch.get_num_threads() == 1
            with single_threaded(LARGE):
                assert torch.get_num_threads() == 1
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3

    def test_restored_after_an_error(self):
        with pytest.raises(RuntimeError, match="boom"), single_threaded(SMALL):
            raise RuntimeError("boom")
        assert torch.get_num_threads() == 3

    @pytest.mark.parametrize("is_new", [True, False], ids=["new thread", "old thread"])
    @pytest.mark.parametrize("main_ends_first", [True, False])
    def test_overlapping_fits(self, is_new, main_ends_first):
        """Both threads, and threads to come, find the setting that was there before."""
        start, entered, leave = threading.Event(), threading.Event(), threading.Event()
        seen = {}

        def fit():
            if not is_new:
                torch.get_num_threads()
            start.wait()
            with single_threaded(SMALL):
                seen["inside"] = torch.get_num_threads()
                entered.set()
                leave.wait()
                seen["later"] = torch.get_num_threads()
            seen["after"] = torch.get_num_threads()

        other = threading.Thread(target=fit, daemon=True)
        other.start()
        with single_threaded(SMALL):
            start.set()
            entered.wait()
            if not main_ends_first:
                leave.set()
                other.join()
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
        leave.set()
        other.join()
        assert seen == {"inside": 1, "later": 1, "after": 3}
        assert torch.get_num_threads() == 3
        later = threading.Thread(target=lambda: seen.update(new=torch.get_num_threads()))
        later.start()
        later.join()
        assert seen["new"] == 3

    def test_many_fits_at_once(self):
        barrier = threading.Barrier(8)
        inside, after = [], []

        def fit():
            barrier.wait()
            for _ in range(20):
                with single_threaded(SMALL):
                    inside.append(torch.get_num_threads())
                after.append(torch.get_num_threads())

        threads = [threading.Thread(target=fit) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert inside == [1] * 160
        assert after == [3] * 160
        assert torch.get_num_threads() == 3


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_flow_computes_the_same_on_cuda(dtype, generator):
    bijection = volume_preserving_flow("affine", 5, 4, (16,), generator=generator)
    randomize(bijection, 0.3, generator)
    factor = torch.randn(5, 5, dtype=torch.float64, generator=generator)
    latent = LearnedCovariance(5, n_free=2)
    latent.set_moments(torch.arange(5.0), factor @ factor.T)
    flow = ManifoldFlow(bijection, latent).requires_grad_(False)
    x = torch.randn(100, 5, dtype=dtype, generator=generator)

    def results(device):
        flow.move_to(resolve_device(device), dtype)
        u = flow.project(x.to(flow.tensor_options["device"]))
        jacobian = flow.embedding_jacobian(u)[1]
        sample = flow.decode(latent.sample(7, make_generator(1)))
        log_prob = flow.log_prob(x.to(flow.tensor_options["device"]))
        assert all(r.device.type == device for r in (u, jacobian, sample, log_prob))
        return [r.cpu() for r in (u, flow.embed(u), jacobian, sample, log_prob)]

    tolerance = 1e-3 if dtype == torch.float32 else 1e-9
    for on_cuda, on_cpu in zip(results("cuda"), results("cpu"), strict=True):
        torch.testing.assert_close(on_cuda, on_cpu, rtol=tolerance, atol=tolerance)
