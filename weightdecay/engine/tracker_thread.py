"""The argument ``log_to``: a tracker gets what is recorded in a thread of its own, and cannot touch a run.

Training hands over a copy of the numbers and goes on. After the first fault of the tracker it is left alone; at the
end the run waits for it no longer than its ``timeout``. Either is reported once, in a warning.
"""

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from weightdecay.core.warn import warn
from weightdecay.results.trackers import methods
from weightdecay.results.trackers.base import Tracker
from weightdecay.results.trackers.log import Log


class TrackerThread:
    """Logs each evaluation to a tracker; a context, in whose ``with`` block the members are trained."""

    def __init__(self, tracker: Tracker, members: Sequence[Mapping[str, Any]]) -> None:
        """Take the tracker, and the hyperparameters of each member by name."""
        self._tracker = tracker
        self._members = members
        self._waiting: queue.SimpleQueue[Callable[[Log], Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._log_all, name="log_to", daemon=True)
        self._failure: BaseException | None = None
        self._finished = False

    def __enter__(self) -> "TrackerThread":
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Wait until all is logged, at most the timeout of the tracker, and warn if something was not."""
        if not self._finished:
            self._waiting.put(Log.abort)
        self._waiting.put(None)
        name, timeout = type(self._tracker).__name__, self._tracker.timeout
        try:
            self._thread.join(timeout)
        except KeyboardInterrupt:
            warn(f"interrupted; {name} may have got only a part of the run. Log it again with result.log(...).")
            return
        if self._failure is not None:
            warn(methods.failed(self._tracker, self._failure))
        elif self._thread.is_alive():
            warn(
                f"{name} was not done {timeout:g} seconds after the training, and is no longer waited for; the result "
                "is complete. Give a larger timeout, or log the result again with result.log(...)."
            )

    def put(self, indices: np.ndarray, step: int, metrics: Mapping[str, Any], layers: Sequence[str]) -> None:
        """Log one evaluation of some members, later, in another thread; see `EvaluationCallback.put`."""
        count = len(indices)
        copies = {name: np.array(values[:count]) for name, values in metrics.items()}
        of_members, of_layers = np.array(indices), list(layers)
        self._waiting.put(lambda log: log.evaluation(of_members, step, copies, of_layers))

    def finish(self, result: Any) -> None:
        """Log what is left of a result, later, in another thread; the report is made in this one.

        Args:
          result: A `weightdecay.GridResult`.
        """
        self._finished = True
        if self._failure is not None:
            return
        try:
            decision, report = methods.described(result)
        except Exception as error:  # a page that cannot be made is no reason to lose a result
            self._failure = error
            return
        self._waiting.put(lambda log: log.finish(result, decision, report))

    def _log_all(self) -> None:
        log: Log | None = None
        while (entry := self._waiting.get()) is not None:
            if self._failure is not None:
                continue
            try:
                log = log or Log(self._tracker, self._members)
                entry(log)
            except BaseException as error:  # whatever the library of the tracker raises, SystemExit as well
                self._failure = error


class Receivers:
    """Passes on what is recorded to several receivers, each with a method ``put``."""

    def __init__(self, *receivers: Any) -> None:
        """Take the receivers; None is left out."""
        self._receivers = [receiver for receiver in receivers if receiver is not None]

    def put(self, indices: np.ndarray, step: int, metrics: Mapping[str, Any], layers: Sequence[str]) -> None:
        """Pass on one evaluation; see `EvaluationCallback.put`."""
        for receiver in self._receivers:
            receiver.put(indices, step, metrics, layers)
