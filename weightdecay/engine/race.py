"""A race: the members of a grid in the rounds of a strategy, within a budget of member-steps.

The rounds follow from what the strategy knows, and from nothing else. A run that was cut off goes through the
same rounds again; what its run directory holds is not trained a second time.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from weightdecay.core import checks
from weightdecay.core.checks import ArgumentError, ArgumentTypeError
from weightdecay.engine.groups import Group
from weightdecay.search import member
from weightdecay.search.grid import Grid
from weightdecay.search.strategy import Known, Strategy
from weightdecay.search.surface import Surface


class Race:
    """The rounds of one call.

    Attributes:
      budget: Member-steps that may be spent.
      reached: Steps that each member has taken in the race, shape ``(members,)``; the run directory may hold more.
    """

    def __init__(self, strategy: Strategy, grid: Grid, steps: Sequence[int], budget: int, at_once: int) -> None:
        """Take what does not change.

        Args:
          strategy: Decides.
          grid: The members.
          steps: Steps of the evaluations.
          budget: Member-steps that may be spent.
          at_once: Members that train side by side on all devices.
        """
        self._strategy, self._grid, self.budget, self._at_once = strategy, list(grid), budget, at_once
        self._steps = np.asarray(steps)
        self._candidates = np.array(member.candidates(self._grid))
        self.reached = np.zeros(len(self._grid), np.int64)

    @property
    def spent(self) -> float:
        """Fraction of the member-steps of the grid that the race has spent."""
        return float(self.reached.sum()) / (len(self._grid) * int(self._steps[-1]))

    def next_round(self, values: np.ndarray, diverged_at: np.ndarray) -> dict[int, int]:
        """Ask the strategy for the next round.

        Args:
          values: The metric, lower is better, shape ``(members, evaluations)``.
          diverged_at: Shape ``(members,)``; -1 = never.

        Returns:
          The step that each member is to reach, by its position in the grid; empty = the race has ended.

        Raises:
          ArgumentError: The strategy asks for something that does not exist, or for more than the budget allows.
        """
        seen = self._steps[None, :] <= self.reached[:, None]
        has_diverged = (diverged_at[:, None] >= 0) & (diverged_at[:, None] < self._steps[None, :])
        values = np.where(seen, np.where(has_diverged | np.isnan(values), np.inf, values), np.nan)
        progress = self._steps, values, self.reached.copy()
        known = Known(self._grid, self._candidates, *progress, self.budget, self._at_once)
        asked = {int(index): int(step) for index, step in self._strategy.next(known).items()}
        self._check(asked)
        wanted = {index: step for index, step in asked.items() if step > self.reached[index]}
        for index, step in wanted.items():
            self.reached[index] = step
        return wanted

    def _check(self, wanted: Mapping[int, int]) -> None:
        for index, step in wanted.items():
            if not 0 <= index < len(self._grid) or step not in self._steps:
                raise ArgumentError(
                    "strategy",
                    f"strategy wants member {index} at step {step}; there are {len(self._grid)} members, which are "
                    f"evaluated at {', '.join(map(str, self._steps[:3]))} ... {self._steps[-1]}.",
                )
        cost = sum(max(step - int(self.reached[index]), 0) for index, step in wanted.items())
        if cost > self.budget - int(self.reached.sum()):
            raise ArgumentError(
                "strategy",
                f"strategy wants {cost} member-steps, and {self.budget - int(self.reached.sum())} of the budget are "
                "left; known.affordable(...) leaves out what the budget does not allow.",
            )


def settled(strategy: Strategy | None, budget: Any, grid: Grid, num_steps: int) -> tuple[Strategy | None, int]:
    """Check the arguments of a race.

    Args:
      strategy: As the user passed it.
      budget: As the user passed it.
      grid: The members.
      num_steps: Last step of each.

    Returns:
      The strategy, None = every member is trained; and the member-steps that may be spent.

    Raises:
      ArgumentTypeError: A wrong type.
      ArgumentError: A budget out of range, or one that is not enough for two candidates.
    """
    if strategy is None and budget is None:
        return None, 0
    wanted = "the fraction of the grid to spend, above 0 and at most 1"
    fraction = 1.0 if budget is None else checks.number(budget, "budget", above=0, at_most=1, allowed=wanted)
    chosen = Surface() if strategy is None else strategy
    if not isinstance(chosen, Strategy) or isinstance(chosen, type):
        raise ArgumentTypeError(
            "strategy", f"strategy is {strategy!r}; give wd.strategies.Surface(), or an object with a method next."
        )
    numbers = member.candidates(list(grid))
    replicates = max(map(numbers.count, set(numbers)))
    allowed = int(fraction * len(grid) * num_steps + 1e-6)
    if allowed < 2 * replicates * num_steps and fraction < 1:
        raise ArgumentError(
            "budget",
            f"budget is {budget}, which is {allowed // num_steps} of {len(grid)} trainings; two candidates with all "
            f"their replicates take {2 * replicates}: give at least {2 * replicates / len(grid):.3g}, or fewer seeds.",
        )
    return chosen, allowed


def with_targets(group: Group, wanted: Mapping[int, int], now: np.ndarray) -> Any:
    """Return a group whose lanes train the members of a round.

    Args:
      group: The group.
      wanted: The step that each member is to reach, by its position in the grid.
      now: Steps that each member of the grid has taken, in the race or before it, shape ``(members,)``.

    Returns:
      The group; its members that are not in the round, or are there already, have no lane.
    """
    targets = np.array([wanted.get(int(index), 0) for index in group.indices], np.int64)
    return dataclasses.replace(group, started=now[group.indices], targets=targets)
