"""Which coefficients a sweep tries, where the user gives none: the option ``--ladder``.

By default they are the ``search_range`` of each rule, whatever the run: with more steps, seeds or learning rates the
same command in the same directory then trains only what is new.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from weightdecay.core.checks import ArgumentError

if TYPE_CHECKING:
    from weightdecay.decay import Rule
    from weightdecay.results.suggestion import Suggestion

LADDERS = ("range", "steps", "scout")
"""Values of the option: the range of each rule; the time scales of the run; the turn of the run without decay."""

Range = tuple[float, float]
_CONFIDENCE = 0.95  # of the interval that is tried: both ends should lie beyond the best coefficient
_DECADES_BELOW = 1e-3  # of the largest likely coefficient, where the run without decay did not turn


def check(ladder: str, coefficients: Range | None) -> None:
    """Validate the option.

    Args:
      ladder: What the user wrote.
      coefficients: The option ``--coefficients``.

    Raises:
      ArgumentError: An unknown ladder, or one together with coefficients.
    """
    if ladder not in LADDERS:
        raise ArgumentError("ladder", f"ladder is {ladder!r}; give one of {', '.join(LADDERS)}.")
    if ladder != "range" and coefficients is not None:
        raise ArgumentError("ladder", f"ladder is {ladder!r}, and coefficients are given too; give one of the two.")


def of_ranges(coefficients: Range | None) -> "Callable[[type[Rule]], Range | None]":
    """Return a function from a rule to its coefficients: those that the user gave, or else the range of the rule."""
    return lambda kind: coefficients or kind.search_range


def of_steps(learning_rate: float, num_steps: int, optimizer: str) -> "Callable[[type[Rule]], Range | None]":
    """Return a function from a rule to its coefficients by the time scales of the run.

    Args:
      learning_rate: The smallest learning rate.
      num_steps: Steps of the run.
      optimizer: Name of the optimizer.

    Returns:
      See `weightdecay.decay.scaling.ladder`.
    """
    from weightdecay.decay import scaling

    momentum = 0.0 if optimizer == "sgd" else None
    return lambda kind: scaling.ladder(kind, learning_rate, num_steps, momentum=momentum)


def of_suggestion(suggestion: "Suggestion") -> "Callable[[type[Rule]], Range | None]":
    """Return a function from a rule to its coefficients by what the run without decay suggests.

    Args:
      suggestion: What it suggests.

    Returns:
      The function: the interval of the suggestion; where none is needed, three decades up to the largest coefficient
      that is likely; the range of the rule where nothing is known. Of a rule without a time scale the part within its
      range.
    """
    rows = {row.rule: row for row in suggestion}

    def of_rule(kind: "type[Rule]") -> Range | None:
        row, whole = rows.get(kind.__name__), kind.search_range
        if row is None or whole is None:
            return whole
        smallest, largest = (row.low if suggestion.is_needed else _DECADES_BELOW * row.high), row.high
        if row.time_scale == row.time_scale:
            return smallest, largest
        smallest, largest = max(smallest, whole[0]), min(largest, whole[1])
        return (smallest, largest) if smallest < largest else whole

    return of_rule


def scout(job: dict[str, Any], *, seeds: int, learning_rates: list[float], **settings: Any) -> "Suggestion | None":
    """Train without decay.

    Args:
      job: Arguments of `weightdecay.fit_grid` by name, with a grid that is not used.
      seeds: Number of seeds.
      learning_rates: Learning rates.
      **settings: Further arguments of `weightdecay.fit_grid`.

    Returns:
      What the best learning rate suggests; None if the training was interrupted.
    """
    from weightdecay.decay import NoDecay
    from weightdecay.engine import fit
    from weightdecay.results.suggestion import suggest
    from weightdecay.search.grid import Grid

    grid = Grid(decay=NoDecay(), learning_rate=learning_rates, seed=range(seeds))
    result = fit.fit_grid(**{**job, "grid": grid}, **settings)
    return None if result.settings["interrupted"] else suggest(result, confidence=_CONFIDENCE)
