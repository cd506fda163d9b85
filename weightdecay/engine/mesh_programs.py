"""Programs of a lane that all devices of a mesh compute together: where their arguments and outputs are."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from weightdecay.engine.placements import Placement


def lowered(
    jit: Callable[..., Any], arguments: Mapping[str, tuple[Any, ...]], placement: Placement, names: Sequence[str]
) -> dict[str, Any]:
    """Lower programs whose arguments and outputs are spread over a mesh.

    Args:
      jit: ``jit(name, out_shardings=...)`` is the function of this name, to be compiled; the names are those of
        `weightdecay.engine.lane_programs.Programs`.
      arguments: Arguments of each function, as shapes.
      placement: The mesh.
      names: Functions to lower.

    Returns:
      The lowered programs by name.
    """
    members, shared = placement.members, placement.shared
    states = members(arguments["advance"][1])
    of_members = members(jax.ShapeDtypeStruct((1,), np.int32))
    outputs = {
        "initialize": states,
        "advance": (states, states.params, of_members),
        "repeat": (states, states.params),
        "evaluate": (of_members, of_members, states.best),
        "add_up": of_members,
    }
    evaluates_sums = isinstance(arguments["evaluate"][3], dict)
    placed: dict[str, tuple[Callable[[Any], Any], ...]] = {
        "initialize": (shared, shared),
        "advance": (members, placement.examples, shared),
        "repeat": (members, members, members, placement.examples, shared),
        "evaluate": (members, members, members if evaluates_sums else shared, shared),
        "add_up": (members, shared, shared),
    }

    def lower(name: str) -> Any:
        hyperparameters, *others = arguments[name]
        shardings = [
            hyperparameter_shardings(placement, hyperparameters),
            *(place(argument) for place, argument in zip(placed[name], others, strict=True)),
        ]
        shapes = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            [hyperparameters, *others],
            shardings,
        )
        return jit(name, out_shardings=outputs[name]).lower(*shapes)

    return {name: lower(name) for name in names}


def hyperparameter_shardings(placement: Placement, hyperparameters: Any) -> Any:
    """Return the sharding of the hyperparameters of a lane; its members share the frozen weights."""
    frozen = placement.shared(hyperparameters.frozen)
    return placement.members(hyperparameters._replace(frozen=None))._replace(frozen=frozen)
