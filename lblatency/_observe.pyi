from collections.abc import Callable

def bind(
    backend: int,
    try_observe: int,
    observe: int,
    keep: object,
    refuse: Callable[[int, object], None],
    /,
) -> Callable[[float], None]: ...
