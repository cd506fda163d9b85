"""Every decay rule by its name, what they add to the loss, and the check of what a user gives as one.

The rules stand in `coupled`, `decoupled` and `projected`, by where in a step they act; what a rule is stands in `rule`.
"""

from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from typing_extensions import override

from weightdecay.core import tree
from weightdecay.core.types import Mask, MaskFn, Params
from weightdecay.decay import masks
from weightdecay.decay.base import Rule, at_step, is_schedule
from weightdecay.decay.coupled import L1, L2, ElasticNet, Elimination, Huber, Orthogonal, Spectral, TowardAnchor
from weightdecay.decay.decoupled import Adaptive, Cautious, Corrected, Decoupled, Independent, Stable
from weightdecay.decay.elementwise import Plain, Terms
from weightdecay.decay.placement import Combined, Masked, PerLayer, leafwise, parts
from weightdecay.decay.projected import (
    Constrained,
    Lp,
    MaxNorm,
    NormControl,
    ProximalElasticNet,
    ProximalGroupLasso,
    ProximalL1,
    ProximalL2,
    SelectiveProjection,
)

__all__ = [
    "KINDS",
    "Combined",
    "Masked",
    "NoDecay",
    "PerLayer",
    "Rule",
    "Terms",
    "at_step",
    "check",
    "combined",
    "parts",
    "penalty",
]


@tree.dataclass
class NoDecay(Plain):
    """No decay: the base optimizer, bit for bit.

    ``w <- w - η u``
    """

    @override
    def terms(self) -> Terms:
        return Terms()


KINDS: dict[str, type[Rule]] = {
    rule.__name__: rule
    for rule in (
        NoDecay,
        *(L2, L1, ElasticNet, Huber, Elimination, Orthogonal, Spectral, TowardAnchor),
        *(Decoupled, Independent, Corrected, Cautious, Stable, Adaptive),
        *(ProximalL1, ProximalL2, ProximalElasticNet, ProximalGroupLasso, Lp),
        *(MaxNorm, NormControl, Constrained, SelectiveProjection),
    )
}
"""Every rule by its name."""


def combined(decay: Rule | Sequence[Rule]) -> Rule:
    """One rule in place of several.

    Args:
      decay: A rule, or several in a tuple or list.

    Returns:
      The rule itself, or a `Combined`.
    """
    return Combined(tuple(decay)) if isinstance(decay, Sequence) else decay


def penalty(
    decay: Rule | Sequence[Rule],
    params: Params,
    mask: Mask | MaskFn = masks.kernels,
    *,
    state: Any = None,
    count: Any = 0,
) -> Any:
    """What decay adds to the data loss: the penalties with their coefficients.

    Args:
      decay: A rule, or several; coefficients may be traced.
      params: Weights.
      mask: Which weights decay.
      state: What the rules carry, ``optimizer_state.decay``; None where there is none at hand.
      count: Steps taken so far, for schedules.

    Returns:
      The penalty, shape ``()``, unit of the loss; 0 for rules that minimize nothing of their own (`Decoupled`,
      `Independent`, `MaxNorm` ...); nan for a rule toward the initial weights without its ``state``.
    """
    weights, structure = jax.tree.flatten(params)
    total = jnp.zeros(())
    for place, (rule, own) in enumerate(parts(at_step(decay, count))):
        decays = masks.resolve(mask if own is None else own, params) if rule.coefficients() else [False] * len(weights)
        own_state = None if state is None else state[place]
        carried = [None] * len(weights) if own_state is None else structure.flatten_up_to(own_state)
        for one, weight, here in zip(leafwise(rule, params, decays), weights, carried, strict=True):
            if one is None:
                continue
            if here is None and isinstance(one, TowardAnchor):
                here = jnp.full_like(weight, jnp.nan) if one.anchor is None else one.anchor
            total = total + one.penalty(weight, here)
    return total


def check(decay: Any, *, argument: str) -> None:
    """Refuse what is no rule, and coefficients that no rule allows; a traced coefficient passes unseen.

    Args:
      decay: What a user gave: a rule, or several in a tuple.
      argument: Where it was given, for the message.

    Raises:
      TypeError: Not a rule, or a coefficient that is no number.
      ValueError: A coefficient that is negative, infinite or nan.
    """
    if isinstance(decay, Combined | tuple | list):
        rules = decay.rules if isinstance(decay, Combined) else decay
        if not rules:
            raise ValueError(f"{argument} is empty; give rules, or wd.NoDecay().")
        for place, rule in enumerate(rules):
            if isinstance(rule, Combined | tuple | list):
                raise TypeError(f"{argument}[{place}] holds several rules itself; put all of them in one tuple.")
            check(rule, argument=f"{argument}[{place}]")
        return
    if isinstance(decay, Masked):
        check(decay.rule, argument=f"{argument}.rule")
        if decay.mask is None:
            raise TypeError(f"{argument}.mask is None; give a mask, or the rule alone for the optimizer's own mask.")
        if isinstance(decay.rule, Combined | Masked | tuple | list):
            raise TypeError(f"{argument}.rule is {decay.rule}; wd.Masked takes one rule: mask each on its own.")
        return
    if isinstance(decay, type) and issubclass(decay, Rule) and decay is not Rule:
        example = decay(*(0.01 for name in _needed(decay)))
        raise TypeError(f"{argument} is the kind {decay.__name__} without its coefficient; write wd.{example}.")
    if not isinstance(decay, Rule) or type(decay) in (Rule, Plain):
        raise TypeError(
            f"{argument} is {decay!r}, of type {type(decay).__name__}, which is no decay rule; give one of: "
            f"{', '.join(KINDS)}, for example wd.L2(0.01)."
        )
    positive = {one.name for one in fields(decay) if "positive" in one.metadata}  # pyright: ignore[reportArgumentType]
    optional = {one.name for one in fields(decay) if one.default is None}  # pyright: ignore[reportArgumentType]
    for name, value in decay.coefficients().items():
        where = f"{argument} = {decay}: {name}"
        if isinstance(value, PerLayer):
            for pattern, one in value.coefficients.items():
                if not jax.tree_util.all_leaves([one], is_leaf=callable):
                    raise TypeError(
                        f"{where}[{pattern}] is {one!r}, of type {type(one).__name__}; give one number >= 0, or a "
                        "schedule."
                    )
        leaves = tree.named_leaves(value)
        if not leaves and name not in optional:
            raise TypeError(f"{where} is {value!r}, of type {type(value).__name__}; give a number >= 0.")
        for leaf_name, leaf in leaves:
            _check_number(leaf, where + (f"[{leaf_name}]" if leaf_name else ""), above_zero=name in positive)
    decay.check(f"{argument} = {decay}: ")


def _needed(rule: type[Rule]) -> list[str]:
    """Names of the arguments that a kind cannot do without."""
    return [one.name for one in fields(rule) if one.default is MISSING]  # pyright: ignore[reportArgumentType]


def _check_number(value: Any, where: str, *, above_zero: bool) -> None:
    allowed = "> 0" if above_zero else ">= 0"
    if isinstance(value, Tracer) or is_schedule(value):
        return
    if not tree.is_real(value):
        raise TypeError(f"{where} is {value!r}, of type {type(value).__name__}; give a number {allowed}.")
    if np.ndim(value) > 0:
        raise ValueError(
            f"{where} is an array of shape {np.shape(value)}; give one number, or a tree with a number a layer. For "
            "many candidates give many rules, as wd.logspace makes them."
        )
    if not (tree.SMALLEST if above_zero else 0) <= tree.plain(value) <= tree.LARGEST:
        raise ValueError(f"{where} is {value}; a coefficient is a finite number {allowed}.")
