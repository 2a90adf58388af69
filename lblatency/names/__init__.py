"""What servers are called. `READERS` lists where names can come from, a line per reader."""

from __future__ import annotations

from .base import Name, NameTable, Reader, Row
from .envoy import Envoy
from .file_sd import FileSd
from .haproxy import HAProxy
from .live import Names
from .nginx import Nginx

__all__ = [
    "READERS",
    "Envoy",
    "FileSd",
    "HAProxy",
    "Name",
    "NameTable",
    "Names",
    "Nginx",
    "Reader",
    "Row",
]

READERS: tuple[type[Reader], ...] = (HAProxy, Nginx, Envoy, FileSd)
