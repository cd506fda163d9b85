"""Statistics of replicates: standard errors and intervals of means, and the optimism of choosing the best of many.

Notation: x₁ ... xₙ one number per replicate, x̄ their mean, s² = Σ (xᵢ - x̄)² / (n - 1).

Seeds are independent, and ``s / √n`` is the standard error of their mean. The k folds of a cross-validation are not
independent: any two share most of their training examples, so that their errors are correlated. For folds, the seeds of
each fold are averaged first, x are the n fold means, and the standard error is ``s √(1/n + 1/(k - 1))``, where
1/(k - 1) is the number of validation examples divided by the number of training examples (Nadeau & Bengio 2003).
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from weightdecay.core import checks, text

INTERVALS = ("t", "bootstrap")

_MAX_SPLITS = 200  # each split is used in both directions
_SEED = 0  # of the bootstrap and of the splits, so that the same numbers give the same result


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error and a confidence interval.

    Attributes:
      mean: Mean over the replicates; nan if one of them is not finite, or if there are none.
      standard_error: Standard error of the mean; nan with a single replicate.
      lower: Lower end of the confidence interval; nan with a single replicate.
      upper: Upper end of the confidence interval; nan with a single replicate.
      replicates: Number of replicates; for a paired difference, the number of pairs.
    """

    mean: float
    standard_error: float
    lower: float
    upper: float
    replicates: int

    def __str__(self) -> str:
        """Return the mean and its standard error, to the second digit of the error."""
        return text.estimate(self.mean, self.standard_error)


class Optimism(NamedTuple):
    """By how much the best of many looks better than it is.

    Attributes:
      mean: In the unit of the metric; positive if the best is worse than it looks. nan with one replicate.
      standard_error: Conservative standard error of the mean; nan with one replicate.
    """

    mean: float
    standard_error: float


def mean_and_error(
    values: Any, folds: Sequence[Any] | None = None, num_folds: int | None = None
) -> tuple[float, float]:
    """Compute the mean over replicates and its standard error.

    Args:
      values: One number per replicate, shape ``(replicates,)``.
      folds: The fold of each replicate; None = no folds.
      num_folds: Number of folds of the cross-validation; None = as many as occur.

    Returns:
      The mean, nan or infinite if a value is; and the standard error (see the top of this file), nan for a single seed
      and if a value is not finite.
    """
    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all():
        with np.errstate(invalid="ignore"):
            return float(values.mean()), math.nan
    if values.size == 0:
        return math.nan, math.nan
    units = fold_means(values, folds)
    if len(units) < 2:
        return float(units.mean()), math.nan
    ratio = _variance_ratio(len(units), folds, num_folds)
    return float(units.mean()), float(units.std(ddof=1) * math.sqrt(ratio))


def mean_over_seeds_and_examples(values: Float[np.ndarray, "seeds examples"]) -> tuple[float, float, float]:
    """Compute the mean over seeds and examples, with a standard error that includes the variation of both.

    Args:
      values: Shape ``(seeds, examples)``.

    Returns:
      The mean; its standard error, ``√(s²_seeds / seeds + s²_examples / examples)``; and the degrees of freedom of
      Welch and Satterthwaite.
    """
    parts = []
    for axis in (1, 0):  # over examples, one mean per seed; over seeds, one mean per example
        means = values.mean(axis=axis)
        if len(means) > 1:
            parts.append((means.var(ddof=1) / len(means), len(means) - 1))
    variance = sum(part for part, _ in parts)
    if not parts or variance == 0:
        return float(values.mean()), 0.0 if parts else np.nan, np.inf
    degrees = variance**2 / sum(part**2 / freedom for part, freedom in parts)
    return float(values.mean()), float(np.sqrt(variance)), float(degrees)


def estimate(
    values: Any,
    *,
    folds: Sequence[Any] | None = None,
    num_folds: int | None = None,
    interval: str = "t",
    confidence: float = 0.95,
) -> Estimate:
    """Compute the mean over replicates with a confidence interval.

    ``"t"``: ``x̄ ± t · standard error`` with Student's t at n - 1 degrees of freedom. It is exact for normally
    distributed replicates, and wide with few: with three, t is 4.3 at 95 %. ``"bootstrap"``: the bias-corrected and
    accelerated (BCa) bootstrap of the mean, `scipy.stats.bootstrap`. It does not assume a normal distribution but needs
    many replicates: with three it is far too narrow. With folds its ends are moved away from the mean by the factor
    ``√(1 + n/(k - 1))``, as the standard error is.

    Args:
      values: One number per replicate, shape ``(replicates,)``.
      folds: The fold of each replicate; None = no folds.
      num_folds: Number of folds of the cross-validation; None = as many as occur.
      interval: ``"t"`` or ``"bootstrap"``.
      confidence: Fraction of such intervals that contain the true mean, between 0 and 1.

    Returns:
      The estimate.

    Raises:
      ArgumentError: An unknown interval, or a confidence that is not between 0 and 1.

    References:
      Nadeau & Bengio, Inference for the Generalization Error, 2003; Efron, Better Bootstrap Confidence Intervals, 1987.

    Examples:
      >>> print(estimate([0.31, 0.35, 0.33]))
      0.330 ± 0.012
    """
    check_interval(interval, confidence)
    values = np.asarray(values, np.float64)
    mean, error = mean_and_error(values, folds, num_folds)
    if math.isnan(error):
        return Estimate(mean if math.isfinite(mean) else math.nan, math.nan, math.nan, math.nan, len(values))
    units = fold_means(values, folds)
    if interval == "t":
        half = student(len(units) - 1, confidence) * error
        return Estimate(mean, error, mean - half, mean + half, len(values))
    factor = math.sqrt(_variance_ratio(len(units), folds, num_folds) * len(units))
    low, high = _bootstrap(units, confidence)
    return Estimate(mean, error, mean + factor * (low - mean), mean + factor * (high - mean), len(values))


def student(degrees: int, confidence: float) -> float:
    """Return the half width of a two-sided t interval, in standard errors.

    Args:
      degrees: Degrees of freedom, >= 1.
      confidence: Confidence of the interval, between 0 and 1.

    Returns:
      The quantile of Student's t at ``(1 + confidence) / 2``.
    """
    from scipy import special

    return float(special.stdtrit(degrees, (1 + confidence) / 2))


def optimism(values: Float[np.ndarray, "candidates replicates"], *, lower_is_better: bool) -> Optimism:
    """Estimate by how much the best of many candidates looks better than it is, by re-splitting the replicates.

    The best mean of many is good by merit and by luck. The replicates are split into halves. The candidate is chosen by
    one half, and its mean there is compared with its mean on the other half, which was not used for the choice. Each
    split is used in both directions. A choice by m replicates has more luck in it than a choice by all n replicates, by
    ``√(n / m)`` if the candidates are equal, so that the difference is multiplied by ``√(m / n)``.

    Args:
      values: One row per candidate, one column per replicate that all candidates have; all finite. With folds, the
        replicates are the folds: give `fold_means`.
      lower_is_better: Whether the smallest mean is chosen.

    Returns:
      The mean over all splits, or over 200 random ones; and ``s √(1 + 1/splits)``, which takes into account that the
      splits share their replicates (Nadeau & Bengio 2003, with halves of one size); it is conservative.

    References:
      Cawley & Talbot, On Over-fitting in Model Selection and Subsequent Selection Bias, 2010.
    """
    num = values.shape[1]
    if num < 2:
        return Optimism(math.nan, math.nan)
    signed = np.asarray(values, np.float64) * (1 if lower_is_better else -1)
    signed = signed - np.median(signed, axis=0)  # What all candidates share in a replicate is not a merit.
    total = signed.sum(axis=1)
    excesses = []
    for half in _halves(num):
        half_sums = signed[:, half].sum(axis=1)
        for sums, size in ((half_sums, len(half)), (total - half_sums, num - len(half))):
            means = sums / size
            chosen = int(means.argmin())
            mean_elsewhere = (total[chosen] - sums[chosen]) / (num - size)
            excesses.append((mean_elsewhere - means[chosen]) * math.sqrt(size / num))
    error = float(np.std(excesses, ddof=1)) * math.sqrt(1 + 1 / len(excesses))
    return Optimism(float(np.mean(excesses)), error)


def fold_means(values: Any, folds: Sequence[Any] | None) -> Float[np.ndarray, "*candidates units"]:
    """Average the seeds of each fold; without folds, or with a single one, return the values as they are.

    Args:
      values: Shape ``(..., replicates)``.
      folds: The fold of each replicate; None = no folds.

    Returns:
      Shape ``(..., units)``.
    """
    values = np.asarray(values, np.float64)
    if not _are_folds(folds):
        return values
    fold_of_replicate = np.asarray(folds)
    means = [values[..., fold_of_replicate == fold].mean(axis=-1) for fold in np.unique(fold_of_replicate)]
    return np.stack(means, axis=-1)


def check_interval(interval: Any, confidence: Any) -> None:
    """Validate the kind and the confidence of an interval.

    Args:
      interval: ``"t"`` or ``"bootstrap"``.
      confidence: A number between 0 and 1.

    Raises:
      ArgumentError: Anything else.
    """
    checks.one_of(interval, "interval", INTERVALS)
    checks.number(confidence, "confidence", above=0, below=1, allowed="a number between 0 and 1, such as 0.95")


def _are_folds(folds: Sequence[Any] | None) -> bool:
    return folds is not None and all(fold is not None for fold in folds) and len(set(folds)) > 1


def _variance_ratio(num: int, folds: Sequence[Any] | None, num_folds: int | None) -> float:
    """Return the variance of the mean of ``num`` units, divided by the variance of one unit."""
    if not _are_folds(folds):
        return 1 / num
    return 1 / num + 1 / (max(num_folds or 0, num) - 1)


def _bootstrap(units: np.ndarray, confidence: float) -> tuple[float, float]:
    if np.ptp(units) == 0:
        return float(units[0]), float(units[0])
    from scipy import stats

    ends = stats.bootstrap(  # its default is BCa
        (units,),
        np.mean,
        confidence_level=confidence,
        random_state=np.random.default_rng(_SEED),  # pyright: ignore[reportCallIssue]
    ).confidence_interval
    return float(ends.low), float(ends.high)


def _halves(num: int) -> list[list[int]]:
    """Return one half of each split; for an even number of replicates, each split once."""
    size = num // 2
    if math.comb(num, size) <= _MAX_SPLITS:
        halves = [list(half) for half in itertools.combinations(range(num), size)]
        return [half for half in halves if 2 * size < num or half[0] == 0]
    generator = np.random.default_rng(_SEED)
    return [generator.permutation(num)[:size].tolist() for _ in range(_MAX_SPLITS)]
