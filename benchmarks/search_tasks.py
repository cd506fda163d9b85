"""The tasks on which strategies of search are compared, and the recording of their full grids.

Each task is a network, data and a grid of decay rules, three learning rates and five seeds. Half of the tasks served
to tune the default strategy; it met the others only once, when everything about it was fixed.

`record` trains the full grid of each task and writes its curves to ``FOLDER/NAME.npz``; `searching.py` replays them.

    python benchmarks/search_tasks.py FOLDER --data PATH [--tasks digits,wine]

PATH is a folder as in `real_data.py`; without it, only the tasks of scikit-learn's data are recorded.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import weightdecay as wd

SEEDS = 5
RATES = (1e-3, 3e-3, 1e-2)
TWO_KINDS = ((wd.Decoupled, 1e-3, 1e1, 17), (wd.L2, 1e-6, 1e-1, 17))
FEWER = ((wd.Decoupled, 1e-3, 1e1, 9), (wd.L2, 1e-6, 1e-1, 9))
THREE_KINDS = ((wd.Decoupled, 1e-3, 1e1, 13), (wd.L2, 1e-6, 1e-1, 13), (wd.L1, 1e-6, 1e-2, 13))


@dataclass(frozen=True)
class Task:
    """What is trained.

    Attributes:
      data: Makes the data, from the folder of the data sets.
      tuned_on: Whether the default strategy was tuned on it.
      model: The network.
      kinds: Rule, lowest and highest coefficient, and number of coefficients, of each kind of decay.
      rates: Learning rates.
      optimizer: As in `weightdecay.fit_grid`.
      num_steps: Training steps of a member.
      batch_size: Examples per step.
      needs_data: Whether it needs the folder.
      num_evaluations: Number of evaluations of a member.
    """

    data: Callable[[Path], wd.Data]
    tuned_on: bool
    model: Any = field(default_factory=lambda: wd.models.MLP((64,)))
    kinds: tuple[tuple[Any, float, float, int], ...] = TWO_KINDS
    rates: tuple[float, ...] = RATES
    optimizer: Any = wd.adam
    num_steps: int = 1000
    batch_size: int = 64
    needs_data: bool = False
    num_evaluations: int = 50

    def grid(self, num_seeds: int = SEEDS) -> wd.Grid:
        """Return its grid; the seed is the last axis."""
        rules = [wd.NoDecay()]
        for rule, low, high, num in self.kinds:
            rules += wd.logspace(rule, low, high, num)
        return wd.Grid(decay=rules, learning_rate=list(self.rates), seed=range(num_seeds))


def digits(*, examples: int | None = None, noise: float = 0.0, as_sequences: bool = False) -> wd.Data:
    """Digits of scikit-learn, a part of them, or with wrong labels among the training examples."""
    data = wd.data.digits()
    inputs, labels = (np.asarray(array) for array in data.train[:2])
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(labels))[: examples or len(labels)]
    inputs, labels = inputs[rows], labels[rows].copy()
    wrong = rng.random(len(labels)) < noise
    labels[wrong] = rng.integers(0, 10, wrong.sum())
    splits = [(inputs, labels), data.validation, data.test]
    if as_sequences:  # the rows of an image
        splits = [(np.asarray(images).reshape(-1, 8, 8), targets) for images, targets in splits]
    return wd.Data(*splits)


def uci(path: Path, name: str, *, examples: int | None = None) -> wd.Data:
    """A regression set of UCI, standardized by its training rows."""
    inputs, targets = wd.data.read_csv(path / "uci" / f"{name}-data.csv.gz", target=-1, header=False)
    rows = np.column_stack([inputs, targets]).astype(np.float64)
    rows = rows[np.random.default_rng(0).permutation(len(rows))[: examples or len(rows)]]
    first, second = int(0.6 * len(rows)), int(0.8 * len(rows))
    mean, scale = rows[:first].mean(axis=0), rows[:first].std(axis=0) + 1e-12
    rows = ((rows - mean) / scale).astype(np.float32)
    parts = slice(0, first), slice(first, second), slice(second, None)
    return wd.Data(*[(rows[part, :-1], rows[part, -1]) for part in parts])


def mnist(path: Path, examples: int) -> wd.Data:
    """Digits of MNIST."""
    images = wd.data.read_idx(path / "mnist-10k" / "images-idx3-ubyte.gz")
    labels = wd.data.read_idx(path / "mnist-10k" / "labels-idx1-ubyte.gz").astype(np.int32)
    pixels = images.reshape(len(images), -1).astype(np.float32) / 255
    parts = slice(examples), slice(5000, 6000), slice(7500, 8500)
    return wd.Data(*[(pixels[part], labels[part]) for part in parts])


def text(path: Path) -> wd.Data:
    """Twenty thousand bytes of the plays of Shakespeare, which the run repeats about ten times."""
    data = wd.data.tokens(path / "text" / "tinyshakespeare.txt.gz", length=32, train_tokens=20_000)
    few = [tuple(np.asarray(array)[:250] for array in split[:2]) for split in (data.validation, data.test)]
    return dataclasses.replace(data, validation=few[0], test=few[1])


def _cosine(learning_rate: Any, decay: Any, mask: Any) -> Any:
    return wd.adam(wd.schedules.WarmupCosine(learning_rate, 50, 1000), decay, mask=mask)


def _momentum(learning_rate: Any, decay: Any, mask: Any) -> Any:
    return wd.sgd(10 * learning_rate, decay, 0.9, mask=mask)


_TRANSFORMER = wd.models.Transformer(num_layers=1, width=16, num_heads=2)
_DECODER = wd.models.Decoder(num_layers=1, width=32, num_heads=2)

TASKS: dict[str, Task] = {
    "digits-150": Task(lambda path: digits(examples=150), True),
    "digits-300-noisy": Task(lambda path: digits(examples=300, noise=0.4), True),
    "digits-300-cosine": Task(lambda path: digits(examples=300, noise=0.1), True, optimizer=_cosine),
    "concrete": Task(lambda path: uci(path, "concrete"), True, needs_data=True),
    "yacht": Task(lambda path: uci(path, "yacht"), True, needs_data=True),
    "energy-200": Task(lambda path: uci(path, "energy", examples=200), True, needs_data=True),
    "mnist-500": Task(lambda path: mnist(path, 500), True, needs_data=True, num_steps=500),
    "digits": Task(lambda path: digits(), False),
    "digits-noisy": Task(lambda path: digits(noise=0.2), False),
    "digits-sgd": Task(lambda path: digits(examples=300, noise=0.2), False, optimizer=_momentum),
    "wine": Task(lambda path: uci(path, "wine"), False, needs_data=True),
    "mnist-2000": Task(lambda path: mnist(path, 2000), False, needs_data=True, num_steps=500, kinds=THREE_KINDS),
    "transformer": Task(
        lambda path: digits(examples=400, noise=0.2, as_sequences=True), False, model=_TRANSFORMER, num_steps=500
    ),
    "text": Task(
        text, False, model=_DECODER, needs_data=True, num_steps=400, batch_size=16, kinds=FEWER, num_evaluations=20
    ),
}


def record(folder: Path, path: Path | None, names: list[str] | None) -> None:
    """Train the full grid of each task, and keep its curves and the final test losses."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, task in TASKS.items():
        if (names is not None and name not in names) or (task.needs_data and path is None):
            continue
        data, started = task.data(path or Path()), time.perf_counter()
        settings: dict[str, Any] = {"num_steps": task.num_steps, "batch_size": task.batch_size, "progress": False}
        result = wd.fit_grid(
            task.model,
            data,
            task.grid(),
            optimizer=task.optimizer,
            eval_every=task.num_steps // task.num_evaluations,
            **settings,
        )
        seconds = time.perf_counter() - started
        dataset = result.dataset
        np.savez_compressed(
            folder / f"{name}.npz",
            validation=dataset["validation_loss"].values,
            steps=dataset["step"].values,
            diverged_at=dataset["diverged_at"].values,
            test=np.array([loss_of(result.predict(data.test[0], index), data.test[1]) for index in range(len(result))]),
        )
        print(f"{name}: {len(result)} members in {seconds:.1f} s", flush=True)


def loss_of(outputs: Any, targets: Any) -> float:
    """Return the mean loss of outputs: cross-entropy of labels, squared error of real targets."""
    outputs, targets = np.asarray(outputs, np.float64), np.asarray(targets)
    if targets.dtype.kind == "f":
        return float(np.square(outputs.reshape(targets.shape) - targets).mean())
    shifted = outputs - outputs.max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(shifted, targets[..., None], axis=-1)[..., 0]
    return float((np.log(np.exp(shifted).sum(axis=-1)) - chosen).mean())


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--tasks")
    arguments = parser.parse_args()
    record(arguments.folder, arguments.data, arguments.tasks.split(",") if arguments.tasks else None)


if __name__ == "__main__":
    main()
