"""Weights & Biases: one run for each candidate or member, in a group, with a run for the report."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from typing_extensions import override

from weightdecay.results.trackers.base import Hyperparameters, OneByOne, Points, Run, Session, Tracker


@dataclass(frozen=True)
class WandB(Tracker):
    """Weights & Biases: runs in a group of a project.

    Runs are written to files and nothing is sent, unless ``WANDB_MODE`` says otherwise; ``wandb sync FOLDER`` uploads
    them later. The report is the artifact ``report`` of one more run of the group, whose type is ``report``. The axis
    of all curves is the metric ``step``.

    Args:
      to: Folder in which the folder ``wandb`` is; None = the working directory, or ``WANDB_DIR``.
      group: Name of the group; None = date and time.
      each: ``"candidate"`` or ``"member"``; see `weightdecay.results.trackers.base.Tracker`.
      layers: Whether curves of single layers are logged too.
      timeout: Seconds that the end of a run waits for the tracker, > 0.
      project: Name of the project.
    """

    project: str = "weightdecay"

    extra: ClassVar[str] = "wandb"
    modules: ClassVar[tuple[str, ...]] = ("wandb",)

    @override
    def session(self, group: str) -> Session:
        return _Session(self, group)


class _Session(OneByOne):
    def __init__(self, tracker: WandB, group: str) -> None:
        super().__init__()
        self._tracker, self._group = tracker, group

    @override
    def start(self, run: Run) -> Any:
        started = self._init(run.title, run.title.split(" ")[0], run.hyperparameters)
        started.define_metric("*", step_metric="step")
        return started

    @override
    def write(self, opened: Any, points: Points) -> None:
        for step, values in points:
            opened.log({**values, "step": step})

    @override
    def finish(self, opened: Any, run: Run | None, last: Mapping[str, float]) -> str:
        if run is not None:
            opened.summary.update(dict(last))
        opened.finish(exit_code=int(run is None))
        return opened.id

    @override
    def close(self, settings: Hyperparameters, decision: str, report: Path | None) -> None:
        import wandb

        of_group = self._init("report", "report", settings, notes=decision)
        if report is not None:
            artifact = wandb.Artifact("report", "report", description=decision)
            artifact.add_file(os.fspath(report), name="report.html")
            of_group.log_artifact(artifact)
        of_group.finish()
        self._places.append(of_group.id)

    def _init(self, name: str, kind: str, config: Hyperparameters, **others: Any) -> Any:
        """Start a run, in addition to those that the user's script may have open."""
        import wandb

        folder = self._tracker.to
        if folder is not None:
            os.makedirs(folder, exist_ok=True)
        return wandb.init(
            project=self._tracker.project,
            group=self._group,
            name=name,
            job_type=kind,
            dir=folder,
            config=dict(config),
            mode=os.environ.get("WANDB_MODE") or "offline",  # pyright: ignore[reportArgumentType]
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", save_code=False, disable_git=True),
            **others,
        )
