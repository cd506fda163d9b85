"""What the files of the libraries share: the two functions that each returns, and the flags for training.

A flag is an argument or a field that tells a model whether it is training; each library and its users have names of
their own for it.
"""

import inspect
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import jax

from weightdecay.core.types import Key, ModelState

Functions: TypeAlias = tuple[Callable[..., Any], Callable[..., Any]]
"""``init(key, inputs) -> (params, model_state)``, and ``forward(params, model_state, inputs, key, train,
hyperparameters) -> (outputs, model_state)``, all positional; see `weightdecay.models.network.Network`."""

SOWN = "sown_loss"
"""Entry of the model state for the sum of the losses that a network sows in a forward pass."""

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


def with_sown_loss(total: Any) -> dict[str, Any]:
    """Return the entry of the model state for a sum of sown losses, in the form of a collection of flax.

    Args:
      total: Shape ``()``.
    """
    return {SOWN: {"total": total}}


def sown_loss(model_state: ModelState) -> Any:
    """Return the sum of the losses that a network sowed in its last forward pass, shape ``()``; None = it sows none."""
    return model_state[SOWN]["total"] if isinstance(model_state, dict) and SOWN in model_state else None


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


def call_arguments(call: Callable[..., Any]) -> frozenset[str]:
    """Names of the arguments of a model in addition to its first one, or of all where inputs are passed by name.

    Args:
      call: The ``__call__`` of a class, whose first argument is ``self``.

    Returns:
      The names.
    """
    return frozenset(list(inspect.signature(call).parameters)[1:])


def bound(call: Callable[..., Any], inputs: Any, key: Key, given: Iterable[str] = ()) -> tuple[tuple[Any, ...], dict]:
    """Arguments with which a model is called: its inputs, and keys for arguments named ``..._rng`` or ``key``.

    Inputs that are a dictionary are passed by name where the call has arguments of all these names; all other inputs
    are the first argument.

    Args:
      call: The ``__call__`` of a class, whose first argument is ``self``.
      inputs: What the model receives.
      key: Random key, from which that of each argument follows by its name.
      given: Names of further arguments that the caller passes, in addition to the flags.

    Returns:
      Positional and named arguments.

    Raises:
      TypeError: Another argument without a default, whose value is not known; or a dictionary of which some names alone
        are arguments.
    """
    parameters = list(inspect.signature(call).parameters.values())[1:]
    parameters = [one for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    names = [parameter.name for parameter in parameters]
    by_name = isinstance(inputs, Mapping) and any(name in names for name in inputs)
    named: dict[str, Any] = dict(inputs) if by_name else {}
    if by_name:
        unknown = [name for name in inputs if name not in names]
        if unknown:
            raise TypeError(
                f"inputs have the names {', '.join(map(repr, inputs))}, and model is called with the arguments "
                f"{', '.join(names)}; give no {unknown[0]!r}, or add an argument of that name."
            )
    for parameter in parameters if by_name else parameters[1:]:
        name, is_needed = parameter.name, parameter.default is parameter.empty
        if name in FLAGS or name in given or name in named:
            continue
        if name.endswith(("rng", "rngs", "key")) and is_needed:
            named[name] = jax.random.fold_in(key, zlib.crc32(name.encode()))
        elif is_needed:
            first = names[0]
            raise TypeError(
                f"model is called with an argument {name!r}, whose value is not known; give it a default, or give the "
                f"inputs by name, as wd.Data(train=({{{first!r}: ..., {name!r}: ...}}, targets), ...). To know whether "
                f"it is training, a model takes one of {', '.join(sorted(FLAGS))}."
            )
    return () if by_name else (inputs,), named
