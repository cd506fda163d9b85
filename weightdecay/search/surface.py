"""`Surface`, the default strategy: a smooth surface over finished trainings says which candidates to train next.

Curves mislead about decay. A decay with the time scale 1 / (η c) does nothing before about so many steps, stopping
early is itself a decay, and strong decay slows the fall of the loss, so that curves cross. Trainings that reach their
end do not mislead: a Gaussian process over the finished ones predicts the others, with its uncertainty.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from weightdecay.decay import Rule
from weightdecay.decay.families import coefficient, is_without_decay, rule_family
from weightdecay.search.strategy import Known, completed

_ROUNDS = 6  # in which the trainings are spread out; more are hardly better, and fewer keep more devices busy
_FOR_FINALISTS = 0.4  # of the trainings
_GAP = 0.25  # between no decay and the weakest coefficient of a rule, where the range of a rule is 1
_WORST = 4.0  # interquartile ranges above the median; all that is worse is as bad as this


@dataclass(frozen=True)
class Surface:
    """A Gaussian process over the finished trainings, with Thompson sampling.

    The coordinates of a candidate are the logarithm of its coefficient, one axis a kind of decay with no decay at the
    origin of all, and its other hyperparameters, those above 0 that span more than a factor of 3 as logarithms. The
    first trainings are no decay and candidates far from each other; then, in each of a few rounds, candidates are drawn
    by the probability of being best, each with a replicate of its own. With what is left the most promising ones and no
    decay get all their replicates.

    Args:
      seed: Of the draws; an integer.

    References:
      Thompson, On the Likelihood that One Unknown Probability Exceeds Another, 1933; Rasmussen & Williams, Gaussian
      Processes for Machine Learning, 2006.
    """

    seed: int = 0

    def next(self, known: Known) -> dict[int, int]:
        """See `weightdecay.search.strategy.Strategy.next`."""
        candidates = known.candidates()
        points = coordinates([known.members[members[0]] for members in candidates])
        always = known.without_decay()
        total, done = known.budget // known.num_steps, int(known.finished.sum())
        replicates = max(map(len, candidates))
        finalists = max(2, round(_FOR_FINALISTS * total / replicates))
        exploring = max(min(total - finalists * (replicates - 1), total), 0)
        per_round = max(1, min(known.at_once, math.ceil(exploring / _ROUNDS)))
        if done == 0:
            first = min(max(per_round, 3), exploring, len(candidates))
            chosen = _far_apart(points, always[:1], first)
            return known.affordable(
                {
                    candidates[number][turn % len(candidates[number])]: known.num_steps
                    for turn, number in enumerate(chosen)
                }
            )
        mean, sample = self._predicted(known, candidates, points)
        if done < exploring:
            wanted = self._drawn(known, candidates, sample, min(per_round, exploring - done))
            if wanted:
                return known.affordable(dict.fromkeys(wanted, known.num_steps))
        order = [int(number) for number in np.argsort(mean, kind="stable")]
        leaders = order[:1] + [number for number in order if number in always][:1] + order[1:]
        # Candidates that were completed before count, so that a run ends with as many as it can complete.
        return completed(known, candidates, leaders[: max(finalists, 2)]) or completed(known, candidates, leaders)

    def _predicted(self, known: Known, candidates: list[list[int]], points: np.ndarray) -> tuple[np.ndarray, Any]:
        """Mean of the surface at each candidate, and a function that draws surfaces."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

        lengths: Any = np.full(points.shape[1], 0.5)

        rows, values = [], []
        for number, members in enumerate(candidates):
            for index in members:
                if known.finished[index]:
                    rows.append(number)
                    values.append(known.values[index, -1])
        targets = _bounded(np.array(values, np.float64))
        scale = targets.std() or 1.0
        kernel = ConstantKernel(1.0, (0.05, 20.0)) * Matern(lengths, (0.15, 10.0), nu=2.5) + WhiteKernel(
            0.1, (1e-4, 1.0)
        )
        process = GaussianProcessRegressor(kernel, n_restarts_optimizer=0, random_state=self.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a length at its bound says that an axis is flat
            process.fit(points[rows], (targets - targets.mean()) / scale)
            mean = process.predict(points)
            fitted: Any = process.kernel_
            # Draws are of the surface itself, without the noise of a training.
            surface = GaussianProcessRegressor(fitted.k1, alpha=fitted.k2.noise_level, optimizer=None)  # pyright: ignore[reportArgumentType]
            surface.fit(points[rows], (targets - targets.mean()) / scale)

        def sample(count: int) -> np.ndarray:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # rounding makes a covariance slightly indefinite
                return surface.sample_y(points, count, random_state=self.seed + int(known.finished.sum()))

        return np.asarray(mean), sample

    def _drawn(self, known: Known, candidates: list[list[int]], sample: Any, count: int) -> list[int]:
        """Members of the candidates that are best on surfaces drawn at random, one of each surface."""
        taken: list[int] = []
        for surface in sample(count).T:
            for number in np.argsort(surface, kind="stable"):
                free = [index for index in candidates[number] if not known.finished[index] and index not in taken]
                if free:
                    taken.append(free[0])
                    break
        return taken


def coordinates(members: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Coordinates of candidates, each axis of about the range 0 to 1.

    Args:
      members: Hyperparameters of each candidate by name.

    Returns:
      Shape ``(candidates, axes)``. Each kind of decay has an axis, on which the other kinds, and no decay, are 0; an
      axis of numbers has one, of their logarithms where they are above 0 and span more than a factor of 3; each value
      of any other axis has one, which is 1 where a candidate has it.
    """
    columns = _decay_columns([member["decay"] for member in members])
    for name in dict.fromkeys(name for member in members for name in member):
        if name in ("decay", "seed", "fold"):
            continue
        values = [member.get(name) for member in members]
        if all(isinstance(value, Real) and not isinstance(value, bool) for value in values):
            numbers = np.array(values, np.float64)
            if (numbers > 0).all() and numbers.max() > 3 * numbers.min():
                numbers = np.log(numbers)
            if np.ptp(numbers) > 0:
                columns.append((numbers - numbers.min()) / np.ptp(numbers))
        else:
            kinds = list(dict.fromkeys(map(repr, values)))
            if len(kinds) > 1:
                columns += [np.array([repr(value) == kind for value in values], np.float64) for kind in kinds]
    return np.stack(columns, axis=1) if columns else np.zeros((len(members), 1))


def _decay_columns(rules: Sequence[Rule]) -> list[np.ndarray]:
    families: dict[Any, list[int]] = {}
    for number, rule in enumerate(rules):
        if not is_without_decay(rule):
            families.setdefault(rule_family(rule), []).append(number)
    columns = []
    for numbers in families.values():
        column = np.zeros(len(rules))
        values = [coefficient(rules[number]) for number in numbers]
        positive = [value for value in values if value is not None and value > 0]
        low, high = (math.log(min(positive)), math.log(max(positive))) if positive else (0.0, 0.0)
        for number, value in zip(numbers, values, strict=True):
            column[number] = 1.0
            if value is not None and value > 0 and high > low:
                column[number] = _GAP + (math.log(value) - low) / (high - low)
        columns.append(column)
    return columns


def _bounded(values: np.ndarray) -> np.ndarray:
    """Values of which the worst do not hide the differences among the best."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return np.zeros_like(values)
    low, middle, high = np.quantile(finite, [0.25, 0.5, 0.75])
    limit = middle + _WORST * max(high - low, 1e-12)
    return np.minimum(np.where(np.isfinite(values), values, limit), limit)


def _far_apart(points: np.ndarray, first: Sequence[int], count: int) -> list[int]:
    """Candidates far from each other: each is the farthest from those before it."""
    chosen = list(first) or [0]
    while len(chosen) < count:
        distance = np.min([np.square(points - points[number]).sum(axis=1) for number in chosen], axis=0)
        chosen.append(int(np.argmax(distance)))
    return chosen[:count]
