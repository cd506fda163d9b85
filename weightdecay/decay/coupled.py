"""Rules that join the gradient, before momentum and preconditioner: coupled decay.

Each adds the gradient of its penalty to the gradient of the data loss, as if it stood in the loss.
"""

from dataclasses import field
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from typing_extensions import override

from weightdecay.core import tree
from weightdecay.core.types import Coefficient, Params, PyTree, Scalar
from weightdecay.decay import penalties
from weightdecay.decay.base import Rule, Step
from weightdecay.decay.elementwise import Plain, Terms


@tree.dataclass
class L2(Plain):
    """Coupled L2: the penalty's gradient joins the data gradient, before momentum and preconditioner.

    ``g <- g + c w``, the gradient of ``c |w|²/2``. Under Adam this is another method than `Decoupled`.

    Args:
      coefficient: c >= 0, loss / weight². Equals torch's ``weight_decay`` in SGD and Adam; Keras ``L2`` is c / 2.

    References:
      Krogh & Hertz, A Simple Weight Decay Can Improve Generalization, 1992.
    """

    coefficient: Coefficient

    @override
    def terms(self) -> Terms:
        return Terms(l2=self.coefficient)


@tree.dataclass
class L1(Plain):
    """Coupled L1: a pull of constant size toward zero, by the penalty's subgradient.

    ``g <- g + c sign(w)``, sign(0) = 0. It makes weights small and never exactly zero: for zeros take `ProximalL1`.

    Args:
      coefficient: c >= 0, loss / weight. Equals Keras ``L1``.

    References:
      Tibshirani, Regression Shrinkage and Selection via the Lasso, 1996.
    """

    coefficient: Coefficient

    @override
    def terms(self) -> Terms:
        return Terms(l1=self.coefficient)


@tree.dataclass
class ElasticNet(Plain):
    """Coupled elastic net: L1 and L2 together.

    ``g <- g + c1 sign(w) + c2 w``

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
        return Terms(l1=self.l1_coefficient, l2=self.l2_coefficient)


@tree.dataclass
class Huber(Rule):
    """Coupled Huber: L2 for small weights, a pull of constant size for large ones.

    ``g <- g + c clip(w, -δ, δ)``

    Args:
      coefficient: c >= 0, loss / weight².
      delta: δ > 0, weight: where the pull stops growing.

    References:
      Guo & Fan, 2025, arXiv 2511.14721 (as a proximal step: `proximal.huber`).
    """

    coefficient: Coefficient
    delta: Coefficient = field(metadata={"positive": True})

    @override
    def couple(self, weight: Array, state: PyTree) -> tuple[Array | None, PyTree]:
        return self.coefficient * jnp.clip(weight, -self.delta, self.delta), state

    @override
    def penalty(self, weight: Array, state: PyTree) -> Scalar:
        return self.coefficient * penalties.huber(weight, delta=self.delta)


@tree.dataclass
class Elimination(Rule):
    """Weight elimination: small weights are pulled to zero, and weights well above the scale are left in peace.

    ``g <- g + c (2 w / w0²) / (1 + w² / w0²)²``, the gradient of ``c Σ (w/w0)² / (1 + (w/w0)²)``.

    Args:
      coefficient: c >= 0, loss: what one weight well above the scale costs.
      scale: w0 > 0, weight: where a weight counts half.

    References:
      Weigend, Rumelhart & Huberman, Generalization by Weight-Elimination with Application to Forecasting, 1991.
    """

    coefficient: Coefficient
    scale: Coefficient = field(metadata={"positive": True})

    @override
    def couple(self, weight: Array, state: PyTree) -> tuple[Array | None, PyTree]:
        ratio = weight / self.scale
        # Divided twice, since ratio⁴ would overflow first.
        return self.coefficient * (2 / self.scale) * (ratio / (1 + ratio**2) / (1 + ratio**2)), state

    @override
    def penalty(self, weight: Array, state: PyTree) -> Scalar:
        return self.coefficient * penalties.elimination(weight, scale=self.scale)


@tree.dataclass
class Orthogonal(Rule):
    """Soft orthogonality: the columns of each kernel are pulled toward an orthonormal system.

    ``g <- g + 4 c W (WᵀW - I)``, the gradient of ``c |WᵀW - I|²``. W is the kernel as a matrix, a column an output
    unit or filter; arrays of fewer than two dimensions are left alone.

    Args:
      coefficient: c >= 0, loss.

    References:
      Bansal, Chen & Wang, Can We Gain More from Orthogonality Regularizations in Training Deep CNNs?, 2018,
      arXiv 1810.09102.
    """

    coefficient: Coefficient

    @override
    def couple(self, weight: Array, state: PyTree) -> tuple[Array | None, PyTree]:
        if weight.ndim < 2:
            return None, state
        matrix = weight.reshape(-1, weight.shape[-1])
        pull = 4 * (matrix @ (matrix.T @ matrix - jnp.eye(matrix.shape[1], dtype=matrix.dtype)))
        return self.coefficient * pull.reshape(weight.shape), state

    @override
    def penalty(self, weight: Array, state: PyTree) -> Scalar:
        return self.coefficient * penalties.orthogonal(weight)


@tree.dataclass
class Spectral(Rule):
    """Spectral norm decay: only the direction in which a kernel amplifies most is pulled down.

    ``g <- g + c σ1 u1 v1ᵀ``, the gradient of ``c σ1²/2``; σ1 is the largest singular value of the kernel as a matrix,
    u1 and v1 its vectors, followed from step to step by power iteration. Arrays of fewer than two dimensions are left
    alone.

    Args:
      coefficient: c >= 0, loss / weight².
      num_iterations: Power iterations a step, a Python int >= 1.

    Numerics:
      The first steps are off until the iteration has found u1: by (σ2/σ1)² to the power of the iterations.

    References:
      Yoshida & Miyato, Spectral Norm Regularization for Improving the Generalizability of Deep Learning, 2017,
      arXiv 1705.10941.
    """

    coefficient: Coefficient
    num_iterations: int = field(default=1, metadata={"static": True})

    @override
    def initial(self, weight: Array) -> PyTree:
        if weight.ndim < 2:
            return None
        # A fixed direction for every member; a random one has a share of every other.
        start = jax.random.normal(jax.random.key(0), weight.shape[-1:], jnp.promote_types(jnp.float32, weight.dtype))
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
        # By the vector that is carried: on a CPU a decomposition may wait for ever for a thread that a device holds.
        return self.coefficient * penalties.l2(weight.reshape(-1, weight.shape[-1]) @ state)

    @override
    def check(self, where: str) -> None:
        if isinstance(self.num_iterations, bool) or not isinstance(self.num_iterations, int) or self.num_iterations < 1:
            raise ValueError(f"{where}num_iterations is {self.num_iterations!r}; give a whole number of at least 1.")


@tree.dataclass
class TowardAnchor(Rule):
    """L2 toward the weights of the start, or given ones, rather than toward zero.

    ``g <- g + c (w - a)``, the gradient of ``c |w - a|²/2``; decoupled: ``w <- w - η c (w - a) - η u``. L2-SP with
    pretrained weights, L2-Init with those of the start.

    Args:
      coefficient: c >= 0, loss / weight²; decoupled: 1 / (step · learning rate).
      anchor: a, weights by the names of the network's own; what it lacks (a new head) decays toward 0. None = the
        weights that the optimizer's ``init`` is given.
      decoupled: Whether to act beside the step, a Python bool.

    References:
      Li, Grandvalet & Davoine, Explicit Inductive Bias for Transfer Learning with Convolutional Networks, 2018,
      arXiv 1802.01483; Kumar, Marklund & Van Roy, Maintaining Plasticity in Continual Learning via Regenerative
      Regularization, 2023, arXiv 2308.11958.
    """

    coefficient: Coefficient
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
    def check(self, where: str) -> None:
        if not isinstance(self.decoupled, bool):
            raise TypeError(f"{where}decoupled is {self.decoupled!r}; give True or False.")


def _unit(vector: Array, otherwise: Array) -> Array:
    """Vector of length 1; ``otherwise`` where it is zero."""
    length = tree.norm(vector)
    return jnp.where(length > 0, vector / jnp.where(length > 0, length, 1), otherwise)
