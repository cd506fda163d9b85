"""A preconditioner joined to decay rules: the update itself, in the order of a step.

What joins the gradient, the preconditioner's own step, what is taken off beside it, and where the weights are moved
after it. `optimizers` makes every public optimizer with `join`.
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
from weightdecay.core.types import Mask, MaskFn, Params, PyTree, Scalar, Schedule
from weightdecay.decay import masks, schedules
from weightdecay.decay import registry as rules
from weightdecay.decay.base import Step, Whole, at_step, is_schedule, keep, scheduled
from weightdecay.decay.placement import leafwise, parts
from weightdecay.decay.registry import Rule


class DecayState(NamedTuple):
    """State of every optimizer of this library."""

    step: Int[Array, ""]  # steps taken
    base: PyTree
    decay: tuple[PyTree, ...]  # what each rule carries, in the structure of the weights; None = nothing


def carried(optimizer_state: PyTree) -> tuple[PyTree, ...] | None:
    """What the rules carry, from the state of an optimizer that others may be wrapped around.

    Args:
      optimizer_state: Any state with at most one `DecayState` in it.

    Returns:
      ``DecayState.decay``, or None where there is no such state.
    """
    parts = jax.tree.leaves(optimizer_state, is_leaf=lambda node: isinstance(node, DecayState))
    return next((part.decay for part in parts if isinstance(part, DecayState)), None)


class Rate(NamedTuple):
    """A learning rate with the peak of its schedule."""

    learning_rate: Scalar | Schedule
    peak: Scalar | None
    peak_argument: str = "peak_learning_rate"  # where a user gives it

    def at_step(self, count: Any) -> tuple[Any, Any]:
        """Return η and s."""
        rate = self.learning_rate
        if callable(rate):
            rate = scheduled(rate, count, argument="learning_rate")
        return rate, 1.0 if self.peak is None else rate / self.peak


class Base(NamedTuple):
    """A preconditioner, and what decay rules may ask of it."""

    transformation: optax.GradientTransformation
    metric: Callable[[Any], PyTree] | None = None
    second_moments: Callable[[Any], PyTree] | None = None
    lacks: Mapping[str, str] = {}
    """Why it has no "metric" or no "second_moments", for the error message."""


class Placed(NamedTuple):
    """A rule and the weights it acts on."""

    rule: Rule
    decays: Callable[[Params], list[bool]]


def placed(decay: Rule | Sequence[Rule], mask: Mask | MaskFn, *, argument: str = "decay") -> list[Placed]:
    """Rules on the weights that a mask selects, or their own.

    Args:
      decay: The rule, or several.
      mask: Which weights decay.
      argument: Where the rule was given, for the message.

    Returns:
      The rules, each with its weights.

    Raises:
      TypeError: ``decay`` is no rule.
      ValueError: A coefficient that is none.
    """
    rules.check(decay, argument=argument)
    return [Placed(rule, functools.partial(masks.resolve, mask if own is None else own)) for rule, own in parts(decay)]


def join(
    base: Base,
    rates: Sequence[Rate],
    decay: Sequence[Placed],
    *,
    rate_of: Callable[[Params], list[int]] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Join a preconditioner that is known well to decay rules; see `weightdecay.decay.optimizers`.

    Args:
      base: The preconditioner with what it has and lacks.
      rates: Learning rates.
      decay: The rules with their weights.
      rate_of: Place in ``rates`` of each array of the weights; None = the first.

    Returns:
      An optax transformation.

    Raises:
      TypeError: As `weightdecay.optimizer`.
      ValueError: As `weightdecay.optimizer`.
    """
    for rate in rates:
        _check_learning_rate(rate.learning_rate)
        if rate.peak is not None:
            tree.check_number(rate.peak, rate.peak_argument, "number > 0", lambda number: 0 < number < math.inf)
    for rule, _ in decay:
        _check_needs(rule, base, rates)
    inner = optax.with_extra_args_support(base.transformation)
    # From the first step on anchors are carried, so a compiled step need not hold them as constants.
    without_anchors = [
        Placed(dataclasses.replace(rule, anchor=None) if hasattr(rule, "anchor") else rule, decays)  # pyright: ignore[reportArgumentType, reportCallIssue]
        for rule, decays in decay
    ]

    def acting(decay: Sequence[Placed], params: Params, count: Any) -> list[list[Any]]:
        """Rules as they stand at a step: for each of them a list with a rule, or None, an array of the weights."""
        return [
            leafwise(at_step(rule, count), params, decays(params))
            if rule.coefficients()
            else [None] * len(jax.tree.leaves(params))
            for rule, decays in decay
        ]

    def init(params: Params) -> DecayState:
        weights, structure = jax.tree.flatten(params)
        active = acting(decay, params, 0)
        base_state = base.transformation.init(params)
        decay_states = []
        for rule in active:
            _check_metric(rule, base, base_state, params)
            _check_second_moments(rule, base, base_state)
            # Copies, since an anchor may be the weights themselves: a step that donates both cannot have them share.
            states = [
                None if one is None else jax.tree.map(jnp.copy, one.initial(_array(w)))
                for one, w in zip(rule, weights, strict=True)
            ]
            decay_states.append(structure.unflatten(states) if any(state is not None for state in states) else None)
        return DecayState(jnp.zeros((), jnp.int32), base_state, tuple(decay_states))

    def update(
        gradients: Any, state: DecayState, params: Params | None = None, **extra: Any
    ) -> tuple[Params, DecayState]:
        if params is None:
            raise ValueError("params is None; decay acts on the weights: call update(gradients, state, params).")
        if not isinstance(state, DecayState):
            raise TypeError(f"state is of type {type(state).__name__}; give what init(params) or the last update gave.")
        leaves, structure = jax.tree.flatten(params)
        weights = [_array(leaf) for leaf in leaves]
        data_gradients = _fitted(structure, gradients, argument="gradients")
        for place, (gradient, weight) in enumerate(zip(data_gradients, weights, strict=True)):
            if jnp.shape(gradient) != weight.shape:
                leaf_name = tree.named_leaves(params)[place][0] or "an array"
                raise ValueError(
                    f"gradients have shape {jnp.shape(gradient)} for {leaf_name} of shape {weight.shape}; give the "
                    "gradient of the loss in these params."
                )
        active = acting(without_anchors, params, state.step)
        decay_states = [
            [None] * len(weights) if states is None else structure.flatten_up_to(states) for states in state.decay
        ]
        pairs = [
            (place, one, states)
            for rule, states in zip(active, decay_states, strict=True)
            for place, one in enumerate(rule)
            if one is not None
        ]

        # Before the step: what joins the gradient.
        joined = list(data_gradients)
        for place, rule, states in pairs:
            pull, states[place] = rule.couple(weights[place], states[place])
            joined[place] = joined[place] if pull is None else joined[place] + pull
        joined = [g.astype(jnp.result_type(d)) for g, d in zip(map(_array, joined), data_gradients, strict=True)]
        directions, base_state = inner.update(structure.unflatten(joined), state.base, params, **extra)

        # The step.
        at = [rate.at_step(state.step) for rate in rates]
        here = [at[place] for place in (rate_of(params) if rate_of is not None else [0] * len(weights))]
        directions = structure.flatten_up_to(directions)
        updates = [-rate * u for (rate, _), u in zip(here, directions, strict=True)]
        steps = _steps(base, base_state, structure, state.step, active, weights, data_gradients, directions, here)

        # Beside it: what is taken off.
        for (place, rule, states), step in zip(pairs, steps, strict=True):
            taken, states[place] = rule.shrink(step, states[place])
            updates[place] = updates[place] if taken is None else updates[place] - taken

        # After it: where the weights are moved.
        stepped = [w + u for w, u in zip(weights, updates, strict=True)]
        moved = list(stepped)
        for (place, rule, states), step in zip(pairs, steps, strict=True):
            moved[place], states[place] = rule.move(moved[place], step, states[place])
        for place, weight in enumerate(weights):
            if moved[place] is not stepped[place]:
                # What the map leaves in place keeps the base update's own bits; a zero that it makes is exactly -w.
                updates[place] = keep(moved[place] == stepped[place], updates[place], moved[place] - weight)
            updates[place] = updates[place].astype(weight.dtype)

        after = tuple(
            None if before is None else structure.unflatten(states)
            for before, states in zip(state.decay, decay_states, strict=True)
        )
        return structure.unflatten(updates), DecayState(state.step + 1, base_state, after)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def _steps(
    base: Base,
    base_state: Any,
    structure: Any,
    count: Any,
    active: list[list[Any]],
    weights: list[Array],
    gradients: list[Any],
    directions: list[Any],
    rates: list[tuple[Any, Any]],
) -> list[Step]:
    """What each rule sees of the step, for each array that it acts on."""

    def column(function: Callable[[Any], PyTree] | None) -> list[Any]:
        values = [None] * len(weights)
        if function is not None:
            values = _fitted(structure, function(base_state), argument="what metric or second_moments gives")
        return [None if isinstance(value, optax.MaskedNode) else value for value in values]

    # As precise as coefficients are, whatever the weights have: η / D is small.
    metrics = [
        d.astype(jnp.promote_types(jnp.float32, d.dtype)) if hasattr(d, "astype") else d for d in column(base.metric)
    ]
    second_moments = column(base.second_moments)
    steps = []
    for rule in active:
        places = [place for place, one in enumerate(rule) if one is not None]
        whole = Whole([weights[place] for place in places], [gradients[place] for place in places], second_moments)
        steps += [
            Step(weights[i], gradients[i], directions[i], metrics[i], *rates[i], count=count, whole=whole)
            for i in places
        ]
    return steps


def _check_needs(rule: Rule, base: Base, rates: Sequence[Rate]) -> None:
    without = [rate for rate in rates if callable(rate.learning_rate) and rate.peak is None]
    if "peak_learning_rate" in rule.needs and without:
        raise ValueError(
            f"decay = {rule} beside a schedule needs the schedule's peak: pass {without[0].peak_argument}, the largest "
            "learning rate of the schedule. A step decays in proportion to learning_rate / peak_learning_rate."
        )
    for need in ("metric", "second_moments"):
        if need in rule.needs and need in base.lacks:
            raise ValueError(f"decay = {rule} makes no sense here: {base.lacks[need]}")
    if "second_moments" in rule.needs and base.second_moments is None:
        raise ValueError(
            f"decay = {rule} needs the second moments of the gradients: take wd.adam, wd.rmsprop or wd.lamb, or pass "
            "second_moments=..., which gives them from the base's state."
        )


def _check_metric(rule: list[Any], base: Base, base_state: Any, params: Params) -> None:
    """Refuse a proximal step where the diagonal of the preconditioner is not known."""
    asking = [place for place, one in enumerate(rule) if one is not None and "metric" in one.needs]
    if not asking:
        return
    if base.metric is None:
        memory = [leaf for leaf in jax.tree.leaves(base_state) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)]
        if memory:
            raise ValueError(
                f"decay = {type(rule[asking[0]]).__name__} takes a proximal step, and the base optimizer has a memory "
                "(momentum, moments): without its diagonal D the step would have another minimizer. Take wd.sgd or "
                "wd.adam, or pass metric=..., which gives D from the base's state: 1 - momentum, or "
                "sqrt(second moments) + eps."
            )
        return
    given = jax.eval_shape(base.metric, base_state)
    diagonals = _fitted(jax.tree.structure(params), given, argument="what metric gives")
    without = [place for place in asking if diagonals[place] is None or isinstance(diagonals[place], optax.MaskedNode)]
    if without:
        names = [name for name, _ in tree.named_leaves(params)]
        raise ValueError(
            f"decay = {type(rule[without[0]]).__name__} takes a proximal step, and the base optimizer has no "
            f"diagonal D for {', '.join(names[place] for place in without)}; take another rule there, in wd.Masked."
        )


def _check_second_moments(rule: list[Any], base: Base, base_state: Any) -> None:
    """Refuse a rule that asks for second moments where the base has them for none of the weights."""
    asking = [one for one in rule if one is not None and "second_moments" in one.needs]
    if asking and base.second_moments and not jax.tree.leaves(jax.eval_shape(base.second_moments, base_state)):
        raise ValueError(
            f"decay = {type(asking[0]).__name__} needs the second moments of the gradients, and the base optimizer "
            "keeps them for none of the weights; take wd.Decoupled here."
        )


def _check_learning_rate(learning_rate: Any) -> None:
    if isinstance(learning_rate, schedules.Parametric):
        return schedules.check(learning_rate, argument="learning_rate")
    if is_schedule(learning_rate) or isinstance(learning_rate, Tracer):
        return
    if not tree.is_real(learning_rate) or jnp.ndim(learning_rate) > 0:
        raise TypeError(f"learning_rate is {learning_rate!r}; give one number >= 0, or a schedule.")
    if not 0 <= tree.plain(learning_rate) <= tree.LARGEST:
        raise ValueError(f"learning_rate is {learning_rate}; give a finite number >= 0.")


def _fitted(structure: Any, given: Any, *, argument: str) -> list[Any]:
    """Parts of a tree at the places of the weights."""
    try:
        return structure.flatten_up_to(given)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{argument} does not fit the weights: {error} Give a tree in the structure of params: {structure}."
        ) from error


def _array(leaf: Any) -> Any:
    return leaf if hasattr(leaf, "astype") else jnp.asarray(leaf)
