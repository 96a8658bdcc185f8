"""Inventories of other projects for intersphinx, made from the installed packages.

A build has no network, and a list of names kept by hand grows old. Names that scikit-learn exports
are read from it; of the others only the few that these pages mention are listed.
"""

import importlib
import inspect
import pkgutil
import zlib
from pathlib import Path

import sklearn

# Without it scikit-learn does not export IterativeImputer.
from sklearn.experimental import enable_iterative_imputer  # noqa: F401

PYTHON, TORCH = "https://docs.python.org/3/", "https://docs.pytorch.org/docs/stable/"

#: Address of the documentation, and for each name its role and its page.
LISTED = {
    "python": (
        PYTHON,
        {
            "collections.abc.Callable": ("class", "library/collections.abc.html#$"),
            "KeyboardInterrupt": ("exception", "library/exceptions.html#$"),
            "multiprocessing.get_context": ("function", "library/multiprocessing.html#$"),
            "os.fork": ("function", "library/os.html#$"),
            "pickle": ("module", "library/pickle.html"),
        },
    ),
    "numpy": (
        "https://numpy.org/doc/stable/reference/generated/",
        {"numpy.ndarray": ("class", "$.html"), "numpy.load": ("function", "$.html")},
    ),
    "pandas": (
        "https://pandas.pydata.org/docs/reference/api/",
        {"pandas.DataFrame": ("class", "$.html"), "pandas.read_csv": ("function", "$.html")},
    ),
    "joblib": (
        "https://joblib.readthedocs.io/en/stable/generated/",
        {"joblib.parallel_config": ("function", "$.html"), "joblib.dump": ("function", "$.html")},
    ),
    "torch": (
        TORCH,
        {
            "torch.func": ("module", "func.html"),
            "torch.device": ("class", "tensor_attributes.html#$"),
            "torch.set_num_threads": ("function", "generated/$.html"),
        },
    ),
}


def scikit_learn():
    """Role and page of the classes, their methods, and the functions that scikit-learn exports."""
    found = {}
    for module in pkgutil.iter_modules(sklearn.__path__, "sklearn."):
        if module.name.rpartition(".")[2].startswith(("_", "test", "conftest")):
            continue
        namespace = importlib.import_module(module.name)
        for name in getattr(namespace, "__all__", ["BaseEstimator"]):
            value, full = vars(namespace).get(name), f"{module.name}.{name}"
            page = f"modules/generated/{full}.html#$"
            if inspect.isclass(value):
                found[full] = "class", page
                for method in vars(value):
                    if not method.startswith("_"):
                        found[f"{full}.{method}"] = "method", page
            elif inspect.isfunction(value):
                found[full] = "function", page
    return found


def write(folder):
    """Write an inventory for each project; return the mapping for `intersphinx_mapping`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    projects = LISTED | {"sklearn": ("https://scikit-learn.org/stable/", scikit_learn())}
    mapping = {}
    for project, (address, names) in projects.items():
        head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n"
        head += "# The remainder of this file is compressed using zlib.\n"
        lines = [f"{name} py:{role} 1 {page} -\n" for name, (role, page) in sorted(names.items())]
        path = folder / f"{project}.inv"
        path.write_bytes(head.encode() + zlib.compress("".join(lines).encode()))
        mapping[project] = address, str(path)
    return mapping
