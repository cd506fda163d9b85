"""Does a grid of thousands cost more a member than a small one, in time or in memory?

Trains the digits network (64-64-64-10) under grids of 64 to 4,096 members, in turn, and then one of 10,000 members.
Programs are compiled before anything is timed; every run is the whole of `weightdecay.fit_grid`. Prints a line of JSON
a measurement, and a table.

    python benchmarks/scale.py
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import jax

import weightdecay as wd

_SIZES = (64, 256, 1024, 4096)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--members", type=int, default=10_000, help="members of the last grid; 0 = leave it out")
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
    print(f"jax {jax.__version__}, {jax.default_backend()}, {len(jax.local_devices())} devices, n = {options.repeats}")
    for size, times in microseconds.items():
        print(json.dumps({"benchmark": "scale", "members": size, "steps": options.steps, "us_a_member_step": times}))
    print(f"\n{'members':>8}{'µs a member-step':>20}{'spread':>16}")
    for size, times in microseconds.items():
        spread = f"{min(times):.1f} to {max(times):.1f}"
        print(f"{size:>8}{statistics.median(times):>20.1f}{spread:>16}")
    if options.members:
        seconds = run(options.members, 1000)
        above = (_memory("VmHWM") - imported) / 2**20
        print(json.dumps({"benchmark": "scale", "members": options.members, "steps": 1000, "seconds": seconds}))
        print(f"{options.members:>8}{1e6 * seconds / (options.members * 1000):>20.1f}")
        print(f"\n{options.members} members x 1000 steps: {seconds:.0f} s, {above:.2f} GiB above what was there before")


def _memory(name: str) -> float:
    """KiB of this process; nan where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((float(line.split()[1]) for line in lines if line.startswith(name)), float("nan"))


if __name__ == "__main__":
    main()
