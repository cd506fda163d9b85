"""The data of a command: a built-in data set by its name, or the user's file by its path."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from weightdecay.core.checks import ArgumentError, integer

if TYPE_CHECKING:
    from weightdecay.data import Data

TABLES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
TEXTS = (".txt", ".txt.gz", ".bin")
FORMATS = "CSV, TSV, parquet, .npz, .npy, IDX (MNIST) or text"
_IDX = ("-ubyte", "-ubyte.gz", ".idx", ".idx.gz")
_TASKS = {"auto": None, "classification": True, "regression": False}
_TARGETS = ("targets", "target", "labels", "label", "y")  # names of arrays in an NPZ file
_INPUTS = ("inputs", "input", "images", "features", "data", "x", "X")


@dataclass(frozen=True)
class DataArguments:
    """Options that say how the user's file becomes examples; each field is one option."""

    target: Annotated[
        str | None,
        typer.Option(
            help="What to predict: a column of a table, by its name or number; an array of an NPZ file; or, for NPY "
            "and IDX, the file of the targets.",
            show_default=False,
        ),
    ] = None
    inputs: Annotated[
        str | None,
        typer.Option(help="Columns (or the NPZ array) to predict from, comma-separated.", show_default="all others"),
    ] = None
    task: Annotated[
        str, typer.Option(help="classification or regression; auto: classes for strings, truth values and integers.")
    ] = "auto"
    length: Annotated[int, typer.Option(help="Tokens of a window, for a text.")] = 64
    token_dtype: Annotated[
        str | None, typer.Option(help="Dtype of the tokens in a .bin file, such as uint16.", show_default=False)
    ] = None
    validation_size: Annotated[
        float | None,
        typer.Option(help="Fraction of all examples for validation.", show_default="0.2, of a text 0.1"),
    ] = None
    test_size: Annotated[
        float | None, typer.Option(help="Fraction of all examples for the test.", show_default="0.2, of a text 0.1")
    ] = None
    split_seed: Annotated[int, typer.Option(help="Seed of the split into training, validation and test.")] = 0


def is_file(dataset: str) -> bool:
    """Whether a data set is a file: it exists, or is written as the path of one."""
    path = Path(dataset)
    return path.is_file() or path.name != dataset or dataset.lower().endswith((*TABLES, *TEXTS, ".npz", ".npy", *_IDX))


def title(dataset: str) -> str:
    """Return a short name of a data set, for its folder: that of a file without its endings."""
    return (Path(dataset).name.split(".")[0] or "data") if is_file(dataset) else dataset


def load(dataset: str, source: DataArguments, *, train_size: int | None = None, label_noise: float = 0.0) -> "Data":
    """Load the examples of a command.

    Args:
      dataset: Name of a built-in data set, or path of a file.
      source: How the file becomes examples.
      train_size: Number of training examples to keep; None = all.
      label_noise: Fraction of training labels to replace by wrong ones.

    Returns:
      The examples.

    Raises:
      ArgumentError: An unknown name, a file of another format, an option that this data set does not have, or examples
        that cannot be split.
    """
    from weightdecay import data

    if not is_file(dataset):
        _refuse_others(source, (), f"{dataset} is not a file")
        if dataset not in data.BUILT_IN:
            raise ArgumentError(
                "dataset",
                f"dataset is {dataset!r}; give one of {', '.join(data.BUILT_IN)}; or the path of a file: {FORMATS}.",
            )
        if not label_noise:
            return data.BUILT_IN[dataset](num_train=train_size)
        if not _has_classes(dataset):
            raise ArgumentError(
                "label_noise", f"label_noise is {label_noise}, but the targets of {dataset} are not labels; give 0."
            )
        return data.BUILT_IN[dataset](num_train=train_size, label_noise=label_noise)
    path, name = Path(dataset), dataset.lower()
    if not path.is_file():
        raise ArgumentError("dataset", f"dataset is {dataset!r}, and there is no such file; give an existing one.")
    if source.task not in _TASKS:
        raise ArgumentError("task", f"task is {source.task!r}; give one of {', '.join(_TASKS)}.")
    if name.endswith(TEXTS) or (name.endswith(".npy") and source.target is None):
        for option, value in {"train_size": train_size, "label_noise": label_noise or None}.items():
            if value is not None:
                raise ArgumentError(option, f"{option} is {value}, but {dataset} is a text; omit it.")
        return _tokens(path, source)
    inputs, targets = _arrays(path, source)
    try:
        return data.split(
            inputs,
            targets,
            seed=source.split_seed,
            validation_size=0.2 if source.validation_size is None else source.validation_size,
            test_size=0.2 if source.test_size is None else source.test_size,
            num_train=train_size,
            label_noise=label_noise,
            classes=_TASKS[source.task],
        )
    except ArgumentError as error:
        if error.argument == "targets" and source.task == "auto" and "quantity" in str(error):
            reason = str(error).partition("; give")[0]
            raise ArgumentError("task", f"{reason}; give --task regression or --task classification.") from error
        raise


def is_tokens(data: "Data") -> bool:
    """Whether examples are windows of tokens, with a target at each position."""
    return _targets(data).ndim == 2 and _targets(data).dtype.kind in "iu"


def is_regression(data: "Data") -> bool:
    """Whether the targets of examples are real numbers."""
    return _targets(data).dtype.kind == "f"


def _targets(data: "Data") -> Any:
    return data.train[1]


def _has_classes(name: str) -> bool:
    import inspect

    from weightdecay import data

    return "label_noise" in inspect.signature(data.BUILT_IN[name]).parameters


def _tokens(path: Path, source: DataArguments) -> "Data":
    """Windows of a text, or of an array of tokens."""
    from weightdecay import data

    _refuse_others(source, ("length", "token_dtype", "validation_size", "test_size"), f"{path} is a text")
    return data.tokens(
        path,
        length=integer(source.length, "length", at_least=1),
        dtype=source.token_dtype,
        validation_size=0.1 if source.validation_size is None else source.validation_size,
        test_size=0.1 if source.test_size is None else source.test_size,
    )


def _refuse_others(source: DataArguments, taken: tuple[str, ...], reason: str) -> None:
    """Refuse options that have no meaning for a data set."""
    for field in fields(source):
        value = getattr(source, field.name)
        if value != field.default and field.name not in taken:
            raise ArgumentError(field.name, f"{field.name} is {value!r}, but {reason}, and does not take it; omit it.")


def _arrays(path: Path, source: DataArguments) -> tuple[Any, Any]:
    """Inputs and targets of a file."""
    from weightdecay.data import files, read_idx, read_npz

    split_options = ("task", "validation_size", "test_size", "split_seed", "target")
    name = path.name.lower()
    if name.endswith(TABLES):
        _refuse_others(source, (*split_options, "inputs"), f"{path} is a table")
        return _of_table(_table(path), source)
    if name.endswith(".npz"):
        _refuse_others(source, (*split_options, "inputs"), f"{path} is an NPZ file")
        return _of_npz(read_npz(path), source)
    if not name.endswith((".npy", *_IDX)):
        raise ArgumentError("dataset", f"dataset is {str(path)!r}; give a file of one of these formats: {FORMATS}.")
    _refuse_others(source, split_options, f"{path} is one array")
    if source.target is None or not Path(source.target).is_file():
        raise ArgumentError(
            "target", f"target is {source.target!r}; give the file that has the targets of {path}, in NPY or IDX."
        )
    read = {True: files.map_npy, False: read_idx}
    return tuple(read[str(file).lower().endswith(".npy")](file) for file in (path, source.target))  # pyright: ignore[reportReturnType]


def _table(path: Path) -> Any:
    """Read a table with pandas. Without a header, the columns have their numbers as names, from 0."""
    import pandas as pd

    name = path.name.lower()
    try:
        if name.endswith(".parquet"):
            return pd.read_parquet(path)
        separator = "\t" if ".tsv" in name else ","
        settings: Any = {"sep": separator, "keep_default_na": False, "na_values": [""], "skipinitialspace": True}
        first = pd.read_csv(path, header=None, nrows=1, dtype=str, **settings)
        has_header = any(_is_no_number(cell) for cell in first.to_numpy()[0])
        frame = pd.read_csv(path, header=0 if has_header else None, low_memory=False, **settings)
        return frame.rename(columns=lambda column: str(column).strip())
    except ImportError as error:
        raise ArgumentError("dataset", f"dataset {path} needs pyarrow: pip install 'weightdecay[parquet]'.") from error
    except (ValueError, LookupError) as error:  # the errors of pandas and of pyarrow
        reason = str(error).strip().rstrip(".")
        raise ArgumentError("dataset", f"dataset {path} cannot be read ({reason}); save the file again.") from error


def _is_no_number(cell: Any) -> bool:
    try:
        return bool(cell == cell) and float(cell) != float(cell)  # an empty cell is nan
    except ValueError:
        return True


def _of_table(frame: Any, source: DataArguments) -> tuple[Any, Any]:
    columns = [str(column) for column in frame.columns]
    frame.columns = columns
    target = _column(columns, source.target, "target")
    chosen = [column for column in columns if column != target]
    if source.inputs is not None:
        chosen = [_column(columns, name.strip(), "inputs") for name in source.inputs.split(",")]
    if not chosen or target in chosen:
        raise ArgumentError("inputs", f"inputs is {source.inputs!r}; give columns other than the target {target!r}.")
    if frame[target].isna().any():
        raise ArgumentError(
            "target",
            f"target {target!r} has {frame[target].isna().sum()} missing values, the first in row "
            f"{int(frame[target].isna().to_numpy().argmax())} (counted from 0); remove these rows.",
        )
    return frame[chosen], frame[target].to_numpy()


def _column(columns: list[str], name: str | None, option: str) -> str:
    """Return the name of a column that the user gave by its name or by its number."""
    if name in columns and columns.count(name) == 1:
        return name
    if name is not None and name.removeprefix("-").isdecimal() and -len(columns) <= int(name) < len(columns):
        return columns[int(name)]
    some = ", ".join(columns[:20]) + (", ..." if len(columns) > 20 else "")
    raise ArgumentError(option, f"{option} is {name!r}; give one of the columns: {some}.")


def _of_npz(arrays: Mapping[str, Any], source: DataArguments) -> tuple[Any, Any]:
    target = _array(arrays, source.target, "target", _TARGETS, ())
    inputs = _array(arrays, source.inputs, "inputs", _INPUTS, (target,))
    return arrays[inputs], arrays[target]


def _array(
    arrays: Mapping[str, Any], name: str | None, option: str, usual: tuple[str, ...], others: tuple[str, ...]
) -> str:
    """Return the name of an array: what the user gave, the only one with a usual name, or the only one left."""
    left = [one for one in arrays if one not in others]
    named = [one for one in left if one in usual]
    for found in ([name] if name is not None else [], named, left if others else []):
        if len(found) == 1 and found[0] in left:
            return found[0]
        if name is not None:
            break
    raise ArgumentError(option, f"{option} is {name!r}; give one of the arrays of the file: {', '.join(left)}.")
