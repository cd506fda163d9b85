"""Unknown names of the package and unknown keyword arguments: messages that say what is meant."""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from weightdecay.core.text import plain_name, suggestion

_Function = TypeVar("_Function", bound=Callable[..., Any])

_FACE = {
    "adamw": "wd.adam(1e-3, wd.Decoupled(0.01)) is AdamW",
    "sgdw": "wd.sgd(0.1, wd.Decoupled(0.01)) is SGD with decoupled weight decay",
    "lasso": "wd.L1 is its penalty, and wd.ProximalL1 its proximal step",
    "ridge": "wd.L2 is its penalty",
    "l2regularization": "give wd.L2",
    "weightdecay": "give a rule: wd.Decoupled is the weight decay of AdamW, wd.L2 a penalty",
    "none": "wd.NoDecay() is training without decay",
    "sweep": "wd.fit_grid trains a grid",
    "train": "wd.fit trains one member, and wd.fit_grid a grid",
    "gridsearch": "wd.fit_grid trains a grid",
    "dataset": "give wd.Data",
}
"""What to use for names that the package does not have, by the name in lower case without underscores."""


def missing_attribute(module: str, name: str, known: Iterable[str]) -> str:
    """Return the message for a name that the package does not have.

    Args:
      module: Name of the package.
      name: What the user wrote.
      known: The names that exist.

    Returns:
      The message.

    Examples:
      >>> missing_attribute("weightdecay", "adamw", ["adam"])
      "module 'weightdecay' has no attribute 'adamw'; wd.adam(1e-3, wd.Decoupled(0.01)) is AdamW."
    """
    message = f"module {module!r} has no attribute {name!r}"
    if plain_name(name) in _FACE:
        return f"{message}; {_FACE[plain_name(name)]}."
    hint = suggestion(name, known)
    return f"{message}.{hint}" if hint else message


def suggest_keywords(function: _Function) -> _Function:
    """Decorate a function so that its error about an unknown keyword argument suggests the right name.

    Args:
      function: A function without ``**keywords``.

    Returns:
      The function; everything but the message of that `TypeError` is unchanged.
    """
    known = list(inspect.signature(function).parameters)

    @functools.wraps(function)
    def checked(*arguments: Any, **keywords: Any) -> Any:
        for name in keywords:
            if name not in known:
                raise TypeError(
                    f"{function.__name__}() got an unexpected keyword argument {name!r}.{suggestion(name, known)}"
                )
        return function(*arguments, **keywords)

    return checked  # pyright: ignore[reportReturnType]
