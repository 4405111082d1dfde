"""The catalogue of faults names tests that exist, and says of every row what proves it or what is open."""

from __future__ import annotations

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from tests.regression.catalogue import CATALOGUE, Row, Section

TESTS = Path(__file__).parents[1]
RANGES = {"B": 17, "T": 16, "U": 15, "F": 18, "H": 21, "G": 15}
"""Sections of which every number from 1 on has a row."""
_FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def collected_from(path: str) -> frozenset[str]:
    """What pytest collects from this file: functions, methods, and the classes made by a state machine."""
    names: set[str] = set()
    for node in ast.parse((TESTS / path).read_text("utf-8")).body:
        if isinstance(node, _FUNCTION):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            names |= {f"{node.name}::{item.name}" for item in node.body if isinstance(item, _FUNCTION)}
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return frozenset(name for name in names if re.match(r"(Test\w+::)?test_|Test\w+$", name))


def numbers(row: Row) -> list[int]:
    """``B5-B8`` is 5 to 8, ``P2, P3`` is 2 and 3."""
    found = [int(number) for number in re.findall(r"\d+", row.id)]
    return list(range(found[0], found[-1] + 1)) if "-" in row.id else found


@pytest.mark.parametrize("row", CATALOGUE, ids=lambda row: row.id)
def test_the_tests_of_a_row_exist(row: Row) -> None:
    assert row.tests or row.open
    assert len(set(row.tests)) == len(row.tests)
    for test in row.tests:
        path, _, name = test.partition("::")
        assert name in collected_from(path), test


def test_every_number_of_a_section_has_one_row() -> None:
    found: dict[str, Counter[int]] = {section.letter: Counter() for section in Section}
    for row in CATALOGUE:
        found[row.section.letter].update(numbers(row))
    assert all(count == 1 for counter in found.values() for count in counter.values())
    for letter, last in RANGES.items():
        assert set(found[letter]) == set(range(1, last + 1)), letter


def test_rows_read_as_a_table() -> None:
    for row in CATALOGUE:
        for text in (row.fault, row.required, row.open):
            assert not text.endswith((".", " "))
            assert "\n" not in text
