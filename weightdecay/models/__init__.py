"""Networks of any library under one face, and our own: `MLP`, `CNN`, `Transformer` and a `Dropout` layer.

.. include:: your_own_network.md
"""

from weightdecay.models.zoo import (
    ACTIVATIONS,
    CNN,
    MLP,
    Dropout,
    Transformer,
    activation_function,
)

__all__ = ["ACTIVATIONS", "CNN", "MLP", "Dropout", "Transformer", "activation_function"]
