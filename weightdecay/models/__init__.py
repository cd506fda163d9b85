"""Networks of any library behind one interface, and our own: `MLP`, `CNN`, `Transformer`, `Decoder`, a `Dropout` layer.

- Training sees every network as a `network.Network`: two pure functions, which carry model state and random keys.
- A library other than flax is not imported before a user passes a model of it. `linen`, `nnx` and `equinox` know one
  library each; `adapters` has what they share. A new library is one file, and one branch of `network`.
- A number that a network takes, such as a dropout rate, is traced; anything else changes the structure.
- `convolutions` rewrites traced computations, because kernels that differ from member to member are slow otherwise.

.. include:: your_own_network.md
"""

from weightdecay.models.decoder import Decoder
from weightdecay.models.zoo import (
    ACTIVATIONS,
    CNN,
    MLP,
    Dropout,
    Transformer,
    activation_function,
)

__all__ = ["ACTIVATIONS", "CNN", "MLP", "Decoder", "Dropout", "Transformer", "activation_function"]
