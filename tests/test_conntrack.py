"""What is no conntrack map. tests/bpf has real conntrack maps."""

from __future__ import annotations

import pytest

from lblatency.conntrack import ConntrackMap


@pytest.mark.parametrize("spec", [None, True, 1.5, b"/sys/fs/bpf/conntrack", object()])
def test_a_map_is_known_by_fd_path_id_or_name(spec: object) -> None:
    """Any other argument is a TypeError that says so."""
    with pytest.raises(TypeError, match="fd, pin path, id or name, not"):
        ConntrackMap(spec)  # type: ignore[arg-type]
