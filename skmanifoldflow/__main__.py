"""Command line of the report: `skmanifoldflow --help`, or `python -m skmanifoldflow --help`."""

import os
import signal
import sys
from contextlib import contextmanager

_NOTHING_DONE = "\nInterrupted: nothing was done yet."


@contextmanager
def _ended_at_once():
    """End the process at Ctrl-C: an import that it interrupts may fail in any way."""

    def end(signum, frame):
        sys.stdout.flush()
        print(_NOTHING_DONE, file=sys.stderr, flush=True)
        os._exit(130)

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


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
        with _ended_at_once():
            from ._report.command_line import answer, begin

            task = begin(argv)
        return answer(*task)
    except KeyboardInterrupt:
        print(_NOTHING_DONE, file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
