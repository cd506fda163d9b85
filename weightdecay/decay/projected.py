"""Rules that move the weights after the step: proximal maps, projections and constraints."""

from dataclasses import field

import jax.numpy as jnp
from jax import Array
from typing_extensions import override

from weightdecay.core import tree
from weightdecay.core.types import Coefficient, Params, PyTree, Scalar
from weightdecay.decay import layout as layouts
from weightdecay.decay import penalties, proximal
from weightdecay.decay.base import (
    ARRAYS,
    LOSS_PER_SQUARED_WEIGHT,
    LOSS_PER_WEIGHT,
    MATRICES,
    NO_UNIT,
    PER_STEP,
    Rule,
    Step,
    step_size,
    with_unit,
)
from weightdecay.decay.elementwise import ElementwiseRule, Terms
from weightdecay.decay.layout import Layout


@tree.dataclass
class ProximalL1(ElementwiseRule):
    """L1 by its proximal map, which makes weights exactly zero.

    ``w <- S(w - η u, η c / D)``. The map is scaled by the preconditioner of the base optimizer, so that SGD and Adam
    have the same minimizer, that of ``loss + c |w|₁``.

    Args:
      coefficient: c >= 0, loss / weight.

    References:
      Yun, Lozano & Yang, A General Family of Stochastic Proximal Gradient Methods for Deep Learning, 2020,
      arXiv 2007.07484.
    """

    equals = "minimizes loss + c |w|₁ (Lasso)"
    search_range = (1e-7, 1e-2)

    coefficient: Coefficient = with_unit(LOSS_PER_WEIGHT)

    @override
    def terms(self) -> Terms:
        return Terms(proximal_l1=self.coefficient)


@tree.dataclass
class ProximalL2(ElementwiseRule):
    """L2 by its proximal map, the implicit step: stable for any coefficient.

    ``w <- (w - η u) / (1 + η c / D)``. The map is scaled by the preconditioner of the base optimizer, so that SGD and
    Adam have the same minimizer, that of ``loss + c |w|²/2``. Zhuang et al. use the map without D under Adam; that is
    an implicit `Decoupled`, which has another minimizer.

    Args:
      coefficient: c >= 0, loss / weight².

    References:
      Parikh & Boyd, Proximal Algorithms, 2014; Zhuang et al., Understanding AdamW through Proximal Methods and
      Scale-Freeness, 2022, arXiv 2202.00089.
    """

    equals = "minimizes loss + c |w|²/2 (ridge)"
    search_range = (1e-6, 1e-1)

    coefficient: Coefficient = with_unit(LOSS_PER_SQUARED_WEIGHT)

    @override
    def terms(self) -> Terms:
        return Terms(proximal_l2=self.coefficient)


@tree.dataclass
class ProximalElasticNet(ElementwiseRule):
    """Elastic net by its proximal map: exact zeros, and shrinkage of the rest.

    ``w <- S(w - η u, η c1 / D) / (1 + η c2 / D)``

    Args:
      l1_coefficient: c1 >= 0, loss / weight.
      l2_coefficient: c2 >= 0, loss / weight².

    References:
      Zou & Hastie, Regularization and Variable Selection via the Elastic Net, 2005.
    """

    equals = "minimizes loss + c1 |w|₁ + c2 |w|²/2"
    search_range = (1e-7, 1e-2)

    l1_coefficient: Coefficient = with_unit(LOSS_PER_WEIGHT)
    l2_coefficient: Coefficient = with_unit(LOSS_PER_SQUARED_WEIGHT)

    @override
    def terms(self) -> Terms:
        return Terms(proximal_l1=self.l1_coefficient, proximal_l2=self.l2_coefficient)


@tree.dataclass
class ProximalGroupLasso(Rule):
    """Group lasso by its proximal map: whole output units or filters become exactly zero.

    ``w <- z max(0, 1 - η c √n / |z|)`` for each group, with z = w - η u and n weights in the group; under a
    preconditioner the map is scaled by its diagonal D. A group is the incoming weights of one output unit.

    Args:
      coefficient: c >= 0, loss / weight.
      layout: Layouts by patterns of names, such as ``{"w1": "out in"}``, for arrays whose layout is not known; see
        `weightdecay.decay.masks.describe`. A static dictionary.

    References:
      Yuan & Lin, Model Selection and Estimation in Regression with Grouped Variables, 2006; Wen et al., Learning
      Structured Sparsity in Deep Neural Networks, 2016, arXiv 1608.03665.
    """

    equals = "minimizes loss + c √n Σ |w_unit|"
    search_range = (1e-7, 1e-2)
    acts_on = MATRICES

    coefficient: Coefficient = with_unit(LOSS_PER_WEIGHT)
    layout: Layout | None = field(default=None, metadata={"static": True})

    @property
    @override
    def needs(self) -> frozenset[str]:
        return frozenset({"preconditioner_diagonal"})

    @override
    def move(self, stepped: Array, step: Step, state: PyTree) -> tuple[Array, PyTree]:
        return proximal.group_lasso(stepped, self.coefficient, step_size(step)), state

    @override
    def penalty(self, weight: Array, state: PyTree) -> Scalar:
        return self.coefficient * penalties.group_lasso(weight)

    @override
    def check(self) -> None:
        layouts.check(self.layout)


@tree.dataclass
class Lp(Rule):
    """Decoupled decay for any p-norm, by an implicit step.

    ``w <- (w - η u) / (1 + η p c |w|^(p - 2))`` with |w| before the step; p = 2 is an implicit `Decoupled` of 2 c. For
    p < 2 a weight at exactly 0 stays there. Like `Decoupled`, the rule is not scaled by the preconditioner.

    Args:
      coefficient: c >= 0, weight^(2 - p) / (step · learning rate).
      p: > 0; below 2, small weights are pulled harder, which makes most of them tiny.

    References:
      Outmezguine & Levi, Decoupled Weight Decay for Any p Norm, 2024, arXiv 2404.10824.
    """

    equals = "implicit `Decoupled(2 c)` at p = 2"

    coefficient: Coefficient = with_unit("weight^(2 - p) / (step · learning rate)")
    p: Coefficient = with_unit(NO_UNIT, positive=True)

    @override
    def move(self, stepped: Array, step: Step, state: PyTree) -> tuple[Array, PyTree]:
        # Numerator and denominator are multiplied by |w|^(2 - p) where p < 2, so that no power of 0 is infinite.
        numerator = _power(step.weight, jnp.maximum(2 - self.p, 0))
        power = _power(step.weight, jnp.maximum(self.p - 2, 0))
        denominator = numerator + step.learning_rate * self.p * self.coefficient * power
        shrinkage = numerator / jnp.where(denominator > 0, denominator, 1)
        return stepped * jnp.where(denominator > 0, shrinkage, 1), state


@tree.dataclass
class MaxNorm(Rule):
    """Max-norm constraint: the norm of the incoming weights of each output unit is at most a bound.

    ``w <- w̃ min(1, c / |w̃|)`` for each unit, the projection after the step; w̃ are the incoming weights of the unit.

    Args:
      bound: c > 0, weight. Equals Keras ``MaxNorm`` up to its epsilon.
      layout: Layouts by patterns of names, such as ``{"w1": "out in"}``, for arrays whose layout is not known; see
        `weightdecay.decay.masks.describe`. A static dictionary.

    References:
      Srebro, Rennie & Jaakkola, Maximum-Margin Matrix Factorization, 2005.
    """

    equals = "Keras `MaxNorm`, but for its epsilon"
    search_range = (1e-1, 1e1)
    acts_on = MATRICES

    bound: Coefficient = with_unit("weight", positive=True)
    layout: Layout | None = field(default=None, metadata={"static": True})

    @override
    def move(self, stepped: Array, step: Step, state: PyTree) -> tuple[Array, PyTree]:
        return proximal.max_norm(stepped, self.bound), state

    @override
    def check(self) -> None:
        layouts.check(self.layout)


@tree.dataclass
class NormControl(Rule):
    """Norm control: the norm of each array is drawn toward a multiple of its initial norm.

    ``w <- w̃ - k (1 - r |w0| / |w̃|) w̃`` for each array. k = 1 holds the norm; r = 0 is decay by the fraction k per step.

    Args:
      coefficient: k in [0, 1], 1 / step: fraction of the distance to the target norm that a step covers.
      ratio: r >= 0, target norm divided by the initial norm.

    References:
      Loshchilov, Weight Norm Control, 2023, arXiv 2311.11446.
    """

    equals = "k = 1 holds the norm; r = 0 is decay by the fraction k"
    acts_on = ARRAYS

    coefficient: Coefficient = with_unit(PER_STEP)
    ratio: Coefficient = with_unit(NO_UNIT, default=1.0)

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
    """Constrained decay: the squared norm of each array is held below a bound by a Lagrange multiplier.

    ``λ <- max(0, λ + μ (|w̃|² - κ)), then w <- w̃ - 2 λ w̃`` for each array, not scaled by the learning rate; λ starts at
    0. An array within its bound does not decay at all.

    Args:
      bound: κ > 0. With ``warm_start`` None, the bound itself, weight²; otherwise a multiple of |w|² at the end of the
        warm start.
      update_rate: μ >= 0, 1 / weight².
      warm_start: Number of steps after which |w|² is read; 0 = at the start. Before, nothing decays. None = ``bound``
        is the bound itself.

    Numerics:
      Where λ would exceed 1, the formula would make the weights longer. λ is then 1, and the step projects the array
      onto the bound, ``w <- w̃ √κ / |w̃|``. If the initial weights are far outside the bound, choose μ well below
      1 / (|w|² - κ), so that this does not happen. After a warm start the weights begin at the bound, and μ = 1 works.

    References:
      Franke et al., Improving Deep Learning Optimization through Constrained Parameter Regularization, 2024,
      arXiv 2311.09058.
    """

    equals = "AdamCPR with R = |w|²"
    acts_on = ARRAYS

    bound: Coefficient = with_unit("weight²", positive=True)
    update_rate: Coefficient = with_unit("1 / weight²", default=1.0)
    warm_start: Coefficient = with_unit("step", default=None)

    @override
    def initial(self, weight: Array) -> PyTree:
        norm = tree.norm(weight)
        return {"multiplier": jnp.zeros_like(norm), "reference": norm}

    @override
    def move(self, stepped: Array, step: Step, state: PyTree) -> tuple[Array, PyTree]:
        norm = tree.norm(stepped)
        multiplier, reference = state["multiplier"], state["reference"]
        if self.warm_start is None:
            bound_norm, acts = jnp.sqrt(self.bound), True
        else:
            reference = jnp.where(step.count < self.warm_start, norm, reference)
            bound_norm, acts = jnp.sqrt(self.bound) * reference, step.count >= self.warm_start
        # |w̃|² - κ, whose terms may be too large for float32 where their difference is not.
        largest = jnp.finfo(norm.dtype).max
        excess = jnp.clip((norm - bound_norm) * (norm + bound_norm), -largest, largest)
        raised = jnp.maximum(0, multiplier + self.update_rate * excess)
        overshoots = acts & (raised > 1)
        multiplier = jnp.where(acts, jnp.minimum(raised, 1), 0).astype(norm.dtype)
        projected = stepped * (bound_norm / jnp.where(overshoots, norm, 1))
        moved = jnp.where(overshoots, projected, stepped - 2 * multiplier * stepped)
        return moved, {"multiplier": multiplier, "reference": reference}


@tree.dataclass
class SelectiveProjection(Rule):
    """Selective projection: part of a step is undone where it moves away from the anchor against the gradient.

    ``w <- w̃ - c r (w̃ - a)`` for each array with ⟨g, w - a⟩ > 0, otherwise w̃. The fraction of the distance that the step
    added is r = clip((|w̃ - a| - |w - a|) / |w̃ - a|, 0, 1).

    Args:
      coefficient: c >= 0, no unit: fraction of the added distance that is undone; above 1, more than that is undone.
      anchor: a, a tree of weights that are matched by name; arrays that it lacks (a new head) have the anchor 0. None =
        the weights that are passed to the optimizer's ``init``.

    References:
      Tian, Huang & Kira, Rethinking Weight Decay for Robust Fine-Tuning of Foundation Models, 2024, arXiv 2411.01713.
    """

    equals = "SPD of Tian et al."
    search_range = (1e-2, 1e0)
    acts_on = ARRAYS

    coefficient: Coefficient = with_unit(NO_UNIT)
    anchor: Params = field(default=None, metadata={"anchor": True})

    @override
    def initial(self, weight: Array) -> PyTree:
        return weight if self.anchor is None else self.anchor

    @override
    def move(self, stepped: Array, step: Step, state: PyTree) -> tuple[Array, PyTree]:
        before, after = tree.norm(step.weight - state), tree.norm(stepped - state)
        added = jnp.where(after > 0, jnp.clip((after - before) / jnp.where(after > 0, after, 1), 0, 1), 0)
        # Divided by powers of two, so that the products do not overflow; the sign of their sum is the same.
        precise = jnp.promote_types(jnp.float32, stepped.dtype)
        factors = [array.astype(precise) for array in (step.gradient, step.weight - state)]
        gradient, distance = (array / tree.power_of_two([array]) for array in factors)
        against = jnp.sum(gradient * distance) > 0
        return stepped - jnp.where(against, self.coefficient * added, 0) * (stepped - state), state


def _power(weight: Array, exponent: Scalar) -> Array:
    """|w| to a power >= 0, with a finite gradient at 0."""
    size = jnp.abs(weight).astype(jnp.promote_types(jnp.float32, weight.dtype))
    return jnp.where(size > 0, jnp.where(size > 0, size, 1) ** exponent, jnp.where(exponent > 0, 0, 1))
