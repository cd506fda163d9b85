"""Tables of candidates: their means, their paired differences, and the best of them as a notebook shows it."""

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray

from weightdecay.core.metrics import lower_is_better
from weightdecay.core.statistics import estimate, mean_and_error, rounded
from weightdecay.results.candidates import Candidate, difference
from weightdecay.search import member

_AVERAGED = (
    "validation_accuracy",
    "validation_loss",
    "train_accuracy",
    "train_loss",
    "penalty",
    "weight_norm",
    "zero_fraction",
)
_SHOWN = 10  # rows in a notebook


def means(
    dataset: xarray.Dataset,
    candidates: Sequence[Candidate],
    *,
    num_folds: int | None = None,
    interval: str | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """One row a candidate, averaged over seeds and folds at the last step.

    Args:
      dataset: As ``result.dataset``.
      candidates: Of the result.
      num_folds: Of a cross-validation; None = as many as occur.
      interval: ``"t"`` or ``"bootstrap"``; None = no columns of intervals.
      confidence: Of the intervals.

    Returns:
      The table; see ``result.table``.
    """
    last = dataset.isel(step=-1)
    along = [name for name, values in dataset.coords.items() if values.dims == ("member",)]
    hyperparameters = [name for name in along if name not in ("member", "candidate", *member.REPLICATES)]
    own = [str(name) for name in dataset.data_vars if dataset[name].dims == ("member", "step")]
    averaged = dict.fromkeys([*_AVERAGED, *own])
    columns = {name: last[name].values for name in (*hyperparameters, *averaged, "diverged_at")}
    has_accuracy = not np.isnan(columns["validation_accuracy"]).all()
    rows = []
    for candidate in candidates:
        here = list(candidate.members)
        folds = [replicate.fold for replicate in candidate.values]
        row: dict[Any, Any] = {name: columns[name][here[0]] for name in hyperparameters}
        for name in averaged:
            row[name], error = mean_and_error(columns[name][here], folds, num_folds)
            if not name.startswith("validation_"):
                continue
            row[f"{name}_standard_error"] = error
            if interval is not None:
                found = estimate(
                    columns[name][here], folds=folds, num_folds=num_folds, interval=interval, confidence=confidence
                )
                row |= {f"{name}_lower": found.lower, f"{name}_upper": found.upper}
        row["generalization_gap"] = (
            row["train_accuracy"] - row["validation_accuracy"]
            if has_accuracy
            else row["validation_loss"] - row["train_loss"]
        )
        row["seeds"] = len(here)
        row["diverged"] = int((columns["diverged_at"][here] >= 0).sum())
        rows.append(row)
    return pd.DataFrame(rows, index=pd.RangeIndex(len(rows), name="candidate"))


def differences(
    candidates: Sequence[Candidate],
    reference: Candidate,
    *,
    num_folds: int | None = None,
    interval: str = "t",
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Paired difference of each candidate to one of them.

    Args:
      candidates: Of the result.
      reference: What they are compared with.
      num_folds: Of a cross-validation; None = as many as occur.
      interval: ``"t"`` or ``"bootstrap"``.
      confidence: Of the intervals.

    Returns:
      The table; see ``result.differences``.
    """
    rows = []
    for candidate in candidates:
        found = difference(candidate, reference, num_folds=num_folds, interval=interval, confidence=confidence)
        rows.append(
            {
                "difference": found.mean,
                "standard_error": found.standard_error,
                "lower": found.lower,
                "upper": found.upper,
                "pairs": found.replicates,
            }
        )
    return pd.DataFrame(rows, index=pd.RangeIndex(len(rows), name="candidate"))


def as_html(table: pd.DataFrame, candidates: Sequence[Candidate], metric: str, *, head: Sequence[str]) -> str:
    """The best rows of a table, under some sentences.

    Args:
      table: As `means` makes it.
      candidates: Of the result.
      metric: By which the best come first; broken candidates come last.
      head: Sentences, a paragraph each.

    Returns:
      HTML that needs nothing from elsewhere.
    """
    rows = table.to_dict("records")
    sign = 1 if lower_is_better(metric) else -1
    order = sorted(range(len(rows)), key=lambda number: _last_if_broken(sign * rows[number][metric]))
    shown = order[:_SHOWN]
    names = dict.fromkeys(name for candidate in candidates for name in candidate.others)
    columns: dict[str, list[Any]] = {"candidate": shown, "decay": [str(candidates[one].decay) for one in shown]}
    columns |= {name.replace("_", " "): [_said(candidates[one].others.get(name)) for one in shown] for name in names}
    for name in dict.fromkeys(("validation_loss", "validation_accuracy", metric)):
        if not all(np.isnan(row[name]) for row in rows):
            columns[name.replace("_", " ")] = [
                rounded(rows[one][name], rows[one][f"{name}_standard_error"]) for one in shown
            ]
    if any(row["diverged"] for row in rows):
        columns["diverged"] = [f"{rows[one]['diverged']} of {rows[one]['seeds']}" for one in shown]
    caption = [f"The best {len(shown)} of {len(rows)} candidates."] if len(shown) < len(rows) else []
    paragraphs = "\n".join(f"<p>{html.escape(words)}</p>" for words in [*head, *caption])
    return f"{paragraphs}\n{pd.DataFrame(columns).to_html(index=False, border=0)}"


def _last_if_broken(value: float) -> float:
    return value if np.isfinite(value) else np.inf


def _said(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
