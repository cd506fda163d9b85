"""Candidates of a grid: hyperparameters that compete, with a validation metric of their replicates.

Seeds and folds are replicates of a candidate, never candidates. Two candidates that are compared are compared replicate
by
replicate: members of one seed and fold start from the same weights and see the same batches, so that what is luck in
  both
drops out of their difference.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from weightdecay.core.statistics import Estimate, estimate, mean_and_error
from weightdecay.decay import NoDecay, Rule
from weightdecay.search import member


class Replicate(NamedTuple):
    """What replicates of a candidate differ in."""

    seed: Any
    fold: Any = None


@dataclass(frozen=True)
class Candidate:
    """Hyperparameters that compete, with the validation metric of their replicates.

    Attributes:
      number: As the coordinate ``candidate`` has it.
      hyperparameters: By name, ``decay`` included, without seed and fold.
      members: Its replicates, one a seed and fold.
      mean: Mean of the metric over the replicates; nan where one of them is not finite.
      standard_error: Of the mean; nan with a single replicate. With folds, see `weightdecay.core.statistics`.
      weight_norm: Mean over the replicates.
      values: The metric of each replicate.
    """

    number: int
    hyperparameters: dict[str, Any]
    members: tuple[int, ...]
    mean: float
    standard_error: float
    weight_norm: float
    values: dict[Replicate, float] = field(repr=False, compare=False)

    @property
    def decay(self) -> Rule:
        """The rule."""
        return self.hyperparameters["decay"]

    @property
    def others(self) -> dict[str, Any]:
        """Its hyperparameters without the rule."""
        return {name: value for name, value in self.hyperparameters.items() if name != "decay"}

    @property
    def is_without_decay(self) -> bool:
        """Whether its rule is `weightdecay.NoDecay`."""
        return isinstance(self.decay, NoDecay)


def gather(
    members: Sequence[Mapping[str, Any]], metric: Any, weight_norm: Any, *, num_folds: int | None = None
) -> list[Candidate]:
    """Candidates of a grid.

    Args:
      members: Hyperparameters by name.
      metric: Validation metric, shape ``(members,)``.
      weight_norm: Shape ``(members,)``.
      num_folds: Of a cross-validation; None = as many as occur.

    Returns:
      One candidate a number, in order.
    """
    metric, weight_norm = np.asarray(metric, np.float64), np.asarray(weight_norm, np.float64)
    replicates: dict[int, list[int]] = {}
    for index, number in enumerate(member.candidates(members)):
        replicates.setdefault(number, []).append(index)
    found = []
    for number, indices in replicates.items():
        own = [Replicate(members[index].get("seed"), members[index].get("fold")) for index in indices]
        hyperparameters = {name: value for name, value in members[indices[0]].items() if name not in member.REPLICATES}
        folds = [replicate.fold for replicate in own]
        mean, error = mean_and_error(metric[indices], folds, num_folds)
        norm, _ = mean_and_error(weight_norm[indices], folds, num_folds)
        values = dict(zip(own, metric[indices].tolist(), strict=True))
        found.append(Candidate(number, hyperparameters, tuple(indices), mean, error, norm, values))
    return found


def difference(
    candidate: Candidate,
    reference: Candidate,
    *,
    num_folds: int | None = None,
    interval: str = "t",
    confidence: float = 0.95,
) -> Estimate:
    """Paired difference of two candidates: the mean of ``candidate - reference`` over the replicates that both have.

    Args:
      candidate: What is compared.
      reference: With what.
      num_folds: Of a cross-validation; None = as many as occur.
      interval: As `weightdecay.core.statistics.estimate` takes it.
      confidence: Likewise.

    Returns:
      The difference in the unit of the metric. Its standard error is ``s / √n`` of the n differences (with folds, see
      `weightdecay.core.statistics`): smaller than that of two separate means by what the pairs have in common. nan
      without a pair, and where a value is not finite.
    """
    shared = [replicate for replicate in candidate.values if replicate in reference.values]
    ours, theirs = (np.array([one.values[replicate] for replicate in shared]) for one in (candidate, reference))
    with np.errstate(invalid="ignore"):
        differences = ours - theirs
    folds = [replicate.fold for replicate in shared]
    return estimate(differences, folds=folds, num_folds=num_folds, interval=interval, confidence=confidence)


def coefficient(rule: Rule) -> float | None:
    """The coefficient by which rules of one kind are ordered.

    Args:
      rule: Any rule.

    Returns:
      Its only coefficient, or the one of several that is named so; None where there is no such number.
    """
    name = coefficient_name(rule)
    return None if name is None else float(rule.coefficients()[name])  # pyright: ignore[reportArgumentType]


def coefficient_name(rule: Rule) -> str | None:
    """Name of the coefficient by which rules of one kind are ordered; None where there is no such number."""
    numbers = rule.coefficients()
    name = next(iter(numbers)) if len(numbers) == 1 else "coefficient"
    value = numbers.get(name)
    return name if isinstance(value, Real) and math.isfinite(value) else None


def shape(rule: Rule) -> tuple[str, str]:
    """What rules share that differ in their coefficient alone: the kind, and its other coefficients."""
    numbers, name = rule.coefficients(), coefficient_name(rule)
    others = {other: value for other, value in numbers.items() if other != name}
    return rule.name, str(others) if name is not None else ""
