"""A preconditioner joined to decay rules: the update of one step.

The order of a step: gradient terms, preconditioner, shrinkage in addition to the step, moves after the step (see
`weightdecay.decay.base.Rule`). Every public optimizer is made with `join`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.core import Tracer
from jaxtyping import Int

from weightdecay.core import tree
from weightdecay.core.checks import ArgumentError, ArgumentTypeError
from weightdecay.core.types import Params, PyTree
from weightdecay.decay.base import AllWeights, Rule, Step, at_step, preserve_bits
from weightdecay.decay.declarations import (
    AppliedRule,
    Base,
    Declaration,
    Rate,
    check_diagonal,
    check_learning_rate,
    check_needs,
    check_second_moments,
    leaves_like,
)
from weightdecay.decay.elementwise import NoDecay
from weightdecay.decay.placement import changed, leafwise
from weightdecay.decay.touched import TouchedRows


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


class DecayTransformation(optax.GradientTransformationExtraArgs):
    """An optax transformation that also carries a `Declaration`; what is wrapped around it does not."""

    declaration: Declaration


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
        check_learning_rate(rate.learning_rate)
        if rate.peak is not None:
            tree.check_number(rate.peak, rate.peak_argument, "number > 0", lambda number: 0 < number < math.inf)
    for applied_rule in decay:
        check_needs(applied_rule.rule, base, rates)
    inner = optax.with_extra_args_support(base.transformation)
    # Anchors are part of the state from the first step on, so a compiled step need not hold them as constants.
    without_anchors = [one._replace(rule=changed(one.rule, anchor=lambda _: None)) for one in decay]

    def leaf_rules(decay: Sequence[AppliedRule], params: Params, count: Any) -> list[list[Any]]:
        """Evaluate the rules at a step: for each rule, one rule or None per array of the weights."""
        return [
            leafwise(at_step(one.rule, count), params, one.decays(params))
            if not isinstance(one.rule, NoDecay)
            else [None] * len(jax.tree.leaves(params))
            for one in decay
        ]

    def init(params: Params) -> DecayState:
        weights, structure = jax.tree.flatten(params)
        by_rule = leaf_rules(decay, params, 0)
        base_state = base.transformation.init(params)
        decay_states = []
        for rules in by_rule:
            check_diagonal(rules, base, base_state, params)
            check_second_moments(rules, base, base_state)
            # Copies, because an anchor may be the weights themselves, and a step that donates both cannot share them.
            states = [
                None if rule is None else jax.tree.map(_copied, rule.initial(_array(w)))
                for rule, w in zip(rules, weights, strict=True)
            ]
            _check_initial(rules, states, params)
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
        data_gradients = leaves_like(structure, gradients, argument="gradients")
        _check_gradients(data_gradients, weights, params)
        by_rule = leaf_rules(without_anchors, params, state.step)
        decay_states = [
            [None] * len(weights) if states is None else structure.flatten_up_to(states) for states in state.decay
        ]
        calls = [
            (index, rule.of_gradient(data_gradients[index]) if isinstance(rule, TouchedRows) else rule, states)
            for rules, states in zip(by_rule, decay_states, strict=True)
            for index, rule in enumerate(rules)
            if rule is not None
        ]

        # Before the step: gradient terms.
        joined = list(data_gradients)
        for index, rule, states in calls:
            returned = rule.couple(weights[index], states[index])
            term, states[index] = _returned(rule, "couple", returned, weights[index], states[index])
            joined[index] = joined[index] if term is None else joined[index] + term
        joined = [g.astype(jnp.result_type(d)) for g, d in zip(map(_array, joined), data_gradients, strict=True)]
        directions, base_state = inner.update(structure.unflatten(joined), state.base, params, **extra)

        # The step.
        rate_indices = rate_of(params) if rate_of is not None else [0] * len(weights)
        by_rate = [
            rate.at_leaves(params, [index == number for index in rate_indices], state.step)
            for number, rate in enumerate(rates)
        ]
        leaf_rates: list[Any] = [by_rate[index][leaf] for leaf, index in enumerate(rate_indices)]
        directions = structure.flatten_up_to(directions)
        updates = [-rate * u for (rate, _), u in zip(leaf_rates, directions, strict=True)]
        at_leaf = zip(weights, data_gradients, directions, leaf_rates, strict=True)
        steps = _steps(base, base_state, structure, state.step, by_rule, list(at_leaf))

        # In addition to the step: shrinkage.
        for (index, rule, states), step in zip(calls, steps, strict=True):
            returned = rule.shrink(step, states[index])
            amount, states[index] = _returned(rule, "shrink", returned, step.weight, states[index])
            updates[index] = updates[index] if amount is None else updates[index] - amount

        # After the step: moves.
        stepped = [w + u for w, u in zip(weights, updates, strict=True)]
        moved = list(stepped)
        for (index, rule, states), step in zip(calls, steps, strict=True):
            returned = rule.move(moved[index], step, states[index])
            moved[index], states[index] = _returned(rule, "move", returned, step.weight, states[index])
        for index, weight in enumerate(weights):
            if moved[index] is not stepped[index]:
                # Weights that the move leaves in place keep the exact base update; a zero that it makes is exactly -w.
                updates[index] = preserve_bits(moved[index] == stepped[index], updates[index], moved[index] - weight)
            updates[index] = updates[index].astype(weight.dtype)

        after = tuple(
            None if before is None else structure.unflatten(states)
            for before, states in zip(state.decay, decay_states, strict=True)
        )
        return structure.unflatten(updates), DecayState(
            jnp.asarray(optax.safe_increment(state.step)), base_state, after
        )

    transformation = DecayTransformation(init, update)  # pyright: ignore[reportArgumentType]
    transformation.declaration = Declaration(base, tuple(rates), tuple(decay))
    return transformation


def _check_initial(rules: Sequence[Any], states: Sequence[PyTree], params: Params) -> None:
    """Let each rule refuse initial weights with which it cannot work, where these are not traced."""
    for rule, state, (name, _) in zip(rules, states, tree.named_leaves(params), strict=True):
        if rule is None or any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(state)):
            continue
        try:
            rule.check_initial(state)
        except ValueError as error:
            raise ArgumentError("decay", f"decay = {rule.name}: {name or 'the array'} {error}") from error


def _returned(rule: Rule, hook: str, returned: Any, weight: Array, before: PyTree) -> tuple[Any, Any]:
    """What a hook returned, once it is known to be a pair that fits the weights and the state before."""
    name = f"{rule.name}.{hook}"
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise TypeError(f"{name} returned {_kind_of(returned)}; return a pair of an array, or None, and the state.")
    value, state = returned
    if _form(state) != _form(before):
        raise TypeError(
            f"{name} returned a state of another form: {_written_form(before)} before, {_written_form(state)} now; a "
            "state keeps the structure, shapes and dtypes with which initial makes it."
        )
    if value is None and hook != "move":
        return None, state
    if value is None or not tree.is_real(value) or (hook == "move" and jnp.shape(value) != weight.shape):
        raise TypeError(f"{name} returned {_kind_of(value)} for weights of shape {weight.shape}; return their shape.")
    shape = jnp.shape(value)
    # A number, or an axis of size 1, stands for all weights along it.
    aligned = zip(reversed(shape), reversed(weight.shape), strict=False)
    if len(shape) > weight.ndim or any(size not in (1, of_weight) for size, of_weight in aligned):
        raise TypeError(f"{name} returned {_kind_of(value)} for weights of shape {weight.shape}; return their shape.")
    return value, state


def _form(state: PyTree) -> Any:
    """Names, shapes and dtypes of a state; a library may have put its arrays into containers of its own."""
    return [(name, jnp.shape(leaf), jnp.result_type(leaf)) for name, leaf in tree.named_leaves(state)]


def _written_form(state: PyTree) -> str:
    return str(jax.tree.map(lambda leaf: f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}", state))


def _copied(leaf: Any) -> Array:
    """A copy whose dtype is fixed: a Python number would take on the dtype of what it is added to."""
    return jnp.array(leaf, jnp.result_type(leaf))


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
            values = leaves_like(structure, function(base_state), argument=f"the tree that {argument} returns")
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


def _check_gradients(gradients: list[Any], weights: list[Array], params: Params) -> None:
    for index, (gradient, weight) in enumerate(zip(gradients, weights, strict=True)):
        if jnp.shape(gradient) != weight.shape:
            leaf_name = tree.named_leaves(params)[index][0] or "an array"
            raise ArgumentError(
                "gradients",
                f"gradients have shape {jnp.shape(gradient)} for {leaf_name} of shape {weight.shape}; give the "
                "gradient of the loss with respect to these params.",
            )


def _array(leaf: Any) -> Any:
    return leaf if hasattr(leaf, "astype") else jnp.asarray(leaf)
