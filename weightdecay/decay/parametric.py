"""The base of all schedules: parameters that may be traced, and steps that may be fractions of a run.

A schedule is a frozen dataclass and a pytree whose leaves are its parameters, so that schedules of one kind differ in
numbers alone and train in one compiled program. Fields that `steps` makes hold numbers of steps.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from weightdecay.core import text, tree
from weightdecay.core.checks import ArgumentError
from weightdecay.core.types import Scalar

_ANY_RUN = 2**20  # steps; fractions of it are exact


def steps(*, default: Any = dataclasses.MISSING) -> Any:
    """Declare a field of a schedule as a number of steps, or a tuple of them.

    Args:
      default: Its default; None = all steps of the run.

    Returns:
      The field.
    """
    return dataclasses.field(default=default, metadata={"steps": True})


class Parametric:
    """A schedule with its parameters: a frozen dataclass and a pytree.

    A number of steps may be a fraction of the run, a Python float above 0 and up to 1; the default None of a
    ``num_steps`` is the whole run. `weightdecay.fit_grid` and `weightdecay.fit` replace fractions by numbers of steps;
    elsewhere `over` does.
    """

    tuples: ClassVar[tuple[str, ...]] = ()
    """Names of the parameters that are tuples of numbers."""

    def __call__(self, count: Any) -> Scalar:
        """Return the value at a step.

        Args:
          count: Number of steps taken so far, an integer >= 0, shape ``()``; may be traced.

        Returns:
          The value, shape ``()``, in JAX's default float dtype (float32, or float64 if that is enabled).

        Raises:
          ArgumentError: A number of steps is a fraction of a run, whose length is not known here.
        """
        self.require_steps()
        return self._value(count)

    def largest(self) -> Any:
        """Return the largest value over all steps, shape ``()``; None = it is not known.

        `weightdecay.Independent` and `weightdecay.Corrected` decay in proportion to the learning rate over its peak.
        """
        return None

    def at_start(self) -> float:
        """Return the value at step 0, also where steps are fractions of a run."""
        return float(self.over(_ANY_RUN)(0))

    def over(self, num_steps: Any) -> "Parametric":
        """Return the schedule for a run of known length, with numbers of steps in place of fractions.

        Args:
          num_steps: Steps of the run, an integer >= 1.

        Returns:
          The schedule; a fraction becomes the nearest integer, at least 1. The same object if it has no fractions.

        Examples:
          >>> from weightdecay.decay.schedules import WarmupCosine
          >>> print(WarmupCosine(0.1, 0.05), WarmupCosine(0.1, 0.05).over(2000))
          WarmupCosine(0.1, 0.05) WarmupCosine(0.1, 100, 2000)
        """
        values = self.parameters()
        changed = {
            name: _in_steps(values[name], num_steps) for name in self._step_fields() if _is_relative(values[name])
        }
        return dataclasses.replace(self, **changed) if changed else self  # pyright: ignore[reportArgumentType, reportCallIssue]

    def require_steps(self, argument: str = "schedule") -> None:
        """Refuse fractions of a run.

        Args:
          argument: Name of the argument that holds the schedule, for the message.

        Raises:
          ArgumentError: A number of steps is a fraction.
        """
        for name in self._step_fields():
            value = getattr(self, name)
            if _is_relative(value):
                what = "the whole run" if value is None else "a fraction of the run"
                raise ArgumentError(
                    argument,
                    f"{argument} is {self}, in which {name} = {value} is {what}; wd.fit_grid and wd.fit know "
                    f"how long a run is. Elsewhere give steps, or the schedule with .over(num_steps), as in "
                    f"wd.schedules.{self}.over(1000).",
                )

    def check(self) -> None:
        """Validate what the parameters have in common.

        Raises:
          TypeError: A parameter has the wrong type.
          ValueError: Parameters do not fit each other.
        """

    def numbers(self) -> dict[str, Any]:
        """Return the numbers among the parameters by name, with those of tuples apart, as ``values[0]``."""
        numbers: dict[str, Any] = {}
        for field in dataclasses.fields(self):  # pyright: ignore[reportArgumentType]
            value = getattr(self, field.name)
            if field.metadata.get("static") or (value is None and field.default is None):
                continue
            if isinstance(value, tuple) and field.name in self.tuples:
                numbers |= {f"{field.name}[{index}]": item for index, item in enumerate(value)}
            else:
                numbers[field.name] = value
        return numbers

    def encoded(self, encode: Callable[[Any], Any]) -> dict[str, Any]:
        """Return the parameters as values of JSON by name; a fraction of the run is marked as one.

        Args:
          encode: ``encode(value)`` of a value that is not a fraction.
        """

        def of_steps(value: Any) -> Any:
            if isinstance(value, tuple):
                return [of_steps(item) for item in value]
            return {"fraction": float(value)} if is_fraction(value) else encode(value)

        fields = self._step_fields()
        present = {name: value for name, value in self.parameters().items() if value is not None}
        return {name: of_steps(value) if name in fields else encode(value) for name, value in present.items()}

    def parameters(self) -> dict[str, Any]:
        """Return the parameters by name, in the order of the constructor."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # pyright: ignore[reportArgumentType]

    def __str__(self) -> str:
        """Return the schedule as a call, ``Cosine(0.1, 1000)``, without parameters that have their default value."""
        values = self.parameters()
        for field in reversed(dataclasses.fields(self)):  # pyright: ignore[reportArgumentType]
            value = values[field.name]
            is_fraction_of_run = field.name in self._step_fields() and is_fraction(value)
            is_plain = value is None or isinstance(value, int | float)
            if is_fraction_of_run or not (is_plain and value == field.default):
                break
            del values[field.name]
        # The whole run is written 1.0, and one step 1.
        of_steps = self._step_fields()
        written = (
            "1.0" if name in of_steps and is_fraction(value) and value == 1 else _written(value)
            for name, value in values.items()
        )
        return f"{type(self).__name__}({', '.join(written)})"

    def _value(self, count: Any) -> Scalar:
        raise NotImplementedError(f"{type(self).__name__} does not define its values.")

    def _step_fields(self) -> list[str]:
        declared: dict[str, dataclasses.Field[Any]] = getattr(type(self), "__dataclass_fields__", {})
        return [name for name, field in declared.items() if "steps" in field.metadata]


def over(values: Any, num_steps: Any) -> Any:
    """Replace fractions of a run in all schedules of a tree, and in rules that have them.

    Args:
      values: A schedule, a rule with schedules as coefficients, or any other pytree.
      num_steps: Steps of the run.

    Returns:
      The tree with numbers of steps; the same object if there are no fractions.
    """
    in_runs = [leaf for leaf in jax.tree.leaves(values, is_leaf=_has_run) if _has_run(leaf)]
    if all(in_run.over(num_steps) is in_run for in_run in in_runs):
        return values
    in_steps = lambda leaf: leaf.over(num_steps) if _has_run(leaf) else leaf  # noqa: E731
    return jax.tree.map(in_steps, values, is_leaf=_has_run)


def number_of_steps(fraction: Any, num_steps: Any) -> int:
    """Return the number of steps of a fraction of a run: the nearest integer, at least 1."""
    return max(1, round(float(fraction) * int(num_steps)))


def is_fraction(value: Any) -> bool:
    """Whether a number of steps is a fraction of a run: a Python float above 0 and up to 1.

    Args:
      value: A number; may be traced.

    Returns:
      True or False. Numbers of JAX and arrays are steps.
    """
    return isinstance(value, float | np.floating) and 0 < float(value) <= 1


def real(value: Any) -> Array:
    """Return a number in JAX's default float dtype."""
    return jnp.asarray(value, float)


def larger_end(start: Any, stop: Any, num_steps: Any) -> Array:
    """Peak of a monotonic schedule, which begins at ``stop`` where it takes no steps."""
    num_steps = 1 if num_steps is None else num_steps
    return jnp.where(jnp.asarray(real(num_steps)) > 0, jnp.maximum(real(start), real(stop)), real(stop))


def fraction_of(count: Any, num_steps: Any) -> Array:
    """Fraction of some steps that are completed, from 0 to 1; 1 where there are no steps."""
    # Compared as real numbers: an integer of 2^31 or more is not a number of JAX's default integers.
    count, num_steps = real(count), real(num_steps)
    return jnp.where(count < num_steps, count / jnp.maximum(num_steps, 1e-12), 1)


def since(count: Any, start: Any) -> Array:
    """Steps since a step, 0 before it."""
    return jnp.maximum(real(count) - real(start), 0)


def elapsed(count: Any, num_steps: Any) -> Array:
    """Steps in units of a time; a time of 0 counts as a very short one, so that no value and no gradient is nan."""
    return real(count) / jnp.maximum(real(num_steps), 1e-12)


def _is_parametric(value: Any) -> bool:
    return isinstance(value, Parametric)


def _has_run(value: Any) -> bool:
    """Whether a value may hold fractions of a run: a schedule, or a rule with a method ``over``."""
    return _is_parametric(value) or hasattr(value, "over")


def _is_relative(value: Any) -> bool:
    """Whether a field of steps holds a fraction of a run."""
    return any(map(_is_relative, value)) if isinstance(value, tuple) else value is None or is_fraction(value)


def _in_steps(value: Any, num_steps: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_in_steps(item, num_steps) for item in value)
    if value is None:
        return int(num_steps)
    return number_of_steps(value, num_steps) if is_fraction(value) else value


def _written(value: Any) -> str:
    if isinstance(value, Tracer):
        return "traced"
    if isinstance(value, tuple):
        return f"({', '.join(map(_written, value))}{',' * (len(value) == 1)})"
    if callable(value):
        return text.short(value)
    if isinstance(value, int) or not tree.is_real(value) or np.ndim(value) > 0:
        return str(value)
    return f"{float(value):.4g}"
