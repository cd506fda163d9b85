"""Models of our own, flax linen modules: `MLP`."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import numpy as np


class MLP(nn.Module):
    """Multilayer perceptron: dense layers with an activation between them; inputs are flattened.

    Attributes:
      hidden: Width of each hidden layer.
      num_outputs: Width of the last layer; None takes it from the data when training starts.
      activation: Between the layers.
    """

    hidden: Sequence[int] = (64, 64)
    num_outputs: int | None = None
    activation: Callable[[Any], Any] = nn.relu

    @nn.compact
    def __call__(self, inputs: Any) -> Any:
        """Map a batch, shape ``(examples, ...)``, to outputs, shape ``(examples, num_outputs)``."""
        if self.num_outputs is None:
            raise ValueError("num_outputs is None; give it, or let training take it from the data.")
        hidden = inputs.reshape(inputs.shape[0], -1)
        for width in self.hidden:
            hidden = self.activation(nn.Dense(width)(hidden))
        return nn.Dense(self.num_outputs)(hidden)


def check(model: MLP) -> None:
    widths = {"num_outputs": model.num_outputs}
    if isinstance(model.hidden, str) or not isinstance(model.hidden, Sequence | np.ndarray):
        raise TypeError(
            f"model.hidden is {model.hidden!r}; give a width a hidden layer, such as (64, 64), or () for none."
        )
    widths |= {f"hidden[{place}]": width for place, width in enumerate(model.hidden)}
    for name, width in widths.items():
        if width is None and name == "num_outputs":
            continue
        if isinstance(width, bool) or not isinstance(width, int | np.integer):
            raise TypeError(f"model.{name} is {width!r}; give a whole number of at least 1.")
        if width < 1:
            raise ValueError(f"model.{name} is {width}; give a whole number of at least 1.")
    if not callable(model.activation):
        raise TypeError(f"model.activation is {model.activation!r}; give a function of an array, such as jax.nn.relu.")
