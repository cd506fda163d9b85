"""What does a coefficient cost that is nearly the best? Strategies of search, replayed on recorded grids.

A member has the same bits in any grid, so that a search over a recorded grid gives exactly what the search itself would
have given. `record` trains full grids once: no decay, 17 `Decoupled` from 1e-3 to 1e1 and 17 `L2` from 1e-6 to 1e-1,
three learning rates, and some seeds. `replay` lets every strategy search them, with other seeds and other draws.

Regret is in units of what decay is worth: 0 = the best candidate of the grid, 1 = the best without decay, by the mean
final validation loss over all seeds. The unit is at least two standard errors of the best candidate, below which decay
cannot be told from noise.

    python benchmarks/searching.py record FOLDER [--data PATH] [--tasks digits,wine]
    python benchmarks/searching.py replay FOLDER [--replicates 20]

PATH is a folder with `uci`, as in `real_data.py`.
"""

import argparse
import gzip
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from peers import processor

import weightdecay as wd
from weightdecay.decay.families import is_without_decay
from weightdecay.engine.race import Race
from weightdecay.search import member
from weightdecay.search.strategies import Full, Halving, Strategy, Surface

BUDGETS = (0.05, 0.1, 0.25, 0.5)
SEEDS, SEARCHED = 5, 3  # seeds of the recorded grid, by which a choice is judged; and of the grid that is searched
RATES = (1e-3, 3e-3, 1e-2)


def grid(seeds: int = SEEDS) -> wd.Grid:
    """The grid of every task."""
    rules = [
        wd.NoDecay(),
        *wd.logspace(wd.Decoupled, 1e-3, 1e1, 17),
        *wd.logspace(wd.L2, 1e-6, 1e-1, 17),
    ]
    return wd.Grid(decay=rules, learning_rate=list(RATES), seed=range(seeds))


def digits(*, examples: int | None = None, noise: float = 0.0) -> wd.Data:
    """Digits of scikit-learn, a part of them, or with wrong labels among the training examples."""
    data = wd.data.digits()
    inputs, labels = (np.asarray(array) for array in data.train[:2])
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(labels))[: examples or len(labels)]
    inputs, labels = inputs[rows], labels[rows].copy()
    wrong = rng.random(len(labels)) < noise
    labels[wrong] = rng.integers(0, 10, wrong.sum())
    return wd.Data(train=(inputs, labels), validation=data.validation, test=data.test)


def uci(path: Path, name: str, *, examples: int | None = None) -> wd.Data:
    """A regression set of UCI, standardized by its training rows."""
    with gzip.open(path / "uci" / f"{name}-data.csv.gz", "rt") as file:
        rows = np.loadtxt(file, delimiter=",")
    rows = rows[np.random.default_rng(0).permutation(len(rows))[: examples or len(rows)]]
    first, second = int(0.6 * len(rows)), int(0.8 * len(rows))
    mean, scale = rows[:first].mean(axis=0), rows[:first].std(axis=0) + 1e-12
    rows = ((rows - mean) / scale).astype(np.float32)
    inputs, targets = rows[:, :-1], rows[:, -1]
    parts = slice(0, first), slice(first, second), slice(second, None)
    return wd.Data(*[(inputs[part], targets[part]) for part in parts])


def tasks(path: Path | None) -> dict[str, tuple[Callable[[], wd.Data], dict[str, Any]]]:
    """Data and settings of each task by name; those of UCI only where there is a path."""
    adam = {"num_steps": 1000, "batch_size": 64, "optimizer": wd.adam}
    sgd = {**adam, "optimizer": _momentum}
    made: dict[str, tuple[Callable[[], wd.Data], dict[str, Any]]] = {
        "digits": (digits, adam),
        "digits-300-noisy": (lambda: digits(examples=300, noise=0.4), adam),
        "digits-noisy": (lambda: digits(noise=0.2), adam),
        "digits-150": (lambda: digits(examples=150), adam),
        "digits-sgd": (lambda: digits(examples=300, noise=0.2), sgd),
    }
    for name in ("wine", "concrete", "yacht", "energy") if path is not None else ():
        made[name] = (lambda name=name: uci(path, name), adam)
        made[f"{name}-100"] = (lambda name=name: uci(path, name, examples=200), adam)
    return made


def _momentum(learning_rate: Any, decay: Any, mask: Any) -> Any:
    return wd.sgd(10 * learning_rate, decay, 0.9, mask=mask)


def record(folder: Path, path: Path | None, names: list[str] | None) -> None:
    """Train the full grid of each task, and keep its curves."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (make, settings) in tasks(path).items():
        if names is not None and name not in names:
            continue
        started = time.perf_counter()
        result = wd.fit_grid(wd.models.MLP((64,)), make(), grid(), eval_every=20, progress=False, **settings)
        seconds = time.perf_counter() - started
        dataset = result.dataset
        np.savez_compressed(
            folder / f"{name}.npz",
            validation=dataset["validation_loss"].values,
            steps=dataset["step"].values,
            diverged_at=dataset["diverged_at"].values,
        )
        print(f"{name}: {len(result)} members in {seconds:.1f} s", flush=True)


def regret(values: np.ndarray, chosen: int | None, members: list[list[int]], without: list[int]) -> tuple[float, float]:
    """Regret of a candidate, and the part of the unit that is noise."""
    means = np.array([values[rows].mean() for rows in members])
    means = np.where(np.isfinite(means), means, np.inf)
    best = int(np.argmin(means))
    noise = 2 * values[members[best]].std(ddof=1) / np.sqrt(len(members[best]))
    unit = max(min(means[number] for number in without) - means[best], noise)
    lost = np.inf if chosen is None else means[chosen] - means[best]
    return float(min(lost / unit, 3.0)), float(noise / unit)


def search(recorded: Any, strategy: Strategy, budget: float, order: np.ndarray) -> tuple[int | None, float]:
    """Search a recorded grid with some of its seeds; return the chosen candidate and what was spent."""
    searched, steps, at_once = grid(SEARCHED), recorded["steps"], 32
    values, diverged_at = recorded["validation"].astype(np.float64), recorded["diverged_at"]
    numbers = np.arange(len(searched)) // SEARCHED
    rows = np.arange(len(values)).reshape(-1, SEEDS)[:, order[:SEARCHED]].ravel()  # the seed is the last axis
    race = Race(strategy, searched, steps.tolist(), int(budget * len(searched) * int(steps[-1])), at_once)
    while race.next_round(values[rows], diverged_at[rows]):
        pass
    finished = race.reached >= steps[-1]
    last = np.where(np.isfinite(values[rows, -1]), values[rows, -1], np.inf)
    complete = [number for number in np.unique(numbers) if finished[numbers == number].all()]
    means = [last[numbers == number].mean() for number in complete]
    return (int(complete[int(np.argmin(means))]) if complete else None), race.spent


def replay(folder: Path, replicates: int, strategies: dict[str, Callable[[int], Strategy]]) -> None:
    """Let each strategy search each recorded grid; print the mean regret at each budget."""
    members = list(grid())
    numbers = member.candidates(members)
    rows = [[index for index, one in enumerate(numbers) if one == number] for number in sorted(set(numbers))]
    without = [number for number, indices in enumerate(rows) if is_without_decay(members[indices[0]]["decay"])]
    recordings = {file.stem: dict(np.load(file)) for file in sorted(folder.glob("*.npz"))}
    print(f"{len(recordings)} tasks, {replicates} replicates, {processor()}")
    print("strategy," + ",".join(f"{100 * budget:g} %" for budget in BUDGETS))
    for name, make in strategies.items():
        table = np.zeros((len(recordings), len(BUDGETS)))
        for task, recorded in enumerate(recordings.values()):
            last = recorded["validation"][:, -1].astype(np.float64)
            for column, budget in enumerate(BUDGETS):
                regrets = []
                for replicate in range(replicates):
                    order = np.random.default_rng(replicate).permutation(SEEDS)
                    chosen, _ = search(recorded, make(replicate), budget, order)
                    regrets.append(regret(last, chosen, rows, without)[0])
                table[task, column] = np.mean(regrets)
        print(f"{name}," + ",".join(f"{value:.2f}" for value in table.mean(axis=0)), flush=True)
        for task, values in zip(recordings, table, strict=True):
            print(f"  {task}," + ",".join(f"{value:.2f}" for value in values), flush=True)


STRATEGIES: dict[str, Callable[[int], Strategy]] = {
    "Surface": lambda replicate: Surface(seed=1000 * replicate),
    "Halving, first rung 1/27": lambda replicate: Halving(),
    "Halving, first rung 1/3": lambda replicate: Halving(first=1 / 3),
    "Full, in order": lambda replicate: Full(),
}


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["record", "replay"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--tasks")
    parser.add_argument("--replicates", type=int, default=20)
    arguments = parser.parse_args()
    if arguments.action == "record":
        record(arguments.folder, arguments.data, arguments.tasks.split(",") if arguments.tasks else None)
    else:
        replay(arguments.folder, arguments.replicates, STRATEGIES)


if __name__ == "__main__":
    main()
