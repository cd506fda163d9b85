"""What numbers say of a claim: confirmed, not confirmed, or depends; by rules that stand before the numbers are known.

A claim is put as one or more checks. A check is an estimate of something that is above 0 where the claim holds: of an
accuracy with decay less that without, where decay is said to raise it. Each check is made in every setting.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from weightdecay.apps import comparison
from weightdecay.core.statistics import Estimate, rounded

RULES = (
    "A check holds where the difference that the claim is about lies on its side and the 95 % interval excludes 0. It "
    "fails where the interval excludes 0 on the other side, and where the interval holds 0: then it is within noise.",
    "A table is confirmed where all of its checks hold, in every setting; not confirmed where none holds; and depends "
    "where some hold and some do not.",
    "Judged is the direction of a claim, not its size. Sizes stand beside each other.",
)
"""The rules in words."""

CONFIRMED, NOT_CONFIRMED, DEPENDS = "confirmed", "not confirmed", "depends"


@dataclass(frozen=True)
class Check:
    """One thing that a claim says, in one setting.

    Attributes:
      claim: What is said, such as ``"test accuracy is higher with decay"``.
      setting: Where it was looked at.
      estimate: Of what is above 0 where the claim holds.
      unit: Of the estimate.
      told: What is shown in place of the estimate.
    """

    claim: str
    setting: str
    estimate: Estimate
    unit: str = ""
    told: str = ""

    @property
    def outcome(self) -> str:
        """``"holds"``, ``"the opposite holds"`` or ``"within noise"``; see `RULES`."""
        if self.estimate.lower > 0:
            return "holds"
        return "the opposite holds" if self.estimate.upper < 0 else "within noise"

    def __str__(self) -> str:
        """Return the claim with its estimate and what came out."""
        if self.told:
            return f"{self.setting}, {self.claim}: {self.outcome} ({self.told})"
        shown = rounded(self.estimate.mean, self.estimate.standard_error)
        sign = "+" if self.estimate.mean > 0 else ""
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.setting}, {self.claim}: {self.outcome} ({sign}{shown}{unit})"


def verdict(checks: Sequence[Check]) -> str:
    """Say in a word what the checks of a claim come to.

    Args:
      checks: At least one.

    Returns:
      ``"confirmed"``, ``"not confirmed"`` or ``"depends"``; see `RULES`.

    Raises:
      ValueError: No check.

    Examples:
      >>> better, alike = Estimate(1.0, 0.1, 0.7, 1.3, 5), Estimate(0.1, 0.2, -0.4, 0.6, 5)
      >>> verdict([Check("accuracy rises", "clean", alike), Check("accuracy rises", "noisy", better)])
      'depends'
    """
    if not checks:
        raise ValueError("checks are empty; a claim without a check cannot be judged: give at least one.")
    holding = sum(check.outcome == "holds" for check in checks)
    if holding == len(checks):
        return CONFIRMED
    return DEPENDS if holding else NOT_CONFIRMED


def reason(checks: Sequence[Check]) -> str:
    """Say why a verdict is what it is.

    Args:
      checks: At least one.

    Returns:
      A sentence: what it depends on, if on one thing, or how many checks hold.

    Raises:
      ValueError: No check.
    """
    word = verdict(checks)
    if word == CONFIRMED:
        return f"All {len(checks)} checks hold." if len(checks) > 1 else "The check holds."
    if word == NOT_CONFIRMED:
        against = sum(check.outcome == "the opposite holds" for check in checks)
        rest = f"of {against} the opposite holds, {len(checks) - against} are within noise"
        if not against:
            rest = "all are within noise"
        elif against == len(checks):
            rest = "of each the opposite holds"
        return f"None of {len(checks)} checks holds: {rest}."
    for name, of in (("the setting", "setting"), ("what is said", "claim")):
        groups: dict[str, list[bool]] = {}
        for check in checks:
            groups.setdefault(getattr(check, of), []).append(check.outcome == "holds")
        if all(all(group) or not any(group) for group in groups.values()):
            holds = "; ".join(group for group, found in groups.items() if all(found))
            fails = "; ".join(group for group, found in groups.items() if not any(found))
            return f"It depends on {name}: it holds for {holds}, and not for {fails}."
    holding = sum(check.outcome == "holds" for check in checks)
    hold = "1 holds" if holding == 1 else f"{holding} hold"
    return f"Of {len(checks)} checks {hold}, and which depends on the setting and on what is said."


def within(claim: str, setting: str, difference: Any, allowed: Any) -> Check:
    """Check of something that has no noise: that a difference is below what is allowed.

    Args:
      claim: What is said.
      setting: Where it was looked at.
      difference: Absolute, shape ``()``.
      allowed: What it must be below, shape ``()``.

    Returns:
      The check; its estimate is what is allowed less the difference, with the standard error 0.
    """
    left = float(allowed) - float(difference)
    told = f"the difference is {float(difference):.2g}, and below {float(allowed):.2g} is allowed"
    return Check(claim, setting, Estimate(left, 0.0, left, left, 1), told=told)


def crossed(values: Any, *, confidence: float = 0.95) -> Estimate:
    """Mean over seeds and examples, with an interval that holds the noise of both.

    ``x̄ ± t √(s²_seeds / seeds + s²_examples / examples)``, where s² is the variance of the means of seeds and of those
    of examples, and t is Student's at Welch and Satterthwaite's degrees of freedom. The seeds of one candidate are
    scored on the same examples, so that more seeds make the error no smaller than that of the examples.

    Args:
      values: Shape ``(seeds, examples)``, at least two of each; of two candidates, their difference seed by seed and
        example by example.
      confidence: Between 0 and 1.

    Returns:
      The estimate.

    References:
      Welch, The Generalization of Student's Problem when Several Different Population Variances are Involved, 1947.
    """
    from scipy import special

    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all():
        return Estimate(math.nan, math.nan, math.nan, math.nan, len(values))
    mean, error, degrees = comparison.mean_and_error(values)
    half = error * float(special.stdtrit(degrees, (1 + confidence) / 2)) if error > 0 else 0.0
    return Estimate(mean, error, mean - half, mean + half, len(values))
