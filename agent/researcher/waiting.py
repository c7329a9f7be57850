"""A blocking call goes in, its result comes out; or Stopped, at once, when the study is to stop.

A reply may take a quarter of an hour, and a person who presses Ctrl-C does not wait for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

LOOK_SECONDS = 0.1
Result = TypeVar("Result")


class Stopped(Exception):
    """`stop` was set before the call had ended. It goes on unheard, in a thread that no exit waits for."""


def until_stopped(call: Callable[[], Result], stop: threading.Event) -> Result:
    """What `call` returns or raises; it runs in a thread of its own, and not at all if it is too late."""
    if stop.is_set():
        raise Stopped
    future: Future[Result] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="call of a model", daemon=True).start()
    while not future.done():
        if stop.is_set():
            raise Stopped
        wait([future], LOOK_SECONDS)
    return future.result()
