"""What happened at each backend in the last minutes and hours, as numbers and as JSON."""

from .history import (
    FINE_S,
    INTERVAL_S,
    LONGEST_S,
    Heat,
    History,
    Overview,
    Selection,
    UnknownBackendError,
    Window,
)
from .remote import RemoteView
from .view import HEAT_WINDOWS, WINDOWS, LocalView, View, parse_backend, parse_window

__all__ = [
    "FINE_S",
    "HEAT_WINDOWS",
    "INTERVAL_S",
    "LONGEST_S",
    "WINDOWS",
    "Heat",
    "History",
    "LocalView",
    "Overview",
    "RemoteView",
    "Selection",
    "UnknownBackendError",
    "View",
    "Window",
    "parse_backend",
    "parse_window",
]
