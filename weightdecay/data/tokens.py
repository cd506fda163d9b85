"""Streams of tokens for language models: text, arrays and files become windows whose targets are the next tokens.

The stream is divided into a training, a validation and a test part, in this order, and windows are taken from each part
alone: no token of one part is an input or a target of another. Windows are views of the stream, so that a file that is
mapped into memory is not copied.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from weightdecay.core import checks
from weightdecay.core.checks import ArgumentError, ArgumentTypeError
from weightdecay.core.types import Integer, Scalar
from weightdecay.data import files
from weightdecay.data.dataset import Data

_PIECE = 2**22  # tokens that are checked at once
_BYTES = 256  # tokens of a text
_TEXT_SUFFIXES = (".txt", ".txt.gz")
_FILE_SUFFIXES = (*_TEXT_SUFFIXES, ".npy", ".bin", ".gz")  # of a string that is meant as a path


def tokens(
    source: Any,
    *,
    length: Integer,
    stride: Integer | None = None,
    validation_size: Scalar = 0.1,
    test_size: Scalar = 0.1,
    train_tokens: Integer | None = None,
    vocabulary_size: Integer | None = None,
    dtype: Any = None,
) -> Data:
    """Make next-token prediction of a stream of tokens: windows of inputs, and the same windows one token later.

    A window reads ``length + 1`` tokens: ``inputs = window[:-1]`` and ``targets = window[1:]``. The first part of the
    stream is for training, the next for validation and the last for the test. With the default ``stride`` each token of
    a part, except its first, is a target once; what is left at the end of a part, fewer than ``length`` tokens, is not
    used.

    Args:
      source: The stream, one of these:

        - text, a ``str`` or ``bytes``: its UTF-8 bytes are the tokens, 0 to 255. A ``str`` that is the path of an
          existing file is a path instead; one without line breaks that ends in ``.txt``, ``.npy``, ``.bin`` or
          ``.gz`` is refused where there is no such file;
        - the path of a text, ``.txt`` or ``.txt.gz``, whose bytes are the tokens;
        - the path of an array, ``.npy``, or of a flat binary file, whose numbers have ``dtype``. Both are mapped into
          memory, and so is a text that is not compressed;
        - an array of integers, shape ``(tokens,)``; a `numpy.memmap` is not copied.
      length: Number of inputs of a window, and of targets; at least 1.
      stride: Number of tokens from the start of a training window to that of the next; None = ``length``. Validation
        and test windows start ``length`` tokens apart.
      validation_size: Fraction of the stream used for validation.
      test_size: Fraction of the stream used for testing; 0 = no test examples.
      train_tokens: Number of tokens of the training part that are used, its first ones; None = all of them. Runs with
        the same number of steps on fewer tokens repeat their data more often; the other parts do not change.
      vocabulary_size: Tokens are 0 to ``vocabulary_size - 1``; it is the number of outputs of the model. None = 256 for
        text, and one more than the largest token of the stream for arrays.
      dtype: Of the numbers in a flat binary file, such as ``"uint16"``; None for all other sources.

    Returns:
      Inputs and targets, each of shape ``(windows, length)`` in the integer dtype of the source; 8-byte integers become
      int32, which copies them.

    Raises:
      FileNotFoundError: No such file.
      TypeError: Tokens that are not integers.
      ValueError: A stream that is too short for a window in each part, a token below 0 or outside the vocabulary, a
        fraction or a number out of range, or a file that is not what its name says. Where the dtype alone does not
        answer it, the stream is read once, in pieces, to find the largest token.

    Examples:
      >>> data = tokens("to be or not to be, " * 20, length=8)
      >>> data.train[0].shape, data.validation[0].shape, data.num_classes
      ((39, 8), (4, 8), 256)
      >>> bytes(data.train[0][0]), bytes(data.train[1][0])
      (b'to be or', b'o be or ')
    """
    length = checks.integer(length, "length", at_least=1)
    stride = length if stride is None else checks.integer(stride, "stride", at_least=1)
    stream, is_text = _stream(source, dtype)
    size = _vocabulary_size(stream, vocabulary_size, is_text=is_text)
    if stream.dtype.itemsize == 8 or not stream.dtype.isnative:
        stream = stream.astype(np.int32 if stream.dtype.itemsize == 8 else stream.dtype.newbyteorder("="))
    train, validation, test = _parts(stream, length, validation_size, test_size)
    if train_tokens is not None:
        allowed = f"{length + 1} (one window) to {len(train)} (the training part), or None for all of them"
        train = train[
            : checks.integer(train_tokens, "train_tokens", at_least=length + 1, at_most=len(train), allowed=allowed)
        ]
    return Data(
        train=_windows(train, length, stride),
        validation=_windows(validation, length, length),
        test=None if test is None else _windows(test, length, length),
        num_classes=size,
    )


def _windows(part: np.ndarray, length: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets, views of a part of the stream."""
    windows = np.lib.stride_tricks.sliding_window_view(part, length + 1)[::stride]
    return windows[:, :-1], windows[:, 1:]


def _parts(
    stream: np.ndarray, length: int, validation_size: Any, test_size: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    fraction = "a fraction {} 0, below 1"
    validation_size = checks.number(
        validation_size, "validation_size", above=0, below=1, allowed=fraction.format("above")
    )
    test_size = checks.number(test_size, "test_size", at_least=0, below=1, allowed=fraction.format("of at least"))
    if validation_size + test_size >= 1:
        raise ArgumentError(
            "validation_size",
            f"validation_size is {validation_size} and test_size is {test_size}, so that nothing is left for training; "
            "give fractions whose sum is below 1.",
        )
    sizes = {"validation": round(validation_size * len(stream)), "test": round(test_size * len(stream))}
    sizes = {"training": len(stream) - sum(sizes.values()), **sizes}
    short = [name for name, size in sizes.items() if size <= length and (name != "test" or test_size > 0)]
    if short:
        listed = ", ".join(f"{size} for {name}" for name, size in sizes.items())
        raise ArgumentError(
            "source",
            f"source has {len(stream)} tokens ({listed}), and a window takes {length + 1}, which the {short[0]} part "
            "does not have; give a longer stream, a smaller length, or other fractions.",
        )
    end, begin_test = sizes["training"], sizes["training"] + sizes["validation"]
    return stream[:end], stream[end:begin_test], stream[begin_test:] if test_size > 0 else None


def _stream(source: Any, dtype: Any) -> tuple[np.ndarray, bool]:
    """The tokens, shape ``(tokens,)``, and whether they are the bytes of a text."""
    path = _path(source)
    if path is not None:
        return _file(path, dtype)
    if dtype is not None:
        raise ArgumentError(
            "dtype", f"dtype is {dtype!r}, and source is not the path of a flat binary file; omit dtype."
        )
    if isinstance(source, str):
        source = source.encode()
    if isinstance(source, bytes | bytearray):
        return np.frombuffer(source, np.uint8), True
    stream = np.asarray(source)
    if stream.dtype.kind not in "iu":
        raise ArgumentTypeError(
            "source",
            f"source has dtype {stream.dtype}; give tokens as integers, such as array.astype('uint16'), a text, or a "
            "path.",
        )
    if stream.ndim != 1:
        raise ArgumentError(
            "source", f"source has shape {stream.shape}; give one stream of tokens, shape (tokens,), as array.ravel()."
        )
    return stream, False


def _path(source: Any) -> Path | None:
    """The path of a file; None for text and arrays."""
    if isinstance(source, os.PathLike):
        return Path(source)
    if not isinstance(source, str):
        return None
    try:
        if os.path.isfile(source):
            return Path(source)
    except ValueError:  # a zero byte, which no path has
        return None
    if source.endswith(_FILE_SUFFIXES) and "\n" not in source:
        raise FileNotFoundError(
            f"source is {source!r}, which ends as the path of a file, but there is no such file; give the path of an "
            "existing file, or a text as bytes (source.encode())."
        )
    return None


def _file(path: Path, dtype: Any) -> tuple[np.ndarray, bool]:
    if path.suffix == ".npy":
        if dtype is not None:
            raise ArgumentError(
                "dtype", f"dtype is {dtype!r}, but {path} is an NPY file, which states its own; omit it."
            )
        return _stream(files.map_npy(path), None)
    if dtype is not None:
        return _stream(files.map_flat(path, _checked_dtype(dtype)), None)
    if path.name.endswith(_TEXT_SUFFIXES):
        return files.text_bytes(path), True
    raise ArgumentError(
        "dtype",
        f"dtype is None, and source is {path}, which is neither .npy nor {' nor '.join(_TEXT_SUFFIXES)}; give the "
        "dtype of its numbers, such as dtype='uint16' (or 'uint8' to take its bytes as tokens).",
    )


def _checked_dtype(dtype: Any) -> np.dtype:
    try:
        checked = np.dtype(dtype)
    except TypeError as error:
        raise ArgumentTypeError("dtype", f"dtype is {dtype!r}; give an integer dtype, such as 'uint16'.") from error
    if checked.kind not in "iu":
        raise ArgumentTypeError("dtype", f"dtype is {checked}; give an integer dtype, such as 'uint16'.")
    return checked


def _vocabulary_size(stream: np.ndarray, vocabulary_size: Any, *, is_text: bool) -> int:
    """Number of tokens of the vocabulary, after checking that the stream has no others."""
    if vocabulary_size is not None:
        vocabulary_size = checks.integer(vocabulary_size, "vocabulary_size", at_least=1, at_most=2**31 - 1)
    elif is_text:
        vocabulary_size = _BYTES
    possible = np.iinfo(stream.dtype)
    if vocabulary_size is not None and possible.min == 0 and possible.max < vocabulary_size:
        return vocabulary_size
    largest = 0
    for start, piece in _pieces(stream):
        low, high = int(piece.min()), int(piece.max())
        if low < 0:
            at = start + int(np.argmax(piece < 0))
            raise ArgumentError("source", f"source has the token {stream[at]} at {at}; give tokens from 0.")
        if vocabulary_size is not None and high >= vocabulary_size:
            at = start + int(np.argmax(piece >= vocabulary_size))
            raise ArgumentError(
                "vocabulary_size",
                f"vocabulary_size is {vocabulary_size}, but source has the token {stream[at]} at {at}; give at least "
                f"{int(stream[at]) + 1}, or None.",
            )
        largest = max(largest, high)
    if largest >= 2**31 - 1:
        raise ArgumentError("source", f"source has the token {largest}; give tokens that int32 can represent.")
    return largest + 1 if vocabulary_size is None else vocabulary_size


def _pieces(stream: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(stream), _PIECE):
        yield start, stream[start : start + _PIECE]
