"""What theory predicts for a member before it is trained: time scale, equilibrium rotation, degrees of freedom.

Next to what is measured (`weightdecay.training.diagnostics`), the predictions show whether a run was long enough for
its decay, and whether a network behaves as scale-invariant weights in equilibrium do. Where theory makes no prediction,
the number is nan.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from weightdecay.decay.base import Rule
from weightdecay.decay.declarations import Declaration, Rate, declaration
from weightdecay.decay.elementwise import ElementwiseRule, Terms
from weightdecay.decay.schedules import Parametric
from weightdecay.decay.touched import Touched

Steps = Float[np.ndarray, " steps"]


class Decayed(NamedTuple):
    """What decay does by itself at some steps."""

    time_scale: Steps  # steps
    rotation: Steps  # radians per step


def decayed(transformation: Any, steps: Sequence[int]) -> Decayed:
    """Time scale and equilibrium rotation of the decay of an optimizer.

    The time scale is ``τ = 1 / r`` steps, where r is the fraction of the weights that decay alone removes per step, as
    `Rule.removed_fraction` states it: ``η c`` for `Decoupled` (and for `Cautious`, of the weights that it acts on),
    ``s c`` for `Independent`, ``η s c`` for `Corrected` and, under SGD, ``η c / (1 - momentum)`` for `L2`. Under Adam,
    L2 has no time scale: what it removes depends on the gradients.

    The equilibrium rotation is the root mean square of the angle per step that a scale-invariant layer (one that is
    followed by a normalization) reaches under random gradients; it says nothing about other layers:
    ``√(2 r (1 - b1) / (1 + b1))`` under AdamW, ``√(2 η c / (1 + momentum))`` under SGD with L2.

    Args:
      transformation: An optimizer, such as `weightdecay.adam` returns it.
      steps: Numbers of steps taken, each >= 1.

    Returns:
      Both numbers at the last of so many steps; nan where they are not known: for several rules together, a rule with a
      mask of its own or on touched rows, coefficients or learning rates that are neither numbers nor schedules of
      `weightdecay.schedules`, and an optimizer that does not declare what it is, such as an `optax.chain`.

    References:
      Wang & Aitchison, How to set AdamW's weight decay as you scale model and dataset size, 2024, arXiv 2405.13698
      (time scale); Kosson et al., Rotational Equilibrium, 2023, arXiv 2305.17212 (rotation).

    Examples:
      >>> import weightdecay as wd
      >>> prediction = decayed(wd.adam(0.01, wd.Decoupled(0.1)), [1])
      >>> prediction.time_scale.round().tolist(), prediction.rotation.round(6).tolist()
      ([1000.0], [0.01026])
    """
    unknown = np.full(len(steps), math.nan)
    declared = declaration(transformation)
    if declared is None or len(declared.rules) != 1 or declared.rules[0].has_own_mask:
        return Decayed(unknown, unknown)
    if isinstance(declared.rules[0].rule, Touched):
        return Decayed(unknown, unknown)
    counts = np.asarray(steps) - 1
    rule, rates = _at_steps(declared.rules[0].rule, counts), _rates(declared.rates[0], counts)
    if rule is None or rates is None:
        return Decayed(unknown, unknown)
    learning_rate, scale = rates
    settings = declared.base.settings
    momentum = settings["momentum"] if declared.base.name == "sgd" else None
    removed = rule.removed_fraction(learning_rate, scale, momentum)
    if removed is None:
        return Decayed(unknown, unknown)
    removed = np.broadcast_to(np.asarray(removed, np.float64), learning_rate.shape)
    rotation = _rotation(declared, rule, learning_rate, removed)
    return Decayed(_inverse(removed), unknown if rotation is None else rotation)


def _rotation(declared: Declaration, rule: Rule, learning_rate: Steps, removed: Steps) -> Steps | None:
    """Equilibrium rotation, from the fraction that decay removes; None where it is not known."""
    if not isinstance(rule, ElementwiseRule | Terms):
        return None
    settings, l2 = declared.base.settings, rule.terms().l2
    if declared.base.name == "sgd" and l2 is not None and not settings["nesterov"]:
        return np.sqrt(2 * learning_rate * np.asarray(l2) / (1 + settings["momentum"]))
    if declared.base.name == "adam":
        return np.sqrt(2 * removed * (1 - settings["b1"]) / (1 + settings["b1"]))
    return None


def spectrum(inputs: Any, *, intercept: bool = True) -> Float[np.ndarray, " rank"]:
    """Squared singular values of the inputs of a linear model, without those that are 0 up to rounding.

    Args:
      inputs: Training inputs, shape ``(examples, features)``.
      intercept: Whether the model has a bias, in which case the inputs are centered.

    Returns:
      The squared singular values, as many as the rank.
    """
    x = np.asarray(inputs, np.float64)
    squares = np.linalg.svd(x - x.mean(axis=0) if intercept else x, compute_uv=False) ** 2
    return squares[squares > squares.max(initial=0.0) * len(x) * np.finfo(float).eps]


def degrees_of_freedom(
    inputs: Any,
    decay: Rule,
    *,
    num_nonzero: int | None = None,
    intercept: bool = True,
    squares: Float[np.ndarray, " rank"] | None = None,
) -> float:
    """Effective degrees of freedom of a linear model that is fitted by squared error, ``(prediction - target)²``.

    ``tr X (XᵀX + n c/2 I)⁻¹ Xᵀ`` for an L2 penalty c/2 |w|² added to the mean squared error over n examples; the number
    of non-zero weights for an L1 penalty; the rank of X without a penalty.

    Args:
      inputs: Training inputs X, shape ``(examples, features)``.
      decay: `NoDecay`, `L2`, `ProximalL2` or `ProximalL1` with a number as coefficient.
      num_nonzero: Number of weights of one output that are not exactly zero; used for L1 only.
      intercept: Whether the model has a bias, which is not penalized; it counts as one, and X is centered.
      squares: What `spectrum` returns for the inputs, if it is known already.

    Returns:
      The degrees of freedom for one output; nan for other rules.

    References:
      Hastie & Tibshirani, Generalized Additive Models, 1990; Zou, Hastie & Tibshirani, On the "degrees of freedom" of
      the lasso, 2007.

    Examples:
      >>> from weightdecay import decay
      >>> degrees_of_freedom(np.eye(4), decay.L2(0.5), intercept=False)  # each of four: 1 / (1 + 4 · 0.25)
      2.0
    """
    if not isinstance(decay, ElementwiseRule | Terms):
        return math.nan
    terms = {name: value for name, value in decay.terms().coefficients().items() if value is not None}
    if any(not isinstance(value, Real) for value in terms.values()):
        return math.nan
    positive = {name: float(value) for name, value in terms.items() if float(value) > 0}
    if set(positive) <= {"l2", "proximal_l2"} and len(positive) < 2:
        squares = spectrum(inputs, intercept=intercept) if squares is None else squares
        added = len(inputs) * sum(positive.values()) / 2
        return float((squares / (squares + added)).sum()) + intercept
    if set(positive) == {"proximal_l1"} and num_nonzero is not None:
        return float(num_nonzero + intercept)
    return math.nan


def _at_steps(rule: Rule, counts: np.ndarray) -> Rule | None:
    """The rule with the values of its coefficients at some counts; None where one of them has more than one value."""
    values = {name: _along(value, counts) for name, value in rule.coefficients().items() if value is not None}
    if not values or any(value is None for value in values.values()):
        return None
    return replace(rule, **values)  # pyright: ignore[reportArgumentType]


def _rates(rate: Rate, counts: np.ndarray) -> tuple[Steps, Steps] | None:
    """Learning rate, and learning rate over its peak, at some counts; None where it is not known."""
    values = _along(rate.learning_rate, counts)
    if values is None:
        return None
    known = rate.known_peak()
    peak = values.max(initial=0.0) if known is None else float(known)
    return values, np.divide(values, peak, out=np.full(values.shape, math.nan), where=peak != 0)


def _along(value: Any, counts: np.ndarray) -> Steps | None:
    """A number or a schedule at some counts; None for a tree of numbers and for other functions."""
    if isinstance(value, Parametric):
        return _scheduled(value, tuple(counts.tolist()))
    return np.full(counts.shape, float(value)) if isinstance(value, Real) else None


@functools.lru_cache(maxsize=1024)
def _scheduled(schedule: Parametric, counts: tuple[int, ...]) -> Steps:
    return np.array([float(schedule(count)) for count in counts])


def _inverse(fraction: Steps) -> Steps:
    return np.divide(1.0, fraction, out=np.full(fraction.shape, math.inf), where=fraction > 0)
