"""The folder of a report, and what is written to it."""

import csv
import os
import sys
from collections.abc import Callable
from pathlib import Path

from ..plotting import check_matplotlib
from . import page, picture

__all__ = ["Files", "to_stderr", "write_pictures", "write_rows", "write_table"]

_FILES = ("report.html", "report.png", "rows.csv", "new_rows.csv", "model.joblib")


class Files:
    """The folder of a report; a file is the old one or the new one, whenever the process ends.

    Parameters
    ----------
    folder : Path or None
        None writes nothing.
    say : callable
        Takes a sentence about what could not be written.
    """

    def __init__(self, folder, say):
        self.folder, self._say = folder, say
        self.written: list[str] = []
        self.has_failed = False

    def make_folder(self) -> None:
        """Make the folder; raise OSError with a sentence if it cannot be written to."""
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe = self.folder / ".report.part"
            probe.touch()
            probe.unlink()
            for name in _FILES:
                # Those of an earlier report have no place beside this one.
                (self.folder / name).unlink(missing_ok=True)
        except OSError as error:
            what = f"The folder {self.folder} cannot be written to: {error.strerror}."
            raise OSError(what) from error

    def write(self, name: str, function: Callable[[str], None]) -> None:
        """Write a file by a function of a path; what fails is said, once."""
        if self.folder is None:
            return
        path = os.path.join(self.folder, name)
        part = os.path.join(self.folder, f".{name}.part")
        try:
            function(part)
            os.replace(part, path)
        except OSError as error:
            if not self.has_failed:
                self._say(f"{name} cannot be written: {error.strerror or error}.")
            self.has_failed = True
        else:
            if name not in self.written:
                self.written.append(name)
        finally:
            Path(part).unlink(missing_ok=True)


def write_pictures(report, files, seed):
    """Draw the picture and the page; return sentences on what they lack."""
    messages = []
    comparison = report.comparison
    if comparison is not None and comparison.models:
        try:
            check_matplotlib("Drawing the picture")
            figure = picture.report_figure(
                comparison, report.data.image_shape, report.data.y_name, seed
            )
            files.write("report.png", lambda path: figure.savefig(path, format="png"))
        except ImportError as error:
            messages.append(f"No picture: {error}")
    elif report.is_complete:
        messages.append("No picture: every estimator failed.")
    try:
        files.write("report.html", lambda path: page.write_page(report, path))
    except ImportError as error:
        messages.append(f"No page: {error}")
    return messages


def write_table(table, path):
    """Write a dict of columns as comma-separated values."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(zip(*table.values(), strict=True))


def write_rows(report, path):
    """Write what is known of each row."""
    data, n = report.data, len(report.data.X)
    table = {"row": [str(i + 1) for i in (range(n) if data.rows is None else data.rows)]}
    if data.labels is not None:
        table["name"] = list(data.labels)
    if report.strange is not None:
        table["log_density"] = [f"{v:.6g}" for v in report.log_density]
        table["p_value"] = [f"{v:.4g}" for v in report.p_value]
    if report.map is not None:
        for j in (0, 1):
            table[f"map_{j + 1}"] = [f"{v:.6g}" for v in report.coordinates[:, j]]
        table["island"] = [str(k) for k in report.islands]
    write_table(table, path)


def to_stderr(text):
    """Print a sentence for what went wrong."""
    print(text, file=sys.stderr, flush=True)
