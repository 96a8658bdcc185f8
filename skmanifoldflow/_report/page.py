"""The report as one page of HTML that needs no network: answers, and a map to point at."""

import base64
import json
import re
from html import escape
from importlib import resources

import numpy as np

from .answers import N_STRANGE

__all__ = ["page", "write_page"]

# Rows on the map, and cells of all of them, so that the data stay below two megabytes.
_MAX_ROWS, _MAX_CELLS = 4000, 250_000
_N_STEPS = 25
# Shares of the rows between which a walk goes.
_ENDS = 0.03, 0.97
# Colours that are seen on light and on dark ground, and stay apart with colour blindness (the ones
# of Okabe and Ito, and four more).
_PALETTE = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"),
    *("#8C6BB1", "#999999", "#B3A300", "#A65628"),
)
_MAX_LABELS = 30


def write_page(report, path):
    """Write the page of a report."""
    text = page(report)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def page(report):
    """Return the page of a report as text.

    Raises
    ------
    ImportError
        If plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ImportError(
            "the page needs plotly. It comes with the extra [plot], "
            "pip install 'skmanifoldflow[plot]', or alone, pip install plotly."
        ) from error
    shown = shown_rows(report)
    data = page_data(report, shown)
    # What ends a script must not stand in one.
    packed = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    parts = {
        "title": escape(f"What is in {report.name}"),
        "subtitle": escape(_subtitle(report)),
        "body": _body(report, shown),
        "plotly": get_plotlyjs() if report.map is not None else "",
        "data": packed,
    }
    template = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    return re.sub(r"@@(\w+)@@", lambda match: parts[match[1]], template)


def _subtitle(report):
    data = report.data
    text = f"{len(data.X)} rows, {len(data.encoder.columns)} columns."
    if not report.is_complete:
        text += " The report was interrupted: this is what was done until then."
    return text + " Made by skmanifoldflow."


# ------------------------------------------------------------------ data


def shown_rows(report):
    """Return the indices of the rows on the page: all, or of many some, with the strangest."""
    n, n_columns = len(report.data.X), len(report.data.encoder.columns)
    most = int(max(200, min(_MAX_ROWS, _MAX_CELLS // n_columns)))
    if n <= most:
        return np.arange(n)
    some = np.random.RandomState(0).permutation(n)[: most - N_STRANGE]
    first = [] if report.strange is None else report.strange.order[:N_STRANGE]
    return np.unique(np.r_[some, first]).astype(int)


def page_data(report, shown):
    """Return what the script of the page reads, as plain values."""
    data = report.data
    X = data.X[shown]
    content = {
        "rows": [data.row_name(i) for i in shown],
        "columns": _columns(data.encoder, X),
        "palette": _PALETTE,
        "strange": [],
        "walks": [],
        "label": _label(data, shown),
        "image": data.image_shape,
        "low": float(X.min()),
        "high": float(X.max()),
    }
    if report.strange is not None:
        content["logd"] = _rounded(report.log_density[shown])
        content["p"] = _rounded(report.p_value[shown])
        place = {int(i): k for k, i in enumerate(shown)}
        first = report.strange.order[:N_STRANGE]
        content["strange"] = [
            {"row": place[int(i)], "causes": [[c, _finite(v)] for c, v in causes]}
            for i, causes in zip(first, report.strange.causes, strict=True)
        ]
    if report.map is not None:
        Z = report.coordinates[shown]
        content |= {"x": _packed(Z[:, 0]), "y": _packed(Z[:, 1])}
        content["islands"] = report.islands[shown].tolist()
        content["axes"] = ["map 1", "map 2"] if report.map.model is not None else data.encoder.names
        content["walks"] = _walks(report)
    return content


def _finite(value):
    return round(float(np.nan_to_num(value, posinf=1e6, neginf=-1e6)), 3)


def _rounded(values):
    return [float(f"{_finite(value):.4g}") for value in values]


def _packed(values, kind="<f4"):
    return base64.b64encode(np.asarray(values).astype(kind).tobytes()).decode()


def _columns(encoder, X):
    """Return the columns of the table, as numbers or as places in lists of values."""
    columns = []
    table = encoder.inverse_transform(X)
    for name in encoder.columns:
        indices = encoder.parts_of(name)
        part = encoder.parts[indices[0]]
        column = {"name": name}
        if part.kind == "category":
            levels = list(part.levels)
            column["levels"] = levels
            column["packed"] = _packed([levels.index(value) for value in table[name]], "u1")
        else:
            column["packed"] = _packed(X[:, indices[0]])
            if part.kind == "date":
                column["origin"] = str(part.origin)
        columns.append(column)
    return columns


def _label(data, shown):
    """Return the labels as a choice of colours, or None."""
    if data.y is None:
        return None
    y = data.y[shown]
    values, places = np.unique(y, return_inverse=True)
    label = {"name": data.y_name, "text": [str(value) for value in y.tolist()]}
    if len(values) <= _MAX_LABELS:
        return label | {"levels": [str(v) for v in values.tolist()], "values": places.tolist()}
    if y.dtype.kind in "biuf":
        return label | {"levels": None, "values": _rounded(y)}
    # Too many to be told apart by colours: the most frequent ones.
    counts = np.bincount(places)
    most = np.argsort(-counts, kind="stable")[: _MAX_LABELS - 1]
    levels = [*(str(values[k]) for k in most), "others"]
    place = {int(k): j for j, k in enumerate(most)}
    return label | {"levels": levels, "values": [place.get(int(k), len(most)) for k in places]}


def _walks(report):
    """Return places along the two coordinates of the map, and the row that the flow has there.

    The other coordinate is the middle one of the rows nearby, so that a walk stays among rows.
    """
    model, Z, encoder = report.map.model, report.coordinates, report.data.encoder
    if model is None:
        return []
    walks = []
    for j in (0, 1):
        start, end = np.quantile(Z[:, j], _ENDS)
        along = np.linspace(start, end, _N_STEPS)
        order = np.argsort(Z[:, j], kind="stable")
        n_near = max(5, len(Z) // 20)
        places = np.searchsorted(Z[order, j], along)
        starts = np.clip(places - n_near // 2, 0, max(0, len(Z) - n_near))
        across = [np.median(Z[order[start : start + n_near], 1 - j]) for start in starts]
        path = np.column_stack([along, across] if j == 0 else [across, along])
        rows = model.inverse_transform(path)
        low, high = report.data.X.min(axis=0), report.data.X.max(axis=0)
        rows = np.clip(rows, low, high)
        walks.append(
            {
                "x": _rounded(path[:, 0]),
                "y": _rounded(path[:, 1]),
                "cells": _cells(encoder, rows),
            }
        )
    return walks


def _cells(encoder, rows):
    """Return for each row the values of the columns of the table."""
    cells = []
    for name in encoder.columns:
        indices = encoder.parts_of(name)
        part, values = encoder.parts[indices[0]], rows[:, indices]
        if part.kind == "category":
            levels = [encoder.parts[k].level for k in indices]
            if len(levels) == 1:
                other = 1 - part.levels.index(part.level)
                mine = part.levels.index(part.level)
                cells.append([mine if value >= 0.5 else other for value in values[:, 0]])
            else:
                cells.append([part.levels.index(levels[k]) for k in values.argmax(axis=1)])
        else:
            cells.append(_rounded(values[:, 0]))
    return [list(row) for row in zip(*cells, strict=True)]


# ------------------------------------------------------------------ body


def _body(report, shown):
    answers = report.answers
    parts = ['<ol class="short">']
    for k, answer in enumerate(answers, start=1):
        first = answer.sentences[0] if answer.sentences else ""
        parts.append(f'<li><a href="#a{k}">{escape(answer.title)}</a> {escape(first)}</li>')
    parts.append("</ol>")
    for k, answer in enumerate(answers, start=1):
        parts.append(f'<section id="a{k}"><h2>{k}. {escape(answer.title)}</h2>')
        parts.append(_paragraphs(answer, k))
        if answer.title.startswith("Which density"):
            parts.append(_results(report))
        if answer.title.startswith("Which rows") and report.strange is not None:
            parts.append(_strange_table(report, shown, answer))
            if report.map is None:
                parts.append('<div id="row" aria-live="polite"></div>')
        elif answer.table:
            parts.append(_table(answer.table))
        if answer.title.startswith("Are there") and report.map is not None:
            parts.append(_map(report, shown))
        if answer.code:
            parts.append(f"<pre><code>{escape(answer.code)}</code></pre>")
        parts.append("</section>")
    texts = report.comparison.notes if report.comparison is not None else []
    if texts:
        items = "".join(f"<li>{escape(text)}</li>" for text in texts)
        parts.append(f'<section><h2>Notes</h2><ul class="notes">{items}</ul></section>')
    return "\n".join(parts)


def _paragraphs(answer, k):
    if k > 1 and not answer.title.startswith("Are there"):
        return "".join(f"<p>{escape(sentence)}</p>" for sentence in answer.sentences)
    first, *others = answer.sentences
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in others)
    return f"<p>{escape(first)}</p>" + (f'<ul class="notes">{items}</ul>' if items else "")


def _table(rows):
    head, *body = rows
    heads = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in body]
    return _scroll(f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>")


def _scroll(table):
    return f'<div class="scroll" tabindex="0" role="region" aria-label="table">{table}</div>'


def _results(report):
    """Return the figures of the estimators as a table, the best density first."""
    results = report.comparison.results
    ranked = sorted(results, key=lambda r: -np.inf if r.log_density is None else r.log_density)
    head = (
        '<tr><th scope="col">estimator</th><th scope="col" class="n">nats a row</th>'
        '<th scope="col" class="n">± s.e.</th><th scope="col" class="n">reconstruction error</th>'
        '<th scope="col" class="n">trustworthiness</th><th scope="col" class="n">5-NN accuracy</th>'
        '<th scope="col" class="n">seconds</th></tr>'
    )
    lines = []
    for k, r in enumerate(reversed(ranked)):
        if r.error is not None:
            lines.append(
                f'<tr><td>{escape(r.estimator)}</td><td colspan="6">{escape(r.error)}</td></tr>'
            )
            continue
        values = [
            "" if value is None else f"{value:.{digits}f}"
            for value, digits in (
                (r.log_density, 2),
                (r.log_density_error, 2),
                (r.reconstruction_error, 3),
                (r.trustworthiness, 3),
                (r.knn_accuracy, 3),
                (r.fit_seconds, 1),
            )
        ]
        is_best = ' class="best"' if k == 0 and r.log_density is not None else ""
        cells = "".join(f'<td class="n">{value}</td>' for value in values)
        lines.append(f"<tr{is_best}><td>{escape(r.estimator)}</td>{cells}</tr>")
    return _scroll(f"<table><thead>{head}</thead><tbody>{''.join(lines)}</tbody></table>")


def _strange_table(report, shown, answer):
    """Return the strange rows, each with a button that shows its columns."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in answer.table[0])
    place = {int(i): k for k, i in enumerate(shown)}
    lines = []
    for i, (name, nats, causes) in zip(report.strange.order, answer.table[1:], strict=False):
        button = f'<button type="button" data-row="{place[int(i)]}">{escape(name)}</button>'
        lines.append(
            f'<tr><td>{button}</td><td class="n">{nats}</td><td>{escape(causes)}</td></tr>'
        )
    return _scroll(f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>")


def _map(report, shown):
    n = len(report.data.X)
    some = "" if len(shown) == n else f" {len(shown)} of {n} rows are shown."
    walk = ""
    if report.map.model is not None:
        walk = """
<section class="noprint"><h3>Walk across the map</h3>
<div id="walk"><div class="controls">
<label for="which">along <select id="which"><option value="0">map 1</option>
<option value="1">map 2</option></select></label>
<label for="step">step <input id="step" type="range" min="0" max="24" value="12"></label></div>
<p class="faint">The row that the flow has at each step; the ring on the map shows where.</p>
<div id="steps"></div></div></section>"""
    return f"""
<p class="noprint">Point at a row to read it, choose it to see all its columns.{some}</p>
<div class="controls"><label for="colour">colour <select id="colour"></select></label>
<label for="find">row <input id="find" size="12" placeholder="name or number"></label>
<span id="found" role="status"></span></div>
<div class="two"><div id="map" role="img" aria-label="Map of the rows; the fields above and the
table of strange rows choose a row by keyboard"></div>
<div id="row" aria-live="polite"></div></div>{walk}"""
