"""Cross-validation of a grid by any splitter and any scorer of scikit-learn.

`Examples` are the user's arrays, `train` trains the members of every split, and `choose` chooses by their scores.
`weightdecay.apps.estimators` is what a user calls.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from weightdecay.core.checks import ArgumentError
from weightdecay.data import Data, Scaling
from weightdecay.engine import fit
from weightdecay.models import zoo
from weightdecay.results import extension, selection
from weightdecay.results.candidates import gather
from weightdecay.results.dataset import subset
from weightdecay.results.grid_result import GridResult
from weightdecay.results.selected import Selected
from weightdecay.search.grid import Grid
from weightdecay.search.member import REPLICATES

Split = tuple[np.ndarray, np.ndarray]
"""Indices of the training and of the validation examples."""

LARGEST_BATCH = 200
"""Examples a step of ``batch_size="auto"``, where there are as many; that of scikit-learn's networks."""

_SMALLEST_SHAPE = 64  # rows of padded examples; larger numbers of rows are this times a power of 4
_SCORE = "validation_score"  # name of the scores of a scorer


@dataclass(frozen=True)
class Examples:
    """All examples that are given to an estimator.

    Attributes:
      inputs: Float, shape ``(examples, ...)``.
      targets: Classes, int32, shape ``(examples,)``; or real numbers, ``(examples,)`` or ``(examples, outputs)``.
      weights: Of the losses, float64, shape ``(examples,)``; None = all equal.
      num_classes: Number of classes; None = the targets are real numbers.
    """

    inputs: np.ndarray
    targets: np.ndarray
    weights: np.ndarray | None
    num_classes: int | None

    def rows(self, rows: np.ndarray) -> "Examples":
        """Return some of the examples."""
        weights = None if self.weights is None else self.weights[rows]
        return replace(self, inputs=self.inputs[rows], targets=self.targets[rows], weights=weights)

    def padded(self, rows: np.ndarray, held_out: np.ndarray) -> tuple["Examples", "Examples"]:
        """Return training and validation examples of one shape, which differ in their weights alone.

        Rows are added, up to a number that many sizes of data share, so that these share a compiled program. Rows that
        are added have the weight 0, as have those of the other part.

        Args:
          rows: Indices of the training examples.
          held_out: Indices of the validation examples.
        """
        number = len(self.targets)
        size = _SMALLEST_SHAPE * 4 ** max(0, math.ceil(math.log(number / _SMALLEST_SHAPE, 4)))
        every = self.rows(np.arange(size).clip(max=number - 1))
        weights = np.ones(number) if self.weights is None else self.weights

        def counting(counted: np.ndarray) -> "Examples":
            masked = np.zeros(size)
            masked[counted] = weights[counted]
            return replace(every, weights=masked)

        return counting(rows), counting(held_out)

    def target_scaling(self) -> tuple[Any, Any]:
        """Return the weighted mean and standard deviation of each real target, 1 if it is constant; of classes, None.

        Returns:
          Mean and scale in the unit of the targets, float64, each shape ``()`` or ``(outputs,)``.
        """
        if self.num_classes is not None:
            return None, None
        targets = self.targets.astype(np.float64)
        mean = np.average(targets, axis=0, weights=self.weights)
        scale = np.sqrt(np.average((targets - mean) ** 2, axis=0, weights=self.weights))
        is_constant = scale <= 1e-12 * np.abs(mean)  # rounding of the mean
        return mean, np.where(is_constant | (scale == 0), 1.0, scale)

    def scaled(self, mean: Any, scale: Any) -> tuple[Any, ...]:
        """Return inputs, standardized targets and, if there are any, weights, as `weightdecay.Data` takes them."""
        targets = self.targets
        if mean is not None:
            targets = ((targets - mean) / scale).astype(self.inputs.dtype)
        return (self.inputs, targets) if self.weights is None else (self.inputs, targets, self.weights)


@dataclass(frozen=True)
class Training:
    """How members are trained.

    Attributes:
      model: The network.
      axes: Axes of the grid by name, without ``seed`` and ``fold``.
      seeds: Seeds of the replicates.
      n_iter: Number of random candidates; None = all combinations of the axes.
      draw_seed: Seed of these draws.
      batch_size: Examples a step, an integer or ``"auto"``.
      num_steps: ``num_steps(examples, batch_size) -> int`` of a member.
      settings: Further arguments of `weightdecay.fit_grid`.
    """

    model: Any
    axes: Mapping[str, Any]
    seeds: Sequence[int]
    n_iter: int | None
    draw_seed: int
    batch_size: Any
    num_steps: Callable[[int, int], int]
    settings: Mapping[str, Any]

    def batch(self, num_examples: int) -> int:
        """Return the examples of a step, where a member takes so many examples in an epoch."""
        return min(LARGEST_BATCH if self.batch_size == "auto" else int(self.batch_size), num_examples)

    def pads(self, examples: Examples) -> bool:
        """Whether every step takes all examples of a network that computes each row on its own.

        Rows of weight 0 then change nothing but the rounding.
        """
        separates_rows = isinstance(self.model, zoo.OWN) and self.model.normalization != "batch"
        takes_all = self.batch(len(examples.targets)) == len(examples.targets)
        return separates_rows and takes_all and self.axes.keys() <= {"decay", "learning_rate"}

    def grid(self, folds: Any = None) -> Grid:
        """Return the grid of all candidates; where they are fewer than ``n_iter``, all of them."""
        if self.n_iter is None or self._has_at_most(self.n_iter):
            return Grid(**self.axes, seed=self.seeds, **({} if folds is None else {"fold": folds}))
        return Grid.random(self.n_iter, self.draw_seed, seeds=self.seeds, folds=folds, **self.axes)

    def _has_at_most(self, num: int) -> bool:
        """Whether the axes are lists with at most ``num`` combinations; False where one is a distribution."""
        try:
            return len(Grid(**self.axes)) <= num
        except (TypeError, ValueError):  # a distribution is not a value of an axis
            return False

    def fit(self, data: Data, grid: Grid, num_examples: int, **settings: Any) -> GridResult:
        """Train a grid on data in which a member takes ``num_examples`` in an epoch."""
        batch = self.batch(num_examples)
        takes_all = data.fold is None and batch == num_examples  # padded or not
        return fit.fit_grid(
            self.model,
            data,
            grid,
            num_steps=self.num_steps(num_examples, batch),
            batch_size=None if takes_all else batch,
            **{**self.settings, **settings},
        )


@dataclass(frozen=True)
class Trained:
    """The members of a cross-validation.

    Attributes:
      result: All members; where the splits are several, ``fold`` is the number of the split.
      splits: Training and validation examples of each split.
      scalings: Mean and scale of the targets of each split; None, None = they are not standardized.
    """

    result: GridResult
    splits: Sequence[Split]
    scalings: Sequence[tuple[Any, Any]]

    def split_of(self, member: int) -> int:
        """Return the number of the split of a member."""
        return int(self.result.members[member].get("fold") or 0)


def train(training: Training, examples: Examples, splits: Sequence[Split]) -> Trained:
    """Train all candidates on the training examples of every split.

    Splits that divide all examples into folds train as one grid, and the examples are in memory once. Others, such as
    those of `sklearn.model_selection.ShuffleSplit`, train one after the other.

    Args:
      training: How.
      examples: All examples.
      splits: Training and validation examples of each split.

    Returns:
      The trained members.
    """
    scalings = [examples.rows(rows).target_scaling() for rows, _ in splits]
    pads = training.pads(examples)
    fold = None if pads else _folds(examples, splits)
    if fold is not None:
        scaling = None
        if examples.num_classes is None:
            scaling = Scaling(None, None, *(np.stack(part) for part in zip(*scalings, strict=True)))
        data = Data(examples.scaled(None, None), fold=fold, scaling=scaling, num_classes=examples.num_classes)
        num_train = min(len(rows) for rows, _ in splits)
        return Trained(training.fit(data, training.grid(range(len(splits))), num_train), splits, scalings)
    results = []
    for number, (rows, held_out) in enumerate(splits):
        parts = examples.padded(rows, held_out) if pads else (examples.rows(rows), examples.rows(held_out))
        on_train, on_validation = (part.scaled(*scalings[number]) for part in parts)
        data = Data(on_train, on_validation, num_classes=examples.num_classes)
        results.append(training.fit(data, training.grid(), len(rows)))
        results[-1].settings["examples"] = {"train": len(rows), "validation": len(held_out)}
    if len(splits) > 1:
        results = [_numbered(result, number, results[0].settings, len(splits)) for number, result in enumerate(results)]
    together = results[0]
    for result in results[1:]:
        together = extension.join(together, result)
    return Trained(together, splits, scalings)


def refit(training: Training, examples: Examples, hyperparameters: Mapping[str, Any]) -> GridResult:
    """Train one candidate on all examples.

    Args:
      training: How.
      examples: All examples.
      hyperparameters: Of the candidate, by name.

    Returns:
      One member for each seed. Its validation metrics mean nothing: they are of training examples.
    """
    number, scaling = len(examples.targets), examples.target_scaling()
    if training.pads(examples):
        parts = examples.padded(np.arange(number), np.arange(number))
    else:
        counted = np.arange(1) if examples.weights is None else np.flatnonzero(examples.weights)[:1]
        parts = examples, examples.rows(counted)
    on_train, on_validation = (part.scaled(*scaling) for part in parts)
    data = Data(on_train, on_validation, num_classes=examples.num_classes)
    grid = Grid(**{name: [value] for name, value in hyperparameters.items()}, seed=training.seeds)
    return training.fit(data, grid, number, budget=None, strategy=None)


def choose(trained: Trained, scores: np.ndarray | None, criterion: str) -> tuple[Selected, dict[str, Any]]:
    """Choose a candidate.

    Args:
      trained: The members.
      scores: Score of each member on its validation examples, higher = better, nan = not to be chosen, shape
        ``(members,)``; None = the validation loss decides.
      criterion: As in ``result.best``.

    Returns:
      The chosen candidate; and the table of all candidates as `sklearn.model_selection.GridSearchCV` has it:
      ``params`` (a list), ``split0_test_score`` and so on (means over the seeds), ``mean_test_score`` and
      ``std_test_score`` of the splits, and ``rank_test_score``.
    """
    result, last = trained.result, trained.result.dataset.isel(step=-1)
    metric, values = _SCORE, scores
    if values is None:
        metric, values = "validation_loss", last["validation_loss"].values.astype(np.float64)
    higher_is_better = -values if scores is None else values
    num_folds = None if len(trained.splits) == 1 else len(trained.splits)
    candidates = gather(result.members, values, last["weight_norm"].values, num_folds=num_folds)
    if not np.isfinite([candidate.mean for candidate in candidates]).any():
        raise ArgumentError(
            "learning_rate",
            "no candidate has a finite score in every split: training diverged, or the scorer returned nan; give lower "
            "learning rates, or standardize the inputs, as with sklearn.preprocessing.StandardScaler.",
        )
    selected = selection.choose(
        candidates, metric=metric, criterion=criterion, num_folds=num_folds, lower_is_better={_SCORE: False}
    )
    of_splits = np.full((len(trained.splits), len(candidates)), np.nan)
    for number, candidate in enumerate(candidates):
        numbers = np.array([trained.split_of(member) for member in candidate.members])
        of_members = higher_is_better[list(candidate.members)]
        of_splits[:, number] = [of_members[numbers == split].mean() for split in range(len(of_splits))]
    mean = of_splits.mean(axis=0)
    ranks = np.where(np.isnan(mean), len(mean), [np.count_nonzero(mean > value) + 1 for value in mean])
    table = {
        "params": [dict(candidate.hyperparameters) for candidate in candidates],
        **{f"split{number}_test_score": scores for number, scores in enumerate(of_splits)},
        "mean_test_score": mean,
        "std_test_score": of_splits.std(axis=0),
        "rank_test_score": ranks.astype(np.int32),
    }
    return selected, table


def without_replicates(member: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters of a member without its seed and fold."""
    return {name: value for name, value in member.items() if name not in REPLICATES}


def _folds(examples: Examples, splits: Sequence[Split]) -> np.ndarray | None:
    """Number of the split in which each example validates; None where the splits are not folds of all examples."""
    fold = np.full(len(examples.targets), -1)
    for number, (train_rows, held_out) in enumerate(splits):
        together = np.concatenate([train_rows, held_out])
        if (fold[held_out] != -1).any() or not np.array_equal(np.sort(together), np.arange(len(fold))):
            return None
        fold[held_out] = number
    return None if len(splits) < 2 or (fold == -1).any() else fold


def _numbered(result: GridResult, number: int, settings: Mapping[str, Any], num_splits: int) -> GridResult:
    """Return the result of one of several splits, with the number of the split as the fold of its members."""
    members = [{**member, "fold": number} for member in result.members]
    own = {name: result.settings[name] for name in ("seconds", "compiled_programs", "interrupted")}
    return GridResult(
        subset(result.dataset, range(len(result)), members),
        members,
        [(result.params(member), result.model_state(member)) for member in range(len(result))],
        {**settings, **own, "folds": num_splits},
        model=result.model,
        versions=result.versions,
    )
