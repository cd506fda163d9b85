"""Decay of touched rows alone: a rule that acts where the step had a gradient, as in the rows of an embedding."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax import Array
from typing_extensions import override

from weightdecay.core import tree
from weightdecay.core.types import Coefficient, PyTree, Scalar
from weightdecay.decay.base import Rule, Step
from weightdecay.decay.laid_out import OfArray


@tree.dataclass
class Touched(Rule):
    """A rule that acts only on rows that had a gradient in this step.

    ``w[row] <- rule(w[row]) if any g[row] ≠ 0, else w[row] - η u[row]``. A row of an embedding is the vector of one
    token: tokens that do not occur in a batch do not decay in its step, so that rare tokens do not fade away between
    their occurrences. A row of a kernel is the weights from one input; of an array that is not a matrix, each number is
    a row of its own. The base optimizer is not changed: a row without a gradient may still move by its momentum.

    The default mask of an optimizer leaves embeddings out: ``wd.Masked(wd.Touched(rule),
    wd.masks.matching("embedding"))`` takes them. With ``accumulate`` the gradient is that of the whole step.

    Args:
      rule: Any single rule without a mask; a mask goes around: ``Masked(Touched(rule), mask)``.

    References:
      FBGEMM, table batched embeddings with ``weight_decay_mode``, 2023 (decay of the rows of a batch).
    """

    rule: Rule

    @override
    def coefficients(self) -> dict[str, Coefficient]:
        return self.rule.coefficients()

    @property
    @override
    def needs(self) -> frozenset[str]:
        return self.rule.needs

    @property
    @override
    def name(self) -> str:
        return f"{self.rule.name} on touched rows"

    @override
    def __str__(self) -> str:
        return f"Touched({self.rule})"


@dataclasses.dataclass(frozen=True)
class TouchedRows(OfArray):
    """The rule of one array under `Touched`; `of_gradient` tells it the gradient of the step."""

    rows: Any = None  # bool, broadcasts against the weights

    def of_gradient(self, gradient: Array) -> "TouchedRows":
        """Return the rule of a step.

        Args:
          gradient: Gradient of the data loss, in the shape of the weights.
        """
        has_gradient = gradient != 0
        rows = jnp.any(has_gradient, self.array.outputs, keepdims=True) if self.array.is_matrix else has_gradient
        return dataclasses.replace(self, rows=rows)

    @override
    def initial(self, weight: Array) -> PyTree:
        return self.rule.initial(weight)

    @override
    def couple(self, weight: Array, state: PyTree) -> tuple[Array | None, PyTree]:
        return self._on_rows(self.rule.couple(weight, state))

    @override
    def shrink(self, step: Step, state: PyTree) -> tuple[Array | None, PyTree]:
        return self._on_rows(self.rule.shrink(step, state))

    @override
    def move(self, stepped: Array, step: Step, state: PyTree) -> tuple[Array, PyTree]:
        moved, state = self.rule.move(stepped, step, state)
        return moved if moved is stepped else jnp.where(self.rows, moved, stepped), state

    @override
    def penalty(self, weight: Array, state: PyTree) -> Scalar:
        return self.rule.penalty(weight, state)

    def _on_rows(self, returned: tuple[Array | None, PyTree]) -> tuple[Array | None, PyTree]:
        amount, state = returned
        return None if amount is None else jnp.where(self.rows, amount, 0), state
