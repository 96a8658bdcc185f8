"""Command line of the comparison report: `python -m skmanifoldflow --help`."""

import argparse
import os
import sys
import warnings
from pathlib import Path

import numpy as np
from scipy.sparse import SparseEfficiencyWarning
from threadpoolctl import threadpool_limits

from ._report.data import BUILT_IN, load
from ._report.picture import report_figure
from .compare import ESTIMATORS, Comparison, compare
from .plotting import check_matplotlib

_LEGEND = """\
nats/row     mean log-density of the test rows, in the units of the rows; higher is better
rec. error   mean squared error of reconstruction in standardised columns; lower is better
trustworthy  trustworthiness of the embedded test rows (up to 10 neighbours); higher is better
5-NN acc.    accuracy of a classifier by the 5 nearest embedded training rows; higher is better
dim. found   intrinsic dimension of the training rows, the same whichever flow is asked"""

_EXAMPLE = """\
example:
  python -m skmanifoldflow wine.csv --target quality --drop id --output wine-report

A file holds a table: a row for each line, numbers in its columns, and perhaps a column of labels
that --target names. Separator, header, decimal mark and encoding of text are recognised, also
compressed (.csv.gz). Columns that hold no numbers, and rows with missing values, are left out, and
the report says which. With all estimators it takes less than a minute for 200 rows, some minutes
for 2000, and up to an hour for 200 000: --max-rows and --estimators make it shorter. Ctrl-C keeps
the rows of the table that are done, in results.csv.
"""

# Bytes of a file that takes some time to be read.
_LARGE_FILE = 10_000_000


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m skmanifoldflow",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_EXAMPLE,
        description="Compare the flows with scikit-learn's own models on one data set: print a "
        "table, write it as results.csv,\nand draw embeddings and samples in report.png.",
    )
    parser.add_argument(
        "data",
        nargs="?",
        default="digits",
        help=f"one of {', '.join(BUILT_IN)}, or a path to a file: .csv, .tsv, .txt, .dat, .data, "
        "each also compressed, .npy or .parquet (default: digits)",
    )
    parser.add_argument(
        "--estimators",
        nargs="+",
        choices=list(ESTIMATORS),
        metavar="NAME",
        help=f"which to compare, of {', '.join(ESTIMATORS)} (default: all)",
    )
    parser.add_argument(
        "--n-components",
        type=int,
        metavar="D",
        help="dimension of the embeddings (default: 10 for digits, 1 for sin_curve, else 2, or 1 "
        "where there are not more than two columns)",
    )
    parser.add_argument(
        "--target", metavar="COLUMN", help="column of a file that holds labels (npy: its number)"
    )
    parser.add_argument(
        "--drop",
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="columns of a file that are left out",
    )
    parser.add_argument(
        "--max-rows",
        type=int,
        metavar="N",
        help="use N rows, drawn at random, where there are more",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("skmanifoldflow-report"),
        metavar="DIR",
        help="folder of the report (default: skmanifoldflow-report)",
    )
    parser.add_argument("--random-state", type=int, default=0, metavar="SEED", help="default: 0")
    return parser


def main(argv=None):
    """Run the command line and return its exit status.

    Parameters
    ----------
    argv : list of str, default=None
        Arguments; None takes those of the process.

    Returns
    -------
    status : int
        0 if an estimator worked; 1 if none did, or if the picture could not be drawn because
        matplotlib is missing; 130 after Ctrl-C.

    Raises
    ------
    SystemExit
        With status 2 and a message if the arguments or the data cannot be used.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        return _report(parser, args)
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130


def _report(parser, args):
    """Read, compare and draw; return the exit status."""
    table, picture = args.output / "results.csv", args.output / "report.png"
    try:
        _announce(args.data)
        data = load(args.data, args.target, args.random_state, args.drop, args.max_rows)
        args.output.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError, ImportError) as error:
        parser.exit(2, f"Error: {error}\n")
    _print_head(data, args.random_state)

    comparison: Comparison | None = None
    is_interrupted = False

    def keep(so_far):
        nonlocal comparison
        if comparison is None:
            # The one of an earlier report has no place beside this table.
            picture.unlink(missing_ok=True)
        comparison = so_far
        comparison.to_csv(table)

    # Seconds compare on one thread, and a second one mostly waits where other processes run.
    with threadpool_limits(1), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        # From inside Isomap, where the neighbourhood graph falls apart; another warning says so.
        warnings.simplefilter("ignore", SparseEfficiencyWarning)
        try:
            compare(
                data.X,
                data.y,
                estimators=args.estimators,
                n_components=data.n_components if args.n_components is None else args.n_components,
                value_step=data.value_step,
                random_state=args.random_state,
                verbose=1,
                callback=keep,
            )
        except (ValueError, OSError) as error:
            parser.exit(2, f"\nError: {error}\n")
        except KeyboardInterrupt:
            if comparison is None:
                raise
            is_interrupted = True
            comparison.to_csv(table)
            print()
    # The callback gets the comparison before the first fit.
    assert comparison is not None
    _print_results(comparison, data, caught)
    print(f"\nTable:   {table}", flush=True)
    if is_interrupted:
        n_all = len(args.estimators or ESTIMATORS)
        print(f"Interrupted: {len(comparison.results)} of {n_all} estimators are in the table.")
        return 130
    if not comparison.models:
        print("No picture: every estimator failed.", file=sys.stderr)
        return 1
    try:
        check_matplotlib("Drawing the picture")
    except ImportError as error:
        print(f"No picture: {error}", file=sys.stderr)
        return 1
    print("Picture: ", end="", flush=True)
    report_figure(comparison, data.image_shape, data.y_name, args.random_state).savefig(picture)
    print(picture)
    return 0


def _announce(source):
    """Say that a large file is read, which takes a while."""
    if source not in BUILT_IN and os.path.isfile(source):
        size = os.path.getsize(source)
        if size > _LARGE_FILE:
            print(f"Reading {source} ({size / 1e6:.0f} MB) ...", flush=True)


def _print_head(data, seed):
    for note in data.notes:
        print(note)
    n_rows, n_columns = data.X.shape
    columns = "1 column" if n_columns == 1 else f"{n_columns} columns"
    print(f"{data.name}: {n_rows} rows, {columns}. {data.units}".rstrip())
    print(
        f"A fifth of the rows, at least 4, are test rows (random state {seed}); a StandardScaler "
        "comes before every estimator.",
        flush=True,
    )


def _print_results(comparison, data, caught):
    n_spread = np.count_nonzero(comparison.value_step)
    print()
    if n_spread and data.value_step == "auto":
        print(
            f"{n_spread} of {len(comparison.value_step)} columns hold integers or many ties: each "
            "value was spread uniformly over its step.\n"
        )
    print(comparison.table())
    if data.log_density is not None:
        exact = data.log_density(comparison.X_test).mean()
        print(f"\nThe distribution that the rows were drawn from has {exact:.2f} nats/row.")
    print(f"\n{_LEGEND}")
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        print(f"\nWarning: {message}")


if __name__ == "__main__":
    sys.exit(main())
