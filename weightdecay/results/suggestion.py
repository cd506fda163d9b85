"""`suggest`: coefficients that are likely, from a run without decay alone.

Stopping at step t is itself a decay, of about the strength of the coefficient 1 / R(t): R(t) is the sum, over the steps
up to t, of the fraction of the weights that a coefficient of 1 removes (η t for `Decoupled` at a constant learning rate
η). A run without decay is best where it turns, at the step t*, and ends at the step T, where the rest of that strength
is missing::

    coefficient = k (1 / R(t*) - 1 / R(T))

The factor k, and by how much it varies between tasks, are those of recorded grids (`calibration`). For a penalty under
Adam, R(t) is that of `Decoupled`, and k has the unit of the preconditioner, so that it varies more.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

from weightdecay.core import checks, text
from weightdecay.core.checks import ArgumentError, ArgumentTypeError
from weightdecay.decay import KINDS, Decoupled, NoDecay, Rule, registry, scaling
from weightdecay.decay.families import is_without_decay
from weightdecay.decay.schedules import Parametric
from weightdecay.search import calibration, turn
from weightdecay.search.grid import logspace
from weightdecay.search.turn import Turn

OPTIMIZERS = ("adam", "sgd", "lion", "rmsprop", "lamb", "muon")


@dataclass(frozen=True)
class SuggestedRule:
    """Likely coefficients of one rule.

    Attributes:
      rule: Name of the rule.
      coefficient: The most likely coefficient, in the rule's unit; 0 where no decay is needed.
      low: Lower end of the interval.
      high: Upper end of the interval; where no decay is needed, the largest coefficient that is likely.
      time_scale: ``1 / r`` steps of the coefficient, with r the mean fraction of the weights that it removes per step;
        infinite where no decay is needed, nan for a rule without a time scale.
      why: Where the numbers come from, in a few words.
    """

    rule: str
    coefficient: float
    low: float
    high: float
    time_scale: float
    why: str

    def rules(self, num: int = 5) -> list[Rule]:
        """Return rules with log-spaced coefficients, both ends of the interval included.

        Args:
          num: Number of rules, at least 1; 1 = the most likely coefficient alone.

        Returns:
          The rules; none where no decay is needed.
        """
        num = checks.integer(num, "num", at_least=1)
        kind = registry.named(self.rule)
        if self.coefficient == 0:
            return []
        return [kind.from_one(self.coefficient)] if num == 1 else logspace(kind.from_one, self.low, self.high, num)


@dataclass(frozen=True)
class Suggestion(Sequence[SuggestedRule]):
    """What a run without decay suggests, one `SuggestedRule` per rule; printed, it is a table.

    Attributes:
      rows: One per rule for which theory and the recorded grids say something.
      turn: Where the validation loss turned; None = it did not.
      num_steps: Last step of the run.
      num_curves: Number of curves (seeds and folds) that were used.
      learning_rate: Learning rate of the run.
      optimizer: Name of the optimizer.
      confidence: Confidence of the intervals.
      without_basis: Names of the rules of the library for which nothing can be said.
    """

    rows: tuple[SuggestedRule, ...]
    turn: Turn | None
    num_steps: int
    num_curves: int
    learning_rate: Any
    optimizer: str
    confidence: float
    without_basis: tuple[str, ...]

    @property
    def is_needed(self) -> bool:
        """Whether the validation loss turned, so that decay is likely to help."""
        return self.turn is not None

    def rules(self, num: int = 5, *, only: Sequence[str] | None = None) -> list[Rule]:
        """Return no decay, and rules with log-spaced coefficients over the interval of each row, for a `wd.Grid`.

        Args:
          num: Number of coefficients of each rule, at least 1; 1 = the most likely coefficient.
          only: Names of the rules; None = all rows.

        Returns:
          The rules; no decay alone where none is needed.

        Raises:
          ArgumentError: A name that has no row.
        """
        names = [row.rule for row in self.rows]
        for name in only or ():
            checks.one_of(name, "only", names)
        chosen = [row for row in self.rows if only is None or row.rule in only]
        return [NoDecay(), *(rule for row in chosen for rule in row.rules(num))]

    def table(self) -> pd.DataFrame:
        """Return the rows as a table: index ``rule``; the other attributes of `SuggestedRule` as columns."""
        columns = ("coefficient", "low", "high", "time_scale", "why")
        data = {name: [getattr(row, name) for row in self.rows] for name in columns}
        return pd.DataFrame(data, index=pd.Index([row.rule for row in self.rows], name="rule"))

    def __getitem__(self, rule: Any) -> Any:
        """Return the row of a rule by its name, or by its number."""
        if not isinstance(rule, str):
            return self.rows[rule]
        return self.rows[[row.rule for row in self.rows].index(checks.one_of(rule, "rule", [r.rule for r in self]))]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def __iter__(self) -> Iterator[SuggestedRule]:
        """Iterate over the rows."""
        return iter(self.rows)

    @property
    def sentence(self) -> str:
        """What the run without decay showed."""
        curves = f"{self.num_curves} curve{'s' * (self.num_curves > 1)}"
        where = f"learning rate {text.short(self.learning_rate)}, {curves}"
        if self.turn is None:
            return (
                f"None needed so far: the validation loss without decay did not turn in {self.num_steps} steps "
                f"({where}). high is the largest coefficient that is likely."
            )
        return (
            f"The validation loss without decay turned at step {self.turn.step} of {self.num_steps} ({where}). "
            f"Coefficient: k (1 / R(t*) - 1 / R(T)); low to high: its {100 * self.confidence:g} % interval."
        )

    def __str__(self) -> str:
        """Return the sentence and the table, in 80 columns."""
        import textwrap

        head = ("rule", "coefficient", "low", "high", "time scale", "why")
        cells = [
            (
                row.rule,
                *(text.number(value, ".3g") for value in (row.coefficient, row.low, row.high)),
                f"{row.time_scale:.3g} steps" if math.isfinite(row.time_scale) else text.NOTHING,
                row.why,
            )
            for row in self.rows
        ]
        widths = [max(len(row[column]) for row in (head, *cells)) for column in range(len(head))]
        lines = [
            "  ".join(
                cell.ljust(width) if column in (0, 5) else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in (head, *cells)
        ]
        end = f"Nothing is known of {', '.join(self.without_basis)}."
        wrap = lambda sentence: textwrap.wrap(sentence, 80)  # noqa: E731
        return "\n".join([*wrap(self.sentence), "", *lines, "", *wrap(end)])

    __repr__ = __str__


def suggest(
    run: Any,
    losses: Any = None,
    *,
    learning_rate: Any = None,
    optimizer: str | None = None,
    momentum: float | None = None,
    confidence: float = 0.8,
) -> Suggestion:
    """Suggest coefficients from a run without decay: those that theory and recorded grids make likely.

    ``c = k (1 / R(t*) - 1 / R(T))``, with t* the step at which the validation loss turned, T the last step, R(t) the
    sum up to step t of the fraction that a coefficient of 1 removes (η t for `Decoupled`), and k from recorded grids.
    If the loss did not turn, none is needed so far: a coefficient of 0, and as the upper end what a turn at T would
    suggest.

    Args:
      run: A `GridResult` with members without decay; or the evaluation steps of a curve, ascending, shape ``(steps,)``.
      losses: With steps, the validation loss at each of them, shape ``(steps,)``, or ``(seeds, steps)``.
      learning_rate: Peak learning rate, > 0, or a schedule of `wd.schedules`. With a result: which of its learning
        rates; None = that of the best candidate without decay.
      optimizer: Name of the optimizer: "adam", "sgd", "lion", "rmsprop", "lamb" or "muon". None = that of the result;
        with steps, "adam".
      momentum: Momentum of SGD, in [0, 1); None = that of the members, or 0.
      confidence: Confidence of the intervals, between 0 and 1. How often they held the best coefficient of a recorded
        task is in the guide "Reading a result".

    Returns:
      A `Suggestion`: one row per rule (``.coefficient``, ``.low``, ``.high``, ``.time_scale``), ``.turn``, and
      ``.rules(num)`` for a grid.

    Raises:
      ArgumentTypeError: An argument of a wrong type.
      ArgumentError: No member without decay, no finite curve, or an argument out of range.

    References:
      Ali, Kolter & Tibshirani, A Continuous-Time View of Early Stopping for Least Squares Regression, 2019, arXiv
      1810.10082 (stopping at t is about ridge regression of strength 1 / (η t)); Wang & Aitchison, 2024, arXiv
      2405.13698 (time scale).

    Examples:
      >>> import numpy as np
      >>> steps = np.arange(20, 1001, 20)
      >>> suggestion = suggest(steps, (np.log(steps / 200)) ** 2, learning_rate=1e-3)
      >>> suggestion.turn.step, [str(rule) for rule in suggestion.rules(1, only=["Decoupled"])][0]
      (200, 'NoDecay()')
    """
    confidence = checks.number(confidence, "confidence", above=0, below=1, allowed="a number between 0 and 1")
    if losses is None:
        steps, curves, learning_rate, used, momentum = _of_result(run, learning_rate, optimizer, momentum)
    else:
        steps, curves = _curves(run, losses)
        used = checks.one_of(optimizer or "adam", "optimizer", OPTIMIZERS)
        if learning_rate is None:
            raise ArgumentError("learning_rate", "learning_rate is None; give the peak learning rate of the run.")
    num_steps = int(steps[-1])
    rate = _rate(learning_rate, num_steps)
    if momentum is not None:
        checks.number(momentum, "momentum", at_least=0, below=1, allowed="a number in [0, 1)")
    sgd_momentum = (momentum or 0.0) if used == "sgd" else None
    turned = turn.find(steps, curves)
    rows, without = [], []
    for name, kind in {**KINDS, **registry.USER_KINDS}.items():
        if kind is NoDecay:
            continue
        row = _row(kind, turned, num_steps, rate, used, sgd_momentum, confidence)
        rows += [] if row is None else [row]
        without += [name] if row is None else []
    return Suggestion(*(tuple(rows), turned, num_steps, len(curves), learning_rate, used, confidence), tuple(without))


def _row(
    kind: type[Rule],
    turned: Turn | None,
    num_steps: int,
    rate: Any,
    optimizer: str,
    momentum: float | None,
    confidence: float,
) -> SuggestedRule | None:
    """Return the row of a rule; None where nothing is known."""
    if len(kind.coefficient_names()) != 1 or kind.required() != kind.coefficient_names():
        return None
    basis = _basis(kind, momentum)
    calibrated = calibration.of_rule(basis, kind.__name__, optimizer)
    if calibrated is None:
        return None
    of_kind = kind if basis == scaling.TIME_SCALE else Decoupled
    whole = scaling.removed_until(of_kind, rate, num_steps, momentum=momentum)
    if not whole > 0:
        return None
    smallest, largest = calibrated.factors(confidence)
    if turned is None:
        infinite = math.inf if basis == scaling.TIME_SCALE else math.nan
        return SuggestedRule(kind.__name__, 0.0, 0.0, largest / whole, infinite, f"at most {largest:.2g} / R(T)")
    missing = 1 / scaling.removed_until(of_kind, rate, turned.step, momentum=momentum) - 1 / whole
    coefficient = calibrated.factor * missing
    time_scale = num_steps / (coefficient * whole) if basis == scaling.TIME_SCALE else math.nan
    why = f"k {calibrated.factor:.2g}, {calibrated.num_tasks} tasks"
    return SuggestedRule(kind.__name__, coefficient, smallest * missing, largest * missing, time_scale, why)


@functools.cache
def _basis(kind: type[Rule], momentum: float | None) -> str | None:
    return scaling.basis(kind.from_one(1.0), momentum=momentum)


def _of_result(
    result: Any, learning_rate: Any, optimizer: str | None, momentum: float | None
) -> tuple[np.ndarray, np.ndarray, Any, str, float | None]:
    """Return steps, curves, learning rate, optimizer and momentum of the members without decay."""
    if not hasattr(result, "dataset") or not hasattr(result, "no_decay"):
        raise ArgumentTypeError(
            "run",
            f"run is of type {type(result).__name__}; give a GridResult, or steps and losses as "
            "wd.suggest(steps, losses, learning_rate=1e-3).",
        )
    candidates = [candidate for candidate in result.candidates() if is_without_decay(candidate.decay)]
    if not candidates:
        raise ArgumentError("run", "run has no member without decay; train a grid that contains wd.NoDecay().")
    rates = list(dict.fromkeys(candidate.hyperparameters.get("learning_rate") for candidate in candidates))
    if learning_rate is not None:
        checks.one_of(learning_rate, "learning_rate", rates)
        candidates = [one for one in candidates if one.hyperparameters.get("learning_rate") == learning_rate]
    finite = [candidate for candidate in candidates if math.isfinite(candidate.mean)]
    if not finite:
        raise ArgumentError(
            "run",
            "run has no finite validation loss without decay: all of these members diverged, or were not trained.",
        )
    chosen = min(finite, key=lambda candidate: candidate.mean)
    members = list(chosen.members)
    curves = result.dataset["validation_loss"].values[members].astype(np.float64)
    steps = result.dataset["step"].values
    stopped = result.dataset["stopped_at"].values[members]
    ends = stopped[stopped >= 0]
    kept = steps <= (ends.min() if len(ends) else steps[-1])
    own = chosen.hyperparameters.get("momentum")
    return (
        *(steps[kept], curves[:, kept], chosen.hyperparameters.get("learning_rate")),
        str(optimizer or result.settings["optimizer"]),
        float(own) if momentum is None and isinstance(own, Real) else momentum,
    )


def _curves(steps: Any, losses: Any) -> tuple[np.ndarray, np.ndarray]:
    """Validate the arrays of a curve."""
    given, values = np.asarray(steps), np.atleast_2d(np.asarray(losses, np.float64))
    if given.ndim != 1 or len(given) == 0 or given.dtype.kind not in "iuf" or (np.diff(given) <= 0).any():
        raise ArgumentError("run", f"run is {text.shortened(steps)}; give ascending evaluation steps, shape (steps,).")
    if given[0] < 1:
        raise ArgumentError("run", f"run begins with step {given[0]}; give steps of at least 1.")
    if values.ndim != 2 or values.shape[1] != len(given):
        raise ArgumentError(
            "losses",
            f"losses have the shape {np.shape(losses)} for {len(given)} steps; give (steps,) or (seeds, steps).",
        )
    finite = values[np.isfinite(values).all(axis=1)]
    if not len(finite):
        raise ArgumentError("losses", "losses have no curve that is finite at every step; give one, or end it earlier.")
    return given, finite


def _rate(learning_rate: Any, num_steps: int) -> Any:
    """Return the learning rate as a number, or as a schedule of steps."""
    if isinstance(learning_rate, Parametric):
        return learning_rate.over(num_steps)
    return checks.number(
        learning_rate, "learning_rate", above=0, allowed="a number above 0, or a schedule of wd.schedules"
    )
