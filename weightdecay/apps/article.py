"""Every table of a popular article on weight decay, made from real data: ``weightdecay article``.

`Protocol` fixes what is trained, chosen and judged before anything is trained; `tables` runs it. Nothing is tuned until
it agrees with the article. What each table holds is in `weightdecay.apps.article_tables`.
"""

import json
import math
import os
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from weightdecay import data, models
from weightdecay.apps import article_tables, claims, step_times
from weightdecay.apps.article_tables import (
    DECOUPLED,
    L1,
    L2,
    NONE,
    NORMALIZED,
    PROXIMAL,
    SHRINKING,
    ArticleTable,
    Setting,
)
from weightdecay.apps.comparison import Comparison
from weightdecay.core import tree
from weightdecay.core.types import Integer, Scalar
from weightdecay.data import Data
from weightdecay.decay import L1 as SubgradientL1
from weightdecay.decay import L2 as CoupledL2
from weightdecay.decay import Decoupled, Independent, NoDecay, ProximalL1, Rule, masks
from weightdecay.engine import fit
from weightdecay.engine.plans import Plan
from weightdecay.results.grid_result import GridResult
from weightdecay.search.grid import Grid, logspace
from weightdecay.storage import result_folder

FEW = 300
"""Training examples of the setting that is hard; half of them all, where there are fewer than twice as many."""

NOISE = 0.4
"""Share of its labels that are replaced by another class."""

_NUM_COEFFICIENTS = 11  # two a power of ten, so that 0.0001, 0.001 and 0.01 are among those of L2 and decoupled decay
_RANGES: dict[str, tuple[type[Rule], float, float]] = {
    DECOUPLED: (Decoupled, 1e-4, 1e1),
    L2: (CoupledL2, 1e-6, 1e-1),
    L1: (SubgradientL1, 1e-7, 1e-2),
    PROXIMAL: (ProximalL1, 1e-7, 1e-2),
}
_FILE = "article.json"  # by which an earlier article is known
_FORMAT = "weightdecay article 1"


@dataclass(frozen=True)
class Protocol:
    """What is trained, how choices are made and how claims are judged; settled before anything is trained.

    Attributes:
      settings: Examples by name: all training examples; and few of them, with false labels where there are classes.
      hidden: Widths of the hidden layers of the multilayer perceptron.
      seeds: Replicates of each candidate.
      num_steps: Training steps of each member.
      batch_size: Examples a step.
      learning_rate: Of Adam, the same for all.
    """

    settings: dict[str, Data]
    hidden: tuple[int, ...]
    seeds: int
    num_steps: int
    batch_size: int
    learning_rate: float

    @classmethod
    def of(
        cls,
        examples: Data | None = None,
        *,
        hidden: Any = (64, 64),
        seeds: Integer = 5,
        num_steps: Integer = 2000,
        batch_size: Integer = 32,
        learning_rate: Scalar = 1e-3,
    ) -> "Protocol":
        """Settle it.

        Args:
          examples: Training, validation and test examples, of classes or of a regression; None = `wd.data.digits()`.
          hidden: Widths of the hidden layers.
          seeds: Replicates of each candidate, at least 2.
          num_steps: Training steps of each member, at least four epochs.
          batch_size: Examples a step.
          learning_rate: Of Adam, > 0.

        Returns:
          The protocol; print it.

        Raises:
          TypeError: No data, or a number of another kind.
          ValueError: Data without test examples, with folds, weights of examples or several labels an example; or a
            number out of range.
        """
        examples = data.digits() if examples is None else examples
        data.check(examples, batch_size)
        if examples.num_folds is not None or examples.test is None:
            raise ValueError(
                "data has no validation and test examples of its own; give wd.data.digits(), wd.data.split(...) or "
                "wd.Data(train=..., validation=..., test=...)."
            )
        splits = examples.batches()
        train = splits["train"]
        if any(split.weights is not None for split in splits.values()):
            raise ValueError("data has weights of its examples, and the tables count all alike; leave them out.")
        classes = np.issubdtype(train.targets.dtype, np.integer)
        if classes and train.targets.ndim != 1:
            raise ValueError(
                f"data.train targets have shape {train.targets.shape}; give one class an example, or real numbers."
            )
        if isinstance(seeds, bool) or not isinstance(seeds, int | np.integer) or seeds < 2:
            raise ValueError(f"seeds is {seeds!r}; give at least 2, since one run has no standard error.")
        tree.check_number(learning_rate, "learning_rate", "finite number above 0", lambda value: 0 < value < math.inf)
        few = min(FEW, len(train.inputs) // 2)
        if batch_size > few:
            raise ValueError(
                f"batch_size is {batch_size}, but the setting with few examples has {few}; give 1 to {few}."
            )
        least = article_tables.EPOCHS[-1] * _epoch(len(train.inputs), int(batch_size))
        if isinstance(num_steps, bool) or not isinstance(num_steps, int | np.integer) or num_steps < least:
            raise ValueError(
                f"num_steps is {num_steps!r}; give a whole number of at least {least}, which is four epochs of "
                f"{len(train.inputs)} examples."
            )
        settings = {"all examples": examples, "few and noisy" if classes else "few examples": _few(examples, few)}
        return cls(settings, tuple(hidden), int(seeds), int(num_steps), int(batch_size), float(learning_rate))

    @property
    def has_classes(self) -> bool:
        """Whether the targets are classes."""
        return np.issubdtype(np.asarray(next(iter(self.settings.values())).train[1]).dtype, np.integer)

    def __str__(self) -> str:
        """Return the protocol in sentences, one a line."""
        return "\n".join(self.sentences())

    def sentences(self) -> list[str]:
        """Return what is trained, how choices are made, and the rules of the verdicts."""
        sizes = {name: len(one.train[0]) for name, one in self.settings.items()}
        (whole, num_all), (hard, num_few) = sizes.items()
        one = self.settings[whole]
        noise = f", {100 * NOISE:g} % of their labels replaced by another class" if self.has_classes else ""
        metric = self._metric.replace("_", " ")
        ranges = "; ".join(f"{name} from {low:g} to {high:g}" for name, (_, low, high) in _RANGES.items())
        epochs = ", ".join(f"{_epoch(num, self.batch_size)} in {name}" for name, num in sizes.items())
        lines = [
            f"Settings: {whole} ({num_all} training examples); {hard} ({num_few} of them{noise}). Both have the same "
            f"{len(one.validation[0])} validation and {len(one.test[0])} test examples.",
            f"Trained: a multilayer perceptron with hidden layers of {', '.join(map(str, self.hidden))}, by Adam at a "
            f"learning rate of {self.learning_rate:g}, {self.num_steps} steps of {self.batch_size} examples, "
            f"{self.seeds} seeds of each candidate.",
            f"Candidates: {NONE}; {_NUM_COEFFICIENTS} log-spaced coefficients of each of {ranges}; {NORMALIZED} "
            "without decay. Decay acts on the kernels of all layers.",
            f"Chosen: the coefficient of each method by the mean {metric}, never by the test examples, which then "
            "score the choice. With decay means decoupled decay, unless a table says otherwise.",
            f"An epoch is so many steps: {epochs}.",
            "Standard errors: of test scores, of seeds and test examples together; of all else, of seeds. Differences "
            "are paired by seed, and on the test examples by example as well.",
            *claims.RULES,
        ]
        if not self.has_classes:
            lines.append(
                "The targets are real numbers: where the article has an accuracy, R² in % stands, 1 - loss / variance "
                "of the targets, and figures are no more alike than those are. No labels can be falsified."
            )
        return lines

    def run(self, *, plan: Plan | None = None, progress: bool = True) -> "Article":
        """Train all candidates in every setting, and make the tables.

        Args:
          plan: Lanes and devices; None has them chosen for the model and the backend.
          progress: Whether to show a bar for each setting.

        Returns:
          The tables.

        Raises:
          ValueError: A method of which every candidate diverged.
        """
        started = time.perf_counter()
        trained = {name: self._train(name, plan, progress=progress) for name in self.settings}
        first = next(iter(trained.values()))
        times = {
            method: step_times.parts_of_a_step(
                self._model,
                first.data,
                decay=first.choice(method).decay,
                learning_rate=self.learning_rate,
                batch_size=self.batch_size,
            )
            for method in (NONE, DECOUPLED)
        }
        made = article_tables.Trained(tuple(trained.values()), times)
        tables = {name: make(made) for name, make in article_tables.TABLES.items()}
        if not self.has_classes:
            tables = {name: _without_classes(table) for name, table in tables.items()}
        return Article(self, tables, trained, time.perf_counter() - started)

    def grid(self, num_examples: int) -> Grid:
        """Return all candidates, replicated over the seeds.

        Args:
          num_examples: Training examples, from which the steps of an epoch follow.
        """
        rules: list[Rule] = [NoDecay()]
        for kind, low, high in _RANGES.values():
            rules += logspace(kind, low, high, _NUM_COEFFICIENTS)
        rules.append(Independent(1 - 0.8 ** (1 / _epoch(num_examples, self.batch_size))))
        common = {"learning_rate": self.learning_rate, "seed": range(self.seeds)}
        return Grid(decay=rules, **common) + Grid(decay=NoDecay(), normalization="batch", **common)

    @property
    def _model(self) -> models.MLP:
        return models.MLP(self.hidden)

    @property
    def _metric(self) -> str:
        return "validation_accuracy" if self.has_classes else "validation_loss"

    def _train(self, name: str, plan: Plan | None, *, progress: bool) -> Setting:
        examples = self.settings[name]
        num = len(examples.train[0])
        epoch = _epoch(num, self.batch_size)
        result = fit.fit_grid(
            self._model,
            examples,
            self.grid(num),
            num_steps=self.num_steps,
            batch_size=self.batch_size,
            eval_every=epoch,
            mask=masks.kernels,
            plan=plan,
            progress=progress,
        )
        kinds = {kind: method for method, (kind, _, _) in _RANGES.items()}
        kinds |= {NoDecay: NONE, Independent: SHRINKING}
        trials: dict[str, list[int]] = {}
        members: dict[str, tuple[int, ...]] = {}
        for one in result.candidates(self._metric):
            method = NORMALIZED if "normalization" in one.hyperparameters else kinds[type(one.decay)]
            trials.setdefault(method, []).append(one.number)
            members[method] = one.members
        del trials[SHRINKING]
        comparison = Comparison.of(result, examples, trials, metric=self._metric)
        lost = [method for method in trials if method not in comparison.chosen]
        if lost:
            raise ValueError(
                f"learning_rate is {self.learning_rate:g}, at which every candidate of {', '.join(lost)} diverged in "
                f"{name}; give a lower one."
            )
        return Setting(name, examples, comparison, members[SHRINKING], epoch)


@dataclass(frozen=True)
class Article:
    """The article's tables from real data.

    Attributes:
      protocol: What was trained, chosen and judged, and how.
      tables: By the article's numbers: ``"A"``, ``"B"``, ``"1"`` to ``"10"``.
      settings: What was trained, by name of the setting; ``.comparison.result`` is the grid.
      seconds: All of it took.
    """

    protocol: Protocol
    tables: dict[str, ArticleTable]
    settings: dict[str, Setting]
    seconds: float

    @property
    def results(self) -> dict[str, GridResult]:
        """Every trained candidate, by name of the setting."""
        return {name: setting.comparison.result for name, setting in self.settings.items()}

    def summary(self) -> str:
        """Return one line a table: its number, its title and the verdict."""
        titles = {number: f"Table {number}. {table.title}" for number, table in self.tables.items()}
        width = max(map(len, titles.values()))
        return "\n".join(f"{title:<{width}}  {self.tables[number].verdict}" for number, title in titles.items())

    def told(self) -> str:
        """Return the tables and the summary, without the protocol."""
        shown = [f"Table {number}. {table.title}\n{table}" for number, table in self.tables.items()]
        return "\n\n".join([*shown, self.summary()])

    def __str__(self) -> str:
        """Return the protocol, the tables and the summary."""
        return f"{self.protocol}\n\n{self.told()}"

    def to_markdown(self) -> str:
        """Return the same in Markdown."""
        parts = ["# The claims of a popular article on weight decay, measured", "## Protocol"]
        parts.append("\n".join(f"- {sentence}" for sentence in self.protocol.sentences()))
        parts += ["## Verdicts", "| table | | verdict |\n| --- | --- | --- |"]
        parts[-1] += "".join(
            f"\n| {number} | {table.title} | {table.verdict} |" for number, table in self.tables.items()
        )
        parts += [f"## Table {number}. {table.title}\n\n{table.to_markdown()}" for number, table in self.tables.items()]
        return "\n\n".join(parts) + "\n"

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the tables and all that was trained.

        Args:
          folder: A new or an empty one; ``article.md``, ``article.json``, for each table ``table-1-claimed.csv`` and
            ``table-1-measured.csv``, and the results in ``all`` and ``few``, which `weightdecay.load` reads.
          overwrite: Whether an earlier article there may be replaced.

        Returns:
          The folder.

        Raises:
          FileExistsError: It holds something else, or an earlier article without ``overwrite``.
          NotADirectoryError: It is a file.
        """
        path = check_folder(folder, overwrite=overwrite)
        path.mkdir(parents=True, exist_ok=True)
        for name in ("all", "few"):
            shutil.rmtree(path / name, ignore_errors=True)
        for name, result in zip(("all", "few"), self.results.values(), strict=True):
            result.save(path / name)
        verdicts_told = {
            number: {
                "title": table.title,
                "claim": table.claim,
                "verdict": table.verdict,
                "reason": table.reason,
                "checks": [str(check) for check in table.checks],
                "note": table.note,
            }
            for number, table in self.tables.items()
        }
        told = {"format": _FORMAT, "protocol": self.protocol.sentences(), "tables": verdicts_told}
        (path / _FILE).write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        for number, table in self.tables.items():
            table.claimed.to_csv(path / f"table-{number}-claimed.csv")
            table.measured.to_csv(path / f"table-{number}-measured.csv")
        (path / "article.md").write_text(self.to_markdown(), encoding="utf-8")
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
    """Make every table of a popular article on weight decay from real data, each beside what it claims.

    Args:
      data: Training, validation and test examples, of classes or of a regression; None = `wd.data.digits()`.
      hidden: Widths of the hidden layers of the multilayer perceptron.
      seeds: Replicates of each candidate, at least 2.
      num_steps: Training steps of each member, at least four epochs.
      batch_size: Examples a step.
      learning_rate: Of Adam, > 0.
      plan: Lanes and devices; None has them chosen for the model and the backend.
      progress: Whether to show a bar for each setting.

    Returns:
      The tables; print them.

    Raises:
      TypeError: No data, or a number of another kind.
      ValueError: Data or numbers that do not serve; see `Protocol.of`.
    """
    protocol = Protocol.of(
        data,
        hidden=hidden,
        seeds=seeds,
        num_steps=num_steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
    )
    return protocol.run(plan=plan, progress=progress)


def check_folder(path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Refuse a folder that an article cannot be written to, before any work is done for it.

    Args:
      path: The folder; it may be missing or empty.
      overwrite: Whether an earlier article may be replaced.

    Returns:
      The path.

    Raises:
      FileExistsError: It holds something else, or an earlier article without ``overwrite``.
      NotADirectoryError: It is a file.
      PermissionError: It cannot be written.
    """
    folder = Path(path)
    if not _is_article(folder):
        return result_folder.check_folder(folder)
    if not overwrite:
        raise FileExistsError(
            f"folder {folder} holds an earlier article; nothing was touched. Give another folder, or overwrite it "
            "(overwrite=True; --overwrite on the command line)."
        )
    return folder


def _is_article(folder: Path) -> bool:
    try:
        told = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(told, dict) and str(told.get("format", "")).startswith(_FORMAT.rsplit(" ", 1)[0])


def _epoch(num_examples: int, batch_size: int) -> int:
    """Steps in which every training example is seen once, to the nearest step."""
    return max(1, round(num_examples / batch_size))


def _few(examples: Data, num: int) -> Data:
    """Keep few training examples, classes in proportion, and falsify the labels of some of them, by a fixed seed."""
    inputs, targets = (np.asarray(values) for values in examples.train[:2])
    random = np.random.default_rng(0)
    order = random.permutation(len(targets))
    if not np.issubdtype(targets.dtype, np.integer):
        kept = np.sort(order[:num])
        return replace(examples, train=(inputs[kept], targets[kept]))
    place = np.empty(len(order))  # in its class, as a share: the smallest of all classes are in proportion
    for label in np.unique(targets):
        own = order[targets[order] == label]
        place[own] = (np.arange(len(own)) + 0.5) / len(own)
    kept = np.sort(np.argsort(place, kind="stable")[:num])
    noisy = targets[kept].copy()
    wrong = random.choice(num, size=round(NOISE * num), replace=False)
    num_classes = int(max(np.max(split[1]) for split in (examples.train, examples.validation, examples.test))) + 1
    noisy[wrong] = (noisy[wrong] + random.integers(1, num_classes, size=len(wrong))) % num_classes
    return replace(examples, train=(inputs[kept], noisy))


def _without_classes(table: ArticleTable) -> ArticleTable:
    """Say where the article's figures are of classes, which these data have not."""
    if not any("accuracy" in name for name in (*table.claimed.columns, table.title, table.claim)):
        return table
    told = "The article's figures are accuracies in %; these targets are no classes, and R² stands in their place."
    return replace(table, note=f"{table.note} {told}".strip())
