"""What does it cost to record diagnostics in every run?

Trains the same grid with and without norms, sparsity, rotation and step length by layer in its evaluations. Both
programs are compiled before anything is timed, and run in turn in one process. Prints one line of JSON per side, and
the ratio.

    python benchmarks/watching.py
"""

import json
import statistics
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import peers

import weightdecay as wd
from weightdecay.training import diagnostics, task

_REPEATS = 9


class _Watched(wd.models.MLP):
    """A network with another name, so that each side has its own compiled program."""


class _Unwatched(wd.models.MLP):
    """Likewise."""


def _nothing(params: Any, previous: Any, decays: list[bool]) -> dict[str, Any]:
    return {name: jnp.zeros((sum(decays),)) for name in task.LAYER_METRICS}


def main() -> None:
    """Run the benchmark."""
    data = wd.data.digits()
    grid = wd.Grid(decay=[wd.NoDecay(), *wd.logspace(wd.Decoupled, 1e-3, 1e1, 15)], learning_rate=1e-3, seed=range(4))

    def run(model: Any) -> float:
        return wd.fit_grid(model, data, grid, num_steps=1000, batch_size=64, progress=False).settings["seconds"]

    def watched() -> float:
        return run(_Watched((64, 64)))

    def unwatched() -> float:
        with (
            mock.patch.object(diagnostics, "by_layer", _nothing),
            mock.patch.dict(diagnostics.OF_WEIGHTS, near_zero_fraction=lambda params, decays: 0.0),
        ):
            return run(_Unwatched((64, 64)))

    sides = {"with diagnostics": watched, "without": unwatched}
    for side in sides.values():
        side()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(_REPEATS):
        for name, side in sides.items():
            seconds[name].append(side())
    devices = f"{len(jax.local_devices())} {jax.default_backend()} devices"
    print(f"{peers.processor()}, {devices}, jax {jax.__version__}, n = {_REPEATS}")
    for name, times in seconds.items():
        print(json.dumps({"benchmark": "watching", "side": name, "members": len(grid), "seconds": times}))
    first, second = (statistics.median(seconds[name]) for name in sides)
    print(f"median {first:.2f} s with diagnostics, {second:.2f} s without: ratio {first / second:.3f}")


if __name__ == "__main__":
    main()
