"""Does decay lower the test error on real data, and how does the search compare with scikit-learn's?

Six regression sets of UCI in fixed 90/10 splits, and 10,000 digits of MNIST. On each split, the two sides search the
same number of candidates by the same validation examples, with networks of the same widths, initial weights from the
same distribution, Adam, the same learning rate, batch size and epochs:

- this library: no decay, L2 and Decoupled, as one grid;
- scikit-learn: `GridSearchCV` over `alpha`, 0 and log-spaced over the range of L2, on all cores.

Three folds of the training rows are used for validation in turn; of MNIST, the first 5,000 digits are for training and
the next 2,500 for validation. The chosen candidate is trained again on all of these rows, and scored once on the test
rows: the last 2,500 digits, or those of the split. Features and targets are standardized by training rows only, in each
fold too. Two more results are shown: the same training without decay, and what the library finds in the time that
scikit-learn took, with as many further learning rates as fit. Times are those of the complete search and of the last
training, with compilation.

With ``--sets text`` a small language model is trained on the first 300 kB of the plays of Shakespeare, for 1, 4 and 16
epochs: no decay and a ladder of Decoupled coefficients, each with the same seeds. The coefficient is chosen on
validation bytes, and scored once on test bytes, both later in the file. Nobody else's search is compared here.

PATH holds these folders:

- `uci`: for each NAME `NAME-data.csv.gz`, without a header, with the target in the last column, and
  `NAME-test_mask.csv.gz` with one column per split, 1 = test row, in the splits of T. Evans (uci_datasets on GitHub);
- `mnist-10k`: `images-idx3-ubyte.gz` and `labels-idx1-ubyte.gz`, the test digits of MNIST;
- `text`: `tinyshakespeare.txt.gz` of A. Karpathy (char-rnn on GitHub).

Prints a few lines when a set is done, and a table at the end. Errors are root mean squared errors, in the unit of the
file's targets (some differ from UCI's), or percent of the digits; ± is one standard error over the splits, for MNIST
over seeds. Differences are paired by split, with the standard error of a cross-validation (Nadeau & Bengio 2003):
better, worse, or within noise if the 95 % interval by Student's t includes 0. The intervals are not corrected for their
number.

    python benchmarks/real_data.py PATH
    python benchmarks/real_data.py PATH --sets concrete,yacht --splits 3
    python benchmarks/real_data.py PATH --first-weights flax
    python benchmarks/real_data.py PATH --sets text

scikit-learn draws initial biases at random, flax sets them to 0, and their kernels differ in scale. On a small set this
can matter more than any decay: ``--first-weights flax``, with `wd.models.MLP`, compares initial weights above all.
"""

import argparse
import collections
import functools
import importlib.metadata
import itertools
import json
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from peers import CORES, processor

import weightdecay as wd
from weightdecay.core import statistics as uncertainty

NUM_SPLITS = 10
MNIST = "mnist-10k"
TEXT = "text"
_L2 = (1e-5, 1e-1)
_DECOUPLED = (1e-2, 1e1)
_PAIRS = (
    ("decay", "no_decay"),
    ("decay", "scikit_learn"),
    ("in_its_time", "decay"),
    ("in_its_time", "scikit_learn"),
)
_RATES_AROUND = 10.0  # The further learning rates lie within this factor of the set's own.


@dataclass(frozen=True)
class Task:
    """What is trained on a set.

    Attributes:
      hidden: Width of the hidden layer.
      learning_rate: Learning rate of both sides; in scikit-learn's time the library tries others too.
      batch_size: Examples per training step.
      num_steps: Approximate training steps of a member in the search: both sides train complete epochs.
      regresses: Whether the targets are real numbers.
      first_weights: Distribution of the initial weights of the library's networks, ``"scikit-learn"`` or ``"flax"``.
    """

    hidden: int = 50
    learning_rate: float = 3e-3
    batch_size: int = 32
    num_steps: int = 1500
    regresses: bool = True
    first_weights: str = "scikit-learn"


TASKS = {name: Task() for name in ("concrete", "energy", "yacht", "wine", "airfoil", "protein")} | {
    MNIST: Task(hidden=100, learning_rate=1e-3, batch_size=64, num_steps=1000, regresses=False)
}


@dataclass(frozen=True)
class TextTask:
    """What is trained on the text: a decoder of two layers.

    Attributes:
      width: Width of the decoder; its perceptrons are twice as wide.
      length: Bytes that it reads at once.
      train_bytes: Bytes that are repeated.
      epochs: Numbers of epochs.
      coefficients: Of Decoupled, 1 / (step · learning rate).
      peak: Largest learning rate of Adam, after a warm-up of 5 % of the steps; it falls to 0 as half a cosine.
      batch_size: Windows per training step.
      seeds: Number of seeds.
    """

    width: int = 64
    length: int = 64
    train_bytes: int = 300_000
    epochs: tuple[int, ...] = (1, 4, 16)
    coefficients: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0)
    peak: float = 5e-3
    batch_size: int = 32
    seeds: int = 3


class Split(NamedTuple):
    """One division of a set."""

    search: wd.Data  # training rows, with folds or with validation rows
    fold: np.ndarray  # fold for which each row of ``train`` is a validation row; -1 = none
    train: tuple[np.ndarray, np.ndarray]  # all of these rows, with the values of the files
    test: tuple[np.ndarray, np.ndarray]
    seed: int
    num_epochs: int
    drawn_from: int  # number of rows; more than those of ``train`` if there were too many


class Outcome(NamedTuple):
    """Result of one side on a split."""

    error: float  # on the test rows
    seconds: float
    trials: int  # number of candidates
    chosen: str


class Outcomes(NamedTuple):
    """Results of all sides on a split."""

    decay: Outcome
    no_decay: Outcome
    scikit_learn: Outcome
    in_its_time: Outcome


def main() -> None:
    """Run the benchmark."""
    options = _options()
    jax.config.update("jax_enable_compilation_cache", False)
    _start()
    print(_environment(options), flush=True)
    rows, lines = [], []
    for name in options.sets:
        if name == TEXT:
            print(f"\n{_text(options.path, TextTask(seeds=options.seeds, train_bytes=options.bytes))}", flush=True)
            continue
        task = replace(TASKS[name], first_weights=options.first_weights)
        splits = list(_splits(name, options.splits, options))
        outcomes = [_compare(split, task, options.trials) for split in splits]
        print(f"\n{_description(name, splits[0], outcomes)}", flush=True)
        rows.append(_row(name, outcomes))
        numbers = [{side: outcome._asdict() for side, outcome in split._asdict().items()} for split in outcomes]
        lines.append({"benchmark": "real_data", "set": name, "splits": numbers})
    if rows:
        print(f"\n{_table(rows)}")
    if options.json:
        options.json.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="folder with uci/ and mnist-10k/")
    parser.add_argument(
        "--sets",
        type=lambda names: names.split(","),
        default=list(TASKS),
        help=f"comma-separated, of {','.join(TASKS)} (default: all of these), and {TEXT}",
    )
    parser.add_argument(
        "--splits", type=int, choices=range(1, NUM_SPLITS + 1), default=NUM_SPLITS, help=f"default: {NUM_SPLITS}, all"
    )
    parser.add_argument("--trials", type=int, default=13, help="candidates of each side, an odd number (default: 13)")
    parser.add_argument("--folds", type=int, default=3, help="folds of the training rows of a UCI set (default: 3)")
    parser.add_argument(
        "--rows", type=int, default=4000, help="maximum number of training rows of a UCI set (default: 4000)"
    )
    parser.add_argument(
        "--first-weights",
        choices=("scikit-learn", "flax"),
        default="scikit-learn",
        help="distribution of the initial weights (default: scikit-learn)",
    )
    parser.add_argument("--seeds", type=int, default=3, help=f"seeds of each member of {TEXT} (default: 3)")
    parser.add_argument("--bytes", type=int, default=300_000, help=f"training bytes of {TEXT} (default: 300,000)")
    parser.add_argument("--json", type=Path, help="file for the results on each split")
    options = parser.parse_args()
    for name in options.sets:
        if name not in (*TASKS, TEXT):
            parser.error(f"--sets: {name!r} is not one of {', '.join(TASKS)}, {TEXT}")
    for name, least in {"trials": 3, "folds": 2, "rows": 100, "seeds": 1, "bytes": 10_000}.items():
        if getattr(options, name) < least:
            parser.error(f"--{name}: give at least {least}")
    if options.trials % 2 == 0:
        parser.error("--trials: give an odd number: no decay, and the same number of coefficients of two rules")
    return options


def _start() -> None:
    """Let both sides start their devices and processes, with something that is not measured."""
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GridSearchCV

    data = wd.data.diabetes()
    wd.fit_grid(wd.models.MLP((4,)), data, wd.Grid(learning_rate=1e-3), num_steps=1, batch_size=8, progress=False)
    GridSearchCV(Ridge(), {"alpha": np.geomspace(1, 10, 2 * CORES)}, n_jobs=CORES).fit(*data.train)


def _environment(options: argparse.Namespace) -> str:
    packages = ("jax", "flax", "optax", "numpy", "scikit-learn")
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)
    devices = f"{len(jax.local_devices())} {jax.default_backend()} devices ({jax.local_devices()[0].device_kind})"
    settings = f"{options.trials} trials of each side, initial weights of {options.first_weights}"
    return f"{processor()}, {CORES} cores; {devices}; {versions}; {settings}"


def _splits(name: str, num_splits: int, options: argparse.Namespace) -> Iterator[Split]:
    task = TASKS[name]
    if name == MNIST:
        images = wd.data.read_idx(options.path / MNIST / "images-idx3-ubyte.gz")
        labels = wd.data.read_idx(options.path / MNIST / "labels-idx1-ubyte.gz").astype(np.int32)
        pixels = images.reshape(len(images), -1).astype(np.float32) / 255
        parts = slice(5000), slice(5000, 7500), slice(7500), slice(7500, None)
        train, validation, both, test = ((pixels[part], labels[part]) for part in parts)
        fold = np.repeat([-1, 0], [len(train[1]), len(validation[1])])
        num_epochs = _num_epochs(task, len(train[1]))
        for seed in range(num_splits):
            yield Split(wd.Data(train, validation), fold, both, test, seed, num_epochs, len(both[1]))
        return
    inputs, targets = wd.data.read_csv(options.path / "uci" / f"{name}-data.csv.gz", target=-1, header=False)
    targets = targets.astype(np.float32)  # the reader returns integers for integers
    columns = wd.data.read_csv(options.path / "uci" / f"{name}-test_mask.csv.gz", target=-1, header=False)
    for seed, is_test in enumerate(np.column_stack(columns).T[:num_splits] == 1):
        rows = np.flatnonzero(~is_test)
        if len(rows) > options.rows:
            rows = np.random.default_rng(seed).choice(rows, options.rows, replace=False)
        search = wd.data.folds(inputs[rows], targets[rows], num_folds=options.folds, seed=seed)
        num_epochs = _num_epochs(task, len(rows) * (1 - 1 / options.folds))
        train, test = (inputs[rows], targets[rows]), (inputs[is_test], targets[is_test])
        yield Split(search, search.fold, train, test, seed, num_epochs, int((~is_test).sum()))


def _num_epochs(task: Task, num_rows: float) -> int:
    return max(1, round(task.num_steps * task.batch_size / num_rows))


def _compare(split: Split, task: Task, trials: int) -> Outcomes:
    """Run both sides on one split, in turn."""
    scikit_learn = _scikit_learn(split, task, trials)

    searched, first = _timed(lambda: _search(split, task, trials, [task.learning_rate]))
    chosen = _best([first], task)
    trained, (error, error_without) = _timed(lambda: _train(split, task, chosen))
    decay = Outcome(error, searched + trained, trials, _kind(chosen))

    searches, seconds, each, rates = [first], searched + trained, searched, _further_rates(task)
    while (num := int((scikit_learn.seconds - seconds) / each)) > 0:
        took, further = _timed(lambda num=num: _search(split, task, trials, list(itertools.islice(rates, num))))
        searches.append(further)
        seconds, each = seconds + took, took / num
    best = _best(searches, task)
    if best.hyperparameters != chosen.hyperparameters:
        error, _ = _train(split, task, best)  # takes as long as the training above, whose time is included
    num_trials = sum(len(search.candidates()) for search in searches)
    in_its_time = Outcome(error, seconds, num_trials, _kind(best))
    return Outcomes(decay, decay._replace(error=error_without, chosen="NoDecay"), scikit_learn, in_its_time)


def _search(split: Split, task: Task, trials: int, learning_rates: Sequence[float]) -> wd.GridResult:
    num = trials // 2
    num_train = int((split.fold != 0).sum())
    num_steps = round(split.num_epochs * num_train / task.batch_size)
    grid = wd.Grid(
        decay=[wd.NoDecay(), *wd.logspace(wd.L2, *_L2, num), *wd.logspace(wd.Decoupled, *_DECOUPLED, num)],
        learning_rate=learning_rates,
        seed=split.seed,
        **({} if split.search.fold is None else {"fold": range(split.search.num_folds or 0)}),
    )
    return _fit(split.search, task, grid, num_steps)


def _train(split: Split, task: Task, chosen: Any) -> tuple[float, float]:
    """Train the choice on all rows, and the same without decay; return the error of each on the test rows."""
    (inputs, targets), (test_inputs, test_targets) = split.train, split.test
    if task.regresses:
        test_inputs = _standardized(test_inputs, inputs)
        inputs, targets = _standardized(inputs, inputs), _standardized(targets, targets)
    rules = [wd.NoDecay()] if chosen.is_without_decay else [chosen.decay, wd.NoDecay()]
    grid = wd.Grid(decay=rules, learning_rate=chosen.others["learning_rate"], seed=split.seed)
    num_steps = round(split.num_epochs * len(inputs) / task.batch_size)
    # Nothing is chosen here: the training rows are passed as validation rows.
    result = _fit(wd.Data((inputs, targets), (inputs, targets)), task, grid, num_steps)
    errors, train_targets = [], split.train[1]
    for member in range(len(rules)):
        outputs = result.predict(test_inputs, member)
        if task.regresses:
            errors.append(
                _root_mean_squared(outputs.reshape(-1) * train_targets.std() + train_targets.mean() - test_targets)
            )
        else:
            errors.append(_percent_wrong(outputs.argmax(axis=1), test_targets))
    return errors[0], errors[-1]


def _fit(data: wd.Data, task: Task, grid: wd.Grid, num_steps: int) -> wd.GridResult:
    num_outputs = 1 if task.regresses else int(data.train[1].max()) + 1
    is_flax = task.first_weights == "flax"
    return wd.fit_grid(
        wd.models.MLP((task.hidden,)) if is_flax else _model(task.hidden, num_outputs),
        data,
        grid,
        num_steps=num_steps,
        batch_size=task.batch_size,
        eval_every=num_steps,
        progress=False,
    )


@functools.cache  # programs are compiled once per model
def _model(hidden: int, num_outputs: int) -> wd.Model:
    """Network of one hidden layer, with the initial weights of scikit-learn: uniform kernels and biases."""

    def layer(key: Any, num_inputs: int, num_outputs: int) -> dict[str, Any]:
        bound = math.sqrt(6 / (num_inputs + num_outputs))
        shapes = {"kernel": (num_inputs, num_outputs), "bias": (num_outputs,)}
        keys = jax.random.split(key)
        return {
            name: jax.random.uniform(key, shape, minval=-bound, maxval=bound)
            for key, (name, shape) in zip(keys, shapes.items(), strict=True)
        }

    def init(key: Any, inputs: Any) -> dict[str, Any]:
        first, second = jax.random.split(key)
        return {"hidden": layer(first, inputs.shape[1], hidden), "output": layer(second, hidden, num_outputs)}

    def apply(params: Any, inputs: Any) -> Any:
        hidden_units = jax.nn.relu(inputs @ params["hidden"]["kernel"] + params["hidden"]["bias"])
        outputs = hidden_units @ params["output"]["kernel"] + params["output"]["bias"]
        return outputs[:, 0] if num_outputs == 1 else outputs

    return wd.Model(init, apply)


def _best(searches: Sequence[wd.GridResult], task: Task) -> Any:
    """Best candidate of several grids, by the metric that scikit-learn's search uses."""
    if task.regresses:
        return min((search.best() for search in searches), key=lambda choice: choice.mean)
    choices = [search.best(metric="validation_accuracy") for search in searches]
    return max(choices, key=lambda choice: choice.mean)


def _further_rates(task: Task) -> Iterator[float]:
    """Learning rates around that of the task; by the van der Corput sequence any number of them is evenly spread."""
    for index in itertools.count(2):  # the first is that of the task
        fraction = sum(int(digit) / 2 ** (power + 1) for power, digit in enumerate(reversed(f"{index:b}")))
        yield task.learning_rate * _RATES_AROUND ** (2 * fraction - 1)


def _scikit_learn(split: Split, task: Task, trials: int) -> Outcome:
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import GridSearchCV, PredefinedSplit
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    settings: dict[str, Any] = {
        "hidden_layer_sizes": (task.hidden,),
        "solver": "adam",
        "batch_size": task.batch_size,
        "learning_rate_init": task.learning_rate,
        "max_iter": split.num_epochs,
        "tol": 0.0,
        "n_iter_no_change": split.num_epochs,  # never stop before the last epoch
        "random_state": split.seed,
    }
    coefficients = np.geomspace(*_L2, trials - 1)
    alphas = [wd.convert(float(c), "L2", "sklearn.MLP", batch_size=task.batch_size) for c in coefficients]
    if task.regresses:
        network = make_pipeline(StandardScaler(), MLPRegressor(**settings))
        network = TransformedTargetRegressor(network, transformer=StandardScaler(), check_inverse=False)
        name, scoring = "regressor__mlpregressor__alpha", "neg_mean_squared_error"
        alphas = [alpha / 2 for alpha in alphas]  # its loss is half the squared error
    else:
        network, name, scoring = MLPClassifier(**settings), "alpha", "accuracy"
    search = GridSearchCV(
        network, {name: [0.0, *alphas]}, scoring=scoring, cv=PredefinedSplit(split.fold), n_jobs=CORES
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        seconds, _ = _timed(lambda: search.fit(*split.train))
    predicted = search.predict(split.test[0])
    error = (
        _root_mean_squared(predicted - split.test[1]) if task.regresses else _percent_wrong(predicted, split.test[1])
    )
    return Outcome(error, seconds, trials, "alpha > 0" if search.best_params_[name] else "alpha = 0")


def _standardized(values: np.ndarray, train: np.ndarray) -> np.ndarray:
    scale = train.std(axis=0)
    return (values - train.mean(axis=0)) / np.where(scale > 0, scale, 1)


def _root_mean_squared(differences: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(differences, dtype=np.float64))))


def _percent_wrong(classes: np.ndarray, targets: np.ndarray) -> float:
    return 100 * float(np.mean(classes != targets))


def _text(path: Path, task: TextTask) -> str:
    """Train the language models; return a table in Markdown, bits per byte with standard errors over the seeds."""
    source = path / TEXT / "tinyshakespeare.txt.gz"
    data = wd.data.tokens(source, length=task.length, train_tokens=task.train_bytes)
    rows = []
    for epochs in task.epochs:
        num_steps = round(epochs * len(data.train[0]) / task.batch_size)
        seconds, result = _timed(lambda num_steps=num_steps: _fit_text(data, task, num_steps))
        bits = result.table()
        chosen, without = result.best(), result.no_decay()
        difference = result.differences(metric="validation_bits_per_token").loc[chosen.number]
        test = result.test()
        cells = [f"{row.validation_bits_per_token:.4f}" for row in bits.itertuples()]
        validation = [
            _bits(bits.loc[choice.number], "validation_bits_per_token") for choice in (without, chosen) if choice
        ]
        rows.append(
            [
                str(epochs),
                str(num_steps),
                *cells,
                str(chosen.decay),
                *validation,
                f"{difference['difference']:+.4f} ± {difference['standard_error']:.4f}",
                *(_bits(test.loc[role], "test_bits_per_token") for role in ("no decay", "chosen")),
                f"{bits.train_bits_per_token[chosen.number]:.4f}",
                f"{seconds:.0f}",
            ]
        )
    heads = ["epochs", "steps", "no decay", *(f"{coefficient:g}" for coefficient in task.coefficients), "chosen"]
    heads += ["validation, no decay", "validation, chosen", "difference", "test, no decay", "test, chosen"]
    description = (
        f"text: {task.train_bytes} bytes, {len(data.train[0])} windows of {task.length}; {task.seeds} seeds; bits per "
        "byte on validation bytes for each coefficient, and of the choice ± its standard error over seeds"
    )
    return f"{description}\n\n{_markdown([*heads, 'train, chosen', 'seconds'], rows)}"


def _fit_text(data: wd.Data, task: TextTask, num_steps: int) -> wd.GridResult:
    rate = wd.schedules.WarmupCosine(task.peak, 0.05 * num_steps, num_steps)
    rules = [wd.NoDecay(), *map(wd.Decoupled, task.coefficients)]
    grid = wd.Grid(decay=rules, learning_rate=[rate], seed=range(task.seeds))
    settings = {"num_steps": num_steps, "batch_size": task.batch_size, "eval_every": num_steps, "progress": False}
    model = wd.models.Decoder(num_layers=2, width=task.width, num_heads=2, mlp_width=2 * task.width)
    return wd.fit_grid(model, data, grid, **settings)


def _bits(row: Any, name: str) -> str:
    return f"{row[name]:.4f} ± {row[f'{name}_standard_error']:.4f}"


def _timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds of a call, and its result."""
    started = time.perf_counter()
    result = run()
    return time.perf_counter() - started, result


def _kind(choice: Any) -> str:
    return type(choice.decay).__name__


def _description(name: str, split: Split, outcomes: Sequence[Outcomes]) -> str:
    """Describe the results of a set."""
    repetitions = "seeds" if name == MNIST else "splits"
    drawn = f" (drawn from {split.drawn_from})" if split.drawn_from > len(split.train[1]) else ""
    lines = [
        f"{name}: {len(split.train[1])} rows{drawn} for training and validation, {len(split.test[1])} for the test, "
        f"{len(outcomes)} {repetitions}, {split.num_epochs} epochs",
        f"  test error, {'%' if name == MNIST else 'RMSE'}: with decay {_mean(outcomes, 'decay')}, without "
        f"{_mean(outcomes, 'no_decay')}, scikit-learn {_mean(outcomes, 'scikit_learn')}, in scikit-learn's time "
        f"{_mean(outcomes, 'in_its_time')}",
    ]
    for one, other in _PAIRS:
        lines.append(f"  {one} minus {other}: {_difference(name, outcomes, one, other)}")
    for side in ("decay", "scikit_learn", "in_its_time"):
        first, *others = [getattr(split, side).seconds for split in outcomes]
        later = f", then {statistics.median(others):.2g} (median)" if others else ""
        trials = statistics.median(getattr(split, side).trials for split in outcomes)
        chosen = collections.Counter(getattr(split, side).chosen for split in outcomes).most_common()
        kinds = ", ".join(f"{kind} {count}" for kind, count in chosen)
        lines.append(f"  {side}: {trials:g} trials; seconds per split: first {first:.2g}{later}; chosen: {kinds}")
    return "\n".join(line.replace("_", " ") for line in lines)


def _mean(outcomes: Sequence[Outcomes], side: str) -> str:
    """Mean test error and its standard error."""
    return str(uncertainty.estimate([getattr(split, side).error for split in outcomes]))


def _difference(name: str, outcomes: Sequence[Outcomes], one: str, other: str) -> str:
    """Paired difference of test errors, and whether it is better, worse or within noise."""
    differences = [getattr(split, one).error - getattr(split, other).error for split in outcomes]
    # The splits of UCI are the folds of a cross-validation: any two have nearly the same training rows.
    folds = None if name == MNIST else range(len(outcomes))
    estimate = uncertainty.estimate(differences, folds=folds, num_folds=NUM_SPLITS)
    if len(outcomes) == 1:
        return f"{estimate}, one split has no standard error"
    if estimate.upper < 0:
        return f"{estimate}, better"
    if estimate.lower > 0:
        return f"{estimate}, worse"
    return f"{estimate}, within noise"


def _row(name: str, outcomes: Sequence[Outcomes]) -> list[str]:
    """Row of the table: errors and differences of a set, and seconds of all splits."""
    differences = [_difference(name, outcomes, one, other) for one, other in _PAIRS[:2]]
    seconds = [sum(getattr(split, side).seconds for split in outcomes) for side in ("decay", "scikit_learn")]
    errors = [_mean(outcomes, side) for side in Outcomes._fields]
    return [name, *errors, *differences, f"{seconds[0]:.1f}", f"{seconds[1]:.1f}"]


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Format rows as a table in Markdown."""
    heads = ["set", "with decay", "without", "scikit-learn", "in its time", "decay minus without"]
    heads += ["decay minus scikit-learn", "seconds", "of scikit-learn"]
    return _markdown(heads, rows)


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = [heads, ["-" * width for width in widths], *rows]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


if __name__ == "__main__":
    begun = time.perf_counter()
    main()
    print(f"\n{time.perf_counter() - begun:.0f} s in total")
