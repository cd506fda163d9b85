"""Reading of netCDF 3 files that allocates no more memory than the sizes of the files account for."""

import io
import math
import os
from pathlib import Path
from typing import Any

from weightdecay.core import files

_LARGEST_RANK = 64  # of a NumPy array
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8}  # bytes of a value by the number of its type in netCDF


def read(file: Path) -> Any:
    """Read a dataset.

    Args:
      file: Its path.

    Returns:
      An ``xarray.Dataset``, in memory.

    Raises:
      ValueError: It is not a netCDF 3 file, or its arrays are larger than the file.
      OSError: It cannot be opened.
    """
    import xarray

    with files.opened_file(file) as opened:
        _check(opened)
        opened.seek(0)
        return xarray.load_dataset(opened, engine="scipy", decode_times=False)


def _check(file: io.BufferedReader) -> None:
    """Refuse a netCDF 3 file whose header describes arrays larger than the file, before memory is allocated for them.

    The format: https://docs.unidata.ucar.edu/nug/current/file_format_specifications.html. Record dimensions are
    refused, as this library does not write them.
    """
    length = os.fstat(file.fileno()).st_size

    def take(size: int) -> bytes:
        if not 0 <= size <= length - file.tell():
            raise ValueError("it is cut off in its header")
        return file.read(size)

    def number(size: int = 4) -> int:
        return int.from_bytes(take(size), "big", signed=True)

    def padded(size: int) -> bytes:
        return take(size + -size % 4)

    def entries(tag: int) -> range:
        actual, count = number(), number()
        if (actual, count) != (0, 0) and actual != tag:
            raise ValueError("its header is not a netCDF header")
        return range(count)

    def attributes() -> None:
        for _ in entries(12):
            padded(number())
            size = _SIZES[number()]
            padded(number() * size)

    magic = take(4)
    if magic not in (b"CDF\1", b"CDF\2"):
        raise ValueError(f"it starts with {magic!r}, unlike a netCDF 3 file")
    number()
    dimensions: dict[bytes, int] = {}
    for _ in entries(10):
        name = padded(number())
        if name in dimensions:
            raise ValueError(f"two dimensions in it have the name {name!r}")
        dimensions[name] = number()
    sizes = list(dimensions.values())
    attributes()
    total = 0
    for _ in entries(11):
        padded(number())
        rank = number()
        if rank > _LARGEST_RANK:
            raise ValueError(f"an array in it has {rank} dimensions")
        shape = [sizes[number()] for _ in range(rank)]
        attributes()
        size = _SIZES[number()] * math.prod(shape)
        number()
        begin = number(4 * magic[3])
        if min(shape, default=1) < 1 or not 0 <= begin <= length - size:
            raise ValueError(f"an array of shape {tuple(shape)} does not fit in it")
        total += size
    if total > length:
        raise ValueError("its arrays do not fit in it")
