"""The user's ``on_evaluation``: called with what was recorded, in a thread of its own, so that it cannot touch a run.

Training hands over a copy of the numbers and goes on; it never waits for the function. What waits to be reported takes
a few kilobytes of memory for each evaluation of a lane.
"""

import queue
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from weightdecay.core import text
from weightdecay.core.checks import ArgumentTypeError
from weightdecay.core.warn import warn
from weightdecay.results import dataset


class _Evaluation(NamedTuple):
    """What was recorded of some members at one step; arrays are copies."""

    indices: np.ndarray
    step: int
    metrics: dict[str, np.ndarray]
    layers: Sequence[str]


class EvaluationCallback:
    """Calls a function of the user after every evaluation, in the order of the evaluations, one call at a time.

    Use it in a ``with`` statement: all calls are done at its end. An exception in the function is shown on standard
    error when it happens the first time; the function is called on, and one warning at the end counts what failed.
    """

    def __init__(self, function: Callable[[pd.DataFrame], Any], members: Sequence[Mapping[str, Any]]) -> None:
        """Take the function of a table, and the hyperparameters of each member by name.

        Raises:
          ArgumentTypeError: It is not a function.
        """
        if not callable(function):
            raise ArgumentTypeError(
                "on_evaluation",
                f"on_evaluation is {text.shortened(function)}; give a function of one table, such as "
                "lambda table: print(table), or None.",
            )
        self._function = function
        self._labels = dataset.coordinates(members)
        self._waiting: queue.SimpleQueue[_Evaluation | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._report_all, name="on_evaluation", daemon=True)
        self._num_calls = 0
        self._failures: list[str] = []

    def __enter__(self) -> "EvaluationCallback":
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Wait until all calls are done, and warn if some failed. Ctrl-C leaves out those that are left."""
        self._waiting.put(None)
        try:
            self._thread.join()
        except KeyboardInterrupt:
            warn(f"interrupted; about {self._waiting.qsize()} calls of on_evaluation were left out.")
        if self._failures:
            warn(
                f"on_evaluation raised an exception in {len(self._failures)} of {self._num_calls} calls, which changed "
                f"nothing in the run; the first: {self._failures[0]}"
            )

    def put(self, indices: np.ndarray, step: int, metrics: Mapping[str, Any], layers: Sequence[str]) -> None:
        """Report one evaluation of some members; the call comes later, in another thread.

        Args:
          indices: Positions of the members in the grid, shape ``(members,)``.
          step: Step of the evaluation.
          metrics: Metrics by name, each of shape ``(rows,)`` or ``(rows, layers)``; rows after the members' are
            ignored.
          layers: Names of the layers of the members.
        """
        copies = {name: np.array(values[: len(indices)]) for name, values in metrics.items()}
        self._waiting.put(_Evaluation(np.array(indices), step, copies, list(layers)))

    def _report_all(self) -> None:
        while (evaluation := self._waiting.get()) is not None:
            try:
                self._num_calls += 1
                self._function(self._table(evaluation))
            except BaseException as error:  # whatever the user's function raises, SystemExit as well
                if not self._failures:
                    traceback.print_exc(file=sys.stderr)
                self._failures.append(traceback.format_exception_only(error)[-1].strip())

    def _table(self, evaluation: _Evaluation) -> pd.DataFrame:
        columns: dict[str, Any] = {"member": evaluation.indices}
        columns |= {name: values[evaluation.indices] for name, values in self._labels.items()}
        columns["step"] = np.full(len(evaluation.indices), evaluation.step)
        for name, values in evaluation.metrics.items():
            if values.ndim == 1:
                columns[name] = values
            else:
                columns |= {f"{name}/{layer}": values[:, at] for at, layer in enumerate(evaluation.layers)}
        return pd.DataFrame(columns)
