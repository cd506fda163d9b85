"""What are the rules of 2026 worth, against tuned decoupled decay?

On each set every rule gets the same learning rates, and its coefficients; the best candidate of each rule by the mean
validation loss over three seeds is scored on the test examples. Rules are compared with `Decoupled` by seed: the
members of a seed start from the same weights and see the same batches.

Prints, for each set and rule, what was chosen and the difference of its test loss to that of tuned `Decoupled`, in
percent of the latter, ± one standard error over the seeds. With three seeds a difference below about four standard
errors is within noise (Student's t, 95 %). The intervals are not corrected for their number.

    python benchmarks/recent_rules.py PATH [--sets concrete,yacht]

PATH is a folder as in `real_data.py`.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from peers import processor
from search_tasks import TASKS, Task, loss_of

import weightdecay as wd

SEEDS = 3
RATES = (1e-3, 3e-3, 1e-2, 3e-2)
SETS = ("digits-300-noisy", "concrete", "yacht", "energy-200", "wine", "mnist-500", "text")
BASELINE = "Decoupled"
RULES: dict[str, list[Any]] = {
    "NoDecay": [wd.NoDecay()],
    BASELINE: wd.logspace(wd.Decoupled, 1e-2, 1e1, 7),
    "Cautious": wd.logspace(wd.Cautious, 1e-2, 1e1, 7),
    "SODA": [wd.SODA()],
    "SODA, ends at half": [wd.SODA(fade=0.5)],
    "Hyperball": [wd.Hyperball()],
    "RadialBrake": [wd.RadialBrake(coefficient) for coefficient in (0.0, 0.1, 0.3, 0.6)],
}


def compared(task: Task, path: Path) -> dict[str, tuple[str, float, float]]:
    """Train a set.

    Args:
      task: The set and its network.
      path: Folder of the data.

    Returns:
      By the name of the rule: what was chosen, the difference of its test loss to that of the baseline, in percent, and
      its standard error.
    """
    data = task.data(path)
    grid = wd.Grid(
        decay=[rule for rules in RULES.values() for rule in rules], learning_rate=list(RATES), seed=range(SEEDS)
    )
    settings: dict[str, Any] = {"num_steps": task.num_steps, "batch_size": task.batch_size, "progress": False}
    result = wd.fit_grid(task.model, data, grid, optimizer=task.optimizer, eval_every=task.num_steps // 10, **settings)
    chosen, tested = {}, {}
    for name, rules in RULES.items():
        of_rule = result.where(decay=rules)
        best = of_rule.best()
        chosen[name] = f"{best.decay}, {best.hyperparameters['learning_rate']:g}"
        predicted = [of_rule.predict(data.test[0], member) for member in best.members]
        tested[name] = np.array([loss_of(outputs, data.test[1]) for outputs in predicted])
    base = tested[BASELINE]
    rows = {}
    for name, losses in tested.items():
        apart = 100 * (losses - base) / base.mean()
        rows[name] = chosen[name], float(apart.mean()), float(apart.std(ddof=1) / np.sqrt(SEEDS))
    return rows


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--sets", default=",".join(SETS))
    options = parser.parse_args()
    print(f"{SEEDS} seeds, learning rates {RATES}, {processor()}", flush=True)
    everything: dict[str, dict[str, tuple[str, float, float]]] = {}
    for name in options.sets.split(","):
        started = time.perf_counter()
        everything[name] = compared(TASKS[name], options.path)
        print(f"\n{name}, {time.perf_counter() - started:.0f} s", flush=True)
        for rule, (chosen, mean, error) in everything[name].items():
            print(f"  {rule:20} {mean:+7.2f} ± {error:.2f} %   {chosen}", flush=True)
    print(f"\n| test loss minus that of tuned {BASELINE}, % | {' | '.join(everything)} |")
    print(f"|{'---|' * (1 + len(everything))}")
    for rule in RULES:
        cells = [f"{rows[rule][1]:+.1f} ± {rows[rule][2]:.1f}" for rows in everything.values()]
        print(f"| {rule} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
