"""What of a source outlives its process: programs, links and maps in a BPF file system.

They are in `DIR/v<layout>/<source>`, so that versions that keep other things do not mix. Whoever
uses them has a lock on that directory. Some have fixed names; more may come and go beside them.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from .._closing import Closing
from .._ffi import check, lib
from ..errors import BpfError, LatencyError

__all__ = ["Pins"]

# The group's, too, and what comes later: a privileged process pins, an unprivileged one goes on.
_FOLDER_MODE = 0o2770
_FILE_MODE = 0o660


class Pins(Closing):
    """The pins of one source below a directory, for the only process that uses them.

    Args:
        directory: in a mounted bpffs; made if missing. Files in it have its group.
        source: the name of the source.
        names: of the pins without which no other is of use; all of them are there, or none.

    Raises:
        BpfError: the directory cannot be made or opened.
        LatencyError: the directory is not in a bpffs, another process uses the pins, or another
            version of lblatency made some.
    """

    def __init__(
        self, directory: str | os.PathLike[str], source: str, names: Sequence[str]
    ) -> None:
        self._lock = -1
        self._root = Path(directory)
        self._check_place()
        layout = f"v{lib.LBL_PIN_LAYOUT}"
        self._refuse_others(layout, source)
        self._folder = self._root / layout / source
        self._names = tuple(names)
        try:
            self._make()
            self._lock = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise LatencyError(
                f"another process uses the pins in {self._folder}; stop it first"
            ) from None
        except OSError as error:
            self.close()
            raise BpfError.from_errno(error.errno or errno.EIO, f"pin in {directory}") from None

    def __str__(self) -> str:
        """The directory in which they are."""
        return str(self._folder)

    def _check_place(self) -> None:
        """Refuse another file system before anything is made there."""
        places = (self._root, *self._root.parents)  # as they are: what is above may be hidden
        found = (lib.lbl_is_bpffs(os.fsencode(each)) for each in places)
        if next(rc for rc in found if rc != -errno.ENOENT) == 0:
            raise LatencyError(
                f"{self._root} is not in a BPF file system; name a directory in one, such as"
                " /sys/fs/bpf/lblatency, or mount one there: `mount -t bpf bpf DIR`"
            )

    def _refuse_others(self, layout: str, source: str) -> None:
        for other in sorted(self._root.glob(f"v*/{source}/*")):
            if other.parent.parent.name != layout:
                raise LatencyError(
                    f"{other.parent} was pinned by another version of lblatency, and this one pins"
                    f" in {layout}: let that version end, or remove the directory; connections"
                    " that are open then have no lifetime"
                )

    def _make(self) -> None:
        group = None
        for folder in (self._root, self._folder.parent, self._folder):
            with suppress(FileExistsError):
                folder.mkdir()
                if group is not None:
                    os.chown(folder, -1, group)
                folder.chmod(_FOLDER_MODE)
            group = folder.stat().st_gid

    def open(self) -> dict[str, int] | None:
        """The descriptors of what is pinned, to be closed; None if that is not everything.

        Raises:
            BpfError: this process may not open it.
        """
        found: dict[str, int] = {}
        for name in self._names:
            fd = lib.lbl_pinned(os.fsencode(self._folder / name))
            if fd < 0:
                for other in found.values():
                    os.close(other)
                if fd == -errno.ENOENT:
                    return None
                check(fd, f"open the pin {self._folder / name}")
            found[name] = fd
        return found

    def others(self) -> list[Path]:
        """The paths of all other pins."""
        try:
            return [each for each in self._folder.iterdir() if each.name not in self._names]
        except FileNotFoundError:
            return []

    def put(self, fds: Mapping[str, int]) -> None:
        """Pin all, in the order of the names; remove what was there.

        Raises:
            BpfError: the kernel refuses.
        """
        self.remove()
        try:
            for name in self._names:
                self._pin(name, fds[name])
        except BaseException:
            self.remove()
            raise

    def set_others(self, fds: Mapping[str, int]) -> None:
        """Pin these beside what has fixed names; remove all others.

        A pin that is there already is left as it is, so a name must always mean the same.

        Raises:
            BpfError: the kernel refuses.
        """
        try:
            there = {path.name: path for path in self.others()}
            for name in there.keys() - fds.keys():
                there[name].unlink()
            for name in sorted(fds.keys() - there.keys()):
                self._pin(name, fds[name])
        except OSError as error:
            raise BpfError.from_errno(error.errno or errno.EIO, f"pin in {self}") from None

    def _pin(self, name: str, fd: int) -> None:
        path = self._folder / name
        check(lib.lbl_pin(fd, os.fsencode(path)), f"pin in {self._root}")
        path.chmod(_FILE_MODE)

    def remove(self) -> None:
        """Remove the pins, last first, so that nothing runs whose maps are gone."""
        named = [self._folder / name for name in reversed(self._names)]
        for path in (*self.others(), *named):
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let others use the pins. A second call has no effect."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)
