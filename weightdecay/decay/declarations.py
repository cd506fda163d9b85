"""What an optimizer declares about itself, and what decay rules require of it.

A rule may require the diagonal of the preconditioner, second moments of the gradients, or the peak of a learning-rate
schedule (`weightdecay.decay.base.Rule.needs`). An optimizer that lacks it refuses the rule, with the reason.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from weightdecay.core import tree
from weightdecay.core.checks import ArgumentError, ArgumentTypeError
from weightdecay.core.types import Mask, MaskFn, Params, PyTree, Scalar, Schedule
from weightdecay.decay import masks, registry, schedules
from weightdecay.decay.base import Rule, is_schedule, scheduled
from weightdecay.decay.elementwise import PROXIMAL_TERMS, SCHEDULE_TERMS, Terms
from weightdecay.decay.parametric import is_fraction
from weightdecay.decay.placement import PerLayer, parts
from weightdecay.decay.touched import Touched


class UnsupportedRuleError(ArgumentError):
    """A rule requires something of the base optimizer that it does not have."""


class Rate(NamedTuple):
    """A learning rate with the peak of its schedule."""

    learning_rate: Scalar | Schedule | PerLayer
    peak: Scalar | None  # as the user passes it; None = that of the schedule, if it knows its peak
    peak_argument: str = "peak_learning_rate"  # name of the argument in which a user passes the peak

    def at_step(self, count: Any) -> tuple[Any, Any]:
        """Return η and s = η / peak at a step."""
        rate: Any = self.learning_rate
        if callable(rate):
            rate = scheduled(rate, count, argument="learning_rate")
        peak = self.known_peak()
        if peak is None:
            return rate, 1.0
        # A schedule that is 0 throughout has the peak 0.
        return rate, rate / jnp.where(peak == 0, 1, peak) if self.peak is None else rate / peak

    def at_leaves(self, params: Params, trains: Sequence[bool], count: Any) -> list[tuple[Any, Any] | None]:
        """Return η and s = η / peak at a step for each array of the weights.

        Args:
          params: Weights.
          trains: Whether each leaf of ``params`` has this learning rate.
          count: Number of steps taken.

        Returns:
          A pair per leaf; None for a leaf with another learning rate.
        """
        if not isinstance(self.learning_rate, PerLayer):
            at_step = self.at_step(count)
            return [at_step if trained else None for trained in trains]
        by_pattern = {name: rate.at_step(count) for name, rate in self._by_pattern().items()}
        patterns = {pattern: pattern for pattern in self.learning_rate.coefficients}
        names = PerLayer(patterns, default=None if self.learning_rate.default is None else "")
        spread = names.spread(params, trains, argument="learning_rate", what="weight")
        if self.learning_rate.base_width is None:
            return [None if name is None else by_pattern[name] for name in spread]
        by_leaf = zip(spread, self.learning_rate.factors(params), strict=True)
        # The default has the empty name. Its peak is multiplied too, so that s stays what it is.
        rates = ((name, factor if name == "" else 1.0) for name, factor in by_leaf)
        return [None if name is None else (by_pattern[name][0] * f, by_pattern[name][1]) for name, f in rates]

    def _by_pattern(self) -> dict[str, "Rate"]:
        """Learning rates by the pattern of names; the default has the empty pattern."""
        assert isinstance(self.learning_rate, PerLayer)
        values = dict(self.learning_rate.coefficients)
        values |= {} if self.learning_rate.default is None else {"": self.learning_rate.default}
        return {name: self._replace(learning_rate=value) for name, value in values.items()}

    def known_peak(self) -> Any:
        """Return the largest learning rate, as passed or as the schedule knows it; None = it is not known."""
        if self.peak is None and isinstance(self.learning_rate, schedules.Parametric):
            return self.learning_rate.largest()
        return self.peak

    @property
    def lacks_peak(self) -> bool:
        """Whether the learning rate is a schedule whose peak is not known."""
        if isinstance(self.learning_rate, PerLayer):
            return any(rate.lacks_peak for rate in self._by_pattern().values())
        return callable(self.learning_rate) and self.known_peak() is None


class Base(NamedTuple):
    """A preconditioner with its name and settings, and what decay rules may require of it."""

    transformation: optax.GradientTransformation
    preconditioner_diagonal: Callable[[Any], PyTree] | None = None
    second_moments: Callable[[Any], PyTree] | None = None
    lacks: Mapping[str, str] = {}
    """Why it has no "preconditioner_diagonal" or no "second_moments", for the error message."""
    name: str = ""
    """Such as ``"adam"``; empty = a preconditioner of the user's own."""
    settings: Mapping[str, Any] = {}
    """Arguments such as b1 and momentum, by name."""


class AppliedRule(NamedTuple):
    """A rule together with the weights that it acts on."""

    rule: Rule
    decays: Callable[[Params], list[bool]]
    has_own_mask: bool = False


class Declaration(NamedTuple):
    """What an optimizer of this library declares about itself."""

    base: Base
    rates: tuple[Rate, ...]
    rules: tuple[AppliedRule, ...]

    def accepted_terms(self, params: Params) -> frozenset[str]:
        """Return the terms of `Terms` that the optimizer can apply to these weights.

        Args:
          params: Weights, or their shapes.
        """
        try:
            decays = [any(columns) for columns in zip(*(rule.decays(params) for rule in self.rules), strict=True)]
        except ValueError:
            # The mask does not fit these weights: a rule with coefficients is refused with the reason.
            return frozenset()
        accepted = frozenset(Terms().coefficients())
        if any(rate.lacks_peak for rate in self.rates):
            accepted -= SCHEDULE_TERMS
        return accepted if self._has_diagonal(params, decays) else accepted - PROXIMAL_TERMS

    def _has_diagonal(self, params: Params, decays: Sequence[bool]) -> bool:
        """Whether the base optimizer has a diagonal D for all of the weights that decay."""
        if "preconditioner_diagonal" in self.base.lacks:
            return False
        base_state = jax.eval_shape(self.base.transformation.init, params)
        if self.base.preconditioner_diagonal is None:
            return not _keeps_memory(base_state)
        indices = [index for index, decayed in enumerate(decays) if decayed]
        return not _leaves_without_diagonal(self.base, base_state, params, indices)


def declaration(transformation: Any) -> Declaration | None:
    """Return what an optimizer declares about itself.

    Args:
      transformation: What an optimizer function returned.

    Returns:
      The declaration; None for a transformation that is not made by this library alone, such as an `optax.chain`.
    """
    return getattr(transformation, "declaration", None)


def applied(decay: Rule | Sequence[Rule], mask: Mask | MaskFn, *, argument: str = "decay") -> list[AppliedRule]:
    """Rules together with the weights that a mask selects, or the mask of the rule.

    Args:
      decay: The rule, or several.
      mask: Which weights decay.
      argument: Name of the argument that holds the rule, for the message.

    Returns:
      The rules, each with its weights.

    Raises:
      TypeError: ``decay`` is not a rule.
      ValueError: A coefficient has a wrong value.
    """
    registry.check(decay, argument=argument)
    return [
        AppliedRule(
            rule, functools.partial(masks.resolve, mask if rule_mask is None else rule_mask), rule_mask is not None
        )
        for rule, rule_mask in parts(decay)
    ]


def check_needs(rule: Rule, base: Base, rates: Sequence[Rate]) -> None:
    """Refuse a rule where an optimizer is known not to have what the rule needs.

    Args:
      rule: The rule.
      base: The preconditioner.
      rates: Learning rates.

    Raises:
      UnsupportedRuleError: The optimizer lacks something.
    """
    rule = rule.rule if isinstance(rule, Touched) else rule
    needs, without = rule.needs, [rate for rate in rates if rate.lacks_peak]
    unknown = sorted(needs - {"preconditioner_diagonal", "second_moments", "peak_learning_rate"})
    if unknown:
        raise ArgumentTypeError(
            "decay",
            f"{rule.name}.needs has {unknown[0]!r}; an optimizer can have 'preconditioner_diagonal', 'second_moments' "
            "and 'peak_learning_rate'.",
        )
    for one in fields(rule):  # pyright: ignore[reportArgumentType]
        value = getattr(rule, one.name)
        if "steps" in one.metadata and is_fraction(value):
            raise ArgumentError(
                "decay",
                f"decay = {rule}: {one.name} is {value}, a fraction of the run; wd.fit_grid and wd.fit know how long a "
                f"run is. Elsewhere give steps, or the rule with .over(num_steps), as in wd.{rule}.over(1000).",
            )
    if "peak_learning_rate" in needs and without:
        raise UnsupportedRuleError(
            without[0].peak_argument,
            f"decay = {rule} together with a schedule needs the peak of the schedule: pass {without[0].peak_argument}, "
            "the largest learning rate, or use a schedule of wd.schedules, which knows its peak. A step decays in "
            "proportion to learning_rate / peak_learning_rate.",
        )
    for need in ("preconditioner_diagonal", "second_moments"):
        if need in needs and need in base.lacks:
            raise UnsupportedRuleError("decay", f"decay = {rule} does not work here: {base.lacks[need]}")
    if "second_moments" in needs and base.second_moments is None:
        raise UnsupportedRuleError(
            "decay",
            f"decay = {rule} needs the second moments of the gradients: use wd.adam, wd.rmsprop or wd.lamb, or pass "
            "second_moments=..., which returns them from the state of the base optimizer.",
        )


def _keeps_memory(base_state: Any) -> bool:
    """Whether a preconditioner has a state of real numbers, such as a momentum."""
    return any(jnp.issubdtype(jnp.result_type(leaf), jnp.floating) for leaf in jax.tree.leaves(base_state))


def _leaves_without_diagonal(base: Base, base_state: Any, params: Params, indices: Sequence[int]) -> list[int]:
    """Of some leaves, those for which the base optimizer has no diagonal D."""
    assert base.preconditioner_diagonal is not None
    shapes = jax.eval_shape(base.preconditioner_diagonal, base_state)
    diagonals = leaves_like(
        jax.tree.structure(params), shapes, argument="the tree that preconditioner_diagonal returns"
    )
    return [i for i in indices if diagonals[i] is None or isinstance(diagonals[i], optax.MaskedNode)]


def check_diagonal(rules: list[Any], base: Base, base_state: Any, params: Params) -> None:
    """Refuse a proximal step where the diagonal of the preconditioner is not known.

    Args:
      rules: One rule or None per array of the weights.
      base: The preconditioner.
      base_state: Its initial state.
      params: Weights.

    Raises:
      UnsupportedRuleError: The base optimizer has no diagonal for an array that the rule acts on.
    """
    asking = [index for index, rule in enumerate(rules) if rule is not None and "preconditioner_diagonal" in rule.needs]
    if not asking:
        return
    if base.preconditioner_diagonal is None:
        if _keeps_memory(base_state):
            raise UnsupportedRuleError(
                "decay",
                f"decay = {_family(rules[asking[0]])} takes a proximal step, and the base optimizer has a memory "
                "(momentum, moments): without the diagonal D of the preconditioner the step would have another "
                "minimizer. Use wd.sgd or wd.adam, or pass preconditioner_diagonal=..., which returns D from the state "
                "of the base optimizer: 1 - momentum, or sqrt(second moments) + eps.",
            )
        return
    without = _leaves_without_diagonal(base, base_state, params, asking)
    if without:
        names = [name for name, _ in tree.named_leaves(params)]
        raise UnsupportedRuleError(
            "decay",
            f"decay = {_family(rules[without[0]])} takes a proximal step, and the base optimizer has no diagonal D for "
            f"{', '.join(names[index] for index in without)}; use another rule there, in wd.Masked.",
        )


def check_second_moments(rules: list[Any], base: Base, base_state: Any) -> None:
    """Refuse a rule that needs second moments where the base optimizer does not keep them for any of the weights.

    Args:
      rules: One rule or None per array of the weights.
      base: The preconditioner.
      base_state: Its initial state.

    Raises:
      UnsupportedRuleError: The rule needs them, and there are none.
    """
    asking = [rule for rule in rules if rule is not None and "second_moments" in rule.needs]
    if asking and base.second_moments and not jax.tree.leaves(jax.eval_shape(base.second_moments, base_state)):
        raise UnsupportedRuleError(
            "decay",
            f"decay = {_family(asking[0])} needs the second moments of the gradients, and the base optimizer does not "
            "keep them for any of the weights; use wd.Decoupled here.",
        )


def _family(rule: Rule) -> str:
    """Name of the rule without coefficients; of a normal form, the names of the rules with these terms."""
    return str(rule).replace("(traced)", "") if isinstance(rule, Terms) else rule.name


def check_learning_rate(learning_rate: Any) -> None:
    """Validate a learning rate; a traced one, and the values of a function, are not looked at.

    Args:
      learning_rate: What a user passes.

    Raises:
      ArgumentTypeError: Not a number and not a schedule.
      ArgumentError: Negative or not finite.
    """
    if isinstance(learning_rate, PerLayer):
        for value in (*learning_rate.coefficients.values(), learning_rate.default):
            if value is not None:
                check_learning_rate(value)
        return
    if isinstance(learning_rate, schedules.Parametric):
        return schedules.check(learning_rate, argument="learning_rate")
    if is_schedule(learning_rate) or isinstance(learning_rate, Tracer):
        return
    if not tree.is_real(learning_rate) or jnp.ndim(learning_rate) > 0:
        raise ArgumentTypeError(
            "learning_rate", f"learning_rate is {learning_rate!r}; give one number >= 0, or a schedule."
        )
    if not 0 <= tree.plain(learning_rate) <= tree.LARGEST:
        raise ArgumentError("learning_rate", f"learning_rate is {learning_rate}; give a finite number >= 0.")


def leaves_like(structure: Any, given: Any, *, argument: str) -> list[Any]:
    """Subtrees of a tree at the leaves of the weights.

    Args:
      structure: Structure of the weights.
      given: A tree that has this structure down to the leaves.
      argument: What the tree is, for the message.

    Returns:
      One subtree per leaf.

    Raises:
      ArgumentError: The tree does not fit.
    """
    try:
        return structure.flatten_up_to(given)
    except (ValueError, TypeError) as error:
        raise ArgumentError(
            argument,
            f"{argument} does not fit the weights: {error} Give a tree in the structure of params: {structure}.",
        ) from error
