"""MLflow: a parent run for the grid, with one nested run for each candidate or member."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from typing_extensions import override

from weightdecay.results.trackers.base import Hyperparameters, OneByOne, Points, Run, Session, Tracker

_MOST_METRICS = 1000  # in one call
_MOST_PARAMETERS = 100
_LONGEST = 500  # characters of a parameter that every version of MLflow takes
_ALLOWED = "_-. :/"  # in the name of a metric or a parameter, in addition to letters and digits


@dataclass(frozen=True)
class MLflow(Tracker):
    """MLflow: an experiment, in which the grid is a parent run, and its candidates or members are nested runs.

    Args:
      to: A folder, in which the database ``mlflow.db`` and the folder ``artifacts`` are; or a tracking URI, such as
        ``"http://localhost:5000"``. None: what MLflow is configured for (``MLFLOW_TRACKING_URI``).
      group: Name of the parent run; None = date and time.
      each: ``"candidate"`` or ``"member"``; see `weightdecay.results.trackers.base.Tracker`.
      layers: Whether curves of single layers are logged too.
      timeout: Seconds that the end of a run waits for the tracker, > 0.
      project: Name of the experiment, which is made if there is none.
    """

    project: str = "weightdecay"

    extra: ClassVar[str] = "mlflow"
    modules: ClassVar[tuple[str, ...]] = ("mlflow.tracking",)

    @override
    def session(self, group: str) -> Session:
        return _Session(self, group)


class _Session(OneByOne):
    def __init__(self, tracker: MLflow, group: str) -> None:
        super().__init__()
        self._tracker, self._group = tracker, group
        self._parent: Any = None

    def _connect(self) -> None:
        """Connect, and start the parent run, if that is not done yet."""
        if self._parent is not None:
            return
        from mlflow.tracking import MlflowClient

        to, artifacts = self._tracker.to, None
        if to is not None and "://" not in os.fspath(to):
            folder = Path(to).absolute()
            folder.mkdir(parents=True, exist_ok=True)
            to, artifacts = f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri()
        self._client: Any = MlflowClient(tracking_uri=None if to is None else os.fspath(to))
        project = self._tracker.project
        experiment = self._client.get_experiment_by_name(project)
        self._experiment = (
            experiment.experiment_id
            if experiment is not None
            else self._client.create_experiment(project, artifact_location=artifacts)
        )
        self._parent = self._client.create_run(self._experiment, run_name=self._group).info.run_id

    @override
    def start(self, run: Run) -> str:
        self._connect()
        tags = {"mlflow.parentRunId": self._parent, "weightdecay.group": self._group}
        started = self._client.create_run(self._experiment, run_name=run.title[:_LONGEST], tags=tags).info.run_id
        self._parameters(started, run.hyperparameters)
        return started

    @override
    def write(self, opened: str, points: Points) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(_name(name), value, now, step) for step, values in points for name, value in values.items()]
        for start in range(0, len(metrics), _MOST_METRICS):
            self._client.log_batch(opened, metrics=metrics[start : start + _MOST_METRICS])

    @override
    def finish(self, opened: str, run: Run | None, last: Mapping[str, float]) -> str:
        self._client.set_terminated(opened, "KILLED" if run is None else "FINISHED")
        return opened

    @override
    def close(self, settings: Hyperparameters, decision: str, report: Path | None) -> None:
        self._connect()
        self._parameters(self._parent, settings)
        self._client.set_tag(self._parent, "mlflow.note.content", decision)
        if report is not None:
            self._client.log_artifact(self._parent, os.fspath(report))
        self._client.set_terminated(self._parent, "FINISHED")

    @override
    def abort(self) -> None:
        super().abort()
        if self._parent is not None:
            self._client.set_terminated(self._parent, "KILLED")

    @override
    def places(self) -> list[str]:
        return [*([] if self._parent is None else [self._parent]), *super().places()]

    def _parameters(self, run_id: str, values: Hyperparameters) -> None:
        from mlflow.entities import Param

        params = [Param(_name(name), str(value)[:_LONGEST]) for name, value in values.items()]
        for start in range(0, len(params), _MOST_PARAMETERS):
            self._client.log_batch(run_id, params=params[start : start + _MOST_PARAMETERS])


def _name(name: str) -> str:
    """Replace what MLflow refuses in a name."""
    return "".join(letter if letter.isalnum() or letter in _ALLOWED else "_" for letter in name)
