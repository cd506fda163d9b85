"""What trained members make of other examples: their scores on the test examples, and their outputs."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from weightdecay.engine.preparation import Work
from weightdecay.training import evaluation


def scorer(work: Work) -> Callable[[int, Any, Any], dict[str, float | None]] | None:
    """Function that scores a member on the test examples.

    Args:
      work: The grid, trained.

    Returns:
      ``score(member, params, model_state)``, numbers by name, None for one that is not finite; None where there are no
      test examples.
    """
    if "test" not in work.splits:
        return None
    scored = _of_a_member(
        work,
        lambda task, one, params, model_state: evaluation.score(task, one, params, model_state, work.splits["test"]),
    )

    def score(member: int, params: Any, model_state: Any) -> dict[str, float | None]:
        scores = scored(member, params, model_state)
        return {name: float(value) if np.isfinite(value) else None for name, value in scores.items()}

    return score


def predictor(work: Work) -> Callable[[int, Any, Any, Any], np.ndarray]:
    """Function that gives a member's outputs.

    Args:
      work: The grid, trained.

    Returns:
      ``predict(member, params, model_state, inputs)``, ``(examples, ...)``.
    """
    outputs = _of_a_member(work, evaluation.predict)
    return lambda member, params, model_state, inputs: np.asarray(outputs(member, params, model_state, inputs))


def _of_a_member(work: Work, function: Callable[..., Any]) -> Callable[..., Any]:
    """Function of a member's number, compiled once a group, from ``function(task, hyperparameters, *others)``."""

    @functools.cache
    def compiled(number: int) -> Callable[..., Any]:
        return jax.jit(functools.partial(function, work.groups[number].task))

    where = {
        int(place): (number, slot)
        for number, group in enumerate(work.groups)
        for slot, place in enumerate(group.places)
    }

    def of_member(member: int, *others: Any) -> Any:
        number, slot = where[member]
        one = jax.tree.map(lambda leaf: leaf[slot], work.groups[number].hyperparameters)
        return compiled(number)(one, *others)

    return of_member
