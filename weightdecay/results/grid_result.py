"""`GridResult`: every metric with its labels, the table of candidates, the choice and its test score."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray

from weightdecay.core import checks, metrics, statistics
from weightdecay.core.checks import ArgumentError
from weightdecay.core.statistics import Optimism
from weightdecay.core.types import Integer
from weightdecay.results import dataset as datasets
from weightdecay.results import extension, held_out, selection, tables
from weightdecay.results import transfer as transfers
from weightdecay.results.candidates import Candidate, gather
from weightdecay.results.held_out import ScoreTest
from weightdecay.results.model_methods import ModelMethods
from weightdecay.results.plot_methods import PlotMethods
from weightdecay.results.report import page
from weightdecay.results.selected import Selected
from weightdecay.results.trackers.methods import TrackerMethods
from weightdecay.results.transfer import Transfer
from weightdecay.search import conditions
from weightdecay.search.grid import Grid
from weightdecay.storage import result_folder, run_directory
from weightdecay.storage.training_records import TrainingRecords

Predict = Callable[[int, Any, Any, Any], Any]
"""``predict(member, params, model_state, inputs) -> outputs``."""

MakeNetwork = Callable[[int, Any, Any], Any]
"""``network(member, params, model_state)`` makes the trained network, as its own library has it."""

Extend = Callable[[Grid, int | None], "GridResult"]
"""``extend(grid, num_steps)`` trains another grid with the same settings; None = the same number of steps."""


class GridResult(ModelMethods, PlotMethods, TrackerMethods):
    """Result of a grid; `weightdecay.fit_grid` makes it and `weightdecay.load` reads it.

    Attributes:
      dataset: Every metric, an `xarray.Dataset` with the dimensions ``member`` and ``step`` (the evaluation steps).
        Coordinates along ``member``: ``decay`` (the rule's name), ``coefficient`` (nan for a rule without one; a rule
        with several coefficients has one coordinate each), ``learning_rate``, ``seed``, every other axis of the grid,
        and ``candidate`` (members that differ only in seed and fold share one). Variables along both dimensions:
        ``train_loss``, ``penalty``, ``train_accuracy``, ``validation_loss``, ``validation_accuracy``, metrics of the
        user's own, where the targets are classes at several positions ``train_perplexity`` and
        ``validation_perplexity`` (``exp`` of the loss) and ``train_bits_per_token`` and ``validation_bits_per_token``
        (the loss divided by ``ln 2``), all of these of the averaged weights where members have ``ema``
        (``validation_ema_loss``, ...; nan for the others), ``time_scale_epochs`` (of the decay alone) and, of the
        weights that decay, ``weight_norm``, ``zero_fraction`` and ``near_zero_fraction`` (below 0.001). Along these and
        ``layer``, the arrays that decay: ``layer_weight_norm``, ``layer_zero_fraction``, ``rotation`` (angle of the
        last step, radians), ``predicted_rotation`` (see `weightdecay.decay.theory`), and ``effective_learning_rate``
        (length of the last step divided by the norm). Along ``member``: ``diverged_at`` and ``stopped_at`` (step, -1 =
        never), ``dropped_at`` of a search (step at which it left a member, 0 = not trained, -1 = trained to the end),
        ``best_step``, the evaluation whose weights are kept of a member with patience (-1 without patience),
        ``decaying_fraction`` (fraction of the weights that decay) and ``degrees_of_freedom`` (of linear models with
        squared error; otherwise nan). From ``diverged_at`` on all metrics are nan; so are metrics that an interrupted
        run did not reach.
      members: Hyperparameters of each member by name.
      settings: Settings of the run.
      versions: Versions of the packages that trained it, by name.
      model: The model, completed with sizes from the data; None in a result read from disk.
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
        network: MakeNetwork | None = None,
        extend: Extend | None = None,
        versions: Mapping[str, str] | None = None,
        averages: Sequence[Any] | None = None,
    ) -> None:
        """Take the parts; users call `weightdecay.fit_grid` or `weightdecay.load`."""
        self.dataset = dataset
        self.members = list(members)
        self.settings = dict(settings)
        self.versions = dict(result_folder.versions() if versions is None else versions)
        self.model = model
        self._weights = weights
        self._averages = averages
        self._test = test
        self._score_test = score_test
        self._predict = predict
        self._network = network
        self._extend = extend

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickled copy holds: as a result read from disk, it has neither the model nor the data."""
        left_out = dict.fromkeys(("model", "_score_test", "_predict", "_network", "_extend"))
        # Metrics are mapped from temporary files, which a copy in another process does not have.
        dataset = self.dataset.map(np.array, keep_attrs=True)
        return {**self.__dict__, **left_out, "dataset": dataset.assign_coords(self.dataset.coords)}

    @classmethod
    def build(
        cls,
        members: Sequence[dict[str, Any]],
        steps: Sequence[int],
        records: TrainingRecords,
        settings: Mapping[str, Any],
        *,
        model: Any,
        score_test: ScoreTest | None,
        predict: Predict | None = None,
        network: MakeNetwork | None = None,
        extend: Extend | None = None,
    ) -> "GridResult":
        """Build the result of trained members.

        Args:
          members: Hyperparameters of each member by name.
          steps: Evaluation steps.
          records: Metrics and weights of the members.
          settings: Settings of the run.
          model: The completed model.
          score_test: ``score_test(member, params, model_state) -> {"loss": ..., "accuracy": ...}`` with None for a
            number that is not finite; None = there are no test examples.
          predict: ``predict(member, params, model_state, inputs) -> outputs``; None = there is no model.
          network: ``network(member, params, model_state)`` makes the trained network; None = there is no model.
          extend: ``extend(grid, num_steps) -> GridResult`` trains another grid with the same settings; None = it
            cannot.

        Returns:
          The result.
        """
        return cls(
            datasets.build(members, steps, records),
            members,
            records.weights,
            settings,
            model=model,
            score_test=score_test,
            predict=predict,
            network=network,
            extend=extend,
            averages=records.averages,
        )

    def table(self, *, interval: str | None = None, confidence: float = 0.95) -> pd.DataFrame:
        """Return one row per candidate, averaged over seeds and folds at the last step.

        Args:
          interval: ``"t"`` or ``"bootstrap"`` (see `weightdecay.core.statistics.estimate`) adds the columns
            ``..._lower`` and ``..._upper`` of each validation metric; None adds nothing.
          confidence: Confidence of the intervals, between 0 and 1.

        Returns:
          Index ``candidate``; the hyperparameters; mean ``validation_accuracy`` and ``validation_loss`` with their
          ``..._standard_error`` over the replicates (nan for one replicate; with folds, see
          `weightdecay.core.statistics`); those of a perplexity are of the values of the members; mean
          ``train_accuracy``, ``train_loss``, ``penalty``, ``weight_norm`` and ``zero_fraction``; metrics of the user's
          own, as the accuracies; ``generalization_gap``, the training accuracy minus the validation accuracy, or, if
          there is no accuracy, the validation loss minus the training loss; ``seeds``, the number of replicates (seeds
          times folds), and ``diverged``, the number of replicates that diverged. A mean of values with a nan is nan.

        Raises:
          ArgumentError: An unknown interval, or a confidence that is not between 0 and 1.
        """
        if interval is not None:
            statistics.check_interval(interval, confidence)
        table = tables.means(
            self.dataset, self.candidates(), num_folds=self._num_folds, interval=interval, confidence=confidence
        )
        table.attrs["lower_is_better"] = dict(self._directions or {})
        return table

    def differences(
        self,
        reference: str | Integer = "no decay",
        *,
        metric: str = "validation_loss",
        interval: str = "t",
        confidence: float = 0.95,
    ) -> pd.DataFrame:
        """Return one row per candidate: its difference to one candidate, paired by replicate.

        Members of the same seed (and fold) start from the same weights and train on the same batches. The random part
        that both share cancels in their difference, whose error is therefore smaller than that of the two means.

        Args:
          reference: ``"no decay"`` (the best of the candidates without decay), ``"best"``, or a candidate's number.
          metric: As in `best`.
          interval: ``"t"`` or ``"bootstrap"``; see `weightdecay.core.statistics.estimate`.
          confidence: Confidence of each interval, between 0 and 1. The interval of the best of many rows is too
            optimistic, because it was chosen for its luck as well; ``result.best().beats_no_decay`` corrects for that.

        Returns:
          Index ``candidate``; its hyperparameters, the rule as it is written; ``difference``, the mean of candidate
          minus reference in the unit of the metric; ``standard_error``; ``lower`` and ``upper``, the ends of its
          interval; and ``pairs``, the number of replicates that both have. nan if a value is not finite, and, except
          for the difference itself, with one pair.

        Raises:
          ArgumentError: An unknown name, no such candidate, or no finite candidate to compare with.
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

    @property
    def spent(self) -> float:
        """Fraction of the member-steps of the grid that a search spent, in [0, 1]; 1 where every member was trained."""
        return float(self.settings.get("spent", 1.0))

    def searched(self) -> str:
        """Return how much of the grid a search has trained, as a clause; empty where every member was trained."""
        if "dropped_at" not in self.dataset:
            return ""
        numbers, reached = self.dataset["candidate"].values, self.dataset["dropped_at"].values == -1
        every = np.unique(numbers)
        complete = sum(bool(reached[numbers == number].all()) for number in every)
        return (
            f"chosen after {100 * self.spent:.1f} % of the grid: {complete} of {len(every)} candidates were trained to "
            "the end with every replicate"
        )

    def optimism(self, *, metric: str = "validation_loss") -> Optimism:
        """Estimate by how much the best candidate looks better than it is, because it was chosen from many.

        The seeds (with a cross-validation, the folds) are split into halves. The best candidate is chosen by one half
        and evaluated on the other; see `weightdecay.core.statistics.optimism`. Candidates that are not finite, and
        seeds that some candidate lacks, are left out.

        This measures the luck of the seeds. All seeds are scored on the same validation examples, and a candidate that
        suits these examples by chance suits them in every seed: splitting seeds does not show that part of the luck;
        the test set does. Folds are scored on different examples, so that with several folds both parts are included.

        Args:
          metric: As in `best`.

        Returns:
          ``mean`` in the unit of the metric, positive if the best is worse than it looks, and ``standard_error``; nan
          with one replicate.

        Raises:
          ArgumentError: An unknown metric, or no finite candidate.
        """
        candidates = selection.finite(self.candidates(metric), metric)
        shared = [
            replicate
            for replicate in candidates[0].values
            if all(replicate in candidate.values for candidate in candidates)
        ]
        values = np.array([[candidate.values[replicate] for replicate in shared] for candidate in candidates])
        units = statistics.fold_means(values, [replicate.fold for replicate in shared])
        return statistics.optimism(units, lower_is_better=self.lower_is_better(metric))

    def candidates(self, metric: str = "validation_loss") -> list[Candidate]:
        """Return the candidates with a validation metric at the last step, averaged over seeds and folds."""
        selection.check_metric(metric, self.validation_metrics())
        last = self.dataset.isel(step=-1)
        return gather(self.members, last[metric].values, last["weight_norm"].values, num_folds=self._num_folds)

    def lower_is_better(self, metric: str) -> bool:
        """Return whether lower values of a metric are better, by its name or as it was stated in `fit_grid`."""
        return metrics.lower_is_better(metric, self._directions)

    def validation_metrics(self) -> tuple[str, ...]:
        """Return the names of the metrics that a candidate can be chosen by."""
        return tuple(str(name) for name in self.dataset.data_vars if str(name).startswith("validation_"))

    def best(
        self,
        criterion: str = "best_mean",
        *,
        metric: str = "validation_loss",
        confidence: float = 0.95,
        margin: float | None = None,
        optimism: bool = False,
    ) -> Selected:
        """Choose a candidate on validation data.

        Args:
          criterion: ``"best_mean"``; ``"one_standard_error"``: the most decayed candidate within one standard error of
            the best; or ``"one_standard_error_paired"``: the same by the paired differences of the replicates; see
            `weightdecay.results.selection.choose`.
          metric: ``"validation_loss"``, ``"validation_accuracy"``, ``"validation_perplexity"`` (where it is recorded)
            or ``"validation_..."`` of a metric of the user's own; ``"validation_ema_..."`` chooses among members with
            averaged weights by these.
          confidence: Confidence of the interval of the difference to no decay, between 0 and 1.
          margin: Largest difference to no decay that counts as equally good, >= 0, in the unit of the metric; None =
            0.5 % of the metric without decay. Only if the whole interval is within the margin, no decay is called as
            good; if the interval is wider, the answer is that the replicates cannot tell.
          optimism: Whether `optimism` is computed as well and added to ``.summary``.

        Returns:
          The chosen candidate: ``.decay``, ``.hyperparameters``, ``.mean``, ``.standard_error``, ``.members``,
          ``.edge``, ``.advice``, ``.difference`` to no decay, ``.no_decay_is_as_good``, ``.beats_no_decay``,
          ``.sentence``, ``.summary``.

        Raises:
          ArgumentError: An unknown name, a confidence or margin out of range, or one seed where a standard error is
            needed.
          ValueError: No finite candidate.
        """
        diverged_at = self.dataset["diverged_at"].values
        if (diverged_at >= 0).all():
            raise ValueError(
                f"every one of the {len(self)} members diverged, the last at step {diverged_at.max()}; lower the "
                "learning rates or the coefficients."
            )
        selected = selection.choose(
            self.candidates(metric),
            metric=metric,
            criterion=criterion,
            num_folds=self._num_folds,
            confidence=confidence,
            margin=margin,
            optimism=self.optimism(metric=metric) if optimism else None,
            lower_is_better=self._directions,
        )
        if self._extend is None or selected.extension is None:
            return selected
        return replace(selected, advice=f"{selected.advice} result.extend() trains it.")

    def no_decay(self, *, metric: str = "validation_loss") -> Selected | None:
        """Choose among the candidates without decay only.

        Args:
          metric: As in `best`.

        Returns:
          The best of them on validation data; None if no candidate without decay is finite.
        """
        candidates = [candidate for candidate in self.candidates(metric) if candidate.is_without_decay]
        if selection.without_decay(candidates, metric, self._directions) is None:
            return None
        return selection.choose(candidates, metric=metric, num_folds=self._num_folds, lower_is_better=self._directions)

    def extend(self, grid: Grid | None = None, *, num_steps: Integer | None = None, seeds: Any = None) -> "GridResult":
        """Train more of the same, and join it to this result.

        A member is the same run in any grid, so that the joined result is, bit for bit, that of one run of all members.

        Args:
          grid: Members to add; members that are trained already are not trained again. None: the grid beyond the edges
            at which the best candidate is, ``result.best().extension``; with ``seeds`` or ``num_steps``, no members.
          num_steps: Number of steps of every member, at least as many as before. More steps mean a run of all members:
            it resumes where they are if they were trained in a directory, and starts again if not.
          seeds: Further seeds for every candidate, including those of ``grid``, such as ``range(3, 6)``.

        Returns:
          A new result: the members of this one in their order, then the new ones. This result does not change.

        Raises:
          ArgumentError: Not a grid, nothing to train, or fewer steps than before.
          ValueError: A result read from disk, which cannot train.
        """
        return extension.extend(self, grid, num_steps=num_steps, seeds=seeds)

    def part(self, members: Iterable[Integer]) -> "GridResult":
        """Return the result of some of the members.

        Args:
          members: Their numbers, in the order of the new result.

        Returns:
          A new result, in which members and candidates are numbered anew; it has no test scores.

        Raises:
          IndexError: No such member.
        """
        return extension.part(self, [self._index(member) for member in members])

    def where(self, predicate: Callable[[dict[str, Any]], Any] | None = None, **values: Any) -> "GridResult":
        """Return the result of those members that satisfy conditions, as ``Grid.where`` does.

        Args:
          predicate: ``predicate(member) -> bool`` of a member's hyperparameters by name; None = no such condition.
          **values: Values by name, as in ``result.where(learning_rate=1e-3, decay="L2")``; a list, a range or a set has
            several. A rule is given by its name, by its class, or as it is.

        Returns:
          A new result, as from `part`.

        Raises:
          ArgumentTypeError: ``predicate`` is not a function.
          ArgumentError: No such hyperparameter, or no member satisfies all conditions.
        """
        return self.part(conditions.selected(self.members, predicate, values))

    def transfer(
        self,
        *others: "GridResult",
        num_steps: Integer | None = None,
        batch_size: Integer | None = None,
        learning_rate: float | None = None,
        num_examples: Integer | None = None,
        metric: str = "validation_loss",
        confidence: float = 0.95,
    ) -> Transfer:
        """Return the best coefficient of each rule for another run, such as a large one that cannot be swept.

        A rule with a time scale keeps it in epochs, ``c <- c (r / r') (B' / B) (N / N')``: r is what a coefficient of 1
        removes per step (η for `Decoupled`, η / (1 - momentum) for `L2` under SGD, 1 for `Independent`), B the batch
        size and N the number of examples that the run takes. In a run of less than one epoch, N is the number of steps
        times B, so that the time scale stays the same fraction of the run. A penalty without a time scale, such as `L2`
        under Adam, keeps the objective with the same prior, ``c <- c N / N'``. For any other rule there is no basis,
        and its row says so.

        The number of epochs E stays the same unless ``num_steps`` is given. Another number multiplies the coefficient
        by ``(1 / t* - 1 / E') / (1 / t* - 1 / E)`` if the loss without decay turned, at the epoch t*; see `suggest`.

        With results of other sizes, the law ``log c = a + Σ b log x`` is fitted to the best coefficients of all, over
        the quantities that vary; the others follow the formulas above.

        Args:
          *others: Results of the same rules at other sizes.
          num_steps: Steps of the other run; None = as many epochs as here.
          batch_size: Its batch size; None = as here.
          learning_rate: Its peak learning rate; None = that of the best candidate of each rule.
          num_examples: Its number of training examples; None = as here.
          metric: As in `best`.
          confidence: Confidence of the interval of a fitted law.

        Returns:
          A `Transfer`: one row per rule (``.coefficient``, ``.low``, ``.high``, ``.keeps``, ``.formula``, ``.source``),
          and ``.rules()`` for a grid.

        Raises:
          ArgumentTypeError: Something else than a result, or than a number.
          ArgumentError: Nothing changes, or a number is out of range.

        References:
          Wang & Aitchison, How to Set AdamW's Weight Decay as You Scale Model and Dataset Size, 2024, arXiv 2405.13698;
          Bergsma et al., Power Lines, 2025, arXiv 2505.13738 (less than one epoch); Ali, Kolter & Tibshirani, 2019,
          arXiv 1810.10082 (stopping as decay); MacKay, A Practical Bayesian Framework for Backpropagation Networks,
          1992 (prior).
        """
        return transfers.transfer(
            [self, *others],
            num_steps=num_steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            num_examples=num_examples,
            metric=metric,
            confidence=confidence,
        )

    def test(self, criterion: str = "best_mean", *, metric: str = "validation_loss") -> pd.DataFrame:
        """Score the chosen candidate, and the best without decay, on the test examples: once.

        The scores are kept, also on disk. A test set that was scored can no longer judge another choice, so that a call
        for another choice is refused.

        Args:
          criterion: As in `best`.
          metric: As in `best`. With a metric of the averaged weights, these are scored.

        Returns:
          Index ``chosen`` and ``no decay``; columns ``candidate``, ``decay``, mean ``test_accuracy``, ``test_loss`` and
          metrics of the user's own over the seeds (and what derives from the loss, as in ``dataset``), with their
          ``..._standard_error``.

        Raises:
          ValueError: No test examples, a result read from disk that was never scored, or another choice than before.
        """
        candidates: dict[str, Candidate] = {"chosen": self.best(criterion, metric=metric)}
        without_decay = self.no_decay(metric=metric)
        if without_decay is not None:
            candidates["no decay"] = without_decay
        self._test = held_out.score(
            candidates,
            num_steps=int(self.dataset["step"].values[-1]),
            kept=self._test,
            score_test=self._score_test,
            weights=self._averages if metrics.is_of_average(metric) and self._averages else self._weights,
            averaged=metrics.is_of_average(metric),
        )
        return held_out.table(candidates, self._test)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the result to a folder of ordinary files; see `weightdecay.storage.result_folder`.

        Args:
          path: A new or an empty folder.
          overwrite: Whether to replace an existing result.

        Raises:
          FileExistsError: The folder has other contents, or a result and ``overwrite`` is False.
        """
        contents = result_folder.Contents(
            self.dataset, self.members, self._weights, self.settings, self._test, self.versions, self._averages
        )
        result_folder.write(path, contents, overwrite=overwrite)

    def report(
        self, path: str | os.PathLike[str], *, metric: str = "validation_loss", refresh: int | None = None
    ) -> Path:
        """Write the result as one HTML page, which begins with the decision; see `weightdecay.results.report.page`.

        The page is self-contained: plots are included and nothing is loaded from elsewhere. It lists candidates, data,
        model, settings, plan, versions, seeds and failures. The test set is not scored for it; the page has test scores
        if ``result.test()`` was called before.

        Args:
          path: An ``.html`` file. An existing report is replaced, any other file is not touched.
          metric: The metric of the choice, as in `best`.
          refresh: Seconds after which a browser that shows the page reads the file again; None = never.

        Returns:
          The path.

        Raises:
          FileExistsError: The file exists and is not a report.
          ArgumentError: The path has another extension, or an unknown metric.
        """
        return page.write(path, page.page(self, metric=metric, test=self._test, refresh=refresh))

    def __len__(self) -> int:
        """Return the number of members."""
        return len(self.members)

    def __repr__(self) -> str:
        """Return the size of the grid and the chosen candidate."""
        try:
            choice = f"chosen on validation data: {self.best()}"
        except ValueError as error:
            choice = f"no choice: {error}"
        return f"{self._size()}; {choice}"

    def _repr_html_(self) -> str:
        """Return the choice as a sentence and the best candidates as a table, for a notebook."""
        metric = "validation_loss"
        try:
            selected = self.best(metric=metric)
            sentences = [selected.sentence, selected.advice]
        except ValueError as error:
            sentences = [f"No choice: {error}"]
        head = [*filter(None, sentences), self._size()]
        return tables.as_html(
            self.table(), self.candidates(metric), metric, head=head, lower_is_better=self.lower_is_better(metric)
        )

    @property
    def _num_folds(self) -> int | None:
        return self.settings.get("folds")

    def _size(self) -> str:
        num_diverged = int((self.dataset["diverged_at"].values >= 0).sum())
        everyone = "all" if num_diverged == len(self) else num_diverged
        diverged = f", {everyone} of them diverged" if num_diverged else ""
        found = f"; {searched}" if (searched := self.searched()) else ""
        return f"GridResult of {len(self)} members{diverged}, {self.dataset.sizes['step']} evaluations{found}"

    @property
    def _directions(self) -> Mapping[str, bool] | None:
        return self.settings.get("lower_is_better")

    def _reference(self, reference: Any, candidates: Sequence[Candidate], metric: str) -> Candidate:
        if reference == "best":
            return self.best(metric=metric)
        if reference == "no decay":
            without_decay = selection.without_decay(candidates, metric, self._directions)
            if without_decay is None:
                raise ArgumentError(
                    "reference",
                    f"reference is 'no decay', but no candidate without decay has a finite {metric}; give 'best' or a "
                    "candidate's number.",
                )
            return without_decay
        allowed = f"'no decay', 'best', or a candidate's number, 0 to {len(candidates) - 1}"
        if not checks.is_integer(reference):
            raise ArgumentError("reference", f"reference is {reference!r}; give {allowed}.")
        return candidates[
            checks.integer(reference, "reference", at_least=0, at_most=len(candidates) - 1, allowed=allowed)
        ]


def load(path: str | os.PathLike[str]) -> GridResult:
    """Read a saved result; no code in the files is executed.

    Args:
      path: The folder that ``result.save`` wrote, or the directory of a finished run.

    Returns:
      The result, without the model: weights are nested dictionaries of NumPy arrays.

    Raises:
      FileNotFoundError: There is no result, or the run is not finished.
      ValueError: A damaged file, or a file of a later version.
    """
    contents = result_folder.read(run_directory.finished_result(path) or path)
    return GridResult(
        contents.dataset,
        contents.members,
        contents.weights,
        contents.settings,
        test=contents.test,
        versions=contents.versions,
        averages=contents.averages,
    )
