"""What does it cost to train four kinds of decay in one grid?

Trains the same number of members twice: all with one kind of decay, and a quarter with each of four kinds. Both are
compiled before anything is timed, and run in turn in one process. Each time is that of a complete call of
`weightdecay.fit_grid`, with initialization and evaluations. Prints one line of JSON per measurement, and a table.

    python benchmarks/mixing.py
"""

import json
import statistics
import time

import jax
import peers

import weightdecay as wd

_REPEATS = 7
_MEMBERS = 128


def main() -> None:
    """Run the benchmark."""
    data = wd.data.digits()
    kinds = (wd.L2, wd.L1, wd.ProximalL1, wd.Decoupled)
    grids = {
        "one kind (Decoupled)": wd.logspace(wd.Decoupled, 1e-4, 1e1, _MEMBERS),
        "four kinds": [rule for kind in kinds for rule in wd.logspace(kind, 1e-6, 1e-2, _MEMBERS // len(kinds))],
    }

    def run(decay: list[wd.decay.Rule]) -> wd.GridResult:
        grid = wd.Grid(decay=decay, learning_rate=[1e-3])
        return wd.fit_grid(wd.models.MLP((64, 64)), data, grid, num_steps=500, batch_size=64, progress=False)

    programs = {name: run(decay).settings["compiled_programs"] for name, decay in grids.items()}
    seconds: dict[str, list[float]] = {name: [] for name in grids}
    for _ in range(_REPEATS):
        for name, decay in grids.items():
            seconds[name].append(run(decay).settings["seconds"])
    devices = f"{len(jax.local_devices())} {jax.default_backend()} devices"
    print(f"{peers.processor()}, {devices}, jax {jax.__version__}, n = {_REPEATS}")
    for name, times in seconds.items():
        print(json.dumps({"benchmark": "mixing", "grid": name, "members": _MEMBERS, "seconds": times}))
    first = statistics.median(seconds["one kind (Decoupled)"])
    print(f"\n{'grid':<22}{'programs':>10}{'median':>10}{'spread':>16}{'ratio':>8}")
    for name, times in seconds.items():
        median = statistics.median(times)
        spread = f"{min(times):.2f} to {max(times):.2f}"
        print(f"{name:<22}{programs[name]:>10}{median:>8.2f} s{spread:>16}{median / first:>8.3f}")


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"\n{time.perf_counter() - started:.0f} s in total")
