"""python-can's tools take ``--timing a=1 b=2``, click ``--timing a=1 --timing b=2``: the one is turned into the other.

Only values that can be nothing else are taken for values: a name, ``=`` and something behind the one kind of option,
``ID:MASK`` or ``ID~MASK`` in hexadecimal behind the other.  So a command's own arguments may follow.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_PAIR = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=\S*")
_FILTER = re.compile(r"(0[xX])?[0-9A-Fa-f]+[:~](0[xX])?[0-9A-Fa-f]+")
_VALUES = {"--timing": _PAIR, "--bus-kwargs": _PAIR, "--filter": _FILTER}
_END_OF_OPTIONS = "--"


def repeat_options(arguments: Sequence[str]) -> list[str]:
    """The command line with the option repeated before each further value.  Gives any other part back as it is."""
    result: list[str] = []
    option: str | None = None  # whose further values may follow
    first = False  # the value that an option has in any case is for click to judge
    for index, argument in enumerate(arguments):
        if argument == _END_OF_OPTIONS and not first:
            return result + list(arguments[index:])
        if option is not None and not first:
            if _VALUES[option].fullmatch(argument):
                result.append(option)
            else:
                option = None
        first = False
        if option is None and argument in _VALUES:
            option, first = argument, True
        result.append(argument)
    return result
