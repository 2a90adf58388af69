"""The web configuration as it is now: read again when one of its files changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from ._auth import BasicAuth
from .web_config import Files, RateLimit, WebConfig, read_web_config

if TYPE_CHECKING:
    from prometheus_client import Metric

__all__ = ["LiveWebConfig"]

_SUCCESSFUL = "lblatency_web_config_last_reload_successful"
_SUCCESS_TIME = "lblatency_web_config_last_reload_success_timestamp_seconds"


class _Bucket:
    """A token bucket: full at first, one more per interval."""

    def __init__(self, limit: RateLimit) -> None:
        self._limit = limit
        self._tokens = float(limit.burst)
        self._at = time.monotonic()

    def allows(self) -> bool:
        """Take a token, if there is one."""
        now = time.monotonic()
        gained = (now - self._at) / self._limit.interval_s
        self._tokens = min(self._tokens + gained, float(self._limit.burst))
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class _Now(NamedTuple):
    """What was read, and what goes with it."""

    config: WebConfig
    auth: BasicAuth | None
    limiter: _Bucket | None


class LiveWebConfig:
    """What holds for a connection or a request that comes now.

    Attributes:
        now: replaced as a whole.

    Args:
        path: of the file; None if there is none.
        tell: takes a line for people.

    Raises:
        LatencyError: the file cannot be read, or must not be.
    """

    def __init__(self, path: str | None, tell: Callable[[str], None]) -> None:
        self._path = path
        self._tell = tell
        self._files = Files()
        self._is_good = True
        self._good_at = time.time()
        self.now = _Now(WebConfig(), None, None)
        if path is not None:
            self._take(path)

    def _take(self, path: str) -> None:
        """Read the file and go on with it; what it has as before keeps its state."""
        self._files = Files()
        config = read_web_config(path, self._files)
        before, auth, limiter = self.now
        if config.users != before.users:
            auth = BasicAuth(config.users) if config.users else None
        if config.rate_limit != before.rate_limit:
            limiter = _Bucket(config.rate_limit) if config.rate_limit else None
        self.now = _Now(config, auth, limiter)

    def look(self) -> None:
        """Read the file again if it, or one that it names, has changed; about once per second.

        A broken one is told once, and what was there goes on.
        """
        if self._path is None or not self._files.have_changed():
            return
        try:
            self._take(self._path)
        except Exception as error:  # whatever the file says, the server goes on
            self._is_good = False
            self._tell(f"{str(error) or repr(error)}; the web configuration that was there goes on")
        else:
            self._is_good, self._good_at = True, time.time()
            self._tell(f"{self._path} is read again")

    def collect(self) -> Iterator[Metric]:
        """Two gauges, if there is a file."""
        from prometheus_client.core import GaugeMetricFamily

        if self._path is not None:
            text = "1 if the web configuration file was good when it was last read, else 0"
            yield GaugeMetricFamily(_SUCCESSFUL, text, value=self._is_good)
            text = "When the web configuration file that is in use was read"
            yield GaugeMetricFamily(_SUCCESS_TIME, text, value=self._good_at)
