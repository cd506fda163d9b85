"""A preconditioner joined to decay rules: the update of one step, and what the result declares about itself.

The order of a step: gradient terms, preconditioner, shrinkage in addition to the step, moves after the step (see
`weightdecay.decay.base.Rule`). Every public optimizer is made with `join`.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.core import Tracer
from jaxtyping import Int

from weightdecay.core import tree
from weightdecay.core.checks import ArgumentError, ArgumentTypeError
from weightdecay.core.types import Mask, MaskFn, Params, PyTree, Scalar, Schedule
from weightdecay.decay import masks, registry, schedules
from weightdecay.decay.base import AllWeights, Rule, Step, at_step, is_schedule, preserve_bits, scheduled
from weightdecay.decay.elementwise import PROXIMAL_TERMS, SCHEDULE_TERMS, Terms
from weightdecay.decay.placement import leafwise, parts


class UnsupportedRuleError(ArgumentError):
    """A rule requires something of the base optimizer that it does not have."""


class DecayState(NamedTuple):
    """State of every optimizer of this library."""

    step: Int[Array, ""]  # number of steps taken; from 2^31 - 1 on it stays there
    base: PyTree
    decay: tuple[PyTree, ...]  # state of each rule, in the structure of the weights; None = no state


def rule_states(optimizer_state: PyTree) -> tuple[PyTree, ...] | None:
    """Find the state of the rules in the state of an optimizer, around which others may be wrapped.

    Args:
      optimizer_state: Any state with at most one `DecayState` in it.

    Returns:
      ``DecayState.decay``, or None where there is no such state.
    """
    nodes = jax.tree.leaves(optimizer_state, is_leaf=lambda node: isinstance(node, DecayState))
    return next((node.decay for node in nodes if isinstance(node, DecayState)), None)


class Rate(NamedTuple):
    """A learning rate with the peak of its schedule."""

    learning_rate: Scalar | Schedule
    peak: Scalar | None  # as the user passes it; None = that of the schedule, if it knows its peak
    peak_argument: str = "peak_learning_rate"  # name of the argument in which a user passes the peak

    def at_step(self, count: Any) -> tuple[Any, Any]:
        """Return η and s = η / peak at a step."""
        rate = self.learning_rate
        if callable(rate):
            rate = scheduled(rate, count, argument="learning_rate")
        peak = self.known_peak()
        if peak is None:
            return rate, 1.0
        # A schedule that is 0 throughout has the peak 0.
        return rate, rate / jnp.where(peak == 0, 1, peak) if self.peak is None else rate / peak

    def known_peak(self) -> Any:
        """Return the largest learning rate, as passed or as the schedule knows it; None = it is not known."""
        if self.peak is None and isinstance(self.learning_rate, schedules.Parametric):
            return self.learning_rate.peak()
        return self.peak

    @property
    def lacks_peak(self) -> bool:
        """Whether the learning rate is a schedule whose peak is not known."""
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


class DecayTransformation(optax.GradientTransformationExtraArgs):
    """An optax transformation that also carries a `Declaration`; what is wrapped around it does not."""

    declaration: Declaration


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


def join(
    base: Base,
    rates: Sequence[Rate],
    decay: Sequence[AppliedRule],
    *,
    rate_of: Callable[[Params], list[int]] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Join a preconditioner to decay rules; see `weightdecay.decay.optimizers`.

    Args:
      base: The preconditioner.
      rates: Learning rates.
      decay: The rules with their weights.
      rate_of: Index in ``rates`` for each array of the weights; None = the first.

    Returns:
      An optax transformation, which carries its `Declaration`.

    Raises:
      TypeError: See `weightdecay.optimizer`.
      ValueError: See `weightdecay.optimizer`.
    """
    for rate in rates:
        _check_learning_rate(rate.learning_rate)
        if rate.peak is not None:
            tree.check_number(rate.peak, rate.peak_argument, "number > 0", lambda number: 0 < number < math.inf)
    for applied_rule in decay:
        _check_needs(applied_rule.rule, base, rates)
    inner = optax.with_extra_args_support(base.transformation)
    # Anchors are part of the state from the first step on, so a compiled step need not hold them as constants.
    without_anchors = [one._replace(rule=_without_anchors(one.rule)) for one in decay]

    def leaf_rules(decay: Sequence[AppliedRule], params: Params, count: Any) -> list[list[Any]]:
        """Evaluate the rules at a step: for each rule, one rule or None per array of the weights."""
        return [
            leafwise(at_step(one.rule, count), params, one.decays(params))
            if one.rule.coefficients()
            else [None] * len(jax.tree.leaves(params))
            for one in decay
        ]

    def init(params: Params) -> DecayState:
        weights, structure = jax.tree.flatten(params)
        by_rule = leaf_rules(decay, params, 0)
        base_state = base.transformation.init(params)
        decay_states = []
        for rules in by_rule:
            _check_diagonal(rules, base, base_state, params)
            _check_second_moments(rules, base, base_state)
            # Copies, because an anchor may be the weights themselves, and a step that donates both cannot share them.
            states = [
                None if rule is None else jax.tree.map(jnp.copy, rule.initial(_array(w)))
                for rule, w in zip(rules, weights, strict=True)
            ]
            decay_states.append(structure.unflatten(states) if any(state is not None for state in states) else None)
        return DecayState(jnp.zeros((), jnp.int32), base_state, tuple(decay_states))

    def update(
        gradients: Any, state: DecayState, params: Params | None = None, **extra: Any
    ) -> tuple[Params, DecayState]:
        if params is None:
            raise ArgumentError(
                "params", "params is None; decay acts on the weights: call update(gradients, state, params)."
            )
        if not isinstance(state, DecayState):
            raise ArgumentTypeError(
                "state", f"state is of type {type(state).__name__}; give what init(params) or the last update returned."
            )
        leaves, structure = jax.tree.flatten(params)
        weights = [_array(leaf) for leaf in leaves]
        data_gradients = _leaves_like(structure, gradients, argument="gradients")
        _check_gradients(data_gradients, weights, params)
        by_rule = leaf_rules(without_anchors, params, state.step)
        decay_states = [
            [None] * len(weights) if states is None else structure.flatten_up_to(states) for states in state.decay
        ]
        calls = [
            (index, rule, states)
            for rules, states in zip(by_rule, decay_states, strict=True)
            for index, rule in enumerate(rules)
            if rule is not None
        ]

        # Before the step: gradient terms.
        joined = list(data_gradients)
        for index, rule, states in calls:
            term, states[index] = _returned(rule, "couple", rule.couple(weights[index], states[index]), weights[index])
            joined[index] = joined[index] if term is None else joined[index] + term
        joined = [g.astype(jnp.result_type(d)) for g, d in zip(map(_array, joined), data_gradients, strict=True)]
        directions, base_state = inner.update(structure.unflatten(joined), state.base, params, **extra)

        # The step.
        by_rate = [rate.at_step(state.step) for rate in rates]
        leaf_rates = [by_rate[index] for index in (rate_of(params) if rate_of is not None else [0] * len(weights))]
        directions = structure.flatten_up_to(directions)
        updates = [-rate * u for (rate, _), u in zip(leaf_rates, directions, strict=True)]
        at_leaf = zip(weights, data_gradients, directions, leaf_rates, strict=True)
        steps = _steps(base, base_state, structure, state.step, by_rule, list(at_leaf))

        # In addition to the step: shrinkage.
        for (index, rule, states), step in zip(calls, steps, strict=True):
            amount, states[index] = _returned(rule, "shrink", rule.shrink(step, states[index]), step.weight)
            updates[index] = updates[index] if amount is None else updates[index] - amount

        # After the step: moves.
        stepped = [w + u for w, u in zip(weights, updates, strict=True)]
        moved = list(stepped)
        for (index, rule, states), step in zip(calls, steps, strict=True):
            moved[index], states[index] = _returned(
                rule, "move", rule.move(moved[index], step, states[index]), step.weight
            )
        for index, weight in enumerate(weights):
            if moved[index] is not stepped[index]:
                # Weights that the move leaves in place keep the exact base update; a zero that it makes is exactly -w.
                updates[index] = preserve_bits(moved[index] == stepped[index], updates[index], moved[index] - weight)
            updates[index] = updates[index].astype(weight.dtype)

        after = tuple(
            None if before is None else structure.unflatten(states)
            for before, states in zip(state.decay, decay_states, strict=True)
        )
        return structure.unflatten(updates), DecayState(optax.safe_increment(state.step), base_state, after)

    transformation = DecayTransformation(init, update)  # pyright: ignore[reportArgumentType]
    transformation.declaration = Declaration(base, tuple(rates), tuple(decay))
    return transformation


def _without_anchors(rule: Rule) -> Rule:
    anchors = [one.name for one in dataclasses.fields(rule) if "anchor" in one.metadata]  # pyright: ignore[reportArgumentType]
    return dataclasses.replace(rule, **dict.fromkeys(anchors)) if anchors else rule  # pyright: ignore[reportArgumentType]


def _returned(rule: Rule, hook: str, returned: Any, weight: Array) -> tuple[Any, Any]:
    """What a hook returned, once it is known to be a pair whose first part fits the weights."""
    name = f"{rule.name}.{hook}"
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise TypeError(f"{name} returned {_kind_of(returned)}; return a pair of an array, or None, and the state.")
    value, state = returned
    if value is None and hook != "move":
        return None, state
    if not tree.is_real(value) or (hook == "move" and jnp.shape(value) != weight.shape):
        raise TypeError(f"{name} returned {_kind_of(value)} for weights of shape {weight.shape}; return their shape.")
    try:
        fits = jnp.broadcast_shapes(jnp.shape(value), weight.shape) == weight.shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"{name} returned {_kind_of(value)} for weights of shape {weight.shape}; return their shape.")
    return value, state


def _kind_of(value: Any) -> str:
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return f"an array of shape {jnp.shape(value)}" if hasattr(value, "shape") else f"{type(value).__name__}"


def _steps(
    base: Base,
    base_state: Any,
    structure: Any,
    count: Any,
    by_rule: list[list[Any]],
    leaves: list[tuple[Array, Any, Any, tuple[Any, Any]]],
) -> list[Step]:
    """What each rule sees of the step, for each array that it acts on.

    Args:
      base: The preconditioner.
      base_state: Its state after the step.
      structure: Structure of the weights.
      count: Number of steps before this one.
      by_rule: For each rule, one rule or None per array.
      leaves: Weight, data gradient, direction, and η with s, per array.
    """

    def column(function: Callable[[Any], PyTree] | None, argument: str) -> list[Any]:
        values = [None] * len(leaves)
        if function is not None:
            values = _leaves_like(structure, function(base_state), argument=f"the tree that {argument} returns")
        return [None if isinstance(value, optax.MaskedNode) else value for value in values]

    # At least as precise as the coefficients, whatever the dtype of the weights: η / D is small.
    diagonals = [
        d.astype(jnp.promote_types(jnp.float32, d.dtype)) if hasattr(d, "astype") else d
        for d in column(base.preconditioner_diagonal, "preconditioner_diagonal")
    ]
    second_moments = column(base.second_moments, "second_moments")
    steps = []
    for rules in by_rule:
        indices = [index for index, rule in enumerate(rules) if rule is not None]
        together = AllWeights([leaves[i][0] for i in indices], [leaves[i][1] for i in indices], second_moments)
        for index in indices:
            weight, gradient, direction, (rate, scale) = leaves[index]
            steps.append(Step(weight, gradient, direction, diagonals[index], rate, scale, count, together))
    return steps


def _check_needs(rule: Rule, base: Base, rates: Sequence[Rate]) -> None:
    needs, without = rule.needs, [rate for rate in rates if rate.lacks_peak]
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
    diagonals = _leaves_like(
        jax.tree.structure(params), shapes, argument="the tree that preconditioner_diagonal returns"
    )
    return [i for i in indices if diagonals[i] is None or isinstance(diagonals[i], optax.MaskedNode)]


def _check_diagonal(rules: list[Any], base: Base, base_state: Any, params: Params) -> None:
    """Refuse a proximal step where the diagonal of the preconditioner is not known."""
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


def _check_second_moments(rules: list[Any], base: Base, base_state: Any) -> None:
    """Refuse a rule that needs second moments where the base optimizer keeps them for none of the weights."""
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


def _check_learning_rate(learning_rate: Any) -> None:
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


def _check_gradients(gradients: list[Any], weights: list[Array], params: Params) -> None:
    for index, (gradient, weight) in enumerate(zip(gradients, weights, strict=True)):
        if jnp.shape(gradient) != weight.shape:
            leaf_name = tree.named_leaves(params)[index][0] or "an array"
            raise ArgumentError(
                "gradients",
                f"gradients have shape {jnp.shape(gradient)} for {leaf_name} of shape {weight.shape}; give the "
                "gradient of the loss with respect to these params.",
            )


def _leaves_like(structure: Any, given: Any, *, argument: str) -> list[Any]:
    """Subtrees of a tree at the leaves of the weights."""
    try:
        return structure.flatten_up_to(given)
    except (ValueError, TypeError) as error:
        raise ArgumentError(
            argument,
            f"{argument} does not fit the weights: {error} Give a tree in the structure of params: {structure}.",
        ) from error


def _array(leaf: Any) -> Any:
    return leaf if hasattr(leaf, "astype") else jnp.asarray(leaf)
