"""What columns of a table are taken for, and the way back from numbers to the table."""

import json

import numpy as np
import pandas as pd
import pytest

from skmanifoldflow._report.cleaning import clean
from skmanifoldflow._report.data import load, table_of
from skmanifoldflow._report.encoding import Encoder, Part, category_parts, dates_of, numbers_of

RNG = np.random.RandomState(0)
N = 60


def text(values):
    return np.array(list(values), dtype=object)


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "height": RNG.standard_normal(N).round(2),
            "children": RNG.randint(5, size=N),
            "city": np.array(["Bern", "Köln", "Wien"])[np.arange(N) % 3],
            "smokes": np.array(["yes", "no"])[(np.arange(N) // 3) % 2],
            "born": pd.Timestamp("1990-05-01") + pd.to_timedelta(RNG.permutation(N) * 7, "D"),
        }
    )


# ------------------------------------------------------------------ recognition


@pytest.mark.parametrize(
    "form",
    [
        *("%Y-%m-%d", "%Y/%m/%d", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%b %d %Y", "%d %B %Y"),
        *("%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%d.%m.%Y %H:%M", "%B %d, %Y", "%d-%b-%y"),
    ],
)
def test_dates_as_they_are_written(form):
    expected = pd.date_range("2001-01-03", periods=80, freq="11D")
    found = dates_of(text([*expected.strftime(form), "", "unknown"]))
    np.testing.assert_array_equal(found[:80], expected.to_numpy().astype("datetime64[s]"))
    assert np.isnat(found[80:]).all()


@pytest.mark.parametrize(
    "values",
    [["a", "b"], ["12", "13"], ["1-2 a", "3-4 b"], ["2001-01-01", "x", "y"], ["", ""], ["1.5.a"]],
)
def test_what_is_no_date(values):
    assert dates_of(text(values * 10)) is None


def test_numbers_among_text():
    found = numbers_of(text([*map(str, range(19)), "about 7", "", None]))
    np.testing.assert_array_equal(found, [*range(19), np.nan, np.nan, np.nan])
    assert numbers_of(text(["1", "x"])) is None
    assert numbers_of(text([*map(str, range(99)), "136A"])) is None


@pytest.mark.parametrize(
    ("name", "form", "is_date"),
    [("when", "%Y%m%d", True), ("birth_date", "%y%m%d", True), ("sum", "%y%m%d", False)],
)
def test_dates_as_whole_numbers(name, form, is_date):
    days = pd.date_range("1979-11-03", periods=N, freq="17D")[RNG.permutation(N)]
    values = days.strftime(form).astype(float).to_numpy().copy()
    values[::9] = np.nan
    found = clean({name: values, "x": RNG.standard_normal(N)})
    assert found.encoder.parts[0].kind == ("date" if is_date else "number")
    if is_date:
        assert found.notes[0] == f"Taken for dates, as days since the first: {name}."
        is_known = np.isfinite(values)
        since = (days - days[is_known].min()).days[is_known]
        np.testing.assert_array_equal(found.X[:, 0], since)
        again = found.encoder.transform({name: values, "x": values})
        np.testing.assert_array_equal(again[is_known, 0], since)


def test_years_of_two_digits_are_not_in_the_future():
    days = pd.date_range("1958-02-03", periods=40, freq="37D")
    for form in ("%d/%m/%y", "%d.%m.%y", "%m/%d/%y"):
        np.testing.assert_array_equal(dates_of(text(days.strftime(form))), days.to_numpy())


def test_levels_of_a_category():
    values = text(["a"] * 30 + ["b"] * 20 + ["c"] * 2 + ["d"] * 4 + [None] * 10)
    parts = category_parts("k", values)
    assert [part.level for part in parts] == ["a", "b", "missing", "other"]
    assert [part.name for part in parts][:1] == ["k=a"]
    (single,) = category_parts("k", text(["a", "b"] * 20))
    assert (single.level, single.levels) == ("b", ("a", "b"))
    assert category_parts("k", text(map(str, range(40)))) == []
    assert category_parts("k", text("a" * 40)) == []


def test_encoded_rows(table):
    found = clean({name: _values(table[name]) for name in table})
    days = (table["born"] - table["born"].min()).dt.days
    expected = np.column_stack(
        [
            table["height"],
            table["children"],
            *(table["city"] == city for city in ("Bern", "Köln", "Wien")),
            table["smokes"] == "yes",
            days,
        ]
    )
    np.testing.assert_allclose(found.X, expected)
    assert found.encoder.names == [
        *("height", "children", "city=Bern", "city=Köln", "city=Wien", "smokes=yes", "born"),
    ]
    np.testing.assert_allclose(found.encoder.transform(table), found.X)


def _values(series):
    return series.to_numpy() if series.dtype.kind in "biuf" else series.to_numpy(dtype=object)


def test_there_and_back(table):
    data = table_of(table)
    encoder = data.encoder.with_steps([0, 1, 1, 1, 1, 1, 1], data.X)
    # Values are spread over the step above them.
    spread = data.X + np.array([0, 1, 1, 1, 1, 1, 1]) * RNG.random_sample(data.X.shape)
    spread[:, 2:5] = data.X[:, 2:5]
    back = pd.DataFrame(encoder.inverse_transform(spread))
    assert list(back) == list(table)
    np.testing.assert_allclose(back["height"], table["height"])
    assert back["children"].tolist() == table["children"].tolist()
    assert back["city"].tolist() == table["city"].tolist()
    assert back["smokes"].tolist() == table["smokes"].tolist()
    assert back["born"].tolist() == table["born"].dt.strftime("%Y-%m-%d").tolist()


@pytest.mark.parametrize(
    "values",
    [
        [61.7, 62.2, 62.7, 64.2],
        [1.076, 1.096, 1.136, 1.183, 1.24],
        np.float32([0.1, 0.3, 0.7]),
        np.r_[np.linspace(0, 1, 40) ** 2, 17].round(4),
        pd.to_datetime(["2000-01-01", "2001-01-01", "2002-01-01"]).to_numpy(),
        pd.to_datetime(["2000-01-01 06:00", "2001-01-01 18:00"]).to_numpy(),
    ],
)
def test_values_come_back_from_within_their_steps(values):
    values = np.resize(np.asarray(values), 80)
    data = table_of(pd.DataFrame({"a": values, "b": RNG.standard_normal(80)}))
    step = np.diff(np.unique(data.X[:, 0])).min()
    encoder = data.encoder.with_steps([step, 0], data.X)
    spread = data.X + [0.999 * step, 0] * RNG.random_sample(data.X.shape)
    back = encoder.inverse_transform(spread)["a"]
    if values.dtype.kind == "M":
        np.testing.assert_array_equal(np.array(back, dtype="datetime64[s]"), values)
    else:
        np.testing.assert_allclose(back, values, rtol=1e-6)


def test_between_few_values_there_is_none():
    X = np.column_stack([np.resize([4.0, 6.0, 8.0], N), np.arange(N)])
    parts = [Part(name, "number", digits=0) for name in ("x0", "x1")]
    encoder = Encoder(parts).with_steps([1, 1], X)
    back = encoder.inverse_transform(np.column_stack([[3, 4.9, 5.4, 5.7, 7.6, 9.5]] * 2))
    assert back["x0"] == [4, 4, 4, 6, 8, 8]
    assert back["x1"] == [3, 4, 5, 5, 7, 9]


def test_new_tables_are_encoded_as_the_first(table):
    encoder = table_of(table).encoder
    new = table.head(3).assign(city=["Wien", "Paris", None], extra=1)
    X = encoder.transform(new)
    np.testing.assert_array_equal(X[:, 2:5], [[0, 0, 1], [0, 0, 0], [0, 0, 0]])
    with pytest.raises(ValueError, match="The table lacks columns: city, born"):
        encoder.transform(table.drop(columns=["city", "born"]))
    with pytest.raises(ValueError, match="'height' holds no numbers"):
        encoder.transform(table.assign(height="tall"))
    with pytest.raises(ValueError, match="'born' holds no dates"):
        encoder.transform(table.assign(born="once"))


def test_numbers_have_the_digits_of_the_column():
    encoder = Encoder([Part("a", "number", digits=2), Part("b", "number", digits=0)])
    table = encoder.inverse_transform(np.array([[1.23456, 7.6]]))
    assert table == {"a": [1.23], "b": [8]}


# ------------------------------------------------------------------ decisions


def test_wanted_columns_are_kept():
    x = RNG.standard_normal(N)
    columns = {"id": np.arange(N), "copy": np.arange(N) * 2.0, "x": x, "y": 3 - x}
    left_out = clean(columns)
    assert left_out.encoder.names == ["x"]
    kept = clean(columns, wanted=["id", "copy", "x", "y"])
    assert kept.encoder.names == ["id", "copy", "x", "y"]


def test_a_shuffled_id_and_its_copy():
    ids = RNG.permutation(N) + 100
    columns = {"x": RNG.standard_normal(N), "ID": ids, "ID2": ids, "code": ids * 7, "size": ids * 7}
    found = clean(columns)
    assert found.encoder.names == ["x", "size"]
    assert found.notes == [
        "Left out, whole numbers that are different in every row, as ids and ranks are: "
        "ID, ID2, code."
    ]


def test_ids_with_holes_or_of_several_rows():
    ids = RNG.permutation(N) + 100.0
    columns = {
        "x": RNG.standard_normal(N),
        "key": np.where(np.arange(N) % 9, ids, np.nan),
        "personId": np.arange(N) // 2 * 17 % 1000,
        "household": np.arange(N) // 2 * 17 % 1000,
        "arm_id": np.arange(N) // 2 % 3,
    }
    found = clean(columns)
    assert found.encoder.names == ["x", "household", "arm_id"]
    assert len(found.X) == N
    assert found.notes == [
        "Left out, whole numbers that are different in every row, as ids and ranks are: key.",
        "Left out, ids: personId.",
    ]


@pytest.mark.parametrize(
    ("name", "is_id"),
    [("PID", True), ("seqno", True), ("Case No", True), ("BID", False), ("NO", False)],
)
def test_names_of_ids(name, is_id):
    found = clean({name: RNG.permutation(N) * 3, "x": RNG.standard_normal(N)})
    assert (name not in found.encoder.names) == is_id


def test_numbers_of_rows_that_begin_anew():
    counts = np.concatenate([1 + np.arange(N // 3), 1 + np.arange(N - N // 3)])
    columns = {"index": counts, "visit": counts, "price_index": RNG.permutation(counts)}
    found = clean({"x": RNG.standard_normal(N), **columns})
    assert found.encoder.names == ["x", "visit", "price_index"]
    assert found.notes == ["Left out, numbers of rows that begin anew in each group: index."]


@pytest.mark.parametrize(
    ("name", "values", "is_left_out"),
    [
        ("year", 1900 + 10 * np.arange(N), True),
        ("n", -np.arange(N), True),
        ("time", (1949 + np.arange(N) / 12).round(3), True),
        ("dose", np.arange(N) / 8, False),
        ("time", np.repeat(np.arange(N // 2), 2), False),
        ("time", np.append(np.arange(N - 1) / 8, np.nan), False),
    ],
)
def test_regular_times_number_the_rows(name, values, is_left_out):
    found = clean({name: values, "x": RNG.standard_normal(N)})
    assert (name not in found.encoder.names) == is_left_out
    said = f"Left out, numbers that go by the same step from row to row: {name}."
    assert (said in found.notes) == is_left_out


def test_columns_in_other_units_are_copies():
    x, y, wage = RNG.standard_normal((3, N))
    wage = 100 + 50 * (wage - wage.min()).round(2)
    found = clean(
        {
            **{"celsius": x, "y": y, "fahrenheit": 32 + 1.8 * x, "minus": -y},
            **{"near": x + 1e-3 * y, "exp": np.exp(x), "square": x**2},
            **{"wage": wage, "lwage": np.log(wage).round(5)},
        }
    )
    assert found.encoder.names == ["celsius", "y", "near", "square", "wage"]
    assert found.notes == [
        "Left out, the same as another column, or in other units: fahrenheit (as celsius), "
        "minus (as y), exp (as celsius), lwage (as wage)."
    ]


def test_a_copy_with_holes_costs_no_rows():
    x, y = RNG.standard_normal((2, N))
    holes = np.arange(N) % 3 == 0
    found = clean({"part": np.where(holes, np.nan, 2 * x), "x": x, "y": np.where(holes, y, x)})
    np.testing.assert_array_equal(found.X, np.column_stack([x, np.where(holes, y, x)]))
    assert found.notes == ["Left out, the same as another column, or in other units: part (as x)."]


def test_a_category_is_a_copy_if_all_its_values_are():
    colours = np.array(["blue", "green", "red"])[np.arange(N) % 3]
    codes = np.array(["b", "g", "r"])[np.arange(N) % 3]
    # As a colour, with another order of the other two in half of the rows.
    partly = np.array(["b", "g", "r"])[np.where(RNG.rand(N) < 0.5, np.arange(N), -np.arange(N)) % 3]
    table = {"x": RNG.standard_normal(N)}
    table |= {"colour": text(colours), "code": text(codes), "partly": text(partly)}
    found = clean(table)
    assert found.encoder.columns == ["x", "colour", "partly"]
    assert found.notes[-1] == (
        "Left out, the same as another column, or in other units: code (as colour)."
    )
    back = found.encoder.inverse_transform(found.X)
    assert back["colour"] == colours.tolist()
    assert back["partly"] == partly.tolist()


def test_values_of_categories_that_only_rows_with_holes_have():
    kinds = np.array(["bus", "car", "truck", "van"])[np.arange(N) % 4]
    uses = np.array(["a", "b", "c"])[np.arange(N) % 3]
    size = np.where(kinds >= "truck", np.nan, RNG.standard_normal(N))
    size[uses == "c"] = np.nan
    table = {"kind": text(kinds), "use": text(uses), "size": size, "x": RNG.standard_normal(N)}
    found = clean(table, wanted=["size"])
    is_complete = np.isfinite(size)
    assert found.encoder.names == ["kind=car", "use=b", "size", "x"]
    assert found.notes[-1] == (
        "Values that none of the complete rows has: kind=truck, kind=van, use=c."
    )
    back = found.encoder.inverse_transform(found.X)
    assert back["kind"] == kinds[is_complete].tolist()
    assert back["use"] == uses[is_complete].tolist()


def test_holes_are_filled_from_similar_rows():
    n = 200
    group = np.arange(n) % 2
    x = 10.0 * group + 0.1 * RNG.standard_normal(n)
    y = np.where(group == 1, 5.0, -5.0) + 0.1 * RNG.standard_normal(n)
    z = RNG.standard_normal(n)
    holes = y.copy()
    holes[::7] = np.nan
    found = clean({"x": x, "y": holes, "z": np.where(np.arange(n) % 11, z, np.nan)}, impute=True)
    assert len(found.X) == n
    np.testing.assert_array_equal(found.X[:, 0], x)
    is_known = ~np.isnan(holes)
    np.testing.assert_array_equal(found.X[is_known, 1], holes[is_known])
    # Each hole gets a value that a row of its group has.
    filled = found.X[~is_known, 1]
    assert np.isin(filled, holes[is_known]).all()
    np.testing.assert_allclose(filled, np.where(group[~is_known], 5, -5), atol=0.5)
    assert found.notes == [
        "Filled in 45 of 200 rows, from the most similar rows: missing values in y, z."
    ]


# ------------------------------------------------------------------ files


def test_the_word_none_is_an_answer_among_text(tmp_path):
    path, x = tmp_path / "t.csv", RNG.standard_normal((2, N)).round(2)
    bags = np.array(["None", "front", ""])[np.arange(N) % 3]
    paid = [f"{value:.2f}" if value > -1 else "None" for value in x[1]]
    lines = [f"{a};{b:.2f};{c}" for a, b, c in zip(bags, x[0], paid, strict=True)]
    path.write_text("\n".join(["bags;x;paid", *lines]).replace(".", ","))
    data = load(str(path))
    assert data.encoder.names == ["bags=None", "bags=front", "bags=missing", "x", "paid"]
    np.testing.assert_array_equal(data.X[:, 0], bags[x[1] > -1] == "None")
    np.testing.assert_array_equal(data.X[:, 4], x[1][x[1] > -1])


@pytest.mark.parametrize("form", ["records", "lines", "columns"])
def test_json(table, tmp_path, form):
    path, plain = tmp_path / "t.json", table.drop(columns="born")
    if form == "records":
        nested = plain.assign(list=[[1, 2]] * N)
        path.write_text(json.dumps(nested.to_dict("records")), encoding="utf-8")
    elif form == "lines":
        plain.to_json(path, orient="records", lines=True)
    else:
        path.write_text(json.dumps(plain.to_dict("list")), encoding="utf-8")
    data = load(str(path))
    np.testing.assert_allclose(data.X, table_of(plain).X)
    assert data.notes[0].startswith("Read t.json: JSON, ")


@pytest.mark.parametrize("content", ["{", "[1, 2]", '{"a": 1}', "[]", '{"a": [1], "b": [1, 2]}'])
def test_json_that_is_no_table(tmp_path, content):
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(ValueError, match=r"t\.json"):
        load(str(tmp_path / "t.json"))


def test_excel_and_feather(table, tmp_path, monkeypatch):
    # The engines that pandas reads these with are not among the packages that tests need.
    for name, function in (("t.xlsx", "read_excel"), ("t.feather", "read_feather")):
        path = tmp_path / name
        path.touch()
        monkeypatch.setattr(pd, function, {path: table}.__getitem__)
        data = load(str(path), target="city")
        np.testing.assert_allclose(data.X, table_of(table.drop(columns="city")).X)
        np.testing.assert_array_equal(data.y, table["city"])

    def no_engine(path):
        raise ImportError("Missing optional dependency")

    monkeypatch.setattr(pd, "read_excel", no_engine)
    with pytest.raises(ImportError, match="pip install openpyxl"):
        load(str(tmp_path / "t.xlsx"))


def test_options_override_what_is_recognised(tmp_path):
    rows = "\n".join(f"{i};{i * i % 17},5;ä{i % 3}" for i in range(30))
    (tmp_path / "t.csv").write_bytes(("n;x;k\n" + rows).encode("cp437"))
    data = load(str(tmp_path / "t.csv"), encoding="cp437", columns=["x", "k"])
    assert data.encoder.names == ["x", "k=ä0", "k=ä1", "k=ä2"]
    (tmp_path / "odd.csv").write_text("a#b\n" + "\n".join(f"{i % 7}.5#{i % 5}" for i in range(30)))
    data = load(str(tmp_path / "odd.csv"), sep="#")
    np.testing.assert_allclose(data.X[:2], [[0.5, 0], [1.5, 1]])
    (tmp_path / "tab.txt").write_text("a\tb\n" + "\n".join(f"{i % 7}\t{i % 5}" for i in range(30)))
    assert load(str(tmp_path / "tab.txt"), sep="tab").X.shape == (30, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoding": "klingon"}, "There is no encoding 'klingon'"),
        ({"encoding": "ascii"}, "cannot be read as text in the encoding 'ascii'"),
        ({"sep": "ab"}, "A separator is one character"),
        ({"columns": ["z"]}, "There is no column 'z'"),
    ],
)
def test_options_that_are_wrong(tmp_path, options, message):
    (tmp_path / "t.csv").write_text("ä,b\n" + "1.5,2\n" * 20, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load(str(tmp_path / "t.csv"), **options)
    np.save(tmp_path / "t.npy", np.eye(12))
    with pytest.raises(ValueError, match=r"for text, not for t\.npy|no column"):
        load(str(tmp_path / "t.npy"), **options)


def test_tables_from_python(table):
    named = table.set_index(pd.Index([f"person {i}" for i in range(N)]))
    data = table_of(named, named["city"], "people")
    assert data.row_name(3) == "person 3 (row 4)"
    assert data.y_name == "city"
    np.testing.assert_array_equal(data.y, table["city"])
    plain = table_of(table[["height", "children"]].to_numpy())
    assert plain.encoder.names == ["x0", "x1"]
    assert plain.row_name(0) == "row 1"
    with pytest.raises(ValueError, match="Expected 2D array, got array of shape"):
        table_of(np.zeros(20))
    with pytest.raises(ValueError, match="X has 60 rows, and y has 3"):
        table_of(table, [1, 2, 3])
