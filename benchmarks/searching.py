"""What does a coefficient cost that is nearly the best? Strategies and rivals, replayed on recorded grids.

A member has the same bits in any grid, so that a search over a recorded grid gives exactly what the search itself would
have given. `search_tasks.py` records full grids once; here every strategy of the library, and every rival, searches
them, in each replicate with other seeds and other draws. The grid that is searched has three of the five seeds.

Regret is in units of what decay is worth: 0 = the best candidate of the grid, 1 = the best without decay, by the mean
final validation loss over all five seeds; at most 3. The unit is at least two standard errors of the best candidate,
below which decay cannot be told from noise: "noise" is that fraction of the unit. The test regret is that of the same
choice in the same unit on test examples, from the best candidate by validation loss. "rounds" counts how often the
devices wait for a decision, and "wall" is the number of lane times, of 32 members side by side, over that of the grid.

    python benchmarks/searching.py FOLDER [--replicates 100] [--tasks digits,wine] [--only Surface,random] [--plot FILE]
"""

import argparse
import functools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from peers import processor
from search_rivals import RIVALS, Trainings
from search_tasks import SEEDS, TASKS, Task

from weightdecay.decay.families import is_without_decay
from weightdecay.engine.race import Race
from weightdecay.search.strategies import Full, Halving, Strategy, Surface

BUDGETS = (0.05, 0.1, 0.25, 0.5)
SEARCHED = 3  # seeds of the grid that is searched; a choice is judged by all recorded ones
AT_ONCE = 32  # members that train side by side: lanes of 16 on two devices

STRATEGIES: dict[str, Callable[[int], Strategy]] = {
    "Surface (the default)": lambda replicate: Surface(seed=replicate),
    "Halving, first rung 1/27": lambda replicate: Halving(),
    "Halving, first rung 1/3": lambda replicate: Halving(first=1 / 3),
    "Full, in order": lambda replicate: Full(),
}


class Outcome(NamedTuple):
    """What a search of a recorded grid came to."""

    validation: float  # regret
    test: float
    spent: float
    wall: float  # nan for rivals


class Recording:
    """The recorded grid of a task."""

    def __init__(self, name: str, folder: Path) -> None:
        """Read it."""
        self.task: Task = TASKS[name]
        with np.load(folder / f"{name}.npz") as file:
            self.steps, diverged_at = file["steps"], file["diverged_at"]
            curves, test = file["validation"].astype(np.float64), file["test"].astype(np.float64)
        self.members = list(self.task.grid(1))
        dead = (diverged_at[:, None] >= 0) & (diverged_at[:, None] < self.steps[None, :])
        self.curves = np.where(dead | ~np.isfinite(curves), np.inf, curves).reshape(len(self.members), SEEDS, -1)
        self.diverged_at = diverged_at.reshape(-1, SEEDS)
        without = [index for index, member in enumerate(self.members) if is_without_decay(member["decay"])]
        last = self.curves[:, :, -1]
        self.means = last.mean(axis=1)
        self.test_means = np.where(np.isfinite(test), test, np.inf).reshape(-1, SEEDS).mean(axis=1)
        self.best = int(np.argmin(self.means))
        self.noise = 2 * float(last[self.best].std(ddof=1)) / math.sqrt(SEEDS)
        worth = float(self.means[without].min() - self.means[self.best])
        self.unit = max(worth, self.noise)

    def seeds(self, replicate: int) -> np.ndarray:
        """Those of a replicate."""
        return np.random.default_rng(replicate).permutation(SEEDS)[:SEARCHED]

    def outcome(self, chosen: int | None, spent: float, wall: float = math.nan) -> Outcome:
        """Judge a choice."""
        if chosen is None:
            return Outcome(3.0, 3.0, spent, wall)
        losses = self.means[chosen] - self.means[self.best], self.test_means[chosen] - self.test_means[self.best]
        return Outcome(*(float(min(loss / self.unit, 3.0)) for loss in losses), spent, wall)


def search(recording: Recording, strategy: Strategy, budget: float, replicate: int) -> Outcome:
    """Let a strategy of the library search a recorded grid."""
    grid, steps, seeds = recording.task.grid(SEARCHED), recording.steps, recording.seeds(replicate)
    curves = recording.curves[:, seeds].reshape(len(grid), -1)
    diverged_at = recording.diverged_at[:, seeds].reshape(-1)
    race = Race(strategy, grid, steps.tolist(), int(budget * len(grid) * int(steps[-1]) + 1e-6), AT_ONCE)
    wall, reached = 0.0, race.reached.copy()
    while race.next_round(curves, diverged_at):
        trained = race.reached - reached
        for start in np.unique(reached[trained > 0]):  # members of a lane have taken the same number of steps
            lane = trained[(trained > 0) & (reached == start)]
            wall += math.ceil(len(lane) / AT_ONCE) * int(lane.max())
        reached = race.reached.copy()
    complete = (race.reached >= steps[-1]).reshape(-1, SEARCHED).all(axis=1)
    means = np.where(complete, curves[:, -1].reshape(-1, SEARCHED).mean(axis=1), np.inf)
    chosen = int(np.argmin(means)) if complete.any() else None
    return recording.outcome(chosen, race.spent, wall / (math.ceil(len(grid) / AT_ONCE) * int(steps[-1])))


def run_rival(recording: Recording, name: str, budget: float, replicate: int) -> Outcome:
    """Let a rival search a recorded grid."""
    curves = recording.curves[:, recording.seeds(replicate)]
    allowed = int(budget * curves.shape[0] * SEARCHED * int(recording.steps[-1]) + 1e-6)
    trainings = Trainings(curves, recording.steps, recording.members, allowed)
    chosen = RIVALS[name](trainings, np.random.default_rng(replicate))
    return recording.outcome(chosen, (allowed - trainings.left) * budget / allowed)


def replay(folder: Path, task: str, name: str, replicates: int, budgets: Sequence[float] = BUDGETS) -> np.ndarray:
    """Search a recorded grid many times; shape ``(budgets, replicates, 4)``, in the order of `Outcome`."""
    recording = Recording(task, folder)
    rows = []
    for budget in budgets:
        for replicate in range(replicates):
            if name in STRATEGIES:
                rows.append(search(recording, STRATEGIES[name](replicate), budget, replicate))
            else:
                rows.append(run_rival(recording, name, budget, replicate))
    return np.array(rows, np.float64).reshape(len(budgets), replicates, 4)


def report(results: dict[str, dict[str, np.ndarray]], tasks: dict[str, Recording]) -> str:
    """Tables in Markdown: mean regret of each way at each budget, in tuned and in other tasks, and each task's."""
    ours = next(iter(STRATEGIES))
    draws = range(next(iter(next(iter(results.values())).values())).shape[1])
    whole = {
        task: float(np.mean([search(recording, Full(), 1.0, draw).validation for draw in draws]))
        for task, recording in tasks.items()
    }
    heads = [f"{100 * budget:g} %" for budget in BUDGETS]
    lines = []
    for title, tuned in (("tasks on which the default was tuned", True), ("other tasks", False)):
        chosen = [task for task, recording in tasks.items() if recording.task.tuned_on == tuned]
        if not chosen:
            continue
        lines += [f"\n{title} ({len(chosen)}): validation regret, (test regret), and lane times / the grid's\n"]
        lines += [_row(["", *heads, *[f"wall, {head}" for head in heads]]), _row(["---"] * (1 + 2 * len(heads)))]
        for name, by_task in results.items():
            means = np.mean([by_task[task].mean(axis=1) for task in chosen], axis=0)
            cells = [f"{mean[0]:.2f} ({mean[1]:.2f})" for mean in means]
            walls = ["" if np.isnan(mean[3]) else f"{mean[3]:.2f}" for mean in means]
            lines.append(_row([name, *cells, *walls]))
    lines += ["\npaired over tasks and replicates: regret minus that of the default, ± its standard error over tasks\n"]
    lines += [_row(["", *heads]), _row(["---"] * (1 + len(heads)))]
    for name, by_task in results.items():
        if name != ours and ours in results:
            apart = np.array([(by_task[task] - results[ours][task])[..., 0].mean(axis=1) for task in tasks])
            errors = apart.std(axis=0, ddof=1) / math.sqrt(len(tasks)) if len(tasks) > 1 else apart[0] * np.nan
            cells = [f"{mean:+.2f} ± {error:.2f}" for mean, error in zip(apart.mean(axis=0), errors, strict=True)]
            lines.append(_row([name, *cells]))
    lines += ["\neach task: noise, and the regret of the default and of the whole grid with its three seeds\n"]
    lines += [_row(["", "noise", *heads, "whole grid"]), _row(["---"] * (3 + len(heads)))]
    for task, recording in tasks.items():
        regrets = results[ours][task].mean(axis=1)[:, 0] if ours in results else np.full(len(BUDGETS), np.nan)
        lines.append(
            _row(
                [
                    task,
                    f"{recording.noise / recording.unit:.2f}",
                    *[f"{value:.2f}" for value in regrets],
                    f"{whole[task]:.2f}",
                ]
            )
        )
    return "\n".join(lines)


def plot(results: dict[str, dict[str, np.ndarray]], file: Path) -> None:
    """Draw regret over cost, and the Pareto front."""
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    styles = [(color, marker) for marker in "os^" for color in plt.get_cmap("tab10").colors]  # pyright: ignore[reportAttributeAccessIssue]
    points = []
    for (name, by_task), (color, marker) in zip(results.items(), styles, strict=False):
        means = np.mean([values.mean(axis=1) for values in by_task.values()], axis=0)
        width = 2.5 if name == next(iter(STRATEGIES)) else 1
        axes.plot(means[:, 2], means[:, 0], color=color, marker=marker, lw=width, label=name)
        points += [(cost, regret) for regret, _, cost, _ in means]
    lowest, front = math.inf, []
    for cost, regret in sorted(points):
        if regret < lowest:
            lowest = regret
            front.append((cost, regret))
    axes.step(*zip(*front, strict=True), where="post", color="0.6", lw=6, alpha=0.4, zorder=0, label="Pareto front")
    axes.set(xscale="log", xlabel="fraction of the grid's member-steps", ylabel="mean regret (1 = no decay)")
    axes.legend(fontsize=7, ncols=2)
    plt.savefig(file, dpi=150)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tasks")
    parser.add_argument("--only", help="comma-separated beginnings of names")
    parser.add_argument("--replicates", type=int, default=100)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    wanted = options.tasks.split(",") if options.tasks else list(TASKS)
    tasks = {name: Recording(name, options.folder) for name in wanted if (options.folder / f"{name}.npz").exists()}
    names = [*STRATEGIES, *RIVALS]
    if options.only:
        names = [name for name in names if name.lower().startswith(tuple(options.only.lower().split(",")))]
    print(f"{len(tasks)} tasks, {options.replicates} replicates, {processor()}", flush=True)
    pairs = [(name, task) for name in names for task in tasks]
    one = functools.partial(_replayed, options.folder, options.replicates)
    if options.processes > 1:
        with ProcessPoolExecutor(options.processes) as pool:
            values = list(pool.map(one, pairs))
    else:
        values = list(map(one, pairs))
    results: dict[str, dict[str, Any]] = {name: {} for name in names}
    for (name, task), outcomes in zip(pairs, values, strict=True):
        results[name][task] = outcomes
    print(report(results, tasks))
    if options.plot:
        plot(results, options.plot)


def _replayed(folder: Path, replicates: int, pair: tuple[str, str]) -> np.ndarray:
    return replay(folder, pair[1], pair[0], replicates)


if __name__ == "__main__":
    main()
