"""Which module may import which: arrows run down only."""

import ast
from pathlib import Path

import pytest

import skmanifoldflow

ROOT = Path(skmanifoldflow.__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
}

#: Layers from the bottom to the top; a module imports from its own layer and from lower ones.
LAYERS = [
    {"_version"},
    {"backend"},
    {"_checks", "_describe", "_dummies", "_grid", "_linear", "_progress", "_unwrap"},
    {"_column_maps"},
    {"_config", "_few_rows", "_mixture_of_pca"},
    {"_duplicates", "_split", "_table"},
    {"_signed_order"},
    {"_columns"},
    {"_dimension", "_folds"},
    {"_geometry", "_state"},
    {"_chunked"},
    {"_inference", "_manifold_density", "_nearest"},
    {"_plan"},
    {"_base"},
    {"_chart_atlas", "_joint_manifold", "_manifold_prior", "_noisy_injective"},
    {"model_selection"},
    {"_densities"},
    {"__init__"},
    {"datasets", "metrics", "plotting"},
    {"_report", "compare", "report"},
    {"__main__"},
]
LAYER = {name: k for k, names in enumerate(LAYERS) for name in names}
METHODS = LAYERS[LAYER["_chart_atlas"]]


def imported(name):
    """Return the modules of the package that a module imports, wherever the import stands."""
    path, found = MODULES[name], set()
    parts = name.split(".") if name != "__init__" else []
    package = parts if path.name == "__init__.py" else parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            found |= {n.partition(".")[2] or "__init__" for n in names if is_own(n)}
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            if not node.level and not is_own(node.module):
                continue
            module = (node.module or "") if node.level else node.module.partition(".")[2]
            base = ".".join([*base, *([module] if module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}" if base else alias.name
                found.add(inner if inner in MODULES else base or "__init__")
    return found


def is_own(name):
    return name.partition(".")[0] == "skmanifoldflow"


def top(name):
    return name.partition(".")[0]


def test_every_module_has_a_layer():
    assert {top(name) for name in MODULES} == LAYER.keys()


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_import_goes_up(name):
    above = {other for other in imported(name) if LAYER[top(other)] > LAYER[top(name)]}
    assert not above


@pytest.mark.parametrize("method", sorted(METHODS))
def test_methods_do_not_know_each_other(method):
    others = {
        top(other)
        for name in MODULES
        if top(name) == method
        for other in imported(name)
        if top(other) in METHODS - {method}
    }
    assert not others


def test_no_import_is_circular():
    graph, done = {name: imported(name) for name in MODULES}, set()
    # A package needs what its __init__ imports, not the other way round.
    while ready := {name for name in graph.keys() - done if graph[name] - {name} <= done}:
        done |= ready
    assert not graph.keys() - done


def test_the_backend_knows_torch_only():
    for name in MODULES:
        if top(name) == "backend":
            text = MODULES[name].read_text()
            assert "sklearn" not in text.replace("scikit-learn", "")
            assert {top(other) for other in imported(name)} <= {"backend"}


def test_scikit_learn_is_imported_where_it_is_needed():
    """Distributions, layers and losses of a method are torch, so that they can be read alone."""
    # Methods of the estimator check their input; the graph of nearest neighbours is scikit-learn's,
    # and so are the guides.
    allowed = {f"{method}.{name}" for method in METHODS for name in ("estimator", "inference")}
    allowed |= {"_manifold_prior.geodesics", "_joint_manifold.guides"}
    for name in MODULES:
        if top(name) in METHODS and name not in allowed:
            for node in ast.walk(ast.parse(MODULES[name].read_text())):
                modules = [node.module] if isinstance(node, ast.ImportFrom) else []
                assert not any((module or "").startswith("sklearn") for module in modules), name
