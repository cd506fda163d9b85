"""A log-log law through coefficients that each have an error: ``log c = a + Σ b log x``."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Exponent(NamedTuple):
    """Exponent of one quantity in a law."""

    value: float
    standard_error: float


class PowerLaw(NamedTuple):
    """A law ``c = exp(a) Π x^b``, fitted by least squares with weights ``1 / error²``."""

    names: tuple[str, ...]  # of the quantities, n
    center: Float[np.ndarray, " n"]  # mean logarithms
    solution: Float[np.ndarray, " n+1"]  # logarithm at the center, exponents
    covariance: Float[np.ndarray, "n+1 n+1"]

    @property
    def exponents(self) -> dict[str, Exponent]:
        """Exponents by the name of the quantity."""
        errors = np.sqrt(np.diag(self.covariance))
        return {
            name: Exponent(float(self.solution[index]), float(errors[index]))
            for index, name in enumerate(self.names, start=1)
        }

    def predict(self, quantities: dict[str, float], confidence: float) -> tuple[float, float, float]:
        """Return the coefficient at other quantities, and both ends of its interval.

        Args:
          quantities: Each quantity of the law by name, > 0.
          confidence: Confidence of the interval, between 0 and 1.

        Returns:
          Coefficient, lower end, upper end.
        """
        from scipy import stats

        logarithms = np.log([quantities[name] for name in self.names]) - self.center
        row = np.concatenate([[1.0], logarithms])
        mean, error = float(row @ self.solution), math.sqrt(float(row @ self.covariance @ row))
        half = float(stats.norm.ppf(0.5 + confidence / 2)) * error
        return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def fit(
    coefficients: Sequence[float], errors: Sequence[float], quantities: Sequence[dict[str, float]], order: Sequence[str]
) -> PowerLaw:
    """Fit a law.

    A quantity enters in the given order, if it varies and does not vary together with those before it, and as long as
    there are more points than unknown numbers, or as many. The covariance is that of the errors, multiplied by
    ``χ² / (points - unknown numbers)`` where this is above 1.

    Args:
      coefficients: Coefficient of each run, > 0, shape ``(runs,)``.
      errors: Standard error of the natural logarithm of each, > 0, shape ``(runs,)``.
      quantities: Quantities of each run by name, > 0.
      order: Names of the quantities, the most important one first.

    Returns:
      The law.

    Examples:
      >>> runs = [{"num_steps": 100.0}, {"num_steps": 1000.0}]
      >>> law = fit([1.0, 0.1], [0.1, 0.1], runs, ["num_steps"])
      >>> round(law.exponents["num_steps"].value, 12), round(law.predict({"num_steps": 1e4}, 0.95)[0], 12)
      (-1.0, 0.01)
    """
    logarithms = {name: np.log([run[name] for run in quantities]) for name in order}
    columns, names = [np.ones(len(coefficients))], []
    for name in order:
        centered = logarithms[name] - logarithms[name].mean()
        together = np.stack([*columns, centered], axis=1)
        scale = float(np.abs(centered).max())
        if scale > 1e-9 and np.linalg.matrix_rank(together, tol=1e-6 * scale) == len(columns) + 1:
            columns.append(centered)
            names.append(name)
        if len(columns) == len(coefficients):
            break
    design, weights = np.stack(columns, axis=1), 1 / np.asarray(errors, np.float64)
    weighted, targets = design * weights[:, None], np.log(coefficients) * weights
    solution = np.linalg.lstsq(weighted, targets, rcond=None)[0]
    covariance = np.linalg.inv(weighted.T @ weighted)
    freedom = len(coefficients) - len(columns)
    if freedom > 0:
        covariance = covariance * max(1.0, float(((targets - weighted @ solution) ** 2).sum()) / freedom)
    center = np.array([logarithms[name].mean() for name in names], np.float64)
    return PowerLaw(tuple(names), center, solution, covariance)
