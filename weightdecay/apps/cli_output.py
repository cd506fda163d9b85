"""What a sweep prints: the table of candidates, the choice, and its score on the test examples."""

from collections.abc import Callable
from typing import Any

import typer

from weightdecay.results import selection
from weightdecay.results.grid_result import GridResult


def show(result: GridResult, metric: str) -> None:
    """Print the candidates, the choice by a validation metric, and its score on the test examples."""
    best = result.best(metric=metric)
    marks, cautious = {best.number: "*"}, "not to be told from one seed"
    if len(best.members) > 1:
        choice = result.best("one_standard_error", metric=metric)
        marks.setdefault(choice.number, "+")
        cautious = str(choice)
    typer.echo("\n" + "\n".join(_table(result, marks)))
    typer.echo(f"\n{best.sentence}\n\n* best mean:          {best}")
    typer.echo(f"{'+' if '+' in marks.values() else '*'} one standard error: {cautious}")
    none = result.no_decay(metric=metric)
    if none is not None and none.number != best.number:
        typer.echo(f"  no decay:           {none}")
    scores = result.test(metric=metric).to_dict("records")
    name = "test_loss" if scores[0]["test_accuracy"] != scores[0]["test_accuracy"] else "test_accuracy"
    told = [f"{row['decay']} {_mean(row, name)}" for row in scores]
    typer.echo(f"  {name.replace('_', ' ') + ':':<20}{', '.join(told)}")
    advice = selection.choose(result.candidates(metric), metric=metric).advice  # without a word of Python
    if advice:
        typer.echo(f"\nWarning: {advice}")


def _table(result: GridResult, marks: dict[int, str]) -> list[str]:
    """Lines of the table of candidates."""
    rows = result.table().to_dict("records")
    has_accuracy = any(row["validation_accuracy"] == row["validation_accuracy"] for row in rows)
    columns: dict[str, Callable[[dict[Any, Any]], str]] = {}
    if len({row["learning_rate"] for row in rows}) > 1:
        columns["learning rate"] = lambda row: f"{row['learning_rate']:g}"
    if has_accuracy:
        columns["val. accuracy"] = lambda row: _mean(row, "validation_accuracy")
    columns["val. loss"] = lambda row: _mean(row, "validation_loss")
    if has_accuracy:
        columns["train accuracy"] = lambda row: f"{row['train_accuracy']:.4f}"
    else:
        columns["train loss"] = lambda row: f"{row['train_loss']:.4f}"
    columns["gap"] = lambda row: f"{row['generalization_gap']:+.4f}"
    columns["weight norm"] = lambda row: f"{row['weight_norm']:.2f}"
    columns["zeros"] = lambda row: f"{100 * row['zero_fraction']:.1f} %"

    cells = [["", "candidate", *columns]]
    for candidate, row in zip(result.candidates(), rows, strict=True):
        cells.append([marks.get(candidate.number, ""), str(candidate.decay), *(show(row) for show in columns.values())])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    aligned = (
        [f"{line[0]:<{widths[0]}}", f"{line[1]:<{widths[1]}}", *map(str.rjust, line[2:], widths[2:])] for line in cells
    )
    return ["  ".join(line) for line in aligned]


def _mean(row: dict[Any, Any], name: str) -> str:
    """Mean and standard error; a single seed has none."""
    error = row[f"{name}_standard_error"]
    return f"{row[name]:.4f}" + (f" ± {error:.4f}" if error == error else "")
