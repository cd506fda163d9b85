"""Candidates of a grid: hyperparameters that compete, with a validation metric of their replicates.

Seeds and folds are replicates of a candidate, never candidates. Two candidates are compared replicate by replicate:
members of the same seed and fold start from the same weights and train on the same batches, so that the random part
that both share cancels in their difference.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from weightdecay.core import tree
from weightdecay.core.statistics import Estimate, estimate, mean_and_error
from weightdecay.decay import Masked, NoDecay, Rule
from weightdecay.decay.placement import Combined
from weightdecay.search import member


class Replicate(NamedTuple):
    """Seed and fold: what the replicates of a candidate differ in."""

    seed: Any
    fold: Any = None


@dataclass(frozen=True)
class Candidate:
    """Hyperparameters that compete, with the validation metric of their replicates.

    Attributes:
      number: Its number, as in the coordinate ``candidate`` of the dataset.
      hyperparameters: Hyperparameters by name, including ``decay``, without seed and fold.
      members: Numbers of its members, one per replicate (seed and fold).
      mean: Mean of the metric over the replicates; nan if one of them is not finite.
      standard_error: Standard error of the mean; nan with a single replicate. With folds, see
        `weightdecay.core.statistics`.
      weight_norm: Mean weight norm of the replicates.
      values: The metric by replicate.
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
        """Its hyperparameters other than the rule."""
        return {name: value for name, value in self.hyperparameters.items() if name != "decay"}

    @property
    def is_without_decay(self) -> bool:
        """Whether it trains without decay: `weightdecay.NoDecay`, or a rule whose coefficients are all 0."""
        return is_without_decay(self.decay)


def gather(
    members: Sequence[Mapping[str, Any]], metric: Any, weight_norm: Any, *, num_folds: int | None = None
) -> list[Candidate]:
    """Collect the members of a grid into candidates.

    Args:
      members: Hyperparameters of each member by name.
      metric: Validation metric, shape ``(members,)``.
      weight_norm: Shape ``(members,)``.
      num_folds: Number of folds of the cross-validation; None = as many as occur.

    Returns:
      The candidates, ordered by their number.
    """
    metric, weight_norm = np.asarray(metric, np.float64), np.asarray(weight_norm, np.float64)
    indices_by_candidate: dict[int, list[int]] = {}
    for index, number in enumerate(member.candidates(members)):
        indices_by_candidate.setdefault(number, []).append(index)
    candidates = []
    for number, indices in indices_by_candidate.items():
        replicates = [Replicate(members[index].get("seed"), members[index].get("fold")) for index in indices]
        hyperparameters = {name: value for name, value in members[indices[0]].items() if name not in member.REPLICATES}
        folds = [replicate.fold for replicate in replicates]
        mean, error = mean_and_error(metric[indices], folds, num_folds)
        norm, _ = mean_and_error(weight_norm[indices], folds, num_folds)
        values = dict(zip(replicates, metric[indices].tolist(), strict=True))
        candidates.append(Candidate(number, hyperparameters, tuple(indices), mean, error, norm, values))
    return candidates


def difference(
    candidate: Candidate,
    reference: Candidate,
    *,
    num_folds: int | None = None,
    interval: str = "t",
    confidence: float = 0.95,
) -> Estimate:
    """Estimate the paired difference of two candidates.

    It is the mean of ``candidate - reference`` over the replicates that both have.

    Args:
      candidate: The candidate.
      reference: The candidate that it is compared with.
      num_folds: Number of folds of the cross-validation; None = as many as occur.
      interval: As in `weightdecay.core.statistics.estimate`.
      confidence: As in `weightdecay.core.statistics.estimate`.

    Returns:
      The difference in the unit of the metric. Its standard error is ``s / √n`` of the n differences (with folds, see
      `weightdecay.core.statistics`), which is smaller than that of two separate means if the pairs vary together. nan
      without a pair, and if a value is not finite.
    """
    shared = [replicate for replicate in candidate.values if replicate in reference.values]
    values, reference_values = (np.array([one.values[key] for key in shared]) for one in (candidate, reference))
    with np.errstate(invalid="ignore"):
        differences = values - reference_values
    folds = [replicate.fold for replicate in shared]
    return estimate(differences, folds=folds, num_folds=num_folds, interval=interval, confidence=confidence)


def coefficient(rule: Rule) -> float | None:
    """Return the coefficient by which rules of the same family are ordered.

    Args:
      rule: Any rule.

    Returns:
      Its only coefficient, or, of several, the one named ``coefficient``; None if that is not a finite number.
    """
    name = coefficient_name(rule)
    return None if name is None else float(rule.coefficients()[name])  # pyright: ignore[reportArgumentType]


def coefficient_name(rule: Rule) -> str | None:
    """Return the name of the coefficient by which rules of the same family are ordered; None if there is none."""
    numbers = rule.coefficients()
    name = next(iter(numbers)) if len(numbers) == 1 else "coefficient"
    value = numbers.get(name)
    return name if isinstance(value, Real) and math.isfinite(value) else None


def is_without_decay(rule: Rule) -> bool:
    """Whether a rule changes nothing: `weightdecay.NoDecay`, or a rule whose coefficients are all 0, such as ``L2(0)``.

    The coefficients that count are those named ``coefficient``, ``l1_coefficient`` and so on. A rule without any of
    these, such as one with a bound, always decays; a bound of 0 even removes all weights.

    Args:
      rule: Any rule; a combined rule is without decay if all its parts are.

    Returns:
      Whether it changes nothing.
    """
    if isinstance(rule, NoDecay):
        return True
    if isinstance(rule, Masked):
        return is_without_decay(rule.rule)
    if isinstance(rule, Combined):
        return all(is_without_decay(part) for part in rule.rules)
    strengths = [value for name, value in rule.coefficients().items() if name.endswith("coefficient")]
    leaves = [np.asarray(leaf) for value in strengths for _, leaf in tree.named_leaves(value)]
    return bool(leaves) and all(leaf.dtype != object and not leaf.any() for leaf in leaves)


def rule_family(rule: Rule) -> tuple[str, str]:
    """Return what is equal in rules that differ only in their coefficient: the kind and the other coefficients."""
    numbers, name = rule.coefficients(), coefficient_name(rule)
    others = {other: value for other, value in numbers.items() if other != name}
    return rule.name, str(others) if name is not None else ""
