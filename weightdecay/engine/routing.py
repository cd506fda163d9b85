"""Route each grid axis to its consumer (training, network or optimizer), and decide which values are traced.

A number is traced, so that members that differ in numbers share a compiled program. A string, a bool, None or a tuple
changes the structure of the optimizer or of the network, so each such value has a program of its own. The structure of
a member depends on that member alone.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from weightdecay.core import checks, text
from weightdecay.core.checks import ArgumentError, ArgumentTypeError
from weightdecay.core.types import Batch
from weightdecay.data import Scaling, augment
from weightdecay.decay import Rule
from weightdecay.decay.placement import parts
from weightdecay.models import network as networks
from weightdecay.search.grid import Grid
from weightdecay.search.member import REPLICATES
from weightdecay.training.task import EPOCHS, REGULARIZERS, Hyperparameters, Task

_ENGINE_AXES = ("decay", "learning_rate", *REPLICATES)


@dataclass(frozen=True)
class RoutedMember:
    """Hyperparameters of a member, by their consumer."""

    decay: Rule
    learning_rate: Any
    seed: int
    fold: int | None
    training: dict[str, Any]
    network: dict[str, Any]
    optimizer: dict[str, Any]
    options: tuple[tuple[str, Any], ...]
    """Arguments of the optimizer that change its structure, as pairs of a name and a value."""
    model_options: tuple[tuple[str, Any], ...]
    """Fields of the model, each of which changes its structure, as pairs of a name and a value."""

    def task(self, task: Task) -> Task:
        """Return the task of this member: the common task with its own options."""
        model = networks.with_options(task.model, dict(self.model_options)) if self.model_options else task.model
        return replace(task, model=model, options=self.options, averages="ema" in self.training)

    def num_examples(self, train: Batch, num_steps: int, batch_size: int | None) -> int | None:
        """Return how many training examples the member takes, the first ones; None = all of them.

        A member with the axis ``epochs`` takes ``round(num_steps * batch_size / epochs)``. If that is more than there
        are by less than a batch, it takes all of them.

        Args:
          train: Training examples, those of all folds.
          num_steps: Last step of the member.
          batch_size: Examples a step; None = all.

        Raises:
          ValueError: More examples than there are, fewer than one batch, or no batches.
        """
        epochs = self.training.get(EPOCHS)
        if epochs is None:
            return None
        allowed = "a number of epochs above 0, or None to take all training examples"
        epochs = checks.number(epochs, EPOCHS, above=0, allowed=allowed)
        if batch_size is None:
            raise ArgumentError(
                "batch_size",
                "batch_size is None, so that each step takes all examples, and grid has an axis 'epochs'; "
                "give a number of examples a step.",
            )
        available = train.num_examples if self.fold is None else int(np.count_nonzero(train.fold != self.fold))
        number = round(num_steps * batch_size / epochs)
        if not batch_size <= number < available + batch_size:
            raise ArgumentError(
                EPOCHS,
                f"epochs is {epochs:g}: {num_steps} steps of {batch_size} examples are that many epochs of {number} "
                f"examples, and there are {available} for training; give "
                f"{num_steps * batch_size / available:.4g} to {num_steps}, another num_steps, or more data.",
            )
        return min(number, available)

    def hyperparameters(self, decay: Rule, scaling: Scaling | None, num_examples: int | None = None) -> Hyperparameters:
        """Return the traced hyperparameters, as NumPy numbers.

        Args:
          decay: The rule in its normal form.
          scaling: What standardizes the examples, of all folds; None = no folds.
          num_examples: As `num_examples` returns it.

        Returns:
          The hyperparameters, each leaf of shape ``()`` but for the scaling of the member's fold.
        """
        numbers = {name: value for name, value in self.training.items() if name not in ("patience", EPOCHS)}
        training = jax.tree.map(real, numbers)
        if num_examples is not None:
            training["num_examples"] = np.asarray(num_examples, np.int32)
        if self.training.get("patience") is not None:
            training["patience"] = np.asarray(self.training["patience"], np.int32)
        of_fold = None
        if scaling is not None and self.fold is not None:
            of_fold = jax.tree.map(real, scaling.of_fold(self.fold))
        return Hyperparameters(
            decay=jax.tree.map(real, decay),
            learning_rate=jax.tree.map(real, self.learning_rate),
            seed=np.asarray(self.seed, np.int32),
            optimizer=jax.tree.map(real, self.optimizer),
            training=training,
            network=jax.tree.map(real, self.network),
            fold=None if self.fold is None else np.asarray(self.fold, np.int32),
            scaling=of_fold,
        )


class NetworkAxes(NamedTuple):
    """Names of the axes that a network takes."""

    traced: frozenset[str]  # numbers that may be traced
    fields: frozenset[str]  # fields of the model, which change its structure


def network_axes(model: Any) -> NetworkAxes:
    """Find the axes that a model takes.

    Args:
      model: What is trained.

    Returns:
      The names of the axes.
    """
    return NetworkAxes(networks.traced_axes(model), networks.static_axes(model))


def route(member: Mapping[str, Any], taken: NetworkAxes, *, patience: int | None = None) -> RoutedMember:
    """Route every axis of a member to its consumer; an axis that nobody else takes goes to the optimizer.

    Args:
      member: Hyperparameters by name.
      taken: Axes that the network takes.
      patience: Patience of members that have none of their own.

    Returns:
      The hyperparameters by consumer.
    """
    rules = parts(member["decay"])
    alone = len(rules) == 1 and rules[0][1] is None
    others = {name: value for name, value in member.items() if name not in _ENGINE_AXES}
    training = {name: others.pop(name) for name in (*REGULARIZERS, EPOCHS) if name in others}
    training.setdefault("patience", patience)
    if "clip_norm" in training and training["clip_norm"] is None:
        training["clip_norm"] = np.inf
    if "ema" in training and training["ema"] is None:
        del training["ema"]
    network = {name: others.pop(name) for name in taken.traced & others.keys()}
    model_options = {name: others.pop(name) for name in taken.fields & others.keys()}
    options = {name: value for name, value in others.items() if not _is_number(value)}
    return RoutedMember(
        decay=rules[0][0] if alone else member["decay"],
        learning_rate=member["learning_rate"],
        seed=member["seed"],
        fold=member.get("fold"),
        training=training,
        network=network,
        optimizer={name: value for name, value in others.items() if name not in options},
        options=tuple(sorted(options.items())),
        model_options=tuple(sorted(model_options.items())),
    )


def check(
    members: Grid, task: Task, splits: Mapping[str, Batch], *, num_folds: int | None, patience: int | None
) -> None:
    """Validate the axes of a grid.

    Args:
      members: The grid.
      task: What is trained.
      splits: Examples by name.
      num_folds: Number of folds of the data; None = the data has validation examples.
      patience: Argument of `fit_grid`.

    Raises:
      ValueError: An axis that nobody takes, or one that does not fit the loss, the inputs or the data.
    """
    if any("learning_rate" not in member for member in members):
        written = next((name for name in members[0] if text.suggestion(name, ["learning_rate"])), None)
        hint = "" if written is None else f" Did you mean 'learning_rate' by {written!r}?"
        raise ValueError(
            f"grid has no axis learning_rate; add one, as in wd.Grid(decay=[...], learning_rate=[1e-3]).{hint}"
        )
    names = {name: None for member in members for name in member}
    if patience is not None and "patience" in names:
        raise ValueError("patience is an axis of the grid and an argument as well; give it once.")
    if "label_smoothing" in names and not task.loss.smooths:
        raise ValueError(
            f"grid has an axis 'label_smoothing', but loss {task.loss.name!r} has no labels to smooth; it goes with "
            "softmax_cross_entropy and sigmoid_cross_entropy."
        )
    for name in names:
        if name in augment.KINDS or name == "mixup":
            inputs = splits["train"].inputs
            if hasattr(inputs, "shape"):
                augment.check(name, inputs.shape, inputs.dtype)
            else:
                augment.leaf(name, inputs, task.augmented)
    _check_folds(members, num_folds)
    _check_taken(names, task)


def _check_folds(members: Grid, num_folds: int | None) -> None:
    folds = {member.get("fold") for member in members}
    if num_folds is None and folds != {None}:
        raise ValueError(
            "grid has an axis 'fold', but data has validation examples and no folds; give wd.data.folds(inputs, "
            "targets, num_folds=5)."
        )
    if num_folds is not None and not folds <= set(range(num_folds)):
        wrong = sorted(str(fold) for fold in folds - set(range(num_folds)))
        raise ValueError(
            f"data has {num_folds} folds, but a member's fold is {', '.join(wrong)}; add the axis "
            f"fold=range({num_folds}) to the grid."
        )


def _check_taken(names: Mapping[str, Any], task: Task) -> None:
    parameters = inspect.signature(task.optimizer).parameters.values()
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    named = (p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
    known = [p.name for p in named if p.name not in ("decay", "mask", "learning_rate")]
    network = frozenset().union(*network_axes(task.model))
    for name in names:
        takers = [taker for taker, takes in (("the model", network), ("the optimizer", known)) if name in takes]
        if name == EPOCHS:
            takers.insert(0, "training")
        if len(takers) > 1:
            which = "one of them" if takers[0] == "the model" else f"the argument of {takers[1]}"
            raise ValueError(
                f"grid has an axis {name!r}, which both {takers[0]} and {takers[1]} take; give {which} another name."
            )
        taken = name in _ENGINE_AXES or name in REGULARIZERS or bool(takers)
        if not taken and not takes_any:
            suggestion = text.suggestion(name, [*REGULARIZERS, EPOCHS, *network, *known])
            raise ValueError(
                f"grid has an axis {name!r}, which nobody takes.{suggestion} "
                f"Training takes {', '.join((*REGULARIZERS, EPOCHS))}; the model "
                f"{', '.join(sorted(network)) or 'nothing'}; the optimizer {', '.join(known) or 'nothing'}."
            )


def check_optimizer(optimizer: Callable[..., Any]) -> None:
    """Validate the argument ``optimizer`` of `fit_grid`.

    Args:
      optimizer: What the user passed.

    Raises:
      TypeError: It is not a function, or takes no ``decay`` and ``mask``.
    """
    if not callable(optimizer):
        raise ArgumentTypeError(
            "optimizer",
            f"optimizer is {text.shortened(optimizer)}; give wd.adam, wd.sgd or a function of learning_rate, decay and "
            "mask.",
        )
    parameters = inspect.signature(optimizer).parameters.values()
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    if not takes_any and not {"decay", "mask"} <= {p.name for p in parameters}:
        name = getattr(optimizer, "__name__", None) or repr(optimizer)
        raise ArgumentTypeError(
            "optimizer",
            f"optimizer is {name}, which takes no decay and mask; give wd.adam, wd.sgd or a function, as "
            "lambda learning_rate, decay, mask: wd.optimizer(optax.scale_by_adam(), learning_rate, decay, mask=mask).",
        )


def real(value: Any) -> np.ndarray:
    """Return numbers in JAX's default precision, as a NumPy array."""
    return np.asarray(value, jnp.zeros(()).dtype)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)
