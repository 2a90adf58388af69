"""The base of classes that a `with` block closes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

__all__ = ["Closing"]


class Closing(ABC):
    """A context manager that yields itself and calls `close()` at the end."""

    @abstractmethod
    def close(self) -> None:
        """Release everything. A second call has no effect."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()
