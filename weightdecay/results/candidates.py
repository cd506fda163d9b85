"""Candidates of a grid: hyperparameters that compete, with a validation metric of their replicates.

Seeds and folds are replicates of a candidate, never candidates. Two candidates are compared replicate by replicate:
members of the same seed and fold start from the same weights and train on the same batches, so that the random part
that both share cancels in their difference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from weightdecay.core.statistics import Estimate, estimate, mean_and_error
from weightdecay.decay import Rule
from weightdecay.decay.families import is_without_decay
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
