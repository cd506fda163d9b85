"""Which members of a grid share a compiled program: those of equal structure, which differ in numbers alone."""

import functools
import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from weightdecay.core.types import Batch
from weightdecay.data import Scaling
from weightdecay.decay import NoDecay
from weightdecay.decay.elementwise import Plain, Terms
from weightdecay.engine import routing
from weightdecay.engine.routing import Shares
from weightdecay.search.grid import Grid
from weightdecay.training import step
from weightdecay.training.task import Hyperparameters, State, Task


class Group(NamedTuple):
    """Members that one compiled program trains."""

    task: Task  # with what changes the structure of the model and of the optimizer
    places: np.ndarray  # in the grid, (members,); members that see the same batches stand together
    hyperparameters: Hyperparameters  # every leaf (members,)
    state: State  # one member's, as shapes
    started: np.ndarray  # steps that each has behind it, (members,)
    model_options: tuple[tuple[str, Any], ...] = ()
    keys: tuple[str, ...] = ()  # by which each is saved; none where nothing is

    def one(self) -> Hyperparameters:
        """Return one member's hyperparameters, as shapes."""
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), self.hyperparameters)

    def layers(self) -> list[str]:
        """Return the names of the arrays of weights that decay."""
        return self.task.layers(self.state.params)

    def name(self) -> str:
        """Return a name that the group has in every grid: the structure that its members share."""
        model = "" if self.model_options == () else f"{self.model_options} "
        return f"{model}{self.task.options} {jax.tree.structure(self.hyperparameters)}"

    def streams(self, members: Any) -> np.ndarray:
        """Return what the batches of some members follow from: seed and fold, -1 without folds, ``(members, 2)``."""
        seeds, folds = self.hyperparameters.seed[members], self.hyperparameters.fold
        return np.stack([seeds, np.full_like(seeds, -1) if folds is None else folds[members]], axis=-1)

    def program(self, splits: Mapping[str, Batch]) -> str:
        """Return the digest of what trains one of these members, from its first weights through a step."""

        def one_step(hyperparameters: Hyperparameters, batch: Batch) -> Any:
            state = step.initialize(self.task, hyperparameters, batch.inputs)
            return step.train_step(self.task, hyperparameters, state, batch)

        rows = self.task.batch_size or len(splits["train"].inputs)
        batch = jax.tree.map(lambda a: jax.ShapeDtypeStruct((rows, *a.shape[1:]), a.dtype), splits["train"])
        return hashlib.sha256(jax.jit(one_step).lower(self.one(), batch).as_text().encode()).hexdigest()


def divide(
    task: Task, grid: Grid, splits: Mapping[str, Batch], *, patience: int | None = None, scaling: Scaling | None = None
) -> list[Group]:
    """Members of a grid by structure; plain rules are brought to one normal form, so that they are one group.

    Everything is run on shapes: what does not fit is told before anything is compiled.

    Args:
      task: What is trained.
      grid: The members.
      splits: Examples by name.
      patience: Of members that have none of their own.
      scaling: What standardizes the examples, by fold.

    Returns:
      The groups.

    Raises:
      TypeError: As the optimizer.
      ValueError: As the optimizer, or a network whose outputs do not fit.
    """
    by_network = routing.by_network(task.model)
    terms: dict[Any, frozenset[str]] = {}
    structures: dict[Any, tuple[Task, list[tuple[int, Hyperparameters]]]] = {}
    for place, member in enumerate(grid):
        shares = routing.divide(member, by_network, patience=patience)
        own, options = shares.task(task), (shares.model_options, shares.options)
        alike = options, frozenset(shares.optimizer), jax.tree.structure(shares.learning_rate)
        if alike not in terms:
            terms[alike] = _places(own, shares, splits)
        decay = shares.decay
        if isinstance(decay, Plain | Terms):
            _check_rule(own, shares, terms[alike], splits)
            decay = decay.terms().filled(terms[alike])
        one = shares.hyperparameters(decay, scaling)
        _, members = structures.setdefault((options, jax.tree.structure(one)), (own, []))
        members.append((place, one))
    groups = []
    for ((model_options, _), _), (own, members) in structures.items():
        members.sort(key=lambda member: (int(member[1].seed), -1 if member[1].fold is None else int(member[1].fold)))
        groups.append(
            Group(
                own,
                np.array([place for place, _ in members]),
                jax.tree.map(lambda *leaves: np.stack(leaves), *(one for _, one in members)),
                _state(own, members[0][1], splits),
                started=np.zeros(len(members), np.int32),
                model_options=model_options,
            )
        )
    return groups


def _state(task: Task, one: Hyperparameters, splits: Mapping[str, Batch]) -> State:
    """State of a member as shapes, once it is seen that the network fits the targets."""
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), one)
    state = jax.eval_shape(functools.partial(step.initialize, task), shapes, _example(splits))
    step.check_outputs(task, shapes, state, splits)
    return state


def _places(task: Task, shares: Shares, splits: Mapping[str, Batch]) -> frozenset[str]:
    """Terms of the normal form that the optimizer takes, whatever the rule.

    Lion takes no proximal step, a schedule without its peak no independent decay; all others take every term.
    """
    every = Terms().coefficients().keys()
    plain = every - {"proximal_l1", "proximal_l2"}
    for places in map(frozenset, (every, plain, plain - {"independent", "corrected"})):
        try:
            _initialize(task, shares, Terms().filled(places), splits)
        except ValueError:
            continue
        return places
    return frozenset()


def _check_rule(task: Task, shares: Shares, places: frozenset[str], splits: Mapping[str, Batch]) -> None:
    """Let the optimizer refuse a rule in the words of that rule, before it is brought to its normal form."""
    if not shares.decay.terms().present <= places:  # pyright: ignore[reportAttributeAccessIssue]
        _initialize(task, shares, shares.decay, splits)


def _initialize(task: Task, shares: Shares, decay: Any, splits: Mapping[str, Batch]) -> None:
    one = shares.hyperparameters(NoDecay(), None)._replace(decay=decay)
    jax.eval_shape(functools.partial(step.initialize, task, one), _example(splits))


def _example(splits: Mapping[str, Batch]) -> jax.ShapeDtypeStruct:
    inputs = splits["train"].inputs
    return jax.ShapeDtypeStruct((1, *inputs.shape[1:]), inputs.dtype)
