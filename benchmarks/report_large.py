"""The report on a large file: does it end, what does it take, and what does Ctrl-C leave?

    python benchmarks/report_large.py                   # 300 000 rows: an hour
    python benchmarks/report_large.py --rows 5000       # some minutes

The file is one of those that offices export: 30 columns between semicolons, decimal commas,
latin-1 with umlauts, columns of names, dates and row numbers, and 2 % of the cells empty. The first
part runs the command on it and prints rows of the table, exit status, CPU seconds and peak memory.
The second draws ``--interrupted-rows`` of its rows, interrupts the command by SIGINT at ten moments
spread over the run, and checks that each run ends with status 130 and that results.csv holds every
row that was done, with the figures of a run that was left alone.
"""

import argparse
import csv
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

N_COLUMNS = 30
N_MOMENTS = 10


def write_table(path, n_rows, seed=0):
    """Write rows near a surface of four dimensions as an office would."""
    rng = np.random.RandomState(seed)
    cities = np.array(["Zürich", "Köln", "Düsseldorf", "Saarbrücken", "Würzburg"])
    kinds = np.array(["süß", "würzig", "mild"])
    n_numbers = N_COLUMNS - 4
    code = rng.standard_normal((n_rows, 4))
    kind = np.digitize(code[:, 0], [-0.5, 0.5])
    hidden = np.tanh(code @ rng.standard_normal((4, 12)))
    X = hidden @ rng.standard_normal((12, n_numbers)) + 0.1 * rng.standard_normal(
        (n_rows, n_numbers)
    )
    X = X * 10.0 ** rng.randint(-1, 4, size=n_numbers)
    X[rng.random_sample(X.shape) < 0.02] = np.nan
    days = pd.Timestamp("2015-01-01") + pd.to_timedelta(rng.randint(3650, size=n_rows), "D")
    frame = pd.DataFrame({"Nr": np.arange(1, n_rows + 1)})
    frame["Datum"] = days.strftime("%d.%m.%Y")
    frame["Stadt"] = cities[rng.randint(len(cities), size=n_rows)]
    frame["Geschmack"] = kinds[kind]
    numbers = pd.DataFrame(X, columns=[f"Größe {j}" for j in range(n_numbers)])
    frame = pd.concat([frame, numbers], axis=1)
    frame.to_csv(path, sep=";", decimal=",", encoding="latin-1", float_format="%.4f", index=False)


def command(path, output, *options):
    options = ["--target", "Geschmack", "--output", str(output), *options]
    return [sys.executable, "-u", "-m", "skmanifoldflow", str(path), *options]


def read_rows(output):
    """Return the rows of results.csv by estimator, without what changes between runs."""
    with open(output / "results.csv", newline="", encoding="utf-8") as file:
        rows = {row["estimator"]: row for row in csv.DictReader(file)}
    for row in rows.values():
        del row["fit_seconds"]
    return rows


def measure(path, output, *options):
    """Run the command to its end and print what it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    status = subprocess.run(command(path, output, *options), check=False).returncode
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    rows = read_rows(output)
    failed = [name for name, row in rows.items() if row["error"]]
    print(
        f"\nrows of the table: {len(rows)} ({', '.join(rows)}), failed: {failed or 'none'}\n"
        f"exit status {status}, {cpu:.0f} CPU s, {seconds:.0f} s on the clock, peak memory "
        f"{after.ru_maxrss / 2**20:.2f} GiB\n",
        flush=True,
    )
    return rows


def n_done(text):
    """Return the number of estimators whose line of progress has an end."""
    return len(re.findall(r"^\[\d+/\d+\] .*\.\.\. (?:\d|failed).*\n", text, re.MULTILINE))


def run_until(path, output, options, n_before=0, seconds=None):
    """Run the command; interrupt it some seconds after so many estimators are done, None never.

    Return its exit status, what it printed, the number of estimators that were done at the
    interruption, and the times, from the first fit on, at which estimators were done.
    """
    output.mkdir(parents=True)
    log = output / "log.txt"
    with open(log, "w") as file:
        process = subprocess.Popen(command(path, output, *options), stdout=file, stderr=file)
    start, times = None, []
    while process.poll() is None:
        text = log.read_text()
        if start is None and "[1/" in text:
            start = time.perf_counter()
        times += [time.perf_counter() - start] * (n_done(text) - len(times)) if start else []
        if start and seconds is not None and len(times) >= n_before:
            time.sleep(seconds)
            break
        time.sleep(0.02)
    done = n_done(log.read_text())
    if seconds is not None:
        process.send_signal(signal.SIGINT)
    return process.wait(), log.read_text(), done, times


def interrupt(path, folder, options):
    """Interrupt the command at moments spread over its run, and print what is left of each."""
    status, _, _, times = run_until(path, folder / "whole", options)
    expected = read_rows(folder / "whole")
    print(f"left alone: exit status {status}, {len(expected)} rows, {times[-1]:.1f} s\n")
    print("moment, s  exit  rows done  rows in results.csv  as expected")
    n_right = 0
    for i in range(N_MOMENTS):
        moment = times[-1] * (i + 0.5) / N_MOMENTS
        n_before = sum(t < moment for t in times)
        seconds = moment - (times[n_before - 1] if n_before else 0)
        status = 0
        while status == 0:
            # Another time where the machine was faster than before, and the command at its end.
            output = folder / f"{i} {seconds}"
            status, text, done, _ = run_until(path, output, options, n_before, seconds)
            seconds /= 2
        rows = read_rows(output)
        right = (
            status == 130
            and len(rows) >= done
            and all(row == expected[name] for name, row in rows.items())
            and "Traceback" not in text
            and not list(output.glob("*.part"))
        )
        n_right += right
        print(f"{moment:9.1f}  {status:4}  {done:9}  {len(rows):19}  {right}", flush=True)
    print(f"\n{n_right} of {N_MOMENTS} interruptions kept every row that was done.")
    return n_right == N_MOMENTS


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--interrupted-rows", type=int, default=400)
    parser.add_argument("--only", choices=["whole", "interrupted"])
    args = parser.parse_args()
    # The children take SIGINT, though this process may run in the background, where it is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "table.csv"
        write_table(path, args.rows)
        print(f"{args.rows} rows, {path.stat().st_size / 1e6:.0f} MB\n", flush=True)
        if args.only != "interrupted":
            measure(path, folder / "report")
        if args.only != "whole":
            return not interrupt(path, folder, ["--max-rows", str(args.interrupted_rows)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
