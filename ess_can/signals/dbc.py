"""The DBC as typed values: loads it, refuses it unless it fits the code, encodes and decodes.

cantools reads the file.  Identifiers, places, scaling, cycle times and E2E data IDs come from the DBC and from nowhere
else; `ess_can.signals.binding` has the rules by which both sides are matched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ess_can.can.frame import EXTENDED_FLAG
from ess_can.errors import DbcMismatch, UsageError
from ess_can.identity import NodeAddress, NodeType
from ess_can.resources import dbc_path
from ess_can.signals.binding import FAMILIES, BoundMessage, Each, Family, bind, page_problems
from ess_can.signals.e2e import HEADER_BYTES
from ess_can.signals.layout import Layout
from ess_can.signals.messages import Message, NodeInfo

if TYPE_CHECKING:
    from cantools.database.can.database import Database
    from cantools.database.can.message import Message as DbcMessage

_Key = int | NodeAddress
FINGERPRINT_BITS = 14
_E2E_PROFILE = "P05"
_GATEWAY = "EMS"
_LISTED = 8
"""How many mismatches an error lists."""
_REMEMBERED = 64
"""How many contents of one message are known without decoding them again.

A frame has several receivers, and telemetry repeats itself.
"""


@dataclass(frozen=True, slots=True)
class Route:
    """Where one message of the DBC travels.

    `length` in bytes; `cycle_s` None for a message without a cycle; `e2e_data_id` None without end-to-end protection.
    `node` is the upgradable node that sends it, None for EMS and PCS; `index` is that node's number, else 1.
    """

    can_id: int
    name: str
    length: int
    cycle_s: float | None
    e2e_data_id: int | None
    index: int
    node: NodeAddress | None


@dataclass(frozen=True, slots=True)
class Decoded:
    """A frame's content and where it came from."""

    message: Message
    route: Route

    @property
    def index(self) -> int:
        """Number of the sender among its type, from 1."""
        return self.route.index

    @property
    def node(self) -> NodeAddress | None:
        """The sender, if it is an upgradable node."""
        return self.route.node


@dataclass(slots=True)
class DecodeCounters:
    """Why `StationCodec.decode` gave None."""

    unknown_id: int = 0
    wrong_length: int = 0
    bad_value: int = 0


@dataclass(frozen=True, slots=True)
class _Bound:
    """One DBC message, ready for use; `pages` has only page 0 when it is not multiplexed.

    `known` has what was decoded, by the bytes behind the E2E header, and `said` what was encoded last, by page.
    """

    route: Route
    layout: Layout
    multiplexed: bool
    pages: Mapping[int, BoundMessage]
    content_at: int
    known: dict[bytes, Decoded] = field(default_factory=dict)
    said: dict[int, tuple[Message, bytes]] = field(default_factory=dict)


class StationCodec:
    """Encodes and decodes every message of the station.

    `sha256` is that of the DBC file, `fingerprint` its first 14 bits (as in Node_Info), `version` its VERSION string.
    `can_ids` are the identifiers of all its messages, and `gateway_messages` names those that the EMS alone sends, UDS
    requests included, by their `can_id`.
    `counters` tell why frames were not decoded.
    """

    def __init__(self, database: Database, sha256: bytes) -> None:
        """Bind a loaded database.  Raises DbcMismatch if it does not describe what the code expects."""
        self.version = database.version or ""
        self.sha256 = sha256
        self.fingerprint = int.from_bytes(sha256[:2], "big") >> 16 - FINGERPRINT_BITS
        self.counters = DecodeCounters()
        binder = _Binder(database)
        self._routed = binder.families()
        self._diagnostic_ids = binder.diagnostic_channels()
        problems = binder.problems + [f"{name} has no dataclass in this version" for name in binder.unused()]
        if problems:
            shown = "; ".join(problems[:_LISTED])
            more = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
            raise DbcMismatch("The DBC does not describe the messages of this version of ess-can", why=shown + more)
        self.can_ids = frozenset(_can_id(m) for m in database.messages)
        self.gateway_messages = {_can_id(m): m.name for m in database.messages if m.senders == [_GATEWAY]}
        self._by_id = {bound.route.can_id: bound for family in self._routed.values() for bound in family.values()}

    @classmethod
    def load(cls, path: Path | None = None) -> Self:
        """Read and bind a DBC file, by default the one that belongs to this package.

        Raises DbcMismatch if it cannot be read or parsed, or does not describe what the code expects; the reason
        names both sides of each disagreement.
        """
        # cantools costs 0.2 s to import: only those who need it pay
        from cantools.database.can.database import Database

        path = dbc_path() if path is None else path
        database = Database(strict=True)
        try:
            content = path.read_bytes()
            database.add_dbc_string(content.decode("cp1252", errors="replace"))
        except OSError as error:
            why = f"{type(error).__name__}: {error.strerror or error}"
            remedy = "Give --dbc the path of a readable DBC file, or leave it out for the built-in one."
            raise DbcMismatch(f"{path} cannot be read as a DBC", why=why, remedy=remedy) from error
        except Exception as error:  # the parser answers strange files with exceptions of many kinds
            raise DbcMismatch(f"{path} cannot be read as a DBC", why=f"{type(error).__name__}: {error}") from error
        return cls(database, hashlib.sha256(content).digest())

    def nodes(self) -> tuple[NodeAddress, ...]:
        """The station's upgradable nodes, in order."""
        return tuple(self._diagnostic_ids)

    def routes(self, message_type: type[Message]) -> tuple[Route, ...]:
        """Every route of a message type: one for each rack or node that sends it."""
        return tuple(bound.route for bound in self._routed[message_type].values())

    def route(self, message_type: type[Message], index: int | NodeAddress = 1) -> Route:
        """The route of a message type from rack `index` (1 for EMS and PCS), or for NodeInfo from a node.

        Raises UsageError if the station has none.
        """
        return self._find(message_type, index).route

    def node_route(self, node: NodeAddress) -> Route:
        """The route of a node's NodeInfo.  Raises UsageError if the station has no such node."""
        return self._find(NodeInfo, node).route

    def diagnostic_ids(self, node: NodeAddress) -> tuple[int, int]:
        """The `can_id` of a node's UDS requests and of its responses.  Raises UsageError if there is no such node."""
        try:
            return self._diagnostic_ids[node]
        except KeyError:
            raise UsageError(
                f"The DBC has no diagnostic channel for {node}",
                why=f"it has {', '.join(map(str, self._diagnostic_ids))}",
            ) from None

    def encode(self, message: Message, index: int | NodeAddress = 1) -> bytes:
        """The frame's data bytes; the three bytes of an E2E header are left zero.

        `index` is as in `route`.  Raises UsageError if a value does not fit its signal, or there is no such route.
        """
        message_type = type(message)
        bound = self._find(message_type, index)
        page_number = getattr(message, "page", 0)
        said = bound.said.get(page_number)
        if said is not None and said[0] == message:  # telemetry repeats itself
            return said[1]
        page = bound.pages.get(page_number)
        if page is None or page.message_type is not message_type:
            raise UsageError(f"{message} does not fit {bound.route.name}", why="there is no such multiplexer page")
        number = page.constants
        for name, signal, shift, mask, _, write in page.fields:
            value = getattr(message, name)
            try:
                number |= (write(value) & mask) << shift
            except (ValueError, OverflowError) as error:
                where = f"{message_type.__name__}.{name}"
                raise UsageError(
                    f"{where} = {value!r} does not fit {bound.route.name}.{signal}", why=str(error)
                ) from None
        data = bound.layout.data(number)
        bound.said[page_number] = message, data
        return data

    def decode(self, can_id: int, data: bytes) -> Decoded | None:
        """A frame's content, or None (and a count in `counters`) if it is none of the station's messages.

        That is so for an unknown identifier, a wrong length, a multiplexer page or an enumeration's value that the DBC
        does not have.  A number outside its signal's range is None in the message.  Never raises; does not check the
        E2E header.
        """
        bound = self._by_id.get(can_id)
        if bound is None:
            self.counters.unknown_id += 1
            return None
        if len(data) != bound.route.length:
            self.counters.wrong_length += 1
            return None
        content = data[bound.content_at :]
        decoded = bound.known.get(content)
        if decoded is None:
            decoded = _decode(bound, data)
            if decoded is None:
                self.counters.bad_value += 1
                return None
            if len(bound.known) >= _REMEMBERED:
                bound.known.clear()
            bound.known[content] = decoded
        return decoded

    def _find(self, message_type: type[Message], index: int | NodeAddress) -> _Bound:
        family = self._routed[message_type]
        try:
            return family[index]
        except KeyError:
            known = ", ".join(str(key) for key in family)
            raise UsageError(f"The DBC has no {message_type.__name__} of {index}", why=f"it has {known}") from None


def _decode(bound: _Bound, data: bytes) -> Decoded | None:
    """The content of bytes of the right length; None if they hold a page or a value that the DBC does not have."""
    page = bound.pages.get(data[0] if bound.multiplexed else 0)
    if page is None:
        return None
    number = bound.layout.number(data)
    try:
        message = page.message_type(*[read(number >> shift & mask) for _, _, shift, mask, read, _ in page.fields])
    except KeyError:
        return None
    return Decoded(message, bound.route)


class _Binder:
    """Walks a database while a codec is built; what does not fit the code goes to `problems`."""

    def __init__(self, database: Database) -> None:
        self.problems: list[str] = []
        self.nodes = tuple(sorted(_addresses(database)))
        self._messages = {message.name: message for message in database.messages}
        self._unused = set(self._messages)
        self._can_ids: dict[int, str] = {}
        self._data_ids: dict[int, str] = {}

    def families(self) -> dict[type[Message], dict[_Key, _Bound]]:
        """Every message type's DBC messages, by what `StationCodec.route` calls `index`."""
        types_of: dict[str, list[type[Message]]] = {}
        for message_type, family in FAMILIES.items():
            types_of.setdefault(family.name, []).append(message_type)
        found: dict[type[Message], dict[_Key, _Bound]] = {message_type: {} for message_type in FAMILIES}
        for message_types in types_of.values():
            for key, name, sender, node in self._members(FAMILIES[message_types[0]]):
                bound = self._bind(message_types, name, sender, node)
                if bound is not None:
                    for message_type in message_types:
                        found[message_type][key] = bound
        return found

    def diagnostic_channels(self) -> dict[NodeAddress, tuple[int, int]]:
        """The request and response identifiers of every node."""
        return {node: (self._diagnostic(node, "Request"), self._diagnostic(node, "Response")) for node in self.nodes}

    def unused(self) -> list[str]:
        """The messages that nothing asked for."""
        return [name for name in self._messages if name in self._unused]

    def _members(self, family: Family) -> Iterator[tuple[_Key, str, str, NodeAddress | None]]:
        if family.each is Each.STATION:
            yield 1, family.name, family.name.partition("_")[0], None
            return
        for node in self.nodes:
            sender = str(node).upper()
            if family.each is Each.NODE:
                yield node, f"{family.name}_{sender}", sender, node
            elif node.node_type is NodeType.BMU:
                yield node.index, f"{family.name}_{node.index}", sender, node

    def _take(self, name: str, sender: str, ours: str) -> DbcMessage | None:
        message = self._messages.get(name)
        if message is None:
            self.problems.append(f"{ours} has no message {name}")
            return None
        self._unused.discard(name)
        if message.senders != [sender]:
            self.problems.append(f"{ours} is sent by {sender}, {name} by {', '.join(message.senders) or 'nobody'}")
        other = self._can_ids.setdefault(_can_id(message), name)
        if other != name:
            self.problems.append(f"{ours} needs an identifier of its own, {name} has that of {other}")
        return message

    def _bind(
        self, message_types: list[type[Message]], name: str, sender: str, node: NodeAddress | None
    ) -> _Bound | None:
        ours = " and ".join(message_type.__name__ for message_type in message_types)
        message = self._take(name, sender, ours)
        if message is None:
            return None
        pages: dict[int, BoundMessage] = {}
        for message_type in message_types:
            for page in FAMILIES[message_type].pages or (None,):
                pages[page or 0] = bind(message_type, message, page, self.problems)
        family = FAMILIES[message_types[0]]
        multiplexed = bool(family.pages)
        self.problems.extend(page_problems(ours, message, tuple(pages) if multiplexed else ()))
        cycle_ms = message.cycle_time
        route = Route(
            can_id=_can_id(message),
            name=name,
            length=message.length,
            cycle_s=cycle_ms / 1000 if cycle_ms else None,
            e2e_data_id=self._data_id(message, ours, family.e2e),
            index=1 if node is None else node.index,
            node=node,
        )
        return _Bound(route, Layout.of(message), multiplexed, pages, HEADER_BYTES if family.e2e else 0)

    def _data_id(self, message: DbcMessage, ours: str, protected: bool) -> int | None:
        profile = _attribute(message, "E2EProfile")
        expected = _E2E_PROFILE if protected else "None"
        if profile != expected:
            self.problems.append(f"{ours} has E2E profile {expected}, {message.name} has {profile}")
        if not protected:
            return None
        data_id = _attribute(message, "E2EDataId")
        if not data_id.isdecimal():
            self.problems.append(f"{ours} needs an E2E data ID, {message.name} has none")
            return None
        other = self._data_ids.setdefault(int(data_id), message.name)
        if other != message.name:
            self.problems.append(f"{ours} needs an E2E data ID of its own, {message.name} has that of {other}")
        return int(data_id)

    def _diagnostic(self, node: NodeAddress, kind: str) -> int:
        name = str(node).upper()
        ours = f"the diagnostic channel of {node}"
        message = self._take(f"UDS_{kind}_{name}", _GATEWAY if kind == "Request" else name, ours)
        if message is None:
            return 0
        if _attribute(message, f"Diag{kind}") != "Yes":
            self.problems.append(f"{ours} needs attribute Diag{kind} Yes, {message.name} has No")
        return _can_id(message)


def _addresses(database: Database) -> Iterator[NodeAddress]:
    for node in database.nodes:
        try:
            yield NodeAddress.parse(node.name.lower())
        except ValueError:
            continue  # EMS, PCS: not upgradable


def _can_id(message: DbcMessage) -> int:
    return message.frame_id | EXTENDED_FLAG if message.is_extended_frame else message.frame_id


def _attribute(message: DbcMessage, name: str) -> str:
    """An attribute's value, of an enumeration its text; the default if the message does not set it."""
    definition = None if message.dbc is None else message.dbc.attribute_definitions.get(name)
    if message.dbc is None or definition is None:
        return ""
    attribute = message.dbc.attributes.get(name)
    value = definition.default_value if attribute is None else attribute.value
    if definition.choices and isinstance(value, int) and 0 <= value < len(definition.choices):
        return str(definition.choices[value])
    return str(value)
