"""Arguments of the command line: from strings to a model, data, a grid and an optimizer.

Strings are checked before JAX is imported wherever that is possible, so that a typing error is reported at once.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand
from typing_extensions import override

from weightdecay.apps import cli_data, cli_ladder, cli_model, cli_output
from weightdecay.core import text
from weightdecay.core.checks import ArgumentError, integer, number

if TYPE_CHECKING:
    from weightdecay.data import Data
    from weightdecay.decay import Rule
    from weightdecay.results.suggestion import Suggestion

OPTIMIZERS = ("adam", "sgd", "lion", "rmsprop", "lamb", "muon")
"""Names of the optimizers that `sweep` and `plan` accept."""

# Options that several commands share.
Dataset = Annotated[
    str,
    typer.Argument(
        help="Data set: digits, breast_cancer, wine or diabetes; or, synthetic, clusters or spirals; or the path of a "
        f"file: {cli_data.FORMATS}."
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        help="Network of your own, as module:Class; the module is in the working directory or installed.",
        show_default="a perceptron; of texts a decoder",
    ),
]
Widths = Annotated[
    str | None,
    typer.Option(
        help="Widths of the hidden layers of the multilayer perceptron, comma-separated.", show_default="64,64"
    ),
]
Seeds = Annotated[int, typer.Option(help="Seeds, from 0 on; each candidate is trained once with every seed.")]
Steps = Annotated[int, typer.Option(help="Number of training steps.")]
BatchSize = Annotated[int, typer.Option(help="Number of examples per training step.")]
TrainSize = Annotated[int | None, typer.Option(help="Number of training examples to keep.", show_default="all")]
LabelNoise = Annotated[float, typer.Option(help="Fraction of training labels to replace by wrong ones.")]
Output = Annotated[Path | None, typer.Option(help="Folder for the result and the plots.", show_default="runs/DATASET")]
Folder = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the run, in which it is saved while it trains, and of its result and plots. The same command "
        "resumes a run that was interrupted, and helps one that is in progress, also from other machines.",
        show_default="runs/DATASET",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result in the output folder.")]


class CommandWithRules(TyperCommand):
    """A command whose help lists the rules of decay; they are imported when the help is shown, and not before."""

    @override
    def format_help(self, ctx: Any, formatter: Any) -> None:
        for parameter in self.params:
            option_help = getattr(parameter, "help", None)
            if option_help and "{rules}" in option_help:
                parameter.help = option_help.replace("{rules}", ", ".join(offered_rules()))  # pyright: ignore[reportAttributeAccessIssue]
        super().format_help(ctx, formatter)


def offered_rules() -> dict[str, type["Rule"]]:
    """Return the kinds of decay that the command line offers, by name: those with a range or without a coefficient."""
    from weightdecay import decay

    return {name: kind for name, kind in decay.KINDS.items() if kind.search_range is not None or not kind.required()}


@dataclass(frozen=True)
class GridArguments:
    """Options of the commands that train a grid; each field is one option."""

    dataset: Dataset
    model: Model = None
    widths: Widths = None
    rules: Annotated[
        str,
        typer.Option(
            help="Kinds of decay, comma-separated: {rules}. An elastic net uses one coefficient for both of its terms. "
            "NoDecay is always a candidate."
        ),
    ] = "NoDecay,L2,L1,ProximalL1,Decoupled"
    coefficients: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Smallest and largest coefficient of every rule.", show_default="a range for each rule"),
    ] = None
    ladder: Annotated[
        str,
        typer.Option(
            help="Where these coefficients come from: range (the same for every run), steps (the time scales of the "
            "run), or scout (a training without decay, of which the turn is sought)."
        ),
    ] = "range"
    num_coefficients: Annotated[int, typer.Option(help="Number of log-spaced coefficients of each rule.")] = 11
    learning_rates: Annotated[
        str, typer.Option(help="Learning rates, comma-separated; each is combined with every decay.")
    ] = "1e-3"
    optimizer: Annotated[str, typer.Option(help=f"Optimizer: {', '.join(OPTIMIZERS)}.")] = "adam"
    seeds: Seeds = 3
    steps: Steps = 1000
    batch_size: BatchSize = 64
    train_size: TrainSize = None
    label_noise: LabelNoise = 0.0

    def job(
        self,
        suggestion: "Suggestion | None" = None,
        *,
        source: cli_data.DataArguments | None = None,
        data: "Data | None" = None,
    ) -> dict[str, Any]:
        """Build the model, the data, the grid and the optimizer.

        Args:
          suggestion: What a scout has found; None = the ladder is not that of a scout, or the scout is yet to run.
          source: How a file becomes examples; None = as it does by default.
          data: The examples, if they were loaded before.

        Returns:
          Arguments of `weightdecay.fit_grid` by name, without those that say how to train.

        Raises:
          ArgumentError: An option has a value without a meaning.
        """
        numbers("widths", self.widths or cli_model.WIDTHS, int)
        learning_rates = numbers("learning_rates", self.learning_rates, float)
        for rate in learning_rates:
            number(rate, "learning_rates", above=0, allowed="finite numbers above 0")
        for coefficient in self.coefficients or ():
            number(coefficient, "coefficients", above=0, allowed="two finite numbers above 0, the smaller one first")
        cli_ladder.check(self.ladder, self.coefficients)
        integer(self.num_coefficients, "num_coefficients", at_least=1)
        smallest, largest = self.coefficients or (0.0, 1.0)
        if smallest > largest or (smallest == largest and self.num_coefficients > 1):
            raise ArgumentError(
                "coefficients", f"coefficients is {smallest:g} {largest:g}; give the smaller one first."
            )
        integer(self.seeds, "seeds", at_least=1)
        integer(self.steps, "steps", at_least=1)

        from weightdecay.decay import optimizers
        from weightdecay.search.grid import Grid

        optimizer = look_up("optimizer", self.optimizer, {name: getattr(optimizers, name) for name in OPTIMIZERS})
        range_of = cli_ladder.of_ranges(self.coefficients)
        if self.ladder == "steps":
            range_of = cli_ladder.of_steps(min(learning_rates), self.steps, self.optimizer)
        elif suggestion is not None:
            range_of = cli_ladder.of_suggestion(suggestion)
        rules = _rules(self.rules, range_of, self.num_coefficients)
        grid = Grid(decay=rules, learning_rate=learning_rates, seed=range(self.seeds))
        if data is None:
            data = cli_data.load(
                self.dataset,
                source or cli_data.DataArguments(),
                train_size=self.train_size,
                label_noise=self.label_noise,
            )
        model = cli_model.build(self.model, self.widths, of_tokens=cli_data.is_tokens(data))
        return {"model": model, "data": data, "grid": grid, "optimizer": optimizer}


def scouted(arguments: GridArguments, job: dict[str, Any]) -> dict[str, Any]:
    """Train without decay, print what it suggests, and return the job with these coefficients.

    Args:
      arguments: Options of the command.
      job: What they make, with a grid that is not used.

    Returns:
      Arguments of `weightdecay.fit_grid` by name.

    Raises:
      typer.Exit: It was interrupted.
    """
    rates = numbers("learning_rates", arguments.learning_rates, float)
    suggestion = cli_ladder.scout(
        job, seeds=arguments.seeds, learning_rates=rates, num_steps=arguments.steps, batch_size=arguments.batch_size
    )
    if suggestion is None:
        cli_output.echo("weightdecay: interrupted; nothing is saved.", to_stderr=True)
        raise typer.Exit(130)
    cli_output.echo(f"\n{cli_output.wrapped(str(suggestion), cli_output.width())}\n")
    return arguments.job(suggestion, data=job["data"])


def output_folder(
    output: Path | None, name: str, *, overwrite: bool, resumes: Callable[[Path], bool] = lambda folder: False
) -> Path:
    """Choose the folder that a command writes to.

    Args:
      output: The option ``--output``; None = a folder in ``runs``.
      name: Name of that folder.
      overwrite: Whether an earlier result may be replaced: then the folder is ``runs/NAME``. Otherwise it is the first
        of ``runs/NAME``, ``runs/NAME-2``, ``runs/NAME-3`` ... that does not exist, or is resumed.
      resumes: Whether the command goes on with what is in a folder.

    Returns:
      The folder, which need not exist and has not been checked.
    """
    if output is not None:
        return output
    folder, number = Path("runs") / name, 1
    while folder.exists() and not overwrite and not resumes(folder):
        number += 1
        folder = Path("runs") / f"{name}-{number}"
    return folder


@contextlib.contextmanager
def concerning(argument: str) -> Iterator[None]:
    """Attribute the errors of files and folders in a block to an argument.

    Args:
      argument: Name of the argument.

    Raises:
      ArgumentError: The block raised an OSError; the message is the same.
    """
    try:
        yield
    except OSError as error:
        raise ArgumentError(argument, str(error)) from error


def numbers(argument: str, string: str, kind: Callable[[str], Any]) -> list[Any]:
    """Parse comma-separated numbers.

    Args:
      argument: Name of the argument, for the message.
      string: What the user wrote.
      kind: ``int`` or ``float``.

    Returns:
      The numbers, at least one.

    Raises:
      ArgumentError: Not numbers of this kind.

    Examples:
      >>> numbers("widths", "64, 32", int)
      [64, 32]
    """
    try:
        return [kind(part) for part in _parts(argument, string)]
    except ValueError as error:
        allowed = "comma-separated integers, such as 64,64" if kind is int else "comma-separated numbers, such as 1e-3"
        raise ArgumentError(argument, f"{argument} is {string!r}; give {allowed}.") from error


def look_up(argument: str, name: str, choices: Mapping[str, Any]) -> Any:
    """Return the value that a name stands for.

    Args:
      argument: Name of the argument, for the message.
      name: What the user wrote.
      choices: Values by name.

    Returns:
      The value.

    Raises:
      ArgumentError: An unknown name.
    """
    if name not in choices:
        raise ArgumentError(
            argument,
            f"{argument} is {name!r}; give one of {', '.join(choices)}.{text.suggestion(name, choices)}",
        )
    return choices[name]


def _rules(
    names: str, range_of: "Callable[[type[Rule]], tuple[float, float] | None]", num_coefficients: int
) -> list["Rule"]:
    from weightdecay import decay
    from weightdecay.search.grid import logspace

    choices = offered_rules()
    by_lower_case = {name.lower(): kind for name, kind in choices.items()}
    rules: list[Rule] = [decay.NoDecay()]
    for name in _parts("rules", names):
        kind = by_lower_case.get(name.lower().replace("_", "")) or look_up("rules", name, choices)
        if kind.search_range is None:
            rules += [] if kind is decay.NoDecay else [kind()]
            continue
        smallest, largest = range_of(kind) or kind.search_range
        rules += logspace(kind.from_one, smallest, largest, num_coefficients)
    return rules


def _parts(argument: str, string: str) -> list[str]:
    parts = [part.strip() for part in string.split(",") if part.strip()]
    if not parts:
        raise ArgumentError(argument, f"{argument} is {string!r}; give a comma-separated list.")
    return parts
