"""Resuming: compare a workload with its run directory, and take from there what is computed already."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from weightdecay.core import files
from weightdecay.engine.workload import Workload
from weightdecay.search.grid import Grid
from weightdecay.storage import fingerprints
from weightdecay.storage.checkpoints import Snapshot
from weightdecay.storage.run_directory import RunDirectory

_READ_AT_ONCE = 256  # saved members


def resume(workload: Any, grid: Grid, run: RunDirectory, *, has_patience: bool = False) -> Workload:
    """Check that a run directory belongs to a workload, and restore the members that it holds.

    Args:
      workload: What the members compute; a `Workload` with ``with_groups``. It takes the restored members.
      grid: The members.
      run: The run directory.
      has_patience: Whether any member may stop early.

    Returns:
      The same workload, whose groups have the keys of their members and the numbers of completed steps.

    Raises:
      ValueError: The directory holds a run of something else, or one with more steps.
    """
    programs = {group.name: group.program() for group in workload.groups}
    depends_on = {**workload.depends_on(), workload.programs_key: programs}
    groups = []
    for group in workload.groups:
        keys = tuple(
            fingerprints.of_member({**grid[int(index)], **group.distinction(member)}, programs[group.name])
            for member, index in enumerate(group.indices)
        )
        groups.append(dataclasses.replace(group, keys=keys))
    widths = [workload.lane_width(group) for group in groups]
    call = hashlib.sha256(files.canonical([[group.keys for group in groups], widths, workload.num_steps]))
    run.record_dependencies(depends_on, workload.num_steps, patient=has_patience, call=call.hexdigest()[:16])
    if "kind" not in depends_on:  # of fit_grid, whose members have curves
        named = {key: int(index) for group in groups for key, index in zip(group.keys, group.indices, strict=True)}
        run.record_members({key: grid[named[key]] for key in sorted(named, key=named.__getitem__)})
    run.index.refresh()  # another process may have begun meanwhile
    resumed = [
        dataclasses.replace(group, started=restore(workload, group, range(len(group.keys)), run)) for group in groups
    ]
    return workload.with_groups(resumed)


def restore(workload: Workload, group: Any, members: Sequence[int], run: RunDirectory) -> np.ndarray:
    """Restore some members of a group as they are saved.

    Args:
      workload: Takes the members.
      group: Their group.
      members: Positions in the group; those that are not saved are left out.
      run: The run directory, in which other processes may save members meanwhile.

    Returns:
      Number of steps that each of them has completed, shape ``(members,)``.
    """
    keys = [group.keys[member] for member in members]
    started = np.array([run.saved_steps(key, workload.num_steps) for key in keys], np.int32)
    order = run.in_disk_order(keys)
    for step in np.unique(started[order]):
        positions = [position for position in order if started[position] == step]
        for first in range(0, len(positions), _READ_AT_ONCE):
            part = positions[first : first + _READ_AT_ONCE]
            for some, snapshot in _read(run, keys, part):
                workload.restore(group, [members[position] for position in some], snapshot)
                started[some] = min(snapshot.step, workload.num_steps)
    return started


def _read(run: RunDirectory, keys: Sequence[str], positions: Sequence[int]) -> list[tuple[list[int], Snapshot]]:
    """Read members at once, or one by one where another process has saved some of them at a later step meanwhile."""
    try:
        return [(list(positions), run.read([keys[position] for position in positions]))]
    except OSError:
        if len(positions) == 1:
            raise
        return [([position], run.read([keys[position]])) for position in positions]
