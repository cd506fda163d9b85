"""Strategies of ``fit_grid(..., budget=..., strategy=...)``: `Surface` (the default), `Halving`, `Optuna` and `Full`.

A strategy of your own is any object with a method ``next(known)``; see `weightdecay.search.strategy.Strategy`. It
decides by ``stopping_metric``, at any level of detail: whole trainings, or members that go on from rung to rung.
"""

import math
from dataclasses import dataclass

import numpy as np

from weightdecay.core.checks import ArgumentError
from weightdecay.search.optuna_sampler import Optuna
from weightdecay.search.strategy import Known, Strategy, completed
from weightdecay.search.surface import Surface

__all__ = ["Full", "Halving", "Known", "Optuna", "Strategy", "Surface"]


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
