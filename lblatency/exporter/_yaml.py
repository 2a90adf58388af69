"""YAML of strangers' making: bounded, without duplicate keys, and errors in one line."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

from ..errors import LatencyError
from ..names.base import printable

__all__ = ["read_yaml"]

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Strict(_Base):  # type: ignore[misc]
    """Refuses a key that comes twice, which YAML forbids and PyYAML allows."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As the base does it."""
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                break  # the base refuses it
            if key in seen:
                mark = key_node.start_mark
                raise yaml.MarkedYAMLError(problem=f"{key!r} comes twice", problem_mark=mark)
            seen.add(key)
        made: dict[Any, Any] = super().construct_mapping(node, deep)
        return made


def read_yaml(name: str, data: bytes) -> Any:
    """The one document in a file's data.

    Raises:
        LatencyError: it is malformed; the one line has its name, and the line if that is known.
    """
    try:
        return yaml.load(data, _Strict)  # noqa: S506 (it is a safe loader)
    except yaml.MarkedYAMLError as error:
        place = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        what = printable(error.problem or "it is no YAML")
        raise LatencyError(f"{name}{place}: {what}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        what = str(error).splitlines()[0] if str(error) else "nested too deeply"
        raise LatencyError(f"{name}: it is no YAML that can be read: {printable(what)}") from None
