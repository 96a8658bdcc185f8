"""Print the requirements of pyproject.toml, or of the extras named, each at its lowest version."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
groups = [project["optional-dependencies"][extra] for extra in sys.argv[1:]]
for requirements in groups or [project["dependencies"]]:
    for requirement in requirements:
        if not requirement.startswith(project["name"]):
            print(requirement.replace(">=", "=="))
