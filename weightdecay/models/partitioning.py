"""What a network says about the axes of a mesh over which its weights are partitioned."""

from typing import Any

import flax.linen as nn
from jax.sharding import PartitionSpec

from weightdecay.core import tree
from weightdecay.core.types import Params
from weightdecay.models import network as networks
from weightdecay.models.network import Pair


def annotations(model: Any, params: Params) -> dict[str, PartitionSpec]:
    """Return the partitioning that a network names by flax's metadata.

    Args:
      model: Any that `weightdecay.models.network.network` takes. Weights of flax linen are annotated by
        ``nn.with_partitioning`` or ``nn.with_logical_partitioning``, those of flax nnx by ``nnx.with_partitioning``.
      params: Its weights, as shapes.

    Returns:
      The partitioning of each annotated array by its name; arrays without metadata are left out.
    """
    model = model.evaluate if isinstance(model, Pair) else model
    specs: Any = nn.get_partition_spec(params)
    if networks.is_nnx(model):
        from weightdecay.models import nnx

        specs = nnx.partition_specs(model)
    return {name: spec for name, spec in tree.named_leaves(specs) if any(axis is not None for axis in spec)}
