"""How fast does a grid train, compared with programs that one would write without the library, and with the hardware?

Trains the same grid of AdamW coefficients by `weightdecay.fit_grid` and by each peer of `peers.py`: the same model,
batch size and shuffled epochs. Library and peer run in turn in one process; between them, the float32 matrix products
of torch and JAX are timed, as the limit. The library's time is that of the complete call, with initialization and
evaluation. A slow peer trains fewer members or steps of the same kind (`scaled_from`). The cold start is the time that
a first call takes in addition to a later one, with nothing cached and the backends running. Prints one line of JSON per
measurement, and a table with the name of the processor, since ratios differ between processors.

    python benchmarks/speed.py
    python benchmarks/speed.py --workload large --data mnist-10k --peers torch-loop,jax-vmap
"""

import argparse
import functools
import gzip
import importlib.metadata
import importlib.util
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import peers
from peers import CORES, PEERS, Problem, Run

import weightdecay as wd

_PEER_SECONDS = 1.0  # duration of one timed run of a peer
_PROBE_SECONDS = 0.2


@dataclass(frozen=True)
class Workload:
    """What is trained.

    Attributes:
      widths: Widths of all layers of an MLP, inputs and outputs included; None = the convolutional network.
      batch_size: Examples per training step.
      members: Number of members of the grid.
      num_steps: Training steps of each member.
    """

    widths: tuple[int, ...] | None
    batch_size: int
    members: int
    num_steps: int

    def flops(self) -> int:
        """Floating-point operations per member-step: products and convolutions, without the gradient of the inputs."""
        if self.widths is None:  # Positions x filters x kernel of each convolution, and the dense layer.
            products = [28 * 28 * 16 * 9, 14 * 14 * 32 * 9 * 16, 7 * 7 * 32 * 10]
        else:
            products = [inputs * outputs for inputs, outputs in zip(self.widths, self.widths[1:], strict=False)]
        return 2 * self.batch_size * (3 * sum(products) - products[0])


WORKLOADS = {
    "small": Workload((64, 32, 32, 10), 64, members=64, num_steps=4000),
    "medium": Workload((64, 128, 128, 10), 64, members=32, num_steps=2000),
    "large": Workload((784, 256, 256, 10), 128, members=32, num_steps=200),
    "convolutional": Workload(None, 64, members=8, num_steps=200),
}


class Side(NamedTuple):
    """A peer, sized for timing."""

    run: Run
    variant: dict[str, int]
    members: int
    num_steps: int
    cold_seconds: float


def main() -> None:
    """Run the benchmark."""
    options = _options()
    jax.config.update("jax_enable_compilation_cache", False)
    _start_backend()
    lines: list[dict[str, Any]] = []

    def emit(line: dict[str, Any]) -> None:
        lines.append(line)
        print(json.dumps(line), flush=True)

    emit(_environment(options))
    for name in [options.workload] if options.workload else WORKLOADS:
        for line in _measure(name, options):
            emit(line)
    print(f"\n{_table(lines)}")
    if options.json:
        options.json.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=WORKLOADS, help="run only this workload (default: all)")
    parser.add_argument("--members", type=int, help="members of the grid (default: those of the workload)")
    parser.add_argument(
        "--steps", type=int, help="steps of each member (default: those of the workload, fewer with more members)"
    )
    parser.add_argument(
        "--peers",
        type=lambda names: names.split(","),
        default=list(PEERS),
        help=f"comma-separated, of {','.join(PEERS)} (default: all)",
    )
    parser.add_argument("--data", type=Path, help="folder of MNIST in IDX files (default: random images)")
    parser.add_argument("--json", type=Path, help="file for the lines of JSON")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each peer (default: 5)")
    options = parser.parse_args()
    for name in options.peers:
        if name not in PEERS:
            parser.error(f"--peers: {name!r} is not one of {', '.join(PEERS)}")
    for name in ("members", "steps", "repeats"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name}: give at least 1")
    return options


def _start_backend() -> None:
    """Let the library set up its devices, with a grid that is not one of the workloads."""
    grid = wd.Grid(decay=[wd.NoDecay()], learning_rate=[1e-3])
    wd.fit_grid(wd.models.MLP((8,)), wd.data.wine(), grid, num_steps=1, batch_size=8, progress=False)


def _environment(options: argparse.Namespace) -> dict[str, Any]:
    def version(package: str) -> str | None:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return None

    return {
        "benchmark": "speed",
        "backend": jax.default_backend(),
        "device": jax.local_devices()[0].device_kind,
        "processor": peers.processor(),
        "devices": len(jax.local_devices()),
        "cores": CORES,
        "repeats": options.repeats,
        "images": "random" if options.data is None else "MNIST",
        "versions": {
            name: version(name) for name in ("jax", "jaxlib", "flax", "optax", "torch", "numpy", "scikit-learn")
        },
    }


def _measure(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Time the library and the peers on one workload, in turn, and return the lines of JSON."""
    workload = WORKLOADS[name]
    members = options.members or workload.members
    num_steps = options.steps or max(100, workload.num_steps * workload.members // max(members, workload.members))
    data = _data(workload, options.data)
    problem = Problem(workload.widths, data.train, data.validation, workload.batch_size, np.geomspace(1e-4, 1, members))
    grid = wd.Grid(decay=wd.logspace(wd.Decoupled, 1e-4, 1, members), learning_rate=[peers.LEARNING_RATE])
    settings: dict[str, Any] = {}

    def library() -> int:
        result = wd.fit_grid(
            problem.model(),
            data,
            grid,
            num_steps=num_steps,
            batch_size=workload.batch_size,
            eval_every=num_steps,
            progress=False,
        )
        settings.update(result.settings)
        return members * num_steps

    first_seconds, _ = _timed(library)
    sides: dict[str, Side] = {}
    for peer in options.peers:
        reason = peers.missing(peer, problem)
        if reason is None:
            sides[peer] = _sized(peer, problem, members, num_steps)
        else:
            print(f"{name}: {peer} does not run: {reason}", flush=True)

    matrix_rates: dict[str, list[float]] = {}
    copy_rates: list[float] = []
    runs = {"weightdecay": library} | {peer: side.run for peer, side in sides.items()}
    calls: dict[str, list[tuple[float, int]]] = {side: [] for side in runs}
    for _ in range(options.repeats):
        for product, rate in _matrix_rates().items():
            matrix_rates.setdefault(product, []).append(rate)
        copy_rates.append(_copy_rate())
        for side, run in runs.items():
            calls[side].append(_timed(run))
    limit = max(max(rates) for rates in matrix_rates.values())
    limits = {
        "benchmark": "speed",
        "workload": name,
        "side": "machine",
        "matrix_product_gflops": {product: max(rates) / 1e9 for product, rates in matrix_rates.items()},
        "copy_gigabytes_per_second": max(copy_rates) / 1e9,
    }

    def line(side: str, cold_seconds: float, **others: Any) -> dict[str, Any]:
        rates = [count / seconds for seconds, count in calls[side]]
        median = statistics.median(rates)
        return {
            "benchmark": "speed",
            "workload": name,
            "side": side,
            "members": members,
            "steps": num_steps,
            "batch_size": workload.batch_size,
            "n": len(rates),
            "member_steps_per_second": _spread(rates),
            "call_seconds": [round(seconds, 4) for seconds, _ in calls[side]],
            "cold_start_seconds": max(0.0, cold_seconds),
            "grid_seconds": members * num_steps / median,
            "flops_per_member_step": workload.flops(),
            "fraction_of_matrix_product_rate": median * workload.flops() / limit,
            **others,
        }

    cold_seconds = first_seconds - statistics.median(seconds for seconds, _ in calls["weightdecay"])
    lines = [limits, line("weightdecay", cold_seconds, plan=settings.get("plan"))]
    for peer, side in sides.items():
        pairs = zip(calls["weightdecay"], calls[peer], strict=True)
        is_scaled = (side.members, side.num_steps) != (members, num_steps)
        lines.append(
            line(
                peer,
                side.cold_seconds,
                variant=side.variant,
                scaled_from={"members": side.members, "steps": side.num_steps} if is_scaled else None,
                weightdecay_over_peer=_spread(
                    [(ours[1] / ours[0]) / (theirs[1] / theirs[0]) for ours, theirs in pairs]
                ),
            )
        )
    return lines


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def _timed(run: Run) -> tuple[float, int]:
    """Return the seconds of a run, and its member-steps."""
    started = time.perf_counter()
    count = run()
    return time.perf_counter() - started, count


def _sized(name: str, problem: Problem, members: int, num_steps: int) -> Side:
    """Select a peer's fastest variant, and a number of steps or members with which a run takes about a second."""
    peer = PEERS[name]
    few = min(members, peer.least_members or members)
    probes = []
    for variant in peer.variants:
        cold_seconds, rate = _probe(functools.partial(peer.prepare, problem, few, **variant), num_steps)
        probes.append((rate, cold_seconds, variant))
    rate, _, variant = max(probes, key=lambda probe: probe[0])
    affordable = _PEER_SECONDS * rate
    steps = min(num_steps, max(1, round(affordable / few)))
    timed_members = min(members, few * max(1, int(affordable / (few * steps))))
    run = peer.prepare(problem, timed_members, steps, **variant)
    steps = run() // timed_members  # The first run compiles; scikit-learn's steps are whole epochs.
    return Side(run, variant, timed_members, steps, max(cold for _, cold, _ in probes))


def _probe(prepare: Callable[[int], Run], num_steps: int) -> tuple[float, float]:
    """Return the seconds of the cold start, and a first estimate of the member-steps per second."""
    cold_seconds, steps = None, min(num_steps, 20)
    while True:
        run = prepare(steps)
        first_seconds, _ = _timed(run)
        seconds, count = min(_timed(run) for _ in range(2))
        cold_seconds = first_seconds - seconds if cold_seconds is None else cold_seconds
        if seconds > _PROBE_SECONDS or steps == num_steps:
            return cold_seconds, count / seconds
        steps = min(num_steps, 1 + int(1.5 * steps * _PROBE_SECONDS / seconds))


def _matrix_rates() -> dict[str, float]:
    """Floating-point operations per second of the fastest large float32 matrix product, by library."""
    sizes = (1024, 2048, 3072) if jax.default_backend() == "cpu" else (4096, 8192)
    product = jax.jit(jnp.matmul)
    rates = {"jax": max(_product_rate(product, jnp.ones((size, size)), jax.block_until_ready) for size in sizes)}
    if jax.default_backend() == "cpu" and importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(CORES)
        rates["torch"] = max(_product_rate(torch.matmul, torch.ones(size, size), lambda done: done) for size in sizes)
    return rates


def _product_rate(product: Callable[..., Any], matrix: Any, wait: Callable[[Any], Any], repeats: int = 5) -> float:
    wait(product(matrix, matrix))
    started = time.perf_counter()
    wait([product(matrix, matrix) for _ in range(repeats)])
    return repeats * 2 * len(matrix) ** 3 / (time.perf_counter() - started)


def _copy_rate(repeats: int = 5) -> float:
    """Bytes read and written per second, measured by adding one to a large array in place."""
    add = jax.jit(lambda array: array + 1, donate_argnums=0)
    array = jax.block_until_ready(add(jnp.zeros(2**28 if jax.default_backend() != "cpu" else 2**26)))
    started = time.perf_counter()
    for _ in range(repeats):
        array = add(array)
    jax.block_until_ready(array)
    return repeats * 2 * array.nbytes / (time.perf_counter() - started)


def _data(workload: Workload, path: Path | None) -> wd.Data:
    if workload.widths is not None and workload.widths[0] == 64:
        return wd.data.digits()
    if path is None:
        random = np.random.default_rng(0)
        pixels, labels = random.integers(0, 256, (3000, 784)), random.integers(0, 10, 3000)
    else:
        pixels = np.frombuffer(gzip.decompress((path / "images-idx3-ubyte.gz").read_bytes())[16:], np.uint8)
        labels = np.frombuffer(gzip.decompress((path / "labels-idx1-ubyte.gz").read_bytes())[8:], np.uint8)
    shape = (-1, 28, 28, 1) if workload.widths is None else (-1, 784)
    inputs, targets = pixels.reshape(shape).astype(np.float32) / 255, labels.astype(np.int32)
    # Few examples: the library's time includes their evaluation; the time of a step does not depend on their number.
    parts = slice(2000), slice(2000, 2500), slice(2500, 3000)
    return wd.Data(*((inputs[part], targets[part]) for part in parts))


def _table(lines: Sequence[dict[str, Any]]) -> str:
    """Format the measurements as a table in Markdown, below a line that names the processor."""
    rows = [["workload", "side", "member-steps/s", "min to max", "weightdecay / side", "of the limit", "cold start"]]
    for line in lines:
        if line.get("side") == "machine":
            rates = line["matrix_product_gflops"].items()
            limit = ", ".join(f"{library} {rate:.0f}" for library, rate in rates)
            rows.append([line["workload"], "limit", f"{limit} GFLOP/s", "", "", "", ""])
        elif "side" in line:
            speed, ratio = line["member_steps_per_second"], line.get("weightdecay_over_peer")
            variant = ", ".join(f"{name}={value}" for name, value in line.get("variant", {}).items())
            rows.append(
                [
                    line["workload"],
                    f"{line['side']} ({variant})" if variant else line["side"],
                    f"{speed['median']:,.0f}",
                    f"{speed['min']:,.0f} to {speed['max']:,.0f}",
                    "" if ratio is None else f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})",
                    f"{line['fraction_of_matrix_product_rate']:.3f}",
                    f"{line['cold_start_seconds']:.1f} s",
                ]
            )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    (machine,) = (line for line in lines if "processor" in line)
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    hardware = f"{machine['processor']}, {machine['cores']} cores, {machine['devices']} {machine['backend']} devices"
    return "\n".join([f"{hardware}; {versions}", "", *(f"| {' | '.join(row)} |" for row in padded)])


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"\n{time.perf_counter() - started:.0f} s in total")
