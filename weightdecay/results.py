"""What came of a grid: every metric with its labels, the table of candidates, the choice and its test score."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray

from weightdecay import checkpoints, folders, selection, tree
from weightdecay import grid as grids
from weightdecay.decay import NoDecay
from weightdecay.records import Records
from weightdecay.schedules import Parametric
from weightdecay.selection import Candidate, Choice
from weightdecay.types import Integer

_AVERAGED = (
    "validation_accuracy",
    "validation_loss",
    "train_accuracy",
    "train_loss",
    "penalty",
    "weight_norm",
    "zero_fraction",
)


class GridResult:
    """Result of a grid; `weightdecay.fit_grid` makes it and `weightdecay.load` reads it.

    Attributes:
      dataset: Every metric, an `xarray.Dataset` with the dimensions ``member`` and ``step`` (the evaluation steps).
        Coordinates along ``member``: ``decay`` (the rule's name), ``coefficient`` (nan where a rule has none; rules
        with several have one coordinate each), ``learning_rate``, ``seed``, every other axis of the grid, and
        ``candidate`` (members that differ in the seed alone share one). Along both: ``train_loss``, ``penalty``,
        ``train_accuracy``, ``validation_loss``, ``validation_accuracy``, ``weight_norm`` and ``zero_fraction`` (of the
        weights that decay). Along ``member``: ``diverged_at`` and ``stopped_at`` (step, -1 for never), and
        ``best_step``, the evaluation that is kept of a member with patience (-1 without). From ``diverged_at`` on, all
        metrics are nan, and so are those that an interrupted run did not reach.
      members: Hyperparameters of each member by name.
      settings: How the grid was run.
      model: The model, completed with what came from the data; None in a result read from disk.
    """

    def __init__(
        self,
        dataset: xarray.Dataset,
        members: Sequence[dict[str, Any]],
        weights: Sequence[Any],
        settings: Mapping[str, Any],
        *,
        model: Any = None,
        test: dict[str, Any] | None = None,
        score_test: Callable[[int, Any, Any], dict[str, float | None]] | None = None,
    ) -> None:
        """Take the parts; users have `weightdecay.fit_grid` and `weightdecay.load` do it."""
        self.dataset = dataset
        self.members = list(members)
        self.settings = dict(settings)
        self.model = model
        self._weights = weights
        self._test = test
        self._score_test = score_test

    @classmethod
    def build(
        cls,
        members: Sequence[dict[str, Any]],
        steps: Sequence[int],
        records: Records,
        settings: Mapping[str, Any],
        *,
        model: Any,
        score_test: Callable[[int, Any, Any], dict[str, float | None]] | None,
    ) -> "GridResult":
        """Put the trained members together.

        Args:
          members: Hyperparameters of each member by name.
          steps: Evaluation steps.
          records: What came of each member.
          settings: How the grid was run.
          model: The completed model.
          score_test: ``score_test(member, params, model_state) -> {"loss": ..., "accuracy": ...}`` with None for a number that
            is not finite; None without test examples.

        Returns:
          The result.
        """
        dataset = xarray.Dataset(
            {name: (("member", "step", "layer")[: values.ndim], values) for name, values in records.metrics.items()}
            | {name: ("member", values) for name, values in records.marks.items()},
            coords={"member": np.arange(len(members), dtype=np.int32), "step": np.array(steps, np.int32)}
            | {"layer": records.layers}
            | {name: ("member", values) for name, values in coordinates(members).items()},
        )
        return cls(dataset, members, records.weights, settings, model=model, score_test=score_test)

    def table(self) -> pd.DataFrame:
        """One row a candidate, averaged over seeds and folds at the last step.

        Returns:
          Index ``candidate``; the hyperparameters; mean ``validation_accuracy`` and ``validation_loss`` with their
          ``..._standard_error`` over them (nan for one alone); mean ``train_accuracy``, ``train_loss``, ``penalty``,
          ``weight_norm`` and ``zero_fraction``; metrics of your own, as the accuracies; ``generalization_gap``, which is
          training less validation accuracy, or validation less training loss where there is no accuracy; ``seeds``,
          which is how many replicates there are (seeds times folds), and how many of them ``diverged``. A mean with a
          nan in it is nan.
        """
        last = self.dataset.isel(step=-1)
        along = [name for name, values in self.dataset.coords.items() if values.dims == ("member",)]
        hyperparameters = [name for name in along if name not in ("member", "candidate", *grids.REPLICATES)]
        averaged = [*_AVERAGED, *(str(one) for one in last.data_vars if self.dataset[one].dims == ("member", "step"))]
        rows = []
        for candidate in self.candidates():
            here = last.isel(member=list(candidate.members))
            row: dict[Any, Any] = {name: here[name].values[0] for name in hyperparameters}
            for name in dict.fromkeys(averaged):
                row[name], error = selection.mean_and_error(here[name].values)
                if name.startswith("validation_"):
                    row[f"{name}_standard_error"] = error
            row["generalization_gap"] = (
                row["validation_loss"] - row["train_loss"]
                if self._has_no_accuracy()
                else row["train_accuracy"] - row["validation_accuracy"]
            )
            row["seeds"] = len(candidate.members)
            row["diverged"] = int((here["diverged_at"].values >= 0).sum())
            rows.append(row)
        return pd.DataFrame(rows, index=pd.RangeIndex(len(rows), name="candidate"))

    def candidates(self, metric: str = "validation_loss") -> list[Candidate]:
        """Return the candidates with a validation metric at the last step, averaged over seeds and folds."""
        selection.check_metric(metric, self.validation_metrics())
        last = self.dataset.isel(step=-1)
        return selection.gather(self.members, last[metric].values, last["weight_norm"].values)

    def validation_metrics(self) -> tuple[str, ...]:
        """Return the names of the metrics that a choice may be made by."""
        return tuple(str(name) for name in self.dataset.data_vars if str(name).startswith("validation_"))

    def best(self, criterion: str = "best_mean", *, metric: str = "validation_loss") -> Choice:
        """Choose a candidate on validation data.

        Args:
          criterion: ``"best_mean"``, or ``"one_standard_error"``: the most decayed candidate within one standard error
            of the best; see `weightdecay.selection.choose`.
          metric: ``"validation_loss"``, ``"validation_accuracy"`` or ``"validation_..."`` of a metric of your own, of which
            more is better, but where its name ends in ``loss`` or ``error``.

        Returns:
          The choice: ``.decay``, ``.hyperparameters``, ``.mean``, ``.standard_error``, ``.members``, ``.edge``,
          ``.advice``.

        Raises:
          ValueError: Unknown words, no finite candidate, or one seed where a standard error is needed.
        """
        died = self.dataset["diverged_at"].values
        if (died >= 0).all():
            raise ValueError(
                f"every one of the {len(self)} members diverged, the last at step {died.max()}; lower the learning "
                "rates or the coefficients."
            )
        return selection.choose(self.candidates(metric), metric=metric, criterion=criterion)

    def no_decay(self, *, metric: str = "validation_loss") -> Choice | None:
        """Choose among the candidates without decay alone.

        Args:
          metric: As in `best`.

        Returns:
          The best of them on validation data; None where the grid has none that is finite.
        """
        candidates = [c for c in self.candidates(metric) if isinstance(c.decay, NoDecay) and np.isfinite(c.mean)]
        return selection.choose(candidates, metric=metric) if candidates else None

    def test(self, criterion: str = "best_mean", *, metric: str = "validation_loss") -> pd.DataFrame:
        """Score the chosen candidate, and no decay beside it, on the test examples: once.

        The score is kept, also on disk. A test set that has been looked at can no longer judge another choice, so a
        call with another choice is refused.

        Args:
          criterion: As in `best`.
          metric: As in `best`.

        Returns:
          Index ``chosen`` and ``no decay``; columns ``candidate``, ``decay``, mean ``test_accuracy`` and ``test_loss``
          over the seeds, with their ``..._standard_error``.

        Raises:
          ValueError: No test examples, a result read from disk that was never scored, or another choice than before.
        """
        chosen, none = self.best(criterion, metric=metric), self.no_decay(metric=metric)
        wanted = {"chosen": chosen.number} | ({} if none is None else {"no decay": none.number})
        if self._test is not None and self._test["candidates"] != wanted:
            raise ValueError(
                f"the test set was already looked at for candidates {self._test['candidates']}, so it cannot judge "
                f"another choice, {wanted}; score that one on fresh data."
            )
        if self._test is None:
            if self._score_test is None:
                raise ValueError(
                    "there are no test examples: give wd.Data a test split, and call result.test() before "
                    "result.save()."
                )
            self._test = {
                "candidates": wanted,
                "scores": {
                    role: [self._score_test(index, *self._weights[index]) for index in choice.members]
                    for role, choice in (("chosen", chosen), ("no decay", none))
                    if choice is not None
                },
            }
        choices = {"chosen": chosen, "no decay": none}
        return pd.DataFrame({role: _test_row(choices[role], scores) for role, scores in self._test["scores"].items()}).T

    def params(self, member: Integer | None = None) -> Any:
        """Weights of a member after its last step, as the model itself holds them.

        Args:
          member: Its number; may be left out where there is one.

        Returns:
          The tree of weights, NumPy arrays; for a flax linen module ``model.apply({"params": ...}, inputs)`` takes it.

        Raises:
          IndexError: No such member.
        """
        return self._weights[self._index(member)][0]

    def model_state(self, member: Integer | None = None) -> Any:
        """What a member's model carries beside its weights, such as batch statistics.

        Args:
          member: Its number; may be left out where there is one.

        Returns:
          Collections by name; empty for a model without any.

        Raises:
          IndexError: No such member.
        """
        return self._weights[self._index(member)][1]

    def plot_path(self, metric: str = "validation_loss", *, ax: Any = None) -> Any:
        """Plot a metric against the coefficient, a line a rule; see `weightdecay.plots.path`."""
        from weightdecay import plots

        chosen_by = metric if metric in self.validation_metrics() else "validation_loss"
        return plots.path(self.table(), metric, chosen=self.best(metric=chosen_by), ax=ax)

    def plot_curves(self, *, ax: Any = None) -> Any:
        """Plot losses along training, of the chosen candidate and of no decay; see `weightdecay.plots.curves`."""
        from weightdecay import plots

        chosen, none = self.best(), self.no_decay()
        shown = {str(chosen.decay): chosen.members} | ({} if none is None else {"NoDecay()": none.members})
        return plots.curves(self.dataset, shown, ax=ax)

    def plot_sparsity(self, *, ax: Any = None) -> Any:
        """Plot the share of exact zeros against the coefficient, a line a rule; see `weightdecay.plots.sparsity`."""
        from weightdecay import plots

        return plots.sparsity(self.table(), ax=ax)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the result to a folder of ordinary files; see `weightdecay.folders`.

        Args:
          path: A new or an empty folder.
          overwrite: Whether to replace an earlier result there.

        Raises:
          FileExistsError: The folder holds something else, or a result without ``overwrite``.
        """
        contents = folders.Contents(self.dataset, self.members, self._weights, self.settings, self._test)
        folders.write(path, contents, overwrite=overwrite)

    def save_params(
        self, path: str | os.PathLike[str], member: Integer | None = None, *, overwrite: bool = False
    ) -> None:
        """Write the weights of one member to a safetensors file, which `weightdecay.load_params` reads.

        Args:
          path: A new file, ``....safetensors``.
          member: Its number; may be left out where there is one.
          overwrite: Whether to replace an earlier file.

        Raises:
          IndexError: No such member.
          FileExistsError: The file is there, without ``overwrite``.
          ValueError: Another ending of the path.
        """
        folders.write_params(path, self.params(member), overwrite=overwrite)

    def __len__(self) -> int:
        """Return the number of members."""
        return len(self.members)

    def __repr__(self) -> str:
        """Return the size of the grid and the choice."""
        died = int((self.dataset["diverged_at"].values >= 0).sum())
        diverged = f", {'all' if died == len(self) else died} of them diverged" if died else ""
        try:
            choice = f"chosen on validation data: {self.best()}"
        except ValueError as error:
            choice = f"no choice: {error}"
        steps = self.dataset.sizes["step"]
        return f"GridResult of {len(self)} members{diverged}, {steps} evaluations; {choice}"

    def _has_no_accuracy(self) -> bool:
        return bool(np.isnan(self.dataset["validation_accuracy"].values).all())

    def _index(self, member: Integer | None) -> int:
        if member is None and len(self) == 1:
            return 0
        if not isinstance(member, int | np.integer) or not -len(self) <= member < len(self):
            raise IndexError(f"member is {member}; give 0 to {len(self) - 1}.")
        return int(member)


def load(path: str | os.PathLike[str]) -> GridResult:
    """Read a result that was saved; nothing in the files is run.

    Args:
      path: The folder that ``result.save`` wrote, or the directory of a run that is finished.

    Returns:
      The result, without the model: weights are nested dictionaries of NumPy arrays.

    Raises:
      FileNotFoundError: No result there, or a run that is not finished.
      ValueError: A damaged file, or one of a later version.
    """
    contents = folders.read(checkpoints.finished_result(path) or path)
    return GridResult(contents.dataset, contents.members, contents.weights, contents.settings, test=contents.test)


def coordinates(members: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Values along the members: the rule's name, its coefficients, the other axes, the candidate.

    Args:
      members: Hyperparameters by name.

    Returns:
      By name, each of shape ``(members,)``.
    """
    by_member = [dict(_numbers(member)) for member in members]
    names = dict.fromkeys(["decay", "coefficient", *(name for row in by_member for name in row)])
    columns = {name: _column([row.get(name) for row in by_member]) for name in names}
    return columns | {"candidate": np.array(grids.candidates(members), np.int32)}


def _column(values: Sequence[Any]) -> np.ndarray:
    """Values along the members: numbers with nan where there is none, or words."""
    if all(value is None or isinstance(value, bool | float | int | np.number) for value in values):
        there = [value for value in values if value is not None]
        return np.array([np.nan if value is None else value for value in values] if len(there) < len(values) else there)
    return np.array(["" if value is None else value if isinstance(value, str) else str(value) for value in values])


def _numbers(member: Mapping[str, Any]) -> list[tuple[str, Any]]:
    decay = member["decay"]
    row: list[tuple[str, Any]] = [("decay", decay.name)]
    coefficients = decay.coefficients()
    for name, value in coefficients.items():
        name = "coefficient" if len(coefficients) == 1 else name
        for leaf_name, leaf in tree.named_leaves(value):
            # netCDF allows no slash in a name, and no space in that of a coordinate.
            told = (f"{name}[{leaf_name}]" if leaf_name else name).replace("/", ".").replace(" ", "_")
            row.append((told, float(leaf)))
    for name, value in member.items():
        if isinstance(value, Parametric):
            row += [(name, float(value(0))), (f"{name}_schedule", str(value))]
        elif name != "decay":
            row.append((name, np.int32(value) if name in grids.REPLICATES else value))
    return row


def _test_row(choice: Choice | None, scores: Sequence[Mapping[str, float | None]]) -> dict[str, Any]:
    assert choice is not None
    row: dict[str, Any] = {"candidate": choice.number, "decay": str(choice.decay)}
    for name in ("accuracy", "loss"):
        row[f"test_{name}"], row[f"test_{name}_standard_error"] = selection.mean_and_error(
            [score[name] for score in scores]
        )
    return row
