"""Rules that move the weights after the step: proximal maps, projections and constraints."""

from dataclasses import field

import jax.numpy as jnp
from jax import Array
from typing_extensions import override

from weightdecay.core import tree
from weightdecay.core.types import Coefficient, Params, PyTree, Scalar
from weightdecay.decay import penalties, proximal
from weightdecay.decay.base import Rule, Step, step_size
from weightdecay.decay.elementwise import Plain, Terms


@tree.dataclass
class ProximalL1(Plain):
    """L1 by its proximal map, which gives exact zeros.

    ``w <- S(w - η u, η c / D)``: the map is taken in the base optimizer's own metric, so that SGD and Adam have the
    same minimizer, the one of ``loss + c |w|₁``.

    Args:
      coefficient: c >= 0, loss / weight.

    References:
      Yun, Lozano & Yang, A General Family of Stochastic Proximal Gradient Methods for Deep Learning, 2020,
      arXiv 2007.07484.
    """

    coefficient: Coefficient

    @override
    def terms(self) -> Terms:
        return Terms(proximal_l1=self.coefficient)


@tree.dataclass
class ProximalL2(Plain):
    """L2 by its proximal map, the implicit step: stable for any coefficient.

    ``w <- (w - η u) / (1 + η c / D)``: in the base optimizer's own metric, so that SGD and Adam have the same
    minimizer, the one of ``loss + c |w|²/2``. Zhuang et al. take the map under Adam without D; that is an implicit
    `Decoupled`, with another minimizer.

    Args:
      coefficient: c >= 0, loss / weight².

    References:
      Parikh & Boyd, Proximal Algorithms, 2014; Zhuang et al., Understanding AdamW through Proximal Methods and
      Scale-Freeness, 2022, arXiv 2202.00089.
    """

    coefficient: Coefficient

    @override
    def terms(self) -> Terms:
        return Terms(proximal_l2=self.coefficient)


@tree.dataclass
class ProximalElasticNet(Plain):
    """Elastic net by its proximal map: exact zeros, and shrinkage of the rest.

    ``w <- S(w - η u, η c1 / D) / (1 + η c2 / D)``

    Args:
      l1_coefficient: c1 >= 0, loss / weight.
      l2_coefficient: c2 >= 0, loss / weight².

    References:
      Zou & Hastie, Regularization and Variable Selection via the Elastic Net, 2005.
    """

    l1_coefficient: Coefficient
    l2_coefficient: Coefficient

    @override
    def terms(self) -> Terms:
        return Terms(proximal_l1=self.l1_coefficient, proximal_l2=self.l2_coefficient)


@tree.dataclass
class ProximalGroupLasso(Rule):
    """Group lasso by its proximal map: whole output units or filters become exactly zero.

    ``w <- z max(0, 1 - η c √n / |z|)`` a group, z = w - η u, n its number of weights; beside a preconditioner the map
    is taken in its metric D. A group is the weights into one output unit: all axes of an array but the last.

    Args:
      coefficient: c >= 0, loss / weight.

    References:
      Yuan & Lin, Model Selection and Estimation in Regression with Grouped Variables, 2006; Wen et al., Learning
      Structured Sparsity in Deep Neural Networks, 2016, arXiv 1608.03665.
    """

    coefficient: Coefficient

    @property
    @override
    def needs(self) -> frozenset[str]:
        return frozenset({"metric"})

    @override
    def move(self, stepped: Array, step: Step, state: PyTree) -> tuple[Array, PyTree]:
        return proximal.group_lasso(stepped, self.coefficient, step_size(step)), state

    @override
    def penalty(self, weight: Array, state: PyTree) -> Scalar:
        return self.coefficient * penalties.group_lasso(weight)


@tree.dataclass
class Lp(Rule):
    """Decoupled decay for any p-norm, by an implicit step.

    ``w <- (w - η u) / (1 + η p c |w|^(p - 2))`` with |w| before the step; p = 2 is an implicit `Decoupled` of 2 c. For
    p < 2 a weight at exactly 0 stays there. Like `Decoupled` it acts beside the preconditioner and not in its metric.

    Args:
      coefficient: c >= 0, weight^(2 - p) / (step · learning rate).
      p: > 0; below 2 small weights are pulled harder, which makes most of them tiny.

    References:
      Outmezguine & Levi, Decoupled Weight Decay for Any p Norm, 2024, arXiv 2404.10824.
    """

    coefficient: Coefficient
    p: Coefficient = field(metadata={"positive": True})

    @override
    def move(self, stepped: Array, step: Step, state: PyTree) -> tuple[Array, PyTree]:
        # Both sides of the fraction times |w|^(2 - p) where p < 2: no power of 0 is then infinite.
        below = _power(step.weight, jnp.maximum(2 - self.p, 0))
        above = _power(step.weight, jnp.maximum(self.p - 2, 0))
        whole = below + step.learning_rate * self.p * self.coefficient * above
        return stepped * jnp.where(whole > 0, below / jnp.where(whole > 0, whole, 1), 1), state


@tree.dataclass
class MaxNorm(Rule):
    """Max-norm constraint: no output unit's incoming weights may be longer than a bound.

    ``w <- w̃ min(1, c / |w̃|)`` a unit, the projection after the step; a unit's weights are all axes of an array but the
    last.

    Args:
      bound: c > 0, weight. Equals Keras ``MaxNorm`` up to its epsilon.

    References:
      Srebro, Rennie & Jaakkola, Maximum-Margin Matrix Factorization, 2005.
    """

    bound: Coefficient = field(metadata={"positive": True})

    @override
    def move(self, stepped: Array, step: Step, state: PyTree) -> tuple[Array, PyTree]:
        return proximal.max_norm(stepped, self.bound), state


@tree.dataclass
class NormControl(Rule):
    """Norm control: each array's norm is drawn toward a multiple of its norm at the start.

    ``w <- w̃ - k (1 - r |w0| / |w̃|) w̃`` an array. k = 1 holds the norm; r = 0 is decay by the share k a step.

    Args:
      coefficient: k in [0, 1], 1 / step: what share of the way a step goes.
      ratio: r >= 0, the norm to go to in units of the norm at the start.

    References:
      Loshchilov, Weight Norm Control, 2023, arXiv 2311.11446.
    """

    coefficient: Coefficient
    ratio: Coefficient = 1.0

    @override
    def initial(self, weight: Array) -> PyTree:
        return tree.norm(weight)

    @override
    def move(self, stepped: Array, step: Step, state: PyTree) -> tuple[Array, PyTree]:
        length = tree.norm(stepped)
        target = jnp.where(length > 0, self.ratio * state / jnp.where(length > 0, length, 1), 1)
        return stepped - self.coefficient * (1 - target) * stepped, state


@tree.dataclass
class Constrained(Rule):
    """Constrained decay: each array's squared norm is held below a bound by a multiplier of its own.

    ``λ <- max(0, λ + μ (|w̃|² - κ)), then w <- w̃ - 2 λ w̃`` an array, not scaled by the learning rate; λ starts at 0. An
    array within its bound does not decay at all.

    Args:
      bound: κ > 0. With ``warm_start`` None the bound itself, weight²; else a multiple of |w|² when the warm start
        ends.
      update_rate: μ >= 0, 1 / weight².
      warm_start: Steps before |w|² is read off; 0 = at the start. Until then nothing decays. None = the bound is given.

    Numerics:
      λ must stay below 1, where a step would overshoot: from weights far outside the bound take μ well below
      1 / (|w|² - κ). After a warm start they begin at the bound, and μ = 1 serves.

    References:
      Franke et al., Improving Deep Learning Optimization through Constrained Parameter Regularization, 2024,
      arXiv 2311.09058.
    """

    bound: Coefficient = field(metadata={"positive": True})
    update_rate: Coefficient = 1.0
    warm_start: Coefficient = None

    @override
    def initial(self, weight: Array) -> PyTree:
        square = tree.norm(weight) ** 2
        return {"multiplier": jnp.zeros_like(square), "reference": square}

    @override
    def move(self, stepped: Array, step: Step, state: PyTree) -> tuple[Array, PyTree]:
        square = tree.norm(stepped) ** 2
        multiplier, reference = state["multiplier"], state["reference"]
        taken = step.count + 1
        if self.warm_start is None:
            bound, acts = self.bound, True
        else:
            reference = jnp.where(taken <= self.warm_start, square, reference)
            bound, acts = self.bound * reference, taken > self.warm_start
        raised = jnp.maximum(0, multiplier + self.update_rate * (square - bound))
        multiplier = jnp.where(acts, raised, 0).astype(square.dtype)
        return stepped - 2 * multiplier * stepped, {"multiplier": multiplier, "reference": reference}


@tree.dataclass
class SelectiveProjection(Rule):
    """Selective projection: where a step goes on away from the anchor against the gradient's advice, part is undone.

    ``w <- w̃ - c r (w̃ - a)`` an array, where ⟨g, w - a⟩ > 0 and else w̃; r = clip((|w̃ - a| - |w - a|) / |w̃ - a|, 0, 1)
    is the share of the distance that the step added.

    Args:
      coefficient: c >= 0, a number without unit: what share of that is undone; above 1 it goes back further.
      anchor: a, weights by the names of the network's own; what it lacks (a new head) has 0. None = the weights that
        the optimizer's ``init`` is given.

    References:
      Tian, Huang & Kira, Rethinking Weight Decay for Robust Fine-Tuning of Foundation Models, 2024, arXiv 2411.01713.
    """

    coefficient: Coefficient
    anchor: Params = field(default=None, metadata={"anchor": True})

    @override
    def initial(self, weight: Array) -> PyTree:
        return weight if self.anchor is None else self.anchor

    @override
    def move(self, stepped: Array, step: Step, state: PyTree) -> tuple[Array, PyTree]:
        before, after = tree.norm(step.weight - state), tree.norm(stepped - state)
        share = jnp.where(after > 0, jnp.clip((after - before) / jnp.where(after > 0, after, 1), 0, 1), 0)
        against = jnp.sum(step.gradient * (step.weight - state)) > 0
        return stepped - jnp.where(against, self.coefficient * share, 0) * (stepped - state), state


def _power(weight: Array, exponent: Scalar) -> Array:
    """|w| to a power >= 0, with a finite gradient at 0."""
    size = jnp.abs(weight).astype(jnp.promote_types(jnp.float32, weight.dtype))
    return jnp.where(size > 0, jnp.where(size > 0, size, 1) ** exponent, jnp.where(exponent > 0, 0, 1))
