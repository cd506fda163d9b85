"""The page of the tables of an article: the verdicts, and each table with what is claimed next to what was measured."""

from collections import Counter
from typing import Any

from weightdecay.apps import claims
from weightdecay.core import html, text
from weightdecay.results.report import cells, figures
from weightdecay.results.report.content import Section
from weightdecay.results.report.page import render


def page(article: Any) -> str:
    """Render the page.

    Args:
      article: A `weightdecay.apps.article.Article`.

    Returns:
      HTML that loads nothing from elsewhere.
    """
    counts = Counter(table.verdict for table in article.tables.values())
    total = len(article.tables)
    sentence = (
        f"{counts[claims.CONFIRMED]} of {total} claims are confirmed, {counts[claims.NOT_CONFIRMED]} are not, and "
        f"{counts[claims.DEPENDS]} depend on the setting."
    )
    members = sum(len(result) for result in article.results.values())
    verdicts = {
        "table": list(article.tables),
        "title": [table.title for table in article.tables.values()],
        "verdict": [table.verdict for table in article.tables.values()],
        "checks that hold": [
            cells.some_of(sum(check.outcome == "holds" for check in table.checks), len(table.checks))
            for table in article.tables.values()
        ],
        "claim": [table.claim for table in article.tables.values()],
    }
    drawn: list[figures.Drawn] = []
    for number, (name, result) in enumerate(article.results.items()):
        drawn.append(
            (
                f"path-{number}",
                f"Validation loss against the coefficient, {name}",
                "What all tables of this setting were chosen from.",
                f"Line plot of the validation loss against the coefficient in the setting {name}, one line per rule.",
                lambda ax, result=result: result.plot_path(ax=ax),
            )
        )
    return render(
        kind="The claims of an article, measured",
        lead="Verdicts",
        sentence=sentence,
        size=f"{text.counted(total, 'table')}, {text.counted(members, 'member')} trained",
        cards=[
            ("Confirmed", str(counts[claims.CONFIRMED]), "every check holds, in every setting"),
            ("Not confirmed", str(counts[claims.NOT_CONFIRMED]), "every check fails"),
            ("Depends", str(counts[claims.DEPENDS]), "some checks hold, and some fail"),
            ("Time", text.duration(article.seconds), ""),
        ],
        notices=[],
        illustrations=figures.illustrations(drawn),
        before=[
            Section(
                "verdicts",
                "All verdicts",
                cells.long_table(verdicts, ["table", "title", "verdict", "claim"], {}, "tables"),
            ),
            *(
                Section(f"table-{number}", f"Table {number}. {table.title}", _table(table))
                for number, table in article.tables.items()
            ),
        ],
        after=[
            Section("protocol", "Protocol", "\n".join(map(html.paragraph, article.protocol.sentences()))),
            Section("rules", "Rules of the verdicts", "\n".join(map(html.paragraph, claims.RULES))),
        ],
    )


def _table(table: Any) -> str:
    """Return one table with its claim, its verdict and its checks."""
    head, *rows = table.cells()
    columns = {name: [row[index] for row in rows] for index, name in enumerate(head)}
    parts = [
        html.paragraph(f"Claimed: {table.claim}"),
        cells.scrolled(html.table(columns, text_columns=head[:2])),
        html.paragraph(f"{table.verdict.capitalize()}. {table.reason}"),
        html.folded("The checks", "\n".join(html.paragraph(str(check)) for check in table.checks)),
    ]
    return "\n".join([*parts, *([html.paragraph(table.note)] if table.note else [])])
