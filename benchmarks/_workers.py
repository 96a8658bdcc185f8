"""Versions of the package side by side, each in a process of its own that imports its tree."""

import argparse
import ast
import hashlib
import json
import os
import signal
import subprocess
import sys
import traceback
import warnings
from pathlib import Path

VERSIONS = ("before", "after")


def serve(tasks):
    """Answer requests, a line of JSON each, until there are no more: what a worker does.

    A script does so where its arguments are ``--worker``.
    """
    replies = os.fdopen(os.dup(1), "w")
    # Whatever else prints must not come between the replies.
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    warnings.simplefilter("ignore")
    import torch

    import skmanifoldflow

    torch.set_num_threads(1)
    tasks = {"where": lambda: skmanifoldflow.__file__} | tasks
    for line in sys.stdin:
        task, *arguments = json.loads(line)
        try:
            reply = {"result": tasks[task](*arguments)}
        except Exception:
            reply = {"error": traceback.format_exc()}
        print(json.dumps(reply), file=replies, flush=True)


class WorkerError(Exception):
    """A task that failed in a worker."""


class Worker:
    """A process of the script that runs, with the package of one source tree."""

    def __init__(self, tree):
        environment = os.environ | {
            "PYTHONPATH": str(tree),
            "PYTHONWARNINGS": "ignore",
            "OMP_NUM_THREADS": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, sys.argv[0], "--worker"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        where = Path(self.ask("where"))
        if not where.is_relative_to(tree):
            raise SystemExit(f"{tree} has no package: {where} was imported.")

    def ask(self, *request):
        """Have a task done and return its result."""
        print(json.dumps(request), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"A worker ended with status {self.process.wait()}.")
        reply = json.loads(line)
        if "error" in reply:
            raise WorkerError(reply["error"])
        return reply["result"]

    def end(self):
        """Let the process end after what it does."""
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


def progress(text):
    """Show on a terminal what is going on."""
    if sys.stderr.isatty():
        print(f"\r{text:60}", end="", file=sys.stderr, flush=True)


def fingerprint(tree):
    """Return a digest of the sources of the package."""
    digest = hashlib.sha256()
    for path in sorted((tree / "skmanifoldflow").rglob("*.py")):
        digest.update(f"{path.relative_to(tree)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def folder(text):
    """Return the root of a source tree."""
    tree = Path(text).resolve()
    if not (tree / "skmanifoldflow").is_dir():
        raise argparse.ArgumentTypeError(f"{tree} has no folder skmanifoldflow")
    return tree


def add_versions(command, required=True):
    """Add the options that name both trees to a command."""
    command.add_argument("--before", type=folder, required=required, help="root of a checkout")
    command.add_argument(
        "--after",
        type=folder,
        default=Path(__file__).resolve().parents[1],
        help="root of the other, by default that of this script",
    )


def name_and_value(text):
    """The parameter of ``--set name=value``."""
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def add_set(command, whose):
    """Add the option ``--set`` for parameters of an estimator."""
    command.add_argument(
        "--set",
        type=name_and_value,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"a parameter of {whose}, again and again",
    )
