"""One thread a device; each thread takes the next item of work when it has finished one.

This is the seat of an executor: `distribute` decides who computes an item, and nothing else does.
"""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

import jax

from weightdecay.core import jax_settings

WorkItem = TypeVar("WorkItem")


def distribute(
    items: Iterable[WorkItem],
    num_workers: int,
    begin: Callable[[int, contextlib.ExitStack], Callable[[WorkItem], None]],
    stop: threading.Event,
) -> None:
    """Distribute items of work over several worker threads.

    Args:
      items: Items in their order; the next one is requested while earlier ones are being computed.
      num_workers: Number of threads, one a device.
      begin: ``begin(worker, stack)`` returns the function ``compute(item)`` of a worker; the stack closes when the
        worker ends.
      stop: Is set when this function ends, also by an exception: an item that is being computed should then end early.

    Raises:
      Exception: The first exception that an item, or the iteration over the items, raised.
    """
    waiting: queue.SimpleQueue[tuple[WorkItem] | None] = queue.SimpleQueue()
    x64 = jax_settings.setting("enable_x64")  # A setting of the thread, so the workers must set it again.

    def worker(index: int) -> None:
        with jax.enable_x64(x64), contextlib.ExitStack() as stack:
            compute = begin(index, stack)
            while (entry := waiting.get()) is not None and not stop.is_set():
                compute(entry[0])

    with ThreadPoolExecutor(num_workers) as workers:
        running = [workers.submit(worker, index) for index in range(num_workers)]
        try:
            for item in items:
                waiting.put((item,))
            for _ in range(num_workers):
                waiting.put(None)
            for future in wait(running, return_when=FIRST_EXCEPTION).done:
                future.result()
        finally:
            stop.set()
            for _ in range(num_workers):
                waiting.put(None)
