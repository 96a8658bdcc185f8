"""Properties of bijections drawn at random: layers, columns, weights, rows and their layout.

Rounding is judged by what it does: where two results differ by more than a few units of the last
place, they may differ as much as the results of inputs whose own last places differ.
"""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skmanifoldflow.backend.architectures import density_flow
from skmanifoldflow.backend.bijections import (
    AdditiveCoupling,
    AffineCoupling,
    Chain,
    MarginalSpline,
    MaskedAutoregressive,
    Orthogonal,
    Permutation,
    PooledSpline,
    PrincipalAxes,
    SplineCoupling,
    SplineMap,
    StretchedChain,
)
from skmanifoldflow.backend.bijections.actnorm import ActNorm
from skmanifoldflow.backend.bijections.fixed_knot_spline import KnotSpline, QuantileSpline
from skmanifoldflow.backend.bijections.in_principal_axes import InPrincipalAxes
from skmanifoldflow.backend.device import make_generator

# Relative to the largest entry of a row, or of the gradient of a parameter.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
# How many times as far as the results of inputs that differ in their last places.
MARGIN = {torch.float64: 1000, torch.float32: 50}


@dataclass(frozen=True)
class Case:
    """A bijection, its rows and what is asked of them.

    A name is a layer, and names in a tuple are a chain of them. The kinds of rows come by turns.
    """

    layers: str | tuple
    n_features: int
    n_context: int
    n_rows: int
    kinds: tuple
    layout: str
    inverse: bool
    scale: float
    hidden: tuple
    n_bins: int
    bound: float
    seed: int


def coupling(kind, **kwargs):
    def build(case, generator):
        d = case.n_features
        common = {"generator": generator, "n_context": case.n_context} | kwargs
        if kind is SplineCoupling:
            common |= {"n_bins": case.n_bins, "bound": case.bound}
        n_transformed = int(torch.randint(1, d + 1, (), generator=generator))
        return kind(d, n_transformed, case.hidden, **common)

    return build


def autoregressive(case, generator):
    context = {"n_context": case.n_context}
    return MaskedAutoregressive(case.n_features, case.hidden, generator=generator, **context)


def in_principal_axes(case, generator):
    inner = coupling(AffineCoupling, volume_preserving=True)(case, generator)
    return InPrincipalAxes(case.n_features, inner, floor=0.1)


def stretched(case, generator):
    return StretchedChain(case.n_features, [coupling(SplineCoupling)(case, generator)])


def flow(kind):
    def build(case, generator):
        context = {"n_context": case.n_context}
        return density_flow(kind, case.n_features, 3, case.hidden, generator=generator, **context)

    return build


# What a chain may take as one operation, and what it may not.
COUPLINGS_AND_MIXINGS = {
    "additive": coupling(AdditiveCoupling),
    "affine": coupling(AffineCoupling),
    "affine, unit volume": coupling(AffineCoupling, volume_preserving=True),
    "spline": coupling(SplineCoupling),
    "marginal": lambda case, generator: MarginalSpline(case.n_features, case.n_bins),
    "orthogonal": lambda case, generator: Orthogonal(case.n_features, generator=generator),
    "permutation": lambda case, generator: Permutation(case.n_features, generator=generator),
    "affine flow": flow("affine"),
    "spline flow": flow("spline"),
    "stretched": stretched,
}
OTHERS = {
    "principal axes": lambda case, generator: PrincipalAxes(
        case.n_features, max(1, case.n_features // 2), floor=0.1
    ),
    "principal frame": in_principal_axes,
    "actnorm": lambda case, generator: ActNorm(case.n_features),
    "autoregressive": autoregressive,
    "quantile": lambda case, generator: QuantileSpline(case.n_features, case.n_bins),
    "shared": lambda case, generator: PooledSpline(case.n_bins),
}
LAYERS = COUPLINGS_AND_MIXINGS | OTHERS
INITIALIZED_FROM_ROWS = (ActNorm, MarginalSpline, PrincipalAxes, PooledSpline)

ROWS = ("normal", "wide", "huge", "zero", "repeated", "edges", "knots")
LAYOUTS = ("contiguous", "transposed", "every second", "part", "expanded")


def chains_of(names):
    layer = st.sampled_from(tuple(names))
    nested = st.recursive(layer, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=4)
    return st.lists(nested, max_size=4).map(tuple)


chains = chains_of(COUPLINGS_AND_MIXINGS) | chains_of(LAYERS)


def cases(layers, scales=(0.0, 0.3, 1.0, 3.0)):
    return st.builds(
        Case,
        layers=layers,
        n_features=st.integers(1, 6),
        n_context=st.sampled_from((0, 0, 1, 3)),
        n_rows=st.integers(1, 9) | st.just(40),
        kinds=st.lists(st.sampled_from(ROWS), min_size=1, max_size=4).map(tuple),
        layout=st.sampled_from(LAYOUTS),
        inverse=st.booleans(),
        scale=st.sampled_from(scales),
        hidden=st.sampled_from(((), (4,), (5, 3))),
        n_bins=st.integers(2, 6),
        bound=st.sampled_from((5.0, 1.5)),
        seed=st.integers(0, 999),
    )


def initial_rows(n_features, generator):
    """Return rows with normal, log-normal, rounded and constant columns."""
    rows = torch.randn(30, n_features, dtype=torch.float64, generator=generator)
    columns = torch.arange(n_features) % 4
    rows = torch.where(columns == 1, rows.exp(), rows)
    rows = torch.where(columns == 2, rows.round(), rows)
    return torch.where(columns == 3, 0.7, rows)


def build(case, dtype):
    """Return the bijection, initialized from rows and with random weights."""
    generator = make_generator(case.seed)

    def assemble(part):
        if isinstance(part, str):
            return LAYERS[part](case, generator)
        return Chain([assemble(inner) for inner in part])

    bijection = assemble(case.layers).to(dtype)
    rows = initial_rows(case.n_features, generator).to(dtype)
    for module in bijection.modules():
        if isinstance(module, INITIALIZED_FROM_ROWS):
            module.initialize(rows)
        elif isinstance(module, StretchedChain):
            module.stretch(rows)
        elif isinstance(module, QuantileSpline):
            module.fit(torch.randn(rows.shape, dtype=dtype, generator=generator))
    with torch.no_grad():
        for name, p in bijection.named_parameters():
            spread = 0.1 if "log_" in name else 0.7 / max(1, p.shape[-1]) ** 0.5
            p.add_(case.scale * spread * torch.randn(p.shape, dtype=dtype, generator=generator))
    return bijection


def first_layer(bijection, inverse):
    while isinstance(bijection, Chain) and len(bijection.bijections):
        bijection = bijection.bijections[-1 if inverse else 0]
    return bijection


@torch.no_grad()
def at_knots(layer, rows, context, inverse):
    """Return rows whose entries are at knots of a layer, where it has any."""
    rows = rows.clone()
    if isinstance(layer, SplineCoupling):
        spline, m = layer.elementwise, layer.n_transformed
        inputs = rows[:, : layer.n_passed]
        inputs = inputs if context is None else torch.cat([inputs, context], dim=1)
        params = layer.conditioner(inputs).unflatten(1, (spline.n_params, m))
        shares = params[:, spline.n_bins - 1 : 2 * spline.n_bins - 1].softmax(dim=1)
        shares = spline.min_share + (1 - spline.n_bins * spline.min_share) * shares
        edges = torch.cat([torch.zeros_like(shares[:, :1]), shares.cumsum(dim=1)], dim=1)
        knots = (spline.bound * (2 * edges - 1)).movedim(1, -1)
    elif isinstance(layer, KnotSpline):
        m = rows.shape[1]
        knots = layer.knots.expand(len(rows), m, -1)
    else:
        return rows.round()
    which = torch.arange(len(rows))[:, None] + torch.arange(m)
    rows[:, -m:] = knots.gather(2, (which % knots.shape[2])[..., None]).squeeze(2)
    return layer.forward_and_log_det(rows, context)[0] if inverse else rows


def rows_and_context(case, bijection, dtype, beside=0.0):
    """Return rows of the kinds asked for, and their context or None.

    `beside` is added to rows that are at a knot in exact arithmetic, of the first layer or of one
    that its results go to, where rounding puts them on either side.
    """
    generator = make_generator(case.seed + 1000)
    n, d = case.n_rows, case.n_features
    normal = torch.randn(n, d, dtype=dtype, generator=generator)
    context = torch.randn(n, case.n_context, dtype=dtype, generator=generator)
    context = context if case.n_context else None
    ends = torch.tensor([-case.bound, -3.0, -1.0, 0.0, 1.0, 3.0, case.bound], dtype=dtype)
    of_kind = {
        "normal": normal,
        "wide": 3 * normal,
        "huge": 1e3 * normal,
        "zero": torch.zeros_like(normal),
        "repeated": normal[:1].expand(n, d),
        "edges": ends[torch.randint(len(ends), (n, d), generator=generator)],
    }
    if "knots" in case.kinds:
        layer = first_layer(bijection, case.inverse)
        of_kind["knots"] = at_knots(layer, normal, context, case.inverse)
        if case.inverse or not isinstance(layer, KnotSpline):
            of_kind["knots"] = of_kind["knots"] + beside
    if sum(isinstance(module, SplineMap) for module in bijection.modules()) > 1:
        of_kind["edges"] = of_kind["edges"] + beside
    kinds = [case.kinds[i % len(case.kinds)] for i in range(n)]
    rows = torch.stack([of_kind[kind][i] for i, kind in enumerate(kinds)])
    # Couplings that are the identity have their knots at round numbers.
    return laid_out(rows if case.scale else rows + beside, case.layout), context


def laid_out(rows, layout):
    """Return the rows in another order of memory; "expanded" rows are all the first one."""
    if layout == "transposed":
        return rows.T.contiguous().T
    if layout == "every second":
        return rows.repeat_interleave(2, dim=1)[:, ::2]
    if layout == "part":
        return torch.cat([rows, rows], dim=1)[:, rows.shape[1] :]
    if layout == "expanded":
        return rows[:1].expand_as(rows)
    return rows


def mapped(bijection, rows, context, inverse):
    method = bijection.inverse_and_log_det if inverse else bijection.forward_and_log_det
    return method(rows, context)


def layer_by_layer(bijection, rows, context, inverse, between=None):
    """Map rows as the definition of a chain says, also of the chains within.

    What layers hand to each other goes through `between`.
    """
    if not isinstance(bijection, Chain):
        return mapped(bijection, rows if between is None else between(rows), context, inverse)
    total = rows.new_zeros(len(rows))
    for part in reversed(bijection.bijections) if inverse else bijection.bijections:
        rows, log_det = layer_by_layer(part, rows, context, inverse, between)
        total = total + log_det
    return rows, total


def nudged(tensor, generator):
    """Return a tensor whose last places differ."""
    if tensor is None or not tensor.is_floating_point():
        return tensor
    noise = torch.randn(tensor.shape, dtype=tensor.dtype, generator=generator)
    return tensor * (1 + 4 * torch.finfo(tensor.dtype).eps * noise)


def nudged_results(function, bijection, rows, context):
    """Return results where the last places of all that goes into the layers differ.

    Of rows, context, weights and constants; the function takes rows, context, and what is done to
    rows between layers.
    """
    generator = make_generator(0)
    tensors = [*bijection.parameters(), *bijection.buffers()]
    splines = [module for module in bijection.modules() if isinstance(module, SplineMap)]
    kept, bounds = [t.detach().clone() for t in tensors], [spline.bound for spline in splines]
    found = []
    for sign in (-1, 1, -1, 1):
        with torch.no_grad():
            for tensor, value in zip(tensors, kept, strict=True):
                tensor.copy_(nudged(value, generator))
        for spline, bound in zip(splines, bounds, strict=True):
            # Values beyond the ends are mapped from them.
            spline.bound = bound * (1 + sign * 4 * torch.finfo(rows.dtype).eps)
        of_context = nudged(context, generator)
        found.append(function(rows, of_context, lambda rows: nudged(rows, generator)))
    with torch.no_grad():
        for tensor, value in zip(tensors, kept, strict=True):
            tensor.copy_(value)
    for spline, bound in zip(splines, bounds, strict=True):
        spline.bound = bound
    return found


def sizes(name, tensor):
    """Return the largest entry of every row, or of all of the gradient of a parameter."""
    by_row = not name.startswith("gradient of weights")
    flat = tensor.abs().reshape(len(tensor) if by_row else 1, -1)
    return flat.amax(1) if flat.shape[1] else flat.new_zeros(len(flat))


def assert_same_up_to_rounding(actual, expected, nudged_results, size_of_rows=1.0):
    """Compare results by name; those of inputs whose last places differ are made if needed.

    Rows of which these have lost half of their digits are not compared. Gradients have
    the rounding of what is summed, and of the rows that it is multiplied by.
    """
    assert actual.keys() == expected.keys()
    others = None
    scale = max(1.0, size_of_rows)
    for name, value in expected.items():
        if name.startswith("gradient of weights") and value.numel():
            scale = max(scale, value.abs().max().item())
    for name, value in expected.items():
        found, value = actual[name].detach(), value.detach()
        assert found.shape == value.shape, name
        assert found.dtype == value.dtype, name
        least = scale if name.startswith("gradient") else 1.0
        size, error = sizes(name, value).clamp_min(least), sizes(name, found - value)
        allowed = TOLERANCE[value.dtype] * size
        if name != "rows":
            # Where a steep curve ends, terms of a gradient are 1e5 as large as their sum, and a
            # slope changes so within the rounding of a row. Kernels are held to 1e-12 elsewhere.
            allowed = (1e5 if value.dtype == torch.float64 else 1e3) * allowed
        if (error <= allowed).all():
            continue
        others = nudged_results() if others is None else others
        moved = torch.stack([sizes(name, other[name].detach() - value) for other in others])
        moved = moved.nan_to_num(nan=math.inf).amax(0)
        is_lost = ~(moved <= math.sqrt(torch.finfo(value.dtype).eps) * size)
        is_near = is_lost | (error <= allowed + MARGIN[value.dtype] * moved)
        assert is_near.all(), f"{name}: {error[~is_near]} where inputs move them {moved[~is_near]}"


def named(results):
    return dict(zip(("rows", "log-determinants"), results, strict=True))


any_bijection = st.sampled_from(tuple(LAYERS)) | chains
# Each layer by itself, and chains of them.
every_bijection = pytest.mark.parametrize(
    "layers", [*map(st.just, LAYERS), chains], ids=[*LAYERS, "chains"]
)


def function_of(how, bijection, inverse):
    """Return a function of rows and context whose results have names."""
    return lambda rows, context, *between: named(how(bijection, rows, context, inverse, *between))


@every_bijection
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_inverse_undoes_forward(layers, data):
    case = data.draw(cases(layers))
    bijection = build(case, torch.float64).requires_grad_(False)
    rows, context = rows_and_context(case, bijection, torch.float64)
    there, log_det = mapped(bijection, rows, context, case.inverse)
    expected = {"rows": rows, "log-determinants": -log_det}
    forth = function_of(layer_by_layer, bijection, case.inverse)
    back = function_of(layer_by_layer, bijection, not case.inverse)

    def nudged_round_trips():
        here = back(there, context)
        found = nudged_results(back, bijection, there, context)
        for other in nudged_results(forth, bijection, rows, context):
            found.append(back(other["rows"], context))
            moved = here["log-determinants"] - log_det - other["log-determinants"]
            found.append({"rows": here["rows"], "log-determinants": moved})
        return [{k: expected[k] + other[k] - here[k] for k in expected} for other in found]

    found = function_of(mapped, bijection, not case.inverse)(there, context)
    assert_same_up_to_rounding(found, expected, nudged_round_trips)


@every_bijection
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_log_det_is_that_of_the_jacobian(layers, data):
    case = data.draw(cases(layers))
    bijection = build(case, torch.float64).requires_grad_(False)
    rows, context = rows_and_context(case, bijection, torch.float64)

    def with_jacobian(rows, context, *between):
        rows = rows.detach().requires_grad_()
        z, log_det = layer_by_layer(bijection, rows, context, case.inverse, *between)
        columns = [torch.autograd.grad(c.sum(), rows, retain_graph=True)[0] for c in z.T]
        return log_det.detach(), torch.stack(columns, dim=1)

    here, jacobian = with_jacobian(rows, context)
    expected = torch.linalg.slogdet(jacobian).logabsdet
    rounding = torch.finfo(torch.float64).eps * torch.linalg.cond(jacobian)

    def nudged_log_dets():
        both = nudged_results(with_jacobian, bijection, rows, context)
        moved = [torch.linalg.slogdet(jacobian).logabsdet for _, jacobian in both]
        moved += [expected + log_det - here for log_det, _ in both]
        return [{"log-determinants": value} for value in (expected + rounding, *moved)]

    log_det = mapped(bijection, rows, context, case.inverse)[1]
    assert_same_up_to_rounding(
        {"log-determinants": log_det}, {"log-determinants": expected}, nudged_log_dets
    )


@every_bijection
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_rows_do_not_depend_on_each_other(layers, data):
    case = data.draw(cases(layers))
    bijection = build(case, torch.float64).requires_grad_(False)
    rows, context = rows_and_context(case, bijection, torch.float64)
    order = data.draw(st.permutations(range(case.n_rows)))
    chosen = torch.tensor(order[: data.draw(st.integers(1, case.n_rows))])

    def of_chosen(how):
        function = function_of(how, bijection, case.inverse)
        return lambda *inputs: {k: v[chosen] for k, v in function(*inputs).items()}

    of_context = None if context is None else context[chosen]
    assert_same_up_to_rounding(
        function_of(mapped, bijection, case.inverse)(rows[chosen], of_context),
        of_chosen(mapped)(rows, context),
        lambda: nudged_results(of_chosen(layer_by_layer), bijection, rows, context),
    )


INPUTS = ("rows", "context", "weights", "every second weight")


def results_and_gradients(how, bijection, needed, inverse):
    """Return a function of rows and context: results, and gradients of a linear function of them.

    Of inputs that are needed; `how` maps the rows.
    """

    def function(rows, context, *between):
        rows = rows.detach().requires_grad_("rows" in needed)
        if context is not None:
            context = context.detach().requires_grad_("context" in needed)
        results = how(bijection, rows, context, inverse, *between)
        generator = make_generator(2)
        total = sum(
            (torch.randn(r.shape, dtype=r.dtype, generator=generator) * r).sum() for r in results
        )
        inputs = {"gradient of rows": rows, "gradient of context": context}
        inputs |= {f"gradient of weights {name}": p for name, p in bijection.named_parameters()}
        inputs = {name: t for name, t in inputs.items() if t is not None and t.requires_grad}
        # Inputs that nothing depends on have gradients too.
        total = total + sum(0 * t.sum() for t in inputs.values())
        gradients = torch.autograd.grad(total, list(inputs.values())) if inputs else ()
        return named(results) | dict(zip(inputs, gradients, strict=True))

    return function


def need(bijection, needed):
    for i, p in enumerate(bijection.parameters()):
        p.requires_grad_("weights" in needed or ("every second weight" in needed and i % 2 == 0))


def has_coupling_spline(bijection):
    return any(isinstance(module, SplineMap) for module in bijection.modules())


def has_chain_without_weights(bijection):
    chains = [module for module in bijection.modules() if isinstance(module, Chain)]
    return any(next(chain.parameters(), None) is None for chain in chains)


def assert_a_chain_is_its_layers(case, needed, dtype):
    chain = build(case, dtype)
    if dtype == torch.float32 and case.inverse and has_coupling_spline(chain):
        # The inverse of a very steep spline is not always finite in float32.
        kinds = tuple("wide" if kind == "huge" else kind for kind in case.kinds)
        case = replace(case, kinds=kinds, scale=min(case.scale, 0.3))
        chain = build(case, dtype)
    # The gradient of a log-slope jumps at a knot.
    rows, context = rows_and_context(case, chain, dtype, beside=0.01)
    if has_chain_without_weights(chain):
        needed = needed | {"rows"}
    need(chain, needed)
    reference = results_and_gradients(layer_by_layer, chain, needed, case.inverse)
    assert_same_up_to_rounding(
        results_and_gradients(mapped, chain, needed, case.inverse)(rows, context),
        reference(rows, context),
        lambda: nudged_results(reference, chain, rows, context),
        rows.abs().max().item(),
    )


needed_inputs = st.sets(st.sampled_from(INPUTS), min_size=1)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(case=cases(chains), needed=needed_inputs)
def test_a_chain_is_its_layers_in_float64(case, needed):
    assert_a_chain_is_its_layers(case, needed, torch.float64)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(case=cases(chains), needed=needed_inputs)
def test_a_chain_is_its_layers_in_float32(case, needed):
    assert_a_chain_is_its_layers(case, needed, torch.float32)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(case=cases(chains), needed=needed_inputs)
def test_results_without_a_graph_are_those_with_one(case, needed):
    chain = build(case, torch.float64)
    rows, context = rows_and_context(case, chain, torch.float64)
    need(chain, needed)
    function = function_of(mapped, chain, case.inverse)
    with torch.no_grad():
        found = function(rows, context)
    assert not any(result.requires_grad for result in found.values())
    expected = function(rows.detach().requires_grad_("rows" in needed), context)
    reference = function_of(layer_by_layer, chain, case.inverse)
    assert_same_up_to_rounding(
        found, expected, lambda: nudged_results(reference, chain, rows, context)
    )


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    case=cases(any_bijection, scales=(0.0, 1.0, 10.0)),
    dtype=st.sampled_from((torch.float32, torch.float64)),
    size=st.sampled_from((1e-30, 1e3, 1e6)),
)
def test_results_and_gradients_are_finite(case, dtype, size):
    bijection = build(case, dtype)
    # The inverse of a very steep spline is not always finite.
    splines = any(isinstance(module, SplineMap | KnotSpline) for module in bijection.modules())
    case = replace(case, inverse=case.inverse and not splines)
    rows, context = rows_and_context(case, bijection, dtype)
    normal, _ = rows_and_context(replace(case, kinds=("normal",)), bijection, dtype)
    function = results_and_gradients(mapped, bijection, ("rows", "context"), case.inverse)
    for some in (rows, size * normal):
        for name, value in function(some, context).items():
            assert value.isfinite().all(), name


# A bin so much steeper than the one beside it that rounding finds the share of a value beyond the
# bin itself.
def test_the_inverse_of_a_steep_spline_is_finite_beyond_its_end(generator):
    coupling = SplineCoupling(1, 1, (), generator=generator, n_bins=2)
    bias = coupling.conditioner.layers[-1].bias
    with torch.no_grad():
        bias.copy_(torch.tensor([100.0, -20.0, 20.0, 20.0, -20.0]))
    x, log_det = Chain([coupling]).inverse_and_log_det(torch.tensor([[7.5]]))
    (gradient,) = torch.autograd.grad(x.sum(), bias)
    torch.testing.assert_close(x, torch.tensor([[7.5]]), rtol=0, atol=1e-3)
    assert log_det.isfinite().all()
    assert gradient.isfinite().all()


def test_the_inverse_of_a_marginal_spline_with_a_flat_bin_is_finite_beyond_its_end():
    spline = MarginalSpline(1, 2)
    with torch.no_grad():
        spline.knots.copy_(torch.tensor([-1.8336, 0.027772, 2.9652]))
        spline.log_ratios.copy_(torch.tensor([[0.7587, -2.4120]]))
        spline.log_slopes.copy_(torch.tensor([[0.4004, 1.0017, -0.4275]]))
    x, log_det = spline.inverse_and_log_det(torch.tensor([[8.264808654785156]]))
    assert x.isfinite().all()
    assert log_det.isfinite().all()


def test_a_context_that_a_chain_of_mixings_does_not_use_may_need_a_gradient(generator):
    chain = Chain([Permutation(2, generator=generator)])
    context = torch.ones(3, 1, requires_grad=True)
    z, log_det = chain.forward_and_log_det(torch.ones(3, 2), context)
    total = z.sum() + log_det.sum() + context.sum()
    (gradient,) = torch.autograd.grad(total, context)
    assert torch.equal(gradient, torch.ones(3, 1))
