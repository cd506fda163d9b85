"""Any optax preconditioner joined to any decay rule: an ordinary ``optax.GradientTransformation``.

``wd.adam(1e-3, wd.Decoupled(0.01))`` is AdamW; ``wd.adam(1e-3, wd.L2(0.01))`` is Adam with L2. Every number, the
coefficient included, may be traced. `optimizer` takes a preconditioner of the user's own; the others are made of
optax's, together with what each can say of itself: its diagonal D for proximal steps, its second moments, or why it
has none.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from weightdecay.core import tree
from weightdecay.core.types import Mask, MaskFn, Params, PyTree, Scalar, Schedule
from weightdecay.decay import masks, preconditioners
from weightdecay.decay.registry import Rule
from weightdecay.decay.transformation import Base, Placed, Rate, join, placed

_NO_MOMENTS = "keeps no second moments of the gradients. Take wd.adam, wd.rmsprop or wd.lamb, or wd.Decoupled here."
_NO_DIAGONAL = (
    "so a proximal map has no metric to be taken in. Take wd.sgd, wd.adam or wd.rmsprop, or another rule here."
)


def optimizer(
    base: optax.GradientTransformation,
    learning_rate: Scalar | Schedule,
    decay: Rule | Sequence[Rule],
    mask: Mask | MaskFn = masks.kernels,
    *,
    metric: Callable[[Any], PyTree] | None = None,
    second_moments: Callable[[Any], PyTree] | None = None,
    peak_learning_rate: Scalar | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Join a preconditioner to a decay rule.

    Args:
      base: Turns gradients g into a direction u, such as `optax.scale_by_adam` or `optax.trace`: without learning rate
        and without sign.
      learning_rate: η >= 0, shape ``()``, weight² / loss for SGD and weight for Adam; or a schedule ``step -> η``.
      decay: The rule, or several in a tuple; coefficients may be traced, trees, `PerLayer` or schedules.
      mask: Which weights decay: True = decays, a pytree prefix of the weights or a function that makes one. A rule in
        `Masked` has its own.
      metric: Diagonal D of the preconditioner, ``metric(base_state) -> tree`` in the structure of the weights, after
        ``base`` took its step: u = g / D under a steady gradient. Proximal rules need it where ``base`` has a memory
        (momentum, second moments). None: D = 1.
      second_moments: v̂, ``second_moments(base_state) -> tree`` in the structure of the weights; `Stable` needs it.
      peak_learning_rate: Largest η of a schedule, shape ``()``; `Independent` and `Corrected` need it beside one.

    Returns:
      An optax transformation; ``update`` needs ``params``, and its updates go to `optax.apply_updates`.

    Raises:
      TypeError: ``decay`` is no rule, or a coefficient or the learning rate is no number.
      ValueError: A negative or non-finite number; a mask that selects nothing; a rule that needs of the base what it
        does not have.

    References:
      The rule's own; see `weightdecay.decay`.

    Examples:
      >>> from weightdecay import decay as rules
      >>> step = optimizer(optax.scale_by_rms(), 1e-2, rules.Decoupled(0.1))
      >>> params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
      >>> updates, state = step.update(jax.tree.map(jnp.zeros_like, params), step.init(params), params)
      >>> float(updates["kernel"][0, 0]), float(updates["bias"][0])
      (-0.0010000000474974513, -0.0)
    """
    if not (hasattr(base, "init") and hasattr(base, "update")):
        raise TypeError(
            f"base is {base!r}, of type {type(base).__name__}; give an optax transformation, such as "
            "optax.scale_by_adam(): the call's result, not the function."
        )
    for name, function in {"metric": metric, "second_moments": second_moments}.items():
        if function is not None and not callable(function):
            raise TypeError(
                f"{name} is {function!r}, of type {type(function).__name__}; give a function of base's state."
            )
    known = Base(base, metric, second_moments)
    return join(known, [Rate(learning_rate, peak_learning_rate)], placed(decay, mask))


def sgd(
    learning_rate: Scalar | Schedule,
    decay: Rule | Sequence[Rule],
    momentum: Scalar = 0.0,
    nesterov: bool = False,
    *,
    mask: Mask | MaskFn = masks.kernels,
    peak_learning_rate: Scalar | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Stochastic gradient descent with a decay rule.

    ``m <- momentum m + g``, ``u = m``, or ``g + momentum m`` with Nesterov, as in torch. Beside momentum `L2` and
    `Decoupled` differ: `L2` reaches the weights through the momentum, at the slow rate η c / (1 - momentum). A steady
    gradient adds up to g / (1 - momentum), so a proximal rule takes its map with D = 1 - momentum: its minimizer is
    the same at any momentum.

    Args:
      learning_rate: η >= 0, shape ``()``, weight² / loss; or a schedule.
      decay: The rule, or several in a tuple.
      momentum: In [0, 1), shape ``()``; may be traced.
      nesterov: Whether to look ahead.
      mask: Which weights decay.
      peak_learning_rate: Largest η of a schedule; `Independent` and `Corrected` need it beside one.

    Returns:
      An optax transformation.

    Raises:
      TypeError: As `optimizer`.
      ValueError: As `optimizer`; `Stable`, for which SGD keeps no second moments.

    References:
      Sutskever et al., On the Importance of Initialization and Momentum in Deep Learning, 2013.
    """
    _check_flag(nesterov)
    _check_shares(momentum=momentum)
    base = Base(
        optax.trace(decay=momentum, nesterov=nesterov),  # pyright: ignore[reportArgumentType]
        metric=lambda state: jax.tree.map(lambda _: 1 - momentum, state.trace),
        lacks={"second_moments": f"SGD {_NO_MOMENTS}"},
    )
    return join(base, [Rate(learning_rate, peak_learning_rate)], placed(decay, mask))


def adam(
    learning_rate: Scalar | Schedule,
    decay: Rule | Sequence[Rule],
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    *,
    mask: Mask | MaskFn = masks.kernels,
    peak_learning_rate: Scalar | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Adam with a decay rule; a proximal rule takes its step in Adam's own metric.

    ``m <- b1 m + (1 - b1) g``, ``v <- b2 v + (1 - b2) g²``, ``D = sqrt(v_hat) + eps``, ``u = m_hat / D``.

    Args:
      learning_rate: η >= 0, shape ``()``, weight; or a schedule.
      decay: The rule, or several in a tuple: `Decoupled` makes AdamW, `L2` makes Adam with L2, and they are different
        methods.
      b1: Decay of the first moment, in [0, 1), shape ``()``; may be traced.
      b2: Decay of the second moment, in [0, 1), shape ``()``; may be traced.
      eps: > 0, shape ``()``, unit of the gradient; may be traced.
      mask: Which weights decay.
      peak_learning_rate: Largest η of a schedule; `Independent` and `Corrected` need it beside one.

    Returns:
      An optax transformation.

    Raises:
      TypeError: As `optimizer`.
      ValueError: As `optimizer`.

    Numerics:
      Bit for bit `optax.scale_by_adam`; but a gradient that is exactly 0 keeps `jax.grad` through the steps finite.

    References:
      Kingma & Ba, Adam: A Method for Stochastic Optimization, 2015, arXiv 1412.6980.

    Examples:
      >>> from weightdecay import decay as rules
      >>> adamw = adam(1e-3, rules.Decoupled(0.01))
      >>> adam_with_l2 = adam(1e-3, rules.L2(0.01))
    """
    _check_shares(b1=b1, b2=b2)
    _check_eps(eps)
    base = Base(
        preconditioners.scale_by_adam(b1, b2, eps),
        metric=lambda state: preconditioners.adam_metric(state, b2, eps),
        second_moments=lambda state: optax.tree.bias_correction(state.nu, b2, state.count),
    )
    return join(base, [Rate(learning_rate, peak_learning_rate)], placed(decay, mask))


def lion(
    learning_rate: Scalar | Schedule,
    decay: Rule | Sequence[Rule],
    b1: Scalar = 0.9,
    b2: Scalar = 0.99,
    *,
    mask: Mask | MaskFn = masks.kernels,
    peak_learning_rate: Scalar | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Lion with a decay rule: the step is a sign, so every weight moves by η.

    ``u = sign(b1 m + (1 - b1) g)``, ``m <- b2 m + (1 - b2) g``. `Decoupled` makes `optax.lion`.

    Args:
      learning_rate: η >= 0, shape ``()``, weight; or a schedule.
      decay: The rule, or several in a tuple.
      b1: Share of the momentum in the step, in [0, 1), shape ``()``; may be traced.
      b2: Decay of the momentum, in [0, 1), shape ``()``; may be traced.
      mask: Which weights decay.
      peak_learning_rate: Largest η of a schedule; `Independent` and `Corrected` need it beside one.

    Returns:
      An optax transformation.

    Raises:
      TypeError: As `optimizer`.
      ValueError: As `optimizer`; proximal rules, for which a sign has no metric, and `Stable`.

    References:
      Chen et al., Symbolic Discovery of Optimization Algorithms, 2023, arXiv 2302.06675.
    """
    _check_shares(b1=b1, b2=b2)
    base = Base(
        optax.scale_by_lion(b1, b2),  # pyright: ignore[reportArgumentType]
        lacks={
            "metric": f"Lion's step is a sign, whatever the size of the gradient, {_NO_DIAGONAL}",
            "second_moments": f"Lion {_NO_MOMENTS}",
        },
    )
    return join(base, [Rate(learning_rate, peak_learning_rate)], placed(decay, mask))


def rmsprop(
    learning_rate: Scalar | Schedule,
    decay: Rule | Sequence[Rule],
    b2: Scalar = 0.99,
    eps: Scalar = 1e-8,
    momentum: Scalar = 0.0,
    *,
    mask: Mask | MaskFn = masks.kernels,
    peak_learning_rate: Scalar | None = None,
) -> optax.GradientTransformationExtraArgs:
    """RMSprop with a decay rule; a proximal rule takes its step in RMSprop's own metric.

    ``v <- b2 v + (1 - b2) g²``, ``u <- momentum u + g / (sqrt(v) + eps)``, as in torch, whose ``alpha`` is b2.

    Args:
      learning_rate: η >= 0, shape ``()``, weight; or a schedule.
      decay: The rule, or several in a tuple.
      b2: Decay of the second moment, in [0, 1), shape ``()``; may be traced.
      eps: > 0, shape ``()``, unit of the gradient; may be traced.
      momentum: In [0, 1), shape ``()``; may be traced.
      mask: Which weights decay.
      peak_learning_rate: Largest η of a schedule; `Independent` and `Corrected` need it beside one.

    Returns:
      An optax transformation.

    Raises:
      TypeError: As `optimizer`.
      ValueError: As `optimizer`.

    References:
      Tieleman & Hinton, Neural Networks for Machine Learning, lecture 6.5, 2012.
    """
    _check_shares(b2=b2, momentum=momentum)
    _check_eps(eps)

    def metric(state: Any) -> Params:
        return jax.tree.map(lambda v: (preconditioners.sqrt(v) + eps) * (1 - momentum), state[0].nu)

    base = Base(
        optax.chain(preconditioners.scale_by_rms(b2, eps), optax.trace(decay=momentum)),  # pyright: ignore[reportArgumentType]
        metric=metric,
        second_moments=lambda state: state[0].nu,
    )
    return join(base, [Rate(learning_rate, peak_learning_rate)], placed(decay, mask))


def lamb(
    learning_rate: Scalar | Schedule,
    decay: Rule | Sequence[Rule],
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-6,
    *,
    mask: Mask | MaskFn = masks.kernels,
    peak_learning_rate: Scalar | None = None,
) -> optax.GradientTransformationExtraArgs:
    """LAMB with a decay rule: Adam's direction, scaled in each array to the norm of its weights.

    ``u = (|w| / |a|) a``, a = m_hat / (sqrt(v_hat) + eps). Every rule keeps its formula here, so `Decoupled` shrinks by
    η c beside the step. LAMB as published, and `optax.lamb`, add c w to a before the scaling: what such a decay takes
    off depends on the norms, and zero gradients shrink the weights by η whatever c is.

    Args:
      learning_rate: η >= 0, shape ``()``, a number without unit; or a schedule.
      decay: The rule, or several in a tuple.
      b1: Decay of the first moment, in [0, 1), shape ``()``; may be traced.
      b2: Decay of the second moment, in [0, 1), shape ``()``; may be traced.
      eps: > 0, shape ``()``, unit of the gradient; may be traced.
      mask: Which weights decay.
      peak_learning_rate: Largest η of a schedule; `Independent` and `Corrected` need it beside one.

    Returns:
      An optax transformation.

    Raises:
      TypeError: As `optimizer`.
      ValueError: As `optimizer`.

    References:
      You et al., Large Batch Optimization for Deep Learning: Training BERT in 76 Minutes, 2020, arXiv 1904.00962.
    """
    _check_shares(b1=b1, b2=b2)
    _check_eps(eps)

    def metric(state: Any) -> Params:
        return jax.tree.map(lambda d, ratio: d / ratio, preconditioners.adam_metric(state[0], b2, eps), state[1])

    base = Base(
        optax.chain(preconditioners.scale_by_adam(b1, b2, eps), preconditioners.scale_by_trust_ratio()),
        metric=metric,
        second_moments=lambda state: optax.tree.bias_correction(state[0].nu, b2, state[0].count),
    )
    return join(base, [Rate(learning_rate, peak_learning_rate)], placed(decay, mask))


def muon(
    learning_rate: Scalar | Schedule,
    decay: Rule | Sequence[Rule],
    momentum: Scalar = 0.95,
    nesterov: bool = True,
    *,
    matrices: Mask | MaskFn = masks.kernels,
    adam_learning_rate: Scalar | Schedule | None = None,
    adam_decay: Rule | Sequence[Rule] | None = None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    mask: Mask | MaskFn = masks.kernels,
    peak_learning_rate: Scalar | None = None,
    adam_peak_learning_rate: Scalar | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Muon for the matrices and Adam for all other weights, each with a decay rule.

    A matrix moves by its orthogonalized momentum: ``m <- momentum m + g``, ``u = √max(1, outputs / inputs)
    NewtonSchulz(g + momentum m)``, as in torch and in the author's code; `optax.contrib.muon` corrects the bias
    of m and so takes other first steps. A kernel of more than two dimensions is flattened to inputs times outputs.

    Args:
      learning_rate: η >= 0, shape ``()``, weight; or a schedule; for the matrices.
      decay: The rule for the matrices, or several in a tuple.
      momentum: In [0, 1), shape ``()``; may be traced.
      nesterov: Whether to look ahead.
      matrices: Which weights Muon moves, all of at least two dimensions. The author gives the last layer to Adam too:
        ``wd.masks.hidden``.
      adam_learning_rate: For all other weights; None = as for the matrices.
      adam_decay: The rule for those of them that decay; None = as for the matrices.
      b1: Adam's, as in `adam`.
      b2: Adam's, as in `adam`.
      eps: Adam's, as in `adam`.
      mask: Which weights decay, among the matrices and among the others.
      peak_learning_rate: Largest η of a schedule; `Independent` and `Corrected` need it beside one.
      adam_peak_learning_rate: The same of ``adam_learning_rate``.

    Returns:
      An optax transformation.

    Raises:
      TypeError: As `optimizer`.
      ValueError: As `optimizer`; proximal rules on matrices, for which an orthogonal step has no metric; a matrix
        of fewer than two dimensions.

    References:
      Jordan et al., Muon: An Optimizer for Hidden Layers in Neural Networks, 2024.
    """
    _check_flag(nesterov)
    _check_shares(momentum=momentum, b1=b1, b2=b2)
    _check_eps(eps)

    def labels(params: Params) -> PyTree:
        chosen = masks.resolve(matrices, params)
        leaves, structure = jax.tree.flatten(params)
        flat = next((leaf for leaf, one in zip(leaves, chosen, strict=True) if one and jnp.ndim(leaf) < 2), None)
        if flat is not None:
            raise ValueError(
                f"matrices selects an array of shape {jnp.shape(flat)}; Muon moves arrays of at least two dimensions."
            )
        return structure.unflatten(["muon" if is_matrix else "adam" for is_matrix in chosen])

    def only(label: str, given: list[Placed]) -> list[Placed]:
        def here(decays: Callable[[Params], list[bool]], params: Params) -> list[bool]:
            return [a and b == label for a, b in zip(decays(params), jax.tree.leaves(labels(params)), strict=True)]

        return [Placed(rule, functools.partial(here, decays)) for rule, decays in given]

    def adam_state(state: Any) -> Any:
        return state.inner_states["adam"].inner_state

    base = Base(
        optax.partition(
            {
                "muon": optax.chain(
                    optax.trace(decay=momentum, nesterov=nesterov),  # pyright: ignore[reportArgumentType]
                    optax.stateless(lambda updates, _: preconditioners.orthogonalize(updates)),
                ),
                "adam": preconditioners.scale_by_adam(b1, b2, eps),
            },
            labels,
        ),
        metric=lambda state: preconditioners.adam_metric(adam_state(state), b2, eps),
        second_moments=lambda state: optax.tree.bias_correction(adam_state(state).nu, b2, adam_state(state).count),
    )
    rates = [Rate(learning_rate, peak_learning_rate)]
    if adam_learning_rate is None:
        rates = 2 * rates
    else:
        rates.append(Rate(adam_learning_rate, adam_peak_learning_rate, "adam_peak_learning_rate"))
    everywhere = placed(decay, mask)
    apart = [] if adam_decay is None else only("adam", placed(adam_decay, mask, argument="adam_decay"))
    return join(
        base,
        rates,
        everywhere if adam_decay is None else only("muon", everywhere) + apart,
        rate_of=lambda params: [0 if label == "muon" else 1 for label in jax.tree.leaves(labels(params))],
    )


def _check_shares(**given: Any) -> None:
    for name, value in given.items():
        tree.check_number(value, name, "number from 0 to below 1", lambda number: 0 <= number < 1)


def _check_eps(eps: Any) -> None:
    tree.check_number(eps, "eps", "finite number >= 0", lambda number: 0 <= number < float("inf"))


def _check_flag(nesterov: Any) -> None:
    if not isinstance(nesterov, bool):
        raise TypeError(f"nesterov is {nesterov!r}, of type {type(nesterov).__name__}; give True or False.")
