"""A Bayesian model of how the final loss depends on the decay and on the other hyperparameters.

The loss of a candidate is a baseline, which depends on the hyperparameters other than the decay, plus the effect of its
decay. The effect of a rule depends on the logarithm of the coefficient and on the other hyperparameters, and tends to 0
for weak coefficients: all rules share the baseline, so that a training with one rule says something about the others.
Both are Gaussian processes. Replicates with the same seed share a part of their noise.

The scales of the processes are not fitted, which a dozen trainings do not allow: a few sets of them, spread over what
is usual, are weighted by how well each explains the trainings.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from weightdecay.decay import Rule
from weightdecay.decay.families import coefficient, is_without_decay, rule_family

_SETTINGS = 16  # sets of scales
MIDDLE = 0.6  # of the range of coefficients, where most find the best one: the expected place of the best one
_OBSERVED = 500  # trainings that enter the model; of more, the best ones and some of the others
_DRAWN = 250  # candidates of which surfaces are drawn; of more, the most promising ones
# Median and spread (of the logarithm) of each scale, in units of the standard deviation of the losses, and of the range
# of a coordinate.
_BASELINE, _EFFECT, _STRENGTH, _OTHERS, _NOISE = (0.7, 0.5), (1.0, 0.5), (0.25, 0.4), (0.8, 0.5), (0.25, 0.6)
_SHARED_NOISE = 0.8  # fraction of the variance of the noise that replicates with the same seed share
_WORTH = 0.5  # expected effect of decay in the middle of its range
_WIDTH = 0.2  # of the bowl in which the effect is expected
_WEAK = 0.25  # distance from the weakest coefficient over which the effect appears


class Layout(NamedTuple):
    """Coordinates of candidates.

    Attributes:
      kind: Number of the family of each candidate's rule, from 0; -1 = no decay; shape ``(candidates,)``.
      strength: Logarithm of the coefficient, 0 = the weakest of its family and 1 = the strongest; of a family with one
        coefficient, and without decay, the middle; shape ``(candidates,)``.
      others: The other hyperparameters, each in about the range 0 to 1, shape ``(candidates, axes)``.
    """

    kind: np.ndarray
    strength: np.ndarray
    others: np.ndarray


def layout(members: Sequence[Mapping[str, Any]]) -> Layout:
    """Return the coordinates of candidates.

    Args:
      members: Hyperparameters of each candidate by name.

    Returns:
      Its coordinates. An axis of numbers has one coordinate, its logarithm where the numbers are above 0 and span more
      than a factor of 3; each value of any other axis has one, which is 1 where a candidate has it. Seeds and folds
      have none.
    """
    kind, strength = decays([member["decay"] for member in members])
    columns = [np.zeros((len(members), 0)), *axes(members).values()]
    return Layout(kind, strength, np.concatenate(columns, axis=1))


def axes(members: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Return the coordinates of candidates on each axis other than the decay.

    Args:
      members: Hyperparameters of each candidate by name.

    Returns:
      By the name of the axis, shape ``(candidates, 1)`` for numbers and ``(candidates, choices)`` for anything else, as
      `layout` describes them; axes with one value are left out.
    """
    found: dict[str, np.ndarray] = {}
    for name in dict.fromkeys(name for member in members for name in member):
        if name in ("decay", "seed", "fold"):
            continue
        values = [member.get(name) for member in members]
        if all(isinstance(value, Real) and not isinstance(value, bool) for value in values):
            numbers = np.array(values, np.float64)
            if (numbers > 0).all() and numbers.max() > 3 * numbers.min():
                numbers = np.log(numbers)
            if np.ptp(numbers) > 0:
                found[name] = ((numbers - numbers.min()) / np.ptp(numbers))[:, None]
        else:
            written = list(map(repr, values))
            choices = list(dict.fromkeys(written))
            if len(choices) > 1:
                found[name] = np.array([[value == choice for choice in choices] for value in written], np.float64)
    return found


def decays(rules: Sequence[Rule]) -> tuple[np.ndarray, np.ndarray]:
    """Return the kind and the strength of rules, as in `Layout`."""
    kind, strength = np.full(len(rules), -1), np.full(len(rules), MIDDLE)
    families: dict[Any, list[int]] = {}
    for number, rule in enumerate(rules):
        if not is_without_decay(rule):
            families.setdefault(rule_family(rule), []).append(number)
    for family, numbers in enumerate(families.values()):
        kind[numbers] = family
        values = [coefficient(rules[number]) for number in numbers]
        positive = [value for value in values if value is not None and value > 0]
        if len(set(positive)) > 1:
            low, high = math.log(min(positive)), math.log(max(positive))
            for number, value in zip(numbers, values, strict=True):
                if value is not None and value > 0:
                    strength[number] = (math.log(value) - low) / (high - low)
    return kind, strength


class Response:
    """The model of the losses of some candidates, given those of some trainings.

    Attributes:
      mean: Expected loss of each candidate, in the unit of the model, shape ``(candidates,)``.
      error: Its standard deviation, shape ``(candidates,)``.
    """

    def __init__(
        self,
        places: Layout,
        trained: np.ndarray,
        replicates: np.ndarray,
        losses: np.ndarray,
        expectations: np.ndarray | None = None,
    ) -> None:
        """Condition the model on trainings.

        Args:
          places: Coordinates of the candidates.
          trained: Position of the candidate of each training, shape ``(trainings,)``.
          replicates: A number for each training; those with the same number share a part of their noise.
          losses: Loss of each training, lower is better; infinite = diverged.
          expectations: What may be expected of each candidate before any training, in the unit of the model, shape
            ``(expectations, candidates)``; the trainings tell how likely each is. None = `bowl` alone.
        """
        kept = _kept(losses)
        trained, replicates, values = trained[kept], replicates[kept], in_model_units(losses)[kept]
        self._places = places
        expectations = bowl(places)[None] if expectations is None else expectations
        residuals = values - expectations[:, trained]
        same, each = replicates[:, None] == replicates[None, :], np.eye(len(trained))
        log_weights, means, variances = [], [], []
        self._solved: list[tuple[_Scales, np.ndarray, np.ndarray]] = []
        every = np.arange(expectations.shape[1])
        for scales in _settings():
            noise = scales.noise**2 * (_SHARED_NOISE * same + (1 - _SHARED_NOISE) * each) + 1e-6 * each
            factor = np.linalg.cholesky(_covariance(places, scales, trained, trained) + noise)
            # float64 throughout: the factor is well conditioned by the noise.
            whitened = np.linalg.solve(
                factor, np.column_stack([residuals.T, _covariance(places, scales, trained, every)])
            )
            of_candidates = whitened[:, len(expectations) :]
            variance = _variance(places, scales) - np.square(of_candidates).sum(axis=0)
            for expected, residual in zip(expectations, whitened.T, strict=False):
                log_weights.append(-0.5 * float(residual @ residual) - float(np.log(np.diag(factor)).sum()))
                means.append(expected + residual @ of_candidates)
                variances.append(variance)
                self._solved.append((scales, of_candidates, means[-1]))
        weights = np.exp(np.array(log_weights) - max(log_weights))
        self._weights = weights / weights.sum()
        self.mean = self._weights @ np.array(means)
        spread = np.square(np.array(means) - self.mean)
        self.error = np.sqrt(np.maximum(self._weights @ (np.maximum(variances, 0) + spread), 0))

    def draw(self, count: int, seed: int) -> np.ndarray:
        """Draw possible surfaces.

        Args:
          count: Number of surfaces.
          seed: Of the random numbers.

        Returns:
          Shape ``(count, candidates)``; of many candidates, those that cannot be the best ones are infinite.
        """
        rng = np.random.default_rng(seed)
        drawn = np.sort(np.argsort(self.mean - 2 * self.error, kind="stable")[:_DRAWN])
        surfaces = np.full((count, len(self.mean)), np.inf)
        factors: dict[int, np.ndarray] = {}
        for row, setting in enumerate(rng.choice(len(self._weights), count, p=self._weights)):
            scales, whitened, mean = self._solved[setting]
            if setting not in factors:
                covariance = _covariance(self._places, scales, drawn, drawn) - whitened[:, drawn].T @ whitened[:, drawn]
                factors[setting] = np.linalg.cholesky(covariance + 1e-5 * np.eye(len(drawn)))
            surfaces[row, drawn] = mean[drawn] + factors[setting] @ rng.standard_normal(len(drawn))
        return surfaces


class _Scales(NamedTuple):
    baseline: float
    effect: float
    strength: float
    others: float
    noise: float


@functools.cache
def _settings() -> tuple[_Scales, ...]:
    """Sets of scales, evenly spread over what is usual."""
    from scipy.stats import norm, qmc

    normal = norm.ppf(0.01 + 0.98 * qmc.Sobol(5, rng=np.random.default_rng(1)).random(_SETTINGS))
    usual = np.array([_BASELINE, _EFFECT, _STRENGTH, _OTHERS, _NOISE])
    return tuple(_Scales(*map(float, row)) for row in usual[:, 0] * np.exp(normal * usual[:, 1]))


def _covariance(places: Layout, scales: _Scales, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Prior covariance of the surface at candidates, shape ``(len(first), len(second))``."""
    others = places.others[first][:, None, :] - places.others[second][None, :, :]
    apart = np.square(others / scales.others).sum(axis=-1)
    strengths = (places.strength[first][:, None] - places.strength[second][None, :]) / scales.strength
    same = (places.kind[first][:, None] == places.kind[second][None, :]) & (places.kind[first] >= 0)[:, None]
    appears = _appears(places)
    effect = same * appears[first][:, None] * appears[second][None, :] * _matern(apart + np.square(strengths))
    # The level of all candidates is unknown: its variance is 1.
    return 1 + scales.baseline**2 * _matern(apart) + scales.effect**2 * effect


def _variance(places: Layout, scales: _Scales) -> np.ndarray:
    return 1 + scales.baseline**2 + scales.effect**2 * np.square(_appears(places))


def _matern(squared: np.ndarray) -> np.ndarray:
    """Matérn correlation with smoothness 5/2 of squared distances."""
    distance = np.sqrt(5 * squared)
    return (1 + distance + np.square(distance) / 3) * np.exp(-distance)


def _appears(places: Layout) -> np.ndarray:
    """How much of its effect a decay of some strength has, 0 to 1."""
    return np.where(places.kind >= 0, 1 - np.exp(-(places.strength + 0.05) / _WEAK), 0.0)


def bowl(places: Layout, center: Any = MIDDLE, width: Any = _WIDTH, depth: Any = _WORTH) -> np.ndarray:
    """Loss that is expected before any training: a bowl over the strengths of each kind of decay.

    Args:
      places: Coordinates of the candidates.
      center: Strength that is expected to be the best, of all or of each candidate.
      width: Width of the bowl, in units of the strength.
      depth: How much better decay of that strength is expected to be than none, in the unit of the model.

    Returns:
      Shape ``(candidates,)``; 0 without decay.
    """
    return np.where(places.kind >= 0, -depth * np.exp(-0.5 * np.square((places.strength - center) / width)), 0.0)


def in_model_units(losses: np.ndarray) -> np.ndarray:
    """Standardized logarithms of the distances from the best loss, on which the good candidates differ visibly.

    Args:
      losses: Lower is better; infinite counts as the worst finite one.

    Returns:
      Mean 0 and variance 1; zeros where all are equal or none is finite.
    """
    finite = losses[np.isfinite(losses)]
    if not len(finite) or np.ptp(finite) == 0:
        return np.zeros(len(losses))
    best = finite.min()
    scale = max(float(np.quantile(finite, 0.3) - best), 1e-9 * float(np.ptp(finite)))
    distances = np.log1p((np.where(np.isfinite(losses), losses, finite.max()) - best) / scale)
    return (distances - distances.mean()) / distances.std()


def _kept(losses: np.ndarray) -> np.ndarray:
    """Positions of the trainings that enter the model."""
    if len(losses) <= _OBSERVED:
        return np.arange(len(losses))
    order = np.argsort(losses, kind="stable")
    best, rest = order[: _OBSERVED // 2], order[_OBSERVED // 2 :]
    others = rest[np.linspace(0, len(rest) - 1, _OBSERVED - len(best)).round().astype(int)]
    return np.sort(np.concatenate([best, others]))
