"""How good is a coefficient that `GridResult.transfer` predicts for another run? Recorded runs of several sizes.

`record` trains, for each task, a grid of no decay, `Decoupled` and `L2` at five sizes: three lengths at one batch size,
and two other batch sizes for the same number of epochs. `judge` predicts the coefficient of each size from the best one
of each other size, and from a law fitted to all others, and says how often the prediction was within one standard error
of the best coefficient that the size has itself.

    python benchmarks/transferring.py record FOLDER [--tasks digits-150,wine]
    python benchmarks/transferring.py judge FOLDER
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import searching

import weightdecay as wd

SIZES = ((300, 64), (1000, 64), (3000, 64), (500, 128), (2000, 32))
"""Steps and batch size of each run; the last two have as many epochs as the second."""


def grid() -> wd.Grid:
    """The grid of every run."""
    rules = [wd.NoDecay(), *wd.logspace(wd.Decoupled, 1e-2, 1e1, 13), *wd.logspace(wd.L2, 1e-5, 1e-1, 13)]
    return wd.Grid(decay=rules, learning_rate=3e-3, seed=range(5))


def tasks() -> dict[str, Callable[[], wd.Data]]:
    """Data of each task by name."""
    return {
        "digits-150": lambda: searching.digits(examples=150),
        "digits-300-noisy": lambda: searching.digits(examples=300, noise=0.4),
        "diabetes": wd.data.diabetes,
        "wine-noisy": lambda: wd.data.wine(label_noise=0.3),
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
                eval_every=num_steps // 10,
                progress=False,
            )
            result.save(folder / f"{name}-{num_steps}-{batch_size}", overwrite=True)
            print(f"{name}, {num_steps} steps of {batch_size}: {time.perf_counter() - started:.1f} s", flush=True)


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["record", "judge"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tasks")
    arguments = parser.parse_args()
    record(arguments.folder, arguments.tasks.split(",") if arguments.tasks else None)


if __name__ == "__main__":
    main()
