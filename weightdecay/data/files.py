"""Readers of files that return NumPy arrays: IDX, NPZ, CSV, and streams of tokens.

Files are read as if they were broken or malicious. Nothing in them is executed, no pickle is opened, sizes are checked
before memory is allocated, and every fault is a `ValueError` that names the file.
"""

import csv
import gzip
import io
import itertools
import math
import os
import struct
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

import numpy as np

from weightdecay.core.types import Integer
from weightdecay.data.dataset import is_exact_in_float32

_Stream = io.BufferedIOBase | IO[bytes]
_GZIP = b"\x1f\x8b"
_IDX_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_LARGEST_RANK = 64  # of a NumPy array
_LARGEST_NPY_HEADER = 2**17
_LARGEST_WIDTH = 2**17  # columns of a CSV file
_CHUNK = 2**20


class _Fault(ValueError):
    """Description of a fault in a file and its remedy, without the name of the file."""


def read_idx(path: str | os.PathLike[str], *, max_bytes: Integer = 2**32) -> np.ndarray:
    """Read an IDX file, the format of MNIST; compression with gzip is recognized by the content.

    Args:
      path: The file.
      max_bytes: Largest allowed size of the array, in bytes, decompressed.

    Returns:
      The array, with the shape and the dtype in the file: uint8, int8, int16, int32, float32 or float64, in the byte
      order of this machine.

    Raises:
      FileNotFoundError: No such file.
      IsADirectoryError: A directory.
      ValueError: Not an IDX file, a size that differs from the header, a damaged file, or a file that is too large.
    """
    with _opened(path, "an IDX file") as file:
        stream = _decompressed(file)
        start = _take(stream, 4)
        if len(start) < 4 or start[:2] != b"\0\0":
            raise _Fault(
                f"is not an IDX file: it begins with {bytes(start)!r}, not with two zero bytes, a dtype and a number "
                "of dimensions; give a file such as train-images-idx3-ubyte.gz."
            )
        code, rank = start[2], start[3]
        if code not in _IDX_DTYPES:
            known = ", ".join(f"{code:#04x} ({np.dtype(dtype).name})" for code, dtype in _IDX_DTYPES.items())
            raise _Fault(f"has the dtype code {code:#04x}; IDX has the codes {known}. Download the file again.")
        if not 1 <= rank <= _LARGEST_RANK:
            raise _Fault(
                f"has {rank} dimensions in its header; an array has 1 to {_LARGEST_RANK}. Download the file again."
            )
        lengths = _take(stream, 4 * rank)
        if len(lengths) < 4 * rank:
            raise _Fault("is truncated in its header; download the file again.")
        shape = struct.unpack(f">{rank}I", lengths)
        dtype = np.dtype(_IDX_DTYPES[code])
        header = f"its header has shape {shape} of {dtype.name}"
        if 0 in shape:
            raise _Fault(f"is empty: {header}; download the file again.")
        size = math.prod(shape) * dtype.itemsize
        _check_size(size, max_bytes, header)
        content = _take(stream, size + 1)
        if len(content) != size:
            fault = "is truncated" if len(content) < size else "continues after its last number"
            raise _Fault(
                f"{fault}: {header}, which is {size} bytes, and it contains {_counted(content, size)}; download it "
                "again."
            )
        return np.frombuffer(content, dtype).astype(dtype.newbyteorder("="), copy=False).reshape(shape)


def read_npz(path: str | os.PathLike[str], *, max_bytes: Integer = 2**32) -> dict[str, np.ndarray]:
    """Read the arrays of numbers in an NPZ file, written by `numpy.savez` or `numpy.savez_compressed`.

    Args:
      path: The file.
      max_bytes: Largest allowed size of all arrays together, in bytes, decompressed.

    Returns:
      The arrays by name, in the byte order of this machine.

    Raises:
      FileNotFoundError: No such file.
      IsADirectoryError: A directory.
      ValueError: Not an NPZ file, an array of Python objects or of anything other than numbers, an entry whose size
        differs from its header, a damaged file, or a file that is too large.
    """
    with _opened(path, "an NPZ file") as file, zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if not entries:
            raise _Fault("contains no array; write it with numpy.savez(path, inputs=..., targets=...).")
        file.seek(-12 - len(archive.comment), os.SEEK_END)
        stated = int.from_bytes(file.read(2), "little")
        if stated != min(len(entries), 2**16 - 1):
            raise _Fault(f"states that it contains {stated} arrays and lists {len(entries)}; download the file again.")
        total = sum(entry.file_size for entry in entries)
        _check_size(total, max_bytes, "according to its directory")
        arrays: dict[str, np.ndarray] = {}
        for entry in entries:
            name = entry.filename.removesuffix(".npy")
            if name == entry.filename or name in arrays:
                reason = "contains {!r} twice" if name in arrays else "contains {!r}, which is not an array"
                raise _Fault(
                    f"{reason.format(entry.filename)}; write it with numpy.savez(path, inputs=..., targets=...)."
                )
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise _Fault(
                    f"contains {name!r} in compression {entry.compress_type}, which NumPy does not write; write it "
                    "with numpy.savez_compressed."
                )
            with archive.open(entry) as stream:
                content = _take(stream, entry.file_size + 1)
            if len(content) != entry.file_size:
                raise _Fault(
                    f"contains {name!r} in {_counted(content, entry.file_size)} bytes, its directory states "
                    f"{entry.file_size}; download the file again."
                )
            arrays[name] = _array(content, name)
        return arrays


def read_csv(
    path: str | os.PathLike[str],
    *,
    target: str | Integer,
    header: bool | None = None,
    max_bytes: Integer = 2**32,
) -> tuple[np.ndarray, np.ndarray]:
    """Read examples from a CSV file, one in each row; compression with gzip is recognized by the content.

    The text is UTF-8. Cells are comma-separated and may be in double quotes. Blank lines are skipped, and spaces around
    a cell are ignored.

    A target column of strings becomes classes: the distinct strings, in the order of `sorted`, become 0, 1, 2, ...

    Args:
      path: The file.
      target: Column to predict, by its name in the header or by its index, from 0 or, counted from the last column,
        from -1. All other columns are inputs.
      header: Whether the first row contains names. None: it does if one of its cells is neither a number nor empty.
        Give False for a file without a header whose targets are strings.
      max_bytes: Largest allowed size of the text, in bytes, decompressed.

    Returns:
      Inputs float32, shape ``(examples, features)``, columns in their order; targets, shape ``(examples,)``: int32 if
      they are strings, or if all are integers that int32 can represent (``3.0`` is one), else float32. Inputs or
      targets whose differences float32 would round are float64, such as times in seconds since 1970.

    Raises:
      FileNotFoundError: No such file.
      IsADirectoryError: A directory.
      ValueError: No such target column; a string among the inputs, a missing or infinite value, or a row of another
        length (the message contains the row, counted from 1 after the header, and the column, by name or by index from
        0); targets of which some are strings and some numbers; a damaged file, or a file that is too large.
    """
    import pandas as pd

    with _opened(path, "a CSV file") as file:
        content = _take(_decompressed(file), int(max_bytes) + 1)
        _check_size(len(content), max_bytes, "it may contain more")
        content = bytes(content).removeprefix(b"\xef\xbb\xbf").lstrip()
        if b"\0" in content:
            raise _Fault("contains zero bytes, so it is not UTF-8 text; save it as CSV in UTF-8.")
        first = next(_rows(content), [])
        if not 2 <= len(first) <= _LARGEST_WIDTH:
            raise _Fault(
                f"has {len(first)} columns; separate the cells by commas, with at least one input and the target, "
                f"and at most {_LARGEST_WIDTH} columns."
            )
        if header is None:
            header = any(cell and _number(cell) is None for cell in first)
        columns = [repr(cell) if header else str(index) for index, cell in enumerate(first)]
        target_index = _column_index(target, first if header else None, len(first))
        example = next(itertools.islice(_rows(content), int(header), None), [])
        reason = "pandas and csv read it differently"
        try:
            frame = pd.read_csv(
                io.BytesIO(content),
                header=None,
                skiprows=int(header),
                dtype={index: str if index == target_index else np.float64 for index in range(len(first))},
                keep_default_na=False,
                na_values=[""],
                skipinitialspace=True,
                low_memory=False,
            )
            inputs = _narrowed(frame.drop(columns=target_index).to_numpy(np.float64))
            targets = _targets(frame[target_index].to_list())
            # pandas reads a whole column of True and False as numbers; its first cell shows that it is not.
            strings = any(_number(cell) is None for index, cell in enumerate(example) if index != target_index)
            if targets is not None and inputs is not None and not strings and frame.shape[1] == len(first):
                return inputs, targets
        except (ValueError, LookupError) as error:
            reason = str(error)
        raise _Fault(
            _first_fault(content, header, columns, target_index) or f"cannot be read ({reason}); save it again."
        )


def map_npy(path: str | os.PathLike[str]) -> np.ndarray:
    """Map the array of an NPY file into memory: it is read where it is accessed.

    Args:
      path: The file, written by `numpy.save`.

    Returns:
      The array, read-only, in the shape and the dtype of the file.

    Raises:
      FileNotFoundError: No such file.
      ValueError: Not an NPY file, an array of Python objects, or a file that is shorter than its header states.
    """
    with _opened(path, "an NPY file"):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise _Fault("is an NPZ file; give one of its arrays, as wd.data.read_npz(path)['tokens'].")
        return array


def map_flat(path: str | os.PathLike[str], dtype: np.dtype) -> np.ndarray:
    """Map a file of numbers without a header into memory: it is read where it is accessed.

    Args:
      path: The file.
      dtype: Dtype of its numbers.

    Returns:
      The numbers, read-only, shape ``(numbers,)``.

    Raises:
      FileNotFoundError: No such file.
      ValueError: An empty file, or one whose size is not a multiple of that of a number.
    """
    with _opened(path, f"a file of {dtype.name}"):
        size = os.path.getsize(path)
        if size == 0 or size % dtype.itemsize:
            raise _Fault(
                f"has {size} bytes, and a number of dtype {dtype.name} has {dtype.itemsize}; give the dtype of the "
                "file, and a file that is not empty."
            )
        return np.memmap(path, dtype, "r")


def text_bytes(path: str | os.PathLike[str], *, max_bytes: Integer = 2**32) -> np.ndarray:
    """Read the bytes of a text; compression with gzip is recognized by the content.

    Args:
      path: The file. If it is not compressed it is mapped into memory, and read where it is accessed.
      max_bytes: Largest allowed size of a text that is compressed, in bytes, decompressed.

    Returns:
      uint8, shape ``(bytes,)``.

    Raises:
      FileNotFoundError: No such file.
      ValueError: A damaged or an empty file, or one that is too large.
    """
    with _opened(path, "a text") as file:
        if file.read(len(_GZIP)) == _GZIP:
            file.seek(0)
            content = _take(_decompressed(file), int(max_bytes) + 1)
            _check_size(len(content), max_bytes, "it may contain more")
            return np.frombuffer(content, np.uint8)
    return map_flat(path, np.dtype(np.uint8))


@contextmanager
def _opened(path: str | os.PathLike[str], kind: str) -> Iterator[_Stream]:
    with open(path, "rb") as file:
        try:
            yield file
        except _Fault as fault:
            raise ValueError(f"file {os.fspath(path)} {fault}") from fault
        except Exception as error:  # parsers raise errors of many types on broken bytes
            message = f"{type(error).__name__}: {error}"
            raise ValueError(
                f"file {os.fspath(path)} is damaged or is not {kind} ({message}); download or save the file again."
            ) from error


def _decompressed(file: _Stream) -> _Stream:
    start = file.read(len(_GZIP))
    file.seek(0)
    return gzip.GzipFile(fileobj=file) if start == _GZIP else file


def _take(stream: _Stream, size: int) -> bytearray:
    """Read at most ``size`` bytes, in pieces: memory grows with the content, not with a size in a header."""
    content = bytearray()
    while len(content) < size and (piece := stream.read(min(_CHUNK, size - len(content)))):
        content += piece
    return content


def _check_size(size: int, max_bytes: Integer, reason: str) -> None:
    if size > max_bytes:
        raise _Fault(
            f"has {size} bytes or more ({reason}), and max_bytes is {max_bytes}; give a larger max_bytes if you trust "
            "it."
        )


def _counted(content: bytearray, size: int) -> str:
    return f"{len(content)}" if len(content) <= size else "more"


def _array(content: bytearray, name: str) -> np.ndarray:
    """Convert the bytes of an NPY file to an array."""
    start = io.BytesIO(memoryview(content)[:_LARGEST_NPY_HEADER])
    version = np.lib.format.read_magic(start)
    if version not in ((1, 0), (2, 0)):
        raise _Fault(
            f"contains {name!r} in version {version} of NPY, which arrays of numbers do not need; save it again."
        )
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = read_header(start)
    if dtype.hasobject:
        raise _Fault(
            f"contains {name!r}, an array of Python objects, which are pickles and can execute code when opened; save "
            "numbers, such as array.astype(numpy.float32)."
        )
    if dtype.kind not in "biufc":
        raise _Fault(f"contains {name!r}, an array of dtype {dtype}, which is not a number; save numbers.")
    size, rest = math.prod(shape) * dtype.itemsize, len(content) - start.tell()
    if min(shape, default=0) < 0 or size != rest:
        raise _Fault(
            f"contains {name!r} in {rest} bytes, and its header has shape {shape} of {dtype.name}, which is {size} "
            "bytes; download the file again."
        )
    flat = np.frombuffer(content, dtype, offset=start.tell()).astype(dtype.newbyteorder("="), copy=False)
    return flat.reshape(shape, order="F" if fortran_order else "C")


def _rows(content: bytes) -> Iterator[list[str]]:
    """Rows of a CSV text, as pandas reads them, without blank rows and without spaces around cells."""
    text = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", newline="")
    for cells in csv.reader(text, skipinitialspace=True):
        stripped = [cell.strip() for cell in cells]
        if len(stripped) > 1 or any(stripped):
            yield stripped


def _number(cell: str) -> float | None:
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def _fits(number: float) -> bool:
    with np.errstate(over="ignore"):
        return bool(np.isfinite(np.float32(number)))


def _column_index(target: Any, names: Sequence[str] | None, num_columns: int) -> int:
    """Index of the target column, from 0."""
    if isinstance(target, str):
        if names is None:
            raise _Fault(f"has no header, and target is {target!r}; give an index from 0, or -1 for the last column.")
        if names.count(target) != 1:
            some = ", ".join(names[:20]) + (", ..." if num_columns > 20 else "")
            raise _Fault(
                f"has {names.count(target)} columns with the name {target!r}, which is the target; give an index, or "
                f"one of: {some}."
            )
        return names.index(target)
    if not -num_columns <= target < num_columns:
        raise _Fault(
            f"has {num_columns} columns, and target is {target}; give {-num_columns} to {num_columns - 1}, or a name."
        )
    return int(target) % num_columns


def _targets(cells: Sequence[Any]) -> np.ndarray | None:
    """Convert the cells of the target column; None if one of them is faulty."""
    if not all(isinstance(cell, str) for cell in cells):
        return None
    strings = [cell.strip() for cell in cells]
    numbers = [_number(string) for string in strings]
    if all(number is None for number in numbers):
        classes = {string: index for index, string in enumerate(sorted(set(strings)))}
        return None if "" in classes else np.array([classes[string] for string in strings], np.int32)
    if None in numbers:
        return None
    values = np.array(numbers, np.float64)
    are_integers = np.isfinite(values).all() and (values == np.rint(values)).all()
    if are_integers and -(2**31) <= values.min() and values.max() < 2**31:
        return values.astype(np.int32)
    return _narrowed(values)


def _narrowed(values: np.ndarray) -> np.ndarray | None:
    """Convert to float32 unless that would round differences between examples; None if a value is out of range."""
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    if not np.isfinite(narrow).all():
        return None
    return narrow if is_exact_in_float32(values) else values


def _first_fault(content: bytes, header: bool, columns: Sequence[str], target_index: int) -> str | None:
    """Describe the fault in the first faulty row."""
    classes: bool | None = None
    row = 0
    for row, cells in enumerate(itertools.islice(_rows(content), int(header), None), start=1):
        if len(cells) != len(columns):
            return (
                f"has {len(cells)} cells in row {row} and {len(columns)} in its first line; give all rows the same "
                "length."
            )
        for index, (column, cell) in enumerate(zip(columns, cells, strict=True)):
            where, number = f"column {column}, row {row}", _number(cell)
            if not cell:
                return f"has a missing value in {where}; replace it or remove the row."
            if number is None and index != target_index:
                return (
                    f"contains {cell[:40]!r} in {where}, which is not a number; write inputs as numbers, remove the "
                    "column, or pass the table that pandas reads to wd.data.arrays."
                )
            if number is not None and not _fits(number):
                return (
                    f"contains {cell[:40]!r} in {where}; give a finite number that float32 can represent, or remove "
                    "the row."
                )
            if index == target_index:
                classes = number is None if classes is None else classes
                if classes != (number is None):
                    return (
                        f"contains {cell[:40]!r} in {where}, the target column, whose first rows are "
                        f"{'strings' if classes else 'numbers'}; write all targets as strings, or all as numbers."
                    )
    return None if row else "contains no examples; give at least one row after the header."
