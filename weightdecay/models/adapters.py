"""How a model is told whether it trains: the words that the libraries and their users have for it."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

# What each is in training; its opposite is said in evaluation.
_WHEN_TRAINING = {
    "train": True,
    "training": True,
    "is_training": True,
    "deterministic": False,
    "use_running_average": False,
    "inference": False,
}
FLAGS = frozenset(_WHEN_TRAINING)
"""Names of arguments and fields that say whether a model trains."""


def mode(names: Iterable[str], *, train: bool) -> dict[str, bool]:
    """Flags among some names, as they are in training or in evaluation.

    Args:
      names: Of arguments or fields.
      train: Whether the model trains.

    Returns:
      Values by name.

    Examples:
      >>> mode(["inputs", "deterministic"], train=True)
      {'deterministic': False}
    """
    return {name: _WHEN_TRAINING[name] == train for name in names if name in FLAGS}


def call_arguments(call: Callable[..., Any], given: Iterable[str] = ()) -> frozenset[str]:
    """Names of the arguments that a model takes behind its inputs, if they are all known.

    Args:
      call: The class's ``__call__``: ``self`` and the inputs come first.
      given: Names, beside the flags, that can be given.

    Returns:
      The names.

    Raises:
      TypeError: A further argument without a default, of which nothing is known.
    """
    parameters = list(inspect.signature(call).parameters.values())[2:]
    for parameter in parameters:
        needed = parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        )
        if needed and parameter.name not in FLAGS and parameter.name not in given:
            raise TypeError(
                f"model is called with an argument {parameter.name!r}, which is not known here; give it a default. A "
                f"model takes its inputs and, to be told whether it trains, one of {', '.join(sorted(FLAGS))}."
            )
    return frozenset(parameter.name for parameter in parameters)
