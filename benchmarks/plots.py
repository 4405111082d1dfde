"""Plots of a run: wire efficiency over bit rate, and how long safety frames take.

The SVG files of the same measurements are the same to the byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.safety_latency import ARBITRATION_BOUND, QUEUE_BOUND, Latency
from benchmarks.station import CLASSIC, FD
from benchmarks.wire_efficiency import PUBLISHED, Transfer
from benchmarks.wire_peers import BOTH_ENDS, DOCUMENTED, TUNED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_OURS = "#0060a0"
_THEIRS_PUBLISHED = "#a00000"
_SMALL = 5  # larger markers are hollow: two lines that lie on each other are both seen
_BINS = 40


def draw(measurements: Sequence[object], folder: Path) -> list[Path]:
    """Draw what there is to be drawn, as PNG and SVG; gives the files written."""
    # Drawing takes half a second to import, and is not needed to measure.
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": "ess-can", "svg.fonttype": "none", "font.size": 9})
    transfers = [m for m in measurements if isinstance(m, Transfer)]
    latencies = [m for m in measurements if isinstance(m, Latency) and m.who == "ess-can"]
    written = list[Path]()
    if transfers:
        written += _save(_efficiency(transfers), folder / "performance-efficiency")
    if latencies:
        written += _save(_latency(latencies), folder / "performance-latency")
    return written


def _save(figure: Figure, path: Path) -> list[Path]:
    from matplotlib import pyplot as plt

    files = [path.with_suffix(".png"), path.with_suffix(".svg")]
    figure.savefig(files[0], dpi=150, metadata={"Software": None})
    figure.savefig(files[1], metadata={"Date": None, "Creator": None})
    plt.close(figure)
    # Of a file under version control: no blanks at the ends of lines.
    files[1].write_text("\n".join(line.rstrip() for line in files[1].read_text("utf-8").splitlines()) + "\n", "utf-8")
    return files


def _efficiency(transfers: Sequence[Transfer]) -> Figure:
    """One line for each who measured on a bus: classic by bit rate, then CAN FD; below them the same near the limit."""
    from matplotlib import pyplot as plt

    figure, ((classic, fd), (classic_near, fd_near)) = plt.subplots(
        2, 2, figsize=(9, 6.4), sharex="col", sharey="row", layout="constrained"
    )
    for axes, kinds in ((classic, CLASSIC), (classic_near, CLASSIC), (fd, FD), (fd_near, FD)):
        _lines(axes, [kind.name for kind in kinds], transfers)
    classic.plot(["500k"], [PUBLISHED], "x", color=_THEIRS_PUBLISHED, label="can-isotp on Windows, as published: 0.58")
    classic.annotate(
        f"published: {PUBLISHED}", ("500k", PUBLISHED), (8, 0), textcoords="offset points", va="center", fontsize=8
    )
    classic.set_title("classic CAN", fontsize=9)
    fd.set_title("CAN FD, 64 bytes a frame", fontsize=9)
    classic.set_ylim(0.55, 1.02)
    classic.set_ylabel("wire efficiency")
    classic_near.set_ylim(0.9965, 1.0004)
    classic_near.set_ylabel("the same, near the limit")
    classic_near.set_xlabel("bit/s")
    fd_near.set_xlabel("bit/s, arbitration / data")
    figure.legend(*classic.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    return figure


def _lines(axes: Axes, names: list[str], transfers: Sequence[Transfer]) -> None:
    axes.axhline(1.0, color="black", linewidth=0.8, linestyle="--", label="the wire's limit: 1.00")
    most = max(transfer.racks for transfer in transfers)
    styles = (
        ("ess-can", 0, "ess-can, idle bus", _OURS, "o-", 4),
        ("ess-can", most, f"ess-can, telemetry of {most} racks", _OURS, "D:", 8),
        (TUNED.name, 1, f"{TUNED.name}, to our node", "#2a8a2a", "s-.", 12),
        (BOTH_ENDS.format(DOCUMENTED.name), 0, BOTH_ENDS.format(DOCUMENTED.name), "#e08000", "^-", 5),
    )
    for who, racks, label, color, style, size in styles:
        points = {t.bus: t.efficiency for t in transfers if (t.who, t.racks) == (who, racks)}
        shown = [name for name in names if name in points]
        if shown:
            axes.plot(
                [name.removeprefix("FD ") for name in shown],
                [points[name] for name in shown],
                style,
                color=color,
                label=label,
                markersize=size,
                markerfacecolor="none" if size > _SMALL else color,
                linewidth=1.2,
            )
    axes.grid(visible=True, linewidth=0.3)


def _latency(latencies: Sequence[Latency]) -> Figure:
    """For each bus both frames, idle and saturated, in milliseconds."""
    from matplotlib import pyplot as plt

    size = (9, 2.4 * len(latencies))
    figure, rows = plt.subplots(len(latencies), 2, figsize=size, layout="constrained", squeeze=False)
    for latency, row in zip(latencies, rows, strict=True):
        watched = ((latency.hv_status, ARBITRATION_BOUND), (latency.pcs_command, QUEUE_BOUND))
        for (delays, bound), axes in zip(watched, row, strict=True):
            idle, saturated = ([1000 * delay for delay in kind] for kind in (delays.idle_s, delays.saturated_s))
            allowed = max(idle) + 1000 * bound * latency.frame_s
            end = 1.05 * max(*idle, *saturated, allowed)
            bins = [end * number / _BINS for number in range(_BINS + 1)]
            for values, color, name in ((idle, "#909090", "idle bus"), (saturated, _OURS, "saturating transfer")):
                label = f"{name}, worst {max(values):.2f}"
                weights = [100 / len(values)] * len(values)
                axes.hist(values, bins, weights=weights, histtype="stepfilled", color=color, alpha=0.6, label=label)
            axes.axvline(allowed, color="black", linewidth=0.8, linestyle="--", label=f"allowed: {allowed:.2f}")
            axes.set_title(f"{delays.frame}, {latency.bus}", fontsize=9)
            axes.set_xlabel("ms from hand-over to the end on the wire", fontsize=8)
            axes.set_ylabel("% of frames", fontsize=8)
            axes.legend(fontsize=7)
    return figure
