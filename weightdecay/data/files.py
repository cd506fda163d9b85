"""Examples from ordinary files as NumPy arrays: IDX, NPZ and CSV.

Files are taken for what they may be: broken, or made to do harm. Nothing in them is run, no pickle is opened, sizes are
checked before memory is taken, and whatever is wrong is a `ValueError` that names the file.
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

_Stream = io.BufferedIOBase | IO[bytes]
_GZIP = b"\x1f\x8b"
_IDX_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_LARGEST_RANK = 64  # of a NumPy array
_LARGEST_NPY_HEADER = 2**17
_LARGEST_WIDTH = 2**17  # columns of a CSV file
_CHUNK = 2**20


class _Fault(ValueError):
    """What is wrong with a file and how to mend it, still without the file's name."""


def read_idx(path: str | os.PathLike[str], *, max_bytes: Integer = 2**32) -> np.ndarray:
    """Read an IDX file, the format of MNIST, plain or compressed with gzip (told by its content).

    Args:
      path: The file.
      max_bytes: Largest size that the array may have, in bytes, decompressed.

    Returns:
      The array in the shape and the dtype that the file says: uint8, int8, int16, int32, float32 or float64, in the
      byte order of this machine.

    Raises:
      FileNotFoundError: No such file.
      IsADirectoryError: A folder.
      ValueError: No IDX file, one whose size is not what its header says, one that is damaged, or one too large.
    """
    with _opened(path, "an IDX file") as file:
        stream = _decompressed(file)
        start = _take(stream, 4)
        if len(start) < 4 or start[:2] != b"\0\0":
            raise _Fault(
                f"is no IDX file: it starts with {bytes(start)!r}, not with two zero bytes, a dtype and a number of "
                "dimensions; give a file such as train-images-idx3-ubyte.gz."
            )
        code, rank = start[2], start[3]
        if code not in _IDX_DTYPES:
            known = ", ".join(f"{code:#04x} ({np.dtype(dtype).name})" for code, dtype in _IDX_DTYPES.items())
            raise _Fault(f"has the dtype code {code:#04x}; IDX knows {known}. Get the file again.")
        if not 1 <= rank <= _LARGEST_RANK:
            raise _Fault(f"says that it has {rank} dimensions; an array has 1 to {_LARGEST_RANK}. Get the file again.")
        lengths = _take(stream, 4 * rank)
        if len(lengths) < 4 * rank:
            raise _Fault("is cut off in its header; get the file again.")
        shape = struct.unpack(f">{rank}I", lengths)
        dtype = np.dtype(_IDX_DTYPES[code])
        told = f"its header says shape {shape} of {dtype.name}"
        if 0 in shape:
            raise _Fault(f"is empty: {told}; get the file again.")
        size = math.prod(shape) * dtype.itemsize
        _check_size(size, max_bytes, told)
        content = _take(stream, size + 1)
        if len(content) != size:
            fault = "is cut off" if len(content) < size else "goes on behind its last number"
            raise _Fault(
                f"{fault}: {told}, which is {size} bytes, and it holds {_counted(content, size)}; get it again."
            )
        return np.frombuffer(content, dtype).astype(dtype.newbyteorder("="), copy=False).reshape(shape)


def read_npz(path: str | os.PathLike[str], *, max_bytes: Integer = 2**32) -> dict[str, np.ndarray]:
    """Read the arrays of numbers in an NPZ file, as `numpy.savez` and `numpy.savez_compressed` write it.

    Args:
      path: The file.
      max_bytes: Largest size that all arrays together may have, in bytes, decompressed.

    Returns:
      The arrays by name, in the byte order of this machine.

    Raises:
      FileNotFoundError: No such file.
      IsADirectoryError: A folder.
      ValueError: No NPZ file, an array of Python objects or of anything else than numbers, a member whose size is not
        what its header says, a damaged file, or one too large.
    """
    with _opened(path, "an NPZ file") as file, zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if not members:
            raise _Fault("holds no array; write it with numpy.savez(path, inputs=..., targets=...).")
        file.seek(-12 - len(archive.comment), os.SEEK_END)
        told = int.from_bytes(file.read(2), "little")
        if told != min(len(members), 2**16 - 1):
            raise _Fault(f"says that it holds {told} arrays and lists {len(members)}; get the file again.")
        total = sum(member.file_size for member in members)
        _check_size(total, max_bytes, "its directory says so")
        arrays: dict[str, np.ndarray] = {}
        for member in members:
            name = member.filename.removesuffix(".npy")
            if name == member.filename or name in arrays:
                reason = "holds {!r} twice" if name in arrays else "holds {!r}, which is no array"
                raise _Fault(
                    f"{reason.format(member.filename)}; write it with numpy.savez(path, inputs=..., targets=...)."
                )
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise _Fault(
                    f"holds {name!r} in compression {member.compress_type}, which NumPy does not write; write it with "
                    "numpy.savez_compressed."
                )
            with archive.open(member) as stream:
                content = _take(stream, member.file_size + 1)
            if len(content) != member.file_size:
                raise _Fault(
                    f"holds {name!r} in {_counted(content, member.file_size)}, its directory says {member.file_size}; "
                    "get the file again."
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
    """Read examples from a CSV file, one a row, plain or compressed with gzip (told by its content).

    The text is UTF-8, cells are separated by commas and may stand in double quotes, blank lines are skipped, and spaces
    around a cell do not count.

    A target column of words becomes classes: the distinct words in sorted order (as `sorted` has it) are 0, 1, 2, ...

    Args:
      path: The file.
      target: Column to predict, by its name in the header or by its position from 0 (from -1 for the last). All other
        columns are inputs.
      header: Whether the first row holds names. None: it does if one of its cells is a word, which is neither a number
        nor empty. Say False for a file without a header whose targets are words.
      max_bytes: Largest size that the text may have, in bytes, decompressed.

    Returns:
      Inputs float32, shape ``(examples, features)``, columns in their order; targets, shape ``(examples,)``: int32
      where they are words or are all whole numbers that int32 holds (``3.0`` is one), else float32.

    Raises:
      FileNotFoundError: No such file.
      IsADirectoryError: A folder.
      ValueError: No such target column; a word among the inputs, a missing or infinite value, or a row of another
        length (the row is told, counted from 1 below the header, and the column by name or by position from 0); targets
        that are now words, now numbers; a damaged file, or one too large.
    """
    import pandas as pd

    with _opened(path, "a CSV file") as file:
        content = _take(_decompressed(file), int(max_bytes) + 1)
        _check_size(len(content), max_bytes, "it may hold more still")
        content = bytes(content).removeprefix(b"\xef\xbb\xbf").lstrip()
        if b"\0" in content:
            raise _Fault("holds zero bytes, so it is no UTF-8 text; save it as CSV in UTF-8.")
        first = next(_rows(content), [])
        if not 2 <= len(first) <= _LARGEST_WIDTH:
            raise _Fault(
                f"has {len(first)} columns; separate the cells by commas, with at least one input and the target, "
                f"and at most {_LARGEST_WIDTH} columns."
            )
        if header is None:
            header = any(cell and _number(cell) is None for cell in first)
        columns = [repr(cell) if header else str(place) for place, cell in enumerate(first)]
        place = _place(target, first if header else None, len(first))
        example = next(itertools.islice(_rows(content), int(header), None), [])
        reason = "pandas and csv differ over it"
        try:
            frame = pd.read_csv(
                io.BytesIO(content),
                header=None,
                skiprows=int(header),
                dtype={at: str if at == place else np.float64 for at in range(len(first))},
                keep_default_na=False,
                na_values=[""],
                skipinitialspace=True,
                low_memory=False,
            )
            with np.errstate(over="ignore"):
                inputs = frame.drop(columns=place).to_numpy(np.float32)
            targets = _targets(frame[place].to_list())
            # pandas takes a whole column of True and False for numbers; its first cell gives it away.
            words = any(_number(cell) is None for at, cell in enumerate(example) if at != place)
            if targets is not None and not words and frame.shape[1] == len(first) and np.isfinite(inputs).all():
                return inputs, targets
        except (ValueError, LookupError) as error:
            reason = str(error)
        raise _Fault(_first_fault(content, header, columns, place) or f"cannot be read ({reason}); save it again.")


@contextmanager
def _opened(path: str | os.PathLike[str], kind: str) -> Iterator[_Stream]:
    with open(path, "rb") as file:
        try:
            yield file
        except _Fault as fault:
            raise ValueError(f"file {os.fspath(path)} {fault}") from fault
        except Exception as error:  # what parsers make of broken bytes is of many types
            told = f"{type(error).__name__}: {error}"
            raise ValueError(
                f"file {os.fspath(path)} is damaged or is not {kind} ({told}); get or save the file again."
            ) from error


def _decompressed(file: _Stream) -> _Stream:
    start = file.read(len(_GZIP))
    file.seek(0)
    return gzip.GzipFile(fileobj=file) if start == _GZIP else file


def _take(stream: _Stream, size: int) -> bytearray:
    """Bytes up to a size, in pieces: memory grows with what is there, not with what a header says."""
    content = bytearray()
    while len(content) < size and (piece := stream.read(min(_CHUNK, size - len(content)))):
        content += piece
    return content


def _check_size(size: int, max_bytes: Integer, told: str) -> None:
    if size > max_bytes:
        raise _Fault(
            f"has {size} bytes or more ({told}), max_bytes is {max_bytes}; give a larger max_bytes if you trust it."
        )


def _counted(content: bytearray, size: int) -> str:
    return f"{len(content)}" if len(content) <= size else "more"


def _array(content: bytearray, name: str) -> np.ndarray:
    """Array from the bytes of an NPY file."""
    start = io.BytesIO(memoryview(content)[:_LARGEST_NPY_HEADER])
    version = np.lib.format.read_magic(start)
    if version not in ((1, 0), (2, 0)):
        raise _Fault(f"holds {name!r} in version {version} of NPY, which arrays of numbers do not need; save it again.")
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = read_header(start)
    if dtype.hasobject:
        raise _Fault(
            f"holds {name!r}, an array of Python objects, which are pickles and may run code when opened, so they are "
            "refused; save numbers, such as array.astype(numpy.float32)."
        )
    if dtype.kind not in "biufc":
        raise _Fault(f"holds {name!r}, an array of dtype {dtype}, which is no number; save numbers.")
    size, rest = math.prod(shape) * dtype.itemsize, len(content) - start.tell()
    if min(shape, default=0) < 0 or size != rest:
        raise _Fault(
            f"holds {name!r} in {rest} bytes, its header says shape {shape} of {dtype.name}, which is {size}; get the "
            "file again."
        )
    flat = np.frombuffer(content, dtype, offset=start.tell()).astype(dtype.newbyteorder("="), copy=False)
    return flat.reshape(shape, order="F" if fortran_order else "C")


def _rows(content: bytes) -> Iterator[list[str]]:
    """Rows of a CSV text as pandas has them, without the blank ones; spaces around a cell removed."""
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


def _place(target: Any, names: Sequence[str] | None, num_columns: int) -> int:
    """Position of the target column from 0."""
    if isinstance(target, str):
        if names is None:
            raise _Fault(f"has no header, target is {target!r}; give a position from 0, or -1 for the last column.")
        if names.count(target) != 1:
            few = ", ".join(names[:20]) + (", ..." if num_columns > 20 else "")
            raise _Fault(
                f"has {names.count(target)} columns of the name {target!r}, which is the target; give a position, or "
                f"one of: {few}."
            )
        return names.index(target)
    if not -num_columns <= target < num_columns:
        raise _Fault(
            f"has {num_columns} columns, target is {target}; give {-num_columns} to {num_columns - 1}, or a name."
        )
    return int(target) % num_columns


def _targets(cells: Sequence[Any]) -> np.ndarray | None:
    """Targets from the cells of their column; None where something is wrong with one."""
    if not all(isinstance(cell, str) for cell in cells):
        return None
    words = [cell.strip() for cell in cells]
    numbers = [_number(word) for word in words]
    if all(number is None for number in numbers):
        classes = {word: number for number, word in enumerate(sorted(set(words)))}
        return None if "" in classes else np.array([classes[word] for word in words], np.int32)
    if None in numbers:
        return None
    values = np.array(numbers, np.float64)
    whole = np.isfinite(values).all() and (values == np.rint(values)).all()
    if whole and -(2**31) <= values.min() and values.max() < 2**31:
        return values.astype(np.int32)
    with np.errstate(over="ignore"):
        reals = values.astype(np.float32)
    return reals if np.isfinite(reals).all() else None


def _first_fault(content: bytes, header: bool, columns: Sequence[str], place: int) -> str | None:
    """What is wrong in the first row that cannot be taken."""
    classes: bool | None = None
    row = 0
    for row, cells in enumerate(itertools.islice(_rows(content), int(header), None), start=1):
        if len(cells) != len(columns):
            return (
                f"has {len(cells)} cells in row {row} and {len(columns)} in its first line; make the rows equally long."
            )
        for at, (column, cell) in enumerate(zip(columns, cells, strict=True)):
            where, number = f"column {column}, row {row}", _number(cell)
            if not cell:
                return f"has a missing value in {where}; fill it in or leave the row out."
            if number is None and at != place:
                return (
                    f"holds {cell[:40]!r} in {where}, which is no number; write inputs as numbers, or "
                    "leave them out, or give wd.data.arrays the table that pandas reads."
                )
            if number is not None and not _fits(number):
                return f"holds {cell[:40]!r} in {where}; give a finite number that float32 holds, or leave the row out."
            if at == place:
                classes = number is None if classes is None else classes
                if classes != (number is None):
                    return (
                        f"holds {cell[:40]!r} in {where}, the target column, which {'words' if classes else 'numbers'} "
                        "begin; write all targets as words, or all as numbers."
                    )
    return None if row else "holds no examples; give at least one row below the header."
