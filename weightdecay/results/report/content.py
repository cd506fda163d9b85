"""The content of a report: the decision, notices, and one section per subject."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from weightdecay.core import html, metrics, text, tree
from weightdecay.results import held_out
from weightdecay.results.candidates import Candidate
from weightdecay.results.report import cells, figures
from weightdecay.results.selected import Selected
from weightdecay.search import grid as grids

_LEAST_NEEDED = ("weight norm", "gap", "95 % interval", "validation accuracy", "zeros")
"""Columns of the candidates that are left out first where there are many hyperparameters."""


class Notice(NamedTuple):
    """A remark that is shown directly below the decision."""

    kind: str  # "warning" or "note"
    title: str
    text: str


class Section(NamedTuple):
    """A part of the page with its own heading."""

    name: str
    title: str
    body: str


class Report:
    """The content of the page of a result."""

    def __init__(self, result: Any, metric: str, test: Mapping[str, Any] | None) -> None:
        """Take the result, the metric of the choice and the test scores."""
        self.result, self.metric, self.test = result, metric, test
        self.settings: Mapping[str, Any] = result.settings
        self.candidates: list[Candidate] = result.candidates(metric)
        self.rows: list[dict[Any, Any]] = result.table(interval="t").to_dict("records")
        self.chosen: Selected | None = None
        self.no_choice = ""
        try:
            self.chosen = result.best(metric=metric, optimism=True)
        except ValueError as error:
            self.no_choice = str(error)
            if "unfinished" in self.settings:
                self.no_choice = "no candidate with a finite value is trained with all its seeds yet."
        self.without_decay: Selected | None = result.no_decay(metric=metric)
        self.differences: list[dict[Any, Any]] = []
        if self.without_decay is not None:
            self.differences = result.differences(self.without_decay.number, metric=metric).to_dict("records")
        self.has_diverged = result.dataset["diverged_at"].values >= 0
        self.has_accuracy = any(math.isfinite(row["validation_accuracy"]) for row in self.rows)
        self.metric_name = metric.replace("_", " ")
        self.unfinished: Mapping[str, int] | None = self.settings.get("unfinished")

    def parts(self) -> dict[str, Any]:
        """Return the values of the template by name."""
        return {
            "sentence": f"No choice: {self.no_choice}" if self.chosen is None else self.chosen.sentence,
            "size": self._size(),
            "cards": self._cards(),
            "notices": self._notices(),
            "illustrations": [] if self.chosen is None else figures.of(self.result, self.metric, self.chosen),
            "before": [
                Section("choice", "Choice", self._choice()),
                Section("candidates", "Candidates", self._candidates()),
            ],
            "after": self.of_run(),
        }

    def of_run(self) -> list[Section]:
        """Return the sections on how the grid was run, which pages of other kinds have too."""
        return [
            Section("grid", "Grid", self._grid()),
            Section("data", "Data", self._data()),
            Section("model", "Model", self._model()),
            Section("settings", "Settings", self._settings()),
            Section("plan", "Plan", self._plan()),
            Section("seeds", "Seeds", self._seeds()),
            Section("versions", "Versions", self._versions()),
            Section("failures", "Failures", self._failures()),
        ]

    def _size(self) -> str:
        candidates, members = len(self.candidates), len(self.result)
        steps = int(self.result.dataset["step"].values[-1])
        size = f"{text.counted(candidates, 'candidate')}, {text.counted(members, 'member')}, {steps:,} training steps"
        return size if self.unfinished is None else f"{size} so far, of {self.unfinished['num_steps']:,}"

    def _cards(self) -> list[tuple[str, str, str]]:
        """Return the decision in numbers: title, value and remark of each card."""
        if self.chosen is None:
            return [("Chosen", "none", ""), self._test_card()]
        others = ", ".join(f"{name.replace('_', ' ')} {html.cell(v)}" for name, v in self.chosen.others.items())
        count = len(self.chosen.members)
        remark = "one replicate: no standard error" if count == 1 else f"mean ± standard error of {count} replicates"
        estimate = text.estimate(self.chosen.mean, self.chosen.standard_error)
        decay = "no decay" if self.chosen.is_without_decay else str(self.chosen.decay)
        cards = [("Chosen", decay, others), (self.metric_name.capitalize(), estimate, remark)]
        title, difference = "Minus no decay", self.chosen.difference
        if self.chosen.is_without_decay:
            title, difference = "Best with decay, minus no decay", self.chosen.difference_with_decay
        if difference is not None:
            interval = cells.interval(difference.lower, difference.upper, difference.standard_error)
            remark = f"{100 * self.chosen.confidence:g} % interval {interval}"
            if interval == text.NOTHING:
                remark = "one replicate"
            cards.append((title, str(difference), remark))
        return [*cards, self._test_card()]

    def _test_card(self) -> tuple[str, str, str]:
        if self.test is None:
            return ("Test set", "not looked at yet", "result.test() does it, once")
        recorded = self.test["scores"]["chosen"][0]
        for name in (*(name for name in metrics.names("derived") if name in recorded), "accuracy", "loss"):
            estimates = {
                role: text.estimate(*held_out.averaged(scores, name)) for role, scores in self.test["scores"].items()
            }
            if any(estimate != "nan" for estimate in estimates.values()):
                break
        else:
            return ("Test set", "not finite", "")
        number = self.test["candidates"]["chosen"]
        remarks = ["looked at once"]
        if self.chosen is None or number != self.chosen.number:
            remarks.append(f"of candidate {number}, {self.candidates[number].decay}, which was chosen at that time")
        if "no decay" in estimates and not self.candidates[number].is_without_decay:
            remarks.append(f"no decay {estimates['no decay']}")
        return (f"Test {name.replace('_', ' ')}", estimates["chosen"], "; ".join(remarks))

    def _notices(self) -> list[Notice]:
        notices = []
        if self.unfinished is not None:
            message = (
                f"{self.unfinished['done']:,} of {self.unfinished['members']:,} members are done, and "
                f"{self.unfinished['saved']:,} are saved. Candidates are compared at step {self.unfinished['step']:,} "
                f"of {self.unfinished['num_steps']:,}, which at least half of those that are saved have reached with "
                "all their seeds; the others are shown without numbers. The choice may change."
            )
            notices.append(Notice("warning", "The run is not finished", message))
        elif self.settings.get("interrupted"):
            message = "Numbers are missing. Call wd.fit_grid again with the same directory to resume the run."
            notices.append(Notice("warning", "The run was interrupted", message))
        if self.chosen is not None and self.chosen.advice:
            notices.append(Notice("warning", "The best candidate is at the edge of the grid", self.chosen.advice))
        if self.has_diverged.any():
            members = cells.some_of(int(self.has_diverged.sum()), len(self.result)).capitalize()
            message = f"{members} members diverged. They are never chosen; see Failures."
            notices.append(Notice("warning", "Divergence", message))
        if self.chosen is not None and len(self.chosen.members) == 1:
            message = "One seed cannot tell whether a difference is luck; three or more can: seed=range(3)."
            notices.append(Notice("warning", "One seed only", message))
        optimism = None if self.chosen is None else self.chosen.optimism
        if optimism is not None and not math.isnan(optimism.mean):
            message = (
                f"The best of a grid looks better than it is: here by {text.estimate(*optimism)} in "
                f"{self.metric_name}, by re-splitting the replicates. The test set is not used for this."
            )
            notices.append(Notice("note", "Luck of the choice", message))
        return notices

    def _choice(self) -> str:
        if self.chosen is None:
            return html.paragraph("No candidate can be chosen.")
        choices: dict[str, Selected] = {"best mean": self.chosen}
        if math.isnan(self.chosen.standard_error):
            remarks = ["One replicate has no standard error, so that the one-standard-error rules cannot be used."]
        else:
            best = functools.partial(self.result.best, metric=self.metric)
            choices["one standard error"] = best("one_standard_error")
            choices["one standard error, paired"] = best("one_standard_error_paired")
            remarks = [
                "One standard error: the most decayed candidate whose mean is within one standard error of the best, "
                "or (paired) whose difference to the best is within one standard error, replicate by replicate."
            ]
        if self.without_decay is None:
            has_any = any(candidate.is_without_decay for candidate in self.candidates)
            reason = "No candidate without decay has a finite value" if has_any else "The grid has none without decay"
            remarks.append(f"{reason}, so that it is unknown whether decay helps.")
        else:
            choices["no decay"] = self.without_decay
            remarks.append(
                "Differences are candidate minus no decay, replicate by replicate: members of one seed start from the "
                "same weights and train on the same batches, so that the luck that both share cancels."
            )
        numbers = [choice.number for choice in choices.values()]
        columns = {"by": list(choices), **self._columns(numbers, is_choice=True)}
        classes = {index: "none" for index, choice in enumerate(choices.values()) if choice.is_without_decay}
        table = html.table(columns, text_columns=["by", "decay"], row_classes={**classes, 0: "chosen"})
        return "\n".join([cells.scrolled(table), *map(html.paragraph, remarks)])

    def _candidates(self) -> str:
        sign = 1 if self.result.lower_is_better(self.metric) else -1
        means = {candidate.number: sign * candidate.mean for candidate in self.candidates}
        order = sorted(means, key=lambda number: means[number] if math.isfinite(means[number]) else math.inf)
        classes = {} if self.without_decay is None else {self.without_decay.number: "none"}
        classes |= {} if self.chosen is None else {self.chosen.number: "chosen"}
        roles = {"chosen": "chosen", "none": "no decay"}
        columns = {
            "role": [roles.get(classes.get(number, ""), "") for number in order],
            **self._columns(order, is_choice=False),
        }
        remark = (
            f"Sorted by {self.metric_name}, the best first; means ± standard errors over replicates, intervals by "
            "Student's t."
        )
        if len(self.candidates[0].members) == 1:
            remark = f"Sorted by {self.metric_name}, the best first; one replicate each."
        common = {
            name: values[0]
            for name, values in self._others(order).items()
            if len(order) > 1 and len(set(values)) == 1 and values[0] != ""
        }
        if common:
            remark += f" All have {', '.join(f'{name} {value}' for name, value in common.items())}."
        if "time scale" in columns:
            remark += " Time scale: number of epochs over which decay forgets updates."
        row_classes = {row: classes[number] for row, number in enumerate(order) if number in classes}
        left_out = cells.narrowed(columns, _LEAST_NEEDED)
        if left_out:
            remark += f" Left out for the width of the page, and in result.table(): {', '.join(left_out)}."
        table = cells.long_table(columns, ["role", "decay"], row_classes, "candidates")
        return f"{html.paragraph(remark)}\n{table}"

    def _others(self, numbers: Sequence[int]) -> dict[str, list[str]]:
        """Return the cells of candidates for each hyperparameter other than the rule."""
        names = dict.fromkeys(name for candidate in self.candidates for name in candidate.others)
        others = [self.candidates[number].others for number in numbers]
        return {
            name.replace("_", " "): [html.cell(values[name]) if name in values else "" for values in others]
            for name in names
        }

    def _columns(self, numbers: Sequence[int], *, is_choice: bool) -> dict[str, list[str]]:
        """Return the cells of candidates by the title of their column.

        Args:
          numbers: Numbers of the candidates, in the order of the rows.
          is_choice: Whether it is the table of choices, which has every axis and the interval of each difference; the
            table of all candidates has the axes that vary and the interval of the metric.
        """
        rows, all_others = [self.rows[number] for number in numbers], self._others(range(len(self.candidates)))
        columns: dict[str, list[str]] = {
            "candidate": [str(number) for number in numbers],
            "decay": [str(self.candidates[number].decay) for number in numbers],
        }
        for name, others in self._others(numbers).items():
            if is_choice or len(set(all_others[name])) > 1:
                columns[name] = others
        has_error = any(math.isfinite(candidate.standard_error) for candidate in self.candidates)
        derived = metrics.derived_of("validation", rows[0])
        for name in dict.fromkeys((self.metric, "validation_loss", *derived, "validation_accuracy")):
            if name == "validation_accuracy" and not self.has_accuracy:
                continue
            error, lower, upper = (f"{name}_{end}" for end in ("standard_error", "lower", "upper"))
            columns[name.replace("_", " ")] = [cells.mean(row[name], row[error]) for row in rows]
            if name == self.metric and has_error and not is_choice:
                columns["95 % interval"] = [cells.interval(row[lower], row[upper], row[error]) for row in rows]
        if self.differences:
            columns |= self._differences(numbers, with_interval=has_error and is_choice)
        columns["gap"] = [text.number(row["generalization_gap"], "+.4f") for row in rows]
        columns["weight norm"] = [text.number(row["weight_norm"], ".2f") for row in rows]
        if any(row["zero_fraction"] > 0 for row in rows):
            columns["zeros"] = [text.percent(row["zero_fraction"]) for row in rows]
        time_scales = self._time_scales(numbers)
        if any(time_scale != text.NOTHING for time_scale in time_scales):
            columns["time scale"] = time_scales
        if any(row["diverged"] for row in rows):
            columns["diverged"] = [cells.some_of(row["diverged"], row["seeds"]) for row in rows]
        return columns

    def _differences(self, numbers: Sequence[int], *, with_interval: bool) -> dict[str, list[str]]:
        """Return the columns of differences to no decay, without that of no decay to itself."""
        rows = [self.differences[number] for number in numbers]
        if self.without_decay is not None:
            nothing = dict.fromkeys(self.differences[0], math.nan)
            rows = [nothing if n == self.without_decay.number else row for n, row in zip(numbers, rows, strict=True)]
        columns = {"minus no decay": [cells.mean(row["difference"], row["standard_error"]) for row in rows]}
        if with_interval:
            columns["its 95 % interval"] = [
                cells.interval(row["lower"], row["upper"], row["standard_error"]) for row in rows
            ]
        return columns

    def _time_scales(self, numbers: Sequence[int]) -> list[str]:
        """Return the time scale of each candidate, in epochs."""
        if "time_scale_epochs" not in self.result.dataset:
            return [text.NOTHING] * len(numbers)
        last = self.result.dataset["time_scale_epochs"].values[:, -1].astype(float)
        return [text.number(last[list(self.candidates[number].members)].mean()) for number in numbers]

    def _grid(self) -> str:
        return cells.scrolled(html.axes(grids.of_members(self.result.members).axes))

    def _data(self) -> str:
        sizes = self.settings.get("examples") or {}
        if not sizes:
            return html.paragraph("The result does not say.")
        order = [name for name in ("train", "validation", "test") if name in sizes]
        facts = {
            {"train": "training examples"}.get(name, f"{name} examples"): f"{sizes[name]:,}"
            for name in [*order, *(name for name in sizes if name not in order)]
        }
        if "test" not in sizes:
            facts["test examples"] = "none"
        folds = self.settings.get("folds")
        facts["folds"] = "none: one split" if folds is None else f"{folds} of a cross-validation"
        return html.facts(facts)

    def _model(self) -> str:
        model = self.settings.get("model")
        code = [] if model is None else [html.code(model)]
        if self.unfinished is not None:
            return "\n".join([*code, html.paragraph("The weights are shown when the run is finished.")])
        member = 0 if self.chosen is None else self.chosen.members[0]
        named = [(name or "(array)", np.shape(leaf)) for name, leaf in tree.named_leaves(self.result.params(member))]
        sizes = [math.prod(shape) for _, shape in named]
        arrays = {"name": [name for name, _ in named], "shape": [shape for _, shape in named]}
        arrays["weights"] = [f"{size:,}" for size in sizes]  # pyright: ignore[reportArgumentType]
        facts = {"weights": f"{sum(sizes):,} in {len(sizes)} arrays"}
        for name, title, formatted in (
            ("decaying_fraction", "of these decay", text.percent),
            ("degrees_of_freedom", "degrees of freedom", text.number),
        ):
            if name in self.result.dataset and math.isfinite(value := float(self.result.dataset[name].values[member])):
                facts[title] = formatted(value)
        if "mask" in self.settings:
            facts["mask"] = str(self.settings["mask"])
        table = cells.scrolled(html.table(arrays, text_columns=["name", "shape"]))
        return "\n".join([*code, html.facts(facts), html.folded("Every array", table)])

    def _settings(self) -> str:
        elsewhere = (
            *("model", "mask", "examples", "folds", "plan"),
            *("backend", "seconds", "compiled_programs", "interrupted", "unfinished"),
        )
        facts = {name: value for name, value in self.settings.items() if name not in elsewhere}
        num_evaluations = self.result.dataset.sizes["step"]
        return html.facts({**_facts(facts), "evaluations": num_evaluations, "choice by": self.metric_name})

    def _plan(self) -> str:
        facts = {**(self.settings.get("plan") or {})}
        facts |= {name: self.settings[name] for name in ("backend", "compiled_programs") if name in self.settings}
        if searched := self.result.searched():
            facts["search"] = searched
        if "seconds" in self.settings:
            facts["time"] = f"{self.settings['seconds']:,.1f} s, compiling included"
        return html.facts(_facts(facts)) if facts else html.paragraph("The result does not say.")

    def _versions(self) -> str:
        return html.facts(self.result.versions)

    def _seeds(self) -> str:
        replicates = [replicate for candidate in self.candidates for replicate in candidate.values]
        seeds = list(dict.fromkeys(replicate.seed for replicate in replicates))
        folds = list(dict.fromkeys(replicate.fold for replicate in replicates))
        counts = sorted({len(candidate.members) for candidate in self.candidates})
        facts = {"seeds": html.listed(seeds)}
        if folds != [None]:
            facts["folds"] = html.listed(folds)
        facts["members per candidate"] = " to ".join(dict.fromkeys(map(str, (counts[0], counts[-1]))))
        remark = (
            "A seed determines a member's first weights, the order of its examples and everything else that is random "
            "in its training. Seeds and folds are replicates of a candidate, never candidates."
        )
        return f"{html.facts(facts)}\n{html.paragraph(remark)}"

    def _failures(self) -> str:
        parts = [self._ended("diverged_at", "diverged", "No member diverged.")]
        off = " Patience was off." if self.settings.get("patience") is None else ""
        parts.append(self._ended("stopped_at", "stopped early", f"No member stopped early.{off}"))
        last = self.result.dataset["train_loss"].values[:, -1]
        missing = int((~np.isfinite(last) & ~self.has_diverged).sum())
        remark = "The run was not interrupted."
        if self.unfinished is not None:
            remark = f"The run is not finished: {self.unfinished['done']} of {len(self.result)} members are done."
        elif self.settings.get("interrupted"):
            members = cells.some_of(missing, len(self.result))
            remark = f"The run was interrupted: {members} members did not reach the last step."
        return "\n".join([*parts, html.paragraph(remark)])

    def _ended(self, variable: str, verb: str, otherwise: str) -> str:
        """Return the table of candidates with members that ended before the last step; without any, a sentence."""
        if variable not in self.result.dataset:
            return html.paragraph(otherwise)
        steps = self.result.dataset[variable].values
        affected = [candidate for candidate in self.candidates if (steps[list(candidate.members)] >= 0).any()]
        if not affected:
            return html.paragraph(otherwise)
        ended = [
            {key: int(steps[m]) for key, m in zip(one.values, one.members, strict=True) if steps[m] >= 0}
            for one in affected
        ]
        columns = {
            "candidate": [str(candidate.number) for candidate in affected],
            "decay": [str(candidate.decay) for candidate in affected],
            **self._others([candidate.number for candidate in affected]),
            "members": [
                cells.some_of(len(ends), len(candidate.members))
                for ends, candidate in zip(ended, affected, strict=True)
            ],
            "seeds": [html.listed(list(dict.fromkeys(replicate.seed for replicate in ends))) for ends in ended],
            "at step": [html.listed(list(ends.values())) for ends in ended],
        }
        members = cells.some_of(int((steps >= 0).sum()), len(self.result)).capitalize()
        remark = f"{members} members {verb}, of {text.counted(len(affected), 'candidate')}."
        table = cells.long_table(columns, ["decay", "seeds", "at step"], {}, "candidates")
        return f"{html.paragraph(remark)}\n{table}"


def _facts(values: Mapping[str, Any]) -> dict[str, str]:
    """Format settings for a table of facts."""
    return {name.replace("_", " "): cells.setting(value) for name, value in values.items()}
