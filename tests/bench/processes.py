"""Real processes for the benches: their lines are read as they come, and waited for with a limit."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LIMIT_S = 120.0
"""For whatever is waited for: finite, and no measure of speed."""

ESS_CAN = (sys.executable, "-m", "ess_can")


class Running:
    """A process that was started, and the lines that it printed so far on stdout and stderr."""

    def __init__(self, *command: str | Path, cwd: Path | None = None) -> None:
        self.command = [str(word) for word in command]
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=cwd,
        )
        self._fresh: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as printed:
            for line in printed:
                self._fresh.put(line.rstrip("\n"))
        self._fresh.put(None)

    def wait_for(self, text: str) -> str:
        """The next line that holds `text`."""
        while (line := self._next(f"a line with {text!r}")) is not None:
            if text in line:
                return line
        raise AssertionError(f"no line with {text!r}: {self}")

    def wait(self) -> int:
        """The exit code, once it has ended by itself."""
        while self._next("its end") is not None:
            pass
        return self._process.wait(LIMIT_S)

    def _next(self, wanted: str) -> str | None:
        try:
            line = self._fresh.get(timeout=LIMIT_S)
        except queue.Empty:
            raise AssertionError(f"nothing within {LIMIT_S:g} s, waiting for {wanted}: {self}") from None
        if line is not None:
            self.lines.append(line)
        return line

    def stop(self) -> int:
        """Press Ctrl-C and wait for the end."""
        self._process.send_signal(signal.SIGINT)
        return self.wait()

    def kill(self) -> None:
        """End it at once, as a power cut does."""
        self._process.kill()
        self._process.wait(LIMIT_S)
        self._reader.join(LIMIT_S)

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    @property
    def text(self) -> str:
        """Everything that was read so far."""
        return "\n".join(self.lines)

    def __repr__(self) -> str:
        return f"{' '.join(self.command)} printed:\n{self.text}"


@contextmanager
def running(*command: str | Path, cwd: Path | None = None) -> Iterator[Running]:
    """A process that lives no longer than this context."""
    process = Running(*command, cwd=cwd)
    try:
        yield process
    finally:
        process.kill()


def run(*command: str | Path, text: str = "") -> str:
    """What a command that ends well prints on stdout."""
    done = subprocess.run(
        [str(word) for word in command], input=text, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def ess_can(*arguments: str | Path) -> tuple[int, Any]:
    """Exit code and JSON document of one of our commands."""
    command: Sequence[str] = [*ESS_CAN, *(str(argument) for argument in arguments), "--json"]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    try:
        return done.returncode, json.loads(done.stdout)
    except ValueError:
        raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}") from None
