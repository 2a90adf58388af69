"""Wait for Ctrl-C and SIGTERM, instead of being interrupted by them."""

from __future__ import annotations

import signal
from types import TracebackType

__all__ = ["HeldSignals"]

_ENDING = (signal.SIGINT, signal.SIGTERM)


class HeldSignals:
    """Blocks both signals while the block runs. Child processes inherit the mask.

    A terminal's Ctrl-C, `timeout` and systemd signal the demo's workers too. The workers must
    survive that, because the demo ends the traffic in order. They end when their pipe or the
    demo's process ends.
    """

    def __enter__(self) -> HeldSignals:
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        return self

    def wait(self) -> None:
        """Wait for one of the signals."""
        signal.sigwait(_ENDING)

    def arrived(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for one of the signals; True if one came."""
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
