"""Tables of candidates: means, paired differences, and the best candidates as a notebook shows them."""

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray

from weightdecay.core import text
from weightdecay.core.metrics import derived_of, recorded
from weightdecay.core.statistics import estimate, mean_and_error
from weightdecay.results.candidates import Candidate, difference
from weightdecay.search import member

_MAX_ROWS = 10  # in a notebook


def means(
    dataset: xarray.Dataset,
    candidates: Sequence[Candidate],
    *,
    num_folds: int | None = None,
    interval: str | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Average each candidate over seeds and folds at the last step.

    Args:
      dataset: The dataset, as ``result.dataset``.
      candidates: Candidates of the result.
      num_folds: Number of folds of the cross-validation; None = as many as occur.
      interval: ``"t"`` or ``"bootstrap"``; None = no columns of intervals.
      confidence: Confidence of the intervals.

    Returns:
      The table, one row per candidate; see ``result.table``.
    """
    last = dataset.isel(step=-1)
    labels = [name for name, values in dataset.coords.items() if values.dims == ("member",)]
    hyperparameters = [name for name in labels if name not in ("member", "candidate", *member.REPLICATES)]
    others = [str(name) for name in dataset.data_vars if dataset[name].dims == ("member", "step")]
    averaged = dict.fromkeys([name for name in (*recorded(), *others) if name in dataset])
    columns = {name: last[name].values for name in (*hyperparameters, *averaged, "diverged_at")}
    has_accuracy = not np.isnan(columns["validation_accuracy"]).all()
    rows = []
    for candidate in candidates:
        indices = list(candidate.members)
        folds = [replicate.fold for replicate in candidate.values]
        row: dict[Any, Any] = {name: columns[name][indices[0]] for name in hyperparameters}
        for name in averaged:
            row[name], error = mean_and_error(columns[name][indices], folds, num_folds)
            if not name.startswith("validation_"):
                continue
            row[f"{name}_standard_error"] = error
            if interval is not None:
                estimated = estimate(
                    columns[name][indices], folds=folds, num_folds=num_folds, interval=interval, confidence=confidence
                )
                row |= {f"{name}_lower": estimated.lower, f"{name}_upper": estimated.upper}
        row["generalization_gap"] = (
            row["train_accuracy"] - row["validation_accuracy"]
            if has_accuracy
            else row["validation_loss"] - row["train_loss"]
        )
        row["seeds"] = len(indices)
        row["diverged"] = int((columns["diverged_at"][indices] >= 0).sum())
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
    """Estimate the paired difference of each candidate to one of them.

    Args:
      candidates: Candidates of the result.
      reference: The candidate that they are compared with.
      num_folds: Number of folds of the cross-validation; None = as many as occur.
      interval: ``"t"`` or ``"bootstrap"``.
      confidence: Confidence of the intervals.

    Returns:
      The table, one row per candidate; see ``result.differences``.
    """
    rows = []
    for candidate in candidates:
        estimated = difference(candidate, reference, num_folds=num_folds, interval=interval, confidence=confidence)
        rows.append(
            {
                "decay": str(candidate.decay),
                **candidate.others,
                "difference": estimated.mean,
                "standard_error": estimated.standard_error,
                "lower": estimated.lower,
                "upper": estimated.upper,
                "pairs": estimated.replicates,
            }
        )
    return pd.DataFrame(rows, index=pd.RangeIndex(len(rows), name="candidate"))


def as_html(
    table: pd.DataFrame, candidates: Sequence[Candidate], metric: str, *, head: Sequence[str], lower_is_better: bool
) -> str:
    """Return the best rows of a table as HTML, under some sentences.

    Args:
      table: The table, as `means` returns it.
      candidates: Candidates of the result.
      metric: The metric by which rows are sorted, the best first; candidates that are not finite come last.
      head: Sentences, one paragraph each.
      lower_is_better: Whether lower values of the metric are better.

    Returns:
      HTML that loads nothing from elsewhere.
    """
    rows = table.to_dict("records")
    sign = 1 if lower_is_better else -1
    order = sorted(range(len(rows)), key=lambda number: _last_if_not_finite(sign * rows[number][metric]))
    shown = order[:_MAX_ROWS]
    names = dict.fromkeys(name for candidate in candidates for name in candidate.others)
    columns: dict[str, list[Any]] = {"candidate": shown, "decay": [str(candidates[number].decay) for number in shown]}
    columns |= {
        name.replace("_", " "): [_cell(candidates[number].others.get(name)) for number in shown] for name in names
    }
    derived = derived_of("validation", rows[0])
    for name in dict.fromkeys(("validation_loss", *derived, "validation_accuracy", metric)):
        if not all(np.isnan(row[name]) for row in rows):
            columns[name.replace("_", " ")] = [
                text.estimate(rows[number][name], rows[number][f"{name}_standard_error"]) for number in shown
            ]
    if any(row["diverged"] for row in rows):
        columns["diverged"] = [f"{rows[number]['diverged']} of {rows[number]['seeds']}" for number in shown]
    caption = [f"The best {len(shown)} of {len(rows)} candidates."] if len(shown) < len(rows) else []
    paragraphs = "\n".join(f"<p>{html.escape(sentence)}</p>" for sentence in [*head, *caption])
    return f"{paragraphs}\n{pd.DataFrame(columns).to_html(index=False, border=0)}"


def _last_if_not_finite(value: float) -> float:
    return value if np.isfinite(value) else np.inf


def _cell(value: Any) -> str:
    return "" if value is None else text.short(value)
