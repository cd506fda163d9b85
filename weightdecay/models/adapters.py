"""What the files of the libraries share: the two functions that each returns, and the flags for training.

A flag is an argument or a field that tells a model whether it is training; each library and its users have names of
their own for it.
"""

import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

Functions: TypeAlias = tuple[Callable[..., Any], Callable[..., Any]]
"""``init(key, inputs) -> (params, model_state)``, and ``forward(params, model_state, inputs, key, train,
hyperparameters) -> (outputs, model_state)``, all positional; see `weightdecay.models.network.Network`."""

# Value of each flag in training; in evaluation it has the opposite value.
_WHEN_TRAINING = {
    "train": True,
    "training": True,
    "is_training": True,
    "deterministic": False,
    "use_running_average": False,
    "inference": False,
}
FLAGS = frozenset(_WHEN_TRAINING)
"""Names of arguments and fields that tell a model whether it is training."""


def mode(names: Iterable[str], *, train: bool) -> dict[str, bool]:
    """Values of the flags among some names, in training or in evaluation.

    Args:
      names: Names of arguments or fields.
      train: Whether the model is training.

    Returns:
      Values by name.

    Examples:
      >>> mode(["inputs", "deterministic"], train=True)
      {'deterministic': False}
    """
    return {name: _WHEN_TRAINING[name] == train for name in names if name in FLAGS}


def call_arguments(call: Callable[..., Any], given: Iterable[str] = ()) -> frozenset[str]:
    """Names of the arguments that a model takes after its inputs.

    Args:
      call: The ``__call__`` of a class: ``self`` and the inputs come first.
      given: Names of arguments that can be passed, in addition to the flags.

    Returns:
      The names.

    Raises:
      TypeError: Another argument without a default, whose value is not known.
    """
    parameters = list(inspect.signature(call).parameters.values())[2:]
    for parameter in parameters:
        needed = parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        )
        if needed and parameter.name not in FLAGS and parameter.name not in given:
            raise TypeError(
                f"model is called with an argument {parameter.name!r}, whose value is not known; give it a default. A "
                f"model takes its inputs and, to know whether it is training, one of {', '.join(sorted(FLAGS))}."
            )
    return frozenset(parameter.name for parameter in parameters)
