"""Options from a file: ``--config sweep.yaml``, written with every result so that the run can be repeated from it.

The file has four sections, ``data``, ``model``, ``grid`` and ``training``, whose entries are the options of the command
without their dashes. An option on the command line takes precedence over the file. Reading the file runs nothing from
it; ``model: {model: module:Class}`` imports that module, as the option does.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from weightdecay.apps import cli_output
from weightdecay.core import files, text
from weightdecay.core.checks import ArgumentError

FILE = "sweep.yaml"
"""Name of the file in the folder of a result."""

SECTIONS = {
    "data": (
        *("dataset", "target", "inputs", "task", "length", "token_dtype", "validation_size", "test_size", "split_seed"),
        *("train_size", "label_noise"),
    ),
    "model": ("model", "widths"),
    "grid": ("rules", "coefficients", "ladder", "num_coefficients", "learning_rates", "seeds", "trials"),
    "training": ("optimizer", "steps", "batch_size", "patience", "metric", "budget"),
}
"""Options of each section."""

_LISTS = {"inputs": str, "widths": int, "rules": str, "learning_rates": float}
_LARGEST = 2**20  # bytes


def _read_into_defaults(context: Any, path: Any) -> Any:
    """Make the entries of the file the defaults of the command; errors end the command with one message.

    Typer passes the context, and the path or None, by position.
    """
    if path is None:
        return None
    try:
        context.default_map = read(Path(path), {parameter.name or "" for parameter in context.command.params})
    except (ArgumentError, OSError) as error:
        cli_output.echo(f"weightdecay: --config: {error}", to_stderr=True)
        raise typer.Exit(2) from error
    return path


Config = Annotated[
    Path | None,
    typer.Option(
        help="YAML file with options, such as the sweep.yaml of a result. Options of the command line take precedence.",
        show_default=False,
        is_eager=True,
        callback=_read_into_defaults,
    ),
]


def read(path: Path, known: set[str]) -> dict[str, Any]:
    """Read the options of a file.

    Args:
      path: The file.
      known: Names of the options of the command.

    Returns:
      Options by name, as the command line would have them: lists are comma-separated strings.

    Raises:
      ArgumentError: Not YAML, or an unknown section or option.
      OSError: The file cannot be read.
    """
    import yaml

    with files.opened_file(path) as file:
        content = file.read(_LARGEST)
    try:
        sections = yaml.safe_load(content)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ArgumentError("config", f"file {path} is not YAML ({reason}); correct it.") from error
    if not isinstance(sections, Mapping):
        raise ArgumentError("config", f"file {path} has no sections; give some of {', '.join(SECTIONS)}.")
    options: dict[str, Any] = {}
    for section, entries in sections.items():
        if section not in SECTIONS or not isinstance(entries, Mapping | None):
            raise ArgumentError(
                "config",
                f"file {path} has {section!r}, which is not one of the sections {', '.join(SECTIONS)}, with options "
                f"below it.{text.suggestion(str(section), SECTIONS)}",
            )
        allowed = [name for name in SECTIONS[section] if name in known]
        for key, value in (entries or {}).items():
            name = str(key).replace("-", "_")
            if name not in allowed:
                raise ArgumentError(
                    "config",
                    f"file {path} has {key!r} in the section {section}; give some of {', '.join(allowed)}."
                    f"{text.suggestion(name, allowed)}",
                )
            options[name] = _as_option(name, value)
    return options


def of_options(options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Sort the options of a command into sections.

    Args:
      options: Values by name; None is left out, and the path of a data file becomes absolute.

    Returns:
      Sections, as the file has them.
    """
    sections: dict[str, dict[str, Any]] = {}
    for section, names in SECTIONS.items():
        for name in names:
            value = options.get(name)
            if value is None:
                continue
            if name in ("dataset", "target") and Path(value).is_file():
                value = str(Path(value).absolute())
            elif name in _LISTS:
                with contextlib.suppress(ValueError):  # the command refuses it later
                    value = [_LISTS[name](part) for part in map(str.strip, str(value).split(",")) if part]
            elif isinstance(value, tuple):
                value = list(value)
            sections.setdefault(section, {})[name] = value
    return sections


def as_text(command: str, sections: Mapping[str, Any]) -> str:
    """Return the content of the file.

    Args:
      command: Name of the command.
      sections: As `of_options` returns them.

    Returns:
      YAML; `read` reads the same options from it.
    """
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes a list on one line."""

    Dumper.add_representer(
        list, lambda dumper, values: dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)
    )
    content = yaml.dump(dict(sections), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=80)
    return f"# To repeat this run: weightdecay {command} --config {FILE}\n{content}"


def write(folder: Path, command: str, options: Mapping[str, Any]) -> None:
    """Write the options of a command next to its result.

    Args:
      folder: Folder of the result.
      command: Name of the command.
      options: Values by name.
    """
    with files.atomic(folder / FILE) as unfinished:
        unfinished.write_text(as_text(command, of_options(options)), encoding="utf-8")


def _as_option(name: str, value: Any) -> Any:
    """Convert a value of YAML to what the command line has: the two coefficients, or a comma-separated string."""
    return ",".join(map(str, value)) if isinstance(value, list) and name != "coefficients" else value
