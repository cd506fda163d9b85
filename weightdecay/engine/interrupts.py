"""Ctrl-C: the first one interrupts training, further ones wait until what was trained is saved and returned."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def first_only() -> Iterator[None]:
    """Let only the first Ctrl-C within the block raise `KeyboardInterrupt`.

    After it, the threads of the devices end their segments, and compilations that have begun are finished: neither can
    be stopped, and an exception in the middle of waiting for them would leave threads behind that crash the process
    when it exits. Further interrupts are answered on standard error. In other threads than the main thread, which
    never get interrupts, and where Ctrl-C is handled in other ways than by a function, nothing changes.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    was_interrupted = False

    def handle(number: int, frame: Any) -> None:
        nonlocal was_interrupted
        if was_interrupted:
            print("interrupted already; waiting for the devices to end what they compute", file=sys.stderr)
            return
        was_interrupted = True
        before(number, frame)

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
