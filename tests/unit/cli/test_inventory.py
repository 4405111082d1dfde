from __future__ import annotations

from tests.unit.cli.run import document, run


def test_for_people() -> None:
    result = run("inventory", "--sim", "--racks", 1)
    assert (result.exit_code, result.stderr) == (0, "")
    head, *nodes = result.stdout.splitlines()
    assert head.split() == ["node", "serial", "hardware", "version", "bank", "image", "boots", "counter"]
    assert [line.split()[:4] for line in nodes] == [
        ["comm_gateway", "CGW-000001", "0x21", "1.0.0"],
        ["bmu1", "BMU-000001", "0x11", "1.0.0"],
    ]
    assert len({len(line) for line in (head, *nodes)}) == 1


def test_for_programs() -> None:
    result = run("inventory", "--sim", "--racks", 2, "--json")
    told = document(result)
    assert (result.exit_code, told["result"], told["exit_code"], told["error"]) == (0, "ok", 0, None)
    assert [node["name"] for node in told["nodes"]] == ["comm_gateway", "bmu1", "bmu2"]
    for node in told["nodes"]:
        assert (node["image"], node["bank"], node["security_counter"]) == ("confirmed", 0, 1)
        assert len(bytes.fromhex(node["dbc_sha256"])) == 32
