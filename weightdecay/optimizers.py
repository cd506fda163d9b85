"""Any optax preconditioner joined to any decay rule: an ordinary ``optax.GradientTransformation``.

``wd.adam(1e-3, wd.Decoupled(0.01))`` is AdamW; ``wd.adam(1e-3, wd.L2(0.01))`` is Adam with L2. Every number, the
coefficient included, may be traced.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.core import Tracer
from jaxtyping import Int

from weightdecay import decay as rules
from weightdecay import masks
from weightdecay.decay import Rule
from weightdecay.types import Mask, MaskFn, Params, PyTree, Scalar, Schedule


class DecayState(NamedTuple):
    """State of `optimizer`."""

    step: Int[Array, ""]  # steps taken
    base: PyTree


def optimizer(
    base: optax.GradientTransformation,
    learning_rate: Scalar | Schedule,
    decay: Rule,
    mask: Mask | MaskFn = masks.kernels,
    *,
    metric: Callable[[Any], Params] | None = None,
    peak_learning_rate: Scalar | None = None,
) -> optax.GradientTransformation:
    """Join a preconditioner to a decay rule.

    Args:
      base: Turns gradients g into a direction u, such as `optax.scale_by_adam` or `optax.trace`: without learning rate
        and without sign.
      learning_rate: η >= 0, shape ``()``, weight² / loss for SGD and weight for Adam; or a schedule ``step -> η``.
      decay: The rule; its coefficients may be traced, trees or schedules.
      mask: Which weights decay: True = decays, a pytree prefix of the weights or a function that makes one.
      metric: Diagonal D of the preconditioner, ``metric(base_state) -> tree`` in the structure of the weights, after
        ``base`` took its step: u = g / D under a steady gradient. Proximal rules need it where ``base`` has a memory
        (momentum, second moments). None: D = 1.
      peak_learning_rate: Largest η of a schedule, shape ``()``; `Independent` needs it beside a schedule.

    Returns:
      An optax transformation; ``update`` needs ``params``, and its updates go to `optax.apply_updates`.

    Raises:
      TypeError: ``decay`` is no rule, or a coefficient or the learning rate is no number.
      ValueError: A negative or non-finite number; a mask that selects nothing; `Independent` beside a schedule without
        ``peak_learning_rate``; a proximal rule beside a base with a memory and no ``metric``.

    References:
      The rule's own; see `weightdecay.decay`.

    Examples:
      >>> step = optimizer(optax.scale_by_rms(), 1e-2, rules.Decoupled(0.1))
      >>> params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
      >>> updates, state = step.update(jax.tree.map(jnp.zeros_like, params), step.init(params), params)
      >>> float(updates["kernel"][0, 0]), float(updates["bias"][0])
      (-0.0010000000474974513, -0.0)
    """
    rules.check(decay, argument="decay")
    _check_learning_rate(learning_rate)
    terms = decay.terms()
    if terms.independent is not None and callable(learning_rate) and peak_learning_rate is None:
        raise ValueError(
            f"decay = {decay} beside a schedule needs the schedule's peak: pass peak_learning_rate, the largest "
            "learning rate of the schedule. A step decays by coefficient * learning_rate / peak_learning_rate."
        )

    def flags(params: Params) -> list[bool]:
        return masks.resolve(mask, params) if not terms.is_empty else [False] * len(jax.tree.leaves(params))

    def init(params: Params) -> DecayState:
        flags(params)
        state = base.init(params)
        remembers = any(jnp.issubdtype(jnp.result_type(leaf), jnp.floating) for leaf in jax.tree.leaves(state))
        if terms.is_proximal and metric is None and remembers:
            raise ValueError(
                f"decay = {decay} takes a proximal step, and the base optimizer has a memory (momentum, moments): "
                "without its diagonal D the step would have another minimizer. Take wd.sgd or wd.adam, or pass "
                "metric=..., which gives D from the base's state: 1 - momentum, or sqrt(second moments) + eps."
            )
        return DecayState(jnp.zeros((), jnp.int32), state)

    def update(gradients: Any, state: DecayState, params: Params | None = None) -> tuple[Params, DecayState]:
        if params is None:
            raise ValueError("params is None; decay acts on the weights: call update(gradients, state, params).")
        rate = learning_rate(state.step) if callable(learning_rate) else learning_rate
        scale = rate / peak_learning_rate if callable(learning_rate) and peak_learning_rate is not None else 1.0
        weights, structure = jax.tree.flatten(params)
        leaf_terms = rules.leafwise(rules.at_step(decay, state.step), params, flags(params))

        gradient_leaves = structure.flatten_up_to(gradients)
        regularized = [t.regularize(g, w) for t, g, w in zip(leaf_terms, gradient_leaves, weights, strict=True)]
        directions, base_state = base.update(structure.unflatten(regularized), state.base, params)
        diagonals = [None] * len(weights) if metric is None else structure.flatten_up_to(metric(base_state))
        updates = [
            t.step(-rate * u, w, rate, scale, d)
            for t, u, w, d in zip(leaf_terms, structure.flatten_up_to(directions), weights, diagonals, strict=True)
        ]
        return structure.unflatten(updates), DecayState(state.step + 1, base_state)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def sgd(
    learning_rate: Scalar | Schedule,
    decay: Rule,
    momentum: Scalar = 0.0,
    nesterov: bool = False,
    *,
    mask: Mask | MaskFn = masks.kernels,
    peak_learning_rate: Scalar | None = None,
) -> optax.GradientTransformation:
    """Stochastic gradient descent with a decay rule.

    ``m <- momentum m + g``, ``u = m``, or ``g + momentum m`` with Nesterov, as in torch. Beside momentum `L2` and
    `Decoupled` differ: `L2` reaches the weights through the momentum, at the slow rate η c / (1 - momentum). A steady
    gradient adds up to g / (1 - momentum), so a proximal rule takes its map with D = 1 - momentum: its minimizer is
    the same at any momentum.

    Args:
      learning_rate: η >= 0, shape ``()``, weight² / loss; or a schedule.
      decay: The rule.
      momentum: In [0, 1), shape ``()``; may be traced.
      nesterov: Whether to look ahead.
      mask: Which weights decay.
      peak_learning_rate: Largest η of a schedule; `Independent` needs it beside a schedule.

    Returns:
      An optax transformation.

    Raises:
      TypeError: As `optimizer`.
      ValueError: As `optimizer`.

    References:
      Sutskever et al., On the Importance of Initialization and Momentum in Deep Learning, 2013.
    """

    def diagonal(state: Any) -> Params:
        return jax.tree.map(lambda _: 1 - momentum, state.trace)

    base = optax.trace(decay=momentum, nesterov=nesterov)  # pyright: ignore[reportArgumentType]
    return optimizer(base, learning_rate, decay, mask, metric=diagonal, peak_learning_rate=peak_learning_rate)


def adam(
    learning_rate: Scalar | Schedule,
    decay: Rule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    *,
    mask: Mask | MaskFn = masks.kernels,
    peak_learning_rate: Scalar | None = None,
) -> optax.GradientTransformation:
    """Adam with a decay rule; a proximal rule takes its step in Adam's own metric.

    ``m <- b1 m + (1 - b1) g``, ``v <- b2 v + (1 - b2) g²``, ``D = sqrt(v_hat) + eps``, ``u = m_hat / D``.

    Args:
      learning_rate: η >= 0, shape ``()``, weight; or a schedule.
      decay: The rule: `Decoupled` makes AdamW, `L2` makes Adam with L2, and they are different methods.
      b1: Decay of the first moment, in [0, 1), shape ``()``; may be traced.
      b2: Decay of the second moment, in [0, 1), shape ``()``; may be traced.
      eps: > 0, shape ``()``, unit of the gradient; may be traced.
      mask: Which weights decay.
      peak_learning_rate: Largest η of a schedule; `Independent` needs it beside a schedule.

    Returns:
      An optax transformation.

    Raises:
      TypeError: As `optimizer`.
      ValueError: As `optimizer`.

    References:
      Kingma & Ba, Adam: A Method for Stochastic Optimization, 2015, arXiv 1412.6980.

    Examples:
      >>> adamw = adam(1e-3, rules.Decoupled(0.01))
      >>> adam_with_l2 = adam(1e-3, rules.L2(0.01))
    """

    def diagonal(state: Any) -> Params:
        second = optax.tree.bias_correction(state.nu, b2, state.count)
        return jax.tree.map(lambda v: jnp.sqrt(v) + eps, second)

    base = optax.scale_by_adam(b1=b1, b2=b2, eps=eps)  # pyright: ignore[reportArgumentType]
    return optimizer(base, learning_rate, decay, mask, metric=diagonal, peak_learning_rate=peak_learning_rate)


def _check_learning_rate(learning_rate: Any) -> None:
    if callable(learning_rate) or isinstance(learning_rate, Tracer):
        return
    if isinstance(learning_rate, bool | str) or jnp.ndim(learning_rate) > 0:
        raise TypeError(f"learning_rate is {learning_rate!r}; give one number >= 0, or a schedule.")
    if not math.isfinite(learning_rate) or learning_rate < 0:
        raise ValueError(f"learning_rate is {learning_rate}; give a finite number >= 0.")
