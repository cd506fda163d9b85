"""Scores on the test examples: of the chosen candidate and of no decay, once.

A test set that has been scored can no longer judge another choice. The scores are therefore kept with the result, and a
call for another choice is refused.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from weightdecay.core.statistics import mean_and_error
from weightdecay.results.candidates import Candidate

ScoreTest = Callable[[int, Any, Any], dict[str, float | None]]
"""``score_test(member, params, model_state) -> {"loss": ..., "accuracy": ...}``; None = not finite."""


def score(
    candidates: Mapping[str, Candidate],
    *,
    num_steps: int,
    kept: dict[str, Any] | None,
    score_test: ScoreTest | None,
    weights: Sequence[Any],
    averaged: bool = False,
) -> dict[str, Any]:
    """Score candidates on the test examples, or return the scores that were kept.

    Args:
      candidates: The chosen candidate as ``"chosen"`` and, if there is one, the best without decay as ``"no decay"``.
      num_steps: Number of training steps of the result.
      kept: Scores of an earlier call; None = the test set was not scored.
      score_test: Scores one member; None = there are no test examples.
      weights: ``(params, model_state)`` of each member.
      averaged: Whether these are averaged weights.

    Returns:
      The scores as they are kept: candidate numbers, number of steps, whether the weights are averages (an entry only
      if they are), and one score per replicate, by role.

    Raises:
      ValueError: No test examples, or the test set was scored for another choice.
    """
    numbers = {role: candidate.number for role, candidate in candidates.items()}
    if kept is not None:
        scored, steps_then = kept["candidates"], kept.get("num_steps", num_steps)
        if scored != numbers or steps_then != num_steps or kept.get("averaged", False) != averaged:
            then = "" if steps_then == num_steps else f" after {steps_then} of {num_steps} steps"
            then += " with averaged weights" if kept.get("averaged", False) else ""
            raise ValueError(
                f"the test set was already looked at for candidates {scored}{then}, so it cannot judge another choice, "
                f"{numbers}{' with averaged weights' if averaged else ''}; score that one on fresh data."
            )
        return kept
    if score_test is None:
        raise ValueError(
            "there are no test examples: give wd.Data a test split, and call result.test() before result.save()."
        )
    return {
        "candidates": numbers,
        "num_steps": num_steps,
        **({"averaged": True} if averaged else {}),
        "scores": {
            role: [score_test(index, *weights[index]) for index in candidate.members]
            for role, candidate in candidates.items()
        },
    }


def table(candidates: Mapping[str, Candidate], scores: Mapping[str, Any]) -> pd.DataFrame:
    """Average the test scores over the replicates.

    Args:
      candidates: As in `score`.
      scores: As `score` returns them.

    Returns:
      The table; see ``result.test``.
    """
    rows = {}
    for role, of_replicates in scores["scores"].items():
        row: dict[str, Any] = {"candidate": candidates[role].number, "decay": str(candidates[role].decay)}
        for name in dict.fromkeys(("accuracy", "loss", *of_replicates[0])):
            row[f"test_{name}"], row[f"test_{name}_standard_error"] = averaged(of_replicates, name)
        rows[role] = row
    return pd.DataFrame(rows).T


def averaged(scores: Sequence[Mapping[str, float | None]], name: str) -> tuple[float, float]:
    """Average one score over replicates.

    Args:
      scores: One mapping per replicate.
      name: ``"accuracy"``, ``"loss"``, what derives from the loss, or a metric of the user.

    Returns:
      Mean and standard error; nan if a score is not finite.
    """
    return mean_and_error([score[name] for score in scores])
