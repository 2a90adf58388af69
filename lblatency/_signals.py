"""Ctrl-C and SIGTERM as something to wait for, instead of something that interrupts."""

from __future__ import annotations

import signal
from types import TracebackType

__all__ = ["HeldSignals"]

_ENDING = (signal.SIGINT, signal.SIGTERM)


class HeldSignals:
    """Holds both signals back while the block runs. Child processes inherit that.

    A terminal's Ctrl-C, `timeout` and systemd signal the demo's workers too: they must not end by
    it, for the demo is to end the traffic in order. They end with its pipe, or its process.
    """

    def __enter__(self) -> HeldSignals:
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        return self

    def wait(self) -> None:
        """Wait for one of them."""
        signal.sigwait(_ENDING)

    def arrived(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for one of them."""
        return signal.sigtimedwait(_ENDING, timeout) is not None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self.arrived(0):
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)
