"""The report: a result as one page for a browser, which stands alone and begins with the decision.

What the page says is gathered here, part by part; how it looks stands in ``page.html.jinja``.
"""

import functools
import math
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from weightdecay.core import html, tree
from weightdecay.core.metrics import lower_is_better
from weightdecay.core.statistics import mean_and_error, rounded
from weightdecay.results.report import figures
from weightdecay.results.selection import Candidate, Choice
from weightdecay.search import grid as grids

_OURS = '<meta name="generator" content="weightdecay report">'
_SHOWN = 20  # rows of a long table; the rest is folded
_NOTHING = "\N{EN DASH}"


class _Notice(NamedTuple):
    """What a reader of the decision has to know beside it."""

    kind: str  # "warning" or "note"
    title: str
    text: str


class _Section(NamedTuple):
    """A part of the page under a heading of its own."""

    name: str
    title: str
    body: str


def write(path: str | os.PathLike[str], page: str) -> Path:
    """Write a report; it appears whole or not at all.

    Args:
      path: An ``.html`` file; folders above it are made. An earlier report there is replaced.
      page: As `page` makes it.

    Returns:
      The path.

    Raises:
      FileExistsError: The file is there, and is no report.
      ValueError: Another ending of the path.
    """
    file = Path(path)
    if file.suffix not in (".html", ".htm"):
        raise ValueError(f"path is {file}; end it in .html, as in result.report('report.html').")
    if file.exists() and not _is_report(file):
        raise FileExistsError(f"path {file} is there and is no report; nothing was touched. Give another path.")
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{file.name}-", dir=file.parent))
    try:
        (unfinished / file.name).write_text(page, encoding="utf-8")
        os.replace(unfinished / file.name, file)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return file


def page(result: Any, *, metric: str = "validation_loss", test: Mapping[str, Any] | None = None) -> str:
    """Put the page together.

    Args:
      result: A `weightdecay.GridResult`.
      metric: By which the choice is made, as in ``result.best``.
      test: Scores on the test examples, as they are kept with the result; None = nobody has looked at them.

    Returns:
      HTML that needs nothing from elsewhere; the same for the same result.

    Raises:
      ValueError: An unknown metric.
    """
    return _template().render(generator=_OURS, **_Report(result, metric, test).parts())


class _Report:
    """What the page says of a result."""

    def __init__(self, result: Any, metric: str, test: Mapping[str, Any] | None) -> None:
        self.result, self.metric, self.looked = result, metric, test
        self.settings: Mapping[str, Any] = result.settings
        self.candidates: list[Candidate] = result.candidates(metric)
        self.rows: list[dict[Any, Any]] = result.table(interval="t").to_dict("records")
        self.chosen: Choice | None = None
        self.no_choice = ""
        try:
            self.chosen = result.best(metric=metric, optimism=True)
        except ValueError as error:
            self.no_choice = str(error)
        self.none: Choice | None = result.no_decay(metric=metric)
        self.differences: list[dict[Any, Any]] = []
        if self.none is not None:
            self.differences = result.differences(self.none.number, metric=metric).to_dict("records")
        self.died = result.dataset["diverged_at"].values >= 0
        self.has_accuracy = any(math.isfinite(row["validation_accuracy"]) for row in self.rows)
        self.words = metric.replace("_", " ")

    def parts(self) -> dict[str, Any]:
        """What the template puts in its places, by name."""
        return {
            "sentence": f"No choice: {self.no_choice}" if self.chosen is None else self.chosen.sentence,
            "size": self._size(),
            "cards": self._cards(),
            "notices": self._notices(),
            "illustrations": [] if self.chosen is None else figures.of(self.result, self.metric, self.chosen),
            "before": [
                _Section("choice", "Choice", self._choice()),
                _Section("candidates", "Candidates", self._candidates()),
            ],
            "after": [
                _Section("grid", "Grid", self._grid()),
                _Section("data", "Data", self._data()),
                _Section("model", "Model", self._model()),
                _Section("settings", "Settings", self._settings()),
                _Section("plan", "Plan", self._plan()),
                _Section("seeds", "Seeds", self._seeds()),
                _Section("versions", "Versions", self._versions()),
                _Section("failures", "Failures", self._failures()),
            ],
        }

    def _size(self) -> str:
        candidates = f"{len(self.candidates)} candidate{'s' * (len(self.candidates) != 1)}"
        members = f"{len(self.result)} member{'s' * (len(self.result) != 1)}"
        return f"{candidates}, {members}, {int(self.result.dataset['step'].values[-1]):,} training steps"

    def _cards(self) -> list[tuple[str, str, str]]:
        """The decision in numbers: a title, a value, and what is to be said of it."""
        if self.chosen is None:
            return [("Chosen", "none", ""), self._test_card()]
        others = ", ".join(f"{name.replace('_', ' ')} {html.said(v)}" for name, v in self.chosen.others.items())
        confidence = f"{100 * self.chosen.confidence:g} % interval "
        cards = [
            ("Chosen", "no decay" if self.chosen.is_without_decay else str(self.chosen.decay), others),
            (self.words.capitalize(), rounded(self.chosen.mean, self.chosen.standard_error), self._counted()),
        ]
        if self.chosen.difference is not None:
            told = self.chosen.difference
            interval = _ends(told.lower, told.upper, _digits([told.standard_error / 10]))
            cards.append(
                ("Less no decay", str(told), "one replicate" if interval == _NOTHING else confidence + interval)
            )
        return [*cards, self._test_card()]

    def _counted(self) -> str:
        assert self.chosen is not None
        count = len(self.chosen.members)
        return "one replicate: no standard error" if count == 1 else f"mean ± standard error of {count} replicates"

    def _test_card(self) -> tuple[str, str, str]:
        if self.looked is None:
            return ("Test set", "not looked at yet", "result.test() does it, once")
        told: dict[str, str] = {}
        for name in ("accuracy", "loss"):
            found = {
                role: rounded(*mean_and_error([score[name] for score in scores]))
                for role, scores in self.looked["scores"].items()
            }
            if any(score != "nan" for score in found.values()):
                told = {"name": name, **found}
                break
        if not told:
            return ("Test set", "not finite", "")
        number = self.looked["candidates"]["chosen"]
        words = [f"no decay {told['no decay']}"] if "no decay" in told and self._is_with_decay(number) else []
        if self.chosen is None or number != self.chosen.number:
            words.insert(0, f"of candidate {number}, {self.candidates[number].decay}, which was chosen when it was")
        return (f"Test {told['name']}", told["chosen"], "; ".join(["looked at once", *words]))

    def _is_with_decay(self, number: int) -> bool:
        return not self.candidates[number].is_without_decay

    def _notices(self) -> list[_Notice]:
        found = []
        if self.settings.get("interrupted"):
            text = "Numbers are missing. Call wd.fit_grid again with the same directory, which goes on where it was."
            found.append(_Notice("warning", "The run was interrupted", text))
        if self.chosen is not None and self.chosen.advice:
            found.append(_Notice("warning", "The best lies at the edge of the grid", self.chosen.advice))
        if self.died.any():
            count = _of(int(self.died.sum()), len(self.result)).capitalize()
            text = f"{count} members diverged. They are never chosen; see Failures."
            found.append(_Notice("warning", "Divergence", text))
        if self.chosen is not None and len(self.chosen.members) == 1:
            text = "Whether a difference is luck cannot be told. Three seeds or more would: seed=range(3)."
            found.append(_Notice("warning", "One seed only", text))
        if self.chosen is not None and self.chosen.optimism is not None:
            optimism = self.chosen.optimism
            if not math.isnan(optimism.mean):
                text = (
                    f"The best of a grid looks better than it is: here by {rounded(*optimism)} in {self.words}, by "
                    "re-splitting the replicates. The test set has no part in that."
                )
                found.append(_Notice("note", "Luck of the choice", text))
        return found

    def _choice(self) -> str:
        if self.chosen is None:
            return html.paragraph("No candidate can be chosen.")
        ways: dict[str, Choice] = {"best mean": self.chosen}
        said = []
        if math.isnan(self.chosen.standard_error):
            said.append("One replicate has no standard error, so that nothing can be said to lie within one.")
        else:
            best = functools.partial(self.result.best, metric=self.metric)
            ways["one standard error"] = best("one_standard_error")
            ways["one standard error, paired"] = best("one_standard_error_paired")
            said.append(
                "One standard error: the most decayed candidate that is not told apart from the best, by its mean or "
                "by its differences to the best, replicate by replicate."
            )
        if self.none is None:
            there = any(one.is_without_decay for one in self.candidates)
            reason = "No candidate without decay has a finite value" if there else "The grid has none without decay"
            said.append(f"{reason}, so that it cannot be said whether decay is worth it.")
        else:
            ways["no decay"] = self.none
            said.append(
                "Differences are of candidate less no decay, replicate by replicate: members of one seed start from "
                "the same weights and see the same batches, and what is luck in both drops out."
            )
        numbers = [choice.number for choice in ways.values()]
        columns = {"by": list(ways), **self._columns(numbers, whole=True)}
        marked = {place: "none" for place, choice in enumerate(ways.values()) if choice.is_without_decay}
        table = _scrolled(html.table(columns, words=["by", "decay"], marked={**marked, 0: "chosen"}))
        return table + "\n" + "\n".join(map(html.paragraph, said))

    def _candidates(self) -> str:
        sign = 1 if lower_is_better(self.metric) else -1
        means = {one.number: sign * one.mean for one in self.candidates}
        order = sorted(means, key=lambda number: means[number] if math.isfinite(means[number]) else math.inf)
        roles = {} if self.none is None else {self.none.number: "none"}
        roles |= {} if self.chosen is None else {self.chosen.number: "chosen"}
        told = {"chosen": "chosen", "none": "no decay"}
        columns = {
            "role": [told.get(roles.get(number, ""), "") for number in order],
            **self._columns(order, whole=False),
        }
        marked = {place: roles[number] for place, number in enumerate(order) if number in roles}
        said = f"By {self.words}, the best first; means ± standard errors over replicates, intervals of Student's t."
        if len(self.candidates[0].members) == 1:
            said = f"By {self.words}, the best first; one replicate each."
        fixed = {
            name: values[0]
            for name, values in self._others(order).items()
            if len(order) > 1 and len(set(values)) == 1 and values[0] != ""
        }
        if fixed:
            same = ", ".join(f"{name} {value}" for name, value in fixed.items())
            said += f" All have {same}."
        if "time scale" in columns:
            said += " Time scale: epochs over which decay forgets updates."
        return html.paragraph(said) + "\n" + _long(columns, ["role", "decay"], marked, "candidates")

    def _others(self, numbers: Sequence[int]) -> dict[str, list[str]]:
        names = dict.fromkeys(name for one in self.candidates for name in one.others)
        return {
            name.replace("_", " "): [
                html.said(self.candidates[number].others[name]) if name in self.candidates[number].others else ""
                for number in numbers
            ]
            for name in names
        }

    def _columns(self, numbers: Sequence[int], *, whole: bool) -> dict[str, list[str]]:
        """Cells of candidates by the title of their column; whole: every axis, and the interval of each difference."""
        rows, names = [self.rows[number] for number in numbers], self._others(range(len(self.candidates)))
        columns: dict[str, list[str]] = {
            "candidate": [str(number) for number in numbers],
            "decay": [str(self.candidates[number].decay) for number in numbers],
        }
        columns |= {name: cells for name, cells in self._others(numbers).items() if whole or len(set(names[name])) > 1}
        has_error = any(math.isfinite(one.standard_error) for one in self.candidates)
        for name in dict.fromkeys((self.metric, "validation_loss", "validation_accuracy")):
            if name == "validation_accuracy" and not self.has_accuracy:
                continue
            digits = _digits(row[f"{name}_standard_error"] for row in rows[:_SHOWN])
            columns[name.replace("_", " ")] = [_mean(row[name], row[f"{name}_standard_error"], digits) for row in rows]
            if name == self.metric and has_error and not whole:
                columns["95 % interval"] = [_ends(row[f"{name}_lower"], row[f"{name}_upper"], digits) for row in rows]
        if self.differences:
            told = [self._difference(number) for number in numbers]
            digits = _digits(one["standard_error"] for one in told[:_SHOWN])
            columns["less no decay"] = [_mean(one["difference"], one["standard_error"], digits) for one in told]
            if has_error and whole:
                columns["its 95 % interval"] = [_ends(one["lower"], one["upper"], digits) for one in told]
        columns["gap"] = [_fixed(row["generalization_gap"], "+.4f") for row in rows]
        columns["weight norm"] = [_fixed(row["weight_norm"], ".2f") for row in rows]
        if any(row["zero_fraction"] > 0 for row in rows):
            columns["zeros"] = [_share(row["zero_fraction"]) for row in rows]
        epochs = self._time_scale(numbers)
        if any(cell != _NOTHING for cell in epochs):
            columns["time scale"] = epochs
        if any(row["diverged"] for row in rows):
            columns["diverged"] = [_of(row["diverged"], row["seeds"]) for row in rows]
        return columns

    def _difference(self, number: int) -> dict[Any, Any]:
        """Of a candidate to no decay; of that to itself there is none."""
        is_itself = self.none is not None and number == self.none.number
        return dict.fromkeys(self.differences[number], math.nan) if is_itself else self.differences[number]

    def _time_scale(self, numbers: Sequence[int]) -> list[str]:
        """How many epochs of updates the weights of each candidate remember."""
        if "time_scale_epochs" not in self.result.dataset:
            return [_NOTHING] * len(numbers)
        last = self.result.dataset["time_scale_epochs"].values[:, -1].astype(float)
        return [_number(last[list(self.candidates[number].members)].mean()) for number in numbers]

    def _grid(self) -> str:
        return _scrolled(html.axes(grids.of_members(self.result.members).axes))

    def _data(self) -> str:
        sizes = self.settings.get("examples") or {}
        order = [name for name in ("train", "validation", "test") if name in sizes]
        told = {
            {"train": "training examples"}.get(name, f"{name} examples"): f"{sizes[name]:,}"
            for name in [*order, *(name for name in sizes if name not in order)]
        }
        if sizes and "test" not in sizes:
            told["test examples"] = "none"
        if sizes:
            folds = self.settings.get("folds")
            told["folds"] = "none: one split" if folds is None else f"{folds} of a cross-validation"
        return html.facts(told) if told else html.paragraph("The result does not say.")

    def _model(self) -> str:
        member = 0 if self.chosen is None else self.chosen.members[0]
        named = [(name or "(array)", np.shape(leaf)) for name, leaf in tree.named_leaves(self.result.params(member))]
        sizes = [math.prod(shape) for _, shape in named]
        arrays = {"name": [name for name, _ in named], "shape": [shape for _, shape in named]}
        arrays["weights"] = [f"{size:,}" for size in sizes]  # pyright: ignore[reportArgumentType]
        told = {"weights": f"{sum(sizes):,} in {len(sizes)} arrays"}
        for name, title, show in (
            ("decaying_fraction", "of these decay", _share),
            ("degrees_of_freedom", "degrees of freedom", _number),
        ):
            if name in self.result.dataset and math.isfinite(value := float(self.result.dataset[name].values[member])):
                told[title] = show(value)
        if "mask" in self.settings:
            told["mask"] = str(self.settings["mask"])
        table = _scrolled(html.table(arrays, words=["name", "shape"]))
        own = self.settings.get("model")
        code = "" if own is None else f"{html.code(own)}\n"
        return f"{code}{html.facts(told)}\n{html.folded('Every array', table)}"

    def _settings(self) -> str:
        apart = ("model", "mask", "examples", "folds", "plan", "backend", "seconds", "compiled_programs", "interrupted")
        told = {name.replace("_", " "): _word(value) for name, value in self.settings.items() if name not in apart}
        return html.facts({**told, "evaluations": self.result.dataset.sizes["step"], "choice by": self.words})

    def _plan(self) -> str:
        told = {name.replace("_", " "): _word(value) for name, value in (self.settings.get("plan") or {}).items()}
        names = ("backend", "compiled_programs")
        told |= {name.replace("_", " "): _word(self.settings[name]) for name in names if name in self.settings}
        if "seconds" in self.settings:
            told["time"] = f"{self.settings['seconds']:,.1f} s, compiling included"
        return html.facts(told) if told else html.paragraph("The result does not say.")

    def _versions(self) -> str:
        return html.facts(self.result.versions)

    def _seeds(self) -> str:
        seeds = list(dict.fromkeys(replicate.seed for one in self.candidates for replicate in one.values))
        folds = list(dict.fromkeys(replicate.fold for one in self.candidates for replicate in one.values))
        counts = sorted({len(one.members) for one in self.candidates})
        told = {"seeds": html.listed(seeds)}
        if folds != [None]:
            told["folds"] = html.listed(folds)
        told["members a candidate"] = " to ".join(dict.fromkeys(map(str, (counts[0], counts[-1]))))
        said = (
            "A seed decides a member's first weights, the order of its examples and all that is random in its "
            "training. Seeds and folds are replicates of a candidate, never candidates."
        )
        return f"{html.facts(told)}\n{html.paragraph(said)}"

    def _failures(self) -> str:
        parts = [self._ended("diverged_at", "diverged", "No member diverged.")]
        off = " Patience was off." if self.settings.get("patience") is None else ""
        parts.append(self._ended("stopped_at", "stopped early", f"No member stopped early.{off}"))
        last = self.result.dataset["train_loss"].values[:, -1]
        missing = int((~np.isfinite(last) & ~self.died).sum())
        said = "The run was not interrupted."
        if self.settings.get("interrupted"):
            said = f"The run was interrupted: {_of(missing, len(self.result))} members did not come to the last step."
        return "\n".join([*parts, html.paragraph(said)])

    def _ended(self, variable: str, word: str, otherwise: str) -> str:
        """Candidates with members that came to an end before the last step."""
        if variable not in self.result.dataset:
            return html.paragraph(otherwise)
        at = self.result.dataset[variable].values
        hit = [one for one in self.candidates if (at[list(one.members)] >= 0).any()]
        if not hit:
            return html.paragraph(otherwise)
        ended = [{replicate: at[m] for replicate, m in zip(one.values, one.members, strict=True)} for one in hit]
        ended = [{replicate: step for replicate, step in one.items() if step >= 0} for one in ended]
        columns = {
            "candidate": [str(one.number) for one in hit],
            "decay": [str(one.decay) for one in hit],
            **self._others([one.number for one in hit]),
            "members": [_of(len(steps), len(one.members)) for steps, one in zip(ended, hit, strict=True)],
            "seeds": [html.listed(list(dict.fromkeys(replicate.seed for replicate in one))) for one in ended],
            "at step": [html.listed([int(step) for step in one.values()]) for one in ended],
        }
        said = f"{_of(int((at >= 0).sum()), len(self.result)).capitalize()} members {word}, of {len(hit)} candidates."
        return f"{html.paragraph(said)}\n{_long(columns, ['decay', 'seeds', 'at step'], {}, 'candidates')}"


@functools.cache
def _template() -> Any:
    import jinja2

    text = resources.files("weightdecay.results.report").joinpath("page.html.jinja").read_text(encoding="utf-8")
    options: dict[str, Any] = {"autoescape": True, "undefined": jinja2.StrictUndefined}
    return jinja2.Environment(trim_blocks=True, lstrip_blocks=True, **options).from_string(text)


def _is_report(file: Path) -> bool:
    if not file.is_file():
        return False
    with open(file, "rb") as opened:
        return _OURS.encode() in opened.read(2000)


def _long(columns: Mapping[str, Sequence[Any]], words: Collection[str], marked: Mapping[int, str], what: str) -> str:
    """A table of which only the first rows are shown at once, and the rest where it is asked for."""
    count = len(next(iter(columns.values())))
    first = {name: cells[:_SHOWN] for name, cells in columns.items()}
    table = _scrolled(html.table(first, words=words, marked=marked))
    if count <= _SHOWN:
        return table
    rest = {name: cells[_SHOWN:] for name, cells in columns.items()}
    later = {place - _SHOWN: name for place, name in marked.items()}
    folded = _scrolled(html.table(rest, words=words, marked=later))
    return f"{table}\n{html.folded(f'The other {count - _SHOWN} of {count} {what}', folded)}"


def _scrolled(table: str) -> str:
    """A table that scrolls where the page is too narrow for it."""
    return f'<div class="scrolled" tabindex="0">\n{table}\n</div>'


def _number(value: float) -> str:
    return _fixed(value, ".4g")


def _fixed(value: float, how: str) -> str:
    return f"{value:{how}}" if math.isfinite(value) else _NOTHING


def _digits(errors: Iterable[float | int]) -> int | None:
    """Digits behind the point that a column of means has, so that one is left of the smallest error; None = no errors.

    An error far below the others does not count.
    """
    found = [-math.floor(math.log10(error)) for error in errors if math.isfinite(error) and error > 0]
    return min(max(min(max(found), int(np.median(found)) + 2), 0), 8) if found else None


def _mean(mean: float, error: float, digits: int | None) -> str:
    if not math.isfinite(mean) or digits is None:
        return _number(mean)
    return f"{mean:.{digits}f} ± {error:.{digits}f}" if math.isfinite(error) else f"{mean:.{digits}f}"


def _ends(lower: float, upper: float, digits: int | None) -> str:
    if digits is None or not (math.isfinite(lower) and math.isfinite(upper)):
        return _NOTHING
    return f"{lower:.{digits}f} to {upper:.{digits}f}"


def _share(value: float) -> str:
    return _fixed(100 * value, ".1f") + (" %" if math.isfinite(value) else "")


def _of(some: int, every: int) -> str:
    return f"all {every}" if some == every > 1 else f"{some} of {every}"


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return html.said(value)
