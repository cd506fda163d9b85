"""How often does the interval that `wd.suggest` gives hold the best coefficient? Replayed on recorded grids.

`record` trains full grids once: no decay, and log-spaced coefficients of four rules, at three learning rates and with
four seeds. `calibrate` reads them (and those of `searching.py record`), and, for each task and learning rate, the turn
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
from typing import Any

import numpy as np
import searching

import weightdecay as wd

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
        "digits-100": (lambda: searching.digits(examples=100), adam),
        "breast-cancer": (wd.data.breast_cancer, adam),
        "digits-300-sgd": (lambda: searching.digits(examples=300, noise=0.2), {**adam, "optimizer": wd.sgd}),
        "wine-noisy": (lambda: wd.data.wine(label_noise=0.3), adam),
        "digits-noisy": (lambda: searching.digits(noise=0.2), adam),
        "clusters": (lambda: wd.data.clusters(label_noise=0.3), adam),
    }


def record(folder: Path, names: list[str] | None) -> None:
    """Train the grid of each task, and keep its curves."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (make, settings) in tasks().items():
        if names is not None and name not in names:
            continue
        started = time.perf_counter()
        scale = 30.0 if settings["optimizer"] is wd.sgd else 1.0
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


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["record", "calibrate"])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--tasks")
    arguments = parser.parse_args()
    record(arguments.folders[0], arguments.tasks.split(",") if arguments.tasks else None)


if __name__ == "__main__":
    main()
