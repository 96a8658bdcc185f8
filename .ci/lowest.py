"""Print the requirements of pyproject.toml, or of the extras named, each at its lowest version.

That of torch only if LOWEST_TORCH is set.
"""

import os
import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
groups = [project["optional-dependencies"][extra] for extra in sys.argv[1:]]
for requirements in groups or [project["dependencies"]]:
    for requirement in requirements:
        is_left_out = requirement.startswith("torch") and not os.environ.get("LOWEST_TORCH")
        if not requirement.startswith(project["name"]) and not is_left_out:
            print(requirement.replace(">=", "=="))
