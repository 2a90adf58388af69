"""The command `lblatency`, also as `python -m lblatency`: how it starts and how it is ended.

A Ctrl-C is quiet at any time, so this module imports nothing slow before it holds the signal.
"""

from __future__ import annotations

import os
import signal
import sys

__all__ = ["main"]

_INTERRUPTED = 128 + signal.SIGINT
_CLOSED_PIPE = 128 + signal.SIGPIPE


def _end(*_: object) -> None:
    os._exit(_INTERRUPTED)


def _interrupt(*_: object) -> None:
    signal.signal(signal.SIGINT, _end)  # a second one does not wait for what this one undoes
    raise KeyboardInterrupt


def _run() -> int:
    """Run the command and flush what it printed, so that no error is left for the interpreter."""
    from .cli import main

    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        code = main()
    except SystemExit as ended:  # argparse has answered
        code = int(ended.code or 0)
    if sys.stdout:
        sys.stdout.flush()
    return code


def main() -> int:
    """Run the command line; returns the exit code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored: nohup
        signal.signal(signal.SIGINT, _end)
    try:
        return _run()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except OSError as error:  # of the output: the command explains its own
        if not isinstance(error, BrokenPipeError):
            print(f"lblatency: cannot write the output: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still to be flushed goes there
        return _CLOSED_PIPE if isinstance(error, BrokenPipeError) else 1
    finally:
        if signal.getsignal(signal.SIGINT) is _interrupt:
            signal.signal(signal.SIGINT, _end)


if __name__ == "__main__":
    sys.exit(main())
