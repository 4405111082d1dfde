"""--trace on commands: what is written, and what is said of it."""

from __future__ import annotations

from pathlib import Path

import can

from ess_can.signals.dbc import StationCodec
from tests.unit.cli.run import COMM_GATEWAY_UPGRADE, REPORT_KEYS, document, python, run

TSHARK = (
    "tshark -r {} -o iso15765.can.ids:1301,1317,1333,1349,1365,1381,1397,1413,1445,"
    "1557,1573,1589,1605,1621,1637,1653,1669,1701 -d iso15765.subdissector,uds -Y uds"
)


def requests(path: Path, service: int) -> int:
    """UDS requests of this service that begin in a trace, as the ISO-TP frames tell."""
    codec = StationCodec.load()
    ids = {codec.diagnostic_ids(node)[0] for node in codec.nodes()}
    starts = [bytes(m.data) for m in can.LogReader(path) if m.arbitration_id in ids and not m.is_rx]
    long = b"\x10\x00"  # a first frame with a length of 32 bits
    first_byte = {0: 1, 1: 2}  # of the payload, in a single frame and in an ordinary first frame
    return sum(
        data[6 if data.startswith(long) else first_byte[kind]] == service
        for data in starts
        if (kind := data[0] >> 4) in first_byte
    )


def test_an_upgrade_writes_its_trace_and_says_how_to_look_at_it(tmp_path: Path) -> None:
    path = tmp_path / "run.blf"
    result = run("upgrade", COMM_GATEWAY_UPGRADE, "--sim", "--trace", path)
    assert result.exit_code == 0, result.output
    messages = list(can.LogReader(path))
    assert f"trace: {len(messages)} frames in {path}" in result.stderr
    assert TSHARK.format(path) in result.stderr
    assert requests(path, 0x36) == 3  # 60,234 bytes in blocks of 24 KiB
    assert {m.arbitration_id for m in messages if not m.is_rx} >= {0x0A1, 0x0D1, 0x0D2, 0x6A5}
    assert {m.arbitration_id for m in messages if m.is_rx} >= {0x0A2, 0x0B1, 0x451, 0x5A5}


def test_the_same_seed_gives_the_same_bytes_and_the_same_hash(tmp_path: Path) -> None:
    one, other = tmp_path / "one.blf", tmp_path / "other.blf"
    traced = document(run("upgrade", COMM_GATEWAY_UPGRADE, "--sim", "--json", "--trace", one))
    run("upgrade", COMM_GATEWAY_UPGRADE, "--sim", "--trace", other)
    untraced = document(run("upgrade", COMM_GATEWAY_UPGRADE, "--sim", "--json"))
    assert one.read_bytes() == other.read_bytes()
    assert traced["trace_hash"] == untraced["trace_hash"]
    assert set(untraced) == REPORT_KEYS
    assert set(traced) == REPORT_KEYS | {"trace"}


def test_json_has_it_in_the_document_and_nothing_on_stderr(tmp_path: Path) -> None:
    path = tmp_path / "run.blf"
    result = run("inventory", "--sim", "--racks", 1, "--json", "--trace", path)
    frames = len(list(can.LogReader(path)))
    assert document(result)["trace"] == {
        "file": str(path),
        "frames": frames,
        "complete": True,
        "tshark": TSHARK.format(path),
    }
    assert result.stderr == ""


def test_another_format_has_no_command_for_tshark(tmp_path: Path) -> None:
    path = tmp_path / "run.asc"
    assert document(run("status", "--sim", "--json", "--trace", path))["trace"]["tshark"] is None
    shown = run("status", "--sim", "--trace", path)
    assert "trace: " in shown.stderr
    assert "tshark" not in shown.stderr


def test_a_trace_that_cannot_be_written_stops_the_command_before_it_begins(tmp_path: Path) -> None:
    result = run("demo", "--json", "--trace", tmp_path / "nowhere" / "run.blf")
    assert result.exit_code == 5
    assert document(result)["error"]["name"] == "TRACE_UNWRITABLE"
    assert "trace" not in document(result)


def test_on_a_bus_too_and_also_when_the_command_fails(tmp_path: Path) -> None:
    path = tmp_path / "run.blf"
    result = run("status", "--racks", 1, "-i", "virtual", "-c", "nobody here", "--json", "--trace", path)
    assert result.exit_code == 14
    assert document(result)["trace"]["frames"] == 0
    assert list(can.LogReader(path)) == []


def test_a_disk_that_fills_up_does_not_end_the_upgrade(tmp_path: Path) -> None:
    limit = COMM_GATEWAY_UPGRADE.stat().st_size + 1  # room for the private copy of the upgrade file, not for the trace
    limited = (
        f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));"
        "from ess_can.cli.main import main; main(sys.argv[1:])"
    )
    path = tmp_path / "run.log"
    result = python(["-c", limited, "upgrade", str(COMM_GATEWAY_UPGRADE), "--sim", "--trace", str(path)])
    assert result.returncode == 0, result.stderr
    assert f"warning TRACE_UNWRITABLE: the trace {path} is incomplete" in result.stderr
    assert "Done" in result.stdout
    assert "trace (incomplete): at most " in result.stderr
    assert f"frames in {path}" in result.stderr
    assert path.stat().st_size <= limit
