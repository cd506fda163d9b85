"""The network of a command: a multilayer perceptron, a decoder for texts, or one of the user's own."""

import importlib
import sys
from typing import Any

from weightdecay.core.checks import ArgumentError, ArgumentTypeError

WIDTHS = "64,64"
"""Widths of the hidden layers where the user gives none."""


def build(model: str | None, widths: str | None, *, of_tokens: bool = False) -> Any:
    """Build the network.

    Args:
      model: ``"module:name"`` of the user's own; None = the library's.
      widths: Widths of the hidden layers of the perceptron, comma-separated integers; None = 64,64.
      of_tokens: Whether the examples are windows of tokens; the library's network is then a decoder.

    Returns:
      The network, as `weightdecay.fit_grid` takes it.

    Raises:
      ArgumentError: Widths of another network than the perceptron; or as `load`.
    """
    from weightdecay import models

    if model is None and not of_tokens:
        return models.MLP(tuple(int(width) for width in (widths or WIDTHS).split(",") if width.strip()))
    if widths is not None:
        of = "a decoder, which texts have" if model is None else model
        raise ArgumentError("widths", f"widths is {widths!r}, but the network is {of}; omit it.")
    return models.Decoder() if model is None else load(model)


def load(name: str) -> Any:
    """Import a network of the user's own; this runs the code of its module.

    Args:
      name: ``"module:name"``, where the module is in the working directory or is installed.

    Returns:
      What the module has under that name; of a class of flax linen, an instance with its default fields.

    Raises:
      ArgumentError: There is no such module, or it has no such name.
    """
    import flax.linen as nn

    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute or module_name.endswith(".py"):
        raise ArgumentError("model", f"model is {name!r}; give module:Class, such as my_models:Net for my_models.py.")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ArgumentError("model", f"model is {name!r}, and the module cannot be imported ({error}).") from error
    if not hasattr(module, attribute):
        raise ArgumentError("model", f"model is {name!r}, and the module has nothing of this name; give module:Class.")
    found = getattr(module, attribute)
    if not isinstance(found, type) or not issubclass(found, nn.Module):
        return found
    try:
        return found()
    except TypeError as error:
        raise ArgumentTypeError(
            "model",
            f"model is {name!r}, a class that cannot be made without arguments ({error}); give its fields defaults, or "
            "give the name of an instance.",
        ) from error
