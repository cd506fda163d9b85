"""Placements: where the arrays of a lane are, on one device or spread over a mesh.

Every lane of a run is computed at one of its placements. Arrays of a lane have the members as their first axis, which a
mesh spreads over its axis ``member``; what members share, such as the examples, is held by each device.
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from weightdecay.core import tree
from weightdecay.core.types import Device
from weightdecay.data.batches import Examples
from weightdecay.engine.meshes import DATA, MEMBER, Weight


@runtime_checkable
class Placement(Protocol):
    """Where the arrays of lanes are."""

    @property
    def device(self) -> Device:
        """Device of this process whose memory and arithmetic count, one of those that are alike."""
        ...

    @property
    def member_axis(self) -> str | None:
        """Axis of a mesh that members are spread over; None = one device has all of them."""
        ...

    @property
    def batch_sharding(self) -> Any:
        """Sharding of the examples of a step; None = one device has all of them."""
        ...

    def members(self, tree: Any) -> Any:
        """Return the sharding of arrays that have the members as their first axis, in the structure of a tree."""
        ...

    def shared(self, tree: Any) -> Any:
        """Return the sharding of arrays that all members share; weights are partitioned."""
        ...

    def examples(self, examples: Any) -> Any:
        """Return the sharding of the examples of a segment of steps."""
        ...

    def put_members(self, tree: Any) -> Any:
        """Put arrays there that have the members as their first axis."""
        ...

    def put_shared(self, tree: Any) -> Any:
        """Put arrays there that all members share."""
        ...

    def put_examples(self, examples: Any) -> Any:
        """Put the examples of a segment of steps there."""
        ...

    def get(self, tree: Any) -> Any:
        """Return arrays as NumPy arrays; on a mesh of several processes, each of them must call it."""
        ...


@dataclass(frozen=True)
class OneDevice:
    """A device that computes whole members.

    Attributes:
      device: The device.
    """

    device: Device
    member_axis: None = None
    batch_sharding: None = None

    def members(self, tree: Any) -> Any:
        """Return the device for each array."""
        return jax.tree.map(lambda _: SingleDeviceSharding(self.device), tree)

    def shared(self, tree: Any) -> Any:
        """Return the device for each array."""
        return self.members(tree)

    def examples(self, examples: Any) -> Any:
        """Return the device for each array."""
        return self.members(examples)

    def put_members(self, tree: Any) -> Any:
        """Put arrays on the device."""
        return jax.device_put(tree, self.device)

    def put_shared(self, tree: Any) -> Any:
        """Put arrays on the device."""
        return jax.device_put(tree, self.device)

    def put_examples(self, examples: Any) -> Any:
        """Put arrays on the device."""
        return jax.device_put(examples, self.device)

    def get(self, tree: Any) -> Any:
        """Return arrays as NumPy arrays."""
        return jax.device_get(tree)


@dataclass(frozen=True)
class OnMesh:
    """A mesh whose devices compute a lane together.

    Optimizer states, averages and the best weights so far are partitioned as the weights whose name and shape they
    have, or whose shape alone if all weights of that shape are partitioned alike.

    Attributes:
      mesh: The mesh.
      weights: Partitioning of the weights of a member.
    """

    mesh: Mesh
    weights: tuple[Weight, ...]

    @property
    def device(self) -> Device:
        """First device of this process."""
        return self.mesh.local_devices[0]

    @property
    def member_axis(self) -> str:
        """Axis that members are spread over."""
        return MEMBER

    @property
    def batch_sharding(self) -> Any:
        """Sharding of the examples of a step."""
        return NamedSharding(self.mesh, PartitionSpec(DATA)) if self.mesh.shape.get(DATA, 1) > 1 else None

    def members(self, tree: Any) -> Any:
        """Return the sharding of each array, whose first axis is that of the members."""
        return self._by_name(tree, members=1)

    def shared(self, tree: Any) -> Any:
        """Return the sharding of each array: as the weight of its name, or a copy on each device."""
        return self._by_name(tree, members=0)

    def examples(self, examples: Any) -> Any:
        """Return the sharding of the examples of a segment of steps."""
        data = PartitionSpec() if examples.stream is None else PartitionSpec(None, None, self._data_axis)
        return Examples(
            data=jax.tree.map(lambda _: NamedSharding(self.mesh, data), examples.data),
            order=None if examples.order is None else self._sharding(MEMBER, None, self._data_axis),
            stream=None if examples.stream is None else self._sharding(MEMBER),
        )

    def put_members(self, tree: Any) -> Any:
        """Spread arrays over the mesh that have the members as their first axis."""
        return self._put(tree, self.members(tree))

    def put_shared(self, tree: Any) -> Any:
        """Put arrays on the mesh that all members share."""
        return self._put(tree, self.shared(tree))

    def put_examples(self, examples: Any) -> Any:
        """Spread the examples of a segment of steps over the mesh."""
        return self._put(examples, self.examples(examples))

    def _put(self, tree: Any, shardings: Any) -> Any:
        if not self.mesh.is_multi_process:
            return jax.device_put(tree, shardings)

        def put_leaf(leaf: Any, sharding: Any) -> Any:
            if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
                return leaf
            array = np.asarray(leaf)
            array = array.astype(jax.dtypes.canonicalize_dtype(array.dtype))
            return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

        return jax.tree.map(put_leaf, tree, shardings)

    def get(self, tree: Any) -> Any:
        """Gather arrays as NumPy arrays."""
        if not self.mesh.is_multi_process:
            return jax.device_get(tree)
        from jax.experimental import multihost_utils

        return multihost_utils.process_allgather(tree, tiled=True)

    def bytes_on_device(self, tree: Any) -> int:
        """Bytes of the arrays of one member, given as shapes, that each of its devices holds."""
        leaves, shardings = jax.tree.leaves(tree), jax.tree.leaves(self.shared(tree))
        shapes = (sharding.shard_shape(leaf.shape) for leaf, sharding in zip(leaves, shardings, strict=True))
        return sum(int(np.prod(shape)) * leaf.dtype.itemsize for shape, leaf in zip(shapes, leaves, strict=True))

    @property
    def _data_axis(self) -> str | None:
        return DATA if DATA in self.mesh.shape else None

    def _sharding(self, *axes: Any) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(*axes))

    def _by_name(self, arrays: Any, *, members: int) -> Any:
        first = [MEMBER] * members
        shardings = [
            self._sharding(*first, *self._spec(name, tuple(leaf.shape[members:])))
            for name, leaf in tree.named_leaves(arrays)
        ]
        return jax.tree.structure(arrays).unflatten(shardings)

    def _spec(self, name: str, shape: tuple[int, ...]) -> PartitionSpec:
        alike = [weight for weight in self.weights if weight.shape == shape]
        named = [weight for weight in alike if weight.name == "" or f"/{name}".endswith(f"/{weight.name}")]
        if named:
            return max(named, key=lambda weight: len(weight.name)).spec
        specs = {weight.spec for weight in alike}
        return specs.pop() if len(specs) == 1 else PartitionSpec()
