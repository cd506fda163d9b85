"""What a decay rule is: the class `Rule`, with the hooks that a training step calls, and what a hook sees of the step.

Notation of the formulas: w weights, g gradient of the mean data loss, η learning rate at this step, s = η / its peak, u
direction of the preconditioned gradient (the step of the base optimizer is w - η u), D diagonal of the preconditioner,
u = g / D under a steady gradient (D = 1 - momentum for SGD, √v̂ + ε for Adam), S(z, t) = sign(z) max(|z| - t, 0), w̃ the
weights after the step of the base optimizer and the shrinkage of all rules.

The rules of the library are in `coupled`, `decoupled` and `projected`, by the hook that they define; `registry` lists
them by name. `transformation` calls the hooks.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, field, fields
from typing import Any, ClassVar, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer

from weightdecay.core import text, tree
from weightdecay.core.types import Coefficient, PyTree, Scalar

_AnyRule = TypeVar("_AnyRule", bound="Rule")

LOSS_PER_WEIGHT = "loss / weight"
LOSS_PER_SQUARED_WEIGHT = "loss / weight²"
PER_STEP = "1 / step"
PER_STEP_AND_RATE = "1 / (step · learning rate)"
NO_UNIT = "no unit"

WEIGHTS, MATRICES, ARRAYS = "weights", "matrices", "arrays"
"""Values of `Rule.acts_on`."""


def with_unit(unit: str, *, positive: bool = False, at_most: float | None = None, default: Any = MISSING) -> Any:
    """Declare a coefficient of a rule together with its unit.

    Args:
      unit: Unit, as tables and axes of plots show it, such as ``"1 / step"``.
      positive: Whether the coefficient must be greater than 0; otherwise it may also be 0.
      at_most: Largest value of the coefficient; None = any finite number.
      default: Default value; without one the argument is required. None = the coefficient may be left out.

    Returns:
      A field of a dataclass.
    """
    bounds = ({"positive": True} if positive else {}) | ({} if at_most is None else {"at_most": at_most})
    return field(default=default, metadata={"unit": unit} | bounds)


class AllWeights:
    """Norms and moments over all arrays at one step, computed when a rule first reads them."""

    def __init__(self, weights: Sequence[Array], gradients: Sequence[Array], second_moments: Sequence[Any]) -> None:
        """Take the arrays that decay under the rule, their data gradients, and v̂ of all arrays (None = no v̂)."""
        self._weights, self._gradients, self._second_moments = weights, gradients, second_moments

    @functools.cached_property
    def weight_norm(self) -> Scalar:
        """Euclidean norm of all weights that decay under the rule, shape ``()``."""
        return tree.norm(self._weights)

    @functools.cached_property
    def gradient_norm(self) -> Scalar:
        """Euclidean norm of the data gradients of these weights, shape ``()``."""
        return tree.norm(self._gradients)

    @functools.cached_property
    def mean_second_moment(self) -> Scalar:
        """Mean of v̂ over all weights for which the base optimizer keeps one, shape ``()``."""
        known = [v for v in self._second_moments if v is not None]
        precise = (v.astype(jnp.promote_types(jnp.float32, v.dtype)) for v in known)
        total = sum((jnp.sum(v) for v in precise), start=jnp.zeros(()))
        return total / max(sum(v.size for v in known), 1)


class Step(NamedTuple):
    """One training step, as the hooks `Rule.shrink` and `Rule.move` see it for one array of weights."""

    weight: Array  # w, before the step, shape (...)
    gradient: Array  # g, of the data loss alone, same shape as the weight
    direction: Array  # u, same shape; the base optimizer adds -η u to the weights
    preconditioner_diagonal: Array | Scalar | None  # D, broadcasts against the weight; None = 1
    learning_rate: Scalar  # η, shape ()
    scale: Scalar  # s = η / peak η, shape (); 1 at a constant learning rate
    count: Any  # number of steps before this one, int32, shape ()
    all_weights: AllWeights


class Rule:
    """A kind of weight decay with its coefficients.

    A rule is a frozen dataclass and a pytree. Its fields are coefficients, unless the metadata of a field contain
    ``static`` (a Python value that shapes the program, never traced) or ``anchor`` (a tree of weights). Coefficients
    may be traced: write ``jnp.where`` in place of ``if``, and never ``float(coefficient)``.

    A rule is written for one array of weights. The hooks are called on the rule with one number, shape ``()`` and of at
    least float32's precision, in place of each coefficient, once per array that decays. They act in up to three
    places of a step, always in this order:

    1. `couple`, for every array and rule: what is returned is added to the gradient;
    2. the base optimizer turns the gradients into directions u, and w - η u is the step;
    3. `shrink`, for every array and rule: what is returned is subtracted from the weights in addition to the step;
    4. `move`, for every array and rule: the weights after 2 and 3 are replaced by what is returned.

    Several rules together are called in the order in which they were given. `initial` makes the state that a rule
    carries for an array; the three hooks receive this state and return the next one. The state must keep its structure,
    shapes and dtypes.

    A rule of your own is a subclass under the decorator `weightdecay.decay.rule`, with at least one of the three hooks.
    """

    equals: ClassVar[str] = ""
    """What the rule is called elsewhere, or what it is equal to; one line of Markdown."""
    search_range: ClassVar[tuple[float, float] | None] = None
    """Coefficients that the command line tries: from where the rule does nothing to where it removes everything, under
    Adam at a learning rate of 0.001. None = the command line does not offer the rule."""
    neutral: ClassVar[float] = 0.0
    """Value of ``coefficient`` at which the rule does nothing."""
    acts_on: ClassVar[str] = WEIGHTS
    """What the hooks are written for. `WEIGHTS`: every weight on its own, an array of any layout. `MATRICES`: the hooks
    get a matrix of shape ``(inputs, outputs)``, or ``(..., inputs, outputs)`` for a convolution, whatever the layout of
    the array (`weightdecay.decay.layout`). `ARRAYS`: the array of one layer, in any layout. Of an array that stacks
    layers, `MATRICES` and `ARRAYS` get one layer at a time."""

    def __new__(cls: type[_AnyRule], *args: Any, **kwargs: Any) -> _AnyRule:
        """Refuse a subclass that is not a dataclass yet, whose constructor would take no coefficient."""
        if (args or kwargs) and not hasattr(cls, "__dataclass_fields__"):
            raise TypeError(
                f"{cls.__name__} is not a rule yet: write @wd.decay.rule above the class, so that it gets a "
                "constructor with its coefficients."
            )
        return object.__new__(cls)

    @property
    def needs(self) -> frozenset[str]:
        """What the rule requires of the base optimizer; an optimizer that lacks it refuses the rule.

        Returns:
          A subset of ``{"preconditioner_diagonal", "second_moments", "peak_learning_rate"}``: D, which a proximal map
          is taken with; v̂, for `AllWeights.mean_second_moment`; the largest learning rate of a schedule, for
          `Step.scale`. By default nothing.

        Examples:
          Decay that follows the shape of the learning-rate schedule, ``w <- (1 - s c) w - η u``, reads ``step.scale``
          and therefore returns ``frozenset({"peak_learning_rate"})``.
        """
        return frozenset()

    def initial(self, weight: Array) -> PyTree:
        """Make the state that the rule carries for one array.

        Called once per array, when the optimizer is initialized, under tracing where ``init`` is.

        Args:
          weight: Initial weights, shape ``(...)``; may be traced.

        Returns:
          A pytree of arrays; None = the rule carries nothing (the default). Make numbers of at least float32's
          precision, ``jnp.zeros((), jnp.promote_types(jnp.float32, weight.dtype))``, so that the state does not lose
          digits where the weights are bfloat16.

        Examples:
          Decay that stops once the norm of an array has been halved carries the initial norm::

              def initial(self, weight):
                  return jnp.linalg.norm(weight)
        """
        return None

    def check_initial(self, state: PyTree) -> None:
        """Refuse initial weights with which the rule cannot work.

        Called once per array, after `initial`, where the weights are numbers; never where they are traced.

        Args:
          state: What `initial` returned for the array. Of an array that stacks layers, the leaves have a first axis for
            the layers.

        Raises:
          ValueError: The weights are refused. The caller puts the rule and the name of the array before the message.

        Examples:
          A rule that carries the initial norm and divides by it::

              def check_initial(self, state):
                  if (state == 0).any():
                      raise ValueError("has norm 0; draw it at random.")
        """

    def couple(self, weight: Array, state: PyTree) -> tuple[Array | None, PyTree]:
        """Add to the gradient, before momentum and preconditioner: coupled decay.

        Called first in a step, before the base optimizer sees the gradient. Several rules add up.

        Args:
          weight: Weights before the step, shape ``(...)``; traced in a compiled step.
          state: State for this array, as `initial` or the last hook returned it; may be traced.

        Returns:
          A pair: the term that is added to the gradient, in its shape, in units of loss / weight; and the next state.
          A positive term at a positive weight shrinks the weight. None in place of the term = nothing is added (the
          default).

        Examples:
          The gradient of ``c Σ w⁴ / 4``, ``g <- g + c w³``::

              def couple(self, weight, state):
                  return self.coefficient * weight**3, state
        """
        return None, state

    def shrink(self, step: Step, state: PyTree) -> tuple[Array | None, PyTree]:
        """Subtract from the weights in addition to the step of the base optimizer: decoupled decay.

        Called after the base optimizer has computed the direction. Several rules add up; all of them see the weights
        before the step.

        Args:
          step: The weights before the step, gradient, direction, learning rate and more; see `Step`. Every array in it
            may be traced.
          state: State for this array, as `couple` returned it; may be traced.

        Returns:
          A pair: the amount that is subtracted from the weights, in their shape and unit; and the next state. A
          positive amount at a positive weight shrinks the weight. It is not multiplied by the learning rate: do that
          in the rule where it is meant. None in place of the amount = nothing is subtracted (the default).

        Examples:
          Decoupled decay, ``w <- w - η c w - η u``::

              def shrink(self, step, state):
                  return step.learning_rate * self.coefficient * step.weight, state
        """
        return None, state

    def move(self, stepped: Array, step: Step, state: PyTree) -> tuple[Array, PyTree]:
        """Replace the weights after the step: proximal maps, projections, constraints.

        Called last. With several rules each receives what the rule before it returned.

        Args:
          stepped: Weights after the step and all shrinkage, shape ``(...)``; may be traced.
          step: The step that led there; ``step.weight`` are the weights before it.
          state: State for this array, as `shrink` returned it; may be traced.

        Returns:
          A pair: the new weights, in the shape of ``stepped`` (not a difference); and the next state. Weights that
          equal ``stepped`` are left exactly as the step made them. By default ``stepped`` itself.

        Examples:
          No weight may exceed c, ``w <- clip(w̃, -c, c)``::

              def move(self, stepped, step, state):
                  return jnp.clip(stepped, -self.coefficient, self.coefficient), state
        """
        return stepped, state

    def penalty(self, weight: Array, state: PyTree) -> Scalar:
        """Penalty of one array: what the rule minimizes in addition to the data loss.

        Never called in a training step, only where the penalty is reported: at the evaluations of a grid, and by
        `weightdecay.decay.penalty`. It does not change the training; `couple` does.

        Args:
          weight: Weights, shape ``(...)``; may be traced.
          state: State for this array; None where the caller has none.

        Returns:
          The penalty with its coefficient, shape ``()``, in units of the loss; 0 for a rule that does not minimize a
          penalty (the default).

        Examples:
          For ``g <- g + c w³``::

              def penalty(self, weight, state):
                  return self.coefficient * jnp.sum(weight**4) / 4
        """
        return jnp.zeros(())

    def check(self) -> None:
        """Validate what is not a coefficient; coefficients are checked to be finite numbers >= 0 before.

        Called once where an optimizer or a grid is made, on the rule as the user wrote it: a coefficient may still be
        a tree, a `PerLayer`, a schedule or traced.

        Raises:
          TypeError: A field has a wrong type.
          ValueError: A field has a wrong value. The message begins with the name of the field; the caller puts the
            argument and the rule before it.

        Examples:
          A static field of which only two values are known::

              def check(self):
                  if self.which not in ("rows", "columns"):
                      raise ValueError(f"which is {self.which!r}; give 'rows' or 'columns'.")
        """

    def removed_fraction(self, learning_rate: Any, scale: Any, momentum: Any) -> Any:
        """Fraction of the weights that decay alone removes per step; its inverse is the time scale of the decay.

        Called where a time scale is reported or plotted, never in a training step; the coefficients are numbers, or
        NumPy arrays with one value per step.

        Args:
          learning_rate: η, a number or one per step.
          scale: s = η / peak η, likewise.
          momentum: Momentum of SGD; None for every optimizer with a preconditioner, under which what coupled decay
            removes depends on the gradients.

        Returns:
          The fraction, 1 / step, where the gradient is zero; None = it is not a fixed fraction (the default).

        Examples:
          For decoupled decay, ``w <- (1 - η c) w``::

              def removed_fraction(self, learning_rate, scale, momentum):
                  return learning_rate * self.coefficient
        """
        return None

    def coefficients(self) -> dict[str, Coefficient]:
        """Return the coefficients by name, in the order of the constructor."""
        return {name: getattr(self, name) for name in self.coefficient_names()}

    @classmethod
    def coefficient_names(cls) -> list[str]:
        """Return the names of the coefficients, in the order of the constructor."""
        return [one.name for one in fields(cls) if not {"static", "anchor"} & set(one.metadata)]  # pyright: ignore[reportArgumentType]

    @classmethod
    def units(cls) -> Mapping[str, str]:
        """Return the declared units by the name of the coefficient."""
        return {one.name: one.metadata["unit"] for one in fields(cls) if "unit" in one.metadata}  # pyright: ignore[reportArgumentType]

    @classmethod
    def required(cls) -> list[str]:
        """Return the names of the arguments that have no default."""
        return [one.name for one in fields(cls) if one.default is MISSING and one.default_factory is MISSING]  # pyright: ignore[reportArgumentType]

    @classmethod
    def from_one(cls: type[_AnyRule], coefficient: Any) -> _AnyRule:
        """Make the rule with one number for all required coefficients, as the command line does.

        Args:
          coefficient: The number.

        Returns:
          The rule.

        Examples:
          >>> from weightdecay.decay import ElasticNet
          >>> print(ElasticNet.from_one(0.1))
          ElasticNet(0.1, 0.1)
        """
        return cls(**dict.fromkeys(cls.required(), coefficient))

    @property
    def name(self) -> str:
        """Name of the kind of decay, without coefficients."""
        return type(self).__name__

    def __str__(self) -> str:
        """Return the rule as a call, ``L2(0.01)``, without arguments that have their default value."""
        arguments, by_name = [], False
        for one in fields(self):  # pyright: ignore[reportArgumentType]
            value = getattr(self, one.name)
            if one.default is not MISSING and type(value) is type(one.default) and value == one.default:
                by_name = True
                continue
            arguments.append(f"{one.name}={written(value)}" if by_name else written(value))
        return f"{type(self).__name__}({', '.join(arguments)})"


class _Traced:
    """Written in place of a tracer, whose own text helps nobody."""

    def __repr__(self) -> str:
        return "traced"


def written(value: Any) -> str:
    """Write a value as a user would write it in a rule.

    Args:
      value: A number, a tree of numbers, a schedule, or anything else; may be traced.

    Returns:
      The text; ``traced`` where JAX traces a number.
    """
    if isinstance(value, Tracer):
        return "traced"
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value)):
        value = jax.tree.map(lambda leaf: _Traced() if isinstance(leaf, Tracer) else leaf, value)
    return text.short(value)


def at_step(decay: Any, count: Any) -> Any:
    """Evaluate the schedules in decay rules.

    Args:
      decay: A rule, or several; coefficients may be schedules ``count -> number``.
      count: Number of steps taken so far, shape ``()``; may be traced.

    Returns:
      The same rules with a number in place of each schedule.
    """
    return jax.tree.map(
        lambda value: scheduled(value, count) if callable(value) else value, decay, is_leaf=_is_function
    )


def _is_function(value: Any) -> bool:
    """Whether a value is called for its number; a module of equinox can be called, and is a tree of arrays."""
    is_tree = not jax.tree_util.all_leaves([value])
    is_schedule = hasattr(value, "largest") or isinstance(value, jax.tree_util.Partial)  # trees of their parameters
    return callable(value) and (is_schedule or not is_tree)


def is_schedule(value: Any) -> bool:
    """Whether a value is a function of the step; a class is not."""
    return callable(value) and not isinstance(value, type)


def scheduled(schedule: Any, count: Any, *, argument: str = "coefficient") -> Any:
    """Evaluate a schedule.

    Args:
      schedule: ``count -> number``.
      count: Number of steps taken so far, shape ``()``; may be traced.
      argument: Name of the argument that holds the schedule, for the message.

    Returns:
      The value, shape ``()``.

    Raises:
      TypeError: The schedule does not return a number.
      ValueError: The schedule returns an array of several numbers, or a negative number.
    """
    value = schedule(count)
    tree.check_number(value, f"{argument} is the schedule {text.short(schedule)}, whose value")
    return value


def step_size(step: Step) -> Any:
    """Step size of a proximal map under the preconditioner of the base optimizer, η / D."""
    if step.preconditioner_diagonal is None:
        return step.learning_rate
    return step.learning_rate / step.preconditioner_diagonal


@jax.custom_jvp
def preserve_bits(unmoved: Any, before: Any, after: Any) -> Any:
    """Take the exact bits from before a move where the move changes nothing, with the derivative of the move.

    Args:
      unmoved: Where the move changes nothing, bool.
      before: Weights, or updates, before the move.
      after: The same after it; equal to ``before`` up to rounding where ``unmoved``.

    Returns:
      ``where(unmoved, before, after)``; it is differentiated as ``after``.
    """
    return jnp.where(unmoved, before, after)


@preserve_bits.defjvp
def _(primals: Any, tangents: Any) -> tuple[Any, Any]:
    return preserve_bits(*primals), tangents[2]
