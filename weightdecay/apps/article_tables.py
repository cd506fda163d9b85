"""The twelve tables of a popular article on weight decay: what it claims, and the same figures from trained networks.

The claims and their figures are those of the article, which gives no source for them. Each table fixes, before the
numbers are known, which checks its claim amounts to; `weightdecay.apps.claims` turns them into a verdict.
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
from weightdecay.apps.article_settings import (
    DECOUPLED,
    EPOCHS,
    L1,
    L2,
    NONE,
    NORMALIZED,
    PROXIMAL,
    Setting,
    Trained,
)
from weightdecay.apps.claims import Check
from weightdecay.core import text
from weightdecay.core.statistics import Estimate, estimate
from weightdecay.decay import Independent, masks, optimizers

SLACK = 1.1
"""Table 2 counts the steps to a loss of this factor times the lowest loss of the worse of two runs."""


@dataclass(frozen=True)
class ArticleTable:
    """One table: what is claimed, what was measured, and the verdict.

    Attributes:
      title: Title.
      claim: The article's claim, as a sentence.
      claimed: The article's figures; the index holds the rows.
      measured: Index ``setting`` and the rows; each column is followed by its ``..._standard_error``, which is 0 where
        there is no noise.
      checks: The checks that the claim amounts to.
      note: Remarks.
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
        """Why the verdict is what it is."""
        return claims.reason(self.checks)

    def cells(self) -> list[list[str]]:
        """Return the claimed figures next to the measured ones, as strings; the first row is the header."""
        shown = [name for name in self.measured.columns if not name.endswith("_standard_error")]
        rows = [[*map(str, self.measured.index.names), *(f"claimed {name}" for name in self.claimed.columns), *shown]]
        for (setting, row), values in zip(self.measured.index, self.measured.to_dict("records"), strict=True):
            claimed = [""] * len(self.claimed.columns)
            if row in self.claimed.index:
                claimed = [value if isinstance(value, str) else f"{value:g}" for value in self.claimed.loc[row]]
            means = [
                "" if math.isnan(values[name]) else text.estimate(values[name], values[f"{name}_standard_error"])
                for name in shown
            ]
            rows.append([str(setting), str(row), *claimed, *means])
        return rows

    def __str__(self) -> str:
        """Return the table with aligned columns, its verdict and its checks."""
        cells = self.cells()
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
        ]
        parts = [f"Claimed: {self.claim}", *lines, f"{self.verdict.capitalize()}. {self.reason}"]
        return "\n".join([*parts, *(f"- {check}" for check in self.checks), *([self.note] if self.note else [])])

    def to_markdown(self) -> str:
        """Return the same in Markdown."""
        head, *rows = self.cells()
        lines = [f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows]]
        parts = [f"Claimed: {self.claim}", "", *lines, "", f"**{self.verdict.capitalize()}.** {self.reason}", ""]
        return "\n".join([*parts, *(f"- {check}" for check in self.checks), *(["", self.note] if self.note else [])])


def accuracy_with_and_without(trained: Trained) -> ArticleTable:
    """Table A: accuracy on training, validation and test examples."""
    rows, checks = {}, []
    for setting in trained.settings:
        score = setting.score
        for name, method in _PAIR.items():
            members = setting.choice(method).members
            rows[setting.name, name] = {
                f"training {score} (%)": estimate(setting.curves("train_score", members)[:, -1]),
                f"validation {score} (%)": estimate(setting.curves("validation_score", members)[:, -1]),
                f"test {score} (%)": claims.crossed(setting.test_scores(method)),
            }
        without, with_decay = (
            setting.curves("train_score", setting.choice(method).members)[:, -1] for method in _PAIR.values()
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
        "The validation examples chose the coefficient, so the second check uses the test examples.",
    )


def complexity_and_sparsity(trained: Trained) -> ArticleTable:
    """Table B: the effect of L1 and L2 on the weights."""
    rows, checks = {}, []
    for setting in trained.settings:
        measured = {}
        for method in (NONE, L2, L1, PROXIMAL):
            members = setting.choice(method, cautious=True).members
            norm, zeros, near = (
                setting.curves(name, members)[:, -1] for name in ("weight_norm", "zero_fraction", "near_zero_fraction")
            )
            effective = np.array([_effective_number(setting.comparison.result.params(member)) for member in members])
            measured[method] = norm, zeros
            rows[setting.name, method] = {
                "weight norm": estimate(norm),
                "effective number of weights": estimate(effective),
                "exact zeros (%)": estimate(100 * zeros),
                "below 0.001 (%)": estimate(100 * near),
            }
        for method in (L2, L1, PROXIMAL):
            claim = f"{method} makes the weight norm smaller"
            checks.append(Check(claim, setting.name, estimate(measured[NONE][0] - measured[method][0])))
        for method in (L1, PROXIMAL):
            claim = f"{method} gives more zeros than L2"
            more = estimate(100 * (measured[method][1] - measured[L2][1]))
            checks.append(Check(claim, setting.name, more, "points"))
    return ArticleTable(
        "L1 and L2",
        "both reduce the complexity of the model, and only L1 gives sparsity.",
        pd.DataFrame({"complexity": ["reduced", "reduced"], "sparsity": ["no", "yes"]}, index=[L2, L1]),
        _frame(rows),
        tuple(checks),
        "L1 adds the subgradient of the penalty, as in most training scripts; L1, proximal applies its proximal map. "
        "The effective number of weights is (Σ w²)² / Σ w⁴. Each method is shown with its most decayed candidate "
        "within one standard error of its best.",
    )


def accuracy(trained: Trained) -> ArticleTable:
    """Table 1: accuracy on the test examples."""
    rows, checks = {}, []
    for setting in trained.settings:
        for name, method in _PAIR.items():
            rows[setting.name, name] = {f"test {setting.score} (%)": claims.crossed(setting.test_scores(method))}
        checks.append(_ahead(setting, DECOUPLED, NONE, f"test {setting.score} is higher with decay"))
    claimed = pd.DataFrame({"accuracy (%)": [95.3, 97.8]}, index=[*_PAIR])
    return ArticleTable("Accuracy", "decay makes it higher.", claimed, _frame(rows), tuple(checks))


def training_time(trained: Trained) -> ArticleTable:
    """Table 2: time until the loss falls to a level that both reach."""
    rows, checks = {}, []
    for setting in trained.settings:
        evaluated = setting.comparison.result.dataset["step"].values
        pair = [setting.choice(method).members for method in _PAIR.values()]
        steps = {
            loss: steps_to_level(evaluated, *(setting.curves(name, members) for members in pair))
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
        f"The loss is, for each seed, {SLACK:g} times the lowest loss of the worse of the two runs; both runs reach "
        "it. It is evaluated once per epoch. Seconds are those of one member alone: steps times the measured time of a "
        "complete step (table 3).",
    )


def steps_to_level(
    steps: Sequence[int] | np.ndarray,
    without: Float[np.ndarray, "seeds evaluations"],
    with_decay: Float[np.ndarray, "seeds evaluations"],
) -> tuple[np.ndarray, np.ndarray]:
    """Training steps until two runs reach a common loss, seed by seed.

    Args:
      steps: Steps of the evaluations.
      without: Losses without decay.
      with_decay: Losses with decay.

    Returns:
      Steps without and with decay, each of shape ``(seeds,)``: those of the first evaluation at which the loss is at
      most `SLACK` times the lowest loss of the worse of the two runs. nan where a run diverged.
    """
    level = SLACK * np.maximum(without.min(axis=1), with_decay.min(axis=1))
    first = [np.argmax(curve <= level[:, None], axis=1) for curve in (without, with_decay)]
    steps_without, steps_with = (np.where(np.isnan(level), np.nan, np.asarray(steps)[indices]) for indices in first)
    return steps_without, steps_with


def parts_of_a_step(trained: Trained) -> ArticleTable:
    """Table 3: how the time of a training step is spent."""
    setting = "one step"
    rows: dict[tuple[str, Any], dict[str, Estimate]] = {}
    checks = []
    for method, times in trained.times.items():
        for part, seconds in times.seconds.items():
            rows.setdefault((setting, part), {})[f"microseconds, {method}"] = estimate(1e6 * seconds)
        claim = f"the five parts give the weights that a step of the library gives, {method}"
        checks.append(claims.within(claim, setting, times.difference, times.learning_rate / 100))
    return ArticleTable(
        "The five steps of training",
        "training is to initialize, then forward, loss, backward and update.",
        pd.DataFrame({"order": [str(position) for position in range(1, 6)]}, index=[*step_times.PARTS]),
        _frame(rows, row="part"),
        tuple(checks),
        "The article has no times. Each part is a compiled program, whose time includes that of calling it; the whole "
        "step is one program, from forward to update. The allowed difference is a hundredth of the learning rate; Adam "
        "moves a weight by about the learning rate in a step.",
    )


def exponential_decay(trained: Trained) -> ArticleTable:
    """Table 4: weights that shrink by a fifth per epoch, without a gradient and in training."""
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
        "weights fall by the same fraction every epoch.",
        pd.DataFrame({"weight": claimed}, index=[*EPOCHS]),
        _frame(rows, row="epoch"),
        tuple(checks),
        "Zero gradient: one weight under Independent(0.2), one step per epoch. The networks: Independent decay that "
        "removes a fifth per epoch, in addition to the steps of training; the norm of all weights that decay, scaled "
        "to 0.7 after epoch 1.",
    )


def decayed_alone(start: float, fraction: float, num: int) -> Float[np.ndarray, " num"]:
    """A weight under `weightdecay.Independent` decay at zero gradient, before the first step and after each step.

    Args:
      start: The weight.
      fraction: Fraction of the weight that a step removes.
      num: Number of values, one more than the number of steps.

    Returns:
      The weights.
    """
    optimizer = optimizers.sgd(1.0, Independent(fraction), mask=masks.everything)
    weight = {"weight": jnp.full((1,), start)}
    state, weights = optimizer.init(weight), [weight]
    for _ in range(num - 1):
        updates, state = optimizer.update(jax.tree.map(jnp.zeros_like, weight), state, weight)
        weight: Any = optax.apply_updates(weight, updates)
        weights.append(weight)
    return np.array([params["weight"][0] for params in weights], np.float64)


def improvement(trained: Trained) -> ArticleTable:
    """Table 5: the gain in test accuracy of each technique."""
    rows, checks = {}, []
    for setting in trained.settings:
        for method in (NONE, DECOUPLED, L1, L2, PROXIMAL):
            gained = claims.crossed(setting.test_scores(method) - setting.test_scores(NONE))
            rows[setting.name, method] = {f"improvement in test {setting.score} (points)": gained}
        for method in (DECOUPLED, L1, L2):
            checks.append(_ahead(setting, method, NONE, f"{method} improves test {setting.score}"))
    return ArticleTable(
        "Improvement by technique",
        "every technique improves accuracy.",
        pd.DataFrame({"improvement (points)": [0.0, 2.5, 1.8, 2.1]}, index=[NONE, DECOUPLED, L1, L2]),
        _frame(rows, row="technique"),
        tuple(checks),
        "The article's weight decay is taken to be decoupled decay, and its L2 to be the coupled rule.",
    )


def influence_of_the_coefficient(trained: Trained) -> ArticleTable:
    """Table 6: validation accuracy at three coefficients."""
    coefficients = (1e-4, 1e-3, 1e-2)
    rows: dict[tuple[str, Any], dict[str, Estimate]] = {}
    checks, best = [], []
    for setting in trained.settings:
        candidates = setting.comparison.result.candidates(setting.comparison.metric)
        for method in (L2, DECOUPLED):
            of_method = [candidates[number] for number in setting.comparison.trials[method]]
            column = f"validation {setting.score} (%), {method}"
            scores = []
            for coefficient in coefficients:
                (candidate,) = (each for each in of_method if _has_coefficient(each.decay, coefficient))
                scores.append(setting.curves("validation_score", candidate.members)[:, -1])
                rows.setdefault((setting.name, f"{coefficient:g}"), {})[column] = estimate(scores[-1])
            chosen = setting.choice(method)
            score = estimate(setting.curves("validation_score", chosen.members)[:, -1])
            rows.setdefault((setting.name, "the best"), {})[column] = score
            best.append(f"{setting.name}, {chosen.decay}")
            rise = estimate(scores[-1] - scores[0])
            claim = f"validation {setting.score} is higher at 0.01 than at 0.0001 of {method}"
            checks.append(Check(claim, setting.name, rise, "points"))
    return ArticleTable(
        "Influence of the coefficient",
        "accuracy rises with the coefficient from 0.0001 to 0.01.",
        pd.DataFrame({"accuracy (%)": [96.7, 97.2, 97.8]}, index=[f"{coefficient:g}" for coefficient in coefficients]),
        _frame(rows, row="coefficient"),
        tuple(checks),
        "The same number means a different strength under each rule, and the article does not name its rule. The best "
        f"coefficients: {'; '.join(best)}. This table does not use the test examples; its standard errors are those of "
        "seeds.",
    )


def non_zero_weights(trained: Trained) -> ArticleTable:
    """Table 7: the fraction of non-zero weights by epoch."""
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
        "Each method is shown with its most decayed candidate within one standard error of its best. L2 and the "
        "subgradient of L1 make weights small; they become exactly 0 only by underflow.",
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
        note="The losses do not include a penalty.",
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
    """Table 9: L2, L1 and batch normalization."""
    rows, checks = {}, []
    order = (L2, L1, NORMALIZED)
    for setting in trained.settings:
        for method in (*order, NONE):
            rows[setting.name, method] = {f"test {setting.score} (%)": claims.crossed(setting.test_scores(method))}
        for better, worse in itertools.pairwise(order):
            claim = f"{better} has a higher test {setting.score} than {worse}"
            checks.append(_ahead(setting, better, worse, claim))
    return ArticleTable(
        "Methods",
        "L2 is the best, then L1, then batch normalization.",
        pd.DataFrame({"accuracy (%)": [97.8, 97.4, 97.2]}, index=[*order]),
        _frame(rows, row="method"),
        tuple(checks),
        "Batch normalization has one candidate, without decay; the coefficients of L1 and L2 are chosen.",
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
"""The tables by the article's numbers; A and B come before its first."""

_PAIR = {"without": NONE, "with": DECOUPLED}


def _by_epoch(
    trained: Trained,
    quantities: Sequence[str],
    *,
    sign: int,
    title: str,
    claim: str,
    claimed: pd.DataFrame,
    note: str,
) -> ArticleTable:
    """A table of curves with and without decay; the check uses those with decay."""
    rows: dict[tuple[str, Any], dict[str, Estimate]] = {}
    checks = []
    for setting in trained.settings:
        for quantity in quantities:
            name = quantity.replace("training", "train").replace(" ", "_")
            title_of_column = quantity.replace("score", setting.score)
            unit = " (%)" if quantity.endswith("score") else ""
            for row, method in reversed(_PAIR.items()):
                curve = setting.by_epoch(name, setting.choice(method).members)
                for epoch, values in curve.items():
                    rows.setdefault((setting.name, epoch), {})[f"{title_of_column}{unit}, {row} decay"] = estimate(
                        values
                    )
                if method == DECOUPLED:
                    change = estimate(sign * (curve[EPOCHS[-1]] - curve[EPOCHS[0]]))
                    expected = f"{title_of_column} is {'higher' if sign > 0 else 'lower'} after epoch 4 than after 1"
                    checks.append(Check(expected, setting.name, change, "points" if unit else ""))
    return ArticleTable(title, claim, claimed, _frame(rows, row="epoch"), tuple(checks), note)


def _ahead(setting: Setting, better: str, worse: str, claim: str) -> Check:
    """Check that one method's choice has a higher score on the test examples than another's."""
    ahead = claims.crossed(setting.test_scores(better) - setting.test_scores(worse))
    return Check(claim, setting.name, ahead, "points")


def _frame(rows: Mapping[tuple[str, Any], Mapping[str, Estimate]], row: str = "decay") -> pd.DataFrame:
    """Estimates by setting and row, each followed by its standard error."""
    columns = dict.fromkeys(name for values in rows.values() for name in values)
    missing = _certain(math.nan)
    return pd.DataFrame(
        {
            f"{name}{ending}": [getattr(values.get(name, missing), attribute) for values in rows.values()]
            for name in columns
            for ending, attribute in (("", "mean"), ("_standard_error", "standard_error"))
        },
        index=pd.MultiIndex.from_tuples(list(rows), names=["setting", row]),
    )


def _certain(value: float) -> Estimate:
    """A number without noise."""
    return Estimate(float(value), 0.0, float(value), float(value), 1)


def _effective_number(params: Any) -> float:
    """``(Σ w²)² / Σ w⁴`` of the weights that decay: n where n of them have the same magnitude and the others are 0."""
    decays = masks.resolve(masks.kernels, params)
    squares = np.concatenate(
        [
            np.square(np.asarray(leaf, np.float64)).ravel()
            for leaf, decayed in zip(jax.tree.leaves(params), decays, strict=True)
            if decayed
        ]
    )
    return float(squares.sum() ** 2 / np.square(squares).sum()) if squares.any() else 0.0


def _has_coefficient(rule: Any, coefficient: float) -> bool:
    return math.isclose(float(rule.coefficient), coefficient, rel_tol=1e-6)
