"""Verdicts on claims: confirmed, not confirmed or depends, by rules that are fixed before the numbers are known.

A claim consists of one or more checks. A check is an estimate of a quantity that is above 0 where the claim holds: if a
claim is that decay raises accuracy, the quantity is the accuracy with decay minus that without. Each check is made in
every setting.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from weightdecay.core import text
from weightdecay.core.statistics import Estimate, mean_over_seeds_and_examples

RULES = (
    "A check holds if the 95 % interval of the difference lies on the claimed side of 0. If the interval lies on the "
    "other side, the opposite holds; if it includes 0, the difference is within noise. In both cases the check fails.",
    "A table is confirmed if all of its checks hold, in every setting; not confirmed if all fail; and depends if some "
    "hold and some fail.",
    "The verdict is on the direction of a claim, not on its size. The tables show claimed and measured sizes next to "
    "each other.",
)
"""The rules as sentences."""

CONFIRMED, NOT_CONFIRMED, DEPENDS = "confirmed", "not confirmed", "depends"


@dataclass(frozen=True)
class Check:
    """One statement of a claim, in one setting.

    Attributes:
      claim: The statement, such as ``"test accuracy is higher with decay"``.
      setting: Name of the setting.
      estimate: Estimate of the quantity that is above 0 where the statement holds.
      unit: Unit of the estimate.
      shown: Text to show in place of the estimate.
    """

    claim: str
    setting: str
    estimate: Estimate
    unit: str = ""
    shown: str = ""

    @property
    def outcome(self) -> str:
        """``"holds"``, ``"the opposite holds"`` or ``"within noise"``; see `RULES`."""
        if self.estimate.lower > 0:
            return "holds"
        return "the opposite holds" if self.estimate.upper < 0 else "within noise"

    def __str__(self) -> str:
        """Return the statement with its outcome and its estimate."""
        if self.shown:
            return f"{self.setting}, {self.claim}: {self.outcome} ({self.shown})"
        shown = text.estimate(self.estimate.mean, self.estimate.standard_error)
        sign = "+" if self.estimate.mean > 0 else ""
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.setting}, {self.claim}: {self.outcome} ({sign}{shown}{unit})"


def verdict(checks: Sequence[Check]) -> str:
    """Verdict on a claim from its checks.

    Args:
      checks: At least one.

    Returns:
      ``"confirmed"``, ``"not confirmed"`` or ``"depends"``; see `RULES`.

    Raises:
      ValueError: No checks.

    Examples:
      >>> better, similar = Estimate(1.0, 0.1, 0.7, 1.3, 5), Estimate(0.1, 0.2, -0.4, 0.6, 5)
      >>> verdict([Check("accuracy rises", "clean", similar), Check("accuracy rises", "noisy", better)])
      'depends'
    """
    if not checks:
        raise ValueError("checks is empty; give at least one, since a claim without checks has no verdict.")
    holding = sum(check.outcome == "holds" for check in checks)
    if holding == len(checks):
        return CONFIRMED
    return DEPENDS if holding else NOT_CONFIRMED


def reason(checks: Sequence[Check]) -> str:
    """Reason for a verdict.

    Args:
      checks: At least one.

    Returns:
      A sentence: what the outcome depends on, if that is one thing, or how many checks hold.

    Raises:
      ValueError: No checks.
    """
    outcome = verdict(checks)
    if outcome == CONFIRMED:
        return f"All {len(checks)} checks hold." if len(checks) > 1 else "The check holds."
    if outcome == NOT_CONFIRMED:
        against = sum(check.outcome == "the opposite holds" for check in checks)
        details = f"for {against} the opposite holds, {len(checks) - against} are within noise"
        if not against:
            details = "all are within noise"
        elif against == len(checks):
            details = "for all the opposite holds"
        return f"None of {len(checks)} checks holds: {details}."
    for name, attribute in (("the setting", "setting"), ("the statement", "claim")):
        groups: dict[str, list[bool]] = {}
        for check in checks:
            groups.setdefault(getattr(check, attribute), []).append(check.outcome == "holds")
        if all(all(group) or not any(group) for group in groups.values()):
            holds = "; ".join(group for group, outcomes in groups.items() if all(outcomes))
            fails = "; ".join(group for group, outcomes in groups.items() if not any(outcomes))
            return f"It depends on {name}: it holds for {holds}, and not for {fails}."
    holding = sum(check.outcome == "holds" for check in checks)
    hold = "1 holds" if holding == 1 else f"{holding} hold"
    return f"Of {len(checks)} checks {hold}; it depends on the setting and on the statement."


def within(claim: str, setting: str, difference: Any, allowed: Any) -> Check:
    """Check that a difference without noise is below a limit.

    Args:
      claim: The statement.
      setting: Name of the setting.
      difference: Absolute difference, shape ``()``.
      allowed: The limit, shape ``()``.

    Returns:
      The check; its estimate is the limit minus the difference, with a standard error of 0.
    """
    left = float(allowed) - float(difference)
    shown = f"the difference is {float(difference):.2g}; the limit is {float(allowed):.2g}"
    return Check(claim, setting, Estimate(left, 0.0, left, left, 1), shown=shown)


def crossed(values: Any, *, confidence: float = 0.95) -> Estimate:
    """Mean over seeds and examples, with an interval that includes the variation of both.

    ``x̄ ± t √(s²_seeds / seeds + s²_examples / examples)``, where s² is the variance of the means of seeds and of those
    of examples, and t is the quantile of Student's distribution at the degrees of freedom of Welch and Satterthwaite.
    All seeds of a candidate are scored on the same examples, so that more seeds do not reduce the error below that of
    the examples.

    Args:
      values: Shape ``(seeds, examples)``, at least two of each. To compare two candidates, pass their difference, seed
        by seed and example by example.
      confidence: Confidence level, between 0 and 1.

    Returns:
      The estimate.

    References:
      Welch, The Generalization of Student's Problem when Several Different Population Variances are Involved, 1947.
    """
    from scipy import special

    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all():
        return Estimate(math.nan, math.nan, math.nan, math.nan, len(values))
    mean, error, degrees = mean_over_seeds_and_examples(values)
    half = error * float(special.stdtrit(degrees, (1 + confidence) / 2)) if error > 0 else 0.0
    return Estimate(mean, error, mean - half, mean + half, len(values))
