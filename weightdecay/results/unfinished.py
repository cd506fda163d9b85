"""A run that is not finished, as a result: what its directory holds at this moment."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from weightdecay.core.metrics import recorded
from weightdecay.results import dataset as datasets
from weightdecay.results.grid_result import GridResult
from weightdecay.search import member
from weightdecay.storage import run_members
from weightdecay.storage.checkpoints import Snapshot
from weightdecay.storage.training_records import TrainingRecords

_NOT_SETTINGS = ("data", "initial", "frozen", "evaluations", "programs", "versions", "lane_width", "lowering")


def load(path: str | Path) -> GridResult:
    """Read a result, or what there is of a run that is not finished.

    Candidates of an unfinished run are compared at one step: the latest one that at least half of those that are saved
    have reached with all their replicates. Metrics of the others are nan there. The result has curves and no weights. A
    member whose metrics are not finite has diverged at or before that evaluation.

    Args:
      path: The folder of a result, or the directory of a run.

    Returns:
      The result. ``settings["unfinished"]`` of an unfinished run holds the numbers of members, of those that are saved
      and of those that are done, the last step of the run, and the step at which members are compared.

    Raises:
      FileNotFoundError: There is no result, or nothing of the run is saved yet.
      ValueError: A damaged file, or a file of a later version.
    """
    from weightdecay.results import grid_result

    run = run_members.read(path)
    if run is None:
        return grid_result.load(path)
    num_steps = int(run.description["num_steps"])
    done = sum(one is not None and one.step >= num_steps for one in run.saved)
    if done == len(run.saved):
        try:
            return grid_result.load(path)
        except FileNotFoundError:
            pass  # the result is being written
    saved = [one for one in run.saved if one is not None and one.evaluated]
    if not saved:
        raise FileNotFoundError(
            f"directory {path} holds a run of which no evaluation is saved yet; wait, or resume it by the same call."
        )
    compared = _compared_step(run)
    steps = sorted({step for one in saved for step in one.evaluated if step <= compared})
    depends_on = run.description["depends_on"]
    settings = {name: value for name, value in depends_on.items() if name not in _NOT_SETTINGS}
    settings |= {"num_steps": num_steps, "interrupted": True}
    settings["unfinished"] = {
        "members": len(run.saved),
        "saved": sum(one is not None for one in run.saved),
        "done": done,
        "step": int(compared),
        "num_steps": num_steps,
    }
    records = _records(run.saved, steps)
    return GridResult(
        datasets.build(run.members, steps, records),
        run.members,
        records.weights,
        settings,
        versions=depends_on.get("versions") or None,
    )


def _compared_step(run: run_members.Unfinished) -> int:
    """Return the evaluation at which candidates are compared; see `load`."""
    reached: dict[int, list[int]] = {}
    for number, one in zip(member.candidates(run.members), run.saved, strict=True):
        reached.setdefault(number, []).append(one.evaluated[-1] if one is not None and one.evaluated else 0)
    complete = [min(steps) for steps in reached.values() if min(steps) > 0]
    partial = [max(steps) for steps in reached.values() if max(steps) > 0]
    in_order = sorted(complete or partial, reverse=True)
    return in_order[(len(in_order) - 1) // 2]


def is_unfinished(path: str | Path) -> bool:
    """Whether `load` finds a run that may still go on.

    Args:
      path: As for `load`.

    Returns:
      Whether it is the directory of a run whose result is not written.
    """
    return run_members.is_recorded(Path(path))


def _records(saved: Sequence[Snapshot | None], steps: Sequence[int]) -> TrainingRecords:
    """Collect the curves of the members; a metric of layers is left out, since their names are not saved."""
    names = {name for one in saved if one is not None for name, values in one.metrics.items() if values.ndim == 2}
    known = [name for name in recorded() if name in names]
    records = TrainingRecords(len(saved), len(steps), metrics=[*known, *sorted(names - set(known))])
    position = {step: index for index, step in enumerate(steps)}
    for number, one in enumerate(saved):
        if one is None:
            continue
        for column, step in enumerate(one.evaluated):
            if step not in position:
                continue
            row: dict[str, Any] = {name: values[:, column] for name, values in one.metrics.items() if name in names}
            records.write_metrics(np.array([number]), position[step], row)
            if records.marks["diverged_at"][number] < 0 and not np.isfinite(row["train_loss"]).all():
                records.marks["diverged_at"][number] = step
    return records
