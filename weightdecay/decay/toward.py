"""Rules that pull the weights toward weights of the past: those of the start, and a running average."""

from dataclasses import field, replace
from typing import Any

import jax.numpy as jnp
from jax import Array
from typing_extensions import override

from weightdecay.core import tree
from weightdecay.core.types import Coefficient, PyTree
from weightdecay.decay import parametric
from weightdecay.decay.base import NO_UNIT, PER_STEP_AND_RATE, Rule, Step, with_unit


@tree.dataclass
class SODA(Rule):
    """SODA: a pull toward the initial weights that falls with the number of steps, without a coefficient to tune.

    ``w <- w - η u - c f (w - w0) / (k + 2)`` at step k = 0, 1, ...; w0 are the weights that are passed to the
    optimizer's ``init`` (in `fit_grid`, the drawn or given ones). f = 1 before the step at which the rule ends, and 0
    from then on. The pull does not depend on the learning rate.

    Args:
      scale: c >= 0, no unit: multiple of the pull; 1 is the averaging of the paper.
      fade: Number of steps after which the rule ends, or, as a Python float above 0 and up to 1, a fraction of the run,
        which `fit_grid` and `fit` know; elsewhere `over` makes steps of it. None = it never ends.

    References:
      Pethick et al., Optimistic Dual Averaging Unifies Modern Optimizers, 2026, arXiv 2605.11172.
    """

    equals = "the SODA wrapper of Pethick et al. at c = 1"

    scale: Coefficient = with_unit(NO_UNIT, default=1.0)
    fade: Coefficient = field(default=None, metadata={"unit": "step", "positive": True, "steps": True})

    def over(self, num_steps: Any) -> "SODA":
        """Return the rule for a run of known length, with a number of steps in place of a fraction.

        Args:
          num_steps: Steps of the run, an integer >= 1.

        Returns:
          The rule; the same object if there are no fractions in it.

        Examples:
          >>> print(SODA(fade=0.5).over(1000))
          SODA(fade=500)
        """
        scale = parametric.over(self.scale, num_steps)
        fade = parametric.number_of_steps(self.fade, num_steps) if parametric.is_fraction(self.fade) else self.fade
        return self if scale is self.scale and fade is self.fade else replace(self, scale=scale, fade=fade)

    @override
    def initial(self, weight: Array) -> PyTree:
        return weight

    @override
    def shrink(self, step: Step, state: PyTree) -> tuple[Array | None, PyTree]:
        # As real numbers: the sum of the largest count and 2 is not an int32.
        count = jnp.asarray(step.count, float)
        strength = self.scale / (count + 2)
        if self.fade is not None:
            strength = jnp.where(count < self.fade, strength, 0)
        return strength * (step.weight - state), state


@tree.dataclass
class TowardAverage(Rule):
    """Decoupled decay toward a running average of the weights instead of toward zero.

    ``a <- d a + (1 - d) w, then w <- w - η c (w - a) - η u``; a starts at the initial weights. The average is taken
    over the weights before each step.

    Args:
      coefficient: c >= 0, 1 / (step · learning rate).
      decay: d in [0, 1], no unit: fraction of the average that each step keeps. 0 is no decay at all, because then the
        average is the weights themselves; 1 is `TowardAnchor` with ``decoupled=True``.

    Numerics:
      The average has at least float32's precision, also where the weights are bfloat16.

    References:
      HeavyBall, 2025, ``weight_decay_to_ema`` (there the average starts at 0 and is divided by 1 - d^k).
    """

    equals = "`weight_decay_to_ema` of HeavyBall, but for the start of the average"
    search_range = (1e-2, 1e2)

    coefficient: Coefficient = with_unit(PER_STEP_AND_RATE)
    decay: Coefficient = with_unit(NO_UNIT, at_most=1.0, default=0.99)

    @override
    def initial(self, weight: Array) -> PyTree:
        return weight.astype(jnp.promote_types(jnp.float32, weight.dtype))

    @override
    def shrink(self, step: Step, state: PyTree) -> tuple[Array | None, PyTree]:
        average = (self.decay * state + (1 - self.decay) * step.weight).astype(state.dtype)
        return step.learning_rate * self.coefficient * (step.weight - average), average
