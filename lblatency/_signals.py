"""Wait for Ctrl-C and SIGTERM, instead of being interrupted by them."""

from __future__ import annotations

import signal
from types import TracebackType

__all__ = ["HeldSignals"]

_ENDING = (signal.SIGINT, signal.SIGTERM)


class HeldSignals:
    """Blocks both signals, and others, while the block runs. Child processes inherit the mask.

    A terminal's Ctrl-C, `timeout` and systemd signal the demo's workers too. The workers must
    survive that, because the demo ends the traffic in order. They end when their pipe or the
    demo's process ends.

    Args:
        others: to be held likewise.
    """

    def __init__(self, *others: signal.Signals) -> None:
        self._held = (*_ENDING, *others)

    def __enter__(self) -> HeldSignals:
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, self._held)
        return self

    def wait(self) -> None:
        """Wait for one of the signals."""
        signal.sigwait(self._held)

    def next(self, timeout: float) -> int | None:
        """Wait up to `timeout` seconds for one of the signals; returns the one that came."""
        arrived = signal.sigtimedwait(self._held, timeout)
        return None if arrived is None else arrived.si_signo

    def arrived(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for one of the signals; True if one came."""
        return self.next(timeout) is not None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self.arrived(0):
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)
