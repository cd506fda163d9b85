"""Weights that a call gives or freezes, for each model of a grid: they are matched once a model, on shapes alone."""

from dataclasses import replace
from typing import Any

import jax

from weightdecay.core import random_streams, tree
from weightdecay.core.types import Mask, MaskFn, Params
from weightdecay.core.warn import warn
from weightdecay.decay import placement
from weightdecay.engine.initial_weights import Initial, Match
from weightdecay.engine.routing import RoutedMember
from weightdecay.training import fine_tuning
from weightdecay.training.fine_tuning import Start
from weightdecay.training.task import Task


class GivenWeights:
    """What the arguments ``trainable`` and ``initial`` of `fit_grid` mean for each model of a grid."""

    def __init__(self, trainable: Mask | MaskFn | None, initial: Initial | None, example: Any) -> None:
        """Take the arguments, and the shapes of one example's inputs."""
        self._trainable, self._initial, self._example = trainable, initial, example
        self._of_model: dict[Any, tuple[Params, tuple[str, ...], Match | None]] = {}

    def applied(self, task: Task, routed: RoutedMember) -> tuple[Task, RoutedMember]:
        """Return the task and the hyperparameters of a member for the weights that train.

        Args:
          task: The member's, with all weights.
          routed: Its hyperparameters.

        Returns:
          The task with its frozen weights, and with masks that select among the others; the hyperparameters with masks
          that do so too.
        """
        if self._trainable is None:
            return task, routed
        params, frozen, _ = self._matched(task, routed.model_options)
        if not frozen:
            return task, routed
        decay = placement.changed(routed.decay, mask=lambda mask: fine_tuning.of_whole(mask, params, frozen))
        mask = fine_tuning.of_whole(task.mask, params, frozen)
        return replace(task, mask=mask, frozen=frozen), replace(routed, decay=decay)

    def start(self, task: Task, model_options: Any) -> Start:
        """Return the weights that are given to the members of a task.

        Args:
          task: The task.
          model_options: The options of its model, `RoutedMember.model_options`.

        Returns:
          The weights; nothing where there is no ``initial``.
        """
        _, frozen, match = self._matched(task, model_options)
        if match is None:
            return fine_tuning.NOTHING
        shared = tree.only(match.params, frozen) if frozen else None
        return Start(
            initial=tree.without(match.params, frozen),
            model_state=match.model_state,
            frozen=shared if jax.tree.leaves(shared) else None,
        )

    def _matched(self, task: Task, model_options: Any) -> tuple[Params, tuple[str, ...], Match | None]:
        """All weights of a model as shapes, the names of the frozen ones, and the arrays that are given."""
        if self._trainable is None and self._initial is None:
            return None, (), None
        if model_options not in self._of_model:
            key = random_streams.constant_key()
            params, model_state = jax.eval_shape(task.network().init, key, self._example)
            frozen = fine_tuning.frozen_names(self._trainable, params)
            match = None if self._initial is None else self._initial.match(params, model_state)
            self._of_model[model_options] = params, frozen, match
            if match is not None:
                _warn(match, params, frozen)
        return self._of_model[model_options]


def without(unchanged: tuple[str, ...], task: Task, routed: RoutedMember) -> tuple[Task, RoutedMember]:
    """Leave the arrays that an optimizer never changes out of every mask.

    Args:
      unchanged: Their names.
      task: A member's.
      routed: Its hyperparameters.

    Returns:
      The task and the hyperparameters; the same ones where the optimizer changes all arrays.
    """
    if not unchanged:
        return task, routed
    decay = placement.changed(routed.decay, mask=lambda mask: fine_tuning.Without(mask, unchanged))
    mask = fine_tuning.Without(task.mask, unchanged)
    return replace(task, mask=mask), replace(routed, decay=decay)


def _warn(match: Match, params: Params, frozen: tuple[str, ...]) -> None:
    """Say what does not fit where that may be a mistake: frozen weights that are drawn, or new names and left-overs."""
    given = {name for name, _ in tree.named_leaves(match.params)}
    new = [name for name, _ in tree.named_leaves(params) if name not in given]
    drawn = [name for name in new if name in frozen]
    table = "wd.Initial(...).describe(params) shows the table."
    if drawn:
        warn(f"trainable freezes {', '.join(drawn)}, which initial does not give: drawn from the seed. {table}")
    elif new and match.left_over:
        warn(
            f"initial gives {len(given)} arrays; drawn from the seed: {', '.join(new)}; left over: "
            f"{', '.join(match.left_over)}. {table}"
        )
