"""`Surface`, the default strategy: a surface over finished trainings says which candidates to train next.

Curves mislead about decay. A decay with the time scale 1 / (η c) does nothing before about so many steps, stopping
early is itself a decay, and strong decay slows the fall of the loss, so that curves cross. Trainings that reach their
end do not mislead: `weightdecay.search.response` predicts from the finished ones how the others would end.
"""

from dataclasses import dataclass

import numpy as np

from weightdecay.search.expectation import expectations
from weightdecay.search.response import MIDDLE, Layout, Response, layout
from weightdecay.search.strategy import Known, finals, shares

_WITHOUT_DECAY = 3  # trainings without decay among the first ones
_STRENGTHS = (0.6, 0.45, 0.75, 0.3, 0.9)  # of the first trainings, in their order


@dataclass(frozen=True)
class Surface:
    """A Bayesian surface over the finished trainings, with Thompson sampling.

    The first trainings are up to three without decay, and a medium coefficient of each kind of decay, at other
    hyperparameters far from each other. The step at which the loss without decay turns says which coefficient to
    expect (`weightdecay.search.expectation`). Then, in each of a few rounds, candidates are drawn by the probability of
    being best, first all with the same replicate, whose noise they share. With what is left the most promising ones
    and no decay get all their replicates.

    Args:
      seed: Of the draws; an integer.

    References:
      Thompson, On the Likelihood that One Unknown Probability Exceeds Another, 1933; Rasmussen & Williams, Gaussian
      Processes for Machine Learning, 2006; Ali, Kolter & Tibshirani, A Continuous-Time View of Early Stopping for Least
      Squares Regression, 2019, arXiv 1810.10082 (stopping at t is about ridge regression of strength 1 / (η t)).
    """

    seed: int = 0

    def next(self, known: Known) -> dict[int, int]:
        """See `weightdecay.search.strategy.Strategy.next`."""
        candidates = known.candidates()
        places = layout([known.members[members[0]] for members in candidates])
        done, parts = int(known.finished.sum()), shares(known)
        if done == 0:
            first = min(max(parts.per_round, 3), parts.exploring, len(candidates))
            return known.affordable(
                {candidates[number][0]: known.num_steps for number in spread_out(places, first)},
            )
        response = _response(known, candidates, places)
        if done < parts.exploring:
            count = min(parts.per_round, parts.exploring - done)
            wanted = _drawn(known, candidates, response.draw(count, 1000 * self.seed + done))
            if wanted:
                return known.affordable(dict.fromkeys(wanted, known.num_steps))
        return finals(known, candidates, np.argsort(response.mean, kind="stable").tolist())


def _response(known: Known, candidates: list[list[int]], places: Layout) -> Response:
    """Model of the finished trainings."""
    trained, replicates, losses, numbers = [], [], [], {}
    for position, members in enumerate(candidates):
        for index in members:
            if known.finished[index]:
                member = known.members[index]
                replicate = repr((member.get("seed"), member.get("fold")))
                trained.append(position)
                replicates.append(numbers.setdefault(replicate, len(numbers)))
                losses.append(known.values[index, -1])
    before = expectations(known, candidates, places)
    return Response(places, np.array(trained), np.array(replicates), np.array(losses, np.float64), before)


def _drawn(known: Known, candidates: list[list[int]], surfaces: np.ndarray) -> list[int]:
    """Members of the candidates that are best on surfaces drawn at random, one of each surface."""
    taken: list[int] = []
    for surface in surfaces:
        for number in np.argsort(surface, kind="stable"):
            free = [index for index in candidates[number] if not known.finished[index] and index not in taken]
            if free:
                taken.append(free[0])
                break
    return taken


def spread_out(places: Layout, count: int) -> list[int]:
    """Choose the first candidates to train: no decay, and each kind of decay in turn.

    Args:
      places: Coordinates of the candidates.
      count: Number of candidates to choose, at most as many as there are.

    Returns:
      Their positions. First up to three without decay, whose turns say the most about the others. Those of a kind have
      a medium strength, and differ in the other hyperparameters as far as possible; when all of these were chosen,
      further strengths follow.
    """
    kinds = sorted(set(places.kind.tolist()))
    turns = dict.fromkeys(kinds, 0)
    varieties = max(1, len(np.unique(places.others.round(9), axis=0)))
    chosen: list[int] = []
    without = np.flatnonzero(places.kind < 0).tolist()
    while len(chosen) < min(_WITHOUT_DECAY, len(without), count):
        chosen.append(_farthest(places, [number for number in without if number not in chosen], chosen, MIDDLE))
    while len(chosen) < count:
        before = len(chosen)
        for kind in kinds:
            free = [number for number in np.flatnonzero(places.kind == kind).tolist() if number not in chosen]
            if not free or len(chosen) == count:
                continue
            wanted = _STRENGTHS[min(turns[kind] // min(varieties, 3), len(_STRENGTHS) - 1)]
            turns[kind] += 1
            chosen.append(_farthest(places, free, chosen, wanted))
        if len(chosen) == before:
            break
    return chosen


def _farthest(places: Layout, free: list[int], chosen: list[int], wanted: float) -> int:
    """Candidate of about the wanted strength that is farthest from those of its kind, then from all others."""
    away = np.abs(places.strength[free] - wanted)
    near = [number for number, distance in zip(free, away, strict=True) if distance <= away.min() + 0.02]
    kind = places.kind[near[0]]
    alike = [n for n in chosen if places.kind[n] == kind and (kind < 0 or abs(places.strength[n] - wanted) < 0.05)]
    middle = np.abs(places.others - 0.5).sum(axis=1)

    def distance(number: int, others: list[int]) -> float:
        if not others:
            return 0.0
        return float(np.square(places.others[others] - places.others[number]).sum(axis=1).min())

    return max(near, key=lambda number: (distance(number, alike), distance(number, chosen), -middle[number], -number))
