"""Rich's console for commands that go on when nobody reads any more."""

from __future__ import annotations

from rich.console import Console


class SteadyConsole(Console):
    """Falls silent when its output is closed; Rich's own way ends the process, and with it an upgrade."""

    def on_broken_pipe(self) -> None:
        """Called by Rich in place of raising BrokenPipeError."""
        self.quiet = True
