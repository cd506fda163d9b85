"""Which members of a grid share a compiled program: those of equal structure, which differ in numbers alone."""

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from weightdecay import training
from weightdecay.decay import Rule
from weightdecay.grid import Grid
from weightdecay.placement import parts
from weightdecay.terms import Plain, Terms
from weightdecay.training import Hyperparameters, State, Task
from weightdecay.types import Batch

OWN_AXES = ("decay", "learning_rate", "seed")


class Group(NamedTuple):
    """Members that one compiled program trains."""

    task: Task  # with the arguments of the optimizer that change its structure
    places: np.ndarray  # in the grid, (members,); members of one seed stand together
    hyperparameters: Hyperparameters  # every leaf (members,)
    state: State  # one member's, as shapes
    started: np.ndarray  # steps that each has behind it, (members,)
    keys: tuple[str, ...] = ()  # by which each is saved; none where nothing is

    def name(self) -> str:
        """Return a name that the group has in every grid: the structure that its members share."""
        return f"{self.task.options} {jax.tree.structure(self.hyperparameters)}"

    def program(self, splits: Mapping[str, Batch]) -> str:
        """Return the digest of what trains one of these members, from its first weights through a step."""

        def one_step(hyperparameters: Hyperparameters, batch: Batch) -> Any:
            state = training.initialize(self.task, hyperparameters, batch.inputs)
            return training.train_step(self.task, hyperparameters, state, batch)

        rows = self.task.batch_size or len(splits["train"].inputs)
        batch = jax.tree.map(lambda a: jax.ShapeDtypeStruct((rows, *a.shape[1:]), a.dtype), splits["train"])
        one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), self.hyperparameters)
        return hashlib.sha256(jax.jit(one_step).lower(one, batch).as_text().encode()).hexdigest()


def divide(task: Task, grid: Grid, splits: Mapping[str, Batch]) -> list[Group]:
    """Members of a grid by structure; plain rules are brought to one normal form, so that they are one group.

    Everything is run on shapes: what does not fit is told before anything is compiled.

    Args:
      task: What is trained.
      grid: The members.
      splits: Examples by name.

    Returns:
      The groups.

    Raises:
      TypeError: As the optimizer.
      ValueError: As the optimizer, or a network whose outputs do not fit.
    """
    places = _places(task, grid, splits)
    _check_rules(task, grid, places, splits)
    structures: dict[Any, list[tuple[int, Hyperparameters]]] = {}
    for place, member in enumerate(grid):
        decay, options, numbers = _split(member)
        one = Hyperparameters(
            decay=jax.tree.map(_real, decay.terms().filled(places) if isinstance(decay, Plain | Terms) else decay),
            learning_rate=_real(member["learning_rate"]),
            seed=np.asarray(member["seed"], np.int32),
            optimizer=jax.tree.map(_real, numbers),
        )
        structures.setdefault((options, jax.tree.structure(one)), []).append((place, one))
    groups = []
    for (options, _), members in structures.items():
        members.sort(key=lambda member: int(member[1].seed))
        own = replace(task, options=options)
        groups.append(
            Group(
                own,
                np.array([place for place, _ in members]),
                jax.tree.map(lambda *leaves: np.stack(leaves), *(one for _, one in members)),
                _state(own, members[0][1], splits),
                started=np.zeros(len(members), np.int32),
            )
        )
    return groups


def _state(task: Task, one: Hyperparameters, splits: Mapping[str, Batch]) -> State:
    """State of a member as shapes, once it is seen that the network fits the targets."""
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), one)
    state = jax.eval_shape(functools.partial(training.initialize, task), shapes, _example(splits))
    training.check_outputs(task, state, splits)
    return state


def _split(member: Mapping[str, Any]) -> tuple[Rule, tuple[tuple[str, Any], ...], dict[str, Any]]:
    """A member's rule, its options that change the optimizer's structure, and its numbers for the optimizer."""
    rules = parts(member["decay"])
    alone = len(rules) == 1 and rules[0][1] is None
    others = {name: value for name, value in member.items() if name not in OWN_AXES}
    options = {name: value for name, value in others.items() if isinstance(value, bool | str)}
    numbers = {name: value for name, value in others.items() if name not in options}
    return rules[0][0] if alone else member["decay"], tuple(sorted(options.items())), numbers


def _places(task: Task, grid: Grid, splits: Mapping[str, Batch]) -> frozenset[str]:
    """Terms of the normal form that the optimizer takes, whatever stands in the grid.

    Lion takes no proximal step, a schedule without its peak no independent decay; all others take every term.
    """
    _, options, numbers = _split(grid[0])
    every = Terms().coefficients().keys()
    plain = every - {"proximal_l1", "proximal_l2"}
    for places in map(frozenset, (every, plain, plain - {"independent", "corrected"})):
        one = Hyperparameters(Terms().filled(places), grid[0]["learning_rate"], np.int32(0), numbers)
        try:
            jax.eval_shape(
                functools.partial(training.initialize, replace(task, options=options)), one, _example(splits)
            )
        except ValueError:
            continue
        return places
    return frozenset()


def _check_rules(task: Task, grid: Grid, places: frozenset[str], splits: Mapping[str, Batch]) -> None:
    """Let the optimizer refuse a rule in the words of that rule, before it is brought to its normal form."""
    for member in grid:
        decay, options, numbers = _split(member)
        if isinstance(decay, Plain | Terms) and not decay.terms().present <= places:
            one = Hyperparameters(decay, member["learning_rate"], np.int32(0), numbers)
            initialize = functools.partial(training.initialize, replace(task, options=options), one)
            jax.eval_shape(initialize, _example(splits))


def _example(splits: Mapping[str, Batch]) -> jax.ShapeDtypeStruct:
    inputs = splits["train"].inputs
    return jax.ShapeDtypeStruct((1, *inputs.shape[1:]), inputs.dtype)


def _real(value: Any) -> np.ndarray:
    return np.asarray(value, jnp.zeros(()).dtype)
