"""Groups and lanes: which members of a grid share a compiled program, and which of them train side by side.

Members of equal structure differ in numbers alone, so one compiled program serves all of them: they are a group. A lane
is a fixed number of members of one group that one device computes side by side.
"""

import abc
import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import numpy as np

from weightdecay.core.types import Batch, Mask, MaskFn
from weightdecay.data import Scaling
from weightdecay.decay import NoDecay, Rule, Touched
from weightdecay.decay.declarations import UnsupportedRuleError, declaration
from weightdecay.decay.elementwise import PROXIMAL_TERMS, SCHEDULE_TERMS, ElementwiseRule, Terms
from weightdecay.decay.placement import parts
from weightdecay.engine import given_weights, routing
from weightdecay.engine.given_weights import GivenWeights
from weightdecay.engine.initial_weights import Initial
from weightdecay.engine.routing import RoutedMember
from weightdecay.search.grid import Grid
from weightdecay.training import evaluation, fine_tuning, gradients, step
from weightdecay.training.fine_tuning import Start
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
      targets: Step that each member is to reach, shape ``(members,)``; None = the last step.
    """

    indices: np.ndarray
    hyperparameters: Any
    state: Any
    started: np.ndarray
    keys: tuple[str, ...] = ()
    targets: np.ndarray | None = None

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """Name of the structure that the members share, the same in every grid."""

    def distinction(self, member: int) -> dict[str, Any]:
        """Return what the numbers of a member depend on in addition to its hyperparameters, by name."""
        return {}

    @abc.abstractmethod
    def program(self) -> str:
        """Return the digest of the program that computes one member."""

    def lanes(self, num_steps: int, lane_width: int) -> "Iterator[Lane]":
        """Iterate over the lanes that are left to compute.

        Members of a lane have completed the same number of steps, and are to reach the same step; those that are there
        are skipped.

        Args:
          num_steps: Last step of each member.
          lane_width: Largest number of members of a lane.

        Yields:
          The lanes, those with the fewest completed steps first.
        """
        targets = np.full(len(self.indices), num_steps) if self.targets is None else self.targets
        left = self.started < targets
        for start, stop in sorted(set(zip(self.started[left].tolist(), targets[left].tolist(), strict=True))):
            members = np.flatnonzero((self.started == start) & (targets == stop))
            for first in range(0, len(members), lane_width):
                yield Lane(self, members[first : first + lane_width], start, stop)


class Lane(NamedTuple):
    """Members of one group that a device computes side by side."""

    group: Any  # Group
    members: np.ndarray  # positions in the group, (members,), at most as many as the lane is wide
    start: int  # the step that all of them have reached
    stop: int  # the step that they are to reach

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
      start: Weights that are given.
    """

    task: Task
    splits: Mapping[str, Batch]
    model_options: tuple[tuple[str, Any], ...] = ()
    start: Start = fine_tuning.NOTHING

    @property
    def name(self) -> str:
        """Name of the structure that the members share, the same in every grid."""
        model = "" if self.model_options == () else f"{self.model_options} "
        return f"{model}{self.task.options} {jax.tree.structure(self.hyperparameters)}"

    def one(self) -> Hyperparameters:
        """Return the hyperparameters of one member, as shapes."""
        one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), self.hyperparameters)
        return one._replace(frozen=_shapes(self.start.frozen))

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
        """Return what the batches of some members follow from, shape ``(members, 2)``: seed, and fold or -1.

        Where members take a number of examples of their own it follows as a third column.
        """
        seeds, folds = self.hyperparameters.seed[members], self.hyperparameters.fold
        columns = [seeds, np.full_like(seeds, -1) if folds is None else folds[members]]
        if self.limits_examples:
            columns.append(self.hyperparameters.training["num_examples"][members])
        return np.stack(columns, axis=-1)

    @property
    def limits_examples(self) -> bool:
        """Whether each member takes a number of training examples of its own."""
        return "num_examples" in self.hyperparameters.training

    def distinction(self, member: int) -> dict[str, Any]:
        """Return the number of examples, which follows from the axis ``epochs`` and from the number of steps."""
        return (
            {"num_examples": int(self.hyperparameters.training["num_examples"][member])} if self.limits_examples else {}
        )

    def program(self) -> str:
        """Return the digest of the program that trains one member, from its initial weights through a step."""

        def one_step(hyperparameters: Hyperparameters, batch: Batch, start: Start) -> Any:
            state = step.initialize(self.task, hyperparameters, batch.inputs, start)
            return step.train_step(self.task, hyperparameters, state, batch)

        rows = self.task.batch_size or self.splits["train"].num_examples
        batch = jax.tree.map(lambda a: jax.ShapeDtypeStruct((rows, *a.shape[1:]), a.dtype), self.splits["train"])
        start = _shapes(self.start._replace(frozen=None))
        return hashlib.sha256(jax.jit(one_step).lower(self.one(), batch, start).as_text().encode()).hexdigest()

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
    task: Task,
    grid: Grid,
    splits: Mapping[str, Batch],
    *,
    num_steps: int,
    patience: int | None = None,
    scaling: Scaling | None = None,
    trainable: Mask | MaskFn | None = None,
    initial: Initial | None = None,
) -> list[TrainingGroup]:
    """Divide the members of a grid into groups of equal structure.

    Elementwise rules are brought to one normal form, so that they are one group. Everything runs on shapes, so that
    errors are reported before anything is compiled.

    Args:
      task: What is trained.
      grid: The members.
      splits: Examples by name.
      num_steps: Last step of each member.
      patience: Patience of members that have none of their own.
      scaling: What standardizes the examples, by fold.
      trainable: Which weights train; None = all.
      initial: Weights that members start from; None = each draws its own.

    Returns:
      The groups.

    Raises:
      TypeError: As the optimizer.
      ValueError: As the optimizer, or outputs of the network that do not fit the targets.
    """
    network_axes = routing.network_axes(task.model)
    accepted: dict[Any, frozenset[str]] = {}
    unchanged: dict[Any, tuple[str, ...]] = {}
    structures: dict[Any, tuple[Task, list[tuple[int, Hyperparameters]]]] = {}
    given = GivenWeights(trainable, initial, _example(splits))
    for index, member in enumerate(grid):
        routed = routing.route(member, network_axes, patience=patience)
        member_task, options = routed.task(task), (routed.model_options, routed.options)
        member_task, routed = given.applied(member_task, routed)
        kind = options, frozenset(routed.optimizer), jax.tree.structure(routed.learning_rate)
        if kind not in unchanged:
            unchanged[kind] = _unchanged(member_task, routed, splits)
        member_task, routed = given_weights.without(unchanged[kind], member_task, routed)
        if kind not in accepted:
            accepted[kind] = _accepted_terms(member_task, routed, splits)
        decay = routed.decay
        if isinstance(decay, ElementwiseRule | Terms):
            _check_rule(member_task, routed, accepted[kind], splits)
            decay = decay.terms().filled(accepted[kind])
        num_examples = routed.num_examples(splits["train"], num_steps, task.batch_size)
        hyperparameters = routed.hyperparameters(decay, scaling, num_examples)
        structure = options, jax.tree.structure(hyperparameters)
        structures.setdefault(structure, (member_task, []))[1].append((index, hyperparameters))
    groups = []
    for ((model_options, _), _), (member_task, members) in structures.items():
        start = given.start(member_task, model_options)
        _check_start(member_task, [numbers for _, numbers in members], splits, start)
        members.sort(key=lambda member: _stream(member[1]))
        groups.append(
            TrainingGroup(
                task=member_task,
                splits=splits,
                model_options=model_options,
                indices=np.array([index for index, _ in members]),
                hyperparameters=jax.tree.map(lambda *leaves: np.stack(leaves), *(numbers for _, numbers in members)),
                state=_state(member_task, members[0][1], splits, start),
                start=start,
                started=np.zeros(len(members), np.int32),
            )
        )
    return groups


def _check_start(task: Task, members: Sequence[Hyperparameters], splits: Mapping[str, Batch], start: Start) -> None:
    """Let rules refuse the initial weights, in one member for each of the numbers that the network takes."""
    rules = [rule for rule, _ in parts(members[0].decay)]
    rules = [rule.rule if isinstance(rule, Touched) else rule for rule in rules]
    if all(type(rule).check_initial is Rule.check_initial for rule in rules):
        return
    by_network = {str(sorted(numbers.network.items())): numbers for numbers in members}
    example = jax.tree.map(lambda array: np.asarray(array[:1]), splits["train"].inputs)
    initialize = jax.jit(functools.partial(step.initialize, task))
    for numbers in by_network.values():
        member = numbers._replace(frozen=start.frozen)
        params = initialize(member, example, start._replace(frozen=None)).params
        task.transformation(fine_tuning.anchored(task, member, start)).init(params)


def _stream(hyperparameters: Hyperparameters) -> tuple[int, ...]:
    """What the batches of a member follow from."""
    fold, num_examples = hyperparameters.fold, hyperparameters.training.get("num_examples", -1)
    return int(hyperparameters.seed), -1 if fold is None else int(fold), int(num_examples)


def _state(task: Task, hyperparameters: Hyperparameters, splits: Mapping[str, Batch], start: Start) -> State:
    """Return the state of a member as shapes, after checking that the network fits the targets."""
    shapes = _shapes(hyperparameters._replace(frozen=start.frozen))
    given = _shapes(start._replace(frozen=None))
    state = jax.eval_shape(functools.partial(step.initialize, task), shapes, _example(splits), given)
    step.check_outputs(task, shapes, state, splits)
    return state


def _unchanged(task: Task, routed: RoutedMember, splits: Mapping[str, Batch]) -> tuple[str, ...]:
    """Names of the arrays that the optimizer never changes; those of this library change all."""
    hyperparameters = routed.hyperparameters(NoDecay(), None)
    if declaration(task.transformation(hyperparameters)) is not None:
        return ()
    state = jax.eval_shape(functools.partial(step.initialize, task, hyperparameters), _example(splits))
    return tuple(gradients.without_update(task, hyperparameters, state))


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


def _shapes(arrays: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arrays)


def _example(splits: Mapping[str, Batch]) -> Any:
    inputs = splits["train"].inputs
    return jax.tree.map(lambda array: jax.ShapeDtypeStruct((1, *array.shape[1:]), array.dtype), inputs)
