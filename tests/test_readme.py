"""The recipes of README.md: each runs as it is, and prints what stands below it."""

import contextlib
import io
import re
from pathlib import Path

import pytest
import torch

README = Path(__file__).parents[1] / "README.md"
RECIPE = re.compile(r"```python\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)
NUMBER = re.compile(r"-?\d+\.\d+")
# Processors round differently, which training amplifies: what is printed may be off by that much.
TOLERANCE = 0.1


def recipes():
    return RECIPE.findall(README.read_text())


@pytest.fixture(autouse=True)
def one_thread():
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def test_every_block_of_python_is_a_recipe():
    assert len(recipes()) == README.read_text().count("```python") == 7


def test_recipes_print_what_stands_below_them():
    """They are run in their order: later ones use names of earlier ones."""
    names = {}
    for code, expected in recipes():
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, "README.md", "exec"), names)
        printed = " ".join(out.getvalue().split())
        expected = " ".join(expected.split())
        assert NUMBER.sub("#", printed) == NUMBER.sub("#", expected)
        numbers = [float(number) for number in NUMBER.findall(printed)]
        stated = [float(number) for number in NUMBER.findall(expected)]
        assert numbers == pytest.approx(stated, abs=TOLERANCE)


def test_pictures_and_folders_that_are_named_exist():
    text = README.read_text()
    named = re.findall(r"\]\(((?!http)[^)]+)\)", text) + re.findall(
        r"`((?:docs|benchmarks)/[^` ]*)`", text
    )
    assert named
    missing = [name for name in named if not (README.parent / name).exists()]
    assert not missing
