"""Protocol of the article's tables: what is trained, how choices are made and how claims are judged.

All of it is fixed before anything is trained, and nothing is tuned until it agrees with the article.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from weightdecay import data, models
from weightdecay.apps import article_settings, claims
from weightdecay.apps.article_settings import DECOUPLED, L1, L2, NONE, NORMALIZED, PROXIMAL
from weightdecay.core.checks import ArgumentError, integer, number
from weightdecay.core.types import Integer, Scalar
from weightdecay.data import Data
from weightdecay.decay import L1 as SubgradientL1
from weightdecay.decay import L2 as CoupledL2
from weightdecay.decay import Decoupled, Independent, NoDecay, ProximalL1, Rule
from weightdecay.search.grid import Grid, logspace

FEW = 300
"""Number of training examples of the difficult setting; half of all where there are fewer than twice as many."""

NOISE = 0.4
"""Fraction of its labels that are replaced by another class."""

RANGES: dict[str, tuple[type[Rule], float, float]] = {
    DECOUPLED: (Decoupled, 1e-4, 1e1),
    L2: (CoupledL2, 1e-6, 1e-1),
    L1: (SubgradientL1, 1e-7, 1e-2),
    PROXIMAL: (ProximalL1, 1e-7, 1e-2),
}
"""Rule, smallest and largest coefficient of each method with decay."""

_NUM_COEFFICIENTS = 11  # two per power of ten: 0.0001, 0.001 and 0.01 are among those of L2 and of decoupled decay


@dataclass(frozen=True)
class Protocol:
    """What is trained, how choices are made and how claims are judged.

    Attributes:
      settings: Examples by name: all training examples; and few of them, with wrong labels if the targets are classes.
      hidden: Widths of the hidden layers of the multilayer perceptron.
      seeds: Number of replicates of each candidate.
      num_steps: Training steps of each member.
      batch_size: Examples per training step.
      learning_rate: Learning rate of Adam, the same for all members.
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
        """Validate the arguments and build the protocol.

        Args:
          examples: Training, validation and test examples, of classes or of a regression; None = `wd.data.digits()`.
          hidden: Widths of the hidden layers.
          seeds: Number of replicates of each candidate, at least 2.
          num_steps: Training steps of each member, at least four epochs.
          batch_size: Examples per training step.
          learning_rate: Learning rate of Adam, > 0.

        Returns:
          The protocol; print it.

        Raises:
          TypeError: An argument of a wrong type.
          ValueError: Data without test examples, with folds, with weights of examples or with several labels per
            example; or a number out of range.
        """
        examples = data.digits() if examples is None else examples
        if isinstance(examples, data.Data):
            examples = examples.with_class_indices()
        data.check(examples, batch_size)
        if examples.num_folds is not None or examples.test is None:
            raise ArgumentError(
                "data",
                "data has no separate validation and test examples; give wd.data.digits(), wd.data.split(...) or "
                "wd.Data(train=..., validation=..., test=...).",
            )
        splits = examples.batches()
        train = splits["train"]
        if any(split.weights is not None for split in splits.values()):
            raise ArgumentError("data", "data has weights of examples, but the tables count all alike; leave them out.")
        has_classes = np.issubdtype(train.targets.dtype, np.integer)
        if has_classes and train.targets.ndim != 1:
            raise ArgumentError(
                "data",
                f"data.train targets have shape {train.targets.shape}; give one class per example, or real numbers.",
            )
        integer(seeds, "seeds", at_least=2, allowed="an integer of at least 2, since one run has no standard error")
        number(learning_rate, "learning_rate", above=0, allowed="a finite number above 0")
        few = min(FEW, len(train.inputs) // 2)
        if batch_size > few:
            raise ArgumentError(
                "batch_size",
                f"batch_size is {batch_size}, but the setting with few examples has {few}; give 1 to {few}.",
            )
        least = article_settings.EPOCHS[-1] * epoch_steps(len(train.inputs), int(batch_size))
        four_epochs = f"which is four epochs of {len(train.inputs)} examples"
        integer(num_steps, "num_steps", at_least=least, allowed=f"an integer of at least {least}, {four_epochs}")
        hard = "few and noisy" if has_classes else "few examples"
        settings = {"all examples": examples, hard: _few(examples, few)}
        return cls(settings, tuple(hidden), int(seeds), int(num_steps), int(batch_size), float(learning_rate))

    @property
    def has_classes(self) -> bool:
        """Whether the targets are classes."""
        return np.issubdtype(np.asarray(next(iter(self.settings.values())).train[1]).dtype, np.integer)

    @property
    def model(self) -> models.MLP:
        """The network."""
        return models.MLP(self.hidden)

    @property
    def metric(self) -> str:
        """Validation metric of the choices."""
        return "validation_accuracy" if self.has_classes else "validation_loss"

    def __str__(self) -> str:
        """Return the protocol in sentences, one per line."""
        return "\n".join(self.sentences())

    def sentences(self) -> list[str]:
        """Return what is trained, how choices are made, and the rules of the verdicts."""
        sizes = {name: len(examples.train[0]) for name, examples in self.settings.items()}
        (easy, num_all), (hard, num_few) = sizes.items()
        examples = self.settings[easy]
        noise = f", {100 * NOISE:g} % of their labels replaced by another class" if self.has_classes else ""
        metric = self.metric.replace("_", " ")
        ranges = "; ".join(f"{name} from {low:g} to {high:g}" for name, (_, low, high) in RANGES.items())
        epochs = ", ".join(f"{epoch_steps(num, self.batch_size)} in {name}" for name, num in sizes.items())
        lines = [
            f"Settings: {easy} ({num_all} training examples); {hard} ({num_few} of them{noise}). Both have the same "
            f"{len(examples.validation[0])} validation and {len(examples.test[0])} test examples.",
            f"Training: a multilayer perceptron with hidden layers of {', '.join(map(str, self.hidden))}, by Adam at a "
            f"learning rate of {self.learning_rate:g}, {self.num_steps} steps of {self.batch_size} examples, "
            f"{self.seeds} seeds of each candidate.",
            f"Candidates: {NONE}; {_NUM_COEFFICIENTS} log-spaced coefficients of each of {ranges}; {NORMALIZED} "
            "without decay. Decay acts on the kernels of all layers.",
            f"Choice: the coefficient of each method is chosen by the mean {metric}, never by the test examples, which "
            'then score the choice. "With decay" means decoupled decay, unless a table says otherwise.',
            f"Steps of an epoch: {epochs}.",
            "Standard errors: those of test scores include the variation of seeds and of test examples, all others "
            "that of seeds. Differences are paired by seed, and on the test examples by example as well.",
            *claims.RULES,
        ]
        if not self.has_classes:
            lines.append(
                "The targets are real numbers: where the article has an accuracy, the tables have R² in %, 1 - loss / "
                "variance of the targets. Its figures and these are not comparable in size. There are no labels to "
                "replace by wrong ones."
            )
        return lines

    def grid(self, num_examples: int) -> Grid:
        """Return all candidates, replicated over the seeds.

        Args:
          num_examples: Number of training examples, which determines the steps of an epoch.
        """
        rules: list[Rule] = [NoDecay()]
        for kind, smallest, largest in RANGES.values():
            rules += logspace(kind, smallest, largest, _NUM_COEFFICIENTS)
        rules.append(Independent(1 - 0.8 ** (1 / epoch_steps(num_examples, self.batch_size))))
        common = {"learning_rate": self.learning_rate, "seed": range(self.seeds)}
        return Grid(decay=rules, **common) + Grid(decay=NoDecay(), normalization="batch", **common)


def epoch_steps(num_examples: int, batch_size: int) -> int:
    """Number of training steps that use each training example once, to the nearest integer, at least 1."""
    return max(1, round(num_examples / batch_size))


def _few(examples: Data, num: int) -> Data:
    """Keep few training examples, with classes in proportion, and replace labels by wrong ones, with a fixed seed."""
    inputs, targets = (np.asarray(values) for values in examples.train[:2])
    random = np.random.default_rng(0)
    order = random.permutation(len(targets))
    if not np.issubdtype(targets.dtype, np.integer):
        kept = np.sort(order[:num])
        return replace(examples, train=(inputs[kept], targets[kept]))
    rank = np.empty(len(order))  # within the class, as a fraction: the smallest ranks of all classes are in proportion
    for label in np.unique(targets):
        of_class = order[targets[order] == label]
        rank[of_class] = (np.arange(len(of_class)) + 0.5) / len(of_class)
    kept = np.sort(np.argsort(rank, kind="stable")[:num])
    noisy = targets[kept].copy()
    wrong = random.choice(num, size=round(NOISE * num), replace=False)
    num_classes = int(max(np.max(split[1]) for split in (examples.train, examples.validation, examples.test))) + 1
    noisy[wrong] = (noisy[wrong] + random.integers(1, num_classes, size=len(wrong))) % num_classes
    return replace(examples, train=(inputs[kept], noisy))
