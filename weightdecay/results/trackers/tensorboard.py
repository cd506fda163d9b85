"""TensorBoard: event files, one folder for each candidate or member, with hyperparameters for its HParams page."""

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from typing_extensions import override

from weightdecay.results.trackers.base import Hyperparameters, OneByOne, Points, Run, Session, Tracker

_FOLDER = "runs"  # where TensorBoard's own writers write


@dataclass(frozen=True)
class TensorBoard(Tracker):
    """TensorBoard: ``tensorboard --logdir runs`` shows the curves and compares the hyperparameters.

    TensorBoard has no artifacts: the report is the file ``report.html`` in the folder of the group, and the decision is
    on the page of texts.

    Args:
      to: Folder of the groups; None = ``runs``.
      group: Folder in it, which has one folder for each run; None = date and time.
      each: ``"candidate"`` or ``"member"``; see `weightdecay.results.trackers.base.Tracker`.
      layers: Whether curves of single layers are logged too.
      timeout: Seconds that the end of a run waits for the tracker, > 0.
    """

    extra: ClassVar[str] = "tensorboard"
    modules: ClassVar[tuple[str, ...]] = ("tensorboardX",)

    @override
    def session(self, group: str) -> Session:
        return _Session(Path(_FOLDER if self.to is None else self.to) / re.sub(r"[/\\:]", "-", group))


class _Session(OneByOne):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    @override
    def start(self, run: Run) -> Any:
        kind = run.title.split(" ")[0]
        return _writer(self._folder / f"{kind}-{run.number:04d}")

    @override
    def write(self, opened: Any, points: Points) -> None:
        for step, values in points:
            for name, value in values.items():
                opened.add_scalar(name, value, step)
        opened.flush()

    @override
    def finish(self, opened: Any, run: Run | None, last: Mapping[str, float]) -> str:
        from tensorboardX.summary import hparams

        if run is not None:
            for summary in hparams(dict(run.hyperparameters), dict(last)):
                opened.file_writer.add_summary(summary)
        opened.close()
        return os.fspath(opened.logdir)

    @override
    def close(self, settings: Hyperparameters, decision: str, report: Path | None) -> None:
        writer = _writer(self._folder)
        lines = ["| setting | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in settings.items())]
        writer.add_text("decision", decision)
        writer.add_text("settings", "\n".join(lines))
        writer.close()
        if report is not None:
            shutil.copyfile(report, self._folder / "report.html")

    @override
    def places(self) -> list[str]:
        return [os.fspath(self._folder), *super().places()]


def _writer(folder: Path) -> Any:
    from tensorboardX import SummaryWriter

    return SummaryWriter(logdir=os.fspath(folder))
