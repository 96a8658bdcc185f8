"""Command line of the report: its options, and what it prints."""

import argparse
import re
import sys
import time
from importlib import import_module
from pathlib import Path

from .._version import __version__
from .names import BUILT_IN, ESTIMATORS, FILES

# Torch, scikit-learn and all that imports them are imported when there is something to do: the help
# and a mistake on the command line are answered at once.

_LEGEND = """\
nats/row     mean log-density of the test rows, in the units of the rows; higher is better
rec. error   mean squared error of reconstruction in standardised columns; lower is better
trustworthy  trustworthiness of the embedded test rows (up to 10 neighbours); higher is better
5-NN acc.    accuracy of a classifier by the 5 nearest embedded training rows; higher is better"""

_DESCRIPTION = """\
Tell what is in a table: how many things vary in it, which density fits it best, which rows are
strange and why, which groups there are, and whether new rows look real. Six answers are printed as
they are found, and written with a page, pictures and the fitted models to a folder."""

_EPILOG = """\
examples:
  skmanifoldflow table.csv
  skmanifoldflow wine.csv --target quality --drop id --output wine-report
  skmanifoldflow sales.xlsx --columns price area age --impute --budget 10min

A file holds a table: a row for each line, numbers, dates or words in its columns. Separator,
header, decimal mark and encoding of text are recognised, also compressed (.csv.gz). Words of few
values are taken for categories, dates for days. Names and numbers of the rows, other words, and
rows with missing cells are left out; each decision is a line of the report that names the columns.

It takes three minutes at most on two idle cores, or --budget; small tables take less. Of large
tables the models see as many rows as there is time for. Ctrl-C keeps what is done.

files in the folder:
  report.html    all answers, with a map of the rows to point at; needs no network
  results.csv    figures of the estimators that were compared
  rows.csv       of each row: log-density, place on the map, island
  new_rows.csv   new rows, like those of the table
  report.png     embeddings and samples of the estimators
  model.joblib   the fitted models, for joblib.load
"""

# Bytes of a file that takes some time to be read.
_LARGE_FILE = 10_000_000
_UNITS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600}


def _seconds(text):
    """Return the seconds that a text such as 3min means."""
    match = re.fullmatch(r"(\d+(?:\.\d*)?) ?(s|sec|m|min|h)?", text.strip())
    seconds = float(match[1]) * _UNITS[match[2] or "s"] if match else 0.0
    if seconds < 1:
        raise argparse.ArgumentTypeError(
            f"expected a time of at least a second, such as 90s, 3min or 1h, got {text!r}"
        )
    return seconds


def _parser():
    parser = argparse.ArgumentParser(
        prog="skmanifoldflow",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument(
        "data",
        nargs="?",
        default="digits",
        help=f"one of {', '.join(BUILT_IN)}, or a path to a file that ends in {', '.join(FILES)} "
        "(default: digits)",
    )
    parser.add_argument(
        "--budget",
        type=_seconds,
        default=180.0,
        metavar="TIME",
        help="time for the whole report, such as 90s, 10min or 1h (default: 3min)",
    )
    table = parser.add_argument_group("what of a file is used")
    table.add_argument(
        "--target",
        metavar="COLUMN",
        help="column of labels, which no model sees (npy: its number)",
    )
    table.add_argument(
        "--drop", nargs="+", default=[], metavar="COLUMN", help="columns that are left out"
    )
    table.add_argument(
        "--columns",
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="the only columns that are used, also where they look like numbers of the rows",
    )
    table.add_argument(
        "--impute",
        action="store_true",
        help="fill missing cells from the most similar rows, in place of leaving rows out",
    )
    table.add_argument(
        "--max-rows",
        type=int,
        metavar="N",
        help="use N rows, drawn at random, where there are more",
    )
    table.add_argument(
        "--sep", metavar="CHARACTER", help="separator of columns, 'tab' and 'space' by name"
    )
    table.add_argument("--encoding", metavar="NAME", help="encoding of text, such as utf-8")
    models = parser.add_argument_group("models")
    models.add_argument(
        "--estimators",
        nargs="+",
        choices=ESTIMATORS,
        metavar="NAME",
        help=f"which to compare, of {', '.join(ESTIMATORS)} (default: all)",
    )
    models.add_argument(
        "--n-components",
        type=int,
        metavar="D",
        help="dimension of their embeddings (default: 10 for digits, 1 for sin_curve, else 2, or 1 "
        "where there are not more than two columns)",
    )
    models.add_argument("--random-state", type=int, default=0, metavar="SEED", help="default: 0")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("skmanifoldflow-report"),
        metavar="DIR",
        help="folder of the report (default: skmanifoldflow-report)",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def begin(argv=None):
    """Read the arguments, say what is done, and import what it takes; return all of `answer`."""
    began = time.monotonic()
    parser = _parser()
    args = parser.parse_args(argv)
    minutes = f"{args.budget / 60:.3g} min" if args.budget >= 60 else f"{args.budget:.3g} s"
    print(f"Report on {args.data}, within {minutes}; Ctrl-C ends it and keeps what is done.")
    _announce(args.data)
    sys.stdout.flush()
    for module in (".data", ".run"):
        import_module(module, __package__)
    return parser, args, began


def answer(parser, args, began):
    """Answer and write what the arguments ask for; return the exit status."""
    from .data import load
    from .files import Files, to_stderr
    from .run import run, told

    files = Files(args.output, to_stderr)
    try:
        data = load(
            args.data,
            args.target,
            args.random_state,
            args.drop,
            args.max_rows,
            columns=args.columns,
            impute=args.impute,
            sep=args.sep,
            encoding=args.encoding,
        )
        files.make_folder()
    except (ValueError, OSError, ImportError) as error:
        parser.exit(2, f"Error: {error}\n")
    except MemoryError:
        parser.exit(2, f"Error: {args.data} does not fit into memory.\n")
    try:
        report = run(
            data,
            files=files,
            say=lambda text: print(text, flush=True),
            budget=args.budget,
            began=began,
            estimators=args.estimators,
            n_components=args.n_components,
            max_rows=args.max_rows,
            seed=args.random_state,
        )
    except (ValueError, OSError) as error:
        parser.exit(2, f"\nError: {error}\n")
    print(f"\n{_LEGEND}")
    for message in told(report.warnings):
        print(f"\nWarning: {message}")
    sys.stdout.flush()
    return _finish(report, files, args)


def _finish(report, files, args):
    """Draw the picture and the page; return the exit status."""
    from .files import write_pictures

    status = 0 if report.is_complete else 130
    try:
        messages = write_pictures(report, files, args.random_state)
        for message in messages:
            print(message, file=sys.stderr)
        status = status or int(bool(messages))
    except KeyboardInterrupt:
        status = 130
    if files.written:
        print(f"\nWritten to {args.output}: {', '.join(files.written)}.")
    if status == 130:
        done = (
            "all answers are" if report.is_complete else f"{len(report.answers)} of 6 answers are"
        )
        print(f"Interrupted: {done} there.", flush=True)
    return status or int(files.has_failed)


def _announce(source):
    """Say that a large file is read, which takes a while."""
    path = Path(source)
    if source not in BUILT_IN and path.is_file():
        size = path.stat().st_size
        if size > _LARGE_FILE:
            print(f"Reading {source} ({size / 1e6:.0f} MB) ...")
