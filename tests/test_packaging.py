"""What is declared, and what is in the archives that are built."""

import ast
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import resources
from itertools import chain
from pathlib import Path

import pytest

import skmanifoldflow

ROOT = Path(__file__).parents[1]
IMPORT_NAMES = {"scikit-learn": "sklearn", "umap-learn": "umap"}
FILES = [
    "CHANGELOG.md",
    "CITATION.cff",
    "LICENSE",
    "MANIFEST.in",
    "README.md",
    "constraints.txt",
    "pyproject.toml",
    "setup.cfg",
]
# Written by programs into the folders that are packed.
GENERATED = ["__pycache__", "*.pyc", "*.egg-info", "_build", "auto_examples", "generated", "sg_*"]

LEFT_BEHIND = [
    "docs/_build/index.html",
    "docs/auto_examples/plot.py",
    "docs/generated/class.rst",
    "docs/sg_execution_times.rst",
    "tests/__pycache__/conftest.pyc",
]


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def imported_names(folder):
    """Return the top-level names that the modules of a folder import."""
    names = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(node.module.partition(".")[0])
    return names


def names_of(requirements):
    names = [re.match(r"[\w-]+", requirement).group() for requirement in requirements]
    return {IMPORT_NAMES.get(name, name) for name in names}


def test_what_is_imported_is_declared_and_the_reverse(project):
    imported = imported_names(Path(skmanifoldflow.__file__).parent)
    imported -= {*sys.stdlib_module_names, "skmanifoldflow"}
    declared = names_of(project["dependencies"])
    assert declared <= imported
    optional = names_of(chain.from_iterable(project["optional-dependencies"].values()))
    assert imported <= declared | optional


def test_the_package_says_that_it_is_typed():
    assert (resources.files("skmanifoldflow") / "py.typed").is_file()


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """The names of files in the source archive, in the wheel and in the folders of both."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("target")
    for folder in ("benchmarks", "docs", "skmanifoldflow", "tests"):
        ignore = shutil.ignore_patterns(*GENERATED)
        shutil.copytree(ROOT / folder, source / folder, ignore=ignore)
    for name in FILES:
        shutil.copy(ROOT / name, source)
    packed = {p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file()}
    for name in LEFT_BEHIND:
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).touch()
    code = f"from setuptools import build_meta as b; b.build_{{}}({str(target)!r})"
    for kind in ("sdist", "wheel"):
        command = [sys.executable, "-c", code.format(kind)]
        subprocess.run(command, cwd=source, check=True, capture_output=True)
    (sdist,), (wheel,) = target.glob("*.tar.gz"), target.glob("*.whl")
    with tarfile.open(sdist) as archive:
        in_sdist = {m.name.partition("/")[2] for m in archive.getmembers() if m.isfile()}
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
    return in_sdist, in_wheel, packed


def test_the_source_archive_has_all_that_tests_and_documents_need(archives):
    in_sdist, _, packed = archives
    assert {"tests/conftest.py", "constraints.txt", "skmanifoldflow/py.typed"} <= in_sdist
    assert packed - in_sdist == set()
    added = {name for name in in_sdist - packed if ".egg-info/" not in name}
    assert added == {"PKG-INFO"}


def test_the_wheel_has_the_package_alone(archives):
    _, in_wheel, packed = archives
    in_wheel = {name for name in in_wheel if ".dist-info/" not in name}
    assert in_wheel == {name for name in packed if name.startswith("skmanifoldflow/")}


def test_links_of_notebooks_lead_to_the_documentation(project):
    template = skmanifoldflow.NoisyInjectiveFlow._doc_link_template
    assert template.startswith(project["urls"]["Documentation"] + "/")
