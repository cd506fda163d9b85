"""Groups and lanes: which members of a grid share a compiled program, and which of them train side by side.

Members of equal structure differ in numbers alone, so one compiled program serves all of them: they are a group. A lane
is a fixed number of members of one group that one device computes side by side.
"""

import abc
import functools
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import numpy as np

from weightdecay.core.types import Batch
from weightdecay.data import Scaling
from weightdecay.decay import NoDecay
from weightdecay.decay.declarations import UnsupportedRuleError, declaration
from weightdecay.decay.elementwise import PROXIMAL_TERMS, SCHEDULE_TERMS, ElementwiseRule, Terms
from weightdecay.engine import routing
from weightdecay.engine.routing import RoutedMember
from weightdecay.search.grid import Grid
from weightdecay.training import evaluation, gradients, step
from weightdecay.training.task import Hyperparameters, State, Task


@dataclass(frozen=True, kw_only=True, eq=False)
class Group(abc.ABC):
    """Members of equal structure, which one compiled program serves.

    Attributes:
      indices: Positions of the members in the grid, shape ``(members,)``.
      hyperparameters: What is traced, a pytree whose leaves have shape ``(members,)``.
      state: What one member carries from segment to segment, a pytree of shapes.
      started: Number of steps that each member has completed before this call, shape ``(members,)``.
      keys: Name of each member in the run directory; empty where nothing is saved.
    """

    indices: np.ndarray
    hyperparameters: Any
    state: Any
    started: np.ndarray
    keys: tuple[str, ...] = ()

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """Name of the structure that the members share, the same in every grid."""

    @abc.abstractmethod
    def program(self) -> str:
        """Return the digest of the program that computes one member."""

    def lanes(self, num_steps: int, lane_width: int) -> "Iterator[Lane]":
        """Iterate over the lanes that are left to compute.

        Members of a lane have completed the same number of steps; finished members are skipped.

        Args:
          num_steps: Last step of each member.
          lane_width: Largest number of members of a lane.

        Yields:
          The lanes, those with the fewest completed steps first.
        """
        for start in np.unique(self.started[self.started < num_steps]):
            members = np.flatnonzero(self.started == start)
            for first in range(0, len(members), lane_width):
                yield Lane(self, members[first : first + lane_width], int(start))


class Lane(NamedTuple):
    """Members of one group that a device computes side by side."""

    group: Any  # Group
    members: np.ndarray  # positions in the group, (members,), at most as many as the lane is wide
    start: int  # the step that all of them have reached

    @property
    def indices(self) -> np.ndarray:
        """Positions of the members in the grid, shape ``(members,)``."""
        return self.group.indices[self.members]

    @property
    def keys(self) -> list[str]:
        """Names of the members in the run directory."""
        return [self.group.keys[member] for member in self.members]


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingGroup(Group):
    """Members that one compiled program trains; members that see the same batches are next to each other.

    Attributes:
      task: What is trained, with the options that change the structure of the model and of the optimizer.
      model_options: The options of the model alone, as pairs of a name and a value.
      splits: Examples by name; their shapes are part of the program.
    """

    task: Task
    splits: Mapping[str, Batch]
    model_options: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """Name of the structure that the members share, the same in every grid."""
        model = "" if self.model_options == () else f"{self.model_options} "
        return f"{model}{self.task.options} {jax.tree.structure(self.hyperparameters)}"

    def one(self) -> Hyperparameters:
        """Return the hyperparameters of one member, as shapes."""
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), self.hyperparameters)

    def layers(self) -> list[str]:
        """Return the names of the arrays of weights that decay."""
        return self.task.layers(self.state.params)

    def has_decay(self) -> bool:
        """Return whether any member has a coefficient other than 0."""
        return any(np.any(coefficient) for coefficient in jax.tree.leaves(self.hyperparameters.decay))

    def without_gradient(self) -> list[str]:
        """Return the names of the arrays that decay and in which the loss has no gradient."""
        rows = self.task.batch_size or self.splits["train"].num_examples
        batch = jax.tree.map(lambda a: jax.ShapeDtypeStruct((rows, *a.shape[1:]), a.dtype), self.splits["train"])
        return gradients.without_gradient(replace(self.task, accumulate=1), self.one(), self.state, batch)

    def streams(self, members: Any) -> np.ndarray:
        """Return what the batches of some members follow from, shape ``(members, 2)``: seed, and fold or -1."""
        seeds, folds = self.hyperparameters.seed[members], self.hyperparameters.fold
        return np.stack([seeds, np.full_like(seeds, -1) if folds is None else folds[members]], axis=-1)

    def program(self) -> str:
        """Return the digest of the program that trains one member, from its initial weights through a step."""

        def one_step(hyperparameters: Hyperparameters, batch: Batch) -> Any:
            state = step.initialize(self.task, hyperparameters, batch.inputs)
            return step.train_step(self.task, hyperparameters, state, batch)

        rows = self.task.batch_size or self.splits["train"].num_examples
        batch = jax.tree.map(lambda a: jax.ShapeDtypeStruct((rows, *a.shape[1:]), a.dtype), self.splits["train"])
        return hashlib.sha256(jax.jit(one_step).lower(self.one(), batch).as_text().encode()).hexdigest()

    def evaluation(self) -> str:
        """Return the digest of the program that evaluates one member."""

        def evaluate(hyperparameters: Hyperparameters, state: State, train: Batch, validation: Batch) -> Any:
            on_train = evaluation.scores(self.task, hyperparameters, state, train, validation=False)
            return evaluation.evaluate(self.task, hyperparameters, state, state.params, on_train, validation)

        train, validation = (
            jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, jax.dtypes.canonicalize_dtype(a.dtype)), split)
            for split in (self.splits["train"], self.splits["validation"])
        )
        lowered = jax.jit(evaluate).lower(self.one(), self.state, train, validation)
        return hashlib.sha256(lowered.as_text().encode()).hexdigest()


def divide(
    task: Task, grid: Grid, splits: Mapping[str, Batch], *, patience: int | None = None, scaling: Scaling | None = None
) -> list[TrainingGroup]:
    """Divide the members of a grid into groups of equal structure.

    Elementwise rules are brought to one normal form, so that they are one group. Everything runs on shapes, so that
    errors are reported before anything is compiled.

    Args:
      task: What is trained.
      grid: The members.
      splits: Examples by name.
      patience: Patience of members that have none of their own.
      scaling: What standardizes the examples, by fold.

    Returns:
      The groups.

    Raises:
      TypeError: As the optimizer.
      ValueError: As the optimizer, or outputs of the network that do not fit the targets.
    """
    network_axes = routing.network_axes(task.model)
    accepted: dict[Any, frozenset[str]] = {}
    structures: dict[Any, tuple[Task, list[tuple[int, Hyperparameters]]]] = {}
    for index, member in enumerate(grid):
        routed = routing.route(member, network_axes, patience=patience)
        member_task, options = routed.task(task), (routed.model_options, routed.options)
        kind = options, frozenset(routed.optimizer), jax.tree.structure(routed.learning_rate)
        if kind not in accepted:
            accepted[kind] = _accepted_terms(member_task, routed, splits)
        decay = routed.decay
        if isinstance(decay, ElementwiseRule | Terms):
            _check_rule(member_task, routed, accepted[kind], splits)
            decay = decay.terms().filled(accepted[kind])
        hyperparameters = routed.hyperparameters(decay, scaling)
        structure = options, jax.tree.structure(hyperparameters)
        structures.setdefault(structure, (member_task, []))[1].append((index, hyperparameters))
    groups = []
    for ((model_options, _), _), (member_task, members) in structures.items():
        members.sort(key=lambda member: (int(member[1].seed), -1 if member[1].fold is None else int(member[1].fold)))
        groups.append(
            TrainingGroup(
                task=member_task,
                splits=splits,
                model_options=model_options,
                indices=np.array([index for index, _ in members]),
                hyperparameters=jax.tree.map(lambda *leaves: np.stack(leaves), *(numbers for _, numbers in members)),
                state=_state(member_task, members[0][1], splits),
                started=np.zeros(len(members), np.int32),
            )
        )
    return groups


def _state(task: Task, hyperparameters: Hyperparameters, splits: Mapping[str, Batch]) -> State:
    """Return the state of a member as shapes, after checking that the network fits the targets."""
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), hyperparameters)
    state = jax.eval_shape(functools.partial(step.initialize, task), shapes, _example(splits))
    step.check_outputs(task, shapes, state, splits)
    return state


def _accepted_terms(task: Task, routed: RoutedMember, splits: Mapping[str, Batch]) -> frozenset[str]:
    """Terms of the normal form that the optimizer can apply, whatever the rule.

    Lion cannot apply a proximal step, and a schedule without its peak no independent decay. An optimizer of this
    library declares what it accepts; any other one, such as an `optax.chain` around it, is tried.
    """
    hyperparameters = routed.hyperparameters(NoDecay(), None)
    declared = declaration(task.transformation(hyperparameters))
    if declared is not None:
        state = jax.eval_shape(functools.partial(step.initialize, task, hyperparameters), _example(splits))
        return declared.accepted_terms(state.params)
    every = frozenset(Terms().coefficients())
    for terms in (every, every - PROXIMAL_TERMS, every - PROXIMAL_TERMS - SCHEDULE_TERMS):
        try:
            _initialize(task, routed, Terms().filled(terms), splits)
        except UnsupportedRuleError:
            continue
        return terms
    return frozenset()


def _check_rule(task: Task, routed: RoutedMember, terms: frozenset[str], splits: Mapping[str, Batch]) -> None:
    """Let the optimizer refuse a rule by the rule's own name, before the rule is brought to its normal form."""
    if not routed.decay.terms().present <= terms:  # pyright: ignore[reportAttributeAccessIssue]
        _initialize(task, routed, routed.decay, splits)


def _initialize(task: Task, routed: RoutedMember, decay: Any, splits: Mapping[str, Batch]) -> None:
    hyperparameters = routed.hyperparameters(NoDecay(), None)._replace(decay=decay)
    jax.eval_shape(functools.partial(step.initialize, task, hyperparameters), _example(splits))


def _example(splits: Mapping[str, Batch]) -> Any:
    inputs = splits["train"].inputs
    return jax.tree.map(lambda array: jax.ShapeDtypeStruct((1, *array.shape[1:]), array.dtype), inputs)
