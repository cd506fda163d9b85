"""The chosen candidate: what is known of it, and the decision in a sentence."""

import math
from dataclasses import dataclass, field

from weightdecay.core import text
from weightdecay.core.statistics import Estimate, Optimism
from weightdecay.results.candidates import Candidate
from weightdecay.search.grid import Grid


@dataclass(frozen=True)
class Selected(Candidate):
    """The chosen candidate.

    Whether decay helps is judged by the confidence interval of a paired difference: between the candidate and the best
    candidate without decay, or, if the candidate itself has no decay, between the best candidate with decay and it.
    The answer is one of four: decay is better, no decay is better, no decay is as good (the whole interval is within
    the margin), or the replicates cannot tell.

    Attributes:
      metric: Validation metric that it was chosen by.
      criterion: Criterion that it was chosen by.
      edge: ``"lowest"`` or ``"highest"`` if its coefficient is at the end of its grid, else None.
      learning_rate_edge: The same for its learning rate.
      advice: What to do about the edges, a sentence; empty if there is nothing to do.
      extension: The grid beyond the edges, which ``result.extend()`` trains; None if there is nothing to do.
      difference: Candidate minus no decay, paired by seed and fold, with its standard error and its t interval; no
        decay is the best of the candidates without decay. None if there is none, and if the candidate itself has no
        decay.
      best_with_decay: The best candidate with decay, if the candidate itself has no decay; None otherwise, and if no
        candidate with decay is finite.
      difference_with_decay: ``best_with_decay`` minus the candidate, as ``difference``.
      no_decay_is_as_good: True if that is shown: the interval of the difference is within ``margin`` of 0, or
        completely on the side of no decay. False if the interval is completely on the side of decay. None if the
        replicates cannot tell, or if there is nothing to compare.
      beats_no_decay: True if decay is shown to be better even though it is the best of many: the interval excludes 0 at
        a confidence of ``1 - (1 - confidence) / num_with_decay`` (Bonferroni). False if no decay is as good. None if
        the replicates cannot tell, or if there is nothing to compare.
      num_with_decay: Number of candidates with decay, including those that are not finite.
      confidence: Confidence of the intervals.
      margin: Differences up to the margin count as equally good, in the unit of the metric; nan if there is no finite
        candidate without decay.
      optimism: By how much the best of the grid looks better than it is; None if it was not asked for.
    """

    metric: str
    criterion: str
    edge: str | None
    learning_rate_edge: str | None
    advice: str
    extension: Grid | None = field(repr=False, compare=False)
    difference: Estimate | None = field(compare=False)
    best_with_decay: Candidate | None = field(repr=False, compare=False)
    difference_with_decay: Estimate | None = field(compare=False)
    no_decay_is_as_good: bool | None
    beats_no_decay: bool | None
    num_with_decay: int
    confidence: float
    margin: float = field(compare=False)
    optimism: Optimism | None = field(compare=False)

    def __str__(self) -> str:
        """Return the candidate with its metric."""
        others = "".join(f", {name} {text.short(value)}" for name, value in self.others.items())
        error = "" if math.isnan(self.standard_error) else f" ± {self.standard_error:.4f}"
        return f"{self.decay}{others}: {self._metric_name} {self.mean:.4f}{error}"

    @property
    def sentence(self) -> str:
        """The decision in one or two sentences: which candidate to take, and whether decay helps."""
        take, count = f"Take {_name(self)}: {self._score}", _count(self)
        if self.is_without_decay and not self.num_with_decay:
            return f"{take} ({count})."
        if self.is_without_decay and self.best_with_decay is None:
            some = "the candidate" if self.num_with_decay == 1 else f"none of the {self.num_with_decay} candidates"
            negation = "no" if self.num_with_decay == 1 else "a"
            return f"{take} ({count}); {some} with decay has {negation} finite {self._metric_name}."
        difference = self.difference_with_decay if self.is_without_decay else self.difference
        if difference is None:
            return f"{take} ({count}); the grid has no finite candidate without decay to compare it with."
        if math.isnan(difference.standard_error):
            doubt = "one seed cannot tell" if len(self.values) == 1 else "too few seeds are shared to tell"
            return f"{take}{self._relation(difference)}; {doubt} whether that is luck."
        interval = f"{100 * self.confidence:g} % interval of the difference {_ends(difference)}"
        relation = self._relation(difference)
        if self.no_decay_is_as_good is None:
            return (
                f"Cannot tell with {count} ({interval}) whether decay helps: more seeds would. Chosen: {_name(self)}, "
                f"{self._score}{relation} (paired)."
            )
        if not self.no_decay_is_as_good:
            luck = f"the best of {self.num_with_decay} may be so by luck: more seeds would tell"
            end = "" if self.beats_no_decay else f"; {luck}"
            return f"{take}{relation} (paired, {count}; {interval}){end}."
        details = f"{_name(self)} has {self._score}{relation} (paired, {count})"
        if max(abs(difference.lower), abs(difference.upper)) <= self.margin:
            return f"No decay is as good ({interval}, within ± {self.margin:.2g}): {details}."
        return f"No decay is better ({interval}): {details}."

    @property
    def summary(self) -> str:
        """The sentence, and, each on its own line, the optimism of the choice if it was asked for, and the advice."""
        lines = [self.sentence]
        if self.optimism is not None and not math.isnan(self.optimism.mean):
            lines.append(
                f"The best of a grid looks better than it is: here by {text.estimate(*self.optimism)} in "
                f"{self._metric_name}, by re-splitting the replicates."
            )
        elif self.optimism is not None:
            lines.append("The best of a grid looks better than it is; by how much, one replicate cannot tell.")
        return "\n".join([*lines, self.advice] if self.advice else lines)

    @property
    def _metric_name(self) -> str:
        return self.metric.replace("_", " ")

    @property
    def _score(self) -> str:
        return f"{self._metric_name} {text.estimate(self.mean, self.standard_error)}"

    def _relation(self, difference: Estimate) -> str:
        """Return the size of the difference, with the candidate that it is a difference to."""
        if not difference.replicates:
            return ", on its own"
        side = "below" if difference.mean < 0 else "above"
        relation = f"{text.estimate(abs(difference.mean), difference.standard_error)} {side}"
        if difference.mean == 0 and not difference.standard_error > 0:
            relation = "equal to"
        if not self.is_without_decay:
            return f", {relation} no decay"
        assert self.best_with_decay is not None
        others = "the candidate" if self.num_with_decay == 1 else f"the best of {self.num_with_decay} candidates"
        return f"; {others} with decay, {_name(self.best_with_decay)}, is {relation} that"


def _name(candidate: Candidate) -> str:
    others = ", ".join(f"{name.replace('_', ' ')} {text.short(value)}" for name, value in candidate.others.items())
    decay = "no decay" if candidate.is_without_decay else str(candidate.decay)
    return f"{decay} at {others}" if others else decay


def _ends(difference: Estimate) -> str:
    """Return the ends of an interval, to the digits that the standard error allows."""
    ends = (difference.lower, difference.upper)
    return " to ".join(text.estimate(end, difference.standard_error).split(" ")[0] for end in ends)


def _count(candidate: Candidate) -> str:
    """Return the number of seeds and folds."""
    seeds = {replicate.seed for replicate in candidate.values}
    folds = {replicate.fold for replicate in candidate.values} - {None}
    counts = [f"{len(one)} {noun}s" for noun, one in (("seed", seeds), ("fold", folds)) if len(one) > 1]
    return " x ".join(counts) or "one seed"
