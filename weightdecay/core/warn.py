"""Warnings that point at the user's line, however deep in the library they are raised."""

import contextlib
import sys
import warnings
from pathlib import Path

import jaxtyping

_PACKAGE = Path(__file__).parents[1]
_SKIPPED = (str(_PACKAGE), contextlib.__file__, str(Path(jaxtyping.__file__).parent), "<@beartype(")
"""Starts of the file names of frames that are not the user's: the package, the context managers of the standard
library, and the type checkers that jaxtyping can put around every function."""


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Issue a warning at the innermost line of the call stack that is outside the package.

    The warning so names the line of the user's script that called the library, and Python's rule of showing a warning
    once per line counts the user's lines. (`warnings.warn` takes ``skip_file_prefixes`` from Python 3.12 on.)

    Args:
      message: What to report.
      category: Class of the warning.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_SKIPPED):
        frame = frame.f_back
    warnings.warn_explicit(
        message,
        category,
        filename=frame.f_code.co_filename,
        lineno=frame.f_lineno,
        module=frame.f_globals.get("__name__", "<unknown>"),
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )
