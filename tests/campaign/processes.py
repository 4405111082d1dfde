"""A real plant and its real gateway side by side: two processes that may be killed, stopped and started again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ess_can.cli.stopwatch import Stopwatch

GROUP = "239.74.163.2"
LIMIT_S = 120.0
"""For whatever is waited for: finite, and no measure of speed."""

ESS_CAN = (sys.executable, "-m", "ess_can")


def starved_s(pid: int) -> float:
    """For how many seconds this process was ready to run and got no CPU so far; 0 if it is gone, or nobody tells."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text("ascii").split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


@dataclass(frozen=True, slots=True)
class Line:
    """What a process printed, when after its start, and for how long it had waited for a CPU by then."""

    at_s: float
    starved_s: float
    text: str


class Process:
    """A process that was started, and its lines on stdout and stderr."""

    def __init__(self, *arguments: str | Path) -> None:
        self.command = [*ESS_CAN, *map(str, arguments)]
        self.lines: list[Line] = []
        self.stopwatch = Stopwatch()
        self._news = threading.Condition()
        self._silent = False
        self._process = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as printed:
            for line in printed:
                with self._news:
                    self.lines.append(Line(self.stopwatch.elapsed_s(), starved_s(self.pid), line.rstrip("\n")))
                    self._news.notify_all()
        with self._news:
            self._silent = True
            self._news.notify_all()

    def hears(self, *texts: str, within_s: float = LIMIT_S) -> bool:
        """Wait for a line with one of `texts`; false if the process ends, or the time is over, without one."""

        def heard() -> bool:
            return any(self.line(text) is not None for text in texts)

        with self._news:
            self._news.wait_for(lambda: self._silent or heard(), within_s)
        return heard()

    def line(self, text: str) -> Line | None:
        """The first line with `text`."""
        return next((line for line in self.lines if text in line.text), None)

    def wait(self, within_s: float = LIMIT_S) -> int | None:
        """Its exit code; None if it has not ended by then."""
        try:
            code = self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join(LIMIT_S)
        return code

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        self._process.send_signal(number)

    def kill(self) -> bool:
        """Send SIGKILL; whether that is what ended it."""
        self._process.kill()
        assert self.wait() is not None, self
        return self._process.returncode == -signal.SIGKILL

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    @property
    def document(self) -> Any:
        """What a command with --json printed."""
        return json.loads("\n".join(line.text for line in self.lines))

    def __repr__(self) -> str:
        text = "\n".join(f"{line.at_s:8.2f} {line.text}" for line in self.lines)
        return f"{' '.join(self.command)} (exit code {self._process.poll()}) printed:\n{text}"


def free_port() -> int:
    """A UDP port that nobody uses now: another plant on this machine must not hear this one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


class Site:
    """A plant of one rack with its folder of memories, and a gateway computer with its journal.

    A context: all processes end with it, the plant by Ctrl-C, and what its monitors say is checked.
    """

    def __init__(self, folder: Path, *, seed: int) -> None:
        self.folder = folder
        self.journal = folder / "journal"
        self.log: list[str] = []
        self._plant_options = ("--state", folder / "plant", "--seed", str(seed), "--speed", "50", "--flash-kib", "64")
        self.bus = ("-i", "udp_multicast", "-c", GROUP, "--bus-kwargs", f"port={free_port()}", "--racks", "1")
        self._processes: list[Process] = []
        self.plant = self._start_plant()

    def start(self, *arguments: str | Path) -> Process:
        """Start a command."""
        self._processes = [process for process in self._processes if process.alive]
        process = Process(*arguments)
        self._processes.append(process)
        return process

    def command(self, name: str, *arguments: str | Path) -> tuple[int, Any]:
        """Exit code and document of a command that ends by itself."""
        process = self.start(name, *arguments, "--json")
        code = process.wait()
        assert code is not None, process
        try:
            return code, process.document
        except ValueError:
            raise AssertionError(f"no document: {process}") from None

    # --- the plant ----------------------------------------------------------------------------------

    def _start_plant(self) -> Process:
        plant = self.start("sim", "plant", *self.bus, *self._plant_options, "--monitors")
        assert plant.hears("The plant runs."), plant
        return plant

    def kill_plant(self) -> None:
        """Take the plant's power away, and give it back."""
        self.require_no_violation()
        assert self.plant.kill(), self.plant
        self.plant = self._start_plant()

    def require_no_violation(self) -> None:
        """Whatever was done to it, the plant kept to the rules so far."""
        assert self.plant.line("violation at") is None, f"{self.plant}\n{self.told}"
        assert self.plant.alive, self.plant

    # --- the gateway computer -----------------------------------------------------------------------

    def lock_is_free(self) -> bool:
        """Whether nobody works with the journal."""
        import fcntl

        try:
            handle = os.open(self.journal / "lock", os.O_RDWR)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(handle)
        return True

    def lock_owner(self) -> int:
        """Who wrote his number into the lock."""
        return int((self.journal / "lock").read_text("ascii"))

    # --- the end ------------------------------------------------------------------------------------

    @property
    def told(self) -> str:
        """What was done so far."""
        return "\n".join(self.log)

    def __enter__(self) -> Site:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.require_no_violation()
                self.plant.send(signal.SIGINT)
                assert self.plant.wait() == 0, self.plant
        finally:
            for process in self._processes:
                if process.alive:
                    process.send(signal.SIGCONT)
                    process.kill()
            if kind is None:
                shutil.rmtree(self.folder)


def patiently(works: Callable[[], bool], tries: int = 10) -> bool:
    """Whether it works, now or a little later."""
    pause = threading.Event()
    return any(works() or pause.wait(1.0) for _ in range(tries))
