"""Which candidate to take, and whether decay is worth it.

Seeds and folds are replicates of a candidate, never candidates. Only validation metrics decide, and a candidate with
any replicate that is nan or infinite is never chosen.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from weightdecay.core import checks, metrics
from weightdecay.core.checks import ArgumentError
from weightdecay.core.statistics import Estimate, Optimism, check_interval
from weightdecay.core.text import suggestion
from weightdecay.decay.families import coefficient, rule_family
from weightdecay.results import edges
from weightdecay.results.candidates import Candidate, difference
from weightdecay.results.selected import Selected

CRITERIA = ("best_mean", "one_standard_error", "one_standard_error_paired")
METRICS = tuple(f"validation_{name}" for name in reversed(metrics.names("examples")))
DEFAULT_MARGIN = 0.005
"""Default margin within which two candidates count as equally good, as a fraction of the metric without decay.

Half a percent of a loss is less than most choices that users leave open change it (the order of the examples, the
batch size), and far more than the rounding of float32. Whoever cares for less, or not even for more, gives ``margin``.
"""


def check_metric(metric: str, known: Iterable[str] = METRICS) -> None:
    """Validate the metric of a choice.

    Args:
      metric: Its name.
      known: Names of the validation metrics.

    Raises:
      ArgumentError: Not one of them.
    """
    known = list(known)
    if metric not in known:
        raise ArgumentError(
            "metric",
            f"metric is {metric!r}; the choice is made on validation data: give one of {', '.join(known)}."
            f"{_metric_suggestion(str(metric), known)}",
        )


def finite(candidates: Sequence[Candidate], metric: str) -> list[Candidate]:
    """Return the candidates that can be chosen.

    Args:
      candidates: All candidates.
      metric: Name of the metric, for the message.

    Returns:
      The candidates whose metric is finite for every replicate.

    Raises:
      ValueError: There is none.
    """
    eligible = [candidate for candidate in candidates if math.isfinite(candidate.mean)]
    if not eligible:
        raise ValueError(
            f"no candidate has a finite {metric} for every seed, so none can be chosen; lower the learning rate or the "
            "coefficients (a regression has no accuracy: choose by metric='validation_loss')."
        )
    return eligible


def without_decay(
    candidates: Sequence[Candidate], metric: str, lower_is_better: Mapping[str, bool] | None = None
) -> Candidate | None:
    """Return the candidate without decay that has the best mean.

    Args:
      candidates: All candidates.
      metric: Metric of the candidates.
      lower_is_better: As in `choose`.

    Returns:
      The candidate; None if no candidate without decay is finite.
    """
    sign = 1 if metrics.lower_is_better(metric, lower_is_better) else -1
    return _best([candidate for candidate in candidates if candidate.is_without_decay], sign)


def choose(
    candidates: Sequence[Candidate],
    *,
    metric: str,
    criterion: str = "best_mean",
    num_folds: int | None = None,
    confidence: float = 0.95,
    margin: float | None = None,
    optimism: Optimism | None = None,
    lower_is_better: Mapping[str, bool] | None = None,
) -> Selected:
    """Choose a candidate, and judge whether decay is worth it.

    ``"best_mean"`` takes the best mean; of equal means, the first. The other two criteria take the most decayed
    candidate that cannot be distinguished from the best, among those with its rule and its other hyperparameters: the
    one with the largest coefficient. If the best has no decay, the candidates of every rule are eligible; and if a rule
    has several coefficients, these have no order: in both cases it is the candidate with the smallest weight norm. With
    m a mean, se a standard error, and a metric that is better if lower, a candidate cannot be distinguished from the
    best

    - by ``"one_standard_error"`` if ``m(candidate) - m(best) <= se(best)``;
    - by ``"one_standard_error_paired"`` if ``m(candidate - best) <= se(candidate - best)``, with the differences taken
      seed by seed and fold by fold. What all candidates share in a seed cancels in them, so that this criterion usually
      takes less decay than the other.

    Whether decay is worth it is judged by the interval of the paired difference between the candidate and the best
    candidate without decay (if the candidate has no decay: between the best candidate with decay and it). If the
    interval excludes 0, one of the two is better. If it contains 0 and is completely within the margin, they are
    equally good: an equivalence test. Otherwise the replicates cannot tell, which with two or three seeds is common.

    Args:
      candidates: Candidates, as `weightdecay.results.candidates.gather` returns them.
      metric: Validation metric of the candidates; see `weightdecay.core.metrics.lower_is_better`.
      criterion: One of the three above.
      num_folds: Number of folds of the cross-validation; None = as many as occur.
      confidence: Confidence of the interval of the difference to no decay, between 0 and 1.
      margin: Differences up to the margin count as equally good, in the unit of the metric; None = `DEFAULT_MARGIN`
        times the absolute metric without decay.
      optimism: Optimism of the choice, which is reported with it.
      lower_is_better: Whether lower values of a metric are better, by its name, as the user stated it; well-known names
        need no entry.

    Returns:
      The chosen candidate. ``beats_no_decay`` uses Student's t of the paired differences at a level that is divided by
      the number of candidates with decay. That is valid however the candidates depend on each other, and conservative;
      with three seeds it takes a difference of many standard errors.

    Raises:
      ArgumentError: An unknown criterion, a confidence or margin out of range, or one seed alone where a standard error
        is needed.
      ValueError: No candidate with finite values.

    References:
      Breiman et al., Classification and Regression Trees, 1984 (the one-standard-error rule). Lakens, Equivalence
      Tests, 2017 (absence of evidence is not evidence of absence; the margin is the smallest difference of interest).
    """
    if criterion not in CRITERIA:
        raise ArgumentError(
            "criterion",
            f"criterion is {criterion!r}; give one of {', '.join(CRITERIA)}.{suggestion(str(criterion), CRITERIA)}",
        )
    check_interval("t", confidence)
    eligible = finite(candidates, metric)
    sign = 1 if metrics.lower_is_better(metric, lower_is_better) else -1
    best = min(eligible, key=lambda candidate: sign * candidate.mean)
    chosen = best
    if criterion != "best_mean":
        if math.isnan(best.standard_error):
            raise ArgumentError(
                "criterion",
                f"criterion {criterion!r} needs at least two seeds or folds; add an axis seed=range(3) to the grid.",
            )
        if criterion == "one_standard_error":
            within = [c for c in eligible if sign * c.mean <= sign * best.mean + best.standard_error]
        else:
            apart = {c.number: difference(c, best, num_folds=num_folds) for c in eligible}
            within = [c for c in eligible if c is best or sign * apart[c.number].mean <= apart[c.number].standard_error]
        chosen = _most_decayed(best, within)
    edge = edges.of(chosen, candidates)
    of_candidate = {name: getattr(chosen, name) for name in Candidate.__dataclass_fields__}
    return Selected(
        **of_candidate,
        metric=metric,
        criterion=criterion,
        edge=edge.coefficient,
        learning_rate_edge=edge.learning_rate,
        advice=edge.advice,
        extension=edge.extension,
        confidence=float(confidence),
        optimism=optimism,
        **_comparison(chosen, candidates, sign, num_folds, confidence, margin),
    )


def _comparison(
    chosen: Candidate,
    candidates: Sequence[Candidate],
    sign: int,
    num_folds: int | None,
    confidence: float,
    margin: float | None,
) -> dict[str, Any]:
    """Compare the chosen candidate with no decay, or, if it has no decay, the best candidate with decay with it."""
    with_decay = [candidate for candidate in candidates if not candidate.is_without_decay]
    no_decay = [candidate for candidate in candidates if candidate.is_without_decay]
    reference = chosen if chosen.is_without_decay else _best(no_decay, sign)
    compared = _best(with_decay, sign) if chosen.is_without_decay else chosen
    allowed = "a number of at least 0 in the unit of the metric, or None for the default"
    if margin is not None:
        margin = checks.number(margin, "margin", at_least=0, allowed=allowed)
    elif reference is not None:
        margin = DEFAULT_MARGIN * abs(reference.mean)
    fields: dict[str, Any] = {
        "difference": None,
        "best_with_decay": compared if chosen.is_without_decay else None,
        "difference_with_decay": None,
        "no_decay_is_as_good": None,
        "beats_no_decay": None,
        "num_with_decay": len(with_decay),
        "margin": math.nan if margin is None else margin,
    }
    if reference is None or not with_decay:
        return fields
    if compared is None:  # No candidate with decay is finite, in at least two replicates.
        is_shown = not math.isnan(chosen.standard_error)
        return fields | ({"no_decay_is_as_good": True, "beats_no_decay": False} if is_shown else {})
    estimated = difference(compared, reference, num_folds=num_folds, confidence=confidence)
    fields["difference_with_decay" if chosen.is_without_decay else "difference"] = estimated
    if math.isnan(estimated.standard_error):
        return fields
    if _is_better(estimated, sign):
        of_many = difference(
            compared, reference, num_folds=num_folds, confidence=1 - (1 - confidence) / len(with_decay)
        )
        return fields | {
            "no_decay_is_as_good": False,
            "beats_no_decay": True if _is_better(of_many, sign) else None,
        }
    is_worse = estimated.lower > 0 if sign > 0 else estimated.upper < 0
    if is_worse or max(abs(estimated.lower), abs(estimated.upper)) <= fields["margin"]:
        return fields | {"no_decay_is_as_good": True, "beats_no_decay": False}
    return fields


def _is_better(estimated: Estimate, sign: int) -> bool:
    """Whether an interval is completely on the better side of 0."""
    return estimated.upper < 0 if sign > 0 else estimated.lower > 0


def _best(candidates: Sequence[Candidate], sign: int) -> Candidate | None:
    """Return the candidate with the best finite mean; None if there is none. ``sign`` is -1 if higher is better."""
    eligible = [candidate for candidate in candidates if math.isfinite(candidate.mean)]
    return min(eligible, key=lambda candidate: sign * candidate.mean, default=None)


def _most_decayed(best: Candidate, within: Sequence[Candidate]) -> Candidate:
    eligible = [c for c in within if c.others == best.others]
    if not best.is_without_decay:
        eligible = [c for c in eligible if rule_family(c.decay) == rule_family(best.decay)]
        # The larger a bound, the less it decays.
        if all(coefficient(c.decay) is not None and "coefficient" in c.decay.coefficients() for c in eligible):
            return max(eligible, key=lambda c: coefficient(c.decay) or 0.0)
    return min(eligible, key=lambda c: c.weight_norm)


def _metric_suggestion(metric: str, known: Iterable[str]) -> str:
    """Suggest the metric that was meant, also if only its prefix is missing."""
    prefixed = f"validation_{metric.removeprefix('test_').removeprefix('train_')}"
    return f" Did you mean {prefixed!r}?" if prefixed in known else suggestion(metric, known)
