"""The HTTP server of `lblatency serve`. What it needs comes with `lblatency[exporter]`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from ..errors import LatencyError
from .listen import Address, Listener
from .systemd import passed_sockets

if TYPE_CHECKING:
    from .otlp import Push
    from .served import Served

__all__ = ["Address", "serving"]


@contextmanager
def serving(
    served: Served,
    addresses: Sequence[Address],
    tell: Callable[[str], None],
    *,
    default: Address | None = None,
    config_file: str | None = None,
    push: Push | None = None,
) -> Iterator[list[str]]:
    """Serve while the block runs; yields the URLs of /metrics.

    Args:
        served: what is served.
        addresses: where to listen, beside the sockets that systemd passes.
        tell: takes a line for people; called in other threads.
        default: where to listen if there is neither.
        config_file: of TLS, users and the like.
        push: what to push, beside.

    Raises:
        LatencyError: it cannot listen there, the file is malformed, or a library is missing.
    """
    try:
        from ._live import LiveWebConfig
        from .routes import routes
        from .server import Exporter
    except ImportError as error:
        raise LatencyError(
            f"serving needs {error.name}, which is not installed: pip install 'lblatency[exporter]'"
        ) from None
    live = LiveWebConfig(config_file, tell)
    with ExitStack() as stack:
        listeners = [stack.enter_context(Listener(each)) for each in passed_sockets()]
        for each in addresses or ([default] if default and not listeners else []):
            listeners.append(stack.enter_context(Listener(each.bind(), each.path)))
        with Exporter(served, listeners, live, tell, routes(served), push):
            yield [each.url(is_tls=live.now.config.context is not None) for each in listeners]
