"""The built-in data sets by name."""

from collections.abc import Callable
from typing import TypeVar

from weightdecay.data.dataset import Data

_Maker = TypeVar("_Maker", bound=Callable[..., Data])

BUILT_IN: dict[str, Callable[..., Data]] = {}
"""Data sets that need no file, by name. Their inputs are real; they are made with ``seed``, ``num_train`` and the sizes
of the splits."""


def built_in(make: _Maker) -> _Maker:
    """Register a function that makes a data set under its own name."""
    BUILT_IN[make.__name__] = make
    return make
