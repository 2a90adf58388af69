"""The ways to balance the demo's connections. Each opens the source that follows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..sources import Source
from .nat import open_ebpf, open_nftables
from .programs import NGINX_STREAM
from .proxy import open_haproxy, open_nginx
from .worker import Worker

__all__ = ["OWN_WAY", "WAYS", "Way"]


class Way(NamedTuple):
    """A balancer of a kind.

    Attributes:
        open: sets it up in the worker's network namespace, and follows its connections. It ends
            with the source or with the worker.
        is_proxy: whether it opens connections of its own to the backends.
        needs: what must be installed, of `programs.PACKAGES`.
    """

    open: Callable[[Worker], Source]
    is_proxy: bool
    needs: tuple[str, ...] = ()


OWN_WAY = "ebpf"
WAYS = {
    OWN_WAY: Way(open_ebpf, is_proxy=False),
    "haproxy": Way(open_haproxy, is_proxy=True, needs=("haproxy",)),
    "nginx": Way(open_nginx, is_proxy=True, needs=("nginx", NGINX_STREAM)),
    "nft": Way(open_nftables, is_proxy=False, needs=("nft",)),
}
