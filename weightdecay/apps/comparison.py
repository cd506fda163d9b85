"""What decay adds to, and takes from, other regularizers: `compare` gives each method the same number of trials.

A method is a few axes of a grid with distributions. Each draws the same number of trials, is chosen on validation data
by the mean over seeds, and its choice is scored on the test examples. All trials of all methods train as one grid.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from weightdecay.core.statistics import rounded
from weightdecay.core.types import Integer, LossFn
from weightdecay.data import Data
from weightdecay.decay import L2, Decoupled, ProximalL1
from weightdecay.engine import fit, routing
from weightdecay.results import selection
from weightdecay.results.grid_result import GridResult
from weightdecay.results.selection import Choice
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
    """The regularizers that a model and its data can take, each alone and beside decoupled decay.

    Args:
      model: As `fit_grid` takes it. With an axis ``dropout_rate`` there is dropout, with a field ``normalization``
        batch normalization.
      data: Inputs that are images can be shifted and cut out, other real ones take noise.
      patience: Evaluations without a better validation metric, after which early stopping stops.

    Returns:
      Axes by the method's name, as `weightdecay.Grid.random` takes them.
    """
    others: dict[str, dict[str, Any]] = {}
    taken = routing.by_network(model)
    if "dropout_rate" in taken.traced:
        others["dropout"] = {"dropout_rate": Uniform(0.02, 0.6)}
    if "normalization" in taken.fields:
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
    """Compare regularizers at the same budget, honestly.

    Every method gets ``num_trials`` candidates with the same ``num_trials`` learning rates, each trained with every
    seed; its best candidate is chosen by the mean validation metric and scored on the test examples. "No
    regularization" is a method like any other: its trials differ in the learning rate alone.

    Args:
      model: As `fit_grid` takes it.
      data: Training, validation and test examples.
      num_trials: Candidates of each method, >= 1.
      seeds: Replicates of each candidate.
      learning_rate: A distribution, or values; the same draws for every method.
      methods: Axes by the method's name, as `weightdecay.Grid.random` takes them (``{}`` = nothing but the learning
        rate); None = those of `weightdecay.apps.comparison.regularizers`.
      metric: Validation metric to choose by.
      seed: Of the draws.
      **settings: ``num_steps``, ``batch_size`` and the other arguments of `fit_grid`.

    Returns:
      The comparison; print it.

    Raises:
      TypeError: As `fit_grid`.
      ValueError: As `fit_grid`; no test examples; fewer distinct candidates than trials.

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
        raise ValueError(
            "data has no validation and test examples of its own; give wd.data.digits(), wd.data.split(...) or "
            "wd.Data(train=..., validation=..., test=...)."
        )
    given = regularizers(model, data) if methods is None else {name: dict(own) for name, own in methods.items()}
    if not given:
        raise ValueError("methods is empty; give axes by name, such as {'none': {}, 'dropout': {'dropout_rate': ...}}.")
    drawn = {
        name: Grid.random(num_trials, seed, seeds=seeds, **{"learning_rate": learning_rate, **own})
        for name, own in given.items()
    }
    whole = sum(list(drawn.values())[1:], start=next(iter(drawn.values())))
    result = fit.fit_grid(model, data, whole, stopping_metric=metric, **settings)
    identity = member_json.identity
    numbers = {identity(member): number for member, number in zip(whole, member_json.candidates(whole), strict=True)}
    trials = {name: sorted({numbers[identity(member)] for member in own}) for name, own in drawn.items()}
    return Comparison.of(result, data, trials, metric=metric, loss=settings.get("loss"))


@dataclass(frozen=True)
class Comparison:
    """Methods, each with its chosen candidate and what that is worth on the test examples.

    Attributes:
      result: All trials of all methods.
      trials: Candidates of each method, by the method's name.
      chosen: The candidate of each that validation data chose, without the methods of which every trial diverged.
      metric: Validation metric that chose.
      losses: On each test example, by the method's name, shape ``(seeds, examples)``.
      correct: Whether each test example is right, likewise; nan where the loss has no accuracy.
    """

    result: GridResult
    trials: dict[str, list[int]]
    chosen: dict[str, Choice]
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
          data: What they were trained on.
          trials: Candidates by the method's name.
          metric: Validation metric to choose by.
          loss: As `fit_grid` was given it.

        Returns:
          The comparison.

        Raises:
          ValueError: Every trial of every method diverged.
        """
        candidates = result.candidates(metric)
        chosen = {}
        for name, numbers in trials.items():
            own = [candidates[number] for number in numbers]
            if any(np.isfinite(one.mean) for one in own):
                chosen[name] = selection.choose(own, metric=metric)
        if not chosen:
            raise ValueError("every trial of every method diverged; give lower learning rates.")
        splits = data.batches()
        test, own_loss = splits["test"], losses.resolve(loss, splits["train"].targets)
        scored: dict[str, list[tuple[Any, Any]]] = {name: [] for name in chosen}
        for name, choice in chosen.items():
            for member in choice.members:
                outputs = own_loss.align(result.predict(test.inputs, member), test.targets)
                scores = own_loss.per_example(outputs, test.targets), own_loss.correct(outputs, test.targets)
                scored[name].append(scores)
        return cls(
            result,
            {name: list(numbers) for name, numbers in trials.items()},
            chosen,
            metric,
            {name: np.array([one for one, _ in own], np.float64) for name, own in scored.items()},
            {name: np.array([one for _, one in own], np.float64) for name, own in scored.items()},
        )

    @property
    def scored_by(self) -> str:
        """What the methods are ranked by: ``"test_accuracy"`` where there is one, else ``"test_loss"``."""
        return "test_loss" if np.isnan(next(iter(self.correct.values()))).any() else "test_accuracy"

    @cached_property
    def ranking(self) -> list[str]:
        """Methods from the best to the worst mean on the test examples."""
        sign = -1 if self.scored_by == "test_accuracy" else 1
        return sorted(self.chosen, key=lambda name: sign * self._scores[name].mean())

    def table(self) -> pd.DataFrame:
        """One row a method, the best first.

        Returns:
          Index ``method``; ``candidate`` and its ``hyperparameters`` in words; ``trials``; the validation metric; mean
          ``test_accuracy`` (where there is one) and ``test_loss`` over seeds, each with a ``..._standard_error`` that
          holds the noise of the seeds and that of the test examples; ``zero_fraction`` of the weights that decay;
          ``behind``, by how much the best of the table is better, with ``behind_standard_error``, ``p_value`` and
          ``within_noise`` as `differences` has them.
        """
        last = self.result.dataset["zero_fraction"].values[:, -1]
        against = self.differences(self.ranking[0])
        rows = []
        for name in self.ranking:
            choice = self.chosen[name]
            row: dict[str, Any] = {
                "method": name,
                "candidate": choice.number,
                "hyperparameters": _in_words(choice),
                "trials": len(self.trials[name]),
                self.metric: choice.mean,
                f"{self.metric}_standard_error": choice.standard_error,
            }
            for score, values in {"test_accuracy": self.correct, "test_loss": self.losses}.items():
                if not np.isnan(values[name]).any():
                    row[score], row[f"{score}_standard_error"] = mean_and_error(values[name])[:2]
            row["zero_fraction"] = last[list(choice.members)].mean()
            rows.append({**row, **against.loc[name].rename(lambda column: _BEHIND.get(column, column))})
        return pd.DataFrame(rows).set_index("method")

    def differences(self, reference: str = "no regularization") -> pd.DataFrame:
        """By how much each method is worse than one of them on the test examples.

        Args:
          reference: A method's name.

        Returns:
          Index ``method``; ``mean`` of reference less method for an accuracy, of method less reference for a loss;
          ``standard_error`` of that difference, which is taken test example by test example and seed by seed, so that
          what both find hard drops out: ``√(s²_seeds / seeds + s²_examples / examples)``; ``p_value`` of no difference,
          by Student's t with Welch and Satterthwaite's degrees of freedom and Holm's correction for the number of
          methods; ``within_noise``, whether it is above 0.05.

        Raises:
          ValueError: No such method.
        """
        from scipy import special

        if reference not in self.chosen:
            raise ValueError(f"reference is {reference!r}; give one of {', '.join(self.chosen)}.")
        sign = 1 if self.scored_by == "test_accuracy" else -1
        rows = []
        for name in self.ranking:
            mean, error, degrees = mean_and_error(sign * (self._scores[reference] - self._scores[name]))
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
        """What came out, in plain words."""
        table = self.table()
        best = self.ranking[0]
        alike = [name for name in self.ranking[1:] if table.loc[name, "within_noise"]]
        score = self.scored_by.replace("_", " ")
        shown = rounded(table.loc[best, self.scored_by], table.loc[best, f"{self.scored_by}_standard_error"])
        told = f"Best {score}: {best}, {shown}"
        if not alike:
            return f"{told}; every other method is behind by more than noise."
        return f"{told}; not to be told from it: {', '.join(alike)}."

    def plot(self, *, ax: Any = None) -> Any:
        """Plot the scores with their errors, the best first; see `weightdecay.plots.paths.ranking`."""
        from weightdecay.plots import paths

        return paths.ranking(self.table(), self.scored_by, ax=ax)

    def __str__(self) -> str:
        """Return the table in columns, and what came out."""
        table, score = self.table(), self.scored_by
        cells = [
            ["method", score.replace("_", " "), "behind the best", self.metric.replace("_", " "), "zeros", "chosen"]
        ]
        for name, row in table.to_dict("index").items():
            behind = "" if name == self.ranking[0] else rounded(row["behind"], row["behind_standard_error"])
            cells.append(
                [
                    str(name),
                    rounded(row[score], row[f"{score}_standard_error"]),
                    behind + (" (noise)" if behind and row["within_noise"] else ""),
                    rounded(row[self.metric], row[f"{self.metric}_standard_error"]),
                    f"{100 * row['zero_fraction']:.1f} %",
                    str(row["hyperparameters"]),
                ]
            )
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
        ]
        lost = [name for name in self.trials if name not in self.chosen]
        if lost:
            lines.append(f"Every trial diverged of: {', '.join(lost)}.")
        return "\n".join([*lines, "", self.sentence])

    @property
    def _scores(self) -> dict[str, np.ndarray]:
        return self.correct if self.scored_by == "test_accuracy" else self.losses


def _in_words(choice: Choice) -> str:
    others = (
        f"{name.replace('_', ' ')} {value:.2g}" if isinstance(value, float) else f"{name.replace('_', ' ')} {value}"
        for name, value in choice.others.items()
    )
    return ", ".join([*([] if choice.is_without_decay else [str(choice.decay)]), *others])


_BEHIND = {"mean": "behind", "standard_error": "behind_standard_error"}


def mean_and_error(values: np.ndarray) -> tuple[float, float, float]:
    """Mean over seeds and examples, with the noise of both.

    Args:
      values: Shape ``(seeds, examples)``.

    Returns:
      The mean; its standard error, ``√(s²_seeds / seeds + s²_examples / examples)``; and Welch and Satterthwaite's
      degrees of freedom.
    """
    parts = []
    for axis in (1, 0):  # over examples: one number a seed; over seeds: one number an example
        means = values.mean(axis=axis)
        if len(means) > 1:
            parts.append((means.var(ddof=1) / len(means), len(means) - 1))
    variance = sum(part for part, _ in parts)
    if not parts or variance == 0:
        return float(values.mean()), 0.0 if parts else np.nan, np.inf
    degrees = variance**2 / sum(part**2 / free for part, free in parts)
    return float(values.mean()), float(np.sqrt(variance)), float(degrees)


def _holm(p_values: np.ndarray) -> np.ndarray:
    """P-values that hold for all of them together.

    References:
      Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    order = np.argsort(p_values)
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p_values[order] * factors))
    return adjusted
