"""The page of a comparison: the ranking of the methods, what each of them chose, and how all were trained."""

from typing import Any

import numpy as np

from weightdecay.core import html, text
from weightdecay.results.report import cells, figures
from weightdecay.results.report.content import Notice, Report, Section
from weightdecay.results.report.page import render


def page(comparison: Any) -> str:
    """Render the page.

    Args:
      comparison: A `weightdecay.apps.comparison.Comparison`.

    Returns:
      HTML that loads nothing from elsewhere; the same for the same comparison.
    """
    table, score = comparison.table(), comparison.scored_by
    report = Report(comparison.result, comparison.metric, None)
    seeds = len(next(iter(comparison.chosen.values())).members)
    trials = sum(map(len, comparison.trials.values()))
    size = (
        f"{text.counted(len(comparison.trials), 'method')}, {text.counted(trials, 'trial')}, "
        f"{text.counted(seeds, 'seed')} each"
    )
    name = score.replace("_", " ")
    drawn: list[figures.Drawn] = [
        (
            "ranking",
            "Ranking on the test examples",
            "The bar of a method is the standard error of its difference to the best. A method whose difference is "
            "within noise may be as good as the best.",
            f"Plot of the {name} of {len(table)} methods with error bars, the best at the top: {table.index[0]}.",
            lambda ax: comparison.plot(ax=ax),
        ),
        (
            "trials",
            "All trials on the validation examples",
            "Each point is a trial of a method. A method whose trials lie far apart needs more of them.",
            f"Plot of the {comparison.metric.replace('_', ' ')} of every trial, one row per method.",
            lambda ax: _plot_trials(comparison, ax),
        ),
    ]
    return render(
        kind="Comparison of regularizers",
        lead="Conclusion",
        sentence=comparison.sentence,
        size=size,
        cards=_cards(comparison, table, score),
        notices=_notices(comparison, seeds),
        illustrations=figures.illustrations(drawn),
        before=[Section("ranking", "Ranking", _ranking(comparison, table, score))],
        after=report.of_run(),
    )


def _cards(comparison: Any, table: Any, score: str) -> list[tuple[str, str, str]]:
    best = comparison.ranking[0]
    first = table.loc[best]
    estimate = text.estimate(first[score], first[f"{score}_standard_error"])
    cards = [
        ("Best method", best, str(first["hyperparameters"])),
        (score.replace("_", " ").capitalize(), estimate, "mean ± standard error over seeds and test examples"),
    ]
    if len(table) > 1:
        second = table.iloc[1]
        behind = text.estimate(second["behind"], second["behind_standard_error"])
        p_value = second["p_value"]
        remark = "" if np.isnan(p_value) else f"p {p_value:.2g}, corrected for the number of methods"
        cards.append((f"{comparison.ranking[1]} is behind by", behind, remark))
    within = int(table["within_noise"].iloc[1:].sum())
    cards.append(("Within noise of the best", cells.some_of(within, len(table) - 1) if len(table) > 1 else "none", ""))
    return cards


def _notices(comparison: Any, seeds: int) -> list[Notice]:
    notices = []
    lost = [name for name in comparison.trials if name not in comparison.chosen]
    if lost:
        notices.append(Notice("warning", "Divergence", f"All trials diverged: {', '.join(lost)}."))
    if seeds == 1:
        message = "One seed cannot tell whether a difference is luck; three or more can: seeds=range(3)."
        notices.append(Notice("warning", "One seed only", message))
    return notices


def _ranking(comparison: Any, table: Any, score: str) -> str:
    rows = table.to_dict("index")
    metric = comparison.metric
    columns = {
        "method": list(map(str, rows)),
        score.replace("_", " "): [cells.mean(row[score], row[f"{score}_standard_error"]) for row in rows.values()],
        "behind the best": [
            text.NOTHING if name == comparison.ranking[0] else cells.mean(row["behind"], row["behind_standard_error"])
            for name, row in rows.items()
        ],
        "p": [
            text.NOTHING if name == comparison.ranking[0] else text.number(row["p_value"], ".2g")
            for name, row in rows.items()
        ],
        "within noise": [
            text.NOTHING if name == comparison.ranking[0] else "yes" if row["within_noise"] else "no"
            for name, row in rows.items()
        ],
        metric.replace("_", " "): [cells.mean(row[metric], row[f"{metric}_standard_error"]) for row in rows.values()],
        "zeros": [text.percent(row["zero_fraction"]) for row in rows.values()],
        "trials": [str(row["trials"]) for row in rows.values()],
        "chosen": [str(row["hyperparameters"]) or "no decay" for row in rows.values()],
    }
    classes = {0: "chosen"} | {
        index: "none" for index, name in enumerate(rows) if index and name == "no regularization"
    }
    remark = (
        "Each method had the same number of trials, and validation data chose among them. Differences are paired by "
        "seed and by test example; p is corrected for the number of methods (Holm)."
    )
    return f"{html.paragraph(remark)}\n{cells.long_table(columns, ['method', 'chosen'], classes, 'methods')}"


def _plot_trials(comparison: Any, ax: Any) -> Any:
    from weightdecay.plots.trials import trials

    candidates = comparison.result.candidates(comparison.metric)
    values = {
        name: [candidates[number].mean for number in comparison.trials[name]]
        for name in [*comparison.ranking, *(name for name in comparison.trials if name not in comparison.chosen)]
    }
    chosen = {name: choice.mean for name, choice in comparison.chosen.items()}
    return trials(values, chosen, comparison.metric, loss=comparison.result.settings.get("loss"), ax=ax)
