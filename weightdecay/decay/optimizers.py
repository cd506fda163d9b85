"""Optimizers with decay: any optax preconditioner joined to any rule, as an ordinary ``optax.GradientTransformation``.

``wd.adam(1e-3, wd.Decoupled(0.01))`` is AdamW; ``wd.adam(1e-3, wd.L2(0.01))`` is Adam with L2. Every number, including
the coefficient, may be traced. `optimizer` takes a preconditioner of the user's own; the others are made of those of
optax. Each declares the diagonal D of its preconditioner (for proximal steps) and its second moments, or why it does
not have them.
"""

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from weightdecay.core import tree
from weightdecay.core.checks import ArgumentError, ArgumentTypeError
from weightdecay.core.types import Mask, MaskFn, Params, PyTree, Scalar, Schedule
from weightdecay.decay import layout as layouts
from weightdecay.decay import masks, preconditioners
from weightdecay.decay.base import Rule
from weightdecay.decay.declarations import AppliedRule, Base, Rate, applied
from weightdecay.decay.layout import ArrayLayout, Layout
from weightdecay.decay.placement import PerLayer
from weightdecay.decay.transformation import join

_NO_MOMENTS = "does not keep second moments of the gradients. Use wd.adam, wd.rmsprop or wd.lamb, or wd.Decoupled here."
_NO_DIAGONAL = (
    "so its preconditioner has no diagonal to scale a proximal map with. Use wd.sgd, wd.adam or wd.rmsprop, or another "
    "rule here."
)


def optimizer(
    base: optax.GradientTransformation,
    learning_rate: Scalar | Schedule | PerLayer,
    decay: Rule | Sequence[Rule],
    mask: Mask | MaskFn = masks.kernels,
    *,
    preconditioner_diagonal: Callable[[Any], PyTree] | None = None,
    second_moments: Callable[[Any], PyTree] | None = None,
    peak_learning_rate: Scalar | None = None,
    metric: Callable[[Any], PyTree] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Join a preconditioner to a decay rule.

    Args:
      base: Turns gradients g into a direction u, such as `optax.scale_by_adam` or `optax.trace`: without learning rate
        and without sign.
      learning_rate: η >= 0, shape ``()``, weight² / loss for SGD and weight for Adam; a schedule
        ``step -> η``; or `PerLayer`.
      decay: The rule, or several in a tuple; coefficients may be traced, trees, `PerLayer` or schedules.
      mask: Which weights decay: True = decays, a pytree prefix of the weights or a function that makes one. A rule in
        `Masked` has its own mask.
      preconditioner_diagonal: Function ``base_state -> tree`` that returns the diagonal D of the preconditioner, in the
        structure of the weights, from the state after the step of ``base``: u = g / D under a steady gradient. Proximal
        rules need it if ``base`` has a memory (momentum, second moments). None: D = 1.
      second_moments: Function ``base_state -> tree`` that returns v̂, in the structure of the weights, for `Stable`.
      peak_learning_rate: Largest η of a schedule, shape ``()``; `Independent` and `Corrected` need it unless the
        schedule is one of `weightdecay.schedules`, which know it.
      metric: Old name of ``preconditioner_diagonal``.

    Returns:
      An optax transformation; ``update`` needs ``params``, and its updates go to `optax.apply_updates`.

    Raises:
      TypeError: ``decay`` is not a rule, or a coefficient or the learning rate is not a number.
      ValueError: A number is negative or not finite; the mask selects nothing; a rule requires something that ``base``
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
        raise ArgumentTypeError(
            "base",
            f"base is {base!r}, of type {type(base).__name__}; give an optax transformation, such as "
            "optax.scale_by_adam(): the result of the call, not the function.",
        )
    functions = {
        "preconditioner_diagonal": preconditioner_diagonal,
        "second_moments": second_moments,
        "metric": metric,
    }
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise ArgumentTypeError(
                name,
                f"{name} is {function!r}, of type {type(function).__name__}; give a function of the state of base.",
            )
    diagonal = metric if preconditioner_diagonal is None else preconditioner_diagonal
    known = Base(base, diagonal, second_moments)
    return join(known, [Rate(learning_rate, peak_learning_rate)], applied(decay, mask))


def sgd(
    learning_rate: Scalar | Schedule | PerLayer,
    decay: Rule | Sequence[Rule],
    momentum: Scalar = 0.0,
    nesterov: bool = False,
    *,
    mask: Mask | MaskFn = masks.kernels,
    peak_learning_rate: Scalar | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Stochastic gradient descent with a decay rule.

    ``m <- momentum m + g``, ``u = m``, or ``g + momentum m`` with Nesterov, as in torch. With momentum, `L2` and
    `Decoupled` differ: `L2` acts on the weights through the momentum and removes the fraction η c / (1 - momentum) per
    step. A steady gradient accumulates to g / (1 - momentum), so a proximal rule uses D = 1 - momentum, and its
    minimizer is the same at any momentum.

    Args:
      learning_rate: η >= 0, shape ``()``, weight² / loss; or a schedule, or `PerLayer`.
      decay: The rule, or several in a tuple.
      momentum: In [0, 1), shape ``()``; may be traced.
      nesterov: Whether to use Nesterov momentum.
      mask: Which weights decay.
      peak_learning_rate: Largest η of a schedule; `Independent` and `Corrected` need it unless the schedule is one of
        `weightdecay.schedules`, which know it.

    Returns:
      An optax transformation.

    Raises:
      TypeError: See `optimizer`.
      ValueError: See `optimizer`; the rule is `Stable`, and SGD does not keep second moments.

    References:
      Sutskever et al., On the Importance of Initialization and Momentum in Deep Learning, 2013.
    """
    _check_flag(nesterov)
    _check_fractions(momentum=momentum)
    base = Base(
        optax.trace(decay=momentum, nesterov=nesterov),  # pyright: ignore[reportArgumentType]
        preconditioner_diagonal=lambda state: jax.tree.map(lambda _: 1 - momentum, state.trace),
        lacks={"second_moments": f"SGD {_NO_MOMENTS}"},
        name="sgd",
        settings={"momentum": momentum, "nesterov": nesterov},
    )
    return join(base, [Rate(learning_rate, peak_learning_rate)], applied(decay, mask))


def adam(
    learning_rate: Scalar | Schedule | PerLayer,
    decay: Rule | Sequence[Rule],
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    *,
    mask: Mask | MaskFn = masks.kernels,
    peak_learning_rate: Scalar | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Adam with a decay rule; the map of a proximal rule is scaled by Adam's preconditioner.

    ``m <- b1 m + (1 - b1) g``, ``v <- b2 v + (1 - b2) g²``, ``D = sqrt(v_hat) + eps``, ``u = m_hat / D``.

    Args:
      learning_rate: η >= 0, shape ``()``, weight; or a schedule, or `PerLayer`.
      decay: The rule, or several in a tuple. `Decoupled` makes AdamW and `L2` makes Adam with L2; these are different
        methods.
      b1: Decay of the first moment, in [0, 1), shape ``()``; may be traced.
      b2: Decay of the second moment, in [0, 1), shape ``()``; may be traced.
      eps: > 0, shape ``()``, unit of the gradient; may be traced.
      mask: Which weights decay.
      peak_learning_rate: Largest η of a schedule; `Independent` and `Corrected` need it unless the schedule is one of
        `weightdecay.schedules`, which know it.

    Returns:
      An optax transformation.

    Raises:
      TypeError: See `optimizer`.
      ValueError: See `optimizer`.

    Numerics:
      The bits of `optax.scale_by_adam`; but `jax.grad` through the steps stays finite if a gradient is exactly 0.

    References:
      Kingma & Ba, Adam: A Method for Stochastic Optimization, 2015, arXiv 1412.6980.

    Examples:
      >>> from weightdecay import decay as rules
      >>> adamw = adam(1e-3, rules.Decoupled(0.01))
      >>> adam_with_l2 = adam(1e-3, rules.L2(0.01))
    """
    _check_fractions(b1=b1, b2=b2)
    _check_eps(eps)
    base = Base(
        preconditioners.scale_by_adam(b1, b2, eps),
        preconditioner_diagonal=lambda state: preconditioners.adam_diagonal(state, b2, eps),
        second_moments=lambda state: optax.tree.bias_correction(state.nu, b2, state.count),
        name="adam",
        settings={"b1": b1},
    )
    return join(base, [Rate(learning_rate, peak_learning_rate)], applied(decay, mask))


def lion(
    learning_rate: Scalar | Schedule | PerLayer,
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
      learning_rate: η >= 0, shape ``()``, weight; or a schedule, or `PerLayer`.
      decay: The rule, or several in a tuple.
      b1: Weight of the momentum in the step, in [0, 1), shape ``()``; may be traced.
      b2: Decay of the momentum, in [0, 1), shape ``()``; may be traced.
      mask: Which weights decay.
      peak_learning_rate: Largest η of a schedule; `Independent` and `Corrected` need it unless the schedule is one of
        `weightdecay.schedules`, which know it.

    Returns:
      An optax transformation.

    Raises:
      TypeError: See `optimizer`.
      ValueError: See `optimizer`; the rule is proximal or `Stable`, and Lion has neither a diagonal preconditioner nor
        second moments.

    References:
      Chen et al., Symbolic Discovery of Optimization Algorithms, 2023, arXiv 2302.06675.
    """
    _check_fractions(b1=b1, b2=b2)
    base = Base(
        optax.scale_by_lion(b1, b2),  # pyright: ignore[reportArgumentType]
        lacks={
            "preconditioner_diagonal": f"the step of Lion is a sign, whatever the size of the gradient, {_NO_DIAGONAL}",
            "second_moments": f"Lion {_NO_MOMENTS}",
        },
        name="lion",
    )
    return join(base, [Rate(learning_rate, peak_learning_rate)], applied(decay, mask))


def rmsprop(
    learning_rate: Scalar | Schedule | PerLayer,
    decay: Rule | Sequence[Rule],
    b2: Scalar = 0.99,
    eps: Scalar = 1e-8,
    momentum: Scalar = 0.0,
    *,
    mask: Mask | MaskFn = masks.kernels,
    peak_learning_rate: Scalar | None = None,
) -> optax.GradientTransformationExtraArgs:
    """RMSprop with a decay rule; the map of a proximal rule is scaled by RMSprop's preconditioner.

    ``v <- b2 v + (1 - b2) g²``, ``u <- momentum u + g / (sqrt(v) + eps)``, as in torch, whose ``alpha`` is b2.

    Args:
      learning_rate: η >= 0, shape ``()``, weight; or a schedule, or `PerLayer`.
      decay: The rule, or several in a tuple.
      b2: Decay of the second moment, in [0, 1), shape ``()``; may be traced.
      eps: > 0, shape ``()``, unit of the gradient; may be traced.
      momentum: In [0, 1), shape ``()``; may be traced.
      mask: Which weights decay.
      peak_learning_rate: Largest η of a schedule; `Independent` and `Corrected` need it unless the schedule is one of
        `weightdecay.schedules`, which know it.

    Returns:
      An optax transformation.

    Raises:
      TypeError: See `optimizer`.
      ValueError: See `optimizer`.

    References:
      Tieleman & Hinton, Neural Networks for Machine Learning, lecture 6.5, 2012.
    """
    _check_fractions(b2=b2, momentum=momentum)
    _check_eps(eps)

    def diagonal(state: Any) -> Params:
        return jax.tree.map(lambda v: (preconditioners.sqrt(v) + eps) * (1 - momentum), state[0].nu)

    base = Base(
        optax.chain(preconditioners.scale_by_rms(b2, eps), optax.trace(decay=momentum)),  # pyright: ignore[reportArgumentType]
        preconditioner_diagonal=diagonal,
        second_moments=lambda state: state[0].nu,
        name="rmsprop",
    )
    return join(base, [Rate(learning_rate, peak_learning_rate)], applied(decay, mask))


def lamb(
    learning_rate: Scalar | Schedule | PerLayer,
    decay: Rule | Sequence[Rule],
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-6,
    *,
    mask: Mask | MaskFn = masks.kernels,
    peak_learning_rate: Scalar | None = None,
) -> optax.GradientTransformationExtraArgs:
    """LAMB with a decay rule: Adam's direction, scaled for each array to the norm of its weights.

    ``u = (|w| / |a|) a``, a = m_hat / (sqrt(v_hat) + eps). Every rule keeps its formula here, so `Decoupled` removes
    the fraction η c in addition to the step. LAMB as published, and `optax.lamb`, add c w to a before the scaling: what
    such a decay removes depends on the norms, and with zero gradients it shrinks the weights by η for any c.

    Args:
      learning_rate: η >= 0, shape ``()``, no unit; or a schedule, or `PerLayer`.
      decay: The rule, or several in a tuple.
      b1: Decay of the first moment, in [0, 1), shape ``()``; may be traced.
      b2: Decay of the second moment, in [0, 1), shape ``()``; may be traced.
      eps: > 0, shape ``()``, unit of the gradient; may be traced.
      mask: Which weights decay.
      peak_learning_rate: Largest η of a schedule; `Independent` and `Corrected` need it unless the schedule is one of
        `weightdecay.schedules`, which know it.

    Returns:
      An optax transformation.

    Raises:
      TypeError: See `optimizer`.
      ValueError: See `optimizer`.

    References:
      You et al., Large Batch Optimization for Deep Learning: Training BERT in 76 Minutes, 2020, arXiv 1904.00962.
    """
    _check_fractions(b1=b1, b2=b2)
    _check_eps(eps)

    def diagonal(state: Any) -> Params:
        return jax.tree.map(lambda d, ratio: d / ratio, preconditioners.adam_diagonal(state[0], b2, eps), state[1])

    base = Base(
        optax.chain(preconditioners.scale_by_adam(b1, b2, eps), preconditioners.scale_by_trust_ratio()),
        preconditioner_diagonal=diagonal,
        second_moments=lambda state: optax.tree.bias_correction(state[0].nu, b2, state[0].count),
        name="lamb",
    )
    return join(base, [Rate(learning_rate, peak_learning_rate)], applied(decay, mask))


def muon(
    learning_rate: Scalar | Schedule | PerLayer,
    decay: Rule | Sequence[Rule],
    momentum: Scalar = 0.95,
    nesterov: bool = True,
    *,
    matrices: Mask | MaskFn = masks.kernels,
    adam_learning_rate: Scalar | Schedule | PerLayer | None = None,
    adam_decay: Rule | Sequence[Rule] | None = None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    mask: Mask | MaskFn = masks.kernels,
    peak_learning_rate: Scalar | None = None,
    adam_peak_learning_rate: Scalar | None = None,
    layout: Layout | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Muon for the matrices and Adam for all other weights, each with a decay rule.

    The direction for a matrix is its orthogonalized momentum: ``m <- momentum m + g``, ``u = √max(1, outputs / inputs)
    NewtonSchulz(g + momentum m)``, as in torch and in the author's code; `optax.contrib.muon` corrects the bias of m,
    so its first steps differ. A kernel is taken as the matrix inputs × outputs that the layer multiplies by, whatever
    the layout of its array; of an array that stacks layers, each layer is a matrix of its own.

    Args:
      learning_rate: η >= 0 for the matrices, shape ``()``, weight; or a schedule, or `PerLayer`.
      decay: The rule for the matrices, or several in a tuple.
      momentum: In [0, 1), shape ``()``; may be traced.
      nesterov: Whether to use Nesterov momentum.
      matrices: Which weights Muon trains, all of at least two dimensions. The author trains the last layer with Adam
        too: ``wd.masks.hidden``.
      adam_learning_rate: η for all other weights; None = as for the matrices.
      adam_decay: The rule for those of the other weights that decay; None = as for the matrices.
      b1: Decay of Adam's first moment, in [0, 1).
      b2: Decay of Adam's second moment, in [0, 1).
      eps: Adam's epsilon, > 0.
      mask: Which weights decay, among the matrices and among the others.
      peak_learning_rate: Largest η of a schedule; `Independent` and `Corrected` need it unless the schedule is one of
        `weightdecay.schedules`, which know it.
      adam_peak_learning_rate: Largest η of ``adam_learning_rate``.
      layout: Layouts by patterns of names, such as ``{"w1": "out in"}``, for arrays whose layout is not known; see
        `weightdecay.decay.masks.describe`.

    Returns:
      An optax transformation.

    Raises:
      TypeError: See `optimizer`.
      ValueError: See `optimizer`; the rule for the matrices is proximal, and an orthogonalized step has no diagonal; a
        matrix has fewer than two dimensions.

    References:
      Jordan et al., Muon: An Optimizer for Hidden Layers in Neural Networks, 2024.
    """
    _check_flag(nesterov)
    _check_fractions(momentum=momentum, b1=b1, b2=b2)
    _check_eps(eps)

    def is_matrix(params: Params) -> list[bool]:
        selected = masks.resolve(matrices, params)
        for leaf, chosen in zip(jax.tree.leaves(params), selected, strict=True):
            if chosen and jnp.ndim(leaf) < 2:
                raise ArgumentError(
                    "matrices",
                    f"matrices selects an array of shape {jnp.shape(leaf)}; Muon trains arrays of at least two "
                    "dimensions.",
                )
        return selected

    def labels(params: Params) -> PyTree:
        return jax.tree.structure(params).unflatten(["muon" if chosen else "adam" for chosen in is_matrix(params)])

    def restricted(rules: list[AppliedRule], *, to_matrices: bool) -> list[AppliedRule]:
        """The same rules on the matrices alone, or on all other weights alone."""

        def decays(rule: AppliedRule, params: Params) -> list[bool]:
            return [
                decayed and chosen == to_matrices
                for decayed, chosen in zip(rule.decays(params), is_matrix(params), strict=True)
            ]

        return [rule._replace(decays=functools.partial(decays, rule)) for rule in rules]

    def adam_state(state: Any) -> Any:
        return state.inner_states["adam"].inner_state

    layouts.check(layout)

    def partition(arrays: Sequence[ArrayLayout]) -> optax.GradientTransformationExtraArgs:
        parts: dict[Hashable, optax.GradientTransformation] = {
            "muon": optax.chain(
                optax.trace(decay=momentum, nesterov=nesterov),  # pyright: ignore[reportArgumentType]
                optax.stateless(lambda updates, _: preconditioners.orthogonalize(updates, arrays)),
            ),
            "adam": preconditioners.scale_by_adam(b1, b2, eps),
        }
        return optax.with_extra_args_support(optax.partition(parts, labels))

    def update(updates: PyTree, state: Any, params: Params | None = None, **extra: Any) -> tuple[PyTree, Any]:
        described = zip(layouts.describe_arrays(params, layout), is_matrix(params), strict=True)
        return partition([array for array, chosen in described if chosen]).update(updates, state, params, **extra)

    base = Base(
        optax.GradientTransformationExtraArgs(partition([]).init, update),  # pyright: ignore[reportArgumentType]
        preconditioner_diagonal=lambda state: preconditioners.adam_diagonal(adam_state(state), b2, eps),
        second_moments=lambda state: optax.tree.bias_correction(adam_state(state).nu, b2, adam_state(state).count),
        name="muon",
    )
    rates = [Rate(learning_rate, peak_learning_rate)]
    if adam_learning_rate is not None:
        rates.append(Rate(adam_learning_rate, adam_peak_learning_rate, "adam_peak_learning_rate"))
    rules = applied(decay, mask)
    if adam_decay is not None:
        rules_of_adam = applied(adam_decay, mask, argument="adam_decay")
        rules = restricted(rules, to_matrices=True) + restricted(rules_of_adam, to_matrices=False)
    if len(rates) == 1:
        return join(base, rates, rules)
    return join(base, rates, rules, rate_of=lambda params: [0 if chosen else 1 for chosen in is_matrix(params)])


def _check_fractions(**fractions: Any) -> None:
    for name, value in fractions.items():
        tree.check_number(value, name, "number from 0 to below 1", lambda number: 0 <= number < 1)


def _check_eps(eps: Any) -> None:
    tree.check_number(eps, "eps", "finite number >= 0", lambda number: 0 <= number < float("inf"))


def _check_flag(nesterov: Any) -> None:
    if not isinstance(nesterov, bool):
        raise ArgumentTypeError(
            "nesterov", f"nesterov is {nesterov!r}, of type {type(nesterov).__name__}; give True or False."
        )
