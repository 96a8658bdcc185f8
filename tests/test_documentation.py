"""Every block of code of README and the site is run: as a recipe, as a doctest, or here."""

import configparser
import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
#: Blocks of Python that are no doctests, because of the files or programs they need.
RUN_BY_TESTS = {
    "docs/user_guide/command_line.rst": "tests/report/answers/test_planted.py",
    "docs/how_to/parallel_search.rst": "tests/test_documentation.py",
}
DIRECTIVE = re.compile(r"^( *)\.\. (?:code-block|code|literalinclude):: ?(.*)$", re.MULTILINE)


def pages():
    written = ("generated", "auto_examples", "_build")
    found = [page for page in DOCS.rglob("*.rst") if not set(written) & set(page.parts)]
    assert len(found) > 40
    return found


def commands(path, language):
    """Return the commands of blocks of shell, without comments."""
    text = path.read_text()
    if path.suffix == ".md":
        blocks = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    else:
        blocks = [
            textwrap.dedent(block)
            for block in re.findall(rf"code-block:: {language}\n\n((?: +.*\n|\n)+)", text)
        ]
    lines = [line.partition(" #")[0] for block in blocks for line in block.splitlines()]
    return [part.strip() for line in lines for part in line.split("&&") if part.strip()]


def test_every_block_of_python_is_run():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    tested = [ROOT / name for name in config["tool:pytest"]["testpaths"].split()]
    for page in pages():
        name, text = page.relative_to(ROOT).as_posix(), page.read_text()
        if ">>>" in text:
            assert any(path == page or path in page.parents for path in tested), name
            assert "+SKIP" not in text
        kinds = {kind for _, kind in DIRECTIVE.findall(text)}
        if kinds - {"sh", "bibtex"}:
            assert name in RUN_BY_TESTS, name
            runs = (ROOT / RUN_BY_TESTS[name]).read_text()
            assert page.name in runs or "parallel_search.py" in runs


def test_commands_are_those_of_the_checks_of_a_change():
    """`.ci/run` types them in a fresh environment; programs of the project are tested elsewhere."""
    checked = (ROOT / ".ci/run").read_text()
    files = [(ROOT / "README.md", "sh"), (ROOT / "CONTRIBUTING.md", "bash")]
    files += [(page, "sh") for page in pages()]
    own = re.compile(r"(python -m )?skmanifoldflow( table\.csv.*)?|bash \.ci/run|pytest -m .*")
    found = [(path.name, line) for path, language in files for line in commands(path, language)]
    assert len(found) > 12
    for name, line in found:
        install = re.fullmatch(r"pip install (.*)", line)
        if install:
            for extra in re.findall(r"'(?:-e )?\.\[(\w+)", line):
                assert f".[{extra}]'" in checked, (name, line)
        else:
            assert own.fullmatch(line) or line in checked, (name, line)


@pytest.mark.parametrize("cluster", ["dask.distributed", "ray"])
def test_a_search_on_a_cluster(cluster):
    """The functions that the page of the parallel search shows."""
    pytest.importorskip(cluster)
    from sklearn.model_selection import GridSearchCV

    from skmanifoldflow import NoisyInjectiveFlow
    from skmanifoldflow.datasets import SCurve

    names = {}
    code = (DOCS / "parallel_search.py").read_text()
    exec(compile(code, "parallel_search.py", "exec"), names)
    X, _ = SCurve(noise=0.05).sample(60, random_state=0)
    flow = NoisyInjectiveFlow(2, n_layers=1, max_iter=1, random_state=0)
    search = GridSearchCV(flow, {"n_components": [1, 2]}, cv=2)
    found = names[f"search_with_{cluster.partition('.')[0]}"](search, X)
    assert len(found.cv_results_["mean_test_score"]) == 2


def test_the_entry_to_cite_is_that_of_the_file():
    entry = (DOCS / "project/citing.rst").read_text()
    file = (ROOT / "CITATION.cff").read_text()
    title, version = (
        re.search(rf"^{key}: \"?(.*?)\"?$", file, re.MULTILINE)[1] for key in ("title", "version")
    )
    assert f"title   = {{{title}}}" in entry
    assert f"version = {{{version}}}" in entry
