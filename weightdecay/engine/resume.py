"""Resuming: compare a workload with its run directory, and take from there what is computed already."""

import dataclasses
from typing import Any

import numpy as np

from weightdecay.engine.workload import Workload
from weightdecay.search.grid import Grid
from weightdecay.storage import fingerprints
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
    run.record_dependencies(depends_on, workload.num_steps, patient=has_patience)
    resumed = []
    for group in groups:
        started = np.array([run.saved_steps(key, workload.num_steps) for key in group.keys], np.int32)
        order = run.in_disk_order(group.keys)
        for step in np.unique(started[order]):
            members = [member for member in order if started[member] == step]
            for first in range(0, len(members), _READ_AT_ONCE):
                part = members[first : first + _READ_AT_ONCE]
                workload.restore(group, part, run.read([group.keys[member] for member in part]))
        resumed.append(dataclasses.replace(group, started=started))
    return workload.with_groups(resumed)
