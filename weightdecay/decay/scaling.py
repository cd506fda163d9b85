"""What a coefficient keeps from one run to another: the time scale of its decay, or the objective that is minimized.

The time scale is what `weightdecay.decay.theory` knows of a rule, so that a new rule needs nothing here. A rule without
a time scale that adds a penalty to the loss keeps the objective. For any other rule there is no basis.
"""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import jax.numpy as jnp
import numpy as np

from weightdecay.core import rule_facts
from weightdecay.decay import optimizers, theory
from weightdecay.decay.base import Rule
from weightdecay.decay.declarations import UnsupportedRuleError
from weightdecay.decay.placement import Combined, Masked
from weightdecay.decay.schedules import Parametric
from weightdecay.decay.theory import Steps

TIME_SCALE, OBJECTIVE = "time scale", "objective"
"""Values of `basis`."""

LONGEST, SHORTEST = 1000.0, 0.1
"""Time scales of the default coefficients of the command line, in lengths of the run: from where decay does nothing to
where it removes everything."""
_NUM_POINTS = 200  # steps at which a schedule is evaluated
_LEAST_STEPS = 10.0  # of a time scale: in shorter ones decay alone makes training unstable


def removed(decay: Rule, learning_rate: Any, steps: Sequence[int], *, momentum: float | None = None) -> Steps:
    """Fraction of the weights that decay alone removes at some steps.

    Args:
      decay: A single rule.
      learning_rate: A number > 0, or a schedule of `weightdecay.schedules` whose steps are no fractions of a run.
      steps: Numbers of steps taken, each >= 1.
      momentum: Momentum of SGD; None for every other optimizer.

    Returns:
      The fraction at the last of so many steps, 1 / step, shape ``(steps,)``; nan where theory does not know it, as for
      `L2` under Adam.

    Examples:
      >>> from weightdecay import decay
      >>> removed(decay.Decoupled(0.1), 0.01, [1]).tolist(), removed(decay.L2(0.1), 0.01, [1]).tolist()
      ([0.001], [nan])
    """
    rate: Any = learning_rate
    is_schedule = isinstance(learning_rate, Parametric) and learning_rate.largest() is not None
    if not (is_schedule or isinstance(learning_rate, Real)) or isinstance(decay, Combined | Masked):
        return np.full(len(steps), np.nan)
    try:
        base = optimizers.adam(rate, decay) if momentum is None else optimizers.sgd(rate, decay, momentum)
    except UnsupportedRuleError:  # as a rule that reads second moments, under SGD
        return np.full(len(steps), np.nan)
    with np.errstate(divide="ignore"):
        return 1 / theory.decayed(base, steps).time_scale


def removed_until(kind: type[Rule], learning_rate: Any, until: int, *, momentum: float | None = None) -> float:
    """R(t): the sum, over the steps up to t, of the fraction of the weights that a coefficient of 1 removes.

    Args:
      kind: Class of the rule.
      learning_rate: A number > 0, or a schedule of `weightdecay.schedules` whose steps are no fractions of a run.
      until: t, >= 1.
      momentum: Momentum of SGD; None for every other optimizer.

    Returns:
      The sum, in units of 1 / coefficient; nan where theory does not know it, and of a rule that needs more than one
      coefficient, or none. A schedule is evaluated at 200 steps.

    Examples:
      >>> from weightdecay import decay
      >>> removed_until(decay.Decoupled, 0.01, 500)
      5.0
    """
    names = kind.coefficient_names()
    if issubclass(kind, Combined | Masked) or len(names) != 1 or kind.required() != names:
        return math.nan
    facts, is_number = rule_facts.of_rule(kind.__name__), isinstance(learning_rate, Real)
    if is_number and momentum is None and facts is not None and facts.removed_fraction is not None:
        return until * float(facts.removed_fraction(float(learning_rate)))
    counts = [1] if is_number else np.unique(np.linspace(1, until, _NUM_POINTS).round().astype(int)).tolist()
    return until * float(removed(kind.from_one(1.0), learning_rate, counts, momentum=momentum).mean())


def basis(decay: Rule, *, momentum: float | None = None) -> str | None:
    """Return what the coefficient of a rule keeps in another run.

    Args:
      decay: A single rule, with a coefficient above 0.
      momentum: Momentum of SGD; None for every other optimizer.

    Returns:
      ``TIME_SCALE``, ``OBJECTIVE``, or None: theory says nothing.

    Examples:
      >>> from weightdecay import decay
      >>> basis(decay.L2(0.1)), basis(decay.L2(0.1), momentum=0.9), basis(decay.MaxNorm(1.0))
      ('objective', 'time scale', None)
    """
    rule = decay.rule if isinstance(decay, Masked) else decay
    if isinstance(rule, Combined) or not rule.coefficients():
        return None
    if np.isfinite(removed(rule, 1e-3, [1], momentum=momentum)).all():
        return TIME_SCALE
    weight = jnp.full((2, 2), 0.5)
    # The initial weights are others, so that a rule toward them has a penalty.
    return OBJECTIVE if float(rule.penalty(weight, rule.initial(2 * weight))) > 0 else None


def ladder(
    kind: type[Rule], learning_rate: float, num_steps: int, *, momentum: float | None = None
) -> tuple[float, float] | None:
    """Smallest and largest coefficient worth trying in a run, where nothing else is known.

    For a rule with a time scale they are those at which it is 1000 and 0.1 times the run, and at least 10 steps. For
    any other rule they are its ``search_range``. At a learning rate of 0.001 and 1000 steps both are the same.

    Args:
      kind: Class of the rule.
      learning_rate: Peak learning rate, > 0; of several the smallest one.
      num_steps: Steps of the run, >= 1.
      momentum: Momentum of SGD; None for every other optimizer.

    Returns:
      Both coefficients; None for a rule without a range.

    Examples:
      >>> from weightdecay import decay
      >>> ladder(decay.Decoupled, 0.001, 1000), ladder(decay.Decoupled, 0.001, 10_000)
      ((0.001, 10.0), (0.0001, 1.0))
      >>> ladder(decay.L2, 0.1, 1000, momentum=0.0), ladder(decay.L2, 0.1, 1000)
      ((1e-05, 0.1), (1e-06, 0.1))
    """
    if kind.search_range is None:
        return None
    (fraction,) = removed(kind.from_one(1.0), learning_rate, [1], momentum=momentum)
    if not np.isfinite(fraction):
        return kind.search_range
    time_scales = LONGEST * num_steps, max(SHORTEST * num_steps, _LEAST_STEPS)
    smallest, largest = (float(f"{1 / (fraction * time_scale):.12g}") for time_scale in time_scales)
    return smallest, largest
