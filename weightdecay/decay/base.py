"""What a decay rule is: where in a step it acts, and what it carries from one to the next.

Notation of the formulas: w weights, g gradient of the mean data loss, η learning rate at this step, s = η / its peak, u
the preconditioned direction (the base optimizer's step is w - η u), D the diagonal of its preconditioner, u = g / D
under a steady gradient (1 - momentum for SGD, √v̂ + ε for Adam), S(z, t) = sign(z) max(|z| - t, 0), w̃ the weights
after the base optimizer's step and what acts beside it.

A `Rule` is written for one array of weights. It acts in up to three places: it adds to the gradient (`couple`), shrinks
the weights beside the step (`shrink`), or moves the weights after the step (`move`). The rules themselves stand in
`coupled`, `decoupled` and `projected`, by the place; `decay` holds them all by name.
"""

import functools
import inspect
from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from weightdecay.core import tree
from weightdecay.core.types import Coefficient, PyTree, Scalar


class Whole:
    """What a rule may know of all weights at one step, computed when it is asked for."""

    def __init__(self, weights: Sequence[Array], gradients: Sequence[Array], second_moments: Sequence[Any]) -> None:
        """Take the weights that decay, their data gradients, and v̂ of all weights."""
        self._weights, self._gradients, self._second_moments = weights, gradients, second_moments

    @functools.cached_property
    def weight_norm(self) -> Scalar:
        """Euclidean norm of all weights that decay under the rule, shape ``()``."""
        return tree.norm(self._weights)

    @functools.cached_property
    def gradient_norm(self) -> Scalar:
        """Euclidean norm of their data gradients, shape ``()``."""
        return tree.norm(self._gradients)

    @functools.cached_property
    def mean_second_moment(self) -> Scalar:
        """Mean of v̂ over every weight that the base optimizer has one for, shape ``()``."""
        known = [v for v in self._second_moments if v is not None]
        total = sum((jnp.sum(v) for v in known), start=jnp.zeros(()))
        return total / max(sum(v.size for v in known), 1)


class Step(NamedTuple):
    """One step of training as a rule sees it for one array of weights."""

    weight: Array  # before the step
    gradient: Array  # g, of the data loss alone
    direction: Array  # u
    metric: Array | Scalar | None  # D, a shape that broadcasts against the weight
    learning_rate: Scalar  # η
    scale: Scalar  # s
    count: Any  # steps taken before this one
    whole: Whole


class Rule:
    """A kind of weight decay with its coefficients: a frozen dataclass and a pytree, made by `tree.dataclass`.

    Fields are coefficients, which may be traced, unless their metadata say ``static`` (a Python value that shapes the
    program) or ``anchor`` (weights to stay close to).

    The methods below are called with numbers in place of coefficients, one rule an array of weights. Each gives back
    the state it was given, or the next one.
    """

    @property
    def needs(self) -> frozenset[str]:
        """What the rule needs of the base optimizer: some of "metric", "second_moments", "peak_learning_rate"."""
        return frozenset()

    def initial(self, weight: Array) -> PyTree:
        """State that the rule carries for one array, from its first value; None = it carries nothing."""
        return None

    def couple(self, weight: Array, state: PyTree) -> tuple[Array | None, PyTree]:
        """What joins the gradient, before momentum and preconditioner; None = nothing."""
        return None, state

    def shrink(self, step: Step, state: PyTree) -> tuple[Array | None, PyTree]:
        """What is taken off the weights beside the base optimizer's step; None = nothing."""
        return None, state

    def move(self, stepped: Array, step: Step, state: PyTree) -> tuple[Array, PyTree]:
        """Where the weights come to stand that the step has brought to ``stepped``."""
        return stepped, state

    def penalty(self, weight: Array, state: PyTree) -> Scalar:
        """What is minimized beside the data loss, in its unit; 0 for a rule that minimizes nothing of its own."""
        return jnp.zeros(())

    def check(self, where: str) -> None:
        """Refuse fields that are wrong beyond what every coefficient is held to; ``where`` begins the message."""

    def coefficients(self) -> dict[str, Coefficient]:
        """Return the coefficients by name, in the order of the constructor."""
        return {
            one.name: getattr(self, one.name)
            for one in fields(self)  # pyright: ignore[reportArgumentType]
            if not {"static", "anchor"} & set(one.metadata)
        }

    @property
    def name(self) -> str:
        """The kind's name, without coefficients."""
        return type(self).__name__

    def __str__(self) -> str:
        """Return the rule as one writes it: ``L2(0.01)``; what stands at its default is left out."""
        words, named = [], False
        for one in fields(self):  # pyright: ignore[reportArgumentType]
            value = getattr(self, one.name)
            if one.default is not MISSING and type(value) is type(one.default) and value == one.default:
                named = True
                continue
            words.append(f"{one.name}={short(value)}" if named else short(value))
        return f"{type(self).__name__}({', '.join(words)})"


def at_step(decay: Any, count: Any) -> Any:
    """Decay with its schedules evaluated.

    Args:
      decay: A rule, or several; coefficients may be schedules ``count -> number``.
      count: Steps taken so far, shape ``()``; may be traced.

    Returns:
      The same with numbers alone.
    """
    return jax.tree.map(lambda value: scheduled(value, count) if callable(value) else value, decay, is_leaf=callable)


def is_schedule(value: Any) -> bool:
    """Whether a value is a function of the step; a class is none."""
    return callable(value) and not isinstance(value, type)


def scheduled(schedule: Any, count: Any, *, argument: str = "coefficient") -> Any:
    """Value of a schedule.

    Args:
      schedule: ``count -> number``.
      count: Steps taken so far, shape ``()``; may be traced.
      argument: What it was given as, for the message.

    Returns:
      The value, shape ``()``.

    Raises:
      TypeError: It gives no number.
      ValueError: It gives an array of several numbers, or a negative number.
    """
    value = schedule(count)
    tree.check_number(value, f"{argument} is the schedule {short(schedule)}, whose value")
    return value


def step_size(step: Step) -> Any:
    """Step size of a proximal map in the base optimizer's own metric, η / D."""
    return step.learning_rate if step.metric is None else step.learning_rate / step.metric


@jax.custom_jvp
def keep(unmoved: Any, before: Any, after: Any) -> Any:
    """Bits of the weights before a move that leaves them where they are, with the derivative of the move.

    Args:
      unmoved: Where the move changes nothing, bool.
      before: Weights, or updates, before the move.
      after: The same after it; equal to ``before`` up to rounding where ``unmoved``.

    Returns:
      ``where(unmoved, before, after)``; it is differentiated as ``after``.
    """
    return jnp.where(unmoved, before, after)


@keep.defjvp
def _(primals: Any, tangents: Any) -> tuple[Any, Any]:
    return keep(*primals), tangents[2]


def short(value: Any) -> str:
    """Say a value as one writes it in a rule.

    Args:
      value: A number, a function, or anything that says itself.

    Returns:
      Four digits of a number, a function's name, or the value's own words.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return getattr(value, "__name__", None) or str(value) if inspect.isroutine(value) else str(value)
    return f"{value:.4g}" if isinstance(value, float) or abs(value) < 1e300 else "a huge number"
