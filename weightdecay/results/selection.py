"""Which candidate to take.

Seeds and folds are replicates of a candidate, never candidates. Only validation metrics decide, and a candidate with
any replicate that is nan or infinite is never chosen.
"""

import math
from collections.abc import Sequence
from typing import Any

from weightdecay.core.metrics import lower_is_better
from weightdecay.core.statistics import Estimate, Optimism, check_interval
from weightdecay.results import edges
from weightdecay.results.candidates import Candidate, coefficient, difference, rule_family
from weightdecay.results.selected import Selected

CRITERIA = ("best_mean", "one_standard_error", "one_standard_error_paired")
METRICS = ("validation_loss", "validation_accuracy")


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
) -> Selected:
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
    return Selected(
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
        eligible = [c for c in eligible if rule_family(c.decay) == rule_family(best.decay)]
        # The larger a bound, the less it decays.
        if all(coefficient(c.decay) is not None and "coefficient" in c.decay.coefficients() for c in eligible):
            return max(eligible, key=lambda c: coefficient(c.decay) or 0.0)
    return min(eligible, key=lambda c: c.weight_norm)


def _sign(metric: str) -> int:
    return 1 if lower_is_better(metric) else -1
