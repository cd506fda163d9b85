"""Which candidate to take, how sure that is, and whether its grid was wide enough.

Seeds and folds are replicates of a candidate, never candidates. The choice looks at validation metrics alone, and a candidate
with any replicate that is nan or infinite is never chosen.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from weightdecay import grid as grids
from weightdecay.decay import KINDS, NoDecay, Rule
from weightdecay.losses import lower_is_better

CRITERIA = ("best_mean", "one_standard_error")
METRICS = ("validation_loss", "validation_accuracy")


@dataclass(frozen=True)
class Candidate:
    """Hyperparameters that compete, with the validation metric of their replicates.

    Attributes:
      number: As the coordinate ``candidate`` has it.
      hyperparameters: By name, ``decay`` included, without seed and fold.
      members: Its replicates, one a seed and fold.
      mean: Mean of the metric over the replicates; nan where one of them is not finite.
      standard_error: Of the mean; nan with a single replicate.
      weight_norm: Mean over the replicates.
    """

    number: int
    hyperparameters: dict[str, Any]
    members: tuple[int, ...]
    mean: float
    standard_error: float
    weight_norm: float

    @property
    def decay(self) -> Rule:
        """The rule."""
        return self.hyperparameters["decay"]


@dataclass(frozen=True)
class Choice(Candidate):
    """The chosen candidate.

    Attributes:
      metric: Validation metric that it was chosen by.
      criterion: How.
      edge: ``"lowest"`` or ``"highest"`` where its coefficient is the end of its grid, else None.
      advice: What to do about the edge, in words; empty where there is nothing to do.
    """

    metric: str
    criterion: str
    edge: str | None
    advice: str

    def __str__(self) -> str:
        """Return the choice as a sentence."""
        others = "".join(f", {name} {value}" for name, value in self.hyperparameters.items() if name != "decay")
        error = "" if math.isnan(self.standard_error) else f" ± {self.standard_error:.4f}"
        return f"{self.decay}{others}: {self.metric.replace('_', ' ')} {self.mean:.4f}{error}"


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


def mean_and_error(values: Any) -> tuple[float, float]:
    """Mean over replicates, and its standard error.

    Args:
      values: One number a seed, shape ``(seeds,)``.

    Returns:
      The mean, nan or infinite where a value is; the standard error ``s / sqrt(n)`` with n - 1 in s, nan for one seed.
    """
    values = np.array(values, np.float64)
    if len(values) < 2 or not np.isfinite(values).all():
        return float(values.mean()), math.nan
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))


def gather(members: Sequence[Mapping[str, Any]], metric: Any, weight_norm: Any) -> list[Candidate]:
    """Candidates of a grid.

    Args:
      members: Hyperparameters by name.
      metric: Validation metric, shape ``(members,)``.
      weight_norm: Shape ``(members,)``.

    Returns:
      One candidate a number, in order.
    """
    replicates: dict[int, list[int]] = {}
    for index, number in enumerate(grids.candidates(members)):
        replicates.setdefault(number, []).append(index)
    return [
        Candidate(
            number,
            {name: value for name, value in members[indices[0]].items() if name not in grids.REPLICATES},
            tuple(indices),
            *mean_and_error(np.asarray(metric)[indices]),
            mean_and_error(np.asarray(weight_norm)[indices])[0],
        )
        for number, indices in replicates.items()
    ]


def choose(candidates: Sequence[Candidate], *, metric: str, criterion: str = "best_mean") -> Choice:
    """Choose a candidate.

    ``"best_mean"`` takes the best mean; of equals, the first. ``"one_standard_error"`` takes the most decayed candidate
    within one standard error of it, among those that share its rule and its other hyperparameters: the one with the
    largest coefficient. Where the best is no decay every rule continues it, and where a rule has several coefficients
    they have no order: then it is the candidate with the smallest weight norm.

    Args:
      candidates: As `gather` makes them.
      metric: Validation metric of the candidates; see `weightdecay.losses.lower_is_better`.
      criterion: One of the two above.

    Returns:
      The choice.

    Raises:
      ValueError: An unknown criterion; no candidate with finite values; one seed alone where a standard error
        is needed.

    References:
      Breiman et al., Classification and Regression Trees, 1984 (the one-standard-error rule).
    """
    if criterion not in CRITERIA:
        raise ValueError(f"criterion is {criterion!r}; give one of {', '.join(CRITERIA)}.")
    finite = [candidate for candidate in candidates if math.isfinite(candidate.mean)]
    if not finite:
        raise ValueError(
            f"no candidate has a finite {metric} for every seed, so none can be chosen; lower the learning rate or the "
            "coefficients (a regression has no accuracy: choose by metric='validation_loss')."
        )
    sign = 1 if lower_is_better(metric) else -1
    best = min(finite, key=lambda candidate: sign * candidate.mean)
    chosen = best
    if criterion == "one_standard_error":
        if math.isnan(best.standard_error):
            raise ValueError(
                "criterion 'one_standard_error' needs at least two seeds or folds; add an axis seed=range(3) to the grid."
            )
        within = [c for c in finite if sign * c.mean <= sign * best.mean + best.standard_error]
        chosen = _most_decayed(best, within)
    edge, advice = _edge(chosen, candidates)
    return Choice(**vars(chosen), metric=metric, criterion=criterion, edge=edge, advice=advice)


def _most_decayed(best: Candidate, within: Sequence[Candidate]) -> Candidate:
    if isinstance(best.decay, NoDecay):
        eligible = [c for c in within if _others(c) == _others(best)]
        return min(eligible, key=lambda c: c.weight_norm)
    eligible = [c for c in within if _path(c) == _path(best)]
    # The larger a bound, the less it decays.
    if all(coefficient(c.decay) is not None and "coefficient" in c.decay.coefficients() for c in eligible):
        return max(eligible, key=lambda c: coefficient(c.decay) or 0.0)
    return min(eligible, key=lambda c: c.weight_norm)


def coefficient(rule: Rule) -> float | None:
    """The coefficient by which rules of one kind are ordered.

    Args:
      rule: Any rule.

    Returns:
      Its only coefficient, or the one of several that is named so; None where there is no such number.
    """
    numbers = rule.coefficients()
    value = next(iter(numbers.values())) if len(numbers) == 1 else numbers.get("coefficient")
    return float(value) if isinstance(value, Real) else None


def _path(candidate: Candidate) -> tuple[Any, ...]:
    """What candidates share that differ in the coefficient alone."""
    rule = candidate.decay
    others = {name: value for name, value in rule.coefficients().items() if name != "coefficient"}
    shape = str(others) if coefficient(rule) is not None and len(others) < len(rule.coefficients()) else ""
    return rule.name, shape, _others(candidate)


def _edge(chosen: Candidate, candidates: Sequence[Candidate]) -> tuple[str | None, str]:
    here = coefficient(chosen.decay)
    path = sorted(value for c in candidates if _path(c) == _path(chosen) if (value := coefficient(c.decay)) is not None)
    if here is None or len(path) < 2 or path[0] < here < path[-1]:
        return None, ""
    edge, beyond, last = ("lowest", here / 100, here) if here == path[0] else ("highest", here, here * 100)
    alone = chosen.decay.name in KINDS and len(chosen.decay.coefficients()) == 1
    example = (
        f", as with wd.logspace(wd.{chosen.decay.name}, {beyond:.3g}, {last:.3g}, 7)"
        if alone
        else f" to {min(beyond, last) if edge == 'lowest' else max(beyond, last):.3g}"
    )
    return edge, (
        f"{chosen.decay} is the {edge} coefficient of its grid, so the best may lie beyond it: "
        f"extend the grid{example}."
    )


def _others(candidate: Candidate) -> dict[str, Any]:
    return {name: value for name, value in candidate.hyperparameters.items() if name != "decay"}
