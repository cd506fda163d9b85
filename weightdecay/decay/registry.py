"""The rules by name, the check of what a user passes as decay, and the penalty that decay adds to the loss.

A rule of the library is one class in `coupled`, `decoupled` or `projected` and one entry in `KINDS` below; its unit,
formula, range on the command line and time scale are in the class, and every table reads them there. The rules that
users define are kept apart, in `USER_KINDS`.
"""

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from weightdecay.core import rule_facts, tree
from weightdecay.core.checks import ArgumentError, ArgumentTypeError
from weightdecay.core.types import Mask, MaskFn, Params
from weightdecay.decay import masks
from weightdecay.decay.base import Rule, at_step, is_schedule
from weightdecay.decay.coupled import L1, L2, ElasticNet, Elimination, Huber, Orthogonal, Spectral, TowardAnchor
from weightdecay.decay.decoupled import Adaptive, Cautious, Corrected, Decoupled, Independent, Stable
from weightdecay.decay.elementwise import ElementwiseRule, NoDecay, Terms
from weightdecay.decay.norms import Hyperball, RadialBrake, RelativeStep
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
from weightdecay.decay.sparing import ProximalHuber, ProximalMCP
from weightdecay.decay.touched import Touched, TouchedRows
from weightdecay.decay.toward import SODA, TowardAverage

KINDS: dict[str, type[Rule]] = {
    rule.__name__: rule
    for rule in (
        NoDecay,
        *(L2, L1, ElasticNet, Huber, Elimination, Orthogonal, Spectral, TowardAnchor),
        *(Decoupled, Independent, Corrected, Cautious, Stable, Adaptive, TowardAverage, SODA, RelativeStep),
        *(ProximalL1, ProximalL2, ProximalElasticNet, ProximalGroupLasso, ProximalHuber, ProximalMCP, Lp),
        *(MaxNorm, NormControl, Constrained, SelectiveProjection, Hyperball, RadialBrake),
    )
}
"""Every rule of the library by its name."""

USER_KINDS: dict[str, type[Rule]] = {}
"""The rules that users have defined with `weightdecay.decay.rule`, by name."""

OTHERS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (Rule, ElementwiseRule, Terms, Combined, Masked, PerLayer, Touched)
}
"""Classes of the library that are not kinds of decay by themselves, by name."""


class UnknownRuleError(ValueError):
    """A stored rule has the name of a class that is not defined in this process."""


def named(name: str, stored: Mapping[str, Any] | None = None) -> type[Rule]:
    """Look up a rule by its name: one of the library, or one that a user has defined in this process.

    Args:
      name: Name of the class.
      stored: Fields that a saved result has for it, by name; for the message.

    Returns:
      The class.

    Raises:
      UnknownRuleError: No such rule is defined.
    """
    kind = KINDS.get(name) or USER_KINDS.get(name) or (Combined if name == "Combined" else None)
    if kind is None:
        given = f", whose fields are {', '.join(stored)}," if stored else ","
        raise UnknownRuleError(
            f"decay is stored as the rule {name}{given} and no such rule is defined here. If it is a rule of your own, "
            f"define the class {name} under @wd.decay.rule, in this process, before you load the result."
        )
    return kind


def enter_facts(kind: type[Rule]) -> None:
    """Make the facts of a rule known to plots and labels.

    Args:
      kind: Class of the rule.
    """
    names = tuple(map(rule_facts.column, kind.coefficient_names()))

    def removed_fraction(learning_rate: Any) -> Any:
        return kind.from_one(1.0).removed_fraction(learning_rate, 1.0, None)

    is_known = len(names) == 1 and kind.required() == kind.coefficient_names() and removed_fraction(1.0) is not None
    units = {rule_facts.column(name): unit for name, unit in kind.units().items()}
    facts = rule_facts.RuleFacts(units, names, removed_fraction if is_known else None)
    rule_facts.enter(kind.__name__, facts)


for _kind in KINDS.values():
    enter_facts(_kind)


def formula(kind: type[Rule]) -> str:
    """One step under a rule, as a formula: the first one in the docstring of its class.

    Args:
      kind: Class of the rule.

    Returns:
      The formula; empty where the docstring has none.

    Examples:
      >>> formula(Decoupled)
      'w <- (1 - η c) w - η u'
    """
    found = re.search(r"``(.*?)``", " ".join((inspect.getdoc(kind) or "").split()))
    return found.group(1) if found else ""


def table(kinds: Mapping[str, type[Rule]] = KINDS) -> str:
    """Write a table of rules in Markdown, with formula, units and equivalents.

    Args:
      kinds: The rules by name; by default every rule of the library.

    Returns:
      The table, with one line per rule.

    Examples:
      >>> print(table({"L1": L1}))
      | rule | one step | unit of the coefficients | equals |
      |---|---|---|---|
      | `L1` | `g <- g + c sign(w)` | loss / weight | Keras `L1` |
    """
    lines = ["| rule | one step | unit of the coefficients | equals |", "|---|---|---|---|"]
    for name, kind in kinds.items():
        cells = (f"`{formula(kind)}`", ", ".join(kind.units().values()), kind.equals)
        lines.append(f"| `{name}` | " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def written(rule: Rule) -> str:
    """Write a rule as code: ``wd.L2(0.01)``, or ``Mine(0.01)`` for a rule of the user's own.

    Args:
      rule: Any rule.

    Returns:
      The code.
    """
    return f"wd.{rule}" if KINDS.get(type(rule).__name__) is type(rule) else str(rule)


def combined(decay: Rule | Sequence[Rule]) -> Rule:
    """Make one rule of several.

    Args:
      decay: A rule, or several in a tuple or list.

    Returns:
      The rule itself, or a `Combined`.
    """
    return decay if isinstance(decay, Rule) else Combined(tuple(decay))


def penalty(
    decay: Rule | Sequence[Rule],
    params: Params,
    mask: Mask | MaskFn = masks.kernels,
    *,
    state: Any = None,
    count: Any = 0,
) -> Any:
    """Penalty that decay adds to the data loss, with its coefficients.

    Args:
      decay: A rule, or several; coefficients may be traced.
      params: Weights.
      mask: Which weights decay.
      state: State of the rules, ``optimizer_state.decay``; None where the caller has none.
      count: Number of steps taken so far, for schedules.

    Returns:
      The penalty, shape ``()``, in units of the loss; 0 for rules that do not minimize a penalty (`Decoupled`,
      `Independent`, `MaxNorm` ...); nan for a rule toward the initial weights without its ``state``.
    """
    weights, structure = jax.tree.flatten(params)
    total = jnp.zeros(())
    for index, (rule, rule_mask) in enumerate(parts(at_step(decay, count))):
        chosen_mask = mask if rule_mask is None else rule_mask
        decays = [False] * len(weights) if isinstance(rule, NoDecay) else masks.resolve(chosen_mask, params)
        rule_state = None if state is None else state[index]
        states = [None] * len(weights) if rule_state is None else structure.flatten_up_to(rule_state)
        for leaf_rule, weight, leaf_state in zip(leafwise(rule, params, decays), weights, states, strict=True):
            if leaf_rule is None:
                continue
            inner = leaf_rule.rule if isinstance(leaf_rule, TouchedRows) else leaf_rule
            if leaf_state is None and isinstance(inner, TowardAnchor):
                leaf_state = jnp.full_like(weight, jnp.nan) if inner.anchor is None else inner.anchor
            value = leaf_rule.penalty(weight, leaf_state)
            if jnp.shape(value) != ():
                raise TypeError(
                    f"{rule.name}.penalty returned an array of shape {jnp.shape(value)}; return one number per array."
                )
            total = total + value
    return total


def check(decay: Any, *, argument: str) -> None:
    """Validate what a user passes as decay; a traced coefficient is not looked at.

    Args:
      decay: A rule, or several in a tuple.
      argument: Name of the argument, for the message.

    Raises:
      ArgumentTypeError: Not a rule, or a coefficient is not a number.
      ArgumentError: A coefficient is negative, infinite or nan.
    """
    if isinstance(decay, Combined | tuple | list):
        rules = decay.rules if isinstance(decay, Combined) else decay
        if not rules:
            raise ArgumentError(argument, f"{argument} is empty; give rules, or wd.NoDecay().")
        for index, rule in enumerate(rules):
            if isinstance(rule, Combined | tuple | list):
                raise ArgumentTypeError(
                    argument, f"{argument}[{index}] is a tuple of rules itself; put all rules into one tuple."
                )
            check(rule, argument=f"{argument}[{index}]")
    elif isinstance(decay, Masked):
        _check_masked(decay, argument)
    elif isinstance(decay, Touched):
        if isinstance(decay.rule, Combined | Masked | Touched | tuple | list):
            raise ArgumentTypeError(
                argument,
                f"{argument}.rule is {decay.rule}; wd.Touched takes one rule without a mask, as in "
                "wd.Masked(wd.Touched(wd.Decoupled(0.1)), wd.masks.everything).",
            )
        check(decay.rule, argument=f"{argument}.rule")
    else:
        _check_class(decay, argument)
        _check_coefficients(decay, argument)
        try:
            decay.check()
        except TypeError as error:
            raise ArgumentTypeError(argument, f"{argument} = {decay}: {error}") from error
        except ValueError as error:
            raise ArgumentError(argument, f"{argument} = {decay}: {error}") from error


def check_storable(rule: Rule, *, argument: str) -> None:
    """Refuse a rule that a saved result could not be read back as.

    Args:
      rule: A single rule without a mask.
      argument: Name of the argument, for the message.

    Raises:
      ArgumentTypeError: The class cannot be found by its name, or a static field holds something else than numbers,
        strings, True, False, None or tuples of these.
    """
    kind = type(rule)
    name = kind.__name__
    if (KINDS | USER_KINDS).get(name) is not kind:
        reason = (
            f"was made from an earlier definition of the class {name}; make it again, from the class as it is now"
            if name in USER_KINDS
            else f"is of the class {name}, which a saved result cannot find by its name; give one of: "
            f"{', '.join((*KINDS, *USER_KINDS))}"
        )
        raise ArgumentTypeError(argument, f"{argument} = {rule} {reason}.")
    for one in fields(rule):  # pyright: ignore[reportArgumentType]
        value = getattr(rule, one.name)
        if "static" in one.metadata and not _is_plain(value):
            raise ArgumentTypeError(
                argument,
                f"{argument} = {rule}: {one.name} is {value!r}, of type {type(value).__name__}, which a saved result "
                "cannot hold; give a number, a string, True, False, None or a tuple of these.",
            )


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def _check_masked(decay: Masked, argument: str) -> None:
    if isinstance(decay.rule, Combined | Masked | tuple | list):
        raise ArgumentTypeError(
            argument, f"{argument}.rule is {decay.rule}; wd.Masked takes one rule: mask each rule by itself."
        )
    check(decay.rule, argument=f"{argument}.rule")
    if decay.mask is None:
        raise ArgumentTypeError(
            argument, f"{argument}.mask is None; give a mask, or the rule alone for the mask of the optimizer."
        )


def _check_class(decay: Any, argument: str) -> None:
    """Refuse what is not an instance of a rule."""
    if isinstance(decay, type) and issubclass(decay, Rule) and decay not in (Rule, ElementwiseRule):
        _check_decorated(decay, argument)
        example = f"{decay.__name__}({', '.join('0.01' for _ in decay.required())})"
        prefix = "wd." if KINDS.get(decay.__name__) is decay else ""
        raise ArgumentTypeError(
            argument, f"{argument} is the class {decay.__name__} without a coefficient; write {prefix}{example}."
        )
    if not isinstance(decay, Rule) or type(decay) in (Rule, ElementwiseRule):
        raise ArgumentTypeError(
            argument,
            f"{argument} is {decay!r}, of type {type(decay).__name__}, which is not a decay rule; give one of: "
            f"{', '.join((*KINDS, *USER_KINDS))}, for example wd.L2(0.01).",
        )
    _check_decorated(type(decay), argument)


def _check_decorated(kind: type[Rule], argument: str) -> None:
    if "__dataclass_fields__" not in vars(kind):
        raise ArgumentTypeError(
            argument,
            f"{argument} is of the class {kind.__name__}, which lacks its decorator; write @wd.decay.rule "
            "above the class.",
        )


def _check_coefficients(decay: Rule, argument: str) -> None:
    by_name = {one.name: one for one in fields(decay)}  # pyright: ignore[reportArgumentType]
    for name, value in decay.coefficients().items():
        where = f"{argument} = {decay}: {name}"
        if isinstance(value, PerLayer):
            for pattern, number in value.coefficients.items():
                if not jax.tree_util.all_leaves([number], is_leaf=callable):
                    raise ArgumentTypeError(
                        argument,
                        f"{where}[{pattern}] is {number!r}, of type {type(number).__name__}; give one number >= 0, or "
                        "a schedule.",
                    )
        leaves = tree.named_leaves(value)
        if not leaves and by_name[name].default is not None:
            raise ArgumentTypeError(
                argument, f"{where} is {value!r}, of type {type(value).__name__}; give a number >= 0."
            )
        above_zero, at_most = (by_name[name].metadata.get(bound) for bound in ("positive", "at_most"))
        for leaf_name, leaf in leaves:
            at_leaf = where + (f"[{leaf_name}]" if leaf_name else "")
            _check_number(leaf, argument, at_leaf, above_zero=bool(above_zero), at_most=at_most)


def _check_number(value: Any, argument: str, where: str, *, above_zero: bool, at_most: float | None) -> None:
    allowed = "> 0" if above_zero else ">= 0" if at_most is None else f"from 0 to {at_most:g}"
    if isinstance(value, Tracer) or is_schedule(value):
        return
    if not tree.is_real(value):
        raise ArgumentTypeError(
            argument, f"{where} is {value!r}, of type {type(value).__name__}; give a number {allowed}."
        )
    if np.ndim(value) > 0:
        raise ArgumentError(
            argument,
            f"{where} is an array of shape {np.shape(value)}; give one number, or a tree with one number per layer. "
            "For many candidates give many rules, as wd.logspace makes them.",
        )
    largest = tree.LARGEST if at_most is None else at_most
    if not (tree.SMALLEST if above_zero else 0) <= tree.plain(value) <= largest:
        raise ArgumentError(argument, f"{where} is {value}; a coefficient is a finite number {allowed}.")
