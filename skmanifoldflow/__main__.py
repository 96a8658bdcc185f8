"""Command line of the comparison report: `python -m skmanifoldflow --help`."""

import argparse
import sys
import warnings
from pathlib import Path

import numpy as np
from scipy.sparse import SparseEfficiencyWarning
from threadpoolctl import threadpool_limits

from ._report_data import BUILT_IN, load
from ._report_picture import draw
from .compare import ESTIMATORS, compare
from .plotting import check_matplotlib

_LEGEND = """\
nats/row     mean log-density of the test rows, in the units of the rows; higher is better
rec. error   mean squared error of reconstruction in standardised columns; lower is better
trustworthy  trustworthiness of the embedded test rows (10 neighbours); higher is better
5-NN acc.    accuracy of a classifier by the 5 nearest embedded training rows; higher is better
dim. found   dimension of the data that the estimator found, whatever dimension it was used with"""


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m skmanifoldflow",
        description="Compare the flows with scikit-learn's own models on one data set: print a "
        "table, write it as results.csv, and draw embeddings and samples in report.png.",
    )
    parser.add_argument(
        "data",
        nargs="?",
        default="digits",
        help=f"one of {', '.join(BUILT_IN)}, or a path to a .csv, .npy or .parquet file "
        "(default: digits)",
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
        help="dimension of the embeddings (default: 10 for digits, 1 for sin_curve, else 2)",
    )
    parser.add_argument(
        "--target", metavar="COLUMN", help="column of a file that holds labels (npy: its number)"
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
        0, or 1 if the picture could not be drawn because matplotlib is missing.

    Raises
    ------
    SystemExit
        With status 2 and a message if the arguments or the data cannot be used.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        data = load(args.data, args.target, args.random_state)
        args.output.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError, ImportError) as error:
        parser.exit(2, f"Error: {error}\n")
    n_components = data.n_components if args.n_components is None else args.n_components
    _print_head(data, args.random_state)
    # Seconds compare on one thread, and a second one mostly waits where other processes run.
    with threadpool_limits(1), warnings.catch_warnings(record=True) as caught:
        # From inside Isomap, where the neighbourhood graph falls apart; another warning says so.
        warnings.simplefilter("ignore", SparseEfficiencyWarning)
        try:
            comparison = compare(
                data.X,
                data.y,
                estimators=args.estimators,
                n_components=n_components,
                value_step=data.value_step,
                random_state=args.random_state,
                verbose=1,
            )
        except ValueError as error:
            parser.exit(2, f"\nError: {error}\n")
    _print_results(comparison, data, caught)
    comparison.to_csv(args.output / "results.csv")
    print(f"\nTable:   {args.output / 'results.csv'}", flush=True)
    try:
        check_matplotlib("Drawing the picture")
    except ImportError as error:
        print(f"No picture: {error}", file=sys.stderr)
        return 1
    figure = draw(comparison, data.image_shape, data.y_name, args.random_state)
    figure.savefig(args.output / "report.png")
    print(f"Picture: {args.output / 'report.png'}")
    return 0


def _print_head(data, seed):
    n_rows, n_columns = data.X.shape
    print(f"{data.name}: {n_rows} rows, {n_columns} columns. {data.units}".rstrip())
    print(
        f"A fifth of the rows are test rows (random state {seed}); a StandardScaler comes before "
        "every estimator.",
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
        print(f"\nThe law that the rows were drawn from has {exact:.2f} nats/row.")
    print(f"\n{_LEGEND}")
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        print(f"\nWarning: {message}")


if __name__ == "__main__":
    sys.exit(main())
