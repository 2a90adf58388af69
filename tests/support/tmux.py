"""A terminal with a person: a shell in tmux, of any size, that can be typed into and looked at."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.rig import wait_until

__all__ = ["Tmux", "shell"]


class Tmux:
    """A session of a server of its own."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def run(self, *arguments: str) -> str:
        """A tmux command's output."""
        done = subprocess.run(
            ["tmux", "-f", "/dev/null", "-S", str(self._socket), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        return done.stdout

    def type(self, *keys: str) -> None:
        """Press keys, by tmux's names for them; other text is typed."""
        for key in keys:
            self.run("send-keys", "-t", "0", key)

    def screen(self, *, colours: bool = False) -> str:
        """What is to be seen."""
        return self.run("capture-pane", "-p", "-t", "0", *(["-e"] if colours else []))

    def lines(self) -> list[str]:
        """The same by lines."""
        return self.screen().split("\n")

    def wait_for(self, what: str | Callable[[str], object]) -> str:
        """Wait until a text is to be seen, or something holds of the screen; returns that."""
        found: list[str] = []

        def is_there() -> bool:
            found[:] = [self.screen()]
            return what in found[0] if isinstance(what, str) else bool(what(found[0]))

        wait_until(is_there, lambda: f"{what!r} in\n{found[0]}", 30)
        return found[0]

    def resize(self, width: int, height: int) -> None:
        """Give the terminal another size."""
        self.run("resize-window", "-t", "0", "-x", str(width), "-y", str(height))

    def told(self, form: str) -> str:
        """What tmux knows of the pane: `#{alternate_on}`."""
        return self.run("display-message", "-p", "-t", "0", form).strip()


@contextmanager
def shell(folder: Path, width: int, height: int, **environment: str) -> Iterator[Tmux]:
    """A shell at its prompt, until the block ends."""
    tmux = Tmux(folder / "tmux")
    given = [f"-e{name}={value}" for name, value in environment.items()]
    size = ("-x", str(width), "-y", str(height))
    tmux.run("new-session", "-d", *size, *given, "bash --norc --noprofile")
    try:
        tmux.wait_for("bash-")
        yield tmux
    finally:
        tmux.run("kill-server")
