"""Schedules of several pieces: warm-up and decay, restarts, and values between given steps."""

import functools
import itertools
from dataclasses import field
from typing import Any

import jax.numpy as jnp
from jax.core import Tracer
from typing_extensions import override

from weightdecay.core import text, tree
from weightdecay.core.types import Scalar
from weightdecay.decay.parametric import Parametric, elapsed, fraction_of, is_fraction, real, since, steps


@tree.dataclass
class WarmupCosine(Parametric):
    """A straight line from 0 to a peak, then half a cosine down to the end, and constant from then on.

    ``peak count / warmup_steps`` before step ``warmup_steps``; then ``end + (peak - end) (1 + cos(π f)) / 2`` with
    ``f = min((count - warmup_steps) / (num_steps - warmup_steps), 1)``; as `optax.warmup_cosine_decay_schedule`.

    Args:
      peak: Value at step ``warmup_steps``, the largest; >= 0.
      warmup_steps: Number of steps from 0 to the peak, or a fraction of the run; >= 0. At 0 the value is ``peak`` at
        the start.
      num_steps: Number of steps in all, from which on the value is ``end``; >= 0. None: the whole run.
      end: Value from step ``num_steps`` on; >= 0.

    References:
      Goyal et al., Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour, 2017, arXiv 1706.02677 (warm-up).

    Examples:
      >>> [round(float(WarmupCosine(1.0, 2, 6)(count)), 6) for count in (0, 1, 2, 4, 6)]
      [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    peak: Any
    warmup_steps: Any = steps()
    num_steps: Any = steps(default=None)
    end: Any = 0.0

    @override
    def _value(self, count: Any) -> Scalar:
        falling = fraction_of(since(count, self.warmup_steps), since(self.num_steps, self.warmup_steps))
        height = (1 + jnp.cos(jnp.pi * falling)) / 2
        return _warmed(count, self.warmup_steps, self.peak, real(self.peak) * height + real(self.end) * (1 - height))

    @override
    def largest(self) -> Any:
        return jnp.maximum(real(self.peak), real(self.end))


@tree.dataclass
class WarmupStableDecay(Parametric):
    """A straight line from 0 to a peak, a constant, then a straight line down to the end.

    ``peak count / warmup_steps`` before step ``warmup_steps``; ``peak`` up to step ``num_steps - decay_steps``; then
    ``peak (1 - f) + end f`` with ``f = min((count - (num_steps - decay_steps)) / decay_steps, 1)``.

    Args:
      peak: The largest value; >= 0.
      warmup_steps: Number of steps from 0 to the peak, or a fraction of the run; >= 0. At 0 the value is ``peak`` at
        the start.
      decay_steps: Number of steps from the peak to the end, or a fraction of the run; >= 0.
      num_steps: Number of steps in all, from which on the value is ``end``; >= ``warmup_steps + decay_steps``. None:
        the whole run.
      end: Value from step ``num_steps`` on; >= 0.

    References:
      Hu et al., MiniCPM, 2024, arXiv 2404.06395; Hägele et al., Scaling Laws and Compute-Optimal Training Beyond Fixed
      Training Durations, 2024, arXiv 2405.18392.

    Examples:
      >>> [float(WarmupStableDecay(1.0, 2, 4, 10)(count)) for count in (0, 1, 2, 6, 7, 10)]
      [0.0, 0.5, 1.0, 1.0, 0.75, 0.0]
    """

    peak: Any
    warmup_steps: Any = steps()
    decay_steps: Any = steps()
    num_steps: Any = steps(default=None)
    end: Any = 0.0

    @override
    def _value(self, count: Any) -> Scalar:
        falling = fraction_of(since(count, real(self.num_steps) - real(self.decay_steps)), self.decay_steps)
        held = real(self.peak) * (1 - falling) + real(self.end) * falling
        return _warmed(count, self.warmup_steps, self.peak, held)

    @override
    def largest(self) -> Any:
        return jnp.maximum(real(self.peak), real(self.end))


@tree.dataclass
class Sawtooth(Parametric):
    """A straight line from one value to another in each period, beginning anew with the next one.

    ``start (1 - f) + stop f`` with ``f = (count mod period) / (period - 1)``: the first step of a period has ``start``,
    the last one ``stop``.

    Args:
      start: Value at the first step of a period; >= 0.
      stop: Value at the last step of a period; >= 0.
      period: Number of steps of a period, an integer >= 1, or a fraction of the run.

    References:
      Loshchilov & Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, 2017, arXiv 1608.03983 (restarts).

    Examples:
      >>> [float(Sawtooth(1.0, 0.0, 3)(count)) for count in range(5)]
      [1.0, 0.5, 0.0, 1.0, 0.5]
    """

    start: Any
    stop: Any
    period: Any = steps()

    @override
    def _value(self, count: Any) -> Scalar:
        count = jnp.asarray(count)
        period = jnp.maximum(jnp.round(real(self.period)), 1)
        if jnp.issubdtype(count.dtype, jnp.integer):  # exact for any count
            largest = jnp.iinfo(count.dtype).max
            position = count % jnp.where(period < largest, period, largest).astype(count.dtype)
        else:
            position = count % period
        fraction = jnp.minimum(elapsed(position, jnp.maximum(period - 1, 1)), 1)
        return real(self.start) * (1 - fraction) + real(self.stop) * fraction

    @override
    def largest(self) -> Any:
        ends = jnp.maximum(real(self.start), real(self.stop))
        return jnp.where(jnp.round(real(self.period)) > 1, ends, real(self.start))


@tree.dataclass
class Piecewise(Parametric):
    """Values between given steps: constant pieces, or straight lines.

    ``values[0]`` before step ``boundaries[0]``, ``values[i]`` from step ``boundaries[i - 1]`` on; as
    `optax.piecewise_constant_schedule`, which takes ratios of values. With ``interpolate`` a straight line leads from
    ``values[0]`` at step 0 to ``values[i]`` at step ``boundaries[i - 1]``, and the last value stays; as
    `optax.piecewise_interpolate_schedule` with ``"linear"``.

    Args:
      boundaries: Steps at which a piece ends, or fractions of the run, ascending; a tuple of n numbers >= 0.
      values: A tuple of n + 1 values, each >= 0.
      interpolate: Whether the value changes along a line in place of a jump.

    Examples:
      >>> [float(Piecewise((2, 4), (1.0, 0.5, 0.25))(count)) for count in (0, 2, 3, 4)]
      [1.0, 0.5, 0.5, 0.25]
      >>> [float(Piecewise((2, 4), (0.0, 1.0, 0.0), interpolate=True)(count)) for count in (0, 1, 2, 3, 9)]
      [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    tuples = ("boundaries", "values")

    boundaries: Any = field(metadata={"steps": True})
    values: Any
    interpolate: Any = field(default=False, metadata={"static": True})

    @override
    def _value(self, count: Any) -> Scalar:
        value, before, start = real(self.values[0]), 0, self.values[0]
        for boundary, stop in zip(self.boundaries, self.values[1:], strict=True):
            if self.interpolate:
                fraction = fraction_of(since(count, before), since(boundary, before))
                piece = real(start) * (1 - fraction) + real(stop) * fraction
            else:
                piece = real(stop)
            reached = before if self.interpolate else boundary
            value = jnp.where(real(count) < real(reached), value, piece)
            before, start = boundary, stop
        return value

    @override
    def check(self) -> None:
        if not isinstance(self.boundaries, tuple) or not isinstance(self.values, tuple):
            raise TypeError("boundaries and values are tuples; give them as in Piecewise((100, 200), (0.1, 0.01, 0)).")
        if len(self.values) != len(self.boundaries) + 1:
            raise ValueError(
                f"there are {len(self.values)} values for {len(self.boundaries)} boundaries; give one value more than "
                "boundaries, the first one for the steps before the first boundary."
            )
        if not isinstance(self.interpolate, bool):
            raise TypeError(f"interpolate is {self.interpolate!r}; give True or False.")
        known = [boundary for boundary in self.boundaries if not isinstance(boundary, Tracer)]
        # Fractions and steps are compared in a run of known length.
        alike = {is_fraction(boundary) for boundary in known}
        if len(alike) == 1 and any(float(a) > float(b) for a, b in itertools.pairwise(known)):
            raise ValueError(f"boundaries are {text.short(self.boundaries)}; give them in ascending order.")

    @override
    def largest(self) -> Any:
        # A constant piece without steps has no value; each corner of a line has its value.
        starts = [0, *self.boundaries]
        has_steps = [real(begin) < real(end) for begin, end in itertools.pairwise(starts)]
        lowest = jnp.zeros(())
        taken = [
            real(value) if self.interpolate else jnp.where(taken, real(value), lowest)
            for value, taken in zip(self.values[:-1], has_steps, strict=True)
        ]
        return functools.reduce(jnp.maximum, [*taken, real(self.values[-1])])


def _warmed(count: Any, warmup_steps: Any, peak: Any, after: Any) -> Any:
    """The line from 0 to the peak, and ``after`` from its end on."""
    return jnp.where(real(count) < real(warmup_steps), real(peak) * fraction_of(count, warmup_steps), after)
