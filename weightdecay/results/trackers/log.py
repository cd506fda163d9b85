"""The log of one grid in a tracker: what is known of the members while they train, and at the end the result."""

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from weightdecay.core.statistics import mean_and_error
from weightdecay.results import dataset as datasets
from weightdecay.results.trackers.base import Hyperparameters, Points, Run, Tracker
from weightdecay.search import member as member_json

_LONGEST = 250  # characters of a setting


class Log:
    """Logs the members of a grid to a tracker, one run for each candidate or for each member.

    A point of a candidate is the mean over its replicates, logged when all of them were evaluated at a step. Numbers
    that are not finite are left out.
    """

    def __init__(self, tracker: Tracker, members: Sequence[Mapping[str, Any]]) -> None:
        """Take the tracker, and the hyperparameters of each member by name."""
        self._tracker = tracker
        self._session = tracker.session(tracker.group_name())
        self._members = members
        self._labels = datasets.coordinates(members)
        numbers = self._labels["candidate"] if tracker.each == "candidate" else np.arange(len(members))
        self._run_of = [int(number) for number in numbers]
        indices: dict[int, list[int]] = defaultdict(list)
        for index, number in enumerate(self._run_of):
            indices[number].append(index)
        self._runs = {number: (self._run(number, own), own) for number, own in indices.items()}
        self._waiting: dict[tuple[int, int], dict[int, dict[str, float]]] = defaultdict(dict)
        self._logged: dict[tuple[int, int], set[str]] = defaultdict(set)

    def evaluation(
        self, indices: np.ndarray, step: int, metrics: Mapping[str, np.ndarray], layers: Sequence[str]
    ) -> None:
        """Log an evaluation of some members.

        Args:
          indices: Their positions in the grid, shape ``(members,)``.
          step: Step of the evaluation.
          metrics: Metrics by name, each of shape ``(members,)`` or ``(members, layers)``.
          layers: Names of the layers.
        """
        columns = dict(_columns(metrics, layers, 1, layered=self._tracker.layers))
        for row, index in enumerate(map(int, indices)):
            number = self._run_of[index]
            waiting = self._waiting[number, step]
            waiting[index] = {name: float(values[row]) for name, values in columns.items()}
            run, members = self._runs[number]
            if len(waiting) == len(members):
                del self._waiting[number, step]
                names = [name for name in columns if all(name in values for values in waiting.values())]
                means = {name: self._mean(members, [waiting[one][name] for one in members]) for name in names}
                self._log(run, [(step, means)])

    def finish(self, result: Any, decision: str, report: str | None) -> list[str]:
        """Log all of a result that is not logged yet, and end all runs.

        Args:
          result: A `weightdecay.GridResult`.
          decision: Which candidate to take, as text.
          report: The report as HTML; None = there is none.

        Returns:
          Where the runs are; see `weightdecay.results.trackers.base.Session.places`.
        """
        dataset = result.dataset
        by_step = {str(name): values.values for name, values in dataset.data_vars.items() if "step" in values.dims}
        layers = [str(layer) for layer in dataset["layer"].values] if "layer" in dataset.coords else []
        columns = dict(_columns(by_step, layers, 2, layered=self._tracker.layers))
        steps = [int(step) for step in dataset["step"].values]
        untrained = dataset["dropped_at"].values == 0 if "dropped_at" in dataset else np.zeros(len(result), bool)
        for run, members in self._runs.values():
            if untrained[members].all():
                continue
            points: list[tuple[int, dict[str, float]]] = []
            for at, step in enumerate(steps):
                means = {name: self._mean(members, values[members, at]) for name, values in columns.items()}
                points.append((step, means))
            last = points[-1][1]
            last |= self._of_last_step(members, columns, dataset)
            self._log(run, points)
            self._session.end(run, {name: value for name, value in last.items() if np.isfinite(value)})
        with tempfile.TemporaryDirectory() as folder:
            page = None
            if report is not None:
                page = Path(folder) / "report.html"
                page.write_text(report, encoding="utf-8")
            self._session.close(dict(_settings(result.settings)), decision, page)
        return self._session.places()

    def abort(self) -> None:
        """End all runs of a grid whose training failed."""
        self._session.abort()

    def places(self) -> list[str]:
        """Return where the runs are that have ended."""
        return self._session.places()

    def _log(self, run: Run, points: Points) -> None:
        """Log what is finite and was not logged before."""
        new_points = []
        for step, values in points:
            logged = self._logged[run.number, step]
            new = {name: value for name, value in values.items() if name not in logged and np.isfinite(value)}
            if new:
                new_points.append((step, new))
        if new_points:
            self._session.points(run, new_points)
        for step, values in new_points:
            self._logged[run.number, step].update(values)

    def _mean(self, members: Sequence[int], values: Sequence[float] | np.ndarray) -> float:
        return mean_and_error(values, [self._members[index].get("fold") for index in members])[0]

    def _of_last_step(self, members: list[int], columns: Mapping[str, np.ndarray], dataset: Any) -> dict[str, float]:
        """Return numbers of a candidate as a whole: standard errors, and the members that diverged."""
        numbers = {"diverged": float((dataset["diverged_at"].values[members] >= 0).sum())}
        if len(members) > 1:
            folds = [self._members[index].get("fold") for index in members]
            for name, values in columns.items():
                if name.startswith("validation_"):
                    numbers[f"{name}_standard_error"] = mean_and_error(values[members, -1], folds)[1]
        return numbers

    def _run(self, number: int, members: Sequence[int]) -> Run:
        each, first = self._tracker.each, self._members[members[0]]
        return Run(number, f"{each} {number}: {first['decay']}", self._hyperparameters(members[0], first))

    def _hyperparameters(self, index: int, member: Mapping[str, Any]) -> Hyperparameters:
        values = {name: values[index].item() for name, values in self._labels.items()}
        if self._tracker.each == "candidate":
            values = {name: value for name, value in values.items() if name not in member_json.REPLICATES}
        present = {name: value for name, value in values.items() if value == value and value != ""}
        return {**present, "rule": str(member["decay"])}


def _columns(
    metrics: Mapping[str, np.ndarray], layers: Sequence[str], ndim: int, *, layered: bool
) -> Iterator[tuple[str, np.ndarray]]:
    """Iterate over metrics of ``ndim`` axes; one that has layers as its last axis is one metric for each layer."""
    for name, values in metrics.items():
        if values.ndim == ndim:
            yield name, values
        elif layered:
            yield from ((f"{name}/{layer}", values[..., at]) for at, layer in enumerate(layers))


def _settings(settings: Mapping[str, Any]) -> Iterator[tuple[str, bool | int | float | str]]:
    """Iterate over the settings of a run, without those that are not set."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _settings({f"{name}.{key}": item for key, item in value.items()})
        elif value is not None and value != []:
            yield name, value if isinstance(value, bool | int | float) else str(value)[:_LONGEST]
