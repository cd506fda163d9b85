"""What a strategy is: from what is known of the members of a grid, it decides which are trained next, and how far.

A strategy knows nothing of lanes and devices. It is asked again when everything that it asked for has been trained, and
its answer depends on what is known alone, so that a run that was cut off makes the same decisions again.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from weightdecay.decay.families import is_without_decay

_ROUNDS = (2, 6)  # least and most of exploring; more are hardly better, and fewer keep more devices busy
_FEW = 3  # rounds, where exploring fills less than half of the devices
_FOR_FINALISTS = 0.4  # of the trainings


class Known(NamedTuple):
    """What is known of the members of a grid.

    Attributes:
      members: Hyperparameters of each member by name.
      candidate: Number of each member's candidate, from 0, shape ``(members,)``; its members are replicates.
      evaluated: Steps of the evaluations, ascending, shape ``(evaluations,)``; the last one is the last step.
      values: The metric that decides, lower is better, shape ``(members, evaluations)``; nan where a member has not
        been evaluated, infinite where it has diverged.
      reached: Steps that each member has taken, shape ``(members,)``.
      budget: Member-steps that may be spent in all.
      at_once: Members that train side by side.
    """

    members: Sequence[Mapping[str, Any]]
    candidate: np.ndarray
    evaluated: np.ndarray
    values: np.ndarray
    reached: np.ndarray
    budget: int
    at_once: int

    @property
    def num_steps(self) -> int:
        """Last step of a member."""
        return int(self.evaluated[-1])

    @property
    def left(self) -> int:
        """Member-steps that may still be spent."""
        return self.budget - int(self.reached.sum())

    @property
    def finished(self) -> np.ndarray:
        """Whether each member has taken all its steps, shape ``(members,)``."""
        return self.reached >= self.num_steps

    def candidates(self) -> list[list[int]]:
        """Return the members of each candidate, its replicates in the order of the grid."""
        return [np.flatnonzero(self.candidate == number).tolist() for number in range(int(self.candidate.max()) + 1)]

    def without_decay(self) -> list[int]:
        """Return the positions of the candidates without decay, among `candidates`."""
        firsts = [members[0] for members in self.candidates()]
        return [number for number, first in enumerate(firsts) if is_without_decay(self.members[first]["decay"])]

    def affordable(self, wanted: Mapping[int, int]) -> dict[int, int]:
        """Return the first of some wishes that the budget allows.

        Args:
          wanted: The step that each member is to reach, by its position; the most important first.

        Returns:
          The same, without members that are there already, and as many as can be paid.
        """
        chosen, left = {}, self.left
        for index, step in wanted.items():
            cost = int(step) - int(self.reached[index])
            if cost > 0 and cost <= left:
                chosen[index] = int(step)
                left -= cost
        return chosen


@runtime_checkable
class Strategy(Protocol):
    """What decides which members are trained."""

    def next(self, known: Known) -> Mapping[int, int]:
        """Decide what is trained next.

        Args:
          known: What is known.

        Returns:
          The step that each member is to reach, one of the evaluations, by its position in the grid. What the budget
          does not allow is left out; nothing = the search has ended.
        """
        ...


class Shares(NamedTuple):
    """What a search that trains members to their end does with its budget.

    Attributes:
      exploring: Trainings that find out which candidates are good, one replicate at a time.
      finalists: Candidates that then get all their replicates, no decay among them.
      per_round: Trainings between two decisions.
    """

    exploring: int
    finalists: int
    per_round: int


def shares(known: Known) -> Shares:
    """Divide a budget between exploring and completing."""
    total, replicates = known.budget // known.num_steps, max(map(len, known.candidates()))
    finalists = max(2, round(_FOR_FINALISTS * total / replicates))
    exploring = max(total - finalists * (replicates - 1), 0)
    # A round takes as long as a training, however few members it has: half of the devices are to be busy.
    least = _FEW if exploring < known.at_once / 2 else _ROUNDS[0]
    rounds = min(_ROUNDS[1], max(least, math.ceil(2 * exploring / known.at_once)))
    return Shares(exploring, finalists, max(1, min(known.at_once, math.ceil(exploring / rounds))))


def completed(known: Known, candidates: list[list[int]], ordered: Sequence[int]) -> dict[int, int]:
    """Train what is missing of the replicates of candidates, of as many as the budget completes, in their order.

    Args:
      known: What is known.
      candidates: Members of each candidate.
      ordered: Positions of candidates, the most important first.

    Returns:
      As `Strategy.next`.
    """
    chosen: dict[int, int] = {}
    left = known.left
    for candidate in ordered:
        missing = [index for index in candidates[candidate] if not known.finished[index]]
        cost = sum(known.num_steps - int(known.reached[index]) for index in missing)
        if cost <= left:
            chosen |= dict.fromkeys(missing, known.num_steps)
            left -= cost
    return chosen


def finals(known: Known, candidates: list[list[int]], ordered: Sequence[int]) -> dict[int, int]:
    """Train what is missing of the replicates of the finalists: the best candidate, no decay, and the next ones.

    Args:
      known: What is known.
      candidates: Members of each candidate.
      ordered: Positions of candidates, the most promising first.

    Returns:
      As `Strategy.next`; when the finalists are complete, as many of the others as the budget completes.
    """
    without = known.without_decay()
    leaders = [*ordered[:1], *[number for number in ordered if number in without][:1], *ordered[1:]]
    # Candidates that were completed before count, so that a run ends with as many as it can complete.
    first = completed(known, candidates, leaders[: shares(known).finalists])
    return first or completed(known, candidates, leaders)
