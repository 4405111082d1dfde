from __future__ import annotations

from ess_can.errors import BusSilent, InterfaceDown
from ess_can.gateway.doctor import Group, Outcome, diagnosis, not_applicable, ok, problem, warning

FINE = ok(Group.MACHINE, "python", "3.11")
SLOW = warning(Group.INTERFACE, "queue", "short", "Make it longer.", "ip link set can0 txqueuelen 128")
DOWN = problem(Group.INTERFACE, "state", InterfaceDown("can0 is down"), "ip link set can0 up")
SILENT = problem(Group.BUS, "traffic", BusSilent("nothing is heard"))


def test_nothing_is_wrong() -> None:
    found = diagnosis([FINE, not_applicable(Group.PLANT, "nodes", "nobody said how many")])
    assert (found.error, found.summary) == (None, "Nothing is wrong.")
    assert found.next_command("ess-can status") == found.next_step("ess-can status") == "ess-can status"


def test_warnings_are_no_problem() -> None:
    found = diagnosis([FINE, SLOW])
    assert (found.error, found.summary) == (None, "1 warning; it works.")
    assert found.next_command("ess-can status") == found.next_step("ess-can status") == "ess-can status"


def test_the_first_problem_is_the_gravest_whatever_the_order_of_finding() -> None:
    found = diagnosis([SILENT, SLOW, DOWN, FINE])
    assert found.findings == (FINE, SLOW, DOWN, SILENT)
    assert found.error is DOWN.error
    assert found.summary == "2 problems and 1 warning."
    assert found.next_command("ess-can status") == found.next_step("ess-can status") == "ip link set can0 up"
    assert found.of(Outcome.PROBLEM) == (DOWN, SILENT)


def test_a_problem_that_no_command_mends() -> None:
    found = diagnosis([SILENT])
    assert found.next_command("ess-can status") == ""
    assert found.next_step("ess-can status") == SILENT.remedy
    assert SILENT.remedy == BusSilent.default_remedy
    assert found.error is SILENT.error
