"""Schedules: a coefficient, or a learning rate, as a function of the step, ``schedule(count) -> scalar``.

``count`` is the number of steps taken so far, 0 at the first step. A schedule is a frozen dataclass and a pytree whose
leaves are its parameters. They may be traced, so schedules of one kind differ in numbers alone and train in one
compiled program. A number of steps may be a fraction of the run, as in ``WarmupCosine(1e-3, 0.05)``; `Parametric` says
where. Constructors do not look at the parameters; `check` does.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from typing_extensions import override

from weightdecay.core import tree
from weightdecay.core.checks import ArgumentError, ArgumentTypeError
from weightdecay.core.types import Scalar
from weightdecay.decay.composite_schedules import Piecewise, Sawtooth, WarmupCosine, WarmupStableDecay
from weightdecay.decay.function_schedules import Function, NamedFunction, named
from weightdecay.decay.parametric import Parametric, elapsed, fraction_of, larger_end, over, real, steps

__all__ = [
    "KINDS",
    "Constant",
    "Cosine",
    "EarlyOnly",
    "Exponential",
    "Function",
    "Linear",
    "LogTime",
    "NamedFunction",
    "Parametric",
    "Piecewise",
    "Sawtooth",
    "WarmupCosine",
    "WarmupStableDecay",
    "check",
    "of_function",
    "over",
]

_LARGEST_COUNT = 2**31 - 1  # of the steps that an optimizer counts


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
    def _value(self, count: Any) -> Scalar:
        return real(self.value)

    @override
    def largest(self) -> Any:
        return real(self.value)


@tree.dataclass
class Linear(Parametric):
    """A straight line from one value to another, and constant from then on.

    ``start (1 - f) + stop f`` with ``f = min(count / num_steps, 1)``; as `optax.linear_schedule`.

    Args:
      start: Value at step 0; >= 0.
      stop: Value from step ``num_steps`` on; >= 0.
      num_steps: Number of steps from one value to the other, or a fraction of the run; >= 0. None: the whole run. At 0
        the value is ``stop`` from the start.

    Examples:
      >>> [float(Linear(1.0, 0.0, 4)(count)) for count in (0, 1, 4, 9)]
      [1.0, 0.75, 0.0, 0.0]
    """

    start: Any
    stop: Any
    num_steps: Any = steps(default=None)

    @override
    def _value(self, count: Any) -> Scalar:
        fraction = fraction_of(count, self.num_steps)
        return real(self.start) * (1 - fraction) + real(self.stop) * fraction

    @override
    def largest(self) -> Any:
        return larger_end(self.start, self.stop, self.num_steps)


@tree.dataclass
class Cosine(Parametric):
    """Half a cosine from one value to another, and constant from then on.

    ``stop + (start - stop) (1 + cos(π f)) / 2`` with ``f = min(count / num_steps, 1)``; as
    `optax.cosine_decay_schedule` with ``alpha = stop / start``.

    Args:
      start: Value at step 0; >= 0.
      num_steps: Number of steps from one value to the other, or a fraction of the run; >= 0. None: the whole run. At 0
        the value is ``stop`` from the start.
      stop: Value from step ``num_steps`` on; >= 0.

    References:
      Loshchilov & Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, 2017, arXiv 1608.03983.

    Examples:
      >>> print(Cosine(0.1, 1000), round(float(Cosine(0.1, 1000)(500)), 6))
      Cosine(0.1, 1000) 0.05
    """

    start: Any
    num_steps: Any = steps(default=None)
    stop: Any = 0.0

    @override
    def _value(self, count: Any) -> Scalar:
        height = (1 + jnp.cos(jnp.pi * fraction_of(count, self.num_steps))) / 2
        return real(self.start) * height + real(self.stop) * (1 - height)

    @override
    def largest(self) -> Any:
        return larger_end(self.start, self.stop, self.num_steps)


@tree.dataclass
class Exponential(Parametric):
    """A value that is multiplied by the same factor every ``num_steps`` steps.

    ``start * decay_rate ** (count / num_steps)``; as `optax.exponential_decay`.

    Args:
      start: Value at step 0; >= 0.
      decay_rate: The factor; >= 0, and at most 1 for a value that falls.
      num_steps: Number of steps, or a fraction of the run, in which the factor is applied once; > 0. At 0 the factor is
        applied infinitely often in the first step.

    Examples:
      >>> [float(Exponential(1.0, 0.5, 10)(count)) for count in (0, 10, 20)]
      [1.0, 0.5, 0.25]
    """

    start: Any
    decay_rate: Any
    num_steps: Any = steps(default=1)

    @override
    def _value(self, count: Any) -> Scalar:
        rate, power = real(self.decay_rate), elapsed(count, self.num_steps)
        # 0 is not raised to a power, and nothing is raised to 0: the derivative would be nan or infinite.
        raised = jnp.where(rate == 0, 1, rate) ** jnp.where(power == 0, 1, power)
        return real(self.start) * jnp.where(power == 0, 1, jnp.where(rate == 0, 0, raised))

    @override
    def largest(self) -> Any:
        if isinstance(self.decay_rate, Tracer):
            # A growing schedule has no peak; a nan is noticed, where a wrong peak is not.
            return jnp.where(self.decay_rate <= 1, real(self.start), jnp.nan)
        return real(self.start) if self.decay_rate <= 1 else None


@tree.dataclass
class EarlyOnly(Parametric):
    """A value in the first steps, then 0.

    ``value`` where ``count < num_steps``, else 0.

    Args:
      value: >= 0.
      num_steps: Number of steps with this value, or a fraction of the run; >= 0.

    References:
      Golatkar, Achille & Soatto, Time Matters in Regularizing Deep Networks, 2019, arXiv 1905.13277.

    Examples:
      >>> [float(EarlyOnly(0.5, 2)(count)) for count in range(4)]
      [0.5, 0.5, 0.0, 0.0]
    """

    value: Any
    num_steps: Any = steps()

    @override
    def _value(self, count: Any) -> Scalar:
        if isinstance(self.num_steps, int) and self.num_steps > _LARGEST_COUNT:
            return real(self.value)
        return jnp.where(jnp.asarray(count) < self.num_steps, real(self.value), 0)

    @override
    def largest(self) -> Any:
        return real(self.value)


@tree.dataclass
class LogTime(Parametric):
    """A value that falls in proportion to 1 / time, so that its sum grows as the logarithm of time.

    ``value / (1 + count / time_scale)``

    Args:
      value: Value at step 0; >= 0.
      time_scale: Number of steps (never a fraction of a run) after which the value is half of the first; > 0.

    References:
      Ferbach et al., 2026, arXiv 2602.05298.

    Examples:
      >>> [float(LogTime(1.0, 100)(count)) for count in (0, 100, 300)]
      [1.0, 0.5, 0.25]
    """

    value: Any
    time_scale: Any

    @override
    def _value(self, count: Any) -> Scalar:
        return real(self.value) / (1 + elapsed(count, self.time_scale))

    @override
    def largest(self) -> Any:
        return real(self.value)


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
        Piecewise,
        Function,
    )
}
"""Every schedule by its name."""


def check(schedule: Any, *, argument: str, in_run: bool = False) -> None:
    """Validate a schedule of this module and its parameters; a traced parameter is not looked at.

    Args:
      schedule: What a user passes.
      argument: Name of the argument, for the message.
      in_run: Whether the length of the run will be known, so that steps may be fractions of it.

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
    try:
        schedule.check()
    except TypeError as error:
        raise ArgumentTypeError(argument, f"{argument} = {schedule}: {error}") from error
    except ValueError as error:
        raise ArgumentError(argument, f"{argument} = {schedule}: {error}") from error
    for name, value in schedule.numbers().items():
        _check_number(value, argument, f"{argument} = {schedule}: {name}")
    if not in_run:
        schedule.require_steps(argument)


def of_function(function: Any, *, argument: str) -> Function:
    """Make a schedule of a function of the step, such as a schedule of optax.

    Args:
      function: ``function(count) -> scalar``, or a `Function`.
      argument: Name of the argument that holds it, for the message.

    Returns:
      The schedule, which is equal to that of any function with the same name that computes the same.

    Raises:
      ArgumentTypeError: JAX cannot trace it, or it does not return one real number.
    """
    schedule = function if isinstance(function, Function) else Function(function)
    return Function(named(schedule.function, argument=argument), schedule.factor)


def _check_number(value: Any, argument: str, where: str) -> None:
    if isinstance(value, Tracer):
        return
    if isinstance(value, list | tuple):
        value = np.asarray(value)
    if not tree.is_real(value):
        raise ArgumentTypeError(argument, f"{where} is {value!r}, of type {type(value).__name__}; give a number >= 0.")
    if np.ndim(value) > 0:
        raise ArgumentError(argument, f"{where} is an array of shape {np.shape(value)}; give one number >= 0.")
    if not 0 <= tree.plain(value) <= tree.LARGEST:
        raise ArgumentError(argument, f"{where} is {value}; give a finite number >= 0.")
