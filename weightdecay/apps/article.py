"""Every table of a popular article on weight decay, made from real data: ``weightdecay article``.

`weightdecay.apps.article_protocol` fixes what is trained and how claims are judged, `run` trains it, and
`weightdecay.apps.article_tables` holds the tables.
"""

import json
import os
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from weightdecay.apps import article_page, article_tables, step_times
from weightdecay.apps.article_protocol import RANGES, Protocol, epoch_steps
from weightdecay.apps.article_settings import DECOUPLED, NONE, NORMALIZED, SHRINKING, Setting, Trained
from weightdecay.apps.article_tables import ArticleTable
from weightdecay.apps.comparison import Comparison
from weightdecay.core import files
from weightdecay.core.checks import ArgumentError
from weightdecay.core.types import Integer, Scalar
from weightdecay.data import Data
from weightdecay.decay import Independent, NoDecay, masks
from weightdecay.engine import fit
from weightdecay.engine.plans import Plan
from weightdecay.results.grid_result import GridResult
from weightdecay.storage import result_folder

_FILE = "article.json"  # by which an earlier article is recognized
_FORMAT = "weightdecay article 1"
_FOLDERS = ("all", "few")  # of the results, in the order of the settings


@dataclass(frozen=True)
class Article:
    """The article's tables from real data.

    Attributes:
      protocol: What was trained, how choices were made and how claims were judged.
      tables: Tables by the article's numbers: ``"A"``, ``"B"``, ``"1"`` to ``"10"``.
      settings: What was trained, by name of the setting; ``.comparison.result`` is the result of the grid.
      seconds: Time that training and the tables took.
    """

    protocol: Protocol
    tables: dict[str, ArticleTable]
    settings: dict[str, Setting]
    seconds: float

    @property
    def results(self) -> dict[str, GridResult]:
        """Results of the grids, by name of the setting."""
        return {name: setting.comparison.result for name, setting in self.settings.items()}

    def summary(self) -> str:
        """Return one line per table: its number, its title and the verdict."""
        titles = {number: f"Table {number}. {table.title}" for number, table in self.tables.items()}
        width = max(map(len, titles.values()))
        return "\n".join(f"{title:<{width}}  {self.tables[number].verdict}" for number, title in titles.items())

    def tables_and_summary(self) -> str:
        """Return the tables and the summary, without the protocol."""
        tables = [f"Table {number}. {table.title}\n{table}" for number, table in self.tables.items()]
        return "\n\n".join([*tables, self.summary()])

    def __str__(self) -> str:
        """Return the protocol, the tables and the summary."""
        return f"{self.protocol}\n\n{self.tables_and_summary()}"

    def to_markdown(self) -> str:
        """Return the protocol, the verdicts and the tables in Markdown."""
        parts = ["# The claims of a popular article on weight decay, measured", "## Protocol"]
        parts.append("\n".join(f"- {sentence}" for sentence in self.protocol.sentences()))
        parts += ["## Verdicts", "| table | | verdict |\n| --- | --- | --- |"]
        parts[-1] += "".join(
            f"\n| {number} | {table.title} | {table.verdict} |" for number, table in self.tables.items()
        )
        parts += [f"## Table {number}. {table.title}\n\n{table.to_markdown()}" for number, table in self.tables.items()]
        return "\n\n".join(parts) + "\n"

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the tables and the results of the grids.

        Args:
          folder: A new or an empty folder. It gets ``article.md``, ``article.html``, ``article.json``, for each table
            ``table-1-claimed.csv`` and ``table-1-measured.csv``, and the results in ``all`` and ``few``, which
            `weightdecay.load` reads.
          overwrite: Whether an earlier article in the folder may be replaced.

        Returns:
          The folder.

        Raises:
          FileExistsError: The folder holds other files, or an earlier article without ``overwrite``.
          NotADirectoryError: The folder is a file.
        """
        path = check_folder(folder, overwrite=overwrite)
        path.mkdir(parents=True, exist_ok=True)
        for name in _FOLDERS:
            shutil.rmtree(path / name, ignore_errors=True)
        for name, result in zip(_FOLDERS, self.results.values(), strict=True):
            result.save(path / name)
        content = {
            "format": _FORMAT,
            "protocol": self.protocol.sentences(),
            "tables": {
                number: {
                    "title": table.title,
                    "claim": table.claim,
                    "verdict": table.verdict,
                    "reason": table.reason,
                    "checks": [str(check) for check in table.checks],
                    "note": table.note,
                }
                for number, table in self.tables.items()
            },
        }
        _write(path / _FILE, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        for number, table in self.tables.items():
            table.claimed.to_csv(path / f"table-{number}-claimed.csv")
            table.measured.to_csv(path / f"table-{number}-measured.csv")
        _write(path / "article.md", self.to_markdown())
        _write(path / "article.html", article_page.page(self))
        return path


def tables(
    data: Data | None = None,
    *,
    hidden: Any = (64, 64),
    seeds: Integer = 5,
    num_steps: Integer = 2000,
    batch_size: Integer = 32,
    learning_rate: Scalar = 1e-3,
    plan: Plan | None = None,
    progress: bool = True,
) -> Article:
    """Make every table of a popular article on weight decay from real data, next to the figures that it claims.

    Args:
      data: Training, validation and test examples, of classes or of a regression; None = `wd.data.digits()`.
      hidden: Widths of the hidden layers of the multilayer perceptron.
      seeds: Number of replicates of each candidate, at least 2.
      num_steps: Training steps of each member, at least four epochs.
      batch_size: Examples per training step.
      learning_rate: Learning rate of Adam, > 0.
      plan: Lane width and devices; None = chosen for the model and the backend.
      progress: Whether to show a progress bar for each setting.

    Returns:
      The tables; print them.

    Raises:
      TypeError: An argument of a wrong type.
      ValueError: Data or numbers that cannot be used; see `weightdecay.apps.article_protocol.Protocol.of`.
    """
    protocol = Protocol.of(
        data,
        hidden=hidden,
        seeds=seeds,
        num_steps=num_steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
    )
    return run(protocol, plan=plan, progress=progress)


def run(protocol: Protocol, *, plan: Plan | None = None, progress: bool = True) -> Article:
    """Train all candidates in every setting, and make the tables.

    Args:
      protocol: What to train.
      plan: Lane width and devices; None = chosen for the model and the backend.
      progress: Whether to show a progress bar for each setting.

    Returns:
      The tables.

    Raises:
      ArgumentError: All candidates of a method diverged.
    """
    started = time.perf_counter()
    settings = {name: _train(protocol, name, plan, progress=progress) for name in protocol.settings}
    first = next(iter(settings.values()))
    times = {
        method: step_times.parts_of_a_step(
            protocol.model,
            first.data,
            decay=first.choice(method).decay,
            learning_rate=protocol.learning_rate,
            batch_size=protocol.batch_size,
        )
        for method in (NONE, DECOUPLED)
    }
    trained = Trained(tuple(settings.values()), times)
    made = {name: make(trained) for name, make in article_tables.TABLES.items()}
    if not protocol.has_classes:
        made = {name: _with_note_on_classes(table) for name, table in made.items()}
    return Article(protocol, made, settings, time.perf_counter() - started)


def check_folder(path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Validate a folder for an article before any work is done.

    Args:
      path: The folder; it may be missing or empty.
      overwrite: Whether an earlier article may be replaced.

    Returns:
      The path.

    Raises:
      FileExistsError: The folder holds other files, or an earlier article without ``overwrite``.
      NotADirectoryError: The folder is a file.
      PermissionError: The folder cannot be written.
    """
    folder = Path(path)
    if not _is_article(folder):
        return result_folder.check_folder(folder)
    if not overwrite:
        raise FileExistsError(
            f"folder {folder} holds an earlier article; nothing was changed. Give another folder, or overwrite it "
            "(overwrite=True; --overwrite on the command line)."
        )
    return folder


def _train(protocol: Protocol, name: str, plan: Plan | None, *, progress: bool) -> Setting:
    """Train all candidates in one setting."""
    examples = protocol.settings[name]
    num_examples = len(examples.train[0])
    epoch = epoch_steps(num_examples, protocol.batch_size)
    result = fit.fit_grid(
        protocol.model,
        examples,
        protocol.grid(num_examples),
        num_steps=protocol.num_steps,
        batch_size=protocol.batch_size,
        eval_every=epoch,
        mask=masks.kernels,
        plan=plan,
        progress=progress,
    )
    methods = {kind: method for method, (kind, _, _) in RANGES.items()}
    methods |= {NoDecay: NONE, Independent: SHRINKING}
    trials: dict[str, list[int]] = {}
    members: dict[str, tuple[int, ...]] = {}
    for candidate in result.candidates(protocol.metric):
        is_normalized = "normalization" in candidate.hyperparameters
        method = NORMALIZED if is_normalized else methods[type(candidate.decay)]
        trials.setdefault(method, []).append(candidate.number)
        members[method] = candidate.members
    del trials[SHRINKING]
    comparison = Comparison.of(result, examples, trials, metric=protocol.metric)
    lost = [method for method in trials if method not in comparison.chosen]
    if lost:
        raise ArgumentError(
            "learning_rate",
            f"learning_rate is {protocol.learning_rate:g}, and all candidates of {', '.join(lost)} diverged in {name}; "
            "give a lower one.",
        )
    return Setting(name, examples, comparison, members[SHRINKING], epoch)


def _with_note_on_classes(table: ArticleTable) -> ArticleTable:
    """Add a note to a table where the article's figures are accuracies, but the targets are real numbers."""
    if not any("accuracy" in name for name in (*table.claimed.columns, table.title, table.claim)):
        return table
    note = "The article's figures are accuracies in %; these targets are not classes, and the table has R² instead."
    return replace(table, note=f"{table.note} {note}".strip())


def _is_article(folder: Path) -> bool:
    try:
        content = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and str(content.get("format", "")).startswith(_FORMAT.rsplit(" ", 1)[0])


def _write(path: Path, text: str) -> None:
    with files.atomic(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
