"""Rules that spare large weights, by the proximal map of their penalty: Huber and the minimax concave penalty."""

from dataclasses import field

import jax.numpy as jnp
from jax import Array
from typing_extensions import override

from weightdecay.core import tree
from weightdecay.core.types import Coefficient, PyTree, Scalar
from weightdecay.decay import penalties, proximal
from weightdecay.decay.base import (
    LOSS_PER_SQUARED_WEIGHT,
    LOSS_PER_WEIGHT,
    PER_STEP_AND_RATE,
    Rule,
    Step,
    step_size,
    with_unit,
)


@tree.dataclass
class ProximalHuber(Rule):
    """Huber penalty by its proximal map: small weights shrink by a factor, large ones by a constant amount.

    ``w <- z - t clip(z / (1 + t), -δ, δ)`` with z = w - η u and t = η c / D. The map is scaled by the preconditioner of
    the base optimizer, so that SGD and Adam have the same minimizer, that of the loss plus the penalty of `Huber`.
    Decoupled: t = η c, as Guo & Fan use it under Adam, where it is an implicit `Decoupled` for weights below δ.

    Args:
      coefficient: c >= 0, loss / weight²; decoupled: 1 / (step · learning rate).
      delta: δ > 0, weight: size above which the pull no longer grows.
      decoupled: Whether the map is taken without the preconditioner; a Python bool.

    References:
      Guo & Fan, AdamHD: Decoupled Huber Decay Regularization for Language Model Pre-Training, 2025, arXiv 2511.14721.
    """

    equals = "minimizes loss + c Σ huber(w); AdamHD if decoupled"

    coefficient: Coefficient = with_unit(f"{LOSS_PER_SQUARED_WEIGHT}, or {PER_STEP_AND_RATE} if decoupled")
    delta: Coefficient = with_unit("weight", positive=True)
    decoupled: bool = field(default=False, metadata={"static": True})

    @property
    @override
    def needs(self) -> frozenset[str]:
        return frozenset() if self.decoupled else frozenset({"preconditioner_diagonal"})

    @override
    def move(self, stepped: Array, step: Step, state: PyTree) -> tuple[Array, PyTree]:
        size = step.learning_rate if self.decoupled else step_size(step)
        return proximal.huber(stepped, self.coefficient, size, delta=self.delta), state

    @override
    def penalty(self, weight: Array, state: PyTree) -> Scalar:
        return jnp.zeros(()) if self.decoupled else self.coefficient * penalties.huber(weight, delta=self.delta)

    @override
    def check(self) -> None:
        if not isinstance(self.decoupled, bool):
            raise TypeError(f"decoupled is {self.decoupled!r}; give True or False.")


@tree.dataclass
class ProximalMCP(Rule):
    """Minimax concave penalty by its proximal map: small weights become exactly zero, large ones do not shrink.

    ``w <- z if |z| > γ c, else S(z, t c) / (1 - t / γ)`` with z = w - η u and t = η / D, which minimizes the loss plus
    ``Σ min(c |w| - w² / (2 γ), γ c² / 2)`` locally. Where t >= γ the map is a hard threshold: z if |z| > c √(t γ), and
    else 0. L1 biases every weight that it keeps toward zero by the same amount; this penalty does not bias those
    above γ c. It is not convex, so that the minimizer depends on where training starts.

    Args:
      coefficient: c >= 0, loss / weight: slope of the penalty at 0.
      gamma: γ > 0, weight² / loss: the penalty is constant from γ c on. Large values are nearly `ProximalL1`.

    References:
      Zhang, Nearly Unbiased Variable Selection under Minimax Concave Penalty, 2010, arXiv 1002.4734.
    """

    equals = "minimizes loss + MCP; `ProximalL1(c)` for large gamma"
    search_range = (1e-7, 1e-2)

    coefficient: Coefficient = with_unit(LOSS_PER_WEIGHT)
    gamma: Coefficient = with_unit("weight² / loss", positive=True, default=3.0)

    @property
    @override
    def needs(self) -> frozenset[str]:
        return frozenset({"preconditioner_diagonal"})

    @override
    def move(self, stepped: Array, step: Step, state: PyTree) -> tuple[Array, PyTree]:
        t, size = step_size(step), jnp.abs(stepped)
        is_soft = t < self.gamma
        # Each branch gets a harmless number where the other one applies, so that no division makes an infinite number.
        shrinkage = 1 - jnp.where(is_soft, t, 0) / self.gamma
        soft = jnp.sign(stepped) * jnp.maximum(size - t * self.coefficient, 0) / shrinkage
        beyond = jnp.where(is_soft, self.gamma, jnp.sqrt(jnp.where(is_soft, 1, t)) * jnp.sqrt(self.gamma))
        # A weight that is nan is not below the threshold, and stays nan.
        moved = jnp.where(size <= beyond * self.coefficient, jnp.where(is_soft, soft, 0), stepped)
        return moved, state

    @override
    def penalty(self, weight: Array, state: PyTree) -> Scalar:
        size, end = jnp.abs(weight), self.gamma * self.coefficient
        inside = jnp.minimum(size, end)
        return jnp.sum(inside * (self.coefficient - inside / (2 * self.gamma)))
