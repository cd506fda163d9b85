"""What the runs without decay say about the decay that will help, before any run with decay.

Where the loss without decay turns, at the step t*, decay will help, and its likely coefficient is
``k (1 / R(t*) - 1 / R(T))``: R(t) is the sum, up to step t, of the fraction of the weights that a coefficient of 1
removes, T the last step, and k comes from recorded grids (`weightdecay.search.calibration`). Where it does not turn,
decay is worth less. `weightdecay.search.response` weighs this expectation against one that knows no turn, by how well
each explains the trainings.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from weightdecay.decay import Rule, scaling
from weightdecay.decay.families import coefficient
from weightdecay.decay.placement import Masked
from weightdecay.decay.schedules import Parametric
from weightdecay.decay.touched import Touched
from weightdecay.search import calibration, turn
from weightdecay.search.response import MIDDLE, Layout, bowl
from weightdecay.search.strategy import Known

_WIDTH = 0.15  # of the bowl around a coefficient that a turn suggests, in units of the range of coefficients
_DEPTH_AT_SUGGESTED, _DEPTH_AFTER_TURN, _DEPTH_WITHOUT_TURN = 1.2, 0.8, 0.3  # of bowls, in the unit of the model
_INSIDE = 0.1, 0.9  # of the range of coefficients, in which the expected best one is


def expectations(known: Known, candidates: list[list[int]], places: Layout) -> np.ndarray:
    """Losses that may be expected before any training with decay.

    Args:
      known: What is known.
      candidates: Members of each candidate.
      places: Coordinates of the candidates.

    Returns:
      Shape ``(expectations, candidates)``, in the unit of `weightdecay.search.response.Response`: one that knows no
      turn, and where a member without decay has been trained, one by the turns. Of several trained ones, that with the
      most similar other hyperparameters counts for a candidate.
    """
    members = [known.members[indices[0]] for indices in candidates]
    trained, turns = [], []
    for number in known.without_decay():
        curves = known.values[[index for index in candidates[number] if known.finished[index]]]
        curves = curves[np.isfinite(curves).all(axis=1)]
        if len(curves):
            trained.append(number)
            turns.append(turn.find(known.evaluated, curves))
    if not trained:
        return bowl(places)[None]
    apart = np.square(places.others[:, None] - places.others[trained][None]).sum(axis=-1)
    nearest = np.argmin(apart, axis=1)
    ranges = {kind: _range(members, places, kind) for kind in set(places.kind.tolist())}
    removed = _Removed(known.num_steps)
    center, width, depth = (np.full(len(members), value) for value in (np.nan, 0.2, _DEPTH_WITHOUT_TURN))
    for number in np.flatnonzero(places.kind >= 0).tolist():
        found = turns[nearest[number]]
        if found is None:
            continue
        depth[number] = _DEPTH_AFTER_TURN
        before, span = members[trained[nearest[number]]], ranges[int(places.kind[number])]
        suggested = _suggested(removed, members[number], before, found.step)
        if suggested is not None and span is not None:
            low, high = span
            center[number] = (math.log(suggested) - low) / (high - low)
            width[number], depth[number] = _WIDTH, _DEPTH_AT_SUGGESTED
    center = np.where(np.isnan(center), MIDDLE, np.clip(center, *_INSIDE))
    return np.stack([bowl(places), bowl(places, center, width, depth)])


class _Removed:
    """R(t) of a rule, computed once for all candidates that share the rule and the learning rate."""

    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps
        self._kept: dict[tuple[str, str, int], float] = {}

    def __call__(self, kind: type[Rule], rate: Any, until: int) -> float:
        """Return R(until); nan where it is not known of the rule or of its learning rate."""
        key = kind.__name__, repr(rate), until
        if key not in self._kept:
            of_run = rate.over(self.num_steps) if isinstance(rate, Parametric) else rate
            self._kept[key] = scaling.removed_until(kind, of_run, until)
        return self._kept[key]


def _suggested(removed: _Removed, member: Mapping[str, Any], before: Mapping[str, Any], step: int) -> float | None:
    """Coefficient that a turn suggests; None = nothing is known of the rule, or of its learning rate."""
    rule = member["decay"]
    while isinstance(rule, Masked | Touched):
        rule = rule.rule
    kind = type(rule)
    calibrated = calibration.of_rule(scaling.TIME_SCALE, kind.__name__, "adam")
    if calibrated is None:
        return None
    until_turn = removed(kind, before.get("learning_rate"), step)
    until_end = removed(kind, member.get("learning_rate"), removed.num_steps)
    if not 0 < until_turn < until_end:
        return None
    return calibrated.factor * (1 / until_turn - 1 / until_end)


def _range(members: Sequence[Mapping[str, Any]], places: Layout, kind: int) -> tuple[float, float] | None:
    """Logarithms of the smallest and the largest coefficient of a kind of decay; None = it has only one."""
    values = [coefficient(members[number]["decay"]) for number in np.flatnonzero(places.kind == kind).tolist()]
    logarithms = [math.log(value) for value in values if value is not None and value > 0]
    low, high = min(logarithms, default=0.0), max(logarithms, default=0.0)
    return (low, high) if high > low else None
