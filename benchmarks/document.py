"""Puts a run's tables and plots into docs/performance.md."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks import mechanisms
from benchmarks.figures import Figure, markdown
from benchmarks.machine import Machine
from benchmarks.mechanisms import Contribution

_DOCS = Path(__file__).parent.parent / "docs"
_END = "<!-- end of what was measured -->"


def write_document(
    machine: Machine,
    simulated: Sequence[Figure],
    of_machine: Sequence[Figure],
    measurements: Sequence[object],
    plots: Sequence[Path],
    docs: Path = _DOCS,
) -> None:
    """Replace what an earlier run had put there.  Raises ValueError if the document has no place for it."""
    path = docs / "performance.md"
    text = path.read_text("utf-8")
    with_whom = ", ".join(f"{name} {machine.packages[name]}" for name in ("can-isotp", "udsoncan", "python-can"))
    where = f"{machine.cores} cores, {machine.processor}, Python {machine.python}, {with_whom}"
    contributions = [m for m in measurements if isinstance(m, Contribution)]
    text = _replaced(text, "simulated time", markdown(simulated))
    text = _replaced(text, "this machine", f"{where}:\n\n{markdown(of_machine)}")
    text = _replaced(text, "mechanisms", mechanisms.markdown(contributions))
    path.write_text(text, "utf-8")
    for plot in plots:
        if plot.suffix == ".svg":
            shutil.copyfile(plot, docs / plot.name)


def _replaced(text: str, name: str, content: str) -> str:
    begin = f"<!-- measured: {name} -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(_END), re.DOTALL)
    text, places = pattern.subn(lambda _: f"{begin}\n{content}\n{_END}", text)
    if places != 1:
        raise ValueError(f"the document has {places} places for {name}, not 1")
    return text
