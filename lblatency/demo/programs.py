"""Programs that the demo runs, and what Debian calls their packages."""

from __future__ import annotations

import os
import shutil

from .worker import DemoError

__all__ = ["NGINX_STREAM", "PACKAGES", "find_program"]

NGINX_STREAM = "/usr/lib/nginx/modules/ngx_stream_module.so"
PACKAGES = {
    "haproxy": "haproxy",
    "nginx": "nginx libnginx-mod-stream",
    NGINX_STREAM: "nginx libnginx-mod-stream",
    "nft": "nftables",
}
_ADMIN_PATH = "/usr/local/sbin:/usr/sbin:/sbin"  # which not everybody has in PATH


def find_program(name: str) -> str:
    """The path of a program in `PACKAGES`; `DemoError`, which says what to install, if missing."""
    path = shutil.which(name, os.F_OK, f"{os.environ.get('PATH', os.defpath)}:{_ADMIN_PATH}")
    if path is None:
        raise DemoError(f"{name} is missing; apt-get install {PACKAGES[name]}")
    return path
