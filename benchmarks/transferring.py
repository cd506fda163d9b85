"""How good is a coefficient that `GridResult.transfer` predicts for another run? Recorded runs of several sizes.

`record` trains, for each task, a grid of no decay, `Decoupled` and `L2` at five sizes: three lengths at one batch size,
and two other batch sizes for the same number of epochs. `judge` predicts the coefficient of each size from the best one
of each other size, and from a law fitted to all others, and says how often the prediction was within one standard error
of the best coefficient that the size has itself.

    python benchmarks/transferring.py record FOLDER [--tasks digits-150,wine]
    python benchmarks/transferring.py judge FOLDER
"""

import argparse
import itertools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import search_tasks
from peers import processor

import weightdecay as wd

RULES = ("Decoupled", "L2")
SIZES = ((300, 64), (1000, 64), (3000, 64), (500, 128), (2000, 32))
"""Steps and batch size of each run; the last two have as many epochs as the second."""


def grid() -> wd.Grid:
    """The grid of every run."""
    rules = [wd.NoDecay(), *wd.logspace(wd.Decoupled, 1e-2, 1e1, 13), *wd.logspace(wd.L2, 1e-5, 1e-1, 13)]
    return wd.Grid(decay=rules, learning_rate=3e-3, seed=range(5))


def tasks() -> dict[str, Callable[[], wd.Data]]:
    """Data of each task by name."""
    return {
        "digits-150": lambda: search_tasks.digits(examples=150),
        "digits-300-noisy": lambda: search_tasks.digits(examples=300, noise=0.4),
        "diabetes": wd.data.diabetes,
        "breast-cancer": wd.data.breast_cancer,
    }


def record(folder: Path, names: list[str] | None) -> None:
    """Train the grid of each task at each size, and save the results."""
    for name, make in tasks().items():
        if names is not None and name not in names:
            continue
        for num_steps, batch_size in SIZES:
            started = time.perf_counter()
            result = wd.fit_grid(
                *(wd.models.MLP((64,)), make(), grid()),
                num_steps=num_steps,
                batch_size=batch_size,
                eval_every=num_steps // 50,
                progress=False,
            )
            result.save(folder / f"{name}-{num_steps}-{batch_size}", overwrite=True)
            print(f"{name}, {num_steps} steps of {batch_size}: {time.perf_counter() - started:.1f} s", flush=True)


def best_of(result: wd.GridResult, rule: str) -> float:
    """The best coefficient of a rule."""
    return float(result.where(lambda one: one["decay"].name == rule).best().decay.coefficients()["coefficient"])  # pyright: ignore[reportArgumentType]


def errors_above(result: wd.GridResult, rule: str, coefficient: float) -> float:
    """By how many standard errors of the best coefficient of a rule another one is worse; infinite beyond the grid.

    Between the coefficients of the grid the mean is interpolated linearly in the logarithm; 0 is no decay.
    """
    candidates = [one for one in result.candidates() if one.decay.name == rule and np.isfinite(one.mean)]
    best = min(candidates, key=lambda one: one.mean)
    path = sorted((float(one.decay.coefficients()["coefficient"]), one.mean) for one in candidates)
    if coefficient == 0:
        without = result.no_decay()
        assert without is not None
        return (without.mean - best.mean) / best.standard_error
    logarithms, means = np.log([value for value, _ in path]), [mean for _, mean in path]
    mean = np.interp(np.log(coefficient), logarithms, means, left=np.inf, right=np.inf)
    return float((mean - best.mean) / best.standard_error)


def judge(folder: Path) -> None:
    """Predict the coefficient of each size from each other size, and from a law through all others."""
    names = [name for name in tasks() if (folder / f"{name}-{SIZES[0][0]}-{SIZES[0][1]}").is_dir()]
    results = {(name, size): wd.load(folder / f"{name}-{size[0]}-{size[1]}") for name in names for size in SIZES}
    print(f"{len(names)} tasks, {processor()}")
    for (name, size), result in results.items():
        best = [f"{rule} {best_of(result, rule):.2g}" for rule in RULES]
        print(f"  {name}, {size[0]} steps of {size[1]}: {', '.join(best)}")
    print("rule,change,pairs,transfer within 1 SE,2 SE,unchanged within 1 SE,2 SE,mean |log| of transfer,unchanged")
    lengths, batches = SIZES[:3], (SIZES[1], *SIZES[3:])
    for rule in RULES:
        for change, sizes in (("length", lengths), ("batch size", batches)):
            rows = []
            for name in names:
                for source, target in itertools.permutations(sizes, 2):
                    new = {"num_steps": target[0]} if change == "length" else {"batch_size": target[1]}
                    predicted = results[name, source].transfer(**new)[rule]
                    other = results[name, target]
                    own = best_of(other, rule)
                    rows.append(
                        [
                            errors_above(other, rule, predicted.coefficient),
                            errors_above(other, rule, predicted.before),
                            abs(np.log(predicted.coefficient / own)) if predicted.coefficient > 0 else np.nan,
                            abs(np.log(predicted.before / own)),
                        ]
                    )
            _print(f"{rule},{change}", np.array(rows))
        rows, held = [], 0
        for name in names:
            for target in SIZES:
                first, *others = (results[name, size] for size in SIZES if size != target)
                row = first.transfer(*others, num_steps=target[0], batch_size=target[1])[rule]
                other = results[name, target]
                own = best_of(other, rule)
                held += row.low <= own <= row.high
                rows.append(
                    [errors_above(other, rule, row.coefficient), np.nan, abs(np.log(row.coefficient / own)), np.nan]
                )
        _print(f"{rule},law of the four other sizes", np.array(rows))
        print(f"{rule}: the 95 % interval of the law held the size's own best in {held} of {len(rows)}")
        for name in names:
            first, *others = (results[name, size] for size in lengths)
            (steps,) = first.transfer(*others, num_steps=10_000)[rule].exponents.values()
            print(f"  {name}: exponent of the number of steps {steps.value:.2f} ± {steps.standard_error:.2f}")


def _print(label: str, rows: np.ndarray) -> None:
    """Print a row of the table."""
    transferred, unchanged = ([str((rows[:, column] <= limit).sum()) for limit in (1, 2)] for column in (0, 1))
    distances = [
        f"{np.nanmean(rows[:, column]):.2f}" if np.isfinite(rows[:, column]).any() else "-" for column in (2, 3)
    ]
    unchanged = unchanged if distances[1] != "-" else ["-", "-"]
    print(",".join([label, str(len(rows)), *transferred, *unchanged, *distances]))


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["record", "judge"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tasks")
    arguments = parser.parse_args()
    if arguments.action == "record":
        record(arguments.folder, arguments.tasks.split(",") if arguments.tasks else None)
    else:
        judge(arguments.folder)


if __name__ == "__main__":
    main()
