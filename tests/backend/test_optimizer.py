"""The optimiser against torch's own."""

import torch

from skmanifoldflow.backend.muon import Muon
from skmanifoldflow.backend.optimizer import Adam


def test_adam_takes_the_steps_of_torch():
    generator = torch.Generator().manual_seed(0)

    def make():
        torch_generator = torch.Generator().manual_seed(1)
        return [
            torch.nn.Parameter(torch.randn(shape, generator=torch_generator, dtype=torch.float64))
            for shape in ((3, 4), (5,), ())
        ]

    ours, theirs = make(), make()
    adam = Adam([ours], [0.3])
    reference = torch.optim.AdamW(theirs, lr=1.0, weight_decay=0.3)
    for step in range(20):
        learning_rate = 0.1 / (1 + step)
        target = torch.randn((), generator=generator, dtype=torch.float64)
        for parameters in (ours, theirs):
            loss = sum(((p - target) ** 4).sum() for p in parameters)
            for p in parameters:
                p.grad.zero_() if p.grad is not None else None
            loss.backward()
        adam.step([learning_rate])
        reference.param_groups[0]["lr"] = learning_rate
        reference.step()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


def test_decay_takes_off_no_more_than_there_is():
    parameters = [torch.nn.Parameter(torch.ones(3))]
    adam = Adam([parameters], [2.0])
    adam.step([100.0])
    assert (parameters[0].abs() < 1e-6).all()


def test_matrices_have_steps_of_muon_and_the_decay():
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(6, 4, generator=generator))
    bias = torch.nn.Parameter(torch.randn(6, generator=generator))
    expected = weight.detach().clone()
    values, gradient = expected[None].clone(), torch.zeros(1, 6, 4)
    alone = Muon([values], [gradient])
    other = torch.nn.Parameter(bias.detach().clone())
    adam, reference = Adam([[weight, bias]], [0.3], {id(weight)}), Adam([[other]], [0.3])
    for _ in range(3):
        drawn = torch.randn(6, 4, generator=generator)
        weight.grad.copy_(drawn)
        gradient.copy_(drawn[None])
        for p in (bias, other):
            p.grad.fill_(0.5)
        values.mul_(1 - 0.1 * 0.3)
        alone.step(alone.take_directions(), [0.1])
        adam.step([0.1])
        reference.step([0.1])
    torch.testing.assert_close(weight.detach(), values[0])
    torch.testing.assert_close(bias, other)


def test_parameters_are_views_of_one_vector():
    parameters = [torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.zeros(3))]
    adam = Adam([parameters], [0.0])
    adam.values.fill_(5.0)
    assert all(bool((p == 5).all()) for p in parameters)
    (2 * parameters[1].sum()).backward()
    torch.testing.assert_close(parameters[1].grad, torch.full((3,), 2.0))
    assert adam.gradient.sum() == 6


def test_fits_of_a_stack_have_their_own_rates():
    """Together they take the steps that each takes alone, bit for bit."""

    def make(seed):
        generator = torch.Generator().manual_seed(seed)
        return [
            torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in (7, (3, 5))
        ]

    rates, decays = [0.1, 0.02, 0.1], [0.0, 0.3, 0.0]
    together = Adam([make(k) for k in range(3)], decays)
    alone = [Adam([make(k)], [decays[k]]) for k in range(3)]
    for step in range(4):
        shape, generator = together.gradient.shape, torch.Generator().manual_seed(step)
        together.gradient.copy_(torch.randn(shape, generator=generator))
        for k, adam in enumerate(alone):
            adam.gradient[0] = together.gradient[k]
            adam.step([rates[k]])
        together.step(rates)
        for k, adam in enumerate(alone):
            assert torch.equal(adam.values[0], together.values[k])
