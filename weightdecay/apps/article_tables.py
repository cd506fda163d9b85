"""The twelve tables of a popular article on weight decay: what it claims in each, and the same from trained networks.

The claims and their figures are the article's, which gives no source for them. Every table says before the numbers are
known which checks its claim comes to; `weightdecay.apps.claims` makes a word of them.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from jaxtyping import Float

from weightdecay.apps import claims, step_times
from weightdecay.apps.claims import Check
from weightdecay.apps.comparison import Comparison
from weightdecay.apps.step_times import StepTimes
from weightdecay.core.statistics import Estimate, estimate, rounded
from weightdecay.data import Data
from weightdecay.decay import Independent, masks, optimizers
from weightdecay.results import selection
from weightdecay.results.selection import Choice

NONE, DECOUPLED, L2, L1, PROXIMAL, NORMALIZED = (
    "no decay",
    "decoupled decay",
    "L2",
    "L1",
    "L1, proximal",
    "batch normalization",
)
"""The methods; ``L1`` is the one by its subgradient."""

SHRINKING = "shrinking"
"""No method: decay that takes off a fifth an epoch, which table 4 looks at."""

EPOCHS = (1, 2, 3, 4)
"""Epochs that the article's tables show."""

SLACK = 1.1
"""Times the lowest loss of the worse of two runs is the level that table 2 takes the steps to."""


@dataclass(frozen=True)
class Setting:
    """What was trained on one set of examples.

    Attributes:
      name: As the tables call it.
      data: The examples.
      comparison: All candidates, with the choice of each method and its scores on the test examples.
      shrinking: Members of `SHRINKING`.
      epoch: Steps of an epoch.
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

    def choice(self, method: str, *, cautious: bool = False) -> Choice:
        """Candidate of a method that validation data chose: the best mean, or the most decayed one as good."""
        if not cautious:
            return self.comparison.chosen[method]
        candidates = self.comparison.result.candidates(self.comparison.metric)
        own = [candidates[number] for number in self.comparison.trials[method]]
        return selection.choose(own, metric=self.comparison.metric, criterion="one_standard_error")

    def tested(self, method: str) -> Float[np.ndarray, "seeds examples"]:
        """Scores of a method's choice on the test examples, in percent; their mean is the score."""
        return self._percent(self.comparison.correct[method], self.comparison.losses[method], "test")

    def along(self, name: str, members: Sequence[int]) -> Float[np.ndarray, "seeds evaluations"]:
        """A metric of the result by evaluation, or ``train_score`` and ``validation_score`` in percent."""
        dataset = self.comparison.result.dataset.isel(member=list(members))
        if not name.endswith("_score"):
            return dataset[name].values.astype(np.float64)
        split = name.removesuffix("_score")
        accuracy, loss = (dataset[f"{split}_{kind}"].values.astype(np.float64) for kind in ("accuracy", "loss"))
        return self._percent(accuracy, loss, split)

    def by_epoch(self, name: str, members: Sequence[int]) -> dict[int, np.ndarray]:
        """The same at the epochs that the article shows and at the last, each of shape ``(seeds,)``."""
        values = self.along(name, members)
        shown = {epoch: values[:, epoch - 1] for epoch in EPOCHS}
        return shown | {self.last_epoch: values[:, -1]}

    @property
    def last_epoch(self) -> int:
        """Number of the epoch that the last step lies in."""
        return math.ceil(int(self.comparison.result.dataset["step"].values[-1]) / self.epoch)

    def _percent(self, accuracy: np.ndarray, loss: np.ndarray, split: str) -> np.ndarray:
        if self.score == "accuracy":
            return 100 * accuracy
        targets = np.asarray(getattr(self.data, split)[1], np.float64)
        return 100 * (1 - loss / targets.var(axis=0).mean())


@dataclass(frozen=True)
class Trained:
    """All that the tables are made of.

    Attributes:
      settings: One or more.
      times: Of a training step, by method: without and with decoupled decay.
    """

    settings: tuple[Setting, ...]
    times: Mapping[str, StepTimes]


@dataclass(frozen=True)
class ArticleTable:
    """One table: what is claimed, what was measured, and what that says.

    Attributes:
      title: What it is about.
      claim: What the article says, in words.
      claimed: Its figures; the index are the rows.
      measured: Index ``setting`` and the rows; each column with its ``..._standard_error`` (0 where there is no noise).
      checks: What the claim comes to.
      note: What else to know.
    """

    title: str
    claim: str
    claimed: pd.DataFrame
    measured: pd.DataFrame
    checks: tuple[Check, ...]
    note: str = ""

    @property
    def verdict(self) -> str:
        """``"confirmed"``, ``"not confirmed"`` or ``"depends"``."""
        return claims.verdict(self.checks)

    @property
    def reason(self) -> str:
        """Why."""
        return claims.reason(self.checks)

    def cells(self) -> list[list[str]]:
        """Return the claimed figures beside the measured ones, as words; the first row is the head."""
        shown = [name for name in self.measured.columns if not name.endswith("_standard_error")]
        rows = [[*map(str, self.measured.index.names), *(f"claimed {name}" for name in self.claimed.columns), *shown]]
        for (setting, row), values in zip(self.measured.index, self.measured.to_dict("records"), strict=True):
            claimed = [""] * len(self.claimed.columns)
            if row in self.claimed.index:
                claimed = [value if isinstance(value, str) else f"{value:g}" for value in self.claimed.loc[row]]
            means = [
                "" if math.isnan(values[name]) else rounded(values[name], values[f"{name}_standard_error"])
                for name in shown
            ]
            rows.append([str(setting), str(row), *claimed, *means])
        return rows

    def __str__(self) -> str:
        """Return the table in columns with its verdict."""
        cells = self.cells()
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
        ]
        told = [f"Claimed: {self.claim}", *lines, f"{self.verdict.capitalize()}. {self.reason}"]
        return "\n".join([*told, *(f"- {check}" for check in self.checks), *([self.note] if self.note else [])])

    def to_markdown(self) -> str:
        """Return the same in Markdown."""
        head, *rows = self.cells()
        lines = [f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows]]
        told = [f"Claimed: {self.claim}", "", *lines, "", f"**{self.verdict.capitalize()}.** {self.reason}", ""]
        return "\n".join([*told, *(f"- {check}" for check in self.checks), *(["", self.note] if self.note else [])])


def accuracy_with_and_without(trained: Trained) -> ArticleTable:
    """Table A: training and held-out accuracy."""
    rows, checks = {}, []
    for setting in trained.settings:
        score = setting.score
        for name, method in _PAIR.items():
            members = setting.choice(method).members
            rows[setting.name, name] = {
                f"training {score} (%)": estimate(setting.along("train_score", members)[:, -1]),
                f"validation {score} (%)": estimate(setting.along("validation_score", members)[:, -1]),
                f"test {score} (%)": claims.crossed(setting.tested(method)),
            }
        without, with_decay = (
            setting.along("train_score", setting.choice(method).members)[:, -1] for method in _PAIR.values()
        )
        lower = estimate(without - with_decay)
        checks.append(Check(f"training {score} is lower with decay", setting.name, lower, "points"))
        checks.append(_ahead(setting, DECOUPLED, NONE, f"{score} on examples not trained on is higher with decay"))
    return ArticleTable(
        "With and without decay",
        "decay lowers training accuracy a little and raises validation accuracy.",
        pd.DataFrame({"training accuracy (%)": [98.5, 97.9], "validation accuracy (%)": [85.2, 88.6]}, index=[*_PAIR]),
        _frame(rows),
        tuple(checks),
        "The validation examples chose the coefficient, so the second check is made on the test examples.",
    )


def complexity_and_sparsity(trained: Trained) -> ArticleTable:
    """Table B: what L1 and L2 do to the weights."""
    rows, checks = {}, []
    for setting in trained.settings:
        found = {}
        for method in (NONE, L2, L1, PROXIMAL):
            members = setting.choice(method, cautious=True).members
            norm, zeros, near = (
                setting.along(name, members)[:, -1] for name in ("weight_norm", "zero_fraction", "near_zero_fraction")
            )
            effective = np.array([_effective_number(setting.comparison.result.params(member)) for member in members])
            found[method] = norm, zeros
            rows[setting.name, method] = {
                "weight norm": estimate(norm),
                "effective number of weights": estimate(effective),
                "exact zeros (%)": estimate(100 * zeros),
                "below 0.001 (%)": estimate(100 * near),
            }
        for method in (L2, L1, PROXIMAL):
            claim = f"{method} makes the weight norm smaller"
            checks.append(Check(claim, setting.name, estimate(found[NONE][0] - found[method][0])))
        for method in (L1, PROXIMAL):
            claim = f"{method} gives more zeros than L2"
            more = estimate(100 * (found[method][1] - found[L2][1]))
            checks.append(Check(claim, setting.name, more, "points"))
    return ArticleTable(
        "L1 and L2",
        "both reduce the complexity of the model, and only L1 gives sparsity.",
        pd.DataFrame({"complexity": ["reduced", "reduced"], "sparsity": ["no", "yes"]}, index=[L2, L1]),
        _frame(rows),
        tuple(checks),
        "L1 is the penalty's subgradient, as most training scripts have it; L1, proximal takes its proximal map. The "
        "effective number of weights is (Σ w²)² / Σ w⁴. Of each method: the most decayed candidate within one standard "
        "error of its best.",
    )


def accuracy(trained: Trained) -> ArticleTable:
    """Table 1: accuracy on the test examples."""
    rows, checks = {}, []
    for setting in trained.settings:
        for name, method in _PAIR.items():
            rows[setting.name, name] = {f"test {setting.score} (%)": claims.crossed(setting.tested(method))}
        checks.append(_ahead(setting, DECOUPLED, NONE, f"test {setting.score} is higher with decay"))
    claimed = pd.DataFrame({"accuracy (%)": [95.3, 97.8]}, index=[*_PAIR])
    return ArticleTable("Accuracy", "decay makes it higher.", claimed, _frame(rows), tuple(checks))


def training_time(trained: Trained) -> ArticleTable:
    """Table 2: how long it takes to come to a loss that both reach."""
    rows, checks = {}, []
    for setting in trained.settings:
        evaluated = setting.comparison.result.dataset["step"].values
        pair = [setting.choice(method).members for method in _PAIR.values()]
        steps = {
            loss: steps_to_level(evaluated, *(setting.along(name, members) for members in pair))
            for loss, name in {"training": "train_loss", "validation": "validation_loss"}.items()
        }
        for which, (name, method) in enumerate(_PAIR.items()):
            seconds = float(np.median(trained.times[method].seconds[step_times.WHOLE]))
            rows[setting.name, name] = {
                f"{unit} to the {loss} loss": estimate(factor * steps[loss][which])
                for unit, factor in (("steps", 1.0), ("seconds", seconds))
                for loss in steps
            }
        for loss, (without, with_decay) in steps.items():
            fewer = estimate(without - with_decay)
            checks.append(Check(f"decay takes fewer steps to the {loss} loss", setting.name, fewer, "steps"))
    return ArticleTable(
        "Training time",
        "training takes less time with decay.",
        pd.DataFrame({"hours": [10.0, 8.5]}, index=[*_PAIR]),
        _frame(rows),
        tuple(checks),
        f"The loss is a level that both reach, for each seed: {SLACK:g} times the lowest loss of the worse of the two "
        "runs, which comes to it late; the other passes it on its way. It is looked at once an epoch. Seconds are of "
        "one member alone: steps times the measured time of a whole step (table 3).",
    )


def steps_to_level(
    steps: Sequence[int] | np.ndarray,
    without: Float[np.ndarray, "seeds evaluations"],
    with_decay: Float[np.ndarray, "seeds evaluations"],
) -> tuple[np.ndarray, np.ndarray]:
    """Steps that two runs take to a loss that both reach, seed by seed.

    Args:
      steps: Of the evaluations.
      without: Losses without decay.
      with_decay: Losses with decay.

    Returns:
      Steps without and with decay, each of shape ``(seeds,)``: those of the first evaluation at which the loss is at
      most `SLACK` times the lowest loss of the worse of the two. nan where a run diverged.
    """
    level = SLACK * np.maximum(without.min(axis=1), with_decay.min(axis=1))
    first = [np.argmax(curve <= level[:, None], axis=1) for curve in (without, with_decay)]
    one, other = (np.where(np.isnan(level), np.nan, np.asarray(steps)[places]) for places in first)
    return one, other


def parts_of_a_step(trained: Trained) -> ArticleTable:
    """Table 3: where the time of a step goes."""
    setting = "one step"
    rows: dict[tuple[str, Any], dict[str, Estimate]] = {}
    checks = []
    for method, times in trained.times.items():
        for part, seconds in times.seconds.items():
            rows.setdefault((setting, part), {})[f"microseconds, {method}"] = estimate(1e6 * seconds)
        claim = f"the five parts make the weights that a step of the library makes, {method}"
        checks.append(claims.within(claim, setting, times.difference, times.learning_rate / 100))
    return ArticleTable(
        "The five steps of training",
        "training is to initialize, then forward, loss, backward and update.",
        pd.DataFrame({"order": [str(place) for place in range(1, 6)]}, index=[*step_times.PARTS]),
        _frame(rows, row="part"),
        tuple(checks),
        "The article has no times. Each part is compiled alone, so that its time holds that of a call; the whole step "
        "is one program of forward to update. Allowed is a hundredth of the learning rate, by which Adam moves "
        "a weight.",
    )


def exponential_decay(trained: Trained) -> ArticleTable:
    """Table 4: weights that shrink by a fifth an epoch, alone and in a network that is trained."""
    alone = decayed_alone(0.7, 0.2, len(EPOCHS))
    claimed = [0.7, 0.56, 0.45, 0.36]
    exact = "zero gradient"
    rows: dict[tuple[str, Any], dict[str, Estimate]] = {
        (exact, epoch): {"weight": _certain(value)} for epoch, value in zip(EPOCHS, alone, strict=True)
    }
    differs = np.abs(alone - claimed).max()
    checks = [claims.within("the weights are the claimed ones, rounded to two decimals", exact, differs, 0.005)]
    for setting in trained.settings:
        norms = setting.by_epoch("weight_norm", setting.shrinking)
        relative = {epoch: 0.7 * values / norms[1] for epoch, values in norms.items()}
        for epoch, values in relative.items():
            rows[setting.name, epoch] = {"weight": _certain(0.7) if epoch == EPOCHS[0] else estimate(values)}
        left = estimate(0.05 - np.abs(relative[EPOCHS[-1]] - 0.7 * 0.8**3))
        claim = f"after epoch {EPOCHS[-1]} the norm in training is within 0.05 of 0.3584"
        checks.append(Check(claim, setting.name, left))
    return ArticleTable(
        "Exponential decay of weights",
        "weights fall by the same share every epoch.",
        pd.DataFrame({"weight": claimed}, index=[*EPOCHS]),
        _frame(rows, row="epoch"),
        tuple(checks),
        "With zero gradient: one weight under Independent(0.2), one step an epoch. In the networks: Independent decay "
        "that takes off a fifth in an epoch, beside the steps of training; the norm of all weights that decay, put "
        "to 0.7 after epoch 1.",
    )


def decayed_alone(start: float, share: float, num: int) -> Float[np.ndarray, " num"]:
    """A weight under `weightdecay.Independent` decay at zero gradient, before the first step and after each.

    Args:
      start: The weight.
      share: That a step takes off.
      num: How many values; one less is the number of steps.

    Returns:
      The weights.
    """
    optimizer = optimizers.sgd(1.0, Independent(share), mask=masks.everything)
    weight = {"weight": jnp.full((1,), start)}
    state, found = optimizer.init(weight), [weight]
    for _ in range(num - 1):
        updates, state = optimizer.update(jax.tree.map(jnp.zeros_like, weight), state, weight)
        weight: Any = optax.apply_updates(weight, updates)
        found.append(weight)
    return np.array([one["weight"][0] for one in found], np.float64)


def improvement(trained: Trained) -> ArticleTable:
    """Table 5: what each technique adds to test accuracy."""
    rows, checks = {}, []
    for setting in trained.settings:
        for method in (NONE, DECOUPLED, L1, L2, PROXIMAL):
            gained = claims.crossed(setting.tested(method) - setting.tested(NONE))
            rows[setting.name, method] = {f"improvement in test {setting.score} (points)": gained}
        for method in (DECOUPLED, L1, L2):
            checks.append(_ahead(setting, method, NONE, f"{method} improves test {setting.score}"))
    return ArticleTable(
        "Improvement by technique",
        "every technique improves accuracy.",
        pd.DataFrame({"improvement (points)": [0.0, 2.5, 1.8, 2.1]}, index=[NONE, DECOUPLED, L1, L2]),
        _frame(rows, row="technique"),
        tuple(checks),
        "The article's weight decay is taken for decoupled decay, its L2 for the coupled one.",
    )


def influence_of_the_coefficient(trained: Trained) -> ArticleTable:
    """Table 6: validation accuracy at three coefficients."""
    coefficients = (1e-4, 1e-3, 1e-2)
    rows: dict[tuple[str, Any], dict[str, Estimate]] = {}
    checks, best = [], []
    for setting in trained.settings:
        candidates = setting.comparison.result.candidates(setting.comparison.metric)
        for method in (L2, DECOUPLED):
            own = [candidates[number] for number in setting.comparison.trials[method]]
            column = f"validation {setting.score} (%), {method}"
            scores = []
            for coefficient in coefficients:
                (found,) = (one for one in own if math.isclose(_coefficient(one.decay), coefficient, rel_tol=1e-6))
                scores.append(setting.along("validation_score", found.members)[:, -1])
                rows.setdefault((setting.name, f"{coefficient:g}"), {})[column] = estimate(scores[-1])
            chosen = setting.choice(method)
            score = estimate(setting.along("validation_score", chosen.members)[:, -1])
            rows.setdefault((setting.name, "the best"), {})[column] = score
            best.append(f"{setting.name}, {chosen.decay}")
            rise = estimate(scores[-1] - scores[0])
            claim = f"validation {setting.score} is higher at 0.01 than at 0.0001 of {method}"
            checks.append(Check(claim, setting.name, rise, "points"))
    return ArticleTable(
        "Influence of the coefficient",
        "accuracy rises with the coefficient from 0.0001 to 0.01.",
        pd.DataFrame({"accuracy (%)": [96.7, 97.2, 97.8]}, index=[f"{one:g}" for one in coefficients]),
        _frame(rows, row="coefficient"),
        tuple(checks),
        "The same number is another strength under each rule, and the article does not say which it has. The best lies "
        f"at: {'; '.join(best)}. The test examples are not looked at here; the standard errors are of seeds alone.",
    )


def non_zero_weights(trained: Trained) -> ArticleTable:
    """Table 7: the share of non-zero weights by epoch."""
    rows: dict[tuple[str, Any], dict[str, Estimate]] = {}
    checks = []
    for setting in trained.settings:
        for method in (PROXIMAL, L1, L2):
            zeros = setting.by_epoch("zero_fraction", setting.choice(method, cautious=True).members)
            for epoch, values in zeros.items():
                row = rows.setdefault((setting.name, epoch), {})
                row[f"non-zero weights (%), {method}"] = estimate(100 * (1 - values))
            if method != L2:
                fall = estimate(100 * (zeros[3] - zeros[1]))
                claim = f"{method} has fewer non-zero weights after epoch 3 than after 1"
                checks.append(Check(claim, setting.name, fall, "points"))
    return ArticleTable(
        "Proportion of non-zero weights by epoch",
        "it falls with the epochs.",
        pd.DataFrame({"non-zero weights (%)": [49.2, 34.8, 25.1]}, index=[*EPOCHS[:3]]),
        _frame(rows, row="epoch"),
        tuple(checks),
        "Of each method: the most decayed candidate within one standard error of its best. L2 and the subgradient of "
        "L1 make weights small, and exactly 0 by underflow alone.",
    )


def loss_by_epoch(trained: Trained) -> ArticleTable:
    """Table 8: training and validation loss by epoch."""
    return _by_epoch(
        trained,
        ("training loss", "validation loss"),
        sign=-1,
        title="Loss by epoch",
        claim="it falls with the epochs.",
        claimed=pd.DataFrame({"loss": [0.98, 0.89, 0.76, 0.63]}, index=[*EPOCHS]),
        note="The losses are of the data alone, without a penalty.",
    )


def validation_accuracy_by_epoch(trained: Trained) -> ArticleTable:
    """Table 10: validation accuracy by epoch."""
    return _by_epoch(
        trained,
        ("validation score",),
        sign=1,
        title="Validation accuracy by epoch",
        claim="it rises with the epochs.",
        claimed=pd.DataFrame({"validation accuracy (%)": [90.2, 92.1, 94.5, 96.3]}, index=[*EPOCHS]),
        note="",
    )


def methods(trained: Trained) -> ArticleTable:
    """Table 9: L2, L1 and batch normalization against each other."""
    rows, checks = {}, []
    order = (L2, L1, NORMALIZED)
    for setting in trained.settings:
        for method in (*order, NONE):
            rows[setting.name, method] = {f"test {setting.score} (%)": claims.crossed(setting.tested(method))}
        for better, worse in itertools.pairwise(order):
            claim = f"{better} has a higher test {setting.score} than {worse}"
            checks.append(_ahead(setting, better, worse, claim))
    return ArticleTable(
        "Methods",
        "L2 is the best, then L1, then batch normalization.",
        pd.DataFrame({"accuracy (%)": [97.8, 97.4, 97.2]}, index=[*order]),
        _frame(rows, row="method"),
        tuple(checks),
        "Batch normalization has one candidate, without decay; L1 and L2 have a coefficient that is chosen.",
    )


TABLES: dict[str, Callable[[Trained], ArticleTable]] = {
    "A": accuracy_with_and_without,
    "B": complexity_and_sparsity,
    "1": accuracy,
    "2": training_time,
    "3": parts_of_a_step,
    "4": exponential_decay,
    "5": improvement,
    "6": influence_of_the_coefficient,
    "7": non_zero_weights,
    "8": loss_by_epoch,
    "9": methods,
    "10": validation_accuracy_by_epoch,
}
"""The tables by the article's numbers; A and B stand before its first."""

_PAIR = {"without": NONE, "with": DECOUPLED}


def _by_epoch(
    trained: Trained,
    shown: Sequence[str],
    *,
    sign: int,
    title: str,
    claim: str,
    claimed: pd.DataFrame,
    note: str,
) -> ArticleTable:
    """A table of curves with and without decay; the check is made on those with decay."""
    rows: dict[tuple[str, Any], dict[str, Estimate]] = {}
    checks = []
    for setting in trained.settings:
        for words in shown:
            name = words.replace("training", "train").replace(" ", "_")
            said = words.replace("score", setting.score)
            unit = " (%)" if words.endswith("score") else ""
            for way, method in reversed(_PAIR.items()):
                curve = setting.by_epoch(name, setting.choice(method).members)
                for epoch, values in curve.items():
                    rows.setdefault((setting.name, epoch), {})[f"{said}{unit}, {way} decay"] = estimate(values)
                if method == DECOUPLED:
                    change = estimate(sign * (curve[EPOCHS[-1]] - curve[EPOCHS[0]]))
                    moved = f"{said} is {'higher' if sign > 0 else 'lower'} after epoch 4 than after 1"
                    checks.append(Check(moved, setting.name, change, "points" if unit else ""))
    return ArticleTable(title, claim, claimed, _frame(rows, row="epoch"), tuple(checks), note)


def _ahead(setting: Setting, better: str, worse: str, claim: str) -> Check:
    """Check that one method's choice has the higher score on the test examples."""
    ahead = claims.crossed(setting.tested(better) - setting.tested(worse))
    return Check(claim, setting.name, ahead, "points")


def _frame(rows: Mapping[tuple[str, Any], Mapping[str, Estimate]], row: str = "decay") -> pd.DataFrame:
    """Estimates by setting and row, each with its standard error beside it."""
    columns = dict.fromkeys(name for values in rows.values() for name in values)
    nothing = _certain(math.nan)
    return pd.DataFrame(
        {
            f"{name}{ending}": [getattr(values.get(name, nothing), attribute) for values in rows.values()]
            for name in columns
            for ending, attribute in (("", "mean"), ("_standard_error", "standard_error"))
        },
        index=pd.MultiIndex.from_tuples(list(rows), names=["setting", row]),
    )


def _certain(value: float) -> Estimate:
    return Estimate(float(value), 0.0, float(value), float(value), 1)


def _effective_number(params: Any) -> float:
    """``(Σ w²)² / Σ w⁴`` of the weights that decay: n where n weights are alike and the others 0."""
    decays = masks.resolve(masks.kernels, params)
    squares = np.concatenate(
        [
            np.square(np.asarray(leaf, np.float64)).ravel()
            for leaf, decayed in zip(jax.tree.leaves(params), decays, strict=True)
            if decayed
        ]
    )
    return float(squares.sum() ** 2 / np.square(squares).sum()) if squares.any() else 0.0


def _coefficient(rule: Any) -> float:
    return float(rule.coefficient)
