"""What came of a grid: every metric with its labels, the table of candidates, the choice and its test score."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray

from weightdecay.core import statistics
from weightdecay.core.metrics import lower_is_better
from weightdecay.core.statistics import Optimism
from weightdecay.core.types import Integer
from weightdecay.results import dataset as joining
from weightdecay.results import selection, tables
from weightdecay.results.dataset import ScoreTest
from weightdecay.results.labels import coordinates
from weightdecay.results.plot_methods import Plots
from weightdecay.results.report import page
from weightdecay.results.selection import Candidate, Choice
from weightdecay.search import grid as grids
from weightdecay.search.grid import Grid
from weightdecay.storage import result_folder, run_directory
from weightdecay.storage import weights as weight_files
from weightdecay.storage.records import Records

Predict = Callable[[int, Any, Any, Any], Any]
"""``predict(member, params, model_state, inputs) -> outputs``."""

Extend = Callable[[Grid, int | None], "GridResult"]
"""Trains a grid as another was trained; with a number of steps or, None, as many as that had."""


class GridResult(Plots):
    """Result of a grid; `weightdecay.fit_grid` makes it and `weightdecay.load` reads it.

    Attributes:
      dataset: Every metric, an `xarray.Dataset` with the dimensions ``member`` and ``step`` (the evaluation steps).
        Coordinates along ``member``: ``decay`` (the rule's name), ``coefficient`` (nan where a rule has none; rules
        with several have one coordinate each), ``learning_rate``, ``seed``, every other axis of the grid, and
        ``candidate`` (members that differ in seed and fold alone share one). Along both: ``train_loss``, ``penalty``,
        ``train_accuracy``, ``validation_loss``, ``validation_accuracy``, metrics of your own, ``time_scale_epochs`` (of
        the decay by itself) and, of the weights that decay, ``weight_norm``, ``zero_fraction`` and
        ``near_zero_fraction`` (below 0.001). Along these and ``layer``, the arrays that decay: ``layer_weight_norm``,
        ``layer_zero_fraction``, ``rotation`` (angle of the last step, radians) beside ``predicted_rotation`` (see
        `weightdecay.decay.theory`), and ``effective_learning_rate`` (length of the last step over the norm). Along
        ``member``: ``diverged_at`` and ``stopped_at`` (step, -1 for never), ``best_step``, the evaluation that is kept
        of a member with patience (-1 without), ``decaying_fraction`` (share of the weights that decay) and
        ``degrees_of_freedom`` (of linear models with squared error; else nan). From ``diverged_at`` on, all metrics are
        nan, and so are those that an interrupted run did not reach.
      members: Hyperparameters of each member by name.
      settings: How the grid was run.
      versions: Of the packages that trained it, by name.
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
        score_test: ScoreTest | None = None,
        predict: Predict | None = None,
        extend: Extend | None = None,
        versions: Mapping[str, str] | None = None,
    ) -> None:
        """Take the parts; users have `weightdecay.fit_grid` and `weightdecay.load` do it."""
        self.dataset = dataset
        self.members = list(members)
        self.settings = dict(settings)
        self.versions = dict(result_folder.versions() if versions is None else versions)
        self.model = model
        self._weights = weights
        self._test = test
        self._score_test = score_test
        self._predict = predict
        self._extend = extend

    @classmethod
    def build(
        cls,
        members: Sequence[dict[str, Any]],
        steps: Sequence[int],
        records: Records,
        settings: Mapping[str, Any],
        *,
        model: Any,
        score_test: ScoreTest | None,
        predict: Predict | None = None,
        extend: Extend | None = None,
    ) -> "GridResult":
        """Put the trained members together.

        Args:
          members: Hyperparameters of each member by name.
          steps: Evaluation steps.
          records: What came of each member.
          settings: How the grid was run.
          model: The completed model.
          score_test: ``score_test(member, params, model_state) -> {"loss": ..., "accuracy": ...}`` with None for a
            number that is not finite; None without test examples.
          predict: ``predict(member, params, model_state, inputs) -> outputs``; None = the model is not at hand.
          extend: ``extend(grid, num_steps) -> GridResult`` trains another grid in the same way; None = nothing can.

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
        return cls(
            dataset,
            members,
            records.weights,
            settings,
            model=model,
            score_test=score_test,
            predict=predict,
            extend=extend,
        )

    def table(self, *, interval: str | None = None, confidence: float = 0.95) -> pd.DataFrame:
        """One row a candidate, averaged over seeds and folds at the last step.

        Args:
          interval: ``"t"`` or ``"bootstrap"`` (see `weightdecay.core.statistics.estimate`) adds ``..._lower`` and
            ``..._upper`` of each validation metric; None adds nothing.
          confidence: Of the intervals, between 0 and 1.

        Returns:
          Index ``candidate``; the hyperparameters; mean ``validation_accuracy`` and ``validation_loss`` with their
          ``..._standard_error`` over them (nan for one alone; with folds, see `weightdecay.core.statistics`); mean
          ``train_accuracy``, ``train_loss``, ``penalty``, ``weight_norm`` and ``zero_fraction``; metrics of your own,
          as the accuracies; ``generalization_gap``, which is training less validation accuracy, or validation less
          training loss where there is no accuracy; ``seeds``, which is how many replicates there are (seeds times
          folds), and how many of them ``diverged``. A mean with a nan in it is nan.

        Raises:
          ValueError: An unknown interval, or a confidence that is no share.
        """
        if interval is not None:
            statistics.check_interval(interval, confidence)
        return tables.means(
            self.dataset, self.candidates(), num_folds=self._num_folds, interval=interval, confidence=confidence
        )

    def differences(
        self,
        reference: str | Integer = "no decay",
        *,
        metric: str = "validation_loss",
        interval: str = "t",
        confidence: float = 0.95,
    ) -> pd.DataFrame:
        """One row a candidate: its difference to one of them, replicate by replicate.

        Members of one seed (and fold) start from the same weights and see the same batches. What is luck in both drops
        out of their difference, which so has a smaller error than the two means.

        Args:
          reference: ``"no decay"`` (the best of the candidates without), ``"best"``, or a candidate's number.
          metric: As in `best`.
          interval: ``"t"`` or ``"bootstrap"``; see `weightdecay.core.statistics.estimate`.
          confidence: Of each interval, between 0 and 1. Of many rows, the best is not as sure as its interval says: it
            was picked for its luck as well; ``result.best().beats_no_decay`` takes that into account.

        Returns:
          Index ``candidate``; ``difference``, the mean of candidate less reference in the unit of the metric, its
          ``standard_error``, ``lower`` and ``upper`` ends of its interval, and ``pairs``, how many replicates both
          have. nan where a value is not finite, and, but for the difference itself, with one pair.

        Raises:
          ValueError: Unknown words, no such candidate, or no finite one to compare with.
        """
        statistics.check_interval(interval, confidence)
        candidates = self.candidates(metric)
        return tables.differences(
            candidates,
            self._reference(reference, candidates, metric),
            num_folds=self._num_folds,
            interval=interval,
            confidence=confidence,
        )

    def optimism(self, *, metric: str = "validation_loss") -> Optimism:
        """By how much the best candidate looks better than it is, for having been chosen from many.

        The seeds (with a cross-validation, the folds) are split into halves; the best is chosen by one half and held
        against the other; see `weightdecay.core.statistics.optimism`. Candidates that are not finite, and seeds that
        not all others have, are left out.

        This tells the luck of the seeds. All seeds are scored on the same validation examples, and a candidate that
        suits these by chance suits them in each seed: of that, re-splitting seeds sees nothing, and it takes the test
        set. Folds are scored on examples of their own, so that with several folds both kinds of luck are in the answer.

        Args:
          metric: As in `best`.

        Returns:
          ``mean`` in the unit of the metric, positive where the best is worse than it looks, and ``standard_error``;
          nan with one replicate.

        Raises:
          ValueError: An unknown metric, or no finite candidate.
        """
        candidates = selection.finite(self.candidates(metric), metric)
        shared = [one for one in candidates[0].values if all(one in other.values for other in candidates)]
        values = np.array([[one.values[replicate] for replicate in shared] for one in candidates])
        units = statistics.fold_means(values, [replicate.fold for replicate in shared])
        return statistics.optimism(units, lower_is_better=lower_is_better(metric))

    def candidates(self, metric: str = "validation_loss") -> list[Candidate]:
        """Return the candidates with a validation metric at the last step, averaged over seeds and folds."""
        selection.check_metric(metric, self.validation_metrics())
        last = self.dataset.isel(step=-1)
        return selection.gather(
            self.members, last[metric].values, last["weight_norm"].values, num_folds=self._num_folds
        )

    def validation_metrics(self) -> tuple[str, ...]:
        """Return the names of the metrics that a choice may be made by."""
        return tuple(str(name) for name in self.dataset.data_vars if str(name).startswith("validation_"))

    def best(
        self,
        criterion: str = "best_mean",
        *,
        metric: str = "validation_loss",
        confidence: float = 0.95,
        optimism: bool = False,
    ) -> Choice:
        """Choose a candidate on validation data.

        Args:
          criterion: ``"best_mean"``; ``"one_standard_error"``: the most decayed candidate within one standard error of
            the best; or ``"one_standard_error_paired"``: the same by the differences seed by seed; see
            `weightdecay.results.selection.choose`.
          metric: ``"validation_loss"``, ``"validation_accuracy"`` or ``"validation_..."`` of a metric of your own, of
            which more is better, but where its name ends in ``loss`` or ``error``.
          confidence: Of the interval of the difference to no decay, between 0 and 1.
          optimism: Whether `optimism` is asked for as well, so that ``.summary`` tells it.

        Returns:
          The choice: ``.decay``, ``.hyperparameters``, ``.mean``, ``.standard_error``, ``.members``, ``.edge``,
          ``.advice``, ``.difference`` to no decay, ``.no_decay_is_as_good``, ``.sentence``, ``.summary``.

        Raises:
          ValueError: Unknown words, no finite candidate, or one seed where a standard error is needed.
        """
        died = self.dataset["diverged_at"].values
        if (died >= 0).all():
            raise ValueError(
                f"every one of the {len(self)} members diverged, the last at step {died.max()}; lower the learning "
                "rates or the coefficients."
            )
        choice = selection.choose(
            self.candidates(metric),
            metric=metric,
            criterion=criterion,
            num_folds=self._num_folds,
            confidence=confidence,
            optimism=self.optimism(metric=metric) if optimism else None,
        )
        can_extend = self._extend is not None and choice.extension is not None
        return replace(choice, advice=f"{choice.advice} result.extend() does it.") if can_extend else choice

    def no_decay(self, *, metric: str = "validation_loss") -> Choice | None:
        """Choose among the candidates without decay alone.

        Args:
          metric: As in `best`.

        Returns:
          The best of them on validation data; None where the grid has none that is finite.
        """
        candidates = [one for one in self.candidates(metric) if one.is_without_decay]
        if selection.without_decay(candidates, metric) is None:
            return None
        return selection.choose(candidates, metric=metric, num_folds=self._num_folds)

    def extend(self, grid: Grid | None = None, *, num_steps: Integer | None = None, seeds: Any = None) -> "GridResult":
        """Train more of the same, and join it to what there is.

        Each member is the run that it is in any grid, so that the joined result is, bit for bit, that of one run of
        all.

        Args:
          grid: Members to add; those that are here already are not trained again. None: the grid beyond the edges at
            which the best candidate sits, ``result.best().extension``; with ``seeds`` or ``num_steps``, nothing.
          num_steps: Steps of every member, at least as many as before. More steps are a run of all members, which goes
            on where they are if they were trained in a directory, and starts again if not.
          seeds: Further seeds for every candidate, those of ``grid`` among them, as ``range(3, 6)``.

        Returns:
          A new result: the members of this one in their order, then the new ones. This one stays as it is.

        Raises:
          TypeError: ``grid`` is no grid.
          ValueError: Nothing to train, fewer steps than before, or a result read from disk, which cannot train.
        """
        if self._extend is None:
            raise ValueError(
                "this result cannot train: it was read from disk. Call wd.fit_grid with both grids added, and with the "
                "directory of the first run, where there is one."
            )
        if grid is not None and not isinstance(grid, Grid):
            raise TypeError(f"grid is of type {type(grid).__name__}; give wd.Grid(decay=[...], learning_rate=[...]).")
        steps = self._more_steps(num_steps)
        if grid is None and seeds is None and num_steps is None:
            choice = self.best()
            if choice.extension is None:
                raise ValueError(
                    f"grid is None, but the best candidate, {choice}, lies at no edge of its grid; give the grid to "
                    "train, seeds=range(...), or num_steps=..."
                )
            grid = choice.extension
        whole = grids.of_members(self.members)
        if grid is not None:
            whole = whole + grid
        if seeds is not None:
            own = Grid(seed=seeds).axes["seed"]
            whole = whole + grids.of_members([{**member, "seed": seed} for member in whole for seed in own])
        new = list(whole)[len(self) :]
        if steps is not None:
            longer = self._extend(whole, steps)
            longer._test = self._test
            return longer
        if not new:
            raise ValueError("grid has no member that is not trained already; give others, more seeds, or more steps.")
        return join(self, self._extend(grids.of_members(new), None))

    def part(self, members: Iterable[Integer]) -> "GridResult":
        """Result of some of the members.

        Args:
          members: Their numbers, in the order that is wanted.

        Returns:
          A new result, in which they and their candidates are numbered anew; a look at the test set is not in it.

        Raises:
          IndexError: No such member.
        """
        places = [self._index(member) for member in members]
        some = [self.members[place] for place in places]
        along = {"member": np.arange(len(some), dtype=np.int32)}
        along |= {name: ("member", values) for name, values in coordinates(some).items()}
        dataset = self.dataset.isel(member=places)
        gone = [name for name, values in dataset.coords.items() if values.dims == ("member",) and name not in along]
        return GridResult(
            dataset.drop_vars(gone).assign_coords(along),
            some,
            joining.Some(self._weights, places),
            self.settings,
            model=self.model,
            score_test=joining.renumbered(self._score_test, places),
            predict=joining.renumbered(self._predict, places),
            extend=self._extend,
            versions=self.versions,
        )

    def where(self, predicate: Callable[[dict[str, Any]], Any]) -> "GridResult":
        """Result of those members for which something is true, as ``Grid.where`` has it.

        Args:
          predicate: ``predicate(member) -> bool`` of a member's hyperparameters by name.

        Returns:
          A new result, as `part`.

        Raises:
          ValueError: No member is left.
        """
        chosen = [number for number, member in enumerate(self.members) if predicate(dict(member))]
        if not chosen:
            raise ValueError(f"predicate is true for none of the {len(self)} members, so nothing is left.")
        return self.part(chosen)

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
        steps = int(self.dataset["step"].values[-1])
        if self._test is not None:
            looked, after = self._test["candidates"], self._test.get("num_steps", steps)
            if looked != wanted or after != steps:
                then = "" if after == steps else f" after {after} of {steps} steps"
                raise ValueError(
                    f"the test set was already looked at for candidates {looked}{then}, so it cannot judge "
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
                "num_steps": steps,
                "scores": {
                    role: [self._score_test(index, *self._weights[index]) for index in choice.members]
                    for role, choice in (("chosen", chosen), ("no decay", none))
                    if choice is not None
                },
            }
        choices = {"chosen": chosen, "no decay": none}
        return pd.DataFrame({role: _test_row(choices[role], scores) for role, scores in self._test["scores"].items()}).T

    def predict(self, inputs: Any, member: Integer | None = None) -> Any:
        """Outputs of a member's network, as it is used and not trained.

        Args:
          inputs: As they lie in the data, shape ``(examples, ...)``; where folds are standardized, before that.
          member: Its number; may be left out where there is one.

        Returns:
          What the model gives, a NumPy array with a row an example: of classes the logits.

        Raises:
          IndexError: No such member.
          ValueError: A result read from disk, which has no model.
        """
        index = self._index(member)
        if self._predict is None:
            raise ValueError(
                "this result has no model: it was read from disk. Apply the model to result.params(member) yourself."
            )
        params, model_state = self._weights[index]
        return self._predict(index, params, model_state, inputs)

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

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the result to a folder of ordinary files; see `weightdecay.storage.result_folder`.

        Args:
          path: A new or an empty folder.
          overwrite: Whether to replace an earlier result there.

        Raises:
          FileExistsError: The folder holds something else, or a result without ``overwrite``.
        """
        contents = result_folder.Contents(
            self.dataset, self.members, self._weights, self.settings, self._test, self.versions
        )
        result_folder.write(path, contents, overwrite=overwrite)

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
        weight_files.write_params(path, self.params(member), overwrite=overwrite)

    def report(self, path: str | os.PathLike[str], *, metric: str = "validation_loss") -> Path:
        """Write a page for a browser, which begins with the decision; see `weightdecay.results.report.page`.

        It stands alone: pictures are inside, and nothing is loaded from elsewhere. It lists candidates, data, model,
        settings, plan, versions, seeds and failures. The test set is not looked at for it; scores are in it where
        ``result.test()`` was called before.

        Args:
          path: An ``.html`` file. An earlier report there is replaced, anything else is left as it is.
          metric: By which the choice is made, as in `best`.

        Returns:
          The path.

        Raises:
          FileExistsError: The file is there, and is no report.
          ValueError: Another ending of the path, or an unknown metric.
        """
        return page.write(path, page.page(self, metric=metric, test=self._test))

    def __len__(self) -> int:
        """Return the number of members."""
        return len(self.members)

    def __repr__(self) -> str:
        """Return the size of the grid and the choice."""
        try:
            choice = f"chosen on validation data: {self.best()}"
        except ValueError as error:
            choice = f"no choice: {error}"
        return f"{self._size()}; {choice}"

    def _repr_html_(self) -> str:
        """Return the choice in a sentence and the best candidates in a table, as a notebook shows them."""
        metric = "validation_loss"
        try:
            choice = self.best(metric=metric)
            said = [choice.sentence, choice.advice]
        except ValueError as error:
            said = [f"No choice: {error}"]
        head = [*(words for words in said if words), self._size()]
        return tables.as_html(self.table(), self.candidates(metric), metric, head=head)

    @property
    def _num_folds(self) -> int | None:
        return self.settings.get("folds")

    def _size(self) -> str:
        died = int((self.dataset["diverged_at"].values >= 0).sum())
        diverged = f", {'all' if died == len(self) else died} of them diverged" if died else ""
        return f"GridResult of {len(self)} members{diverged}, {self.dataset.sizes['step']} evaluations"

    def _reference(self, reference: Any, candidates: Sequence[Candidate], metric: str) -> Candidate:
        if reference == "best":
            return self.best(metric=metric)
        if reference == "no decay":
            none = selection.without_decay(candidates, metric)
            if none is None:
                raise ValueError(
                    f"reference is 'no decay', but no candidate without decay has a finite {metric}; give 'best' or a "
                    "candidate's number."
                )
            return none
        is_number = isinstance(reference, int | np.integer) and not isinstance(reference, bool)
        if not is_number or not 0 <= reference < len(candidates):
            raise ValueError(
                f"reference is {reference!r}; give 'no decay', 'best', or a candidate's number, 0 to "
                f"{len(candidates) - 1}."
            )
        return candidates[int(reference)]

    def _more_steps(self, num_steps: Any) -> int | None:
        """Steps beyond those that there are; None = as many as there are."""
        before = int(self.dataset["step"].values[-1])
        if num_steps is None:
            return None
        is_whole = isinstance(num_steps, int | np.integer) and not isinstance(num_steps, bool)
        if not is_whole or num_steps < before:
            raise ValueError(
                f"num_steps is {num_steps!r}, and the result has {before} steps; give at least as many, or None "
                "for the same."
            )
        return int(num_steps) if num_steps > before else None

    def _index(self, member: Integer | None) -> int:
        if member is None and len(self) == 1:
            return 0
        if not isinstance(member, int | np.integer) or not -len(self) <= member < len(self):
            raise IndexError(f"member is {member}; give 0 to {len(self) - 1}.")
        return range(len(self))[member]


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
    contents = result_folder.read(run_directory.finished_result(path) or path)
    return GridResult(
        contents.dataset,
        contents.members,
        contents.weights,
        contents.settings,
        test=contents.test,
        versions=contents.versions,
    )


def join(first: GridResult, second: GridResult) -> GridResult:
    """Put two results of the same run settings together.

    Args:
      first: Its members come first, in their order, and its candidates keep their numbers.
      second: Its members follow.

    Returns:
      The result of all members. Settings are those of the first; ``seconds`` and ``compiled_programs`` are summed, and
      ``extensions`` lists how many members were added each time. A look at the test set stays looked at.

    Raises:
      ValueError: A member that is in both, other evaluation steps, or settings that differ.
    """
    members = [*first.members, *second.members]
    if len(grids.of_members(first.members) + grids.of_members(second.members)) < len(members):
        raise ValueError("second has members that are in first as well; join results of different members.")
    return GridResult(
        joining.datasets(first.dataset, second.dataset, members),
        members,
        joining.Weights(first._weights, second._weights),
        joining.settings(first.settings, second.settings, len(second)),
        model=first.model,
        test=first._test,
        score_test=joining.by_member(first._score_test, second._score_test, len(first)),
        predict=joining.by_member(first._predict, second._predict, len(first)),
        extend=first._extend,
        versions=first.versions,
    )


def _test_row(choice: Choice | None, scores: Sequence[Mapping[str, float | None]]) -> dict[str, Any]:
    assert choice is not None
    row: dict[str, Any] = {"candidate": choice.number, "decay": str(choice.decay)}
    for name in ("accuracy", "loss"):
        row[f"test_{name}"], row[f"test_{name}_standard_error"] = selection.mean_and_error(
            [score[name] for score in scores]
        )
    return row
