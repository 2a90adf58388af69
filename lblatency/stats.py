"""The stats event stream: the ring buffers of a load balancer, and copies of their events."""

from __future__ import annotations

import errno
import math
import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from numbers import Real
from operator import index
from typing import Any, NamedTuple

from ._closing import Closing
from ._ffi import check, ffi, lib
from ._maps import MapSpec, counters_of, inner_maps, map_fd, pin_path
from .errors import BpfError, LatencyError, NotPinnedError
from .event import NEVER, Event, decode

__all__ = [
    "NEVER",
    "Event",
    "EventStream",
    "MemoryRing",
    "StreamStats",
    "Subscription",
    "create_event_stream",
]

_WAIT_MS = 200  # how long a waiting subscriber takes to notice a signal
_LONGEST = 1e9  # seconds; a longer timeout may as well be for ever
_TURN = 64  # events that an asyncio task takes before it lets others run
_POLL_S = 0.1  # between looks for a pin that is not there yet


class StreamStats(NamedTuple):
    """Where a stream's events are: `produced = received + taken + dropped + in_ring`.

    The counts start when the stream is created, with the records that are in the ring then. They
    never go down, except `in_ring`. `produced` and `dropped` are the producer's own counts; they
    are None if the ring has no counters map, or if another stream of this process reads other
    rings that the same map counts for.

    Attributes:
        produced: events that the producers tried to send.
        received: records that were read from the rings.
        dropped: events that did not fit into a ring.
        in_ring: records in the rings.
        corrupt: how often a ring was invalid and skipped to its end.
        fill_bytes: bytes in the rings.
        fill_max_bytes: the highest fills that drains found.
        size_bytes: of the rings.
        taken: records that left a ring without this stream. It is 0 unless another program consumes
            the ring too, or a ring was given up in which a record stayed reserved.
        moved: how often another program moved a ring's consumer position. A position that was set
            back is restored, so that no event comes twice; one that was set ahead took events.
        replaced: how often another ring was pinned in a ring's place, and taken up.
        attached: False if a ring's pin is gone, or the ring that is pinned is not taken up yet.
        stalled_since_ns: `time.monotonic_ns()` since when a record stays reserved, and keeps all
            later ones of its ring back; 0 if none does.
    """

    produced: int | None
    received: int
    dropped: int | None
    in_ring: int
    corrupt: int
    fill_bytes: int
    fill_max_bytes: int
    size_bytes: int
    taken: int
    moved: int
    replaced: int
    attached: bool
    stalled_since_ns: int


def stream_stats(raw: Any) -> StreamStats:
    """A C `struct lbl_stream_stats` in Python."""
    return StreamStats(
        produced=raw.produced if raw.counted else None,
        received=raw.received,
        dropped=raw.dropped if raw.counted else None,
        in_ring=raw.in_ring,
        corrupt=raw.corrupt,
        fill_bytes=raw.fill_bytes,
        fill_max_bytes=raw.fill_max_bytes,
        size_bytes=raw.size_bytes,
        taken=raw.taken,
        moved=raw.moved,
        replaced=raw.replaced,
        attached=bool(raw.attached),
        stalled_since_ns=raw.stalled_since_ns,
    )


def check_room(rc: int, what: str) -> None:
    """`check()` for calls that attach to a stream, which has few places."""
    if rc == -errno.ENOSPC:
        raise BpfError(-rc, f"{what}: all its places are taken; stop or close another user")
    check(rc, what)


def _deadline(timeout: float | None) -> float:
    """When to stop waiting, by `time.monotonic()`."""
    if timeout is None:
        return math.inf
    if not isinstance(timeout, Real):
        raise TypeError(f"timeout must be seconds or None, not a {type(timeout).__name__}")
    if timeout != timeout:
        raise ValueError("timeout must be seconds or None, not NaN")
    return math.inf if timeout > _LONGEST else time.monotonic() + float(max(0, timeout))


async def _readable(fd: int) -> None:
    """Wait for an fd in asyncio. Any number of tasks may wait for the same one."""
    import asyncio  # of all users of this package, only those that have it already come here

    readable = asyncio.Event()
    loop = asyncio.get_running_loop()
    own = os.dup(fd)  # a loop has one reader for each fd
    try:
        loop.add_reader(own, readable.set)
        await readable.wait()
    finally:
        loop.remove_reader(own)
        os.close(own)


class Subscription(Closing):
    """A bounded queue of decoded events. While it is full, events are dropped and counted.

    Iterate over it with `for` or, in asyncio, `async for`; call `get()`; or wait for `fileno()` in
    another event loop. Several threads and tasks may do so at once: each event goes to one of them.
    Iteration ends when the queue is closed, which any thread may do. The stream and its other users
    never wait for a subscriber.
    """

    def __init__(self, streams: Sequence[Any], maxsize: int) -> None:
        if not 1 <= index(maxsize) <= lib.LBL_QUEUE_EVENTS_MAX:
            raise ValueError(
                f"maxsize must be at least 1 and at most {lib.LBL_QUEUE_EVENTS_MAX}, not {maxsize}"
            )
        out = ffi.new("struct lbl_queue **")
        rc = lib.lbl_queue_new(maxsize, out)
        if rc == -errno.ENOMEM:
            raise MemoryError(f"no memory for a queue of {maxsize} events; lower maxsize")
        check(rc, "making a queue")
        self._ptr: Any = ffi.gc(out[0], lib.lbl_queue_free)
        self._maxsize = maxsize
        self._closed = False
        for stream in streams:
            check_room(lib.lbl_queue_subscribe(self._ptr, stream), "subscribing to a stream")

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{lib.lbl_queue_waiting(self._ptr)} events waiting"
        return f"<Subscription: {state}, maxsize={self._maxsize}, dropped={self.dropped}>"

    def get(self, timeout: float | None = None) -> Event | None:
        """The next event; None if none came within `timeout` seconds, or the queue is closed.

        Args:
            timeout: None and infinity wait until there is one, or the queue is closed; 0 and less
                do not wait.

        Raises:
            ValueError: the timeout is NaN.
        """
        deadline = _deadline(timeout)
        seen = ffi.new("struct lbl_decoded_event *")
        while not self._closed:
            left = deadline - time.monotonic()
            wait = max(0, math.ceil(min(_WAIT_MS, left * 1000)))
            if lib.lbl_queue_pop(self._ptr, wait, 1, seen):
                return decode(seen)
            if left * 1000 <= wait:
                break
        return None

    def __iter__(self) -> Iterator[Event]:
        while (event := self.get()) is not None:
            yield event

    async def __aiter__(self) -> AsyncIterator[Event]:
        taken = 0
        while not self._closed:
            event = self.get(timeout=0)
            if event is None:
                await _readable(self.fileno())
                continue
            yield event
            taken += 1
            if taken % _TURN == 0:
                await _readable(self.fileno())

    def fileno(self) -> int:
        """An fd that is readable while events wait, and once the queue is closed.

        Wait for it with select, epoll or any event loop, then call `get(timeout=0)` until it gives
        None; if `closed` is true then, that was the last. Do not read or close the fd: it belongs
        to this object.

        Raises:
            BpfError: this process can open no more files.
        """
        return check(lib.lbl_queue_fd(self._ptr), "making an fd to wait for events")

    @property
    def closed(self) -> bool:
        """Whether it is closed, so that no event will come any more."""
        return self._closed

    @property
    def dropped(self) -> int:
        """How many events this queue had no room for."""
        return int(lib.lbl_queue_dropped(self._ptr))

    def close(self) -> None:
        """Unsubscribe, and wake all who wait. Events that are still in the queue are lost."""
        self._closed = True
        lib.lbl_queue_close(self._ptr)


class EventStream(Closing):
    """One or more ring buffers of events, each with a thread of its own.

    `create_event_stream()` makes it. The rings are drained while somebody uses it: up to 32
    trackers and subscriptions.

    Attributes:
        proxies: the `proxy_name` labels of this stream's events, as `LatencyTracker.start()` takes
            them; that of id 0 is for events without one. Trackers read them when they start.
    """

    def __init__(self, streams: Sequence[Any], names: Sequence[str] | None = None) -> None:
        self.proxies: dict[int | str, str] = {}
        self._streams = list(streams)
        self._names = ["a ring"] * len(self._streams) if names is None else list(names)
        rings = ffi.new("struct lbl_stream *[]", self._streams)
        out = ffi.new("struct lbl_ledger **")
        check(lib.lbl_ledger_new(rings, len(rings), out), "reading a stream's counters")
        self._ledger: Any = ffi.gc(out[0], lib.lbl_ledger_free)

    @property
    def streams(self) -> list[Any]:
        """The C streams, one per ring."""
        if not self._streams:
            raise ValueError("the event stream is closed")
        return self._streams

    def __repr__(self) -> str:
        n = len(self._streams)
        state = f"{n} ring{'s' * (n > 1)}" if n else "closed"
        alive = all(lib.lbl_stream_alive(stream) for stream in self._streams)
        return f"<EventStream: {state}{'' if alive else ' of the parent process'}>"

    def subscribe(self, maxsize: int = 10_000) -> Subscription:
        """Get a copy of all events from now on, for an access log or an aggregator.

        Args:
            maxsize: how many events may wait for the subscriber. Each takes about 100 bytes.
        """
        return Subscription(self.streams, maxsize)

    def drain(self) -> int:
        """Consume the records in the rings now, not at the next tick; returns how many.

        Without a tracker or a subscription, nothing is consumed.
        """
        return sum(check(lib.lbl_stream_drain(stream), "draining") for stream in self.streams)

    @property
    def alive(self) -> bool:
        """False in a child of `fork()`, since the parent's streams deliver nothing there."""
        return all(lib.lbl_stream_alive(stream) for stream in self.streams)

    def detached(self) -> list[str]:
        """The pins that are gone, or whose ring is not taken up yet; each name once."""
        each = zip(self.streams, self._names, strict=True)
        return list(
            dict.fromkeys(name for stream, name in each if not lib.lbl_stream_attached(stream))
        )

    def stats(self) -> StreamStats:
        """How many events were produced and where they are, over all rings, at one moment."""
        ledger = self._ledger
        if ledger is None:
            raise ValueError("the event stream is closed")
        raw = ffi.new("struct lbl_stream_stats *")
        check(lib.lbl_ledger_read(ledger, raw), "reading a stream's counters")
        return stream_stats(raw)

    def close(self) -> None:
        """Release the rings. Trackers and subscriptions keep them until they end."""
        self._streams = []
        self._ledger = None


class MemoryRing:
    """A ring buffer in this process, for producers without BPF: simulations and tests.

    Args:
        size: bytes, a power of two of at least a page. An event takes 64 bytes.
    """

    def __init__(self, size: int = 1 << 20) -> None:
        out = ffi.new("struct lbl_stream **")
        rc = lib.lbl_stream_memory(size, out) if 0 < size < 1 << 31 else -errno.EINVAL
        if rc == -errno.EINVAL:
            raise ValueError(f"ring size must be a power of two of at least a page, not {size!r}")
        check(rc, "making a ring in memory")
        self.ptr = ffi.gc(out[0], lib.lbl_stream_free)
        self._size = size

    def __repr__(self) -> str:
        return f"MemoryRing(size={self._size})"

    def produce(self, record: bytes | bytearray | memoryview) -> bool:
        """Append one record; False if the ring was full and it was dropped, which is counted.

        Args:
            record: bytes, or another object with a contiguous buffer.

        Raises:
            TypeError: it is no such object.
            ValueError: it can never fit into this ring.
        """
        view = memoryview(record)
        if not view.c_contiguous:
            raise TypeError("a record must be contiguous in memory")
        rc = -errno.EINVAL
        if view.nbytes < 2**32:
            rc = lib.lbl_stream_produce(self.ptr, ffi.from_buffer(view), view.nbytes)
        if rc == -errno.EINVAL:
            raise ValueError(f"a record of {view.nbytes} bytes can never fit into this ring")
        return rc != -errno.ENOSPC and check(rc, "producing an event") == 0


def _held_by(holder: Any) -> str:
    """Whom to ask for a ring, in words."""
    if holder.is_near and holder.pid == os.getpid():
        return "this process consumes it already; close its stream first"
    if not holder.pid:
        where = "another process"
    elif not holder.is_near:
        where = f"process {holder.pid} of another pid namespace"
    else:
        where = f"process {holder.pid}"
    return f"{where} consumes it already; stop that process or close its stream"


def _open_ring(
    ring: MapSpec, counters: MapSpec | None, index: int | None, fd: int, counters_fd: int
) -> Any:
    """Open the ring `fd`; `index` is its place if `ring` names an array."""
    found = None if counters is None else pin_path(counters)
    paths = [
        ffi.NULL if path is None else ffi.new("char[]", path) for path in (pin_path(ring), found)
    ]
    pin = {
        "path": paths[0],
        "in_array": index is not None,
        "index": index or 0,
        "counters": paths[1],
        "keeps_counters": counters is not None and found is None,
    }
    out = ffi.new("struct lbl_stream **")
    holder = ffi.new("struct lbl_holder *")
    rc = lib.lbl_stream_open(fd, counters_fd, ffi.new("struct lbl_pin *", pin), holder, out)
    if rc == -errno.EINVAL:
        raise LatencyError(
            f"map {ring} is no ring buffer of events, or its counters map is not one of"
            " bpf/include/lblatency.bpf.h"
        )
    if rc == -errno.EBUSY:
        raise BpfError(errno.EBUSY, f"ring {ring}: {_held_by(holder)}")
    check(rc, f"opening the ring buffer {ring}")
    return ffi.gc(out[0], lib.lbl_stream_free)


def _open_all(rings: Sequence[MapSpec], counters: MapSpec | None) -> EventStream:
    """Open all rings, also those in arrays of maps."""
    streams: list[Any] = []
    names: list[str] = []
    with ExitStack() as stack:
        unless_all = stack.enter_context(ExitStack())
        for ring in rings:
            fd = stack.enter_context(map_fd(ring))
            find = counters_of(ring, fd) if counters is None else map_fd(counters)
            counters_fd = stack.enter_context(find)
            inner = stack.enter_context(inner_maps(fd))
            if inner == {}:
                raise NotPinnedError(
                    f"array {ring} has no rings in it yet; the balancer must add them"
                )
            for index, each in [(None, fd)] if inner is None else inner.items():
                streams.append(_open_ring(ring, counters, index, each, counters_fd))
                unless_all.callback(ffi.release, streams[-1])  # who keeps the error keeps no ring
                names.append(str(ring))
        opened = EventStream(streams, names)
        unless_all.pop_all()
    return opened


def create_event_stream(
    ringbuf: MapSpec | MemoryRing | Sequence[MapSpec],
    *,
    counters: MapSpec | None = None,
    wait: float = 0,
) -> EventStream:
    """Become the consumer of a load balancer's events.

    A ring that is given by its pin path is followed: if a balancer that restarts pins another ring
    there, the stream drains the old one to its end and goes on with the new one. `EventStream.
    stats()` has `attached` and `replaced`.

    Args:
        ringbuf: the ring buffer map, or an array of ring buffer maps: an open fd, a pin path, an id
            (digits in a string) or a name; or a sequence of these; or a `MemoryRing`. Each ring
            gets a drain thread.
        counters: the `lbl_counters` map that counts for all these rings, given the same way. By
            default it is looked for beside the pin of each ring, and among the maps of the programs
            that use the ring.
        wait: for how many seconds to wait for pins that are not there yet; `math.inf` for ever.

    Raises:
        NotPinnedError: nothing is pinned at a path.
        BpfError: there is no such map, the kernel refuses access to it, or the ring has a consumer.
        LatencyError: it is a map of another kind.
    """
    if isinstance(ringbuf, MemoryRing):
        if counters is not None:
            raise ValueError("a MemoryRing counts by itself; counters must be None")
        return EventStream([ringbuf.ptr])
    rings: Sequence[MapSpec]
    if isinstance(ringbuf, Sequence) and not isinstance(ringbuf, (str, bytes)):
        rings = ringbuf
    else:
        rings = [ringbuf]  # type: ignore[list-item]  # map_fd() refuses bytes
    if not rings:
        raise ValueError("there must be at least one ring")
    deadline = time.monotonic() + wait
    while True:
        try:
            return _open_all(rings, counters)
        except NotPinnedError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(_POLL_S)
