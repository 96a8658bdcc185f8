"""What is in the table: rows, columns, and what they are taken for."""

import numpy as np

from ..._checks import counted, list_names
from .answer import Answer

__all__ = ["about_columns"]


def about_columns(data, n_fitted):
    """Say how many rows and columns there are, and what the columns are taken for."""
    parts, encoder = data.encoder.parts, data.encoder
    kinds = {column: parts[encoder.parts_of(column)[0]].kind for column in encoder.columns}
    whole = []
    for column, kind in kinds.items():
        values = data.X[:, encoder.parts_of(column)[0]]
        is_whole = kind == "number" and data.image_shape is None
        if is_whole and (values == np.round(values)).all():
            whole.append(column)
    n = {kind: list(kinds.values()).count(kind) for kind in ("number", "date", "category")}
    taken = []
    if n["number"]:
        held = f", {len(whole)} of them whole numbers" if 0 < len(whole) < n["number"] else ""
        held = ", all of them whole numbers" if len(whole) == n["number"] > 1 else held
        kind = "whole numbers" if len(whole) == n["number"] == 1 else "numbers"
        taken.append(f"{counted(n['number'], 'column')} of {kind}{held}")
    if n["date"]:
        taken.append(f"{counted(n['date'], 'column')} of dates, as days")
    if n["category"]:
        n_values = sum(part.kind == "category" for part in parts)
        names = [column for column, kind in kinds.items() if kind == "category"]
        taken.append(
            f"{counted(n['category'], 'column')} of categories ({list_names(names)}), as "
            f"{counted(n_values, 'column')} of 0 and 1"
        )
    answer = Answer("What is in the table?")
    answer.sentences.append(
        f"{counted(len(data.X), 'row')}; {'; '.join(taken)}."
        + (f" {data.units}" if data.units else "")
    )
    if n_fitted < len(data.X):
        answer.sentences.append(
            f"The models are fitted to {n_fitted} of the {len(data.X)} rows, drawn at random, as "
            "many as the time allows."
        )
    n_copies = len(data.X) - len({row.tobytes() for row in data.X})
    if n_copies:
        copies = "1 row is the same" if n_copies == 1 else f"{n_copies} rows are the same"
        answer.sentences.append(f"{copies} as another one in these columns.")
    answer.sentences.extend(data.notes)
    if data.source:
        answer.code = (
            f'model = joblib.load("{{folder}}/model.joblib")\n'
            f'table = skmanifoldflow.report.read_table("{data.source}")\n'
            "X = model.encoder.transform(table)  # rows as numbers"
        )
    return answer
