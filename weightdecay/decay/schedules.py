"""Schedules: a coefficient, or a learning rate, as a function of the step, ``schedule(count) -> scalar``.

``count`` is the number of steps taken so far, 0 at the first step. A schedule is a frozen dataclass and a pytree whose
leaves are its parameters. They may be traced, so schedules of one kind differ in numbers alone and train in one
compiled program. Constructors do not look at the parameters; `check` does.
"""

from dataclasses import fields
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from typing_extensions import override

from weightdecay.core import tree
from weightdecay.core.checks import ArgumentError, ArgumentTypeError
from weightdecay.core.types import Scalar

_LARGEST_COUNT = 2**31 - 1  # of the steps that an optimizer counts


class Parametric:
    """A schedule with its parameters: a frozen dataclass and a pytree."""

    def __call__(self, count: Any) -> Scalar:
        """Return the value at a step.

        Args:
          count: Number of steps taken so far, an integer >= 0, shape ``()``; may be traced.

        Returns:
          The value, shape ``()``, in JAX's default float dtype (float32, or float64 if that is enabled).
        """
        raise NotImplementedError(f"{type(self).__name__} does not define its values.")

    def largest(self) -> Any:
        """Return the largest value over all steps, shape ``()``; None = it is not known.

        `weightdecay.Independent` and `weightdecay.Corrected` decay in proportion to the learning rate over its peak.
        """
        return None

    def parameters(self) -> dict[str, Any]:
        """Return the parameters by name, in the order of the constructor."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # pyright: ignore[reportArgumentType]

    def __str__(self) -> str:
        """Return the schedule as a call, ``Cosine(0.1, 1000)``, without parameters that have their default value."""
        values = self.parameters()
        for field in reversed(fields(self)):  # pyright: ignore[reportArgumentType]
            value = values[field.name]
            if not (isinstance(value, int | float) and value == field.default):
                break
            del values[field.name]
        return f"{type(self).__name__}({', '.join(map(_written, values.values()))})"


@tree.dataclass
class Constant(Parametric):
    """The same value at every step.

    Args:
      value: >= 0.

    Examples:
      >>> float(Constant(0.5)(1000))
      0.5
    """

    value: Any

    @override
    def __call__(self, count: Any) -> Scalar:
        return _real(self.value)

    @override
    def largest(self) -> Any:
        return _real(self.value)


@tree.dataclass
class Linear(Parametric):
    """A straight line from one value to another, and constant from then on.

    ``start (1 - f) + stop f`` with ``f = min(count / num_steps, 1)``; as `optax.linear_schedule`.

    Args:
      start: Value at step 0; >= 0.
      stop: Value from step ``num_steps`` on; >= 0.
      num_steps: Number of steps from one value to the other; >= 0. At 0 the value is ``stop`` from the start.

    Examples:
      >>> [float(Linear(1.0, 0.0, 4)(count)) for count in (0, 1, 4, 9)]
      [1.0, 0.75, 0.0, 0.0]
    """

    start: Any
    stop: Any
    num_steps: Any

    @override
    def __call__(self, count: Any) -> Scalar:
        fraction = _fraction(count, self.num_steps)
        return _real(self.start) * (1 - fraction) + _real(self.stop) * fraction

    @override
    def largest(self) -> Any:
        return _larger_end(self.start, self.stop, self.num_steps)


@tree.dataclass
class Cosine(Parametric):
    """Half a cosine from one value to another, and constant from then on.

    ``stop + (start - stop) (1 + cos(π f)) / 2`` with ``f = min(count / num_steps, 1)``; as
    `optax.cosine_decay_schedule` with ``alpha = stop / start``.

    Args:
      start: Value at step 0; >= 0.
      num_steps: Number of steps from one value to the other; >= 0. At 0 the value is ``stop`` from the start.
      stop: Value from step ``num_steps`` on; >= 0.

    References:
      Loshchilov & Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, 2017, arXiv 1608.03983.

    Examples:
      >>> print(Cosine(0.1, 1000), round(float(Cosine(0.1, 1000)(500)), 6))
      Cosine(0.1, 1000) 0.05
    """

    start: Any
    num_steps: Any
    stop: Any = 0.0

    @override
    def __call__(self, count: Any) -> Scalar:
        height = (1 + jnp.cos(jnp.pi * _fraction(count, self.num_steps))) / 2
        return _real(self.start) * height + _real(self.stop) * (1 - height)

    @override
    def largest(self) -> Any:
        return _larger_end(self.start, self.stop, self.num_steps)


@tree.dataclass
class Exponential(Parametric):
    """A value that is multiplied by the same factor every ``num_steps`` steps.

    ``start * decay_rate ** (count / num_steps)``; as `optax.exponential_decay`.

    Args:
      start: Value at step 0; >= 0.
      decay_rate: The factor; >= 0, and at most 1 for a value that falls.
      num_steps: Number of steps in which the factor is applied once; > 0. At 0 the factor is applied infinitely often
        in the first step.

    Examples:
      >>> [float(Exponential(1.0, 0.5, 10)(count)) for count in (0, 10, 20)]
      [1.0, 0.5, 0.25]
    """

    start: Any
    decay_rate: Any
    num_steps: Any = 1

    @override
    def __call__(self, count: Any) -> Scalar:
        rate, power = _real(self.decay_rate), _elapsed(count, self.num_steps)
        # 0 is not raised to a power, and nothing is raised to 0: the derivative would be nan or infinite.
        raised = jnp.where(rate == 0, 1, rate) ** jnp.where(power == 0, 1, power)
        return _real(self.start) * jnp.where(power == 0, 1, jnp.where(rate == 0, 0, raised))

    @override
    def largest(self) -> Any:
        if isinstance(self.decay_rate, Tracer):
            # A growing schedule has no peak; a nan is noticed, where a wrong peak is not.
            return jnp.where(self.decay_rate <= 1, _real(self.start), jnp.nan)
        return _real(self.start) if self.decay_rate <= 1 else None


@tree.dataclass
class EarlyOnly(Parametric):
    """A value in the first steps, then 0.

    ``value`` where ``count < num_steps``, else 0.

    Args:
      value: >= 0.
      num_steps: Number of steps with this value; >= 0.

    References:
      Golatkar, Achille & Soatto, Time Matters in Regularizing Deep Networks, 2019, arXiv 1905.13277.

    Examples:
      >>> [float(EarlyOnly(0.5, 2)(count)) for count in range(4)]
      [0.5, 0.5, 0.0, 0.0]
    """

    value: Any
    num_steps: Any

    @override
    def __call__(self, count: Any) -> Scalar:
        if isinstance(self.num_steps, int) and self.num_steps > _LARGEST_COUNT:
            return _real(self.value)
        return jnp.where(jnp.asarray(count) < self.num_steps, _real(self.value), 0)

    @override
    def largest(self) -> Any:
        return _real(self.value)


@tree.dataclass
class LogTime(Parametric):
    """A value that falls in proportion to 1 / time, so that its sum grows as the logarithm of time.

    ``value / (1 + count / time_scale)``

    Args:
      value: Value at step 0; >= 0.
      time_scale: Number of steps after which the value is half of the first; > 0.

    References:
      Ferbach et al., 2026, arXiv 2602.05298.

    Examples:
      >>> [float(LogTime(1.0, 100)(count)) for count in (0, 100, 300)]
      [1.0, 0.5, 0.25]
    """

    value: Any
    time_scale: Any

    @override
    def __call__(self, count: Any) -> Scalar:
        return _real(self.value) / (1 + _elapsed(count, self.time_scale))

    @override
    def largest(self) -> Any:
        return _real(self.value)


@tree.dataclass
class WarmupCosine(Parametric):
    """A straight line from 0 to a peak, then half a cosine down to the end, and constant from then on.

    ``peak count / warmup_steps`` before step ``warmup_steps``; then ``end + (peak - end) (1 + cos(π f)) / 2`` with
    ``f = min((count - warmup_steps) / (num_steps - warmup_steps), 1)``; as `optax.warmup_cosine_decay_schedule`.

    Args:
      peak: Value at step ``warmup_steps``, the largest; >= 0.
      warmup_steps: Number of steps from 0 to the peak; >= 0. At 0 the value is ``peak`` at the start.
      num_steps: Number of steps in all, from which on the value is ``end``; >= 0.
      end: Value from step ``num_steps`` on; >= 0.

    References:
      Goyal et al., Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour, 2017, arXiv 1706.02677 (warm-up).

    Examples:
      >>> [round(float(WarmupCosine(1.0, 2, 6)(count)), 6) for count in (0, 1, 2, 4, 6)]
      [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    peak: Any
    warmup_steps: Any
    num_steps: Any
    end: Any = 0.0

    @override
    def __call__(self, count: Any) -> Scalar:
        falling = _fraction(_since(count, self.warmup_steps), _since(self.num_steps, self.warmup_steps))
        height = (1 + jnp.cos(jnp.pi * falling)) / 2
        return _warmed(count, self.warmup_steps, self.peak, _real(self.peak) * height + _real(self.end) * (1 - height))

    @override
    def largest(self) -> Any:
        return jnp.maximum(_real(self.peak), _real(self.end))


@tree.dataclass
class WarmupStableDecay(Parametric):
    """A straight line from 0 to a peak, a constant, then a straight line down to the end.

    ``peak count / warmup_steps`` before step ``warmup_steps``; ``peak`` up to step ``num_steps - decay_steps``; then
    ``peak (1 - f) + end f`` with ``f = min((count - (num_steps - decay_steps)) / decay_steps, 1)``.

    Args:
      peak: The largest value; >= 0.
      warmup_steps: Number of steps from 0 to the peak; >= 0. At 0 the value is ``peak`` at the start.
      decay_steps: Number of steps from the peak to the end; >= 0.
      num_steps: Number of steps in all, from which on the value is ``end``; >= ``warmup_steps + decay_steps``.
      end: Value from step ``num_steps`` on; >= 0.

    References:
      Hu et al., MiniCPM, 2024, arXiv 2404.06395; Hägele et al., Scaling Laws and Compute-Optimal Training Beyond Fixed
      Training Durations, 2024, arXiv 2405.18392.

    Examples:
      >>> [float(WarmupStableDecay(1.0, 2, 4, 10)(count)) for count in (0, 1, 2, 6, 7, 10)]
      [0.0, 0.5, 1.0, 1.0, 0.75, 0.0]
    """

    peak: Any
    warmup_steps: Any
    decay_steps: Any
    num_steps: Any
    end: Any = 0.0

    @override
    def __call__(self, count: Any) -> Scalar:
        falling = _fraction(_since(count, _real(self.num_steps) - _real(self.decay_steps)), self.decay_steps)
        held = _real(self.peak) * (1 - falling) + _real(self.end) * falling
        return _warmed(count, self.warmup_steps, self.peak, held)

    @override
    def largest(self) -> Any:
        return jnp.maximum(_real(self.peak), _real(self.end))


@tree.dataclass
class Sawtooth(Parametric):
    """A straight line from one value to another in each period, beginning anew with the next one.

    ``start (1 - f) + stop f`` with ``f = (count mod period) / (period - 1)``: the first step of a period has ``start``,
    the last one ``stop``.

    Args:
      start: Value at the first step of a period; >= 0.
      stop: Value at the last step of a period; >= 0.
      period: Number of steps of a period, an integer >= 1.

    References:
      Loshchilov & Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, 2017, arXiv 1608.03983 (restarts).

    Examples:
      >>> [float(Sawtooth(1.0, 0.0, 3)(count)) for count in range(5)]
      [1.0, 0.5, 0.0, 1.0, 0.5]
    """

    start: Any
    stop: Any
    period: Any

    @override
    def __call__(self, count: Any) -> Scalar:
        count = jnp.asarray(count)
        period = jnp.maximum(jnp.round(_real(self.period)), 1)
        if jnp.issubdtype(count.dtype, jnp.integer):  # exact for any count
            largest = jnp.iinfo(count.dtype).max
            position = count % jnp.where(period < largest, period, largest).astype(count.dtype)
        else:
            position = count % period
        fraction = jnp.minimum(_elapsed(position, jnp.maximum(period - 1, 1)), 1)
        return _real(self.start) * (1 - fraction) + _real(self.stop) * fraction

    @override
    def largest(self) -> Any:
        ends = jnp.maximum(_real(self.start), _real(self.stop))
        return jnp.where(jnp.round(_real(self.period)) > 1, ends, _real(self.start))


KINDS: dict[str, type[Parametric]] = {
    kind.__name__: kind
    for kind in (
        Constant,
        Linear,
        Cosine,
        Exponential,
        EarlyOnly,
        LogTime,
        WarmupCosine,
        WarmupStableDecay,
        Sawtooth,
    )
}
"""Every schedule by its name."""


def check(schedule: Any, *, argument: str) -> None:
    """Validate a schedule of this module and its parameters; a traced parameter is not looked at.

    Args:
      schedule: What a user passes.
      argument: Name of the argument, for the message.

    Raises:
      ArgumentTypeError: Not a schedule, or a parameter is not a number.
      ArgumentError: A parameter is negative, infinite or nan, or an array of several numbers.
    """
    if not isinstance(schedule, Parametric) or type(schedule) is Parametric:
        raise ArgumentTypeError(
            argument,
            f"{argument} is {schedule!r}, of type {type(schedule).__name__}, which is not a schedule; give one of: "
            f"{', '.join(KINDS)}, for example {Cosine(0.1, 1000)}.",
        )
    for name, value in schedule.parameters().items():
        if isinstance(value, Tracer):
            continue
        where = f"{argument} = {schedule}: {name}"
        if isinstance(value, list | tuple):
            value = np.asarray(value)
        if not tree.is_real(value):
            raise ArgumentTypeError(
                argument, f"{where} is {value!r}, of type {type(value).__name__}; give a number >= 0."
            )
        if np.ndim(value) > 0:
            raise ArgumentError(argument, f"{where} is an array of shape {np.shape(value)}; give one number >= 0.")
        if not 0 <= tree.plain(value) <= tree.LARGEST:
            raise ArgumentError(argument, f"{where} is {value}; give a finite number >= 0.")


def _written(value: Any) -> str:
    if isinstance(value, Tracer):
        return "traced"
    if isinstance(value, int) or not tree.is_real(value) or np.ndim(value) > 0:
        return str(value)
    return f"{float(value):.4g}"


def _larger_end(start: Any, stop: Any, num_steps: Any) -> Array:
    """Peak of a monotonic schedule, which begins at ``stop`` where it takes no steps."""
    return jnp.where(jnp.asarray(_real(num_steps)) > 0, jnp.maximum(_real(start), _real(stop)), _real(stop))


def _real(value: Any) -> Array:
    return jnp.asarray(value, float)


def _fraction(count: Any, num_steps: Any) -> Array:
    # Compared as real numbers: an integer of 2^31 or more is not a number of JAX's default integers.
    count, num_steps = _real(count), _real(num_steps)
    return jnp.where(count < num_steps, count / jnp.maximum(num_steps, 1e-12), 1)


def _since(count: Any, start: Any) -> Array:
    """Steps since a step, 0 before it."""
    return jnp.maximum(_real(count) - _real(start), 0)


def _warmed(count: Any, warmup_steps: Any, peak: Any, after: Any) -> Array:
    """The line from 0 to the peak, and ``after`` from its end on."""
    return jnp.where(_real(count) < _real(warmup_steps), _real(peak) * _fraction(count, warmup_steps), after)


def _elapsed(count: Any, num_steps: Any) -> Array:
    # A time of 0 counts as a very short one, so that neither the value nor its gradient is nan.
    return _real(count) / jnp.maximum(_real(num_steps), 1e-12)
