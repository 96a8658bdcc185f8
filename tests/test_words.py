"""Words that the package does not use."""

import re
from pathlib import Path

import skmanifoldflow


def test_a_distribution_is_not_called_a_law():
    root, law = Path(skmanifoldflow.__file__).parent, re.compile(r"\blaws?\b", re.IGNORECASE)
    found = [str(path) for path in root.rglob("*.py") if law.search(path.read_text())]
    assert not found
