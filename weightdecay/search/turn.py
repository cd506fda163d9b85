"""The turn of a curve: the step after which a loss rises again, if that is more than noise."""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

_CONFIDENCE = 0.95  # one-sided, at every evaluation since the turn
_LEAST = 3  # evaluations that must lie above the minimum, up to the last one


class Turn(NamedTuple):
    """Where a loss has turned."""

    step: int  # at the minimum
    since: int  # first step from which on the loss is significantly above its minimum


def find(steps: Any, losses: Float[np.ndarray, "seeds steps"]) -> Turn | None:
    """Find the turn of a curve.

    The minimum is that of the mean over the seeds, averaged over three neighbouring evaluations. An evaluation is
    significantly above it by a one-sided t test at 95 % of the differences, paired by seed. With one seed the noise is
    that of the curve itself, from its second differences.

    Args:
      steps: Evaluation steps, ascending, shape ``(steps,)``.
      losses: Loss of each seed, lower is better; finite.

    Returns:
      The turn; None where the last three evaluations are not all significantly above the minimum.

    Examples:
      >>> steps = np.arange(1, 11)
      >>> find(steps, (steps[None] - 4.0) ** 2)
      Turn(step=4, since=5)
      >>> find(steps, 1.0 / steps[None]) is None
      True
    """
    steps = np.asarray(steps)
    if len(steps) < _LEAST + 1:
        return None
    minimum = int(np.argmin(_smooth(losses.mean(axis=0))))
    above = _significantly_above(losses, minimum)
    above[: minimum + 1] = False
    since = len(steps) - int(np.argmin(above[::-1])) if not above.all() else 0
    if len(steps) - since < _LEAST:
        return None
    return Turn(int(steps[minimum]), int(steps[since]))


def _smooth(curve: np.ndarray) -> np.ndarray:
    """Means of three neighbours; two at the ends."""
    padded = np.concatenate([[np.nan], curve, [np.nan]])
    return np.nanmean(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0)


def _significantly_above(losses: np.ndarray, minimum: int) -> np.ndarray:
    from scipy import stats

    differences = losses - losses[:, minimum : minimum + 1]
    seeds = len(losses)
    if seeds > 1:
        error = differences.std(axis=0, ddof=1) / math.sqrt(seeds)
        return differences.mean(axis=0) > stats.t.ppf(_CONFIDENCE, seeds - 1) * error
    second = np.diff(losses[0], 2)
    # Second differences of independent noise have the variance 6 s², the difference of two evaluations 2 s².
    noise = np.median(np.abs(second - np.median(second))) / stats.norm.ppf(0.75) / math.sqrt(3)
    return differences[0] > stats.norm.ppf(_CONFIDENCE) * noise
