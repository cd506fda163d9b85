"""What the command line prints: messages, tables and the choice, on terminals of any width and encoding."""

import codecs
import contextlib
import functools
import os
import re
import sys
import textwrap
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightdecay.core import metrics

if TYPE_CHECKING:
    from weightdecay.apps.comparison import Comparison
    from weightdecay.results.grid_result import GridResult

_REPLACEMENTS = {
    "±": "+-",
    "–": "-",  # noqa: RUF001
    "×": "x",  # noqa: RUF001
    "·": "*",
    "√": "sqrt",
    "Σ": "sum",
    "η": "eta",
    "λ": "lambda",
    "σ": "sigma",  # noqa: RUF001
}  # the others lose what ASCII lacks: ² becomes 2, é becomes e


_PYTHON = {
    r"as with wd\.logspace\((?:wd\.)?(\w+), (\S+), (\S+), (\d+)\)": (
        r"as with --rules \1 --coefficients \2 \3 --num-coefficients \4"
    ),
    r", or None( [^.;]*)?(?=[.;]|$)": "",
    r"a folder that result\.save\(\.\.\.\) wrote": "the folder of a result, or the directory of a finished run",
    r" \(overwrite=True; --overwrite on the command line\)": " with --overwrite",
}  # patterns of messages, and what the command line prints in their place


def transliterate() -> None:
    """Let the standard streams replace characters that their encoding lacks, in place of raising an error."""
    codecs.register_error("weightdecay.transliterate", _transliterated)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="weightdecay.transliterate")  # pyright: ignore[reportAttributeAccessIssue]


def echo(message: Any, *, to_stderr: bool = False) -> None:
    """Print a message.

    Args:
      message: A string, or a value to print as one.
      to_stderr: Whether to print to the standard error stream.
    """
    print(message, file=sys.stderr if to_stderr else sys.stdout, flush=True)


@contextlib.contextmanager
def plain_warnings() -> Iterator[None]:
    """Print the warnings of a block as ``weightdecay: warning: ...``, without a file name and without Python code."""

    def show(
        message: Warning | str, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None
    ) -> None:
        echo(f"weightdecay: warning: {without_code(str(message))}", to_stderr=True)

    shown = warnings.showwarning
    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = shown


def without_code(message: str) -> str:
    """Rewrite a message of the library for somebody who does not call it from Python.

    Args:
      message: The message of an error or a warning.

    Returns:
      The message without what concerns Python alone: the value None, and sentences that recommend a call.

    Examples:
      >>> without_code("batch_size is 0; give 1 to 90, or None for all of them.")
      'batch_size is 0; give 1 to 90.'
      >>> without_code("the disk is full. Save it with result.save(...) where there is room.")
      'the disk is full.'
      >>> without_code("extend the grid, as with wd.logspace(wd.L2, 0.2, 10, 4).")
      'extend the grid, as with --rules L2 --coefficients 0.2 10 --num-coefficients 4.'
    """
    for python, words in _PYTHON.items():
        message = re.sub(python, words, message)
    sentences = re.split(r"(?<=\.)\s+", message)
    kept = [sentence for sentence in sentences if not re.search(r"\w\.\w+\(|\w=['\"]", sentence)]
    return " ".join(kept) or message


def width() -> int | None:
    """Number of columns of the terminal that the standard output is; None where it is not a terminal.

    The variable COLUMNS takes precedence over the size that the terminal reports.
    """
    if not sys.stdout.isatty():
        return None
    if os.environ.get("COLUMNS", "").isdecimal():
        return int(os.environ["COLUMNS"]) or None
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except OSError:
        return None


def wrapped(text: str, columns: int | None, indent: str = "") -> str:
    """Break lines that are longer than a terminal is wide.

    Args:
      text: One or more lines.
      columns: Width of the terminal; None = leave the lines as they are.
      indent: Start of each continued line.

    Returns:
      The text.
    """
    if columns is None:
        return text
    lines = []
    for line in text.split("\n"):
        fits = len(line) <= columns
        lines += (
            [line]
            if fits
            else textwrap.wrap(line, columns, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        )
    return "\n".join(lines)


def show(result: "GridResult", metric: str, *, show_all: bool = False) -> None:
    """Print the best candidates, the choice, and its score on the test examples.

    Args:
      result: The result; its test scores are there already.
      metric: Validation metric of the choice.
      show_all: Whether to print all candidates, and not the best ten and those that are named below the table.
    """
    from weightdecay.results import selection

    columns = width()
    best = result.best(metric=metric)
    marks, cautious = {best.number: "*"}, "one seed has no standard error"
    if len(best.members) > 1:
        choice = result.best("one_standard_error", metric=metric)
        marks.setdefault(choice.number, "+")
        cautious = str(choice)
    lines = [
        f"* best mean:          {best}",
        f"{'+' if '+' in marks.values() else '*'} one standard error: {cautious}",
    ]
    no_decay = result.no_decay(metric=metric)
    if no_decay is not None and no_decay.number != best.number:
        lines.append(f"  no decay:           {no_decay}")
        marks.setdefault(no_decay.number, "")
    scores = result.test(metric=metric).to_dict("records")
    name = "test_loss" if scores[0]["test_accuracy"] != scores[0]["test_accuracy"] else "test_accuracy"
    tested = ", ".join(
        dict.fromkeys(f"{row['decay']} {_mean(row, name)}" for row in scores)
    )  # the choice may be no decay
    lines.append(f"  {name.replace('_', ' ') + ':':<20}{tested}")

    echo("\n" + "\n".join(_table(result, metric, marks, columns, None if show_all else _BEST)))
    echo(f"\n{wrapped(best.sentence, columns)}\n")
    echo("\n".join(wrapped(line, columns, indent=" " * 22) for line in lines))
    advice = selection.choose(
        result.candidates(metric), metric=metric, lower_is_better=result.settings.get("lower_is_better")
    ).advice  # the advice without Python code
    if advice:
        echo("\n" + wrapped(f"Warning: {without_code(advice)}", columns))


def show_comparison(compared: "Comparison") -> None:
    """Print the methods of a comparison, the best one first, and the conclusion.

    Args:
      compared: The comparison.
    """
    columns, cells = width(), compared.cells()
    shown = fitted(cells, ("zeros", cells[0][3], "chosen"), columns)
    lines = ["", *compared.lines(shown)]
    left_out = [name for name in cells[0] if name not in shown[0]]
    if left_out:
        lines += [
            "",
            wrapped(f"Columns that do not fit here: {', '.join(left_out)}; comparison.csv has them.", columns),
        ]
    echo("\n".join([*lines, "", wrapped(compared.sentence, columns)]))


def save_plots(folder: Path, **plots: Callable[[], Any]) -> None:
    """Save plots as PNG files, without a display.

    Args:
      folder: Existing folder.
      **plots: Functions that return axes, by the name of the file; an underscore becomes a hyphen.
    """
    import matplotlib

    matplotlib.use("Agg")
    for name, plot in plots.items():
        plot().figure.savefig(folder / f"{name.replace('_', '-')}.png", dpi=150)


def fitted(rows: Sequence[Sequence[str]], dispensable: Sequence[str], columns: int | None) -> list[list[str]]:
    """Remove columns of a table until it fits on a terminal.

    Args:
      rows: Cells; the first row holds the names of the columns.
      dispensable: Names of the columns that may be removed, the least important one first.
      columns: Width of the terminal; None = keep all.

    Returns:
      The cells of the columns that are left; columns are separated by two spaces.
    """
    kept = list(rows[0])
    sizes = {name: max(len(row[index]) for row in rows) for index, name in enumerate(kept)}
    for name in dispensable:
        if columns is not None and name in kept and sum(sizes[one] + 2 for one in kept) - 2 > columns:
            kept.remove(name)
    positions = [index for index, name in enumerate(rows[0]) if name in kept]
    return [[row[index] for index in positions] for row in rows]


_DISPENSABLE = ("weight norm", "train accuracy", "train loss", "gap", "zeros", "val. bits per token", "val. accuracy")


_BEST = 10  # candidates that are shown


def _table(
    result: "GridResult", metric: str, marks: dict[int, str], columns: int | None, best: int | None
) -> list[str]:
    """Lines of the table of candidates, the best one first; those with a mark are among the lines in any case."""
    rows = result.table().to_dict("records")
    has_accuracy = any(row["validation_accuracy"] == row["validation_accuracy"] for row in rows)
    cells: dict[str, Callable[[dict[Any, Any]], str]] = {}
    if len({row["learning_rate"] for row in rows}) > 1:
        cells["learning rate"] = lambda row: f"{row['learning_rate']:g}"
    if has_accuracy:
        cells["val. accuracy"] = lambda row: _mean(row, "validation_accuracy")
    cells["val. loss"] = lambda row: _mean(row, "validation_loss")
    for name in metrics.derived_of("validation", rows[0]):
        cells[f"val. {name.removeprefix('validation_').replace('_', ' ')}"] = functools.partial(_mean, name=name)
    if has_accuracy:
        cells["train accuracy"] = lambda row: f"{row['train_accuracy']:.4f}"
    else:
        cells["train loss"] = lambda row: f"{row['train_loss']:.4f}"
    cells["gap"] = lambda row: f"{row['generalization_gap']:+.4f}"
    cells["weight norm"] = lambda row: f"{row['weight_norm']:.2f}"
    cells["zeros"] = lambda row: f"{100 * row['zero_fraction']:.1f} %"

    table = [["", "candidate", *cells]]
    dropped = result.dataset["dropped_at"].values >= 0 if "dropped_at" in result.dataset else None
    sign = 1 if result.lower_is_better(metric) else -1
    ranked = sorted(
        result.candidates(metric),
        key=lambda candidate: (candidate.mean != candidate.mean, sign * candidate.mean),
    )
    if dropped is not None:  # A search has left some, or some of their replicates, out.
        ranked = [candidate for candidate in ranked if not dropped[list(candidate.members)].any()]
    shown_candidates = [one for place, one in enumerate(ranked) if best is None or place < best or one.number in marks]
    for candidate in shown_candidates:
        row = rows[candidate.number]
        table.append([marks.get(candidate.number, ""), str(candidate.decay), *(show(row) for show in cells.values())])
    shown = fitted(table, _DISPENSABLE, columns)
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    aligned = (
        [f"{line[0]:<{widths[0]}}", f"{line[1]:<{widths[1]}}", *map(str.rjust, line[2:], widths[2:])] for line in shown
    )
    lines = ["  ".join(line) for line in aligned]
    if hidden := len(ranked) - len(shown_candidates):
        rest = f"{hidden} worse candidates are not shown; --all shows them, and so does the report."
        lines += ["", wrapped(rest, columns)]
    left_out = [name for name in table[0] if name not in shown[0]]
    if left_out:
        lines += ["", wrapped(f"Columns that do not fit here: {', '.join(left_out)}; the report has them.", columns)]
    return lines


def _mean(row: dict[Any, Any], name: str) -> str:
    """Mean and standard error; a single seed has no standard error."""
    error = row[f"{name}_standard_error"]
    return f"{row[name]:.4f}" + (f" ± {error:.4f}" if error == error else "")


def _transliterated(error: UnicodeError) -> tuple[str, int]:
    """Characters of ASCII for those that an encoding lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = []
    for character in error.object[error.start : error.end]:
        plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode("ascii")
        characters.append(_REPLACEMENTS.get(character) or plain or "?")
    return "".join(characters), error.end
