"""Which candidate to take, how sure that is, and whether its grid was wide enough.

Seeds and folds are replicates of a candidate, never candidates. The choice looks at validation metrics alone, and a
candidate with any replicate that is nan or infinite is never chosen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from weightdecay.core.metrics import lower_is_better
from weightdecay.core.statistics import Estimate, Optimism, check_interval, mean_and_error, rounded
from weightdecay.results import edges
from weightdecay.results.candidates import Candidate, coefficient, difference, gather, shape
from weightdecay.search.grid import Grid

__all__ = [
    "CRITERIA",
    "METRICS",
    "Candidate",
    "Choice",
    "check_metric",
    "choose",
    "finite",
    "gather",
    "mean_and_error",
    "without_decay",
]

CRITERIA = ("best_mean", "one_standard_error", "one_standard_error_paired")
METRICS = ("validation_loss", "validation_accuracy")


@dataclass(frozen=True)
class Choice(Candidate):
    """The chosen candidate.

    Attributes:
      metric: Validation metric that it was chosen by.
      criterion: How.
      edge: ``"lowest"`` or ``"highest"`` where its coefficient is the end of its grid, else None.
      learning_rate_edge: The same of its learning rate.
      advice: What to do about the edges, in words; empty where there is nothing to do.
      extension: The grid beyond the edges, which ``result.extend()`` trains; None where there is nothing to do.
      difference: Chosen less no decay, paired by seed and fold, with its standard error and its t interval; no decay is
        the best of the candidates without. None where there is none, and where the choice has no decay itself.
      no_decay_is_as_good: Whether the interval of the difference holds 0 or lies on the side of no decay, or the choice
        has no decay itself. None where one replicate cannot tell, or where there is nothing to compare.
      beats_no_decay: Whether it is better than no decay even though it is the best of many: the interval holds no 0 at
        a confidence of ``1 - (1 - confidence) / num_with_decay`` (Bonferroni). None as above.
      num_with_decay: How many candidates with decay it was chosen from, broken ones among them.
      confidence: Of the interval.
      optimism: By how much the best of the grid looks too good; None where it was not asked for.
    """

    metric: str
    criterion: str
    edge: str | None
    learning_rate_edge: str | None
    advice: str
    extension: Grid | None = field(repr=False, compare=False)
    difference: Estimate | None = field(compare=False)
    no_decay_is_as_good: bool | None
    beats_no_decay: bool | None
    num_with_decay: int
    confidence: float
    optimism: Optimism | None = field(compare=False)

    def __str__(self) -> str:
        """Return the candidate with its metric."""
        others = "".join(f", {name} {_short(value)}" for name, value in self.others.items())
        error = "" if math.isnan(self.standard_error) else f" ± {self.standard_error:.4f}"
        return f"{self.decay}{others}: {self.metric.replace('_', ' ')} {self.mean:.4f}{error}"

    @property
    def sentence(self) -> str:
        """The decision in plain words: what to take, and whether decay is worth it."""
        shown = f"{self._metric} {rounded(self.mean, self.standard_error)}"
        counted = _counted(self)
        if self.is_without_decay:
            return self._without(shown, counted)
        take = f"Take {self._name}: {shown}"
        if self.difference is None:
            return f"{take} ({counted}); the grid has no candidate without decay to compare it with."
        if math.isnan(self.difference.standard_error):
            size = (
                f"{abs(self.difference.mean):.4g} {self._side} no decay" if self.difference.replicates else "on its own"
            )
            doubt = (
                "one seed cannot tell" if len(self.values) == 1 else "too few seeds are shared with no decay to tell"
            )
            return f"{take}, {size}; {doubt} whether that is luck."
        apart = rounded(abs(self.difference.mean), self.difference.standard_error)
        if not self.no_decay_is_as_good:
            if self.beats_no_decay:
                return f"{take}, {apart} {self._side} no decay (paired, {counted})."
            return (
                f"{take}, {apart} {self._side} no decay (paired, {counted}); the best of {self.num_with_decay} may be "
                "so by luck: more seeds would tell."
            )
        if self._is_worse:
            return f"No decay is better: {self._name} has {shown}, {apart} {self._side} no decay (paired, {counted})."
        low, high = (rounded(end, self.difference.standard_error).split(" ")[0] for end in self._ends)
        return (
            f"No decay is as good: {self._name} has {shown}, and its difference to no decay, {self.difference} "
            f"(paired, {counted}), is within noise: the {100 * self.confidence:g} % interval is {low} to {high}."
        )

    @property
    def summary(self) -> str:
        """The sentence, then, each on a line, the optimism of the choice if it was asked for, and the advice."""
        lines = [self.sentence]
        if self.optimism is not None and not math.isnan(self.optimism.mean):
            lines.append(
                f"The best of a grid looks better than it is: here by {rounded(*self.optimism)} in {self._metric}, by "
                "re-splitting the replicates."
            )
        elif self.optimism is not None:
            lines.append("The best of a grid looks better than it is; by how much, one replicate cannot tell.")
        return "\n".join([*lines, self.advice] if self.advice else lines)

    def _without(self, shown: str, counted: str) -> str:
        if not self.num_with_decay:
            return f"Take {self._name}: {shown} ({counted})."
        beaten = f"none of the {self.num_with_decay} candidates with decay has a better mean"
        if self.num_with_decay == 1:
            beaten = "the candidate with decay has no better mean"
        if self.no_decay_is_as_good is None:
            return f"Take {self._name}: {shown}; {beaten}, but one seed cannot tell whether that is luck."
        return f"No decay is as good: {self._name} has {shown} ({counted}), and {beaten}."

    @property
    def _name(self) -> str:
        others = ", ".join(f"{name.replace('_', ' ')} {_short(value)}" for name, value in self.others.items())
        return ("no decay" if self.is_without_decay else str(self.decay)) + (f" at {others}" if others else "")

    @property
    def _metric(self) -> str:
        return self.metric.replace("_", " ")

    @property
    def _ends(self) -> tuple[float, float]:
        assert self.difference is not None
        return self.difference.lower, self.difference.upper

    @property
    def _side(self) -> str:
        assert self.difference is not None
        return "below" if self.difference.mean < 0 else "above"

    @property
    def _is_worse(self) -> bool:
        return self._ends[0] > 0 if lower_is_better(self.metric) else self._ends[1] < 0


def check_metric(metric: str, known: Sequence[str] = METRICS) -> None:
    """Refuse a metric that no choice may be made by.

    Args:
      metric: Its name.
      known: Those on validation data.

    Raises:
      ValueError: None of them.
    """
    if metric not in known:
        raise ValueError(
            f"metric is {metric!r}; the choice is made on validation data: give one of {', '.join(known)}."
        )


def finite(candidates: Sequence[Candidate], metric: str) -> list[Candidate]:
    """Candidates that may be chosen.

    Args:
      candidates: All.
      metric: For the message.

    Returns:
      Those whose every replicate has a finite metric.

    Raises:
      ValueError: There is none.
    """
    found = [candidate for candidate in candidates if math.isfinite(candidate.mean)]
    if not found:
        raise ValueError(
            f"no candidate has a finite {metric} for every seed, so none can be chosen; lower the learning rate or the "
            "coefficients (a regression has no accuracy: choose by metric='validation_loss')."
        )
    return found


def without_decay(candidates: Sequence[Candidate], metric: str) -> Candidate | None:
    """Best mean of the candidates without decay; None where none is finite."""
    found = [one for one in candidates if one.is_without_decay and math.isfinite(one.mean)]
    return min(found, key=lambda one: _sign(metric) * one.mean, default=None)


def choose(
    candidates: Sequence[Candidate],
    *,
    metric: str,
    criterion: str = "best_mean",
    num_folds: int | None = None,
    confidence: float = 0.95,
    optimism: Optimism | None = None,
) -> Choice:
    """Choose a candidate.

    ``"best_mean"`` takes the best mean; of equals, the first. The other two take the most decayed candidate that is not
    told apart from the best, among those that share its rule and its other hyperparameters: the one with the largest
    coefficient. Where the best is no decay every rule continues it, and where a rule has several coefficients they have
    no
    order: then it is the candidate with the smallest weight norm. With m a mean, se a standard error, and of a metric
      of which
    less is better, a candidate is not told apart

    - by ``"one_standard_error"`` where ``m(candidate) - m(best) <= se(best)``;
    - by ``"one_standard_error_paired"`` where ``m(candidate - best) <= se(candidate - best)``, the differences taken
      seed by seed and fold by fold. What all candidates share in a seed drops out of them, so that less decay is as a
      rule given for free, and what the seeds can tell is told.

    Args:
      candidates: As `weightdecay.results.candidates.gather` makes them.
      metric: Validation metric of the candidates; see `weightdecay.core.metrics.lower_is_better`.
      criterion: One of the three above.
      num_folds: Of a cross-validation; None = as many as occur.
      confidence: Of the interval of the difference to no decay, between 0 and 1.
      optimism: Of the grid, to be told with the choice.

    Returns:
      The choice. Whether it beats no decay is judged by Student's t of the paired differences, at a level divided by
      the number of candidates with decay. That is valid however they depend on each other, and on the safe side; with
      three seeds it takes a difference of many standard errors.

    Raises:
      ValueError: An unknown criterion; no candidate with finite values; one seed alone where a standard error
        is needed.

    References:
      Breiman et al., Classification and Regression Trees, 1984 (the one-standard-error rule).
    """
    if criterion not in CRITERIA:
        raise ValueError(f"criterion is {criterion!r}; give one of {', '.join(CRITERIA)}.")
    check_interval("t", confidence)
    possible = finite(candidates, metric)
    sign = _sign(metric)
    best = min(possible, key=lambda candidate: sign * candidate.mean)
    chosen = best
    if criterion != "best_mean":
        if math.isnan(best.standard_error):
            raise ValueError(
                f"criterion {criterion!r} needs at least two seeds or folds; add an axis seed=range(3) to the grid."
            )
        if criterion == "one_standard_error":
            within = [c for c in possible if sign * c.mean <= sign * best.mean + best.standard_error]
        else:
            apart = {c.number: difference(c, best, num_folds=num_folds) for c in possible}
            within = [c for c in possible if c is best or sign * apart[c.number].mean <= apart[c.number].standard_error]
        chosen = _most_decayed(best, within)
    found = edges.of(chosen, candidates)
    compared = _compared(chosen, candidates, metric, num_folds, confidence)
    own = {name: getattr(chosen, name) for name in Candidate.__dataclass_fields__}
    return Choice(
        **own,
        metric=metric,
        criterion=criterion,
        edge=found.coefficient,
        learning_rate_edge=found.learning_rate,
        advice=found.advice,
        extension=found.extension,
        confidence=float(confidence),
        optimism=optimism,
        **compared,
    )


def _compared(
    chosen: Candidate, candidates: Sequence[Candidate], metric: str, num_folds: int | None, confidence: float
) -> dict[str, Any]:
    """What the choice says of no decay."""
    num = sum(not one.is_without_decay for one in candidates)
    none = without_decay(candidates, metric)
    told: dict[str, Any] = {
        "difference": None,
        "no_decay_is_as_good": None,
        "beats_no_decay": None,
        "num_with_decay": num,
    }
    if chosen.is_without_decay:
        can_tell = num > 0 and not math.isnan(chosen.standard_error)
        return told | {"no_decay_is_as_good": True, "beats_no_decay": False} if can_tell else told
    if none is None:
        return told
    sign = _sign(metric)

    def is_better(one: Estimate) -> bool:
        return (one.upper if sign > 0 else -one.lower) < 0

    alone = difference(chosen, none, num_folds=num_folds, confidence=confidence)
    if math.isnan(alone.standard_error):
        return told | {"difference": alone}
    of_many = difference(chosen, none, num_folds=num_folds, confidence=1 - (1 - confidence) / num)
    return told | {
        "difference": alone,
        "no_decay_is_as_good": not is_better(alone),
        "beats_no_decay": is_better(of_many),
    }


def _most_decayed(best: Candidate, within: Sequence[Candidate]) -> Candidate:
    eligible = [c for c in within if c.others == best.others]
    if not best.is_without_decay:
        eligible = [c for c in eligible if shape(c.decay) == shape(best.decay)]
        # The larger a bound, the less it decays.
        if all(coefficient(c.decay) is not None and "coefficient" in c.decay.coefficients() for c in eligible):
            return max(eligible, key=lambda c: coefficient(c.decay) or 0.0)
    return min(eligible, key=lambda c: c.weight_norm)


def _sign(metric: str) -> int:
    return 1 if lower_is_better(metric) else -1


def _counted(candidate: Candidate) -> str:
    """How many replicates, in words."""
    words = []
    for name, values in (
        ("seed", {replicate.seed for replicate in candidate.values}),
        ("fold", {replicate.fold for replicate in candidate.values} - {None}),
    ):
        if len(values) > 1:
            words.append(f"{len(values)} {name}s")
    return " x ".join(words) or "one seed"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
