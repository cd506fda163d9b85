"""Decoupled decay: rules that shrink the weights in addition to the step, independently of the preconditioner.

The rules differ in what the removed fraction is proportional to: the learning rate, its schedule, the gradients or
their moments.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array
from typing_extensions import override

from weightdecay.core import tree
from weightdecay.core.types import Coefficient, PyTree
from weightdecay.decay.base import LOSS_PER_SQUARED_WEIGHT, PER_STEP, PER_STEP_AND_RATE, Rule, Step, with_unit
from weightdecay.decay.elementwise import ElementwiseRule, Terms


@tree.dataclass
class Decoupled(ElementwiseRule):
    """Decoupled decay: each step removes a fraction of the weights that is proportional to the learning rate.

    ``w <- (1 - η c) w - η u``. With Adam this is AdamW as torch and optax implement it.

    Args:
      coefficient: c >= 0, 1 / (step · learning rate). Equals ``weight_decay`` of AdamW in torch and optax.

    References:
      Loshchilov & Hutter, Decoupled Weight Decay Regularization, 2019, arXiv 1711.05101.
    """

    equals = "`weight_decay` of AdamW in torch and optax, of `optax.lion` and of Keras optimizers"
    search_range = (1e-3, 1e1)

    coefficient: Coefficient = with_unit(PER_STEP_AND_RATE)

    @override
    def terms(self) -> Terms:
        return Terms(decoupled=self.coefficient)


@tree.dataclass
class Independent(ElementwiseRule):
    """Independent decay: the removed fraction follows the learning-rate schedule, but not its peak.

    ``w <- (1 - s c) w - η u`` with s = η / peak η, which is 1 at a constant learning rate.

    Args:
      coefficient: c >= 0, 1 / step. Equals the peak learning rate times the coefficient of `Decoupled`.

    References:
      Loshchilov & Hutter, Decoupled Weight Decay Regularization, 2019, arXiv 1711.05101 (as in the authors' code).
    """

    equals = "`Decoupled(c / peak η)`; Loshchilov & Hutter's own"
    search_range = (1e-6, 1e-2)

    coefficient: Coefficient = with_unit(PER_STEP)

    @override
    def terms(self) -> Terms:
        return Terms(independent=self.coefficient)


@tree.dataclass
class Corrected(ElementwiseRule):
    """Decoupled decay, corrected for the schedule so that the weights keep their norm while the learning rate falls.

    ``w <- (1 - η s c) w - η u`` with s = η / peak η; equals `Decoupled` at a constant learning rate.

    Args:
      coefficient: c >= 0, 1 / (step · learning rate).

    References:
      Defazio, Why Gradients Rapidly Increase Near the End of Training, 2025, arXiv 2506.02285.
    """

    equals = "`Decoupled` at a constant rate; timm's `corrected_weight_decay`"
    search_range = (1e-3, 1e1)

    coefficient: Coefficient = with_unit(PER_STEP_AND_RATE)

    @override
    def terms(self) -> Terms:
        return Terms(corrected=self.coefficient)


@tree.dataclass
class Cautious(Rule):
    """Cautious decay: a weight decays only where the step itself does not move it away from zero.

    ``w <- w - η (u + c 1[u w >= 0] w)``, elementwise. The decay never acts against the gradient, so it does not move
    the minimum of the loss. (The cautious *optimizer* masks the update instead.)

    Args:
      coefficient: c >= 0, 1 / (step · learning rate).

    References:
      Chen et al., Cautious Weight Decay, 2025, arXiv 2510.12402.
    """

    equals = "keeps the minimum of the loss"
    search_range = (1e-3, 1e1)

    coefficient: Coefficient = with_unit(PER_STEP_AND_RATE)

    @override
    def shrink(self, step: Step, state: PyTree) -> tuple[Array | None, PyTree]:
        # Signs are compared, because the product of two small numbers may be rounded to zero.
        agrees = jnp.sign(step.direction) * jnp.sign(step.weight) >= 0
        return step.learning_rate * self.coefficient * jnp.where(agrees, step.weight, 0), state

    @override
    def removed_fraction(self, learning_rate: Any, scale: Any, momentum: Any) -> Any:
        return learning_rate * self.coefficient


@tree.dataclass
class Stable(Rule):
    """Stable decay: the removed fraction rises as the gradients fall, and is the same for every weight.

    ``w <- (1 - η c / √(mean v̂)) w - η u``. The mean is taken over all weights that have a second moment v̂, including
    those that do not decay. While every v̂ is 0, nothing decays.

    Args:
      coefficient: c >= 0, loss / weight² under Adam.

    References:
      Xie et al., On the Overlooked Pitfalls of Weight Decay and How to Mitigate Them, 2023, arXiv 2011.11152 (AdamS;
      another method has the same name).
    """

    equals = "AdamS of Xie et al."
    search_range = (1e-6, 1e-1)

    coefficient: Coefficient = with_unit(LOSS_PER_SQUARED_WEIGHT)

    @property
    @override
    def needs(self) -> frozenset[str]:
        return frozenset({"second_moments"})

    @override
    def shrink(self, step: Step, state: PyTree) -> tuple[Array | None, PyTree]:
        mean = step.all_weights.mean_second_moment
        root = jnp.sqrt(jnp.where(mean > 0, mean, 1))
        fraction = jnp.where(mean > 0, step.learning_rate * self.coefficient / root, 0)
        return fraction * step.weight, state


@tree.dataclass
class Adaptive(Rule):
    """Adaptive decay: the removed fraction follows the ratio of the gradient's norm to the norm of the weights.

    ``λ <- 0.1 λ + 0.9 c |g| / |w|, then w <- (1 - η λ) w - η u``. The norms are taken over all weights that decay under
    the rule; λ starts at 0.

    Args:
      coefficient: c >= 0, weight² / loss times 1 / (step · learning rate): under SGD, the ratio of the decay's norm to
        the norm of the gradient.

    References:
      Ghiasi, Shafahi & Ardekani, Improving Robustness with Adaptive Weight Decay, 2022, arXiv 2210.00094.
    """

    equals = "AWD of Ghiasi et al."
    search_range = (1e-2, 1e2)

    coefficient: Coefficient = with_unit("weight² / loss")

    @override
    def initial(self, weight: Array) -> PyTree:
        return jnp.zeros((), jnp.promote_types(jnp.float32, weight.dtype))

    @override
    def shrink(self, step: Step, state: PyTree) -> tuple[Array | None, PyTree]:
        norm = step.all_weights.weight_norm
        ratio = jnp.where(norm > 0, step.all_weights.gradient_norm / jnp.where(norm > 0, norm, 1), 0)
        strength = (0.1 * state + 0.9 * self.coefficient * ratio).astype(state.dtype)
        return step.learning_rate * strength * step.weight, strength
