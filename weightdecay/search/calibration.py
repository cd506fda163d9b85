"""How the best coefficients of recorded grids relate to the turn of the curve without decay, for `suggestion`.

The numbers are those that ``python benchmarks/suggesting.py calibrate`` prints.
"""

import math
from typing import NamedTuple

from weightdecay.decay import scaling


class Calibration(NamedTuple):
    """Distribution of the best coefficient, in units of ``1 / R(turn) - 1 / R(end)``; see `suggestion`."""

    factor: float  # geometric mean over tasks
    log_width: float  # standard deviation of the natural logarithm, for a task that is not among them
    num_tasks: int

    def factors(self, confidence: float) -> tuple[float, float]:
        """Return both ends of the interval that holds the factor of another task.

        Args:
          confidence: Confidence, between 0 and 1.

        Returns:
          The ends, from Student's t distribution of the logarithm.
        """
        from scipy import stats

        half = float(stats.t.ppf(0.5 + confidence / 2, self.num_tasks - 1)) * self.log_width
        return self.factor * math.exp(-half), self.factor * math.exp(half)


RECORDED: dict[tuple[str, str], Calibration] = {
    (scaling.TIME_SCALE, "Decoupled"): Calibration(0.518, 0.62, 10),
    (scaling.OBJECTIVE, "L2"): Calibration(0.00355, 1.69, 7),
    (scaling.OBJECTIVE, "ProximalL2"): Calibration(0.00519, 1.63, 5),
}
"""By what the coefficient keeps, and the rule; a penalty under Adam, a rule with a time scale under Adam and SGD."""

BEYOND = frozenset({"Cautious"})
"""Rules whose best coefficients were mostly at the end of the recorded grid, so that their factor is not known."""


def of_rule(basis: str | None, name: str, optimizer: str) -> Calibration | None:
    """Look up the calibration of a rule.

    Args:
      basis: What the coefficient keeps, as `weightdecay.decay.scaling.basis` returns it.
      name: Name of the rule.
      optimizer: Name of the optimizer.

    Returns:
      The calibration; that of `Decoupled` for any rule with a time scale, `L2` under SGD among them; None for a penalty
      that was not recorded, and for a rule whose factor is not known.
    """
    if name in BEYOND:
        return None
    if basis == scaling.TIME_SCALE:
        return RECORDED[scaling.TIME_SCALE, "Decoupled"]
    return RECORDED.get((scaling.OBJECTIVE, name)) if basis == scaling.OBJECTIVE and optimizer == "adam" else None
