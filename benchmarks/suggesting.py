"""How often does the interval that `wd.suggest` gives hold the best coefficient? Replayed on recorded grids.

`record` trains full grids once: no decay, and log-spaced coefficients of four rules, at three learning rates and with
four seeds. `calibrate` reads them (and those of `search_tasks.py`), and, for each task and learning rate, the turn
of the curve without decay and the best coefficient of each rule. It fits the numbers of
`weightdecay/decay/calibration.py`, prints them, and prints how often the interval held the best coefficient of a task
that the numbers were not fitted to.

    python benchmarks/suggesting.py record FOLDER [--tasks wine,diabetes]
    python benchmarks/suggesting.py calibrate FOLDER [FOLDER ...]
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import search_tasks
from peers import processor
from scipy import stats

import weightdecay as wd
from weightdecay.decay import KINDS, scaling
from weightdecay.search import calibration, turn

RATES, SEEDS = (1e-3, 3e-3, 1e-2), 4


def grid(scale: float = 1.0) -> wd.Grid:
    """The grid of every task; rates are multiplied by the scale."""
    rules = [
        wd.NoDecay(),
        *wd.logspace(wd.Decoupled, 1e-3, 1e1, 13),
        *wd.logspace(wd.Cautious, 1e-1, 1e2, 10),
        *wd.logspace(wd.L2, 1e-6, 1e0, 19),
        *wd.logspace(wd.ProximalL2, 1e-6, 1e0, 13),
    ]
    return wd.Grid(decay=rules, learning_rate=[scale * rate for rate in RATES], seed=range(SEEDS))


def tasks() -> dict[str, tuple[Callable[[], wd.Data], dict[str, Any]]]:
    """Data and settings of each task by name."""
    adam = {"num_steps": 1000, "batch_size": 64, "optimizer": wd.adam}
    return {
        "diabetes": (wd.data.diabetes, adam),
        "wine": (wd.data.wine, adam),
        "digits-100": (lambda: search_tasks.digits(examples=100), adam),
        "breast-cancer": (wd.data.breast_cancer, adam),
        "digits-300-sgd": (lambda: search_tasks.digits(examples=300, noise=0.2), {**adam, "optimizer": wd.sgd}),
        "digits-100-sgd": (lambda: search_tasks.digits(examples=100), {**adam, "optimizer": wd.sgd}),
        "diabetes-sgd": (wd.data.diabetes, {**adam, "optimizer": wd.sgd}),
        "wine-noisy": (lambda: wd.data.wine(label_noise=0.3), adam),
        "digits-noisy": (lambda: search_tasks.digits(noise=0.2), adam),
        "clusters": (lambda: wd.data.clusters(label_noise=0.3), adam),
    }


def record(folder: Path, names: list[str] | None) -> None:
    """Train the grid of each task, and keep its curves."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (make, settings) in tasks().items():
        if names is not None and name not in names:
            continue
        started = time.perf_counter()
        scale = 100.0 if settings["optimizer"] is wd.sgd else 1.0
        members = grid(scale)
        result = wd.fit_grid(wd.models.MLP((64,)), make(), members, eval_every=20, progress=False, **settings)
        np.savez_compressed(
            folder / f"{name}.npz",
            validation=result.dataset["validation_loss"].values,
            steps=result.dataset["step"].values,
            rules=[member["decay"].name for member in members],
            coefficients=result.dataset["coefficient"].values,
            learning_rates=[member["learning_rate"] for member in members],
            seeds=[member["seed"] for member in members],
            optimizer=result.settings["optimizer"],
        )
        print(f"{name}: {len(result)} members in {time.perf_counter() - started:.1f} s", flush=True)


class Case(NamedTuple):
    """The best coefficient of a rule in a task at one learning rate, and what the run without decay says."""

    task: str
    key: tuple[str, str]  # what the coefficient keeps, and the rule
    best: float  # the coefficient with the best mean
    middle: float  # of the coefficients within one standard error of it
    unit: float  # 1 / R(turn) - 1 / R(end); without a turn 1 / R(end)
    has_turned: bool
    is_at_edge: bool  # of the grid
    none_is_as_good: bool  # no decay is within one standard error of the best


def cases(folders: list[Path]) -> list[Case]:
    """Read the recordings."""
    found = []
    for file in (file for folder in folders for file in sorted(folder.glob("*.npz"))):
        recorded = _recording(file)
        values, steps = recorded["validation"].astype(np.float64), recorded["steps"]
        momentum = 0.0 if recorded["optimizer"] == "sgd" else None
        for rate in np.unique(recorded["learning_rates"]):
            at_rate = recorded["learning_rates"] == rate
            curves = values[at_rate & (recorded["rules"] == "NoDecay")]
            curves = curves[np.isfinite(curves).all(axis=1)]
            if not len(curves):  # they diverged
                continue
            turned, without = turn.find(steps, curves), curves[:, -1].mean()
            for name in dict.fromkeys(recorded["rules"][recorded["rules"] != "NoDecay"]):
                chosen = at_rate & (recorded["rules"] == name)
                coefficients = np.unique(recorded["coefficients"][chosen])
                last = np.array([values[chosen & (recorded["coefficients"] == c), -1] for c in coefficients])
                means = np.where(np.isfinite(last).all(axis=1), last.mean(axis=1), np.inf)
                best = int(np.argmin(means))
                error = last[best].std(ddof=1) / np.sqrt(last.shape[1])
                low = high = best
                while low > 0 and means[low - 1] <= means[best] + error:
                    low -= 1
                while high < len(means) - 1 and means[high + 1] <= means[best] + error:
                    high += 1
                basis = scaling.basis(KINDS[str(name)].from_one(1.0), momentum=momentum)
                if basis is None or (basis == scaling.OBJECTIVE and momentum is not None):
                    continue
                kind = KINDS[str(name)] if basis == scaling.TIME_SCALE else wd.Decoupled
                unit = 1 / scaling.removed_until(kind, float(rate), int(steps[-1]), momentum=momentum)
                if turned is not None:
                    unit = 1 / scaling.removed_until(kind, float(rate), turned.step, momentum=momentum) - unit
                found.append(
                    Case(
                        *(file.stem, (basis, str(name)), float(coefficients[best])),
                        *(float(np.sqrt(coefficients[low] * coefficients[high])), unit, turned is not None),
                        best in (0, len(coefficients) - 1),
                        bool(without <= means[best] + error),
                    )
                )
    return found


def _recording(file: Path) -> dict[str, Any]:
    """Read a recording of this program, or of `search_tasks.py`."""
    recorded = dict(np.load(file))
    if "rules" not in recorded:
        members = list(search_tasks.Task(lambda path: search_tasks.digits(), True).grid())
        recorded |= {
            "rules": np.array([member["decay"].name for member in members]),
            "coefficients": np.array([getattr(member["decay"], "coefficient", np.nan) for member in members]),
            "learning_rates": np.array([member["learning_rate"] for member in members]),
            "optimizer": "adam",
        }
    return recorded


def calibrate(folders: list[Path]) -> None:
    """Fit the calibration, and print it with how often it holds for a task that it was not fitted to."""
    found = cases(folders)
    print(f"{len({case.task for case in found})} tasks, {processor()}")
    print("keeps,rule,factor,log_width,tasks,cases,at the edge,best in 80 %,best in 95 %,as good in 80 %")
    for key in dict.fromkeys(case.key for case in found):
        turned = [case for case in found if case.key == key and case.has_turned]
        by_task: dict[str, np.ndarray] = {}
        for case in turned:
            logarithm = np.log(case.middle / case.unit)
            by_task[case.task] = np.append(by_task.get(case.task, np.zeros(0)), logarithm)
        if len(by_task) < 3:
            print(f"{','.join(key)},{len(by_task)} tasks are too few")
            continue
        factor, width = _fitted(by_task)
        print(f"{','.join(key)},{np.exp(factor):.3g},{width:.2f},{len(by_task)},{len(turned)}", end="")
        print(f",{sum(case.is_at_edge for case in turned)}", end="")
        for confidence, attribute in ((0.8, "best"), (0.95, "best"), (0.8, "middle")):
            held = 0
            for case in turned:
                others = {task: values for task, values in by_task.items() if task != case.task}
                left_factor, left_width = _fitted(others)
                half = stats.t.ppf(0.5 + confidence / 2, len(others) - 1) * left_width
                held += abs(np.log(getattr(case, attribute) / case.unit) - left_factor) <= half
            print(f",{held} of {len(turned)}", end="")
        print()
    never = [case for case in found if not case.has_turned]
    known = [(case, one) for case in never if (one := calibration.of_rule(*case.key, "adam")) is not None]
    below = sum(case.best <= one.factors(0.8)[1] * case.unit for case, one in known)
    print(f"without a turn: the best is at most the largest likely coefficient in {below} of {len(known)} cases")
    held = sum(case.none_is_as_good for case in never)
    print(f"without a turn: no decay is within one standard error of the best in {held} of {len(never)} cases")
    for case in never:
        print(f"  {case.task},{case.key[1]},best {case.best:.2g},times R(end) {case.best / case.unit:.2g}")
    for case in found:
        if case.has_turned:
            print(f"  {case.task},{case.key[1]},best {case.best:.2g},factor {case.middle / case.unit:.2g}")


def _fitted(by_task: dict[str, np.ndarray]) -> tuple[float, float]:
    """Mean logarithm over tasks, and the standard deviation for a task that is not among them."""
    means = np.array([values.mean() for values in by_task.values()])
    residuals = []
    for index, values in enumerate(by_task.values()):
        others = np.delete(means, index).mean()
        residuals.append(((values - others) ** 2).mean())
    return float(means.mean()), float(np.sqrt(np.mean(residuals)))


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["record", "calibrate"])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--tasks")
    arguments = parser.parse_args()
    if arguments.action == "record":
        record(arguments.folders[0], arguments.tasks.split(",") if arguments.tasks else None)
    else:
        calibrate(arguments.folders)


if __name__ == "__main__":
    main()
