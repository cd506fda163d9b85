"""The chosen candidate: what is known of it, and the decision in a sentence."""

import math
from dataclasses import dataclass, field

from weightdecay.core import text
from weightdecay.core.metrics import lower_is_better
from weightdecay.core.statistics import Estimate, Optimism
from weightdecay.results.candidates import Candidate
from weightdecay.search.grid import Grid


@dataclass(frozen=True)
class Selected(Candidate):
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
        others = "".join(f", {name} {text.short(value)}" for name, value in self.others.items())
        error = "" if math.isnan(self.standard_error) else f" ± {self.standard_error:.4f}"
        return f"{self.decay}{others}: {self.metric.replace('_', ' ')} {self.mean:.4f}{error}"

    @property
    def sentence(self) -> str:
        """The decision in plain words: what to take, and whether decay is worth it."""
        shown = f"{self._metric} {text.estimate(self.mean, self.standard_error)}"
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
        apart = text.estimate(abs(self.difference.mean), self.difference.standard_error)
        if not self.no_decay_is_as_good:
            if self.beats_no_decay:
                return f"{take}, {apart} {self._side} no decay (paired, {counted})."
            return (
                f"{take}, {apart} {self._side} no decay (paired, {counted}); the best of {self.num_with_decay} may be "
                "so by luck: more seeds would tell."
            )
        if self._is_worse:
            return f"No decay is better: {self._name} has {shown}, {apart} {self._side} no decay (paired, {counted})."
        low, high = (text.estimate(end, self.difference.standard_error).split(" ")[0] for end in self._ends)
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
                f"The best of a grid looks better than it is: here by {text.estimate(*self.optimism)} in "
                f"{self._metric}, by re-splitting the replicates."
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
        others = ", ".join(f"{name.replace('_', ' ')} {text.short(value)}" for name, value in self.others.items())
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
