"""Measure everything, ours and the peers in the same run: `python -m benchmarks` from the project's folder.

Prints a table; writes figures.json and plots to a folder.  The exit code tells only whether something could not be
measured: figures of time and CPU depend on the machine and on what else it does.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time  # noqa: TID251 - a benchmark reads the clock
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from benchmarks.document import write_document
from benchmarks.figures import Failure, Figure, plain, table
from benchmarks.machine import this_machine
from benchmarks.plots import draw
from benchmarks.themes import THEMES, Result

Found = Result | Failure


def main() -> int:
    """Run all themes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small images and few rounds: under two minutes")
    parser.add_argument("--only", metavar="TEXT", default="", help="only themes whose name contains this")
    parser.add_argument(
        "--output", metavar="FOLDER", type=Path, default=Path("build/bench"), help="default %(default)s"
    )
    parser.add_argument(
        "--document",
        action="store_true",
        help="put tables and plots into docs/performance.md, too, if everything could be measured",
    )
    options = parser.parse_args()
    if options.document and (options.quick or options.only):
        parser.error("--document needs a run of everything, without --quick and --only")
    machine = this_machine()
    began = time.perf_counter()
    found: dict[str, Found] = {}
    for name, outcome in _measured(options.only, options.quick):
        found[name] = outcome
        _tell(f"{time.perf_counter() - began:6.1f} s  {name}" + (": FAILED" if isinstance(outcome, Failure) else ""))
    exact, inexact = (
        [found[theme.name] for theme in THEMES if theme.name in found and theme.exact is kind] for kind in (True, False)
    )
    failures = [outcome for outcome in (*exact, *inexact) if isinstance(outcome, Failure)]
    simulated, of_machine = (
        sorted((f for each in outcomes if isinstance(each, Result) for f in each.figures), key=_order)
        for outcomes in (exact, inexact)
    )
    figures = [*simulated, *of_machine]
    measurements = [m for each in (*exact, *inexact) if isinstance(each, Result) for m in each.measurements]
    sys.stdout.write(table(figures) + "\n")
    for failure in failures:
        sys.stdout.write(f"could not be measured: {failure.theme}: {failure.why}\n")
    options.output.mkdir(parents=True, exist_ok=True)
    document = {
        "machine": plain(machine),
        "quick": options.quick,
        "figures": [plain(figure) for figure in figures],
        "failures": [plain(failure) for failure in failures],
        "measurements": [plain(m) for m in measurements],
    }
    (options.output / "figures.json").write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    plots = draw(measurements, options.output)
    if options.document and not failures:
        write_document(machine, simulated, of_machine, measurements, plots)
    sys.stdout.write("\n".join(["", str(options.output / "figures.json"), *map(str, plots)]) + "\n")
    return 1 if failures else 0


def _measured(only: str, quick: bool) -> Iterator[tuple[str, Found]]:
    """What is simulated side by side, then the rest one after the other."""
    wanted = [theme for theme in THEMES if only.lower() in theme.name.lower()]
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        futures = {pool.submit(_one, theme.name, quick): theme.name for theme in wanted if theme.exact}
        for future in as_completed(futures):
            yield futures[future], future.result()
    for theme in wanted:
        if not theme.exact:
            yield theme.name, _one(theme.name, quick)


def _one(name: str, quick: bool) -> Found:
    """One theme; whatever goes wrong in it is told, and does not end the others."""
    theme = next(theme for theme in THEMES if theme.name == name)
    try:
        return theme.measure(quick)
    except Exception as error:
        _tell(traceback.format_exc())
        return Failure(name, f"{type(error).__name__}: {error}")


def _order(figure: Figure) -> tuple[bool, int]:
    """By their numbers, and then those that have none."""
    number = figure.name.removeprefix("W")
    return not number.isdecimal(), int(number) if number.isdecimal() else 0


def _tell(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
