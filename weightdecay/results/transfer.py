"""The coefficient for another run, by what a rule keeps, or by a law that is fitted to several results.

`weightdecay.decay.scaling` says what a rule keeps. A rule with a time scale keeps it in epochs: its coefficient is
proportional to batch size / (examples x the fraction of the weights that a coefficient of 1 removes per step). A
penalty without a time scale keeps the objective: its coefficient multiplies a mean over examples, next to a prior of
the weights that stays the same, and so is proportional to 1 / examples. Examples are those that a run takes: all of
them, or, in a run of less than one epoch, steps x batch size. There the time scale in epochs is a fraction of the run.

Another number of epochs changes neither. But stopping at the end is itself a decay, which is weaker in a longer run:
where the loss without decay turned, at the epoch t*, the coefficient is proportional to 1 / t* - 1 / epochs (see
`suggestion`).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from weightdecay.core import checks, text
from weightdecay.core.checks import ArgumentError, ArgumentTypeError
from weightdecay.decay import Rule, scaling
from weightdecay.decay.families import coefficient, rule_family, with_coefficient
from weightdecay.decay.schedules import Parametric
from weightdecay.results import edges, power_law
from weightdecay.results.candidates import Candidate
from weightdecay.results.power_law import Exponent, PowerLaw
from weightdecay.search import turn

QUANTITIES = ("num_steps", "batch_size", "learning_rate", "num_examples")
_ORDER = ("num_examples", "num_steps", "learning_rate", "batch_size")  # in which they enter a law
_KEEPS = {
    scaling.TIME_SCALE: "the time scale in epochs stays the same",
    scaling.OBJECTIVE: "the objective, with its prior, stays the same",
}
_LENGTH = ("its strength next to that of stopping", "Ali, Kolter & Tibshirani 2019, arXiv 1810.10082")
SOURCES = {
    scaling.TIME_SCALE: "Wang & Aitchison 2024, arXiv 2405.13698; Bergsma et al. 2025, arXiv 2505.13738",
    scaling.OBJECTIVE: "MacKay, A Practical Bayesian Framework for Backpropagation Networks, 1992",
}
"""Where it is said what a rule keeps."""


@dataclass(frozen=True)
class TransferredRule:
    """The coefficient of one rule for another run.

    Attributes:
      rule: Name of the rule.
      before: The best coefficient of the result.
      coefficient: The coefficient for the other run, in the rule's unit; nan where there is no basis.
      low: From one result, what the lowest coefficient within one standard error of the best becomes; with a law, the
        lower end of its interval.
      high: The same for the highest one.
      keeps: What stays the same, in theory; or why there is no basis.
      formula: How the coefficient was computed.
      source: Where it is said; empty where there is no basis.
      exponents: Exponent of each quantity in the fitted law, with its standard error; empty from one result.
      edge: ``"lowest"`` or ``"highest"`` if the best coefficient of the result is at that end of its grid, else None.
      decay: The rule with the coefficient; None where there is no basis.
    """

    rule: str
    before: float
    coefficient: float
    low: float
    high: float
    keeps: str
    formula: str
    source: str
    exponents: Mapping[str, Exponent]
    edge: str | None
    decay: Rule | None = field(repr=False)


@dataclass(frozen=True)
class Transfer(Sequence[TransferredRule]):
    """The coefficients for another run, one `TransferredRule` per rule; printed, they are a table.

    Attributes:
      rows: One per rule of the result with a coefficient.
      run: Steps, batch size, learning rate and examples of the other run by name; the learning rate is nan where it
        stays what it is in each row.
    """

    rows: tuple[TransferredRule, ...]
    run: Mapping[str, float]

    def rules(self) -> list[Rule]:
        """Return the rules with their coefficients for the other run."""
        return [row.decay for row in self.rows if row.decay is not None]

    def table(self) -> pd.DataFrame:
        """Return the rows as a table: index ``rule``; the numbers, ``keeps``, ``formula`` and ``source`` as columns."""
        columns = ("before", "coefficient", "low", "high", "keeps", "formula", "source")
        data = {name: [getattr(row, name) for row in self.rows] for name in columns}
        return pd.DataFrame(data, index=pd.Index([row.rule for row in self.rows], name="rule"))

    def __getitem__(self, rule: Any) -> Any:
        """Return the row of a rule by its name, or by its number."""
        if not isinstance(rule, str):
            return self.rows[rule]
        names = [row.rule for row in self.rows]
        return self.rows[names.index(checks.one_of(rule, "rule", names))]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def __iter__(self) -> Iterator[TransferredRule]:
        """Iterate over the rows."""
        return iter(self.rows)

    def __str__(self) -> str:
        """Return the table, with formulas and sources after it, in 80 columns."""
        import textwrap

        head = ("rule", "before", "coefficient", "low", "high", "formula")
        cells = [
            (
                row.rule,
                *(text.number(value, ".3g") for value in (row.before, row.coefficient, row.low, row.high)),
                row.formula or row.keeps,
            )
            for row in self.rows
        ]
        widths = [max(len(row[column]) for row in (head, *cells)) for column in range(len(head))]
        lines = []
        for row in (head, *cells):
            start = "  ".join(
                cell.rjust(width) if column else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row[:-1], widths[:-1], strict=True))
            )
            indent = " " * (len(start) + 2)
            lines += textwrap.wrap(row[-1], 80, initial_indent=f"{start}  ", subsequent_indent=indent) or [start]
        kept = dict.fromkeys((row.keeps, row.source) for row in self.rows if row.source)
        sentences = [f"{keeps[:1].upper()}{keeps[1:]}: {source}." for keeps, source in kept]
        if at_edge := [f"{row.rule} ({row.edge})" for row in self.rows if row.edge]:
            sentences.append(f"The best coefficient may lie beyond the grid of {', '.join(at_edge)}.")
        ends = [line for sentence in sentences for line in textwrap.wrap(sentence, 80)]
        return "\n".join([*lines, "", *ends])

    __repr__ = __str__


class _Best(NamedTuple):
    """The best candidate of a family of rules in one result."""

    candidate: Candidate
    coefficient: float
    low: float  # within one standard error
    high: float
    error: float  # of the natural logarithm; nan where the family has one coefficient
    edge: str | None  # "lowest" or "highest"
    turn: float  # step at which the loss without decay turned; nan where it did not, or there is none
    run: dict[str, float]  # by QUANTITIES


def transfer(
    results: Sequence[Any],
    *,
    num_steps: Any,
    batch_size: Any,
    learning_rate: Any,
    num_examples: Any,
    metric: str,
    confidence: float,
) -> Transfer:
    """Compute the coefficients for another run; see ``result.transfer``.

    Args:
      results: The result, and others of other sizes.
      num_steps: Steps of the other run, or None.
      batch_size: Its batch size, or None.
      learning_rate: Its peak learning rate, or None.
      num_examples: Its number of training examples, or None.
      metric: Validation metric that a coefficient is best by.
      confidence: Confidence of the interval of a fitted law.

    Returns:
      The coefficients.

    Raises:
      ArgumentTypeError: Something else than a result, or than a number.
      ArgumentError: Nothing changes, or a number is out of range.
    """
    confidence = checks.number(confidence, "confidence", above=0, below=1, allowed="a number between 0 and 1")
    for result in results[1:]:
        if not hasattr(result, "candidates"):
            raise ArgumentTypeError("others", f"others has a {type(result).__name__}; give results of wd.fit_grid.")
    given = {"num_steps": num_steps, "batch_size": batch_size, "num_examples": num_examples}
    new = {name: float(checks.integer(value, name, at_least=1)) for name, value in given.items() if value is not None}
    if learning_rate is not None:
        new["learning_rate"] = checks.number(learning_rate, "learning_rate", above=0, allowed="a number above 0")
    if not new:
        raise ArgumentError("num_steps", f"{', '.join(QUANTITIES)} are all None; give what is new in the other run.")
    first = results[0]
    rows = []
    for family, candidates in _families(first, metric).items():
        others = [_families(result, metric).get(family, []) for result in results[1:]]
        rows.append(_row(results, [candidates, *others], new, confidence, first.lower_is_better(metric)))
    return Transfer(tuple(rows), _other_run({**_size(first), "learning_rate": math.nan}, new))


def _families(result: Any, metric: str) -> dict[Any, list[Candidate]]:
    """Return the finite candidates with decay by their family."""
    families: dict[Any, list[Candidate]] = {}
    for candidate in result.candidates(metric):
        if not candidate.is_without_decay and math.isfinite(candidate.mean):
            families.setdefault(rule_family(candidate.decay), []).append(candidate)
    return families


def _row(
    results: Sequence[Any],
    families: Sequence[list[Candidate]],
    new: Mapping[str, float],
    confidence: float,
    lower_is_better: bool,
) -> TransferredRule:
    """Return the row of a family of rules, whose candidates are given for each result."""
    name = families[0][0].decay.name
    best = _best(results[0], families[0], lower_is_better)
    if best is None:
        return _nothing(name, math.nan, "no basis: it has no coefficient, or several")
    momentum = _momentum(results[0], best.candidate)
    basis = scaling.basis(best.candidate.decay, momentum=momentum)
    if basis is None:
        return _nothing(name, best.coefficient, "no basis: theory says nothing about its coefficient")
    run = _other_run(best.run, new)
    if "learning_rate" in new and math.isnan(best.run["learning_rate"]):
        return _nothing(name, best.coefficient, "no basis: the peak of its learning rate is not known")
    points = [best]
    for result, candidates in zip(results[1:], families[1:], strict=True):
        alike = [one for one in candidates if one.others == best.candidate.others]
        point = _best(result, alike or candidates, lower_is_better)
        points += [] if point is None else [point]
    law = _law(points)
    fitted = set() if law is None else {name for name in _ORDER if _varies(points, name)}
    factor, formula = _factor(best, basis, run, momentum, fitted)
    keeps, source = _KEEPS[basis], SOURCES[basis]
    if "num_steps" not in fitted:
        length, written = _length(best, run)
        factor, formula = factor * length, formula + written
        if written:
            keeps, source = f"{keeps}, and {_LENGTH[0]}", f"{source}; {_LENGTH[1]}"
    if law is None:
        value, low, high = best.coefficient * factor, best.low * factor, best.high * factor
        formula, exponents = f"c{formula}", {}
    else:
        value, low, high = (factor * number for number in law.predict(_taken(run), confidence))
        exponents = law.exponents
        powers = " ".join(
            f"{name}^({text.estimate(exponent.value, exponent.standard_error)})" for name, exponent in exponents.items()
        )
        formula = f"law of {len(points)} runs: {powers}{formula}"
    decay = with_coefficient(best.candidate.decay, value)
    return TransferredRule(
        *(name, best.coefficient, value, low, high, keeps, formula, source, exponents, best.edge, decay)
    )


def _nothing(name: str, before: float, why: str) -> TransferredRule:
    return TransferredRule(name, before, math.nan, math.nan, math.nan, why, "", "", {}, None, None)


def _best(result: Any, candidates: Sequence[Candidate], lower_is_better: bool) -> _Best | None:
    """Return the best candidate of a family, with the coefficients that are as good within one standard error."""
    if coefficient(candidates[0].decay) is None:
        return None
    sign = 1 if lower_is_better else -1
    chosen = min(candidates, key=lambda candidate: sign * candidate.mean)
    path = sorted(
        (one for one in candidates if one.others == chosen.others), key=lambda one: coefficient(one.decay) or 0.0
    )
    values = [float(coefficient(one.decay) or 0.0) for one in path]
    position = path.index(chosen)
    limit = sign * chosen.mean + (0.0 if math.isnan(chosen.standard_error) else chosen.standard_error)
    lowest = highest = position
    while lowest > 0 and sign * path[lowest - 1].mean <= limit:
        lowest -= 1
    while highest < len(path) - 1 and sign * path[highest + 1].mean <= limit:
        highest += 1
    spacing = math.log(values[-1] / values[0]) / (len(values) - 1) if len(values) > 1 else math.nan
    edge = edges.of(chosen, result.candidates()).coefficient  # of the grid: untrained candidates count
    # The best of a grid is known to half of its spacing at most.
    error = (math.log(values[highest] / values[lowest]) + spacing) / 2
    run = {**_size(result), "learning_rate": _peak(chosen.hyperparameters.get("learning_rate"), result)}
    return _Best(chosen, values[position], values[lowest], values[highest], error, edge, _turn(result, chosen), run)


def _turn(result: Any, chosen: Candidate) -> float:
    """Return the step at which the loss without decay turned, with the other hyperparameters of a candidate."""
    alike = [one for one in result.candidates() if one.is_without_decay and one.others == chosen.others]
    curves = [result.dataset["validation_loss"].values[list(one.members)] for one in alike]
    if not curves or not np.isfinite(curves[0]).all():
        return math.nan
    turned = turn.find(result.dataset["step"].values, np.asarray(curves[0], np.float64))
    return math.nan if turned is None else float(turned.step)


def _size(result: Any) -> dict[str, float]:
    """Return steps, batch size and training examples of a result."""
    examples = float(result.settings["examples"]["train"])
    batch_size = result.settings["batch_size"]
    return {
        "num_steps": float(result.settings["num_steps"]),
        "batch_size": examples if batch_size is None else float(batch_size),
        "num_examples": examples,
    }


def _peak(learning_rate: Any, result: Any) -> float:
    """Return the largest learning rate; nan where it is not known."""
    if isinstance(learning_rate, Parametric):
        largest = learning_rate.over(result.settings["num_steps"]).largest()
        return math.nan if largest is None else float(largest)
    return float(learning_rate) if isinstance(learning_rate, Real) else math.nan


def _momentum(result: Any, candidate: Candidate) -> float | None:
    """Return the momentum of SGD; None for another optimizer."""
    if result.settings.get("optimizer") != "sgd":
        return None
    return float(candidate.hyperparameters.get("momentum", 0.0))


def _other_run(run: Mapping[str, float], new: Mapping[str, float]) -> dict[str, float]:
    """Return the quantities of the other run; as many epochs as before, unless its steps are given."""
    other = {**run, **new}
    if "batch_size" not in new and run["batch_size"] == run["num_examples"]:
        other["batch_size"] = other["num_examples"]  # a batch of all examples stays one
    if "num_steps" not in new:
        epochs = run["num_steps"] * run["batch_size"] / run["num_examples"]
        other["num_steps"] = epochs * other["num_examples"] / other["batch_size"]
    return other


def _taken(run: Mapping[str, float]) -> dict[str, float]:
    """Return the quantities of a run, with the examples that it takes in place of those that there are."""
    return {**run, "num_examples": min(run["num_examples"], run["num_steps"] * run["batch_size"])}


def _factor(
    best: _Best, basis: str, other: Mapping[str, float], momentum: float | None, fitted: set[str]
) -> tuple[float, str]:
    """Return the factor of the coefficient, without the quantities that a law was fitted to, and its formula."""
    run, other = _taken(best.run), _taken(other)
    changes = {"num_examples": run["num_examples"] / other["num_examples"]}
    if basis == scaling.TIME_SCALE:
        changes["batch_size"] = other["batch_size"] / run["batch_size"]
        if run["learning_rate"] != other["learning_rate"] and not math.isnan(run["learning_rate"]):
            unit = with_coefficient(best.candidate.decay, 1.0)
            rule: Any = getattr(unit, "rule", unit)  # without its mask
            before, after = (
                float(scaling.removed(rule, one["learning_rate"], [1], momentum=momentum)[0]) for one in (run, other)
            )
            changes["learning_rate"] = before / after
    factor, formula = 1.0, ""
    for name, ratio in changes.items():
        if name in fitted or ratio == 1:
            continue
        factor *= ratio
        first, second = (other, run) if name == "batch_size" else (run, other)
        formula += f" * {first[name]:.4g}/{second[name]:.4g} ({name.removeprefix('num_').replace('_', ' ')})"
    return factor, formula


def _length(best: _Best, other: Mapping[str, float]) -> tuple[float, str]:
    """Return the factor of another number of epochs, if it is another one and the turn is known, and its formula."""
    run = best.run
    epochs, others = (one["num_steps"] * one["batch_size"] / one["num_examples"] for one in (run, other))
    turned = best.turn * run["batch_size"] / run["num_examples"]
    if math.isnan(turned) or abs(others / epochs - 1) < 1e-9 or min(epochs, others) < 1:
        return 1.0, ""
    factor = max(1 / turned - 1 / others, 0.0) / (1 / turned - 1 / epochs)
    return factor, f" * (1/{turned:.3g} - 1/{others:.3g})/(1/{turned:.3g} - 1/{epochs:.3g}) (epochs)"


def _varies(points: Sequence[_Best], name: str) -> bool:
    """Whether a quantity differs between results."""
    values = [_taken(point.run)[name] for point in points]
    return all(map(math.isfinite, values)) and max(values) > (1 + 1e-9) * min(values)


def _law(points: Sequence[_Best]) -> PowerLaw | None:
    """Fit a law to the best coefficients of several results; None where nothing varies, or an error is not known."""
    order = [name for name in _ORDER if _varies(points, name)]
    if not order or not all(math.isfinite(point.error) for point in points):
        return None
    return power_law.fit(
        [point.coefficient for point in points],
        [point.error for point in points],
        [_taken(point.run) for point in points],
        order,
    )
