"""Ctrl-C enters; the first asks what is under way to stop, the second ends it at once."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType


def on_interrupt(stop: Callable[[], None], under_way: str) -> None:
    """Makes Ctrl-C call `stop`, and a second one raise KeyboardInterrupt. under_way: what is charged for its time."""
    asked = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        print(f"\nstopping; {under_way} is charged for what it used (again: at once)", file=sys.stderr)
        stop()

    signal.signal(signal.SIGINT, interrupt)
