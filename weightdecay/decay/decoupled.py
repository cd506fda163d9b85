"""Rules that shrink the weights beside the step, whatever the gradient's preconditioner does: decoupled decay.

The share that a step takes off scales with the learning rate, its schedule, the gradients or their moments: that is
what tells these rules apart.
"""

import jax.numpy as jnp
from jax import Array
from typing_extensions import override

from weightdecay.core import tree
from weightdecay.core.types import Coefficient, PyTree
from weightdecay.decay.base import Rule, Step
from weightdecay.decay.elementwise import Plain, Terms


@tree.dataclass
class Decoupled(Plain):
    """Decoupled decay: the weights shrink beside the step, by a share that scales with the learning rate.

    ``w <- (1 - η c) w - η u``. With Adam this is AdamW as torch and optax have it.

    Args:
      coefficient: c >= 0, 1 / (step · learning rate). Equals torch's and optax's ``weight_decay`` in AdamW.

    References:
      Loshchilov & Hutter, Decoupled Weight Decay Regularization, 2019, arXiv 1711.05101.
    """

    coefficient: Coefficient

    @override
    def terms(self) -> Terms:
        return Terms(decoupled=self.coefficient)


@tree.dataclass
class Independent(Plain):
    """Independent decay: the share a step does not know the peak learning rate, only the schedule.

    ``w <- (1 - s c) w - η u`` with s = η / peak η, which is 1 at a constant rate.

    Args:
      coefficient: c >= 0, 1 / step. Equals the peak learning rate times the coefficient of `Decoupled`.

    References:
      Loshchilov & Hutter, Decoupled Weight Decay Regularization, 2019, arXiv 1711.05101 (as in the authors' code).
    """

    coefficient: Coefficient

    @override
    def terms(self) -> Terms:
        return Terms(independent=self.coefficient)


@tree.dataclass
class Corrected(Plain):
    """Decoupled decay corrected for the schedule, so that a falling learning rate keeps the weights' norm.

    ``w <- (1 - η s c) w - η u`` with s = η / peak η; equals `Decoupled` at a constant rate.

    Args:
      coefficient: c >= 0, 1 / (step · learning rate).

    References:
      Defazio, Why Gradients Rapidly Increase Near the End of Training, 2025, arXiv 2506.02285.
    """

    coefficient: Coefficient

    @override
    def terms(self) -> Terms:
        return Terms(corrected=self.coefficient)


@tree.dataclass
class Cautious(Rule):
    """Cautious decay: a weight decays only where the step itself does not push it away from zero.

    ``w <- w - η (u + c 1[u w >= 0] w)``, elementwise. The decay never acts against the gradient, so it leaves the
    minimum where it was. (The cautious *optimizer* masks the update instead.)

    Args:
      coefficient: c >= 0, 1 / (step · learning rate).

    References:
      Chen et al., Cautious Weight Decay, 2025, arXiv 2510.12402.
    """

    coefficient: Coefficient

    @override
    def shrink(self, step: Step, state: PyTree) -> tuple[Array | None, PyTree]:
        # By signs, since a product of small numbers may round to zero.
        agrees = jnp.sign(step.direction) * jnp.sign(step.weight) >= 0
        return step.learning_rate * self.coefficient * jnp.where(agrees, step.weight, 0), state


@tree.dataclass
class Stable(Rule):
    """Stable decay: the share rises as the gradients fall, the same for every weight.

    ``w <- (1 - η c / √(mean v̂)) w - η u``; the mean goes over all weights that have a second moment v̂, also over those
    that do not decay. Where every v̂ is still 0 nothing decays.

    Args:
      coefficient: c >= 0, loss / weight² under Adam.

    References:
      Xie et al., On the Overlooked Pitfalls of Weight Decay and How to Mitigate Them, 2023, arXiv 2011.11152 (AdamS;
      another method has the same name).
    """

    coefficient: Coefficient

    @property
    @override
    def needs(self) -> frozenset[str]:
        return frozenset({"second_moments"})

    @override
    def shrink(self, step: Step, state: PyTree) -> tuple[Array | None, PyTree]:
        mean = step.whole.mean_second_moment
        share = jnp.where(mean > 0, step.learning_rate * self.coefficient / jnp.sqrt(jnp.where(mean > 0, mean, 1)), 0)
        return share * step.weight, state


@tree.dataclass
class Adaptive(Rule):
    """Adaptive decay: the share follows the ratio of the gradient's norm to the weights' norm.

    ``λ <- 0.1 λ + 0.9 c |g| / |w|, then w <- (1 - η λ) w - η u``; the norms go over all weights that decay under the
    rule, and λ starts at 0.

    Args:
      coefficient: c >= 0, weight² / loss times 1 / (step · learning rate): under SGD, what share of the gradient's
        norm the decay has.

    References:
      Ghiasi, Shafahi & Ardekani, Improving Robustness with Adaptive Weight Decay, 2022, arXiv 2210.00094.
    """

    coefficient: Coefficient

    @override
    def initial(self, weight: Array) -> PyTree:
        return jnp.zeros((), jnp.promote_types(jnp.float32, weight.dtype))

    @override
    def shrink(self, step: Step, state: PyTree) -> tuple[Array | None, PyTree]:
        norm = step.whole.weight_norm
        ratio = jnp.where(norm > 0, step.whole.gradient_norm / jnp.where(norm > 0, norm, 1), 0)
        strength = (0.1 * state + 0.9 * self.coefficient * ratio).astype(state.dtype)
        return step.learning_rate * strength * step.weight, strength
