"""The command line: ``weightdecay sweep digits`` trains a grid of decays and reports which one to choose.

JAX and the libraries on top of it are imported when a command runs, so that ``--help`` answers at once.
"""

import dataclasses
import functools
import inspect
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from weightdecay.apps import cli_arguments, cli_config, cli_data, cli_model, cli_output
from weightdecay.apps.cli_arguments import GridArguments
from weightdecay.apps.cli_data import DataArguments
from weightdecay.core.checks import ArgumentError, integer

# Parameters of the commands that have another name than the library's argument.
PARAMETERS = {
    "directory": ("output",),
    "dtype": ("token_dtype",),
    "folder": ("output",),
    "learning_rate": ("learning_rates",),
    "model.hidden": ("widths",),
    "num": ("num_coefficients", "trials"),
    "num_steps": ("steps",),
    "num_train": ("train_size",),
    "source": ("dataset",),
    "targets": ("target",),
    "path": ("output",),
    "start": ("coefficients",),
    "stop": ("coefficients",),
}


class _App(typer.Typer):
    """The program; it can print on a terminal of any encoding."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        cli_output.transliterate()
        return super().__call__(*args, **kwargs)


app = _App(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)


def _command(function: Callable[..., None]) -> Callable[..., None]:
    """Make a command of a function.

    A parameter whose annotation is a dataclass becomes one option for each field. An error that the user can correct
    ends the command with one message, which names the option, and no traceback; so does a warning, without its line.
    """
    parameters, groups = [], {}
    for parameter in inspect.signature(function).parameters.values():
        kind = parameter.annotation
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            fields = inspect.signature(kind).parameters
            groups[parameter.name] = kind, list(fields)
            parameters += [field.replace(kind=inspect.Parameter.KEYWORD_ONLY) for field in fields.values()]
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    options = {parameter.name: _option(parameter) for parameter in parameters}

    @functools.wraps(function)
    def command(**values: Any) -> None:
        for name, (group, fields) in groups.items():
            values[name] = group(**{field: values.pop(field) for field in fields})
        try:
            with cli_output.plain_warnings():
                function(**values)
        except (ValueError, OSError, MemoryError) as error:
            argument = error.argument.partition("[")[0] if isinstance(error, ArgumentError) else ""
            names = [name for name in (argument, *PARAMETERS.get(argument, ())) if name in options]
            option = options[names[0]] if names else ""
            message = cli_output.without_code(str(error)) or "there is not enough memory; give fewer members."
            cli_output.echo(f"weightdecay: {f'{option}: ' if option else ''}{message}", to_stderr=True)
            raise typer.Exit(2) from error

    vars(command)["__signature__"] = inspect.Signature(parameters)
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _option(parameter: inspect.Parameter) -> str:
    """Name of the option of a command's parameter, with its dashes; empty for an argument without a name."""
    (information,) = parameter.annotation.__metadata__
    if isinstance(information, typer.models.ArgumentInfo):
        return ""
    declared = (information.default, *(information.param_decls or ()))
    return next((name for name in declared if isinstance(name, str)), f"--{parameter.name.replace('_', '-')}")


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    """How much weight decay, of which kind, on which weights?"""
    if version:
        from importlib import metadata

        cli_output.echo(metadata.version("weightdecay"))
        raise typer.Exit


@app.command(cls=cli_arguments.CommandWithRules)
@_command
def sweep(
    arguments: GridArguments,
    source: DataArguments,
    metric: Annotated[
        str, typer.Option(help="Metric of the choice: validation_loss or validation_accuracy.")
    ] = "validation_loss",
    patience: Annotated[
        int | None,
        typer.Option(
            help="Stop a member after this number of evaluations without a better metric.", show_default="never"
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            help="Fraction of the grid's steps to spend, such as 0.1; a search decides which members are trained.",
            show_default="train all",
        ),
    ] = None,
    config: cli_config.Config = None,
    output: cli_arguments.Folder = None,
    overwrite: cli_arguments.Overwrite = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be trained, and the options as --config takes them.")
    ] = False,
    show_all: Annotated[bool, typer.Option("--all", help="Show all candidates, not the best ten.")] = False,
) -> None:
    """Train a network with many kinds and strengths of decay, and choose one by validation data."""
    from weightdecay.apps import cli_folder
    from weightdecay.engine import fit
    from weightdecay.results import selection

    settings = {"metric": metric, "patience": patience, "budget": budget}
    options = cli_config.as_text("sweep", cli_config.of_options({**vars(arguments), **vars(source), **settings}))
    folder = cli_arguments.output_folder(
        output,
        cli_data.title(arguments.dataset),
        overwrite=overwrite,
        resumes=lambda folder: cli_folder.resumes(folder, options),
    )
    with cli_arguments.concerning("output"):
        cli_folder.check(folder, overwrite=overwrite)
    cli_arguments.look_up("metric", metric, dict.fromkeys(selection.METRICS))
    job = arguments.job(source=source)
    data, grid, seeds = job["data"], job["grid"], arguments.seeds
    if metric != "validation_loss" and cli_data.is_regression(data):
        raise ArgumentError(
            "metric", f"metric is {metric!r}, but {arguments.dataset} is a regression; give validation_loss."
        )
    sizes = [len(split[0]) for split in (data.train, data.validation, data.test)]
    head = (
        f"{arguments.dataset}: {sizes[0]} training, {sizes[1]} validation, {sizes[2]} test examples. "
        f"{len(grid) // seeds} candidates x {seeds} seeds = {len(grid)} members, {arguments.steps} steps each."
    )
    cli_output.echo(cli_output.wrapped(head, cli_output.width()))
    if dry_run:
        cli_output.echo(f"\nNothing was trained. The run would be in {folder}, with these options:\n\n{options}")
        return
    replace = overwrite and not cli_folder.resumes(folder, options)
    with warnings.catch_warnings(), cli_folder.recorded(folder, options, replace=replace):
        warnings.filterwarnings("ignore", message="interrupted;")  # reported below, with the options' names
        if arguments.ladder == "scout":
            job = cli_arguments.scouted(arguments, job)
        result = fit.fit_grid(
            **job,
            num_steps=arguments.steps,
            batch_size=arguments.batch_size,
            patience=patience,
            stopping_metric=metric,
            directory=folder,
            budget=budget,
        )
    if result.settings["interrupted"]:
        message = f"interrupted; what was trained is saved in {folder}; the same command resumes the run."
        cli_output.echo(f"weightdecay: {message}", to_stderr=True)
        raise typer.Exit(130)
    try:
        result.test(metric=metric)
    finally:  # All members may have diverged, so that there is no choice: the result is saved nevertheless.
        with cli_arguments.concerning("output"):
            result.save(folder / "result", overwrite=True)
            page = result.report(folder / "report.html", metric=metric)
    cli_output.save_plots(folder, validation_path=lambda: result.plot_path(metric), sparsity=result.plot_sparsity)
    cli_output.show(result, metric, show_all=show_all)
    if searched := result.searched():
        sentence = f"\n{searched[0].upper()}{searched[1:]}."
        cli_output.echo(cli_output.wrapped(sentence, cli_output.width()))
    written = f"Result, {cli_config.FILE}, validation-path.png and sparsity.png written to {folder}"
    cli_output.echo(f"\n{cli_output.wrapped(written, cli_output.width())}\nRead {page} in a browser.")


@app.command(cls=cli_arguments.CommandWithRules)
@_command
def plan(arguments: GridArguments, source: DataArguments, config: cli_config.Config = None) -> None:
    """Show what a sweep would run, on which devices, and the memory and time that it takes."""
    from weightdecay.engine import forecast

    job = arguments.job(source=source)
    plan = forecast.plan(**job, num_steps=arguments.steps, batch_size=arguments.batch_size)
    cli_output.echo(cli_output.wrapped(str(plan), cli_output.width(), indent="    "))


@app.command()
@_command
def compare(
    source: DataArguments,
    dataset: cli_arguments.Dataset,
    model: cli_arguments.Model = None,
    widths: cli_arguments.Widths = None,
    trials: Annotated[int, typer.Option(help="Number of candidates of each method.")] = 16,
    seeds: cli_arguments.Seeds = 3,
    steps: cli_arguments.Steps = 1000,
    batch_size: cli_arguments.BatchSize = 64,
    train_size: cli_arguments.TrainSize = None,
    label_noise: cli_arguments.LabelNoise = 0.0,
    config: cli_config.Config = None,
    output: cli_arguments.Output = None,
    overwrite: cli_arguments.Overwrite = False,
) -> None:
    """Compare decay with dropout, normalization, early stopping, augmentation and their pairs, at the same budget."""
    from weightdecay.apps import comparison
    from weightdecay.storage import result_folder

    options = dict(locals())
    options |= vars(options.pop("source"))
    folder = cli_arguments.output_folder(output, f"{cli_data.title(dataset)}-compared", overwrite=overwrite)
    with cli_arguments.concerning("output"):
        result_folder.check_folder(folder, overwrite=overwrite)
    cli_arguments.numbers("widths", widths or cli_model.WIDTHS, int)
    integer(trials, "trials", at_least=1)
    integer(seeds, "seeds", at_least=1)
    data = cli_data.load(dataset, source, train_size=train_size, label_noise=label_noise)
    network = cli_model.build(model, widths, of_tokens=cli_data.is_tokens(data))
    compared = comparison.compare(
        network, data, num_trials=trials, seeds=range(seeds), num_steps=steps, batch_size=batch_size
    )
    with cli_arguments.concerning("output"):
        compared.result.save(folder, overwrite=overwrite)
        compared.table().to_csv(folder / "comparison.csv")
        cli_config.write(folder, "compare", options)
        page = compared.report(folder / "report.html")
    cli_output.save_plots(folder, comparison=compared.plot)
    cli_output.show_comparison(compared)
    written = (
        f"All trials, {cli_config.FILE}, comparison.csv and comparison.png written to {folder}\n"
        f"Read {page} in a browser."
    )
    cli_output.echo(f"\n{cli_output.wrapped(written, cli_output.width())}")


@app.command()
@_command
def article(
    dataset: cli_arguments.Dataset = "digits",
    widths: cli_arguments.Widths = None,
    seeds: cli_arguments.Seeds = 5,
    steps: cli_arguments.Steps = 2000,
    batch_size: cli_arguments.BatchSize = 32,
    learning_rate: Annotated[float, typer.Option(help="Learning rate of Adam, the same for all members.")] = 1e-3,
    output: cli_arguments.Output = None,
    overwrite: cli_arguments.Overwrite = False,
) -> None:
    """Make each table of a popular article on weight decay from real data, next to the figures that it claims."""
    from weightdecay.apps import article as articles
    from weightdecay.apps.article_protocol import Protocol

    folder = cli_arguments.output_folder(output, f"{dataset}-article", overwrite=overwrite)
    with cli_arguments.concerning("output"):
        articles.check_folder(folder, overwrite=overwrite)
    protocol = Protocol.of(
        cli_data.load(dataset, DataArguments(), train_size=None),
        hidden=cli_arguments.numbers("widths", widths or cli_model.WIDTHS, int),
        seeds=seeds,
        num_steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
    )
    cli_output.echo(f"{protocol}\n")
    made = articles.run(protocol)
    with cli_arguments.concerning("output"):
        made.save(folder, overwrite=overwrite)
    cli_output.echo(
        f"\n{made.tables_and_summary()}\n\n"
        f"article.md, article.html, tables and results written to {folder}; {made.seconds:.0f} seconds."
    )


@app.command()
@_command
def status(
    directory: Annotated[Path, typer.Argument(help="Directory of a run, which may be in progress.")],
) -> None:
    """Show who trains what in the directory of a run, what is done, what is left, and an estimate of the time."""
    from weightdecay.apps import status as status_text
    from weightdecay.storage import run_status

    cli_output.echo(status_text.described(directory, run_status.read(directory)))


@app.command()
@_command
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a result, or directory of a run, also one in progress.")],
    output: Annotated[Path | None, typer.Option(help="File to write.", show_default="FOLDER/report.html")] = None,
    metric: Annotated[
        str, typer.Option(help="Metric of the choice: validation_loss, validation_accuracy or one of your own.")
    ] = "validation_loss",
    every: Annotated[
        float | None,
        typer.Option(
            help="Write the page again after this number of seconds, until the run is finished; the browser follows.",
            show_default="once",
        ),
    ] = None,
) -> None:
    """Write one HTML page: the decision, the candidates, plots, and how the grid was run."""
    from weightdecay.apps import cli_report

    cli_report.write(folder, output, metric=metric, every=every)


@app.command()
@_command
def convert(
    coefficient: Annotated[
        str | None,
        typer.Argument(help="A number; for elastic nets two numbers, comma-separated.", show_default=False),
    ] = None,
    source: Annotated[
        str | None, typer.Option("--from", help="Convention of the coefficient, such as keras.L2.", show_default=False)
    ] = None,
    target: Annotated[
        str | None, typer.Option("--to", help="Convention to convert to, such as torch.SGD.", show_default=False)
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.", show_default=False)] = None,
    batch_size: Annotated[
        float | None, typer.Option(help="Number of examples per training step.", show_default=False)
    ] = None,
    num_examples: Annotated[float | None, typer.Option(help="Number of training examples.", show_default=False)] = None,
    num_steps: Annotated[float | None, typer.Option(help="Number of training steps.", show_default=False)] = None,
    width: Annotated[float | None, typer.Option(help="Channels of the network (nanochat).", show_default=False)] = None,
    momentum: Annotated[float, typer.Option(help="Momentum of torch.SGD.")] = 0.0,
    new_learning_rate: Annotated[
        float | None, typer.Option(help="Move to it at a constant time scale.", show_default=False)
    ] = None,
    new_batch_size: Annotated[
        float | None, typer.Option(help="Move to it at a constant time scale.", show_default=False)
    ] = None,
    new_num_examples: Annotated[
        float | None, typer.Option(help="Move to it at a constant time scale.", show_default=False)
    ] = None,
    new_num_steps: Annotated[
        float | None,
        typer.Option(help="Move to it at a time scale that is a constant fraction of the run.", show_default=False),
    ] = None,
    show_list: Annotated[
        bool, typer.Option("--list", help="Show the conventions with their formulas, and exit.")
    ] = False,
) -> None:
    """Convert a coefficient between the conventions of this library, torch, optax, Keras, scikit-learn and papers."""
    from weightdecay.decay import conventions
    from weightdecay.decay.convert import convert as convert_coefficient

    if show_list:
        cli_output.echo(cli_output.wrapped(conventions.describe(), cli_output.width(), indent=" " * 8))
        return
    for name, value in {"coefficient": coefficient, "source": source, "target": target}.items():
        if value is None:
            raise ArgumentError(
                name, f"{name} is missing; write for example weightdecay convert 0.01 --from keras.L2 --to torch.SGD."
            )
    coefficients = cli_arguments.numbers("coefficient", coefficient or "", float)
    converted = convert_coefficient(
        coefficients[0] if len(coefficients) == 1 else tuple(coefficients),
        source or "",
        target or "",
        learning_rate=learning_rate,
        batch_size=batch_size,
        num_examples=num_examples,
        num_steps=num_steps,
        width=width,
        momentum=momentum,
        new_learning_rate=new_learning_rate,
        new_batch_size=new_batch_size,
        new_num_examples=new_num_examples,
        new_num_steps=new_num_steps,
    )
    converted = converted if isinstance(converted, tuple) else (converted,)
    cli_output.echo(",".join(map(repr, converted)))
    cli_output.echo(cli_output.wrapped(converted[0].explanation, cli_output.width(), indent="  "))


if __name__ == "__main__":
    sys.exit(app())
