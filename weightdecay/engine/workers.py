"""One thread a device, each of which takes the next job when it is done with one."""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

import jax

from weightdecay.core import jax_settings

Job = TypeVar("Job")


def share_out(
    jobs: Iterable[Job],
    num_workers: int,
    begin: Callable[[int, contextlib.ExitStack], Callable[[Job], None]],
    stop: threading.Event,
) -> None:
    """Have jobs done by several workers.

    Args:
      jobs: In their order; the next is asked for while earlier ones are under way.
      num_workers: How many, one a device.
      begin: ``begin(worker, stack)`` makes a worker's ``do(job)``; the stack closes when the worker leaves.
      stop: Is set when this ends, in whatever way: a job that is under way should then leave.

    Raises:
      Exception: The first that a job, or the making of jobs, raised.
    """
    waiting: queue.SimpleQueue[tuple[Job] | None] = queue.SimpleQueue()
    x64 = jax_settings.setting("enable_x64")  # holds for a thread, so that the workers must be told

    def worker(index: int) -> None:
        with jax.enable_x64(x64), contextlib.ExitStack() as stack:
            do = begin(index, stack)
            while (next_one := waiting.get()) is not None and not stop.is_set():
                do(next_one[0])

    with ThreadPoolExecutor(num_workers) as workers:
        running = [workers.submit(worker, index) for index in range(num_workers)]
        try:
            for job in jobs:
                waiting.put((job,))
            for _ in range(num_workers):
                waiting.put(None)
            for future in wait(running, return_when=FIRST_EXCEPTION).done:
                future.result()
        finally:
            stop.set()
            for _ in range(num_workers):
                waiting.put(None)
