"""Locks that no thread holds at the moment of a fork, so that none stays locked in the child."""

from __future__ import annotations

import os
import threading
import weakref

__all__ = ["new_lock"]

_locks: weakref.WeakSet[threading.RLock] = weakref.WeakSet()
_held: list[threading.RLock] = []
_forking = threading.Lock()


def new_lock() -> threading.RLock:
    """A lock that `fork()` waits for. Whoever holds it must not wait for another such lock.

    It is reentrant: a signal handler runs in the main thread, which may hold it.
    """
    lock = threading.RLock()
    with _forking:  # which walks through the set
        _locks.add(lock)
    return lock


def _before() -> None:
    _forking.acquire()
    for lock in list(_locks):
        lock.acquire()
        _held.append(lock)


def _after() -> None:
    while _held:
        _held.pop().release()
    _forking.release()


os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after)
