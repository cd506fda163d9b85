"""Meshes: members that several devices compute together.

The axis ``member`` of a mesh spreads the members of a lane, the axis ``data`` the examples of a member's batch, and the
weights of a member are partitioned over any axis but ``member``. Here the arguments ``mesh`` and ``sharding`` of
`fit_grid` are checked, and become the partitioning of each array; `weightdecay.engine.placements` puts arrays there.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh, PartitionSpec

from weightdecay.core import tree
from weightdecay.core.checks import ArgumentError, ArgumentTypeError
from weightdecay.models import partitioning
from weightdecay.training.task import WithFrozen

MEMBER = "member"
"""Axis of a mesh that the members of a lane are spread over."""

DATA = "data"
"""Axis of a mesh that the examples of a batch are spread over."""

FSDP = "fsdp"
"""Name of the rule that partitions each weight over all devices of a member."""


@dataclass(frozen=True)
class Weight:
    """How one array of weights is partitioned.

    Attributes:
      name: Its name.
      shape: Its shape, of one member.
      spec: Axes of the mesh for each of its axes.
    """

    name: str
    shape: tuple[int, ...]
    spec: PartitionSpec


@dataclass(frozen=True)
class MeshSettings:
    """A mesh, and how weights are partitioned over it.

    Attributes:
      mesh: The mesh; all axes are of the type ``Auto``.
      sharding: ``"fsdp"``, pairs of a pattern and a partitioning, or None.
    """

    mesh: Mesh
    sharding: str | tuple[tuple[str, PartitionSpec], ...] | None = None

    @property
    def shape(self) -> dict[str, int]:
        """Number of devices along each axis, by name."""
        return dict(self.mesh.shape)

    @property
    def devices_of_member(self) -> int:
        """Number of devices that compute a member together."""
        return self.mesh.size // self.mesh.shape[MEMBER]

    def describe(self) -> dict[str, Any]:
        """Return what the bits of a member depend on, as values of JSON."""
        sharding = self.sharding
        if sharding is not None and not isinstance(sharding, str):
            sharding = [[pattern, str(spec)] for pattern, spec in sharding]
        return {"axes": self.shape, "sharding": sharding}


def settings(mesh: Any, sharding: Any) -> MeshSettings | None:
    """Validate the arguments ``mesh`` and ``sharding``.

    Args:
      mesh: What the user passed.
      sharding: What the user passed.

    Returns:
      The mesh with its axes as type ``Auto``; None = without a mesh.

    Raises:
      ArgumentTypeError: Something of another type.
      ArgumentError: A mesh without an axis ``member``, or without devices of some of the processes; a partitioning over
        an axis that the mesh does not have.
    """
    if mesh is None:
        if sharding is not None:
            raise ArgumentError("sharding", "sharding partitions weights over a mesh, and mesh is None; give a mesh.")
        return None
    if not isinstance(mesh, Mesh):
        raise ArgumentTypeError(
            "mesh",
            f"mesh is {mesh!r}, of type {type(mesh).__name__}; give a jax.sharding.Mesh with an axis 'member', such as "
            "jax.make_mesh((2, 4), ('member', 'data')).",
        )
    if MEMBER not in mesh.shape:
        raise ArgumentError(
            "mesh",
            f"mesh has the axes {_listed(mesh.axis_names)}, and none is named 'member'; give one that members are "
            "spread over, such as jax.make_mesh((1, 8), ('member', 'data')): it may have the size 1.",
        )
    processes = {device.process_index for device in mesh.devices.flat}
    if jax.process_index() not in processes or (len(processes) > 1 and len(processes) < jax.process_count()):
        raise ArgumentError(
            "mesh",
            f"mesh has devices of the processes {sorted(processes)} of {jax.process_count()}, and this is process "
            f"{jax.process_index()}; give one of all processes, or of this one alone.",
        )
    mesh = Mesh(mesh.devices, mesh.axis_names)
    if sharding is None or (isinstance(sharding, str) and sharding == FSDP):
        return MeshSettings(mesh, sharding)
    if isinstance(sharding, str):
        raise ArgumentError("sharding", f"sharding is {sharding!r}; give 'fsdp', or a dictionary by pattern.")
    pairs = list(sharding.items()) if isinstance(sharding, Mapping) else sharding
    try:
        rules = tuple((pattern, spec) for pattern, spec in pairs)
        fits = all(isinstance(pattern, str) and isinstance(spec, PartitionSpec) for pattern, spec in rules)
    except (TypeError, ValueError):
        rules, fits = (), False
    if not fits:
        raise ArgumentTypeError(
            "sharding",
            f"sharding is {sharding!r}; give 'fsdp', or a jax.sharding.PartitionSpec by pattern, such as "
            "{'Dense_0/kernel': PartitionSpec(None, 'model')}.",
        )
    for pattern, spec in rules:
        _check_axes(spec, mesh, argument="sharding", what=f"sharding[{pattern!r}]")
    return MeshSettings(mesh, rules)


def weights(mesh: MeshSettings, groups: Sequence[Any]) -> list[tuple[Weight, ...]]:
    """Partition the weights of the members of each group.

    Args:
      mesh: The mesh, with the user's rule.
      groups: Groups of members, each a `weightdecay.engine.groups.TrainingGroup`.

    Returns:
      The weights of each group, those that train and those that do not.

    Raises:
      ArgumentError: A pattern that matches no weight; a partitioning with more axes than the weight, or over devices
        whose number does not divide its axis; an axis of the mesh that nothing uses.
    """
    of_groups = [_named(group) for group in groups]
    names = list(dict.fromkeys(name for named in of_groups for name, _ in named))
    rules: dict[str, PartitionSpec] = {}
    if mesh.sharding is not None and not isinstance(mesh.sharding, str):
        by_pattern = dict(mesh.sharding)
        try:
            chosen = tree.first_match([*by_pattern], names, argument="sharding")
        except ValueError as error:
            raise ArgumentError("sharding", str(error)) from error
        rules = {name: by_pattern[pattern] for name, pattern in zip(names, chosen, strict=True) if pattern is not None}
    partitioned = []
    for group, named in zip(groups, of_groups, strict=True):
        annotated = {} if mesh.sharding == FSDP else partitioning.annotations(group.task.model, group.state.params)
        partitioned.append(tuple(_partitioned(mesh, name, shape, rules, annotated) for name, shape in named))
    _check_every_axis_is_used(mesh, [weight for of_group in partitioned for weight in of_group])
    return partitioned


def check_batch(mesh: MeshSettings, batch_size: int | None, num_examples: int, accumulate: int) -> None:
    """Check that the examples of a step can be spread evenly.

    Args:
      mesh: The mesh.
      batch_size: Examples a step; None = all.
      num_examples: Number of training examples.
      accumulate: Parts of a batch, which are computed one after the other.

    Raises:
      ArgumentError: They cannot.
    """
    size, argument = (num_examples, "data") if batch_size is None else (batch_size, "batch_size")
    num_devices = mesh.shape.get(DATA, 1)
    if size % (accumulate * num_devices):
        of_step = f"all {size} training examples" if batch_size is None else f"batch_size, {size},"
        parts = "" if accumulate == 1 else f" in {accumulate} parts (accumulate)"
        raise ArgumentError(
            argument,
            f"{of_step} cannot be divided{parts} over the {num_devices} devices of the axis 'data' of mesh; give a "
            f"multiple of {accumulate * num_devices}.",
        )


def _named(group: Any) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of all weights of a member of a group."""
    trees = [group.state.params, group.start.frozen]
    if isinstance(group.state.model_state, WithFrozen):
        trees.append(group.state.model_state.frozen)
    return [(name, tuple(leaf.shape)) for one in trees for name, leaf in tree.named_leaves(one)]


def _partitioned(
    mesh: MeshSettings,
    name: str,
    shape: tuple[int, ...],
    rules: Mapping[str, PartitionSpec],
    annotated: Mapping[str, PartitionSpec],
) -> Weight:
    if mesh.sharding == FSDP:
        return Weight(name, shape, _first_divisible(mesh, shape))
    spec = rules.get(name, annotated.get(name, PartitionSpec()))
    what = f"the partitioning of {name!r}, {spec},"
    if name not in rules:
        what = f"the partitioning that model names for {name!r}, {spec},"
        _check_axes(spec, mesh.mesh, argument="mesh", what=what)
    sizes = [math.prod(mesh.shape[axis] for axis in _axes(entry)) for entry in spec]
    if len(sizes) > len(shape) or any(length % size for length, size in zip(shape, sizes, strict=False)):
        raise ArgumentError(
            "sharding",
            f"{what} does not fit its shape {shape}: over this mesh its axes would be divided by {tuple(sizes)}; give "
            "sharding a partitioning whose devices divide the axes.",
        )
    return Weight(name, shape, spec)


def _first_divisible(mesh: MeshSettings, shape: tuple[int, ...]) -> PartitionSpec:
    """Partition the first axis that the number of devices of a member divides; none if there is no such axis."""
    others = tuple(axis for axis in mesh.shape if axis != MEMBER)
    for index, length in enumerate(shape):
        if others and length and length % mesh.devices_of_member == 0:
            return PartitionSpec(*[None] * index, others)
    return PartitionSpec()


def _check_axes(spec: PartitionSpec, mesh: Mesh, *, argument: str, what: str) -> None:
    for axis in (axis for entry in spec for axis in _axes(entry)):
        if axis == MEMBER:
            raise ArgumentError(
                argument, f"{what} names the axis 'member', over which members are spread; name others."
            )
        if axis not in mesh.shape:
            others = _listed([name for name in mesh.axis_names if name != MEMBER]) or "none besides 'member'"
            raise ArgumentError(
                argument,
                f"{what} names the axis {axis!r}, which mesh does not have; its axes are: {others}. Give a mesh that "
                "has it, or sharding={pattern: jax.sharding.PartitionSpec(...)} for these weights.",
            )


def _check_every_axis_is_used(mesh: MeshSettings, partitioned: Sequence[Weight]) -> None:
    used: set[str] = {MEMBER, DATA} | {axis for weight in partitioned for entry in weight.spec for axis in _axes(entry)}
    for axis, size in mesh.shape.items():
        if axis not in used and size > 1:
            raise ArgumentError(
                "mesh",
                f"mesh has an axis {axis!r} of {size} devices over which nothing is partitioned, so that all of them "
                "would compute the same; give sharding='fsdp', or a pattern of weights with a partitioning over it.",
            )


def _axes(entry: Any) -> tuple[str, ...]:
    """Axes of the mesh that one axis of an array is partitioned over."""
    if entry is None or entry is PartitionSpec.UNCONSTRAINED:
        return ()
    return (entry,) if isinstance(entry, str) else tuple(entry)


def _listed(names: Sequence[Any]) -> str:
    return ", ".join(map(repr, names))
