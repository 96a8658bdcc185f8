"""Command line of the report: `skmanifoldflow --help`, or `python -m skmanifoldflow --help`."""

import sys


def main(argv=None):
    """Run the command line and return its exit status.

    Parameters
    ----------
    argv : list of str, default=None
        Arguments; None takes those of the process.

    Returns
    -------
    status : int
        0 if all answers were found and written; 1 if every estimator failed, if a file could not be
        written or if a package for the picture or the page is missing; 130 after Ctrl-C.

    Raises
    ------
    SystemExit
        With status 2 and a message if the arguments or the data cannot be used.
    """
    try:
        # Ctrl-C may come before all is imported.
        from ._report.command_line import answer

        return answer(argv)
    except KeyboardInterrupt:
        print("\nInterrupted: nothing was done yet.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
