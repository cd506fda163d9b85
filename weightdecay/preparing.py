"""A grid made ready to be trained."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from weightdecay.batches import FromHost, OnDevice
from weightdecay.groups import Group
from weightdecay.planning import Plan
from weightdecay.types import Batch, Device


class Job(NamedTuple):
    """A lane to be trained."""

    group: Group
    members: np.ndarray  # numbers in the group; fewer than the lane is wide where it is the last
    start: int  # step that they have all reached


class Work(NamedTuple):
    """A grid made ready to be trained."""

    groups: list[Group]
    splits: Mapping[str, Batch]
    steps: list[int]  # evaluation steps; the last step is the last of them
    batch_size: int | None
    plan: Plan
    model: Any  # completed with what came from the data

    @property
    def longest(self) -> int:
        """Most steps of a stretch."""
        return min(self.plan.steps_per_call, max(stop - start for start, stop in itertools.pairwise([0, *self.steps])))

    @property
    def devices(self) -> tuple[Device, ...]:
        """Devices that lanes are spread over."""
        return tuple(jax.local_devices()[: self.plan.num_devices])

    def source(self) -> OnDevice | FromHost:
        """Return where the batches come from."""
        if not self.plan.streamed:
            return OnDevice(self.splits["train"], self.batch_size)
        assert self.batch_size is not None
        streams = max(len(np.unique(group.streams(slice(None)), axis=0)) for group in self.groups)
        return FromHost(self.splits["train"], self.batch_size, min(streams, self.plan.lane_width))

    def lanes(self, group: Group) -> Iterator[Job]:
        """Go through a group's lanes, each of members that have the same steps behind them; who is done has none."""
        for start in np.unique(group.started[group.started < self.steps[-1]]):
            members = np.flatnonzero(group.started == start)
            for first in range(0, len(members), self.plan.lane_width):
                yield Job(group, members[first : first + self.plan.lane_width], int(start))
