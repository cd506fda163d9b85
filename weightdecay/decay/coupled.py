"""Coupled decay: rules that are added to the gradient, before momentum and preconditioner.

Each rule adds the gradient of its penalty to the gradient of the data loss, as if the penalty were part of the loss.
"""

from dataclasses import field
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from typing_extensions import override

from weightdecay.core import checks, random_streams, tree
from weightdecay.core.types import Coefficient, Params, PyTree, Scalar
from weightdecay.decay import layout as layouts
from weightdecay.decay import penalties
from weightdecay.decay.base import (
    LOSS_PER_SQUARED_WEIGHT,
    LOSS_PER_WEIGHT,
    MATRICES,
    PER_STEP_AND_RATE,
    Rule,
    Step,
    with_unit,
)
from weightdecay.decay.elementwise import ElementwiseRule, Terms
from weightdecay.decay.layout import Layout


@tree.dataclass
class L2(ElementwiseRule):
    """Coupled L2: the gradient of the penalty is added to the data gradient, before momentum and preconditioner.

    ``g <- g + c w``, the gradient of ``c |w|²/2``. Under Adam this is a different method from `Decoupled`.

    Args:
      coefficient: c >= 0, loss / weight². Equals torch's ``weight_decay`` in SGD and Adam; Keras ``L2`` is c / 2.

    References:
      Krogh & Hertz, A Simple Weight Decay Can Improve Generalization, 1992.
    """

    equals = "`weight_decay` of torch's SGD, Adam and RMSprop; Keras `L2(c / 2)`"
    search_range = (1e-6, 1e-1)

    coefficient: Coefficient = with_unit(LOSS_PER_SQUARED_WEIGHT)

    @override
    def terms(self) -> Terms:
        return Terms(l2=self.coefficient)


@tree.dataclass
class L1(ElementwiseRule):
    """Coupled L1: a pull of constant size toward zero, the subgradient of the penalty.

    ``g <- g + c sign(w)``, sign(0) = 0. It makes weights small but not exactly zero; use `ProximalL1` for exact zeros.

    Args:
      coefficient: c >= 0, loss / weight. Equals Keras ``L1``.

    References:
      Tibshirani, Regression Shrinkage and Selection via the Lasso, 1996.
    """

    equals = "Keras `L1`"
    search_range = (1e-7, 1e-2)

    coefficient: Coefficient = with_unit(LOSS_PER_WEIGHT)

    @override
    def terms(self) -> Terms:
        return Terms(l1=self.coefficient)


@tree.dataclass
class ElasticNet(ElementwiseRule):
    """Coupled elastic net: L1 and L2 together.

    ``g <- g + c1 sign(w) + c2 w``

    Args:
      l1_coefficient: c1 >= 0, loss / weight.
      l2_coefficient: c2 >= 0, loss / weight².

    References:
      Zou & Hastie, Regularization and Variable Selection via the Elastic Net, 2005.
    """

    equals = "Keras `L1L2(c1, c2 / 2)`"
    search_range = (1e-7, 1e-2)

    l1_coefficient: Coefficient = with_unit(LOSS_PER_WEIGHT)
    l2_coefficient: Coefficient = with_unit(LOSS_PER_SQUARED_WEIGHT)

    @override
    def terms(self) -> Terms:
        return Terms(l1=self.l1_coefficient, l2=self.l2_coefficient)


@tree.dataclass
class Huber(Rule):
    """Coupled Huber: L2 for small weights, a pull of constant size for large ones.

    ``g <- g + c clip(w, -δ, δ)``

    Args:
      coefficient: c >= 0, loss / weight².
      delta: δ > 0, weight: size of the weights above which the pull is constant.

    References:
      Guo & Fan, 2025, arXiv 2511.14721 (as a proximal step: `proximal.huber`).
    """

    equals = "`L2(c)` for δ beyond every weight"

    coefficient: Coefficient = with_unit(LOSS_PER_SQUARED_WEIGHT)
    delta: Coefficient = with_unit("weight", positive=True)

    @override
    def couple(self, weight: Array, state: PyTree) -> tuple[Array | None, PyTree]:
        return self.coefficient * jnp.clip(weight, -self.delta, self.delta), state

    @override
    def penalty(self, weight: Array, state: PyTree) -> Scalar:
        return self.coefficient * penalties.huber(weight, delta=self.delta)


@tree.dataclass
class Elimination(Rule):
    """Weight elimination: small weights are pulled to zero; weights well above the scale are hardly changed.

    ``g <- g + c (2 w / w0²) / (1 + w² / w0²)²``, the gradient of ``c Σ (w/w0)² / (1 + (w/w0)²)``.

    Args:
      coefficient: c >= 0, loss: penalty of one weight well above the scale.
      scale: w0 > 0, weight: size at which the penalty of a weight is c / 2.

    References:
      Weigend, Rumelhart & Huberman, Generalization by Weight-Elimination with Application to Forecasting, 1991.
    """

    equals = "`L2(2 c / w0²)` for weights far below w0"

    coefficient: Coefficient = with_unit("loss")
    scale: Coefficient = with_unit("weight", positive=True)

    @override
    def couple(self, weight: Array, state: PyTree) -> tuple[Array | None, PyTree]:
        ratio = weight / self.scale
        # Divided twice, because ratio⁴ would overflow.
        return self.coefficient * (2 / self.scale) * (ratio / (1 + ratio**2) / (1 + ratio**2)), state

    @override
    def penalty(self, weight: Array, state: PyTree) -> Scalar:
        return self.coefficient * penalties.elimination(weight, scale=self.scale)


@tree.dataclass
class Orthogonal(Rule):
    """Soft orthogonality: the columns of each kernel are pulled toward orthonormal vectors.

    ``g <- g + 4 c W (WᵀW - I)``, the gradient of ``c |WᵀW - I|²``. W is the kernel as a matrix, with one column per
    output unit or filter; arrays of fewer than two dimensions do not decay.

    Args:
      coefficient: c >= 0, loss.
      layout: Layouts by patterns of names, such as ``{"w1": "out in"}``, for arrays whose layout is not known; see
        `weightdecay.decay.masks.describe`. A static dictionary.

    References:
      Bansal, Chen & Wang, Can We Gain More from Orthogonality Regularizations in Training Deep CNNs?, 2018,
      arXiv 1810.09102.
    """

    equals = "the gradient of c |WᵀW - I|²"
    search_range = (1e-5, 1e0)
    acts_on = MATRICES

    coefficient: Coefficient = with_unit("loss")
    layout: Layout | None = field(default=None, metadata={"static": True})

    @override
    def couple(self, weight: Array, state: PyTree) -> tuple[Array | None, PyTree]:
        if weight.ndim < 2:
            return None, state
        # At least in float32: W³ may be too large for float16 where its product with c is not.
        matrix = weight.reshape(-1, weight.shape[-1]).astype(jnp.promote_types(jnp.float32, weight.dtype))
        pull = 4 * (matrix @ (matrix.T @ matrix - jnp.eye(matrix.shape[1], dtype=matrix.dtype)))
        return self.coefficient * pull.reshape(weight.shape), state

    @override
    def penalty(self, weight: Array, state: PyTree) -> Scalar:
        return self.coefficient * penalties.orthogonal(weight)

    @override
    def check(self) -> None:
        layouts.check(self.layout)


@tree.dataclass
class Spectral(Rule):
    """Spectral norm decay: only the direction that a kernel amplifies most is reduced.

    ``g <- g + c σ1 u1 v1ᵀ``, the gradient of ``c σ1²/2``. σ1 is the largest singular value of the kernel as a matrix;
    its singular vectors u1 and v1 are tracked from step to step by power iteration. Arrays of fewer than two dimensions
    do not decay.

    Args:
      coefficient: c >= 0, loss / weight².
      num_iterations: Power iterations per step, a Python int >= 1.
      layout: Layouts by patterns of names, such as ``{"w1": "out in"}``, for arrays whose layout is not known; see
        `weightdecay.decay.masks.describe`. A static dictionary.

    Numerics:
      The first steps have an error until the iteration has converged to u1; after n iterations it is about
      (σ2/σ1)^(2 n).

    References:
      Yoshida & Miyato, Spectral Norm Regularization for Improving the Generalizability of Deep Learning, 2017,
      arXiv 1705.10941.
    """

    equals = "the gradient of c σ1²/2"  # noqa: RUF001 (a sigma is meant)
    search_range = (1e-5, 1e0)

    acts_on = MATRICES

    coefficient: Coefficient = with_unit(LOSS_PER_SQUARED_WEIGHT)
    num_iterations: int = field(default=1, metadata={"static": True})
    layout: Layout | None = field(default=None, metadata={"static": True})

    @override
    def initial(self, weight: Array) -> PyTree:
        if weight.ndim < 2:
            return None
        # The same random vector for every member: almost surely it is not orthogonal to v1.
        start = jax.random.normal(
            random_streams.constant_key(), weight.shape[-1:], jnp.promote_types(jnp.float32, weight.dtype)
        )
        return start / tree.norm(start)

    @override
    def couple(self, weight: Array, state: PyTree) -> tuple[Array | None, PyTree]:
        if weight.ndim < 2:
            return None, state
        matrix = weight.reshape(-1, weight.shape[-1]).astype(state.dtype)

        def iterate(_: Any, output: Array) -> Array:
            inputs = _unit(matrix @ output, jnp.zeros(matrix.shape[:1], matrix.dtype))
            return _unit(matrix.T @ inputs, output)

        output = iterate(0, state)
        if self.num_iterations > 1:
            output = jax.lax.fori_loop(1, self.num_iterations, iterate, output)
        amplified = matrix @ output  # σ1 u1
        return self.coefficient * jnp.outer(amplified, output).reshape(weight.shape), output

    @override
    def penalty(self, weight: Array, state: PyTree) -> Scalar:
        if state is None:
            return self.coefficient * penalties.spectral(weight)
        # By the carried vector: on a CPU an SVD may wait forever for a thread that another device holds.
        return self.coefficient * penalties.l2(weight.reshape(-1, weight.shape[-1]) @ state)

    @override
    def check(self) -> None:
        checks.integer(self.num_iterations, "num_iterations", at_least=1)
        layouts.check(self.layout)


@tree.dataclass
class TowardAnchor(Rule):
    """L2 toward the initial weights, or given ones, instead of toward zero.

    ``g <- g + c (w - a)``, the gradient of ``c |w - a|²/2``; decoupled: ``w <- w - η c (w - a) - η u``. This is L2-SP
    with pretrained weights and L2-Init with the initial weights.

    Args:
      coefficient: c >= 0, loss / weight²; decoupled: 1 / (step · learning rate).
      anchor: a, a tree of weights that are matched by name; arrays that it lacks (a new head) decay toward 0. None =
        the weights that are passed to the optimizer's ``init``; in `fit_grid`, those of ``initial``.
      decoupled: Whether the rule shrinks the weights in addition to the step, instead of being added to the gradient;
        a Python bool.

    References:
      Li, Grandvalet & Davoine, Explicit Inductive Bias for Transfer Learning with Convolutional Networks, 2018,
      arXiv 1802.01483; Kumar, Marklund & Van Roy, Maintaining Plasticity in Continual Learning via Regenerative
      Regularization, 2023, arXiv 2308.11958.
    """

    equals = "L2-SP (pretrained a), L2-Init (a of the start); `L2` at a = 0"
    search_range = (1e-6, 1e-1)

    coefficient: Coefficient = with_unit(f"{LOSS_PER_SQUARED_WEIGHT}, or {PER_STEP_AND_RATE} if decoupled")
    anchor: Params = field(default=None, metadata={"anchor": True})
    decoupled: bool = field(default=False, metadata={"static": True})

    @override
    def initial(self, weight: Array) -> PyTree:
        return weight if self.anchor is None else self.anchor

    @override
    def couple(self, weight: Array, state: PyTree) -> tuple[Array | None, PyTree]:
        return (None if self.decoupled else self.coefficient * (weight - state)), state

    @override
    def shrink(self, step: Step, state: PyTree) -> tuple[Array | None, PyTree]:
        if not self.decoupled:
            return None, state
        return step.learning_rate * self.coefficient * (step.weight - state), state

    @override
    def penalty(self, weight: Array, state: PyTree) -> Scalar:
        return jnp.zeros(()) if self.decoupled else self.coefficient * penalties.l2(weight - state)

    @override
    def check(self) -> None:
        if not isinstance(self.decoupled, bool):
            raise TypeError(f"decoupled is {self.decoupled!r}; give True or False.")


def _unit(vector: Array, fallback: Array) -> Array:
    """Vector of length 1; the fallback where the vector is zero."""
    length = tree.norm(vector)
    return jnp.where(length > 0, vector / jnp.where(length > 0, length, 1), fallback)
