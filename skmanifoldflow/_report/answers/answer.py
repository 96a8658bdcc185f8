"""What an answer is, and how it is written."""

from dataclasses import dataclass, field

import numpy as np

__all__ = ["Answer", "aligned", "number", "shortened"]


@dataclass
class Answer:
    """One answer of the report.

    Attributes
    ----------
    title : str
        The question.
    sentences : list of str
        The answer.
    table : list of list of str
        Rows of text below it, the first one of headings; empty for none.
    code : str
        A line of Python that gives the same.
    """

    title: str
    sentences: list[str] = field(default_factory=list)
    table: list[list[str]] = field(default_factory=list)
    code: str = ""

    def __str__(self):
        parts = [self.title, "", *self.sentences]
        if self.table:
            parts += ["", *aligned(self.table)]
        if self.code:
            parts += ["", *(f"    {line}" for line in self.code.splitlines())]
        return "\n".join(parts)


def aligned(table):
    """Return rows of text as lines whose columns are as wide as they need."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


def number(value, digits=3):
    """Return a number as a person writes it."""
    if not np.isfinite(value):
        return str(value)
    if value == round(value) and abs(value) < 1e9:
        return f"{value:.0f}"
    return f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:.0f}"


def shortened(text, most=40):
    return text if len(text) <= most else f"{text[: most - 20]}...{text[-17:]}"
