"""What theory says of a member before it is trained: time scale of its decay, equilibrium rotation, degrees of freedom.

Beside what is measured (`weightdecay.training.diagnostics`) it tells whether a run was long enough for its decay, and
whether a network behaves as scale-invariant weights in equilibrium do. Where theory is silent, the number is nan.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from weightdecay.decay import optimizers
from weightdecay.decay.base import Rule
from weightdecay.decay.elementwise import Plain, Terms
from weightdecay.decay.placement import parts
from weightdecay.decay.schedules import Parametric

Steps = Float[np.ndarray, " steps"]


class Decayed(NamedTuple):
    """What decay does by itself at some steps."""

    time_scale: Steps  # in steps
    rotation: Steps  # radians a step


def decayed(member: Mapping[str, Any], optimizer: Callable[..., Any], steps: Sequence[int]) -> Decayed:
    """Time scale and equilibrium rotation of a member's decay.

    The time scale is ``τ = 1 / r`` with the share r that decay takes off the weights in a step: ``η c`` for
    `Decoupled`, ``s c`` for `Independent`, ``η s c`` for `Corrected` and, under plain or heavy-ball SGD,
    ``η c / (1 - momentum)`` for `L2`. Under Adam, L2 has none: what it takes off depends on the gradients.

    The equilibrium rotation is the root mean square of the angle a step at which a scale-invariant layer (one behind
    which a normalization stands) with random gradients comes to rest; of other layers it says nothing:
    ``√(2 r (1 - b1) / (1 + b1))`` under AdamW, ``√(2 η c / (1 + momentum))`` under SGD with L2.

    Args:
      member: Its hyperparameters by name.
      optimizer: What makes its optimizer, such as `weightdecay.adam`.
      steps: Steps taken, each >= 1.

    Returns:
      The two at the last of so many steps; nan where there are none.

    References:
      Wang & Aitchison, How to set AdamW's weight decay as you scale model and dataset size, 2024, arXiv 2405.13698
      (time scale); Kosson et al., Rotational Equilibrium, 2023, arXiv 2305.17212 (rotation).

    Examples:
      >>> from weightdecay import decay
      >>> told = decayed({"decay": decay.Decoupled(0.1), "learning_rate": 0.01}, optimizers.adam, [1])
      >>> told.time_scale.round().tolist(), told.rotation.round(6).tolist()
      ([1000.0], [0.01026])
    """
    silent = np.full(len(steps), math.nan)
    rule = parts(member["decay"])
    counts = np.asarray(steps) - 1
    if len(rule) != 1 or rule[0][1] is not None or not isinstance(rule[0][0], Plain | Terms):
        return Decayed(silent, silent)
    terms = {name: value for name, value in rule[0][0].terms().coefficients().items() if value is not None}
    rate = _along(member["learning_rate"], counts)
    if len(terms) != 1 or rate is None:
        return Decayed(silent, silent)
    (term, value), *_ = terms.items()
    coefficient = _along(value, counts)
    if coefficient is None:
        return Decayed(silent, silent)
    scale = rate / member["peak_learning_rate"] if "peak_learning_rate" in member else rate / rate.max(initial=0.0)
    if term == "l2" and optimizer is optimizers.sgd:
        momentum = member.get("momentum", 0.0)
        rotation = silent if member.get("nesterov") else np.sqrt(2 * rate * coefficient / (1 + momentum))
        return Decayed(_inverse(rate * coefficient / (1 - momentum)), rotation)
    shares = {"decoupled": rate, "independent": scale, "corrected": rate * scale}
    if term not in shares:
        return Decayed(silent, silent)
    share = shares[term] * coefficient
    b1 = member.get("b1", 0.9)
    rotation = np.sqrt(2 * share * (1 - b1) / (1 + b1)) if optimizer is optimizers.adam else silent
    return Decayed(_inverse(share), rotation)


def spectrum(inputs: Any, *, intercept: bool = True) -> Float[np.ndarray, " rank"]:
    """Squared singular values of the inputs of a linear model, those that are not 0 but for rounding.

    Args:
      inputs: Training inputs, shape ``(examples, features)``.
      intercept: Whether there is a bias, so that the inputs are centered.

    Returns:
      The values, as many as the rank.
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

    ``tr X (XᵀX + n c/2 I)⁻¹ Xᵀ`` for an L2 penalty c/2 |w|² beside the mean squared error over n examples; the number
    of weights that are not zero for an L1 penalty; the rank of X without a penalty.

    Args:
      inputs: Training inputs X, shape ``(examples, features)``.
      decay: `NoDecay`, `L2`, `ProximalL2` or `ProximalL1` with a number as coefficient.
      num_nonzero: Weights that are not exactly zero, of one output; for L1 alone.
      intercept: Whether there is a bias, which is not penalized; it counts as one, and X is centered.
      squares: What `spectrum` gives for the inputs, where it is at hand already.

    Returns:
      The number for one output; nan for other rules.

    References:
      Hastie & Tibshirani, Generalized Additive Models, 1990; Zou, Hastie & Tibshirani, On the "degrees of freedom" of
      the lasso, 2007.

    Examples:
      >>> from weightdecay import decay
      >>> degrees_of_freedom(np.eye(4), decay.L2(0.5), intercept=False)  # each of four: 1 / (1 + 4 · 0.25)
      2.0
    """
    if not isinstance(decay, Plain | Terms):
        return math.nan
    terms = {name: value for name, value in decay.terms().coefficients().items() if value is not None}
    if any(not isinstance(value, Real) for value in terms.values()):
        return math.nan
    named = {name: float(value) for name, value in terms.items() if float(value) > 0}
    if set(named) <= {"l2", "proximal_l2"} and len(named) < 2:
        squares = spectrum(inputs, intercept=intercept) if squares is None else squares
        added = len(inputs) * sum(named.values()) / 2
        return float((squares / (squares + added)).sum()) + intercept
    if set(named) == {"proximal_l1"} and num_nonzero is not None:
        return float(num_nonzero + intercept)
    return math.nan


def _along(value: Any, counts: np.ndarray) -> Steps | None:
    """A number or a schedule at these counts; None where it is a tree of several."""
    if isinstance(value, Parametric):
        return _scheduled(value, tuple(counts.tolist()))
    return np.full(counts.shape, float(value)) if isinstance(value, Real) else None


@functools.lru_cache(maxsize=1024)
def _scheduled(schedule: Parametric, counts: tuple[int, ...]) -> Steps:
    return np.array([float(schedule(count)) for count in counts])


def _inverse(share: Steps) -> Steps:
    return np.divide(1.0, share, out=np.full(share.shape, math.inf), where=share > 0)
