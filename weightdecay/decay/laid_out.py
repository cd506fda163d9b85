"""Rules of matrices, and of whole arrays, on arrays of any layout.

A rule such as `MaxNorm` is written for a matrix of shape ``(inputs, outputs)``, and `NormControl` for the array of one
layer. `LaidOut` brings an array to that form before each hook of the rule, applies the rule to each of the layers that
the array stacks, and brings the result back.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from typing_extensions import override

from weightdecay.core.types import Coefficient, PyTree, Scalar
from weightdecay.decay.base import ARRAYS, MATRICES, Rule, Step
from weightdecay.decay.layout import ArrayLayout


@dataclasses.dataclass(frozen=True)
class OfArray(Rule):
    """A rule of one array that acts through another rule, under whose name it is known."""

    rule: Rule
    array: ArrayLayout

    @property
    @override
    def needs(self) -> frozenset[str]:
        return self.rule.needs

    @override
    def coefficients(self) -> dict[str, Coefficient]:
        return self.rule.coefficients()

    @property
    @override
    def name(self) -> str:
        return self.rule.name

    @override
    def check_initial(self, state: PyTree) -> None:
        self.rule.check_initial(state)


@dataclasses.dataclass(frozen=True)
class LaidOut(OfArray):
    """A rule for one array whose layout is not the one that the rule is written for."""

    @override
    def initial(self, weight: Array) -> PyTree:
        anchors = {
            field.name: getattr(self.rule, field.name)
            for field in dataclasses.fields(self.rule)  # pyright: ignore[reportArgumentType]
            if "anchor" in field.metadata and getattr(self.rule, field.name) is not None
        }

        def initial(weight: Array, anchors: dict[str, Array]) -> PyTree:
            return dataclasses.replace(self.rule, **anchors).initial(weight)  # pyright: ignore[reportArgumentType]

        return self._each(initial, self._split(weight), {name: self._split(value) for name, value in anchors.items()})

    @override
    def couple(self, weight: Array, state: PyTree) -> tuple[Array | None, PyTree]:
        return self._restored(self._each(self.rule.couple, self._split(weight), state=(state,)), weight)

    @override
    def shrink(self, step: Step, state: PyTree) -> tuple[Array | None, PyTree]:
        def shrink(arrays: dict[str, Array], state: PyTree) -> tuple[Array | None, PyTree]:
            return self.rule.shrink(step._replace(**arrays), state)

        return self._restored(self._each(shrink, self._arrays(step), state=(state,)), step.weight)

    @override
    def move(self, stepped: Array, step: Step, state: PyTree) -> tuple[Any, PyTree]:
        def move(stepped: Array, arrays: dict[str, Array], state: PyTree) -> tuple[Array, PyTree]:
            return self.rule.move(stepped, step._replace(**arrays), state)

        return self._restored(self._each(move, self._split(stepped), self._arrays(step), state=(state,)), step.weight)

    @override
    def penalty(self, weight: Array, state: PyTree) -> Scalar:
        return jnp.sum(self._each(self.rule.penalty, self._split(weight), state=(state,)))

    def _split(self, array: Array) -> Array:
        """Bring an array to the shape ``(stacked, ...)``, where the rest is what the rule is written for."""
        if self.rule.acts_on == ARRAYS:
            return self.array.to_stacked(array)
        matrices = self.array.to_matrices(array)
        return matrices if self.array.is_matrix else matrices[:, 0]

    def _arrays(self, step: Step) -> dict[str, Array]:
        """The arrays of a step, in this shape."""
        arrays = {name: getattr(step, name) for name in ("weight", "gradient", "direction")}
        diagonal = step.preconditioner_diagonal
        if diagonal is not None and jnp.ndim(diagonal) > 0:
            arrays["preconditioner_diagonal"] = jnp.broadcast_to(diagonal, step.weight.shape)
        return {name: self._split(array) for name, array in arrays.items()}

    def _each(self, function: Callable[..., Any], *arrays: Any, state: tuple[PyTree, ...] = ()) -> Any:
        """Apply a function to each of the stacked layers; without a stack, the state has no axis for it."""
        if self.array.stack:
            return jax.vmap(function)(*arrays, *state)
        return function(*jax.tree.map(lambda array: array[0], arrays), *state)

    def _restored(self, returned: tuple[Any, PyTree], weight: Array) -> tuple[Any, PyTree]:
        """Bring what a hook returned back to the shape of the weights."""
        value, state = returned
        if value is None:
            return None, state
        restore = self.array.from_stacked if self.rule.acts_on == ARRAYS else self.array.from_matrices
        return restore(value, weight.shape), state


def laid_out(rule: Rule, array: ArrayLayout) -> Rule:
    """Adapt a rule for one array to the layout of the array.

    Args:
      rule: A rule with numbers in place of its coefficients.
      array: Layout of the array.

    Returns:
      The rule itself where the array has the layout that the rule is written for; otherwise a rule with the same hooks.
    """
    num_axes = len(array.stack) + len(array.inputs) + len(array.outputs)
    if rule.acts_on == ARRAYS:
        is_needed = bool(array.stack)
    elif rule.acts_on == MATRICES:
        is_needed = not array.is_default if array.is_matrix else num_axes > 1
    else:
        is_needed = False
    return LaidOut(rule, array) if is_needed else rule
