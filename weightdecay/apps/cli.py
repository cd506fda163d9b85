"""The command line: ``weightdecay sweep digits`` trains a whole decay grid and says which decay to take.

JAX and the rest are imported when a command runs, so that ``--help`` answers at once.
"""

import functools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from weightdecay.apps import cli_arguments

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

# Options by the name that the library's messages begin with, and by command where commands differ.
_OPTIONS = {
    "article learning_rate": "learning-rate",
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
    "report folder": "",
    "report path": "output",
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
_Dataset = Annotated[
    str, typer.Argument(help="digits, breast_cancer, wine or diabetes; clusters or spirals, which are made.")
]
_Widths = Annotated[str, typer.Option(help="Hidden layers of the multilayer perceptron.")]
_Rules = Annotated[
    str,
    typer.Option(
        help=f"Kinds of decay: {', '.join(['NoDecay', *cli_arguments.RANGES])}. Elastic nets take one coefficient for "
        "both of theirs. NoDecay is always a candidate."
    ),
]
_Coefficients = Annotated[
    tuple[float, float] | None,
    typer.Option(help="Smallest and largest coefficient, for every rule.", show_default="a range for each rule"),
]
_NumCoefficients = Annotated[int, typer.Option(help="Coefficients a rule, log-spaced.")]
_LearningRates = Annotated[str, typer.Option(help="Learning rates, each tried with every decay.")]
_Optimizer = Annotated[str, typer.Option(help=f"{', '.join(cli_arguments.OPTIMIZERS)}.")]
_Seeds = Annotated[int, typer.Option(help="Replicates of each candidate.")]
_Steps = Annotated[int, typer.Option(help="Training steps.")]
_BatchSize = Annotated[int, typer.Option(help="Examples a step.")]
_TrainSize = Annotated[int | None, typer.Option(help="Training examples to keep.", show_default="all")]
_LabelNoise = Annotated[float, typer.Option(help="Share of training labels to falsify.")]
_Output = Annotated[Path | None, typer.Option(help="Folder for the result and the plots.", show_default="runs/DATASET")]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result in that folder.")]
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
    label_noise: _LabelNoise = 0.0,
    metric: Annotated[str, typer.Option(help="Choose by validation_loss or validation_accuracy.")] = "validation_loss",
    output: _Output = None,
    overwrite: _Overwrite = False,
    patience: Annotated[
        int | None, typer.Option(help="Evaluations without a better metric after which a member stops.")
    ] = None,
    directory: Annotated[
        Path | None, typer.Option(help="Save the run here as it goes: the same command goes on where it was cut off.")
    ] = None,
) -> None:
    """Train a network under many kinds and strengths of decay, and choose one on validation data."""
    from weightdecay.apps import cli_output
    from weightdecay.engine import fit
    from weightdecay.results import selection
    from weightdecay.storage import result_folder

    folder = result_folder.check_folder(
        cli_arguments.folder(dataset) if output is None else output, overwrite=overwrite
    )
    if metric not in selection.METRICS:
        raise ValueError(f"metric is {metric!r}; give one of {', '.join(selection.METRICS)}.")
    if metric != "validation_loss" and cli_arguments.is_regression(dataset):
        raise ValueError(
            f"metric is {metric!r}, but dataset {dataset} is a regression, which has no accuracy; leave it."
        )
    job = cli_arguments.job(
        dataset,
        widths,
        rules,
        coefficients,
        num_coefficients,
        learning_rates,
        optimizer,
        seeds,
        train_size,
        label_noise,
    )
    splits, grid = job["data"], job["grid"]
    sizes = [len(split[0]) for split in (splits.train, splits.validation, splits.test)]
    typer.echo(
        f"{dataset}: {sizes[0]} training, {sizes[1]} validation, {sizes[2]} test examples. "
        f"{len(grid) // seeds} candidates x {seeds} seeds = {len(grid)} members, {steps} steps each."
    )
    result = fit.fit_grid(
        **job, num_steps=steps, batch_size=batch_size, patience=patience, stopping_metric=metric, directory=directory
    )
    if result.settings["interrupted"]:
        raise typer.Exit(130)
    try:
        result.test(metric=metric)
    finally:  # Where nothing can be chosen, what was trained is kept all the same.
        result.save(folder, overwrite=overwrite)
        page = result.report(folder / "report.html", metric=metric)
    _save_plots(folder, validation_path=lambda: result.plot_path(metric), sparsity=result.plot_sparsity)
    cli_output.show(result, metric)
    typer.echo(f"\nResult, validation-path.png and sparsity.png written to {folder}\nRead {page} in a browser.")


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
    from weightdecay.engine import forecast

    job = cli_arguments.job(
        dataset, widths, rules, coefficients, num_coefficients, learning_rates, optimizer, seeds, train_size
    )
    typer.echo(forecast.plan(**job, num_steps=steps, batch_size=batch_size))


@app.command()
@_told
def compare(
    dataset: _Dataset,
    widths: _Widths = "64,64",
    trials: Annotated[int, typer.Option(help="Candidates of each method.")] = 16,
    seeds: _Seeds = 3,
    steps: _Steps = 1000,
    batch_size: _BatchSize = 64,
    train_size: _TrainSize = None,
    label_noise: _LabelNoise = 0.0,
    output: _Output = None,
    overwrite: _Overwrite = False,
) -> None:
    """Compare decay with dropout, normalization, early stopping, augmentation and their pairs, at one budget."""
    from weightdecay import models
    from weightdecay.apps import comparison
    from weightdecay.storage import result_folder

    folder = result_folder.check_folder(
        cli_arguments.folder(f"{dataset}-compared") if output is None else output, overwrite=overwrite
    )
    splits = cli_arguments.data_set(dataset, train_size=train_size, label_noise=label_noise)
    compared = comparison.compare(
        models.MLP(tuple(cli_arguments.numbers("widths", widths, int))),
        splits,
        num_trials=trials,
        seeds=range(seeds),
        num_steps=steps,
        batch_size=batch_size,
    )
    compared.result.save(folder, overwrite=overwrite)
    compared.table().to_csv(folder / "comparison.csv")
    _save_plots(folder, comparison=compared.plot)
    typer.echo(f"\n{compared}\n\nAll trials, comparison.csv and comparison.png written to {folder}")


@app.command()
@_told
def article(
    dataset: _Dataset = "digits",
    widths: _Widths = "64,64",
    seeds: _Seeds = 5,
    steps: _Steps = 2000,
    batch_size: _BatchSize = 32,
    learning_rate: Annotated[float, typer.Option(help="Of Adam, the same for all.")] = 1e-3,
    output: _Output = None,
    overwrite: _Overwrite = False,
) -> None:
    """Make every table of a popular article on weight decay from real data, each beside what it claims."""
    from weightdecay.apps import article as articles

    folder = cli_arguments.folder(f"{dataset}-article") if output is None else output
    articles.check_folder(folder, overwrite=overwrite)
    protocol = articles.Protocol.of(
        cli_arguments.data_set(dataset, train_size=None),
        hidden=cli_arguments.numbers("widths", widths, int),
        seeds=seeds,
        num_steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
    )
    typer.echo(f"{protocol}\n")
    made = protocol.run()
    made.save(folder, overwrite=overwrite)
    typer.echo(f"\n{made.told()}\n\narticle.md, tables and results written to {folder}; {made.seconds:.0f} seconds.")


@app.command()
@_told
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a result, or directory of a run that is finished.")],
    output: Annotated[Path | None, typer.Option(help="File to write.", show_default="FOLDER/report.html")] = None,
    metric: Annotated[
        str, typer.Option(help="Choose by validation_loss, validation_accuracy or a metric of your own.")
    ] = "validation_loss",
) -> None:
    """Write one page for a browser: the decision, candidates, pictures, and how it was run."""
    from weightdecay.results import grid_result

    page = grid_result.load(folder).report(folder / "report.html" if output is None else output, metric=metric)
    typer.echo(f"Read {page} in a browser.")


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
    from weightdecay.decay import conventions
    from weightdecay.decay.convert import convert as convert_coefficient

    if show_list:
        typer.echo(conventions.describe())
        return
    for name, value in {"coefficient": coefficient, "source": source, "target": target}.items():
        if value is None:
            raise ValueError(
                f"{name} is missing; write it as in weightdecay convert 0.01 --from keras.L2 --to torch.SGD."
            )
    numbers = cli_arguments.numbers("coefficient", coefficient or "", float)
    result = convert_coefficient(
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
    grid_result = result if isinstance(result, tuple) else (result,)
    typer.echo(",".join(map(repr, grid_result)))
    typer.echo(grid_result[0].explanation)


def _save_plots(folder: Path, **plots: Callable[[], Any]) -> None:
    """Save plots under their names, without a screen."""
    import matplotlib

    matplotlib.use("Agg")
    for name, plot in plots.items():
        plot().figure.savefig(folder / f"{name.replace('_', '-')}.png", dpi=150)


if __name__ == "__main__":
    sys.exit(app())
