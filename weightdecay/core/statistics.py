"""How sure a mean over replicates is: standard errors, intervals, and what choosing the best of many adds to it.

Notation: x₁ ... xₙ one number a replicate, x̄ their mean, s² = Σ (xᵢ - x̄)² / (n - 1).

Seeds are independent, and ``s / √n`` is the standard error of their mean. The k folds of a cross-validation are not:
any two share most of their training examples, so that their errors go up and down together. There the seeds of a fold
are averaged first, x are the n fold means, and the standard error is ``s √(1/n + 1/(k - 1))``, where 1/(k - 1) is the
number of validation over that of training examples (Nadeau & Bengio 2003).
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

INTERVALS = ("t", "bootstrap")

_SPLITS = 200  # at the most, each used both ways
_SEED = 0  # of the bootstrap and of the splits: the same numbers give the same answer


@dataclass(frozen=True)
class Estimate:
    """A mean, and how sure it is.

    Attributes:
      mean: Over the replicates; nan where one of them is not finite, or where there are none.
      standard_error: Of the mean; nan with a single replicate.
      lower: Lower end of the confidence interval; nan with a single replicate.
      upper: Upper end.
      replicates: How many numbers it rests on; of a paired difference, pairs.
    """

    mean: float
    standard_error: float
    lower: float
    upper: float
    replicates: int

    def __str__(self) -> str:
        """Return the mean and its standard error, to the digits that the error leaves."""
        return rounded(self.mean, self.standard_error)


class Optimism(NamedTuple):
    """By how much the best of many looks too good.

    Attributes:
      mean: In the unit of the metric; positive where the chosen one is worse than it looks. nan with one replicate.
      standard_error: Of the mean, on the safe side; nan with one replicate.
    """

    mean: float
    standard_error: float


def mean_and_error(
    values: Any, folds: Sequence[Any] | None = None, num_folds: int | None = None
) -> tuple[float, float]:
    """Mean over replicates, and its standard error.

    Args:
      values: One number a replicate, shape ``(replicates,)``.
      folds: The fold of each; None = no folds.
      num_folds: Of the cross-validation; None = as many as occur.

    Returns:
      The mean, nan or infinite where a value is; the standard error, see the head of this file: nan for one seed alone,
      and where a value is not finite.
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
    share = _share(len(units), folds, num_folds)
    return float(units.mean()), float(units.std(ddof=1) * math.sqrt(share))


def estimate(
    values: Any,
    *,
    folds: Sequence[Any] | None = None,
    num_folds: int | None = None,
    interval: str = "t",
    confidence: float = 0.95,
) -> Estimate:
    """Mean over replicates with a confidence interval.

    ``"t"``: ``x̄ ± t · standard error`` with Student's t at n - 1 degrees of freedom; exact for normal seeds, and wide
    with few: with three, t is 4.3 at 95 %. ``"bootstrap"``: the bias-corrected and accelerated (BCa) bootstrap of the
    mean, `scipy.stats.bootstrap`, which asks for no normality but for many replicates: with three it is far too narrow.
    With folds its ends are moved out from the mean by ``√(1 + n/(k - 1))``, as the standard error is.

    Args:
      values: One number a replicate, shape ``(replicates,)``.
      folds: The fold of each; None = no folds.
      num_folds: Of the cross-validation; None = as many as occur.
      interval: ``"t"`` or ``"bootstrap"``.
      confidence: Share of such intervals that hold the true mean, between 0 and 1.

    Returns:
      The estimate.

    Raises:
      ValueError: An unknown interval, or a confidence that is no share.

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
    wider = math.sqrt(_share(len(units), folds, num_folds) * len(units))
    low, high = _bootstrap(units, confidence)
    return Estimate(mean, error, mean + wider * (low - mean), mean + wider * (high - mean), len(values))


def student(degrees: int, confidence: float) -> float:
    """How many standard errors a two-sided t interval reaches to each side.

    Args:
      degrees: Of freedom, >= 1.
      confidence: Between 0 and 1.

    Returns:
      The quantile of Student's t at ``(1 + confidence) / 2``.
    """
    from scipy import special

    return float(special.stdtrit(degrees, (1 + confidence) / 2))


def optimism(values: Float[np.ndarray, "candidates replicates"], *, lower_is_better: bool) -> Optimism:
    """By how much the best of many candidates looks too good, by re-splitting the replicates.

    The best mean of many is good by merit and by luck. The replicates are split into halves; the candidate is chosen by
    one half, and what it shows there is held against what it shows on the other half, which had no part in the choice.
    Each split serves both ways. A choice by m replicates has more luck in it than one by all n, by ``√(n / m)`` where
    the candidates are equal, so that the difference is multiplied by ``√(m / n)``.

    Args:
      values: A row a candidate, all finite; a column a replicate that they share. Folds, not the seeds of one, are
        replicates: give `fold_means`.
      lower_is_better: Whether the smallest mean is chosen.

    Returns:
      The mean over all splits, or over 200 of them drawn at random; and ``s √(1 + 1/splits)``, which takes into account
      that the splits share their replicates (Nadeau & Bengio 2003, with halves of one size): on the safe side.

    References:
      Cawley & Talbot, On Over-fitting in Model Selection and Subsequent Selection Bias, 2010.
    """
    num = values.shape[1]
    if num < 2:
        return Optimism(math.nan, math.nan)
    signed = np.asarray(values, np.float64) * (1 if lower_is_better else -1)
    signed = signed - np.median(signed, axis=0)  # What all share in a replicate is no merit of one.
    total = signed.sum(axis=1)
    found = []
    for half in _halves(num):
        sums = signed[:, half].sum(axis=1)
        for inside, size in ((sums, len(half)), (total - sums, num - len(half))):
            shown = inside / size
            chosen = int(shown.argmin())
            outside = (total[chosen] - inside[chosen]) / (num - size)
            found.append((outside - shown[chosen]) * math.sqrt(size / num))
    error = float(np.std(found, ddof=1)) * math.sqrt(1 + 1 / len(found))
    return Optimism(float(np.mean(found)), error)


def fold_means(values: Any, folds: Sequence[Any] | None) -> Float[np.ndarray, "*candidates units"]:
    """Numbers of which each stands for itself: the means of the folds, or the seeds where there is one fold or none.

    Args:
      values: Shape ``(..., replicates)``.
      folds: The fold of each replicate; None = no folds.

    Returns:
      Shape ``(..., units)``.
    """
    values = np.asarray(values, np.float64)
    if not _are_folds(folds):
        return values
    places = np.asarray(folds)
    return np.stack([values[..., places == fold].mean(axis=-1) for fold in np.unique(places)], axis=-1)


def check_interval(interval: str, confidence: Any) -> None:
    """Refuse an interval that there is not.

    Args:
      interval: ``"t"`` or ``"bootstrap"``.
      confidence: Between 0 and 1.

    Raises:
      ValueError: Another word, or no share.
    """
    if interval not in INTERVALS:
        raise ValueError(f"interval is {interval!r}; give one of {', '.join(INTERVALS)}.")
    is_number = isinstance(confidence, int | float | np.number) and not isinstance(confidence, bool)
    if not is_number or not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence!r}; give a number between 0 and 1, such as 0.95.")


def rounded(mean: float, error: float) -> str:
    """Say a mean with its standard error, both to the second digit of the error, or to whole numbers.

    Args:
      mean: The mean.
      error: Its standard error; nan or 0 = the mean alone, to four digits.

    Returns:
      Such as ``"0.1206 ± 0.0031"``.
    """
    if not (math.isfinite(mean) and math.isfinite(error)) or error == 0:
        return f"{mean:.4g}"
    digits = max(1 - math.floor(math.log10(error)), 0)
    if digits > 8:
        return f"{mean:.4g} ± {error:.2g}"
    return f"{mean:.{digits}f} ± {error:.{digits}f}"


def _are_folds(folds: Sequence[Any] | None) -> bool:
    return folds is not None and all(fold is not None for fold in folds) and len(set(folds)) > 1


def _share(num: int, folds: Sequence[Any] | None, num_folds: int | None) -> float:
    """Variance of the mean of ``num`` units over the variance of one."""
    if not _are_folds(folds):
        return 1 / num
    return 1 / num + 1 / (max(num_folds or 0, num) - 1)


def _bootstrap(units: np.ndarray, confidence: float) -> tuple[float, float]:
    if np.ptp(units) == 0:
        return float(units[0]), float(units[0])
    from scipy import stats

    found = stats.bootstrap(  # BCa is its default
        (units,),
        np.mean,
        confidence_level=confidence,
        random_state=np.random.default_rng(_SEED),  # pyright: ignore[reportCallIssue]
    ).confidence_interval
    return float(found.low), float(found.high)


def _halves(num: int) -> list[list[int]]:
    """First halves of the splits; of an even number, each split once."""
    size = num // 2
    if math.comb(num, size) <= _SPLITS:
        every = [list(half) for half in itertools.combinations(range(num), size)]
        return [half for half in every if 2 * size < num or half[0] == 0]
    generator = np.random.default_rng(_SEED)
    return [generator.permutation(num)[:size].tolist() for _ in range(_SPLITS)]
