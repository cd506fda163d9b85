"""Strategies: from what is known of the members of a grid, which of them are trained next, and up to which step.

A strategy knows nothing of lanes and devices. It is asked again when everything that it asked for has been trained, and
its answer depends on what is known alone, so that a run that was cut off makes the same decisions again.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from weightdecay.core.checks import ArgumentError
from weightdecay.decay.families import is_without_decay


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


@dataclass(frozen=True)
class Full:
    """Every member to its end, in the order of the grid, until the budget is spent."""

    def next(self, known: Known) -> dict[int, int]:
        """See `Strategy.next`."""
        return known.affordable(dict.fromkeys(np.flatnonzero(~known.finished).tolist(), known.num_steps))


@dataclass(frozen=True)
class Halving:
    """Successive halving: all candidates start, and at each rung the best ``1 / eta`` of them go on.

    One replicate of each candidate races; as many candidates start as the budget allows, drawn at random. No decay
    always stays. The candidates that reach the end get all their replicates.

    Args:
      eta: Factor between the steps of two rungs, and between the numbers of candidates, > 1.
      first: Steps of the first rung, as a fraction of all steps, in (0, 1].

    Raises:
      ArgumentError: A number is out of range.

    References:
      Jamieson & Talwalkar, Non-stochastic Best Arm Identification and Hyperparameter Optimization, 2016, arXiv
      1502.07943.
    """

    eta: float | int = 3.0
    first: float | int = 1 / 27

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not self.eta > 1:
            raise ArgumentError("eta", f"eta is {self.eta}; give a number above 1.")
        if not 0 < self.first <= 1:
            raise ArgumentError("first", f"first is {self.first}; give a fraction of the steps, above 0 and at most 1.")

    def rungs(self, known: Known) -> list[int]:
        """Return the positions of the rungs among the evaluations, ascending; the last is the last evaluation."""
        fractions = [self.first]
        while fractions[-1] * self.eta < 1 - 1e-9:
            fractions.append(fractions[-1] * self.eta)
        wanted = [*fractions, 1.0] if fractions[-1] < 1 else fractions
        return sorted({int(np.searchsorted(known.evaluated, math.ceil(known.num_steps * part))) for part in wanted})

    def next(self, known: Known) -> dict[int, int]:
        """See `Strategy.next`."""
        candidates, rungs, always = known.candidates(), self.rungs(known), known.without_decay()
        steps = known.evaluated[rungs]
        starting = self._starting(known, candidates, steps, always)
        racing = starting
        for number, (rung, step) in enumerate(zip(rungs, steps, strict=True)):
            firsts = [candidates[candidate][0] for candidate in racing]
            if any(known.reached[index] < step for index in firsts):
                return known.affordable({index: int(step) for index in firsts})
            if number + 1 < len(rungs):
                values = known.values[firsts, rung]
                order = [racing[position] for position in np.argsort(values, kind="stable")]
                kept = order[: max(1, round(len(racing) / self.eta))]
                racing = kept + [candidate for candidate in racing if candidate in always and candidate not in kept]
        last = known.values[[candidates[candidate][0] for candidate in racing], -1]
        ordered = [racing[position] for position in np.argsort(last, kind="stable")]
        return completed(known, candidates, ordered)

    def _starting(self, known: Known, candidates: list[list[int]], steps: np.ndarray, always: list[int]) -> list[int]:
        """As many candidates, in a random order, as can race to the end and then have all replicates of two."""
        order = [int(number) for number in np.random.default_rng(0).permutation(len(candidates))]
        order = always + [number for number in order if number not in always]
        reserved = 2 * (max(map(len, candidates)) - 1) * known.num_steps
        increments = np.diff(np.concatenate([[0], steps]))
        for number in range(len(order), 0, -1):
            racing, cost = float(number), 0.0
            for increment in increments:
                cost += max(math.ceil(racing), 1 + len(always)) * float(increment)
                racing /= self.eta
            if cost + reserved <= known.budget:
                return order[:number]
        return order[: 1 + len(always)]


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
