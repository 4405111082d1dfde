"""Where a signal's bits are: cantools is asked, for both byte orders."""

from __future__ import annotations

import random

import pytest
from cantools.database.can.database import Database
from cantools.database.can.message import Message

from ess_can.signals.layout import Layout

DBC = """
BU_: A
BO_ 1 Little: 8 A
 SG_ One : 0|1@1+ (1,0) [0|0] "" A
 SG_ Odd : 3|13@1+ (1,0) [0|0] "" A
 SG_ Last : 48|16@1+ (1,0) [0|0] "" A
BO_ 2 Big: 8 A
 SG_ One : 7|1@0+ (1,0) [0|0] "" A
 SG_ Odd : 4|13@0+ (1,0) [0|0] "" A
 SG_ Last : 55|16@0+ (1,0) [0|0] "" A
BO_ 3 Mixed: 5 A
 SG_ Low : 2|9@1+ (1,0) [0|0] "" A
 SG_ High : 23|11@0+ (1,0) [0|0] "" A
 SG_ Flag : 24|1@0+ (1,0) [0|0] "" A
 SG_ Tail : 33|7@1+ (1,0) [0|0] "" A
"""


@pytest.fixture(scope="module")
def messages() -> dict[str, Message]:
    database = Database(strict=True)
    database.add_dbc_string(DBC)
    return {message.name: message for message in database.messages}


@pytest.mark.parametrize(("name", "mirrored"), [("Little", False), ("Big", True), ("Mixed", True)])
def test_bits_are_where_cantools_has_them(messages: dict[str, Message], name: str, mirrored: bool) -> None:
    message, source = messages[name], random.Random(name)
    layout = Layout.of(message)
    assert (layout.length, layout.mirrored) == (message.length, mirrored)
    for _ in range(200):
        data = source.randbytes(message.length)
        theirs = message.decode(data, decode_choices=False, scaling=False)
        number = layout.number(data)
        bits = {s.name: number >> layout.shift(s) & (1 << s.length) - 1 for s in message.signals}
        assert bits == theirs
        ours = sum(bits[s.name] << layout.shift(s) for s in message.signals)
        assert layout.data(ours) == message.encode(bits, scaling=False)
