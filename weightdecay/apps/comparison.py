"""Compare decay with other regularizers at the same budget: `compare` gives each method the same number of trials.

A method is a few axes of a grid with distributions. Each method draws the same number of trials, its best trial is
chosen by the mean validation metric over seeds, and that choice is scored on the test examples. All trials of all
methods train as one grid.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd

from weightdecay.core import metrics, text
from weightdecay.core.checks import ArgumentError, one_of
from weightdecay.core.statistics import mean_over_seeds_and_examples
from weightdecay.core.types import Integer, LossFn
from weightdecay.data import Data, on_disk
from weightdecay.decay import L2, Decoupled, ProximalL1
from weightdecay.engine import fit, routing
from weightdecay.results import selection
from weightdecay.results.grid_result import GridResult
from weightdecay.results.selected import Selected
from weightdecay.search import member as member_json
from weightdecay.search.distributions import LogUniform, Uniform
from weightdecay.search.grid import Grid
from weightdecay.training import losses

_LEARNING_RATES = LogUniform(3e-4, 1e-2)  # of Adam
_DECAYS = {
    "coupled L2": {"decay": L2(LogUniform(1e-6, 1e-1))},
    "decoupled decay": {"decay": Decoupled(LogUniform(1e-3, 1e1))},
    "L1": {"decay": ProximalL1(LogUniform(1e-7, 1e-2))},
}
_PAIRED = "decoupled decay"


def regularizers(model: Any, data: Data, *, patience: Any = (2, 3, 4)) -> dict[str, dict[str, Any]]:
    """Regularizers that apply to a model and its data, each alone and combined with decoupled decay.

    Args:
      model: As in `fit_grid`. An axis ``dropout_rate`` adds dropout, a field ``normalization`` batch normalization.
      data: Images are augmented by shifts and cutout, other real inputs by noise.
      patience: Values for early stopping: a member stops after this number of evaluations without a better validation
        metric.

    Returns:
      Axes by the method's name, as in `weightdecay.Grid.random`.
    """
    others: dict[str, dict[str, Any]] = {}
    axes = routing.network_axes(model)
    if "dropout_rate" in axes.traced:
        others["dropout"] = {"dropout_rate": Uniform(0.02, 0.6)}
    if "normalization" in axes.fields:
        others["batch normalization"] = {"normalization": "batch"}
    others["early stopping"] = {"patience": list(patience)}
    inputs = np.asarray(data.train[0])
    if inputs.ndim == 4:
        others["augmentation"] = {"shift": Uniform(0.0, max(inputs.shape[1:3]) / 8), "cutout": Uniform(0.0, 0.4)}
    elif np.issubdtype(inputs.dtype, np.floating):
        spread = float(inputs.std(axis=0).mean())
        others["augmentation"] = {"input_noise": LogUniform(0.03 * spread, spread)}
    pairs = {f"{_PAIRED} + {name}": {**_DECAYS[_PAIRED], **other} for name, other in others.items()}
    return {"no regularization": {}, **_DECAYS, **others, **pairs}


def compare(
    model: Any,
    data: Data,
    *,
    num_trials: Integer = 16,
    seeds: Any = range(3),
    learning_rate: Any = _LEARNING_RATES,
    methods: Mapping[str, Mapping[str, Any]] | None = None,
    metric: str = "validation_loss",
    seed: Integer = 0,
    **settings: Any,
) -> "Comparison":
    """Compare regularizers at the same budget.

    Every method has ``num_trials`` candidates with the same ``num_trials`` learning rates; each candidate is trained
    with every seed. The best candidate of a method is chosen by the mean validation metric and scored on the test
    examples. "No regularization" is a method like any other: its trials differ only in the learning rate.

    Args:
      model: As in `fit_grid`.
      data: Training, validation and test examples.
      num_trials: Number of candidates of each method, >= 1.
      seeds: Seeds of the replicates of each candidate.
      learning_rate: A distribution, or values; every method has the same draws.
      methods: Axes by the method's name, as in `weightdecay.Grid.random` (``{}`` = only the learning rate); None = the
        result of `weightdecay.apps.comparison.regularizers`.
      metric: Validation metric of the choices.
      seed: Seed of the draws.
      **settings: ``num_steps``, ``batch_size`` and the other arguments of `fit_grid`.

    Returns:
      The comparison; print it.

    Raises:
      TypeError: As in `fit_grid`.
      ValueError: As in `fit_grid`; no test examples; fewer distinct candidates than trials.

    Examples:
      >>> from weightdecay import data, models
      >>> few = {"no decay": {}, "decoupled": {"decay": Decoupled(LogUniform(1e-2, 1.0))}}
      >>> compared = compare(
      ...     models.MLP((8,)), data.digits(num_train=100), num_trials=2, seeds=range(2), methods=few,
      ...     num_steps=20, batch_size=32, progress=False,
      ... )
      >>> len(compared.result), sorted(compared.table().index)
      (8, ['decoupled', 'no decay'])
    """
    if not isinstance(data, Data) or data.test is None or data.num_folds is not None:
        raise ArgumentError(
            "data",
            "data has no separate validation and test examples; give wd.data.digits(), wd.data.split(...) or "
            "wd.Data(train=..., validation=..., test=...).",
        )
    compared = regularizers(model, data) if methods is None else {name: dict(axes) for name, axes in methods.items()}
    if not compared:
        raise ArgumentError(
            "methods", "methods is empty; give axes by name, such as {'none': {}, 'dropout': {'dropout_rate': ...}}."
        )
    grids = {
        name: Grid.random(num_trials, seed, seeds=seeds, **{"learning_rate": learning_rate, **axes})
        for name, axes in compared.items()
    }
    grid = sum(list(grids.values())[1:], start=next(iter(grids.values())))
    result = fit.fit_grid(model, data, grid, stopping_metric=metric, **settings)
    identity = member_json.identity
    numbers = {identity(member): number for member, number in zip(grid, member_json.candidates(grid), strict=True)}
    trials = {name: sorted({numbers[identity(member)] for member in members}) for name, members in grids.items()}
    return Comparison.of(result, data, trials, metric=metric, loss=settings.get("loss"))


@dataclass(frozen=True)
class Comparison:
    """Methods with their chosen candidates and the scores of these on the test examples.

    Attributes:
      result: All trials of all methods.
      trials: Numbers of the candidates of each method, by the method's name.
      chosen: The candidate that validation data chose, by the method's name. A method all of whose trials diverged is
        missing.
      metric: Validation metric of the choices.
      losses: Loss on each test example, by the method's name, shape ``(seeds, examples)``.
      correct: Whether each test example is classified correctly, likewise; nan where the loss has no accuracy.
    """

    result: GridResult
    trials: dict[str, list[int]]
    chosen: dict[str, Selected]
    metric: str
    losses: dict[str, np.ndarray]
    correct: dict[str, np.ndarray]

    @classmethod
    def of(
        cls,
        result: GridResult,
        data: Data,
        trials: Mapping[str, Sequence[int]],
        *,
        metric: str,
        loss: str | LossFn | None = None,
    ) -> "Comparison":
        """Choose for each method, and score the choices on the test examples.

        Args:
          result: All trials.
          data: The examples that they were trained on.
          trials: Numbers of the candidates, by the method's name.
          metric: Validation metric of the choices.
          loss: The argument of `fit_grid`.

        Returns:
          The comparison.

        Raises:
          ArgumentError: All trials of all methods diverged.
        """
        candidates = result.candidates(metric)
        chosen = {}
        for name, numbers in trials.items():
            of_method = [candidates[number] for number in numbers]
            if any(np.isfinite(candidate.mean) for candidate in of_method):
                chosen[name] = selection.choose(
                    of_method, metric=metric, lower_is_better=result.settings.get("lower_is_better")
                )
        if not chosen:
            raise ArgumentError("learning_rate", "all trials of all methods diverged; give lower learning rates.")
        splits = data.with_class_indices(loss).batches()
        test, resolved = jax.tree.map(on_disk.in_memory, splits["test"]), losses.resolve(loss, splits["train"].targets)
        test_losses: dict[str, list[Any]] = {name: [] for name in chosen}
        correct: dict[str, list[Any]] = {name: [] for name in chosen}
        for name, choice in chosen.items():
            for member in choice.members:
                outputs = result.predict(test.inputs, member, average=metrics.is_of_average(metric))
                outputs = resolved.align(outputs, test.targets)
                test_losses[name].append(resolved.per_example(outputs, test.targets))
                correct[name].append(resolved.accuracy(outputs, test.targets))
        return cls(
            result,
            {name: list(numbers) for name, numbers in trials.items()},
            chosen,
            metric,
            {name: np.array(values, np.float64) for name, values in test_losses.items()},
            {name: np.array(values, np.float64) for name, values in correct.items()},
        )

    @property
    def scored_by(self) -> str:
        """Score of the ranking: ``"test_accuracy"`` if the loss has an accuracy, else ``"test_loss"``."""
        return "test_loss" if np.isnan(next(iter(self.correct.values()))).any() else "test_accuracy"

    @cached_property
    def ranking(self) -> list[str]:
        """Methods from the best to the worst mean score on the test examples."""
        sign = -1 if self.scored_by == "test_accuracy" else 1
        return sorted(self.chosen, key=lambda name: sign * self._scores[name].mean())

    def table(self) -> pd.DataFrame:
        """Table with one row per method, the best method first.

        Returns:
          Index ``method``; ``candidate`` and its ``hyperparameters`` as text; ``trials``; the validation metric; mean
          ``test_accuracy`` (where the loss has one) and ``test_loss`` over seeds, each with a ``..._standard_error``
          that includes the variation of seeds and of test examples; ``zero_fraction`` of the weights that decay;
          ``behind``, the lead of the best method, with ``behind_standard_error``, ``p_value`` and ``within_noise``, as
          in `differences`.
        """
        last = self.result.dataset["zero_fraction"].values[:, -1]
        against = self.differences(self.ranking[0])
        rows = []
        for name in self.ranking:
            choice = self.chosen[name]
            row: dict[str, Any] = {
                "method": name,
                "candidate": choice.number,
                "hyperparameters": _hyperparameters(choice),
                "trials": len(self.trials[name]),
                self.metric: choice.mean,
                f"{self.metric}_standard_error": choice.standard_error,
            }
            for score, values in {"test_accuracy": self.correct, "test_loss": self.losses}.items():
                if not np.isnan(values[name]).any():
                    row[score], row[f"{score}_standard_error"] = mean_over_seeds_and_examples(values[name])[:2]
            row["zero_fraction"] = last[list(choice.members)].mean()
            rows.append({**row, **against.loc[name].rename(lambda column: _BEHIND.get(column, column))})
        return pd.DataFrame(rows).set_index("method")

    def differences(self, reference: str = "no regularization") -> pd.DataFrame:
        """Difference of each method to one of them on the test examples.

        Args:
          reference: A method's name.

        Returns:
          Index ``method``; ``mean``, by how much the method is worse: reference minus method for an accuracy, method
          minus reference for a loss; ``standard_error`` of that mean, ``√(s²_seeds / seeds + s²_examples / examples)``.
          The differences are paired by seed and by test example, so that examples that are difficult for both methods
          cancel. ``p_value`` of no difference, by Student's t with the degrees of freedom of Welch and Satterthwaite
          and Holm's correction for the number of methods; ``within_noise``, whether that is above 0.05.

        Raises:
          ArgumentError: Not a method.
        """
        from scipy import special

        one_of(reference, "reference", self.chosen)
        sign = 1 if self.scored_by == "test_accuracy" else -1
        rows = []
        for name in self.ranking:
            mean, error, degrees = mean_over_seeds_and_examples(sign * (self._scores[reference] - self._scores[name]))
            p_value = (
                1.0 if name == reference else float(2 * special.stdtr(degrees, -abs(mean / error))) if error else np.nan
            )
            rows.append({"method": name, "mean": mean, "standard_error": error, "p_value": p_value})
        table = pd.DataFrame(rows).set_index("method")
        others = table.index != reference
        table.loc[others, "p_value"] = _holm(table.loc[others, "p_value"].to_numpy())
        table["within_noise"] = ~(table["p_value"] <= 0.05)
        return table

    @property
    def sentence(self) -> str:
        """The conclusion, as a sentence."""
        table = self.table()
        best = self.ranking[0]
        within_noise = [name for name in self.ranking[1:] if table.loc[name, "within_noise"]]
        score = self.scored_by.replace("_", " ")
        shown = text.estimate(table.loc[best, self.scored_by], table.loc[best, f"{self.scored_by}_standard_error"])
        start = f"Best {score}: {best}, {shown}"
        if not within_noise:
            return f"{start}; every other method is worse by more than noise."
        return f"{start}; the difference to these methods is within noise: {', '.join(within_noise)}."

    def plot(self, *, ax: Any = None) -> Any:
        """Plot the scores with their standard errors, the best first; see `weightdecay.plots.ranking.ranking`."""
        from weightdecay.plots.ranking import ranking

        return ranking(self.table(), self.scored_by, ax=ax)

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write the comparison as one HTML page, as ``result.report`` does; see `weightdecay.apps.comparison_page`.

        Args:
          path: An ``.html`` file. An existing report is replaced, any other file is not touched.

        Returns:
          The path.

        Raises:
          FileExistsError: The file exists and is not a report.
          ArgumentError: The path has another extension.
        """
        from weightdecay.apps import comparison_page
        from weightdecay.results.report import page

        return page.write(path, comparison_page.page(self))

    def cells(self) -> list[list[str]]:
        """Return the table as text: a row of names, and one for each method, the best one first."""
        table, score = self.table(), self.scored_by
        cells = [
            ["method", score.replace("_", " "), "behind the best", self.metric.replace("_", " "), "zeros", "chosen"]
        ]
        for name, row in table.to_dict("index").items():
            behind = "" if name == self.ranking[0] else text.estimate(row["behind"], row["behind_standard_error"])
            cells.append(
                [
                    str(name),
                    text.estimate(row[score], row[f"{score}_standard_error"]),
                    behind + (" (noise)" if behind and row["within_noise"] else ""),
                    text.estimate(row[self.metric], row[f"{self.metric}_standard_error"]),
                    f"{100 * row['zero_fraction']:.1f} %",
                    str(row["hyperparameters"]),
                ]
            )
        return cells

    def lines(self, cells: Sequence[Sequence[str]]) -> list[str]:
        """Return the lines of a table with aligned columns, and those methods all of whose trials diverged.

        Args:
          cells: As `cells` returns them, or some columns of it.

        Returns:
          The lines.
        """
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
        ]
        lost = [name for name in self.trials if name not in self.chosen]
        return [*lines, *([f"All trials diverged: {', '.join(lost)}."] if lost else [])]

    def __str__(self) -> str:
        """Return the table with aligned columns, and the conclusion."""
        return "\n".join([*self.lines(self.cells()), "", self.sentence])

    @property
    def _scores(self) -> dict[str, np.ndarray]:
        return self.correct if self.scored_by == "test_accuracy" else self.losses


def _hyperparameters(choice: Selected) -> str:
    """Decay and other hyperparameters of a candidate, as text."""
    others = (
        f"{name.replace('_', ' ')} {value:.2g}" if isinstance(value, float) else f"{name.replace('_', ' ')} {value}"
        for name, value in choice.others.items()
    )
    return ", ".join([*([] if choice.is_without_decay else [str(choice.decay)]), *others])


_BEHIND = {"mean": "behind", "standard_error": "behind_standard_error"}


def _holm(p_values: np.ndarray) -> np.ndarray:
    """P-values corrected for their number, by Holm's procedure.

    References:
      Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    order = np.argsort(p_values)
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p_values[order] * factors))
    return adjusted
