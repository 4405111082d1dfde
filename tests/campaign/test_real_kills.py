"""Real processes, really killed: a gateway at any moment of its upgrades, a plant under it, or both."""

from __future__ import annotations

import hashlib
import random
import signal
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from ess_can.cli.stopwatch import Stopwatch
from ess_can.errors import Interrupted, Locked
from ess_can.identity import NodeType, Version
from tests.bench.releases import write_release
from tests.campaign.counts import Count
from tests.campaign.processes import Process, Site, patiently
from tests.campaign.scale import SCALE, SEED, Scale

PARTS = 2
"""Tests that run side by side."""
SITES = {Scale.QUICK: 1, Scale.SLICE: 4, Scale.WHOLE: 5}[SCALE]
"""Plants with their gateways in each test: they mostly wait."""
KILLS = {Scale.QUICK: 2, Scale.SLICE: 5, Scale.WHOLE: 51}[SCALE]
"""How often each gateway is killed, at least."""

DECIDED_S = 5.0
"""After a restart of the gateway what is done about an unfinished upgrade is decided within this time."""
STARVED_S = 1.0
"""What a gateway process waited for a CPU longer than this is not held against the program, and is told apart."""
PHASES_S = {
    "status check": 1.0,
    "ramp-down": 0.3,
    "contactors": 0.1,
    "HV-off proof": 6.0,
    "program": 1.5,
    "trial boot": 1.1,
    "confirm": 0.4,
    "roll back": 1.5,
    "reconnect": 0.9,
}
"""The phases by their names on the screen, with how long one lasts at most, measured."""
SHORT = ("program", "trial boot", "confirm", "reconnect")
WHOLE_S = 13.0
"""How long an upgrade takes from start to end, measured."""
REST_S = 8.0
"""How long the rest of one takes, which finds high voltage off."""
DONE = "Done: every node runs its new firmware."
GOES_ON = "decision:"


class Deed(Enum):
    """What happens to a running upgrade, with how often."""

    KILL = "real SIGKILLs of the gateway process"
    KILL_PLANT = "real SIGKILLs of the plant process"
    KILL_BOTH = "real SIGKILLs of gateway and plant at once"
    TERMINATE = "real SIGTERMs of the gateway process"
    STOP = "real SIGSTOPs of the gateway process for 1 to 3 s"
    RIVAL = "second commands while a gateway process works"


WEIGHTS = {Deed.KILL: 40, Deed.KILL_PLANT: 2, Deed.KILL_BOTH: 2, Deed.TERMINATE: 2, Deed.STOP: 2, Deed.RIVAL: 2}
LET_IT_END = 0.08
"""How often an upgrade is left alone."""
CHECKED = 0.4
"""How often the plant is asked after a kill; else the next command is typed at once."""


@dataclass(frozen=True, slots=True, order=True)
class Decision:
    """How long after the process's start it was made, of that without a CPU, and what came before it."""

    after_s: float
    starved_s: float
    how: str

    @property
    def counts(self) -> bool:
        """Whether it was the program that took its time, and not a machine with too much to do."""
        return self.starved_s < STARVED_S


class Operator:
    """Types the commands at one site, and breaks off what they start: everything follows from the seed."""

    def __init__(self, site: Site, seed: str) -> None:
        self.counts: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.decisions: list[Decision] = []
        self.kills = 0
        self._site = site
        self._rng = random.Random(seed)
        self._head = ""
        self._upgrades: list[Any] = []
        self._at = Stopwatch()
        self._to_connect = False

    def work(self, kills: int) -> None:
        """Upgrade again and again, until the gateway was killed so often and the last upgrade is done."""
        minor = 1
        while self.kills < kills:
            minor += 1
            version = Version(1, minor, 0)
            file = write_release(
                self._site.folder / "release.essup", NodeType.COMM_GATEWAY, NodeType.BMU, version=version
            )
            self._upgrade(file, version, kills)

    def _upgrade(self, file: Path, version: Version, kills: int) -> None:
        """Bring the plant to this version, whatever comes between."""
        undisturbed = 0
        for attempt in range(100):
            leaves = self.kills >= kills or attempt > 20 or self._rng.random() < LET_IT_END
            if self._attempt(file, attempt, leaves=leaves):
                self._require_runs(str(version))
                return
            undisturbed += leaves
            assert undisturbed < 8, f"{version} is never done:\n{self._site.told}"
        raise AssertionError(f"{version} was begun too often:\n{self._site.told}")

    def _attempt(self, file: Path, attempt: int, *, leaves: bool) -> bool:
        """Type one command and see what becomes of it; whether the upgrade is done."""
        site, rng = self._site, self._rng
        unfinished = self._unfinished
        journal = ("--journal", site.journal)
        afterwards = ("--reconnect",) if self._to_connect else ()
        if unfinished is not None and attempt % 2:
            typed: tuple[str | Path, ...] = ("resume", *journal, *afterwards)
        else:
            typed = ("upgrade", file, *site.bus, "--bench", *journal, *afterwards)
        process = site.start(*typed)
        if leaves:
            deed = None
            process.wait()
        else:
            (deed,) = rng.choices([*WEIGHTS], [*WEIGHTS.values()])
            at = self._wait(process)
            self._note(f"{typed[0]}, {at}: {deed.name}")
            self._disturb(process, deed)
        if unfinished is not None:
            self._time(process)
        code = process.wait(0.0)
        assert code is not None, process
        if code >= 0:
            self._note(f"{typed[0]} ends with {code}: {process.lines[-3:]}")
            self._require_fair_end(process, code, deed)
        if code == 0:
            self.outcomes["done"] += 1
            assert process.line(DONE) or process.line("othing to do"), process
        self._check(asks=code >= 0 or rng.random() < CHECKED)
        return self._done(file)

    # --- what is done to it ---------------------------------------------------------------------------

    def _wait(self, process: Process) -> str:
        """Until the moment that chance wants; its name."""
        rng = self._rng
        if rng.random() < 0.5:
            delay_s = rng.uniform(0.0, WHOLE_S if self._unfinished is None else REST_S)
            process.wait(delay_s)
            return f"at {delay_s:.2f} s"
        phase = rng.choice([*PHASES_S, *SHORT, *SHORT])
        delay_s = rng.uniform(0.0, PHASES_S[phase])
        if process.hears(f"] {phase}", "] reconnect"):  # a phase may be left out by the rest of an upgrade
            process.wait(delay_s)
        return f"{phase} + {delay_s:.2f} s"

    def _disturb(self, process: Process, deed: Deed) -> None:
        rng = self._rng
        if not process.alive:
            return
        match deed:
            case Deed.KILL:
                self._kill(process)
            case Deed.KILL_PLANT:
                self._kill_plant(deed)
                process.wait()
            case Deed.KILL_BOTH:
                self._kill(process)
                self._kill_plant(deed)
            case Deed.TERMINATE:
                self.counts[deed.value] += 1
                process.send(signal.SIGTERM)
                process.wait()
            case Deed.STOP:
                self.counts[deed.value] += 1
                process.send(signal.SIGSTOP)
                Event().wait(rng.uniform(1.0, 3.0))
                process.send(signal.SIGCONT)
                process.wait()
            case Deed.RIVAL:
                if process.hears("] ") and process.alive:
                    self._require_locked(process)
                process.wait()
        assert process.wait(0.0) is not None, process

    def _kill(self, process: Process) -> None:
        if process.kill():
            self.kills += 1
            self.counts[Deed.KILL.value] += 1

    def _kill_plant(self, deed: Deed) -> None:
        self._site.kill_plant()
        self._to_connect = True  # a plant that lost its power comes back disconnected
        self.counts[Deed.KILL_PLANT.value] += 1
        self.counts[deed.value] += deed is not Deed.KILL_PLANT

    def _require_locked(self, process: Process) -> None:
        """One owner: whoever comes second is told so."""
        site = self._site
        owner = None if site.lock_is_free() else site.lock_owner()
        code, told = site.command("resume", "--journal", site.journal, "--bench", *site.bus)
        if site.lock_is_free():
            return  # the first one may have let go before the second asked
        self.counts[Deed.RIVAL.value] += 1
        assert owner == process.pid, (owner, process)
        assert (code, told["error"]["name"]) == (Locked.exit_code, "LOCKED"), told
        assert str(process.pid) in told["error"]["why"]

    # --- what is looked at ----------------------------------------------------------------------------

    def _time(self, process: Process) -> None:
        line = process.line(GOES_ON)
        if line is not None:
            starved = line.starved_s
            self.decisions.append(Decision(line.at_s, starved, f"{process}\n{self._site.told}"))

    def _require_fair_end(self, process: Process, code: int, deed: Deed | None) -> None:
        """A typed end that says what to do, and nothing of our own breaks."""
        assert "Traceback" not in repr(process), process
        assert code not in (1, 2), process
        if code:
            name = next(
                (line.text.split()[1].rstrip(":") for line in process.lines if line.text.startswith("error ")), ""
            )
            self.outcomes[f"{name} after {'nothing' if deed is None else deed.name}"] += 1
            assert name.isupper(), process
            assert process.line("what to do: ") is not None, process
        if deed is Deed.TERMINATE:
            assert code in (0, Interrupted.exit_code) or code >= 40, process

    def _check(self, *, asks: bool) -> None:
        """What can be seen from outside once the command is gone."""
        site = self._site
        assert site.lock_is_free()
        site.require_no_violation()
        self._read_history()
        if not asks:
            return
        self.counts["looks at a plant that was left alone, by status and inventory"] += 1
        unfinished = self._unfinished
        status = site.start("status", *site.bus, "--journal", site.journal, "--json")
        bootable = patiently(self._boots)
        assert bootable, f"inventory does not work\n{site.plant}\n{site.told}"
        assert status.wait() is not None, status
        said = status.document
        if said["result"] == "error":  # nothing to look at: the plant itself is only just coming back
            assert said["error"]["remedy"], said
            return
        assert all(refusal["remedy"] for refusal in said["refusals"])
        if unfinished is None:
            assert said["upgrade"] is None or said["upgrade"]["ended_at"], said
        else:
            assert (said["upgrade"]["id"], said["upgrade"]["ended_at"]) == (unfinished["id"], None), said
            assert said["upgrade"]["next_command"] == f"ess-can resume --journal {site.journal}"

    def _boots(self) -> bool:
        """Whether every node answers with an image that it runs."""
        images = [node["image"] for node in self._inventory()]
        return len(images) == 2 and set(images) <= {"confirmed", "trial"}

    def _inventory(self) -> Any:
        """The nodes as they answer; none if the command fails."""
        code, told = self._site.command("inventory", *self._site.bus)
        if code:
            self._note(f"inventory: {told['error']['name']}")
            return []
        return told["nodes"]

    def _read_history(self) -> None:
        """The journal opens, and its chain holds with all that was in it before."""
        head = ("--head", self._head) if self._head else ()
        code, told = self._site.command("history", "--journal", self._site.journal, "--verify", *head)
        assert code == 0, told
        self._head, self._upgrades = told["head"], told["upgrades"]

    @property
    def _unfinished(self) -> Any:
        """The upgrade that has not ended; None if there is none."""
        return None if not self._upgrades or self._upgrades[-1]["ended_at"] else self._upgrades[-1]

    def _done(self, file: Path) -> bool:
        """Whether the journal has it that the upgrade of this file is done."""
        last = self._upgrades[-1] if self._upgrades else {"file_sha256": "", "result": ""}
        return (last["file_sha256"], last["result"]) == (sha256(file), "done")

    def _require_runs(self, version: str) -> None:
        """Whoever answers says so; but on a machine with too much to do a question may be lost, and is asked again."""
        nodes: list[Any] = []

        def answered() -> bool:
            nodes[:] = self._inventory()
            return len(nodes) == 2

        assert patiently(answered), f"inventory does not work\n{self._site.plant}\n{self._site.told}"
        assert {(node["version"], node["image"]) for node in nodes} == {(version, "confirmed")}, nodes
        self.counts["upgrades that were DONE in the end"] += 1
        self._to_connect = False

    def _note(self, text: str) -> None:
        self._site.log.append(f"{self._at.elapsed_s():8.2f} {text}")


def sha256(file: Path) -> str:
    """As the journal has it."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_is_killed_the_upgrade_is_done_in_the_end(part: int, tmp_path: Path, count: Count) -> None:
    stopwatch = Stopwatch()

    def run(number: int) -> Operator:
        with Site(tmp_path / f"site{number}", seed=number + 1) as site:
            operator = Operator(site, f"{SEED} {part} {number}")
            operator.work(KILLS)
            return operator

    with ThreadPoolExecutor(SITES) as pool:
        operators = [future.result() for future in [pool.submit(run, number) for number in range(SITES)]]

    counts = sum((operator.counts for operator in operators), Counter[str]())
    outcomes = sum((operator.outcomes for operator in operators), Counter[str]())
    decisions = sorted(decision for operator in operators for decision in operator.decisions)
    for row, cases in counts.items():
        count(row, cases)
    judged = [decision for decision in decisions if decision.counts]
    count("decisions of a real process about what it found unfinished", len(decisions))
    count("of these, made with a CPU to run on, and within 5 s each", len(judged))
    for name, those in (("all", decisions), ("with a CPU", judged)):
        worst = those[-1].after_s if those else 0.0
        sys.stderr.write(f"{len(those)} decisions, {name}: the worst {worst:.2f} s after the process's start\n")
    sys.stderr.write(f"{stopwatch.elapsed_s():.0f} s, ends: {dict(outcomes)}\n")
    assert SCALE is Scale.QUICK or decisions
    for decision in decisions:
        waited_s = 0.0 if decision.counts else decision.starved_s
        assert decision.after_s - waited_s <= DECIDED_S, decision.how
