"""The command line: ``weightdecay sweep digits`` trains a whole decay grid and says which decay to take.

JAX and the rest are imported when a command runs, so that ``--help`` answers at once.
"""

import functools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from weightdecay.decay import Rule
    from weightdecay.results import GridResult

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

# Coefficients from where a rule does nothing to where it takes everything, under Adam at a learning rate of 0.001.
_RANGES = {
    "L2": (1e-6, 1e-1),
    "L1": (1e-7, 1e-2),
    "ElasticNet": (1e-7, 1e-2),
    "Orthogonal": (1e-5, 1e0),
    "Spectral": (1e-5, 1e0),
    "TowardAnchor": (1e-6, 1e-1),
    "Decoupled": (1e-3, 1e1),
    "Independent": (1e-6, 1e-2),
    "Corrected": (1e-3, 1e1),
    "Cautious": (1e-3, 1e1),
    "Stable": (1e-6, 1e-1),
    "Adaptive": (1e-2, 1e2),
    "ProximalL1": (1e-7, 1e-2),
    "ProximalL2": (1e-6, 1e-1),
    "ProximalElasticNet": (1e-7, 1e-2),
    "ProximalGroupLasso": (1e-7, 1e-2),
    "MaxNorm": (1e-1, 1e1),
    "SelectiveProjection": (1e-2, 1e0),
}

_OPTIMIZERS = ("adam", "sgd", "lion", "rmsprop", "lamb", "muon")

# Options by the name that the library's messages begin with, and by command where commands differ.
_OPTIONS = {
    "batch_size": "batch-size",
    "convert learning_rate": "learning-rate",
    "convert num_steps": "num-steps",
    "folder": "output",
    "label_noise": "label-noise",
    "learning_rate": "learning-rates",
    "learning_rates": "learning-rates",
    "metric": "metric",
    "momentum": "momentum",
    "new_batch_size": "new-batch-size",
    "new_learning_rate": "new-learning-rate",
    "new_num_examples": "new-num-examples",
    "new_num_steps": "new-num-steps",
    "num": "num-coefficients",
    "num_examples": "num-examples",
    "num_steps": "steps",
    "num_train": "train-size",
    "optimizer": "optimizer",
    "rules": "rules",
    "seeds": "seeds",
    "source": "from",
    "start": "coefficients",
    "stop": "coefficients",
    "target": "to",
    "widths": "widths",
}


def _told(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command end what a user can mend in one message, with the option's own name, and no traceback."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except (ValueError, OSError, MemoryError) as error:
            name = re.split(r"\W", str(error), maxsplit=1)[0]
            option = _OPTIONS.get(f"{command.__name__} {name}", _OPTIONS.get(name))
            typer.echo(f"weightdecay: {f'--{option}: ' if option else ''}{error}", err=True)
            raise typer.Exit(2) from error

    return run


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    """How much weight decay, of which kind, on which weights?"""
    if version:
        from importlib import metadata

        typer.echo(metadata.version("weightdecay"))
        raise typer.Exit


# What a grid is made of: the same for every command that has one.
_Dataset = Annotated[str, typer.Argument(help="digits, breast_cancer, wine or diabetes.")]
_Widths = Annotated[str, typer.Option(help="Hidden layers of the multilayer perceptron.")]
_Rules = Annotated[
    str,
    typer.Option(
        help=f"Kinds of decay: {', '.join(['NoDecay', *_RANGES])}. Elastic nets take one coefficient for both of "
        "theirs. NoDecay is always a candidate."
    ),
]
_Coefficients = Annotated[
    tuple[float, float] | None,
    typer.Option(help="Smallest and largest coefficient, for every rule.", show_default="a range for each rule"),
]
_NumCoefficients = Annotated[int, typer.Option(help="Coefficients a rule, log-spaced.")]
_LearningRates = Annotated[str, typer.Option(help="Learning rates, each tried with every decay.")]
_Optimizer = Annotated[str, typer.Option(help=f"{', '.join(_OPTIMIZERS)}.")]
_Seeds = Annotated[int, typer.Option(help="Replicates of each candidate.")]
_Steps = Annotated[int, typer.Option(help="Training steps.")]
_BatchSize = Annotated[int, typer.Option(help="Examples a step.")]
_TrainSize = Annotated[int | None, typer.Option(help="Training examples to keep.", show_default="all")]
_ALL_RULES = "NoDecay,L2,L1,ProximalL1,Decoupled"


@app.command()
@_told
def sweep(
    dataset: _Dataset,
    widths: _Widths = "64,64",
    rules: _Rules = _ALL_RULES,
    coefficients: _Coefficients = None,
    num_coefficients: _NumCoefficients = 11,
    learning_rates: _LearningRates = "1e-3",
    optimizer: _Optimizer = "adam",
    seeds: _Seeds = 3,
    steps: _Steps = 1000,
    batch_size: _BatchSize = 64,
    train_size: _TrainSize = None,
    label_noise: Annotated[float, typer.Option(help="Share of training labels to falsify.")] = 0.0,
    metric: Annotated[str, typer.Option(help="Choose by validation_loss or validation_accuracy.")] = "validation_loss",
    output: Annotated[
        Path | None, typer.Option(help="Folder for the result and the plots.", show_default="runs/DATASET")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result in that folder.")] = False,
    patience: Annotated[
        int | None, typer.Option(help="Evaluations without a better metric after which a member stops.")
    ] = None,
    directory: Annotated[
        Path | None, typer.Option(help="Save the run here as it goes: the same command goes on where it was cut off.")
    ] = None,
) -> None:
    """Train a network under many kinds and strengths of decay, and choose one on validation data."""
    from weightdecay import folders, running, selection

    folder = folders.check_folder(_folder(dataset) if output is None else output, overwrite=overwrite)
    if metric not in selection.METRICS:
        raise ValueError(f"metric is {metric!r}; give one of {', '.join(selection.METRICS)}.")
    if dataset == "diabetes" and (label_noise or metric != "validation_loss"):
        raise ValueError(
            "dataset diabetes is a regression: it has no labels to falsify and no accuracy; "
            "leave label_noise and metric."
        )
    noise = {} if dataset == "diabetes" else {"label_noise": label_noise}
    job = _job(
        dataset, widths, rules, coefficients, num_coefficients, learning_rates, optimizer, seeds, train_size, noise
    )
    splits, grid = job["data"], job["grid"]
    sizes = [len(split[0]) for split in (splits.train, splits.validation, splits.test)]
    typer.echo(
        f"{dataset}: {sizes[0]} training, {sizes[1]} validation, {sizes[2]} test examples. "
        f"{len(grid) // seeds} candidates x {seeds} seeds = {len(grid)} members, {steps} steps each."
    )
    result = running.fit_grid(
        **job, num_steps=steps, batch_size=batch_size, patience=patience, stopping_metric=metric, directory=directory
    )
    if result.settings["interrupted"]:
        raise typer.Exit(130)
    try:
        result.test(metric=metric)
    finally:  # Where nothing can be chosen, what was trained is kept all the same.
        result.save(folder, overwrite=overwrite)
    _plot(result, folder, metric)
    _show(result, metric)
    typer.echo(f"\nResult, validation-path.png and sparsity.png written to {folder}")


@app.command()
@_told
def plan(
    dataset: _Dataset,
    widths: _Widths = "64,64",
    rules: _Rules = _ALL_RULES,
    coefficients: _Coefficients = None,
    num_coefficients: _NumCoefficients = 11,
    learning_rates: _LearningRates = "1e-3",
    optimizer: _Optimizer = "adam",
    seeds: _Seeds = 3,
    steps: _Steps = 1000,
    batch_size: _BatchSize = 64,
    train_size: _TrainSize = None,
) -> None:
    """Say what a sweep would run, where, and how much memory and time it takes."""
    from weightdecay import running

    job = _job(dataset, widths, rules, coefficients, num_coefficients, learning_rates, optimizer, seeds, train_size, {})
    typer.echo(running.plan(**job, num_steps=steps, batch_size=batch_size))


@app.command()
@_told
def convert(
    coefficient: Annotated[
        str | None, typer.Argument(help="A number, or for elastic nets two, divided by a comma.", show_default=False)
    ] = None,
    source: Annotated[str | None, typer.Option("--from", help="Convention, such as keras.L2.")] = None,
    target: Annotated[str | None, typer.Option("--to", help="Convention, such as torch.SGD.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    batch_size: Annotated[float | None, typer.Option(help="Examples a step.")] = None,
    num_examples: Annotated[float | None, typer.Option(help="Training examples.")] = None,
    num_steps: Annotated[float | None, typer.Option(help="Steps of the run.")] = None,
    momentum: Annotated[float, typer.Option(help="Of torch.SGD.")] = 0.0,
    new_learning_rate: Annotated[float | None, typer.Option(help="Move to it, at constant time scale.")] = None,
    new_batch_size: Annotated[float | None, typer.Option(help="Move to it, at constant time scale.")] = None,
    new_num_examples: Annotated[float | None, typer.Option(help="Move to it, at constant time scale.")] = None,
    new_num_steps: Annotated[float | None, typer.Option(help="Move to it, at constant share of the run.")] = None,
    show_list: Annotated[bool, typer.Option("--list", help="Show the conventions with formulas, and exit.")] = False,
) -> None:
    """Convert a coefficient between the conventions of this library, torch, optax, Keras, scikit-learn and papers."""
    from weightdecay import conventions

    if show_list:
        typer.echo(conventions.describe())
        return
    for name, value in {"coefficient": coefficient, "source": source, "target": target}.items():
        if value is None:
            raise ValueError(
                f"{name} is missing; write it as in weightdecay convert 0.01 --from keras.L2 --to torch.SGD."
            )
    numbers = _numbers("coefficient", coefficient or "", float)
    result = conventions.convert(
        numbers[0] if len(numbers) == 1 else tuple(numbers),
        source or "",
        target or "",
        learning_rate=learning_rate,
        batch_size=batch_size,
        num_examples=num_examples,
        num_steps=num_steps,
        momentum=momentum,
        new_learning_rate=new_learning_rate,
        new_batch_size=new_batch_size,
        new_num_examples=new_num_examples,
        new_num_steps=new_num_steps,
    )
    results = result if isinstance(result, tuple) else (result,)
    typer.echo(",".join(map(repr, results)))
    typer.echo(results[0].explanation)


def _show(result: "GridResult", metric: str) -> None:
    best = result.best(metric=metric)
    marks, cautious = {best.number: "*"}, "not to be told from one seed"
    if len(best.members) > 1:
        choice = result.best("one_standard_error", metric=metric)
        marks.setdefault(choice.number, "+")
        cautious = str(choice)
    typer.echo("\n" + "\n".join(_table(result, marks)))
    typer.echo(f"\n* best mean:          {best}")
    typer.echo(f"{'+' if '+' in marks.values() else '*'} one standard error: {cautious}")
    none = result.no_decay(metric=metric)
    if none is not None and none.number != best.number:
        typer.echo(f"  no decay:           {none}")
    scores = result.test(metric=metric).to_dict("records")
    name = "test_loss" if scores[0]["test_accuracy"] != scores[0]["test_accuracy"] else "test_accuracy"
    told = [f"{row['decay']} {_mean(row, name)}" for row in scores]
    typer.echo(f"  {name.replace('_', ' ') + ':':<20}{', '.join(told)}")
    if best.advice:
        typer.echo(f"\nWarning: {best.advice}")


def _table(result: "GridResult", marks: dict[int, str]) -> list[str]:
    """Lines of the table of candidates."""
    rows = result.table().to_dict("records")
    has_accuracy = any(row["validation_accuracy"] == row["validation_accuracy"] for row in rows)
    columns: dict[str, Callable[[dict[Any, Any]], str]] = {}
    if len({row["learning_rate"] for row in rows}) > 1:
        columns["learning rate"] = lambda row: f"{row['learning_rate']:g}"
    if has_accuracy:
        columns["val. accuracy"] = lambda row: _mean(row, "validation_accuracy")
    columns["val. loss"] = lambda row: _mean(row, "validation_loss")
    if has_accuracy:
        columns["train accuracy"] = lambda row: f"{row['train_accuracy']:.4f}"
    else:
        columns["train loss"] = lambda row: f"{row['train_loss']:.4f}"
    columns["gap"] = lambda row: f"{row['generalization_gap']:+.4f}"
    columns["weight norm"] = lambda row: f"{row['weight_norm']:.2f}"
    columns["zeros"] = lambda row: f"{100 * row['zero_fraction']:.1f} %"

    cells = [["", "candidate", *columns]]
    for candidate, row in zip(result.candidates(), rows, strict=True):
        cells.append([marks.get(candidate.number, ""), str(candidate.decay), *(show(row) for show in columns.values())])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    aligned = (
        [f"{line[0]:<{widths[0]}}", f"{line[1]:<{widths[1]}}", *map(str.rjust, line[2:], widths[2:])] for line in cells
    )
    return ["  ".join(line) for line in aligned]


def _mean(row: dict[Any, Any], name: str) -> str:
    """Mean and standard error; a single seed has none."""
    error = row[f"{name}_standard_error"]
    return f"{row[name]:.4f}" + (f" ± {error:.4f}" if error == error else "")


def _plot(result: "GridResult", folder: Path, metric: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    for name, axes in {"validation-path": result.plot_path(metric), "sparsity": result.plot_sparsity()}.items():
        axes.figure.savefig(folder / f"{name}.png", dpi=150)


def _job(
    dataset: str,
    widths: str,
    rules: str,
    coefficients: tuple[float, float] | None,
    num_coefficients: int,
    learning_rates: str,
    optimizer: str,
    seeds: int,
    train_size: int | None,
    noise: dict[str, float],
) -> dict[str, Any]:
    """Model, data, grid and optimizer from the options; what is wrong is told before anything slow is imported."""
    layers = _numbers("widths", widths, int)
    rates = _numbers("learning_rates", learning_rates, float)
    if seeds < 1:
        raise ValueError(f"seeds is {seeds}; give at least 1.")

    from weightdecay import data, models, optimizers
    from weightdecay.grid import Grid

    optimize = _one_of("optimizer", optimizer, {name: getattr(optimizers, name) for name in _OPTIMIZERS})
    make = _one_of("dataset", dataset, data.BUILT_IN)
    grid = Grid(decay=_rules(rules, coefficients, num_coefficients), learning_rate=rates, seed=range(seeds))
    splits = make(num_train=train_size, **noise)
    return {"model": models.MLP(tuple(layers)), "data": splits, "grid": grid, "optimizer": optimize}


def _rules(names: str, coefficients: tuple[float, float] | None, num: int) -> list["Rule"]:
    from weightdecay import decay
    from weightdecay.grid import logspace

    offered = {name: decay.KINDS[name] for name in ("NoDecay", *_RANGES)}
    kinds = {name.lower(): kind for name, kind in offered.items()}
    made: list[Rule] = [decay.NoDecay()]
    for name in _words("rules", names):
        kind = kinds.get(name.lower().replace("_", "")) or _one_of("rules", name, offered)
        if kind is decay.NoDecay:
            continue
        low, high = coefficients or _RANGES[kind.__name__]
        several = kind in (decay.ElasticNet, decay.ProximalElasticNet)
        made += logspace((lambda c, kind=kind: kind(c, c)) if several else kind, low, high, num)
    return made


def _folder(dataset: str) -> Path:
    """First folder of the data set's name that is not taken."""
    folder, number = Path("runs") / dataset, 1
    while folder.exists():
        number += 1
        folder = Path("runs") / f"{dataset}-{number}"
    return folder


def _words(argument: str, text: str) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise ValueError(f"{argument} is empty; give words divided by commas.")
    return words


def _numbers(argument: str, text: str, kind: Callable[[str], Any]) -> list[Any]:
    try:
        return [kind(word) for word in _words(argument, text)]
    except ValueError as error:
        raise ValueError(
            f"{argument} is {text!r}; give numbers divided by commas, such as 64,64 or 1e-3,3e-3."
        ) from error


def _one_of(argument: str, name: str, choices: dict[str, Any]) -> Any:
    if name not in choices:
        raise ValueError(f"{argument} has {name!r}, which is unknown; give one of {', '.join(choices)}.")
    return choices[name]


if __name__ == "__main__":
    sys.exit(app())
