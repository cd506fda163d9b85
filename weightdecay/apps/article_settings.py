"""What the article's tables are made of: the methods, and what was trained in each setting."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from weightdecay.apps.comparison import Comparison
from weightdecay.apps.step_times import StepTimes
from weightdecay.data import Data
from weightdecay.results import selection
from weightdecay.results.selected import Selected

NONE, DECOUPLED, L2, L1, PROXIMAL, NORMALIZED = (
    "no decay",
    "decoupled decay",
    "L2",
    "L1",
    "L1, proximal",
    "batch normalization",
)
"""The methods. ``L1`` adds the subgradient of the penalty; ``L1, proximal`` applies its proximal map."""

SHRINKING = "shrinking"
"""Decay that removes a fifth of the weights per epoch, for table 4; it is not a method."""

EPOCHS = (1, 2, 3, 4)
"""Epochs that the article's tables show."""


@dataclass(frozen=True)
class Setting:
    """What was trained on one set of examples.

    Attributes:
      name: Name in the tables.
      data: The examples.
      comparison: All candidates, with the choice of each method and its scores on the test examples.
      shrinking: Members of `SHRINKING`.
      epoch: Training steps of an epoch.
    """

    name: str
    data: Data
    comparison: Comparison
    shrinking: tuple[int, ...]
    epoch: int

    @property
    def score(self) -> str:
        """What is scored, in percent: ``"accuracy"`` of classes, else ``"R²"``, 1 - loss / variance of the targets."""
        return "accuracy" if self.comparison.scored_by == "test_accuracy" else "R²"

    def choice(self, method: str, *, cautious: bool = False) -> Selected:
        """Return the candidate of a method that validation data chose.

        Args:
          method: One of the methods.
          cautious: Whether to take the most decayed candidate within one standard error of the best mean.
        """
        if not cautious:
            return self.comparison.chosen[method]
        candidates = self.comparison.result.candidates(self.comparison.metric)
        of_method = [candidates[number] for number in self.comparison.trials[method]]
        return selection.choose(of_method, metric=self.comparison.metric, criterion="one_standard_error")

    def test_scores(self, method: str) -> Float[np.ndarray, "seeds examples"]:
        """Scores of a method's choice on the test examples, in percent; their mean is the score."""
        return self._percent(self.comparison.correct[method], self.comparison.losses[method], "test")

    def curves(self, name: str, members: Sequence[int]) -> Float[np.ndarray, "seeds evaluations"]:
        """A metric at all evaluations, or ``train_score`` and ``validation_score`` in percent."""
        dataset = self.comparison.result.dataset.isel(member=list(members))
        if not name.endswith("_score"):
            return dataset[name].values.astype(np.float64)
        split = name.removesuffix("_score")
        accuracy, loss = (dataset[f"{split}_{kind}"].values.astype(np.float64) for kind in ("accuracy", "loss"))
        return self._percent(accuracy, loss, split)

    def by_epoch(self, name: str, members: Sequence[int]) -> dict[int, np.ndarray]:
        """The same at the epochs that the article shows and at the last epoch, each of shape ``(seeds,)``."""
        values = self.curves(name, members)
        return {epoch: values[:, epoch - 1] for epoch in EPOCHS} | {self.last_epoch: values[:, -1]}

    @property
    def last_epoch(self) -> int:
        """Number of the epoch that contains the last training step."""
        return math.ceil(int(self.comparison.result.dataset["step"].values[-1]) / self.epoch)

    def _percent(self, accuracy: np.ndarray, loss: np.ndarray, split: str) -> np.ndarray:
        if self.score == "accuracy":
            return 100 * accuracy
        targets = np.asarray(getattr(self.data, split)[1], np.float64)
        return 100 * (1 - loss / targets.var(axis=0).mean())


@dataclass(frozen=True)
class Trained:
    """Everything that the tables are made of.

    Attributes:
      settings: One or more.
      times: Times of a training step by method, without and with decoupled decay.
    """

    settings: tuple[Setting, ...]
    times: Mapping[str, StepTimes]
