"""Does a member of a grid of thousands cost more time or memory than a member of a small grid?

Trains the digits network (64-64-64-10) in grids of 64 to 4,096 members, in turn, and then in one of 10,000 members.
Programs are compiled before anything is timed; each time is that of a complete call of `weightdecay.fit_grid`. Prints
one line of JSON per measurement, and a table.

    python benchmarks/scale.py
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import jax
import peers

import weightdecay as wd

_SIZES = (64, 256, 1024, 4096)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--members", type=int, default=10_000, help="members of the last grid; 0 = skip it")
    options = parser.parse_args()
    data, model = wd.data.digits(), wd.models.MLP((64, 64))

    def run(members: int, num_steps: int) -> float:
        grid = wd.Grid(decay=wd.logspace(wd.Decoupled, 1e-4, 1e1, members), learning_rate=1e-3)
        started = time.perf_counter()
        result = wd.fit_grid(
            model, data, grid, num_steps=num_steps, batch_size=64, eval_every=num_steps // 2, progress=False
        )
        assert len(result) == members
        return time.perf_counter() - started

    run(_SIZES[0], options.steps)
    imported = _memory("VmRSS")
    microseconds: dict[int, list[float]] = {size: [] for size in _SIZES}
    for _ in range(options.repeats):
        for size in _SIZES:
            microseconds[size].append(1e6 * run(size, options.steps) / (size * options.steps))
    devices = f"{len(jax.local_devices())} {jax.default_backend()} devices"
    print(f"{peers.processor()}, {devices}, jax {jax.__version__}, n = {options.repeats}")
    for size, times in microseconds.items():
        print(
            json.dumps(
                {"benchmark": "scale", "members": size, "steps": options.steps, "microseconds_per_member_step": times}
            )
        )
    print(f"\n{'members':>8}{'µs per member-step':>20}{'spread':>16}")
    for size, times in microseconds.items():
        spread = f"{min(times):.1f} to {max(times):.1f}"
        print(f"{size:>8}{statistics.median(times):>20.1f}{spread:>16}")
    if options.members:
        seconds = run(options.members, 1000)
        above = (_memory("VmHWM") - imported) / 2**20
        print(json.dumps({"benchmark": "scale", "members": options.members, "steps": 1000, "seconds": seconds}))
        print(f"{options.members:>8}{1e6 * seconds / (options.members * 1000):>20.1f}")
        print(f"\n{options.members} members x 1000 steps: {seconds:.0f} s, {above:.2f} GiB of additional memory")


def _memory(name: str) -> float:
    """Memory of this process in KiB; nan where the system does not report it."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((float(line.split()[1]) for line in lines if line.startswith(name)), float("nan"))


if __name__ == "__main__":
    main()
