"""Digests of what the numbers of a run depend on, and the differences between two calls."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from weightdecay.core import files
from weightdecay.core.types import Batch
from weightdecay.search.member import encode

BY_STRUCTURE = {
    "programs": "the program of a training step (model, loss, optimizer or mask) differs",
    "initial": "the initial weights differ",
    "frozen": "the frozen weights (trainable) differ",
    "evaluations": "the program of an evaluation (model in evaluation mode, loss or a metric) differs",
    "functions": "train_fn differs",
    "closed_over": "the arrays that train_fn uses differ",
    "lane_widths": "the lanes have another width",
}
"""Entries with one value for each structure of members in a grid, and the message if a value changes."""
MESHES = "meshes"
"""Entry that is not compared: every mesh on which members of the run were trained, as a list; None = without a mesh."""
_BLOCK_BYTES = 2**26
_CONSEQUENCES = ("programs", "evaluations")  # change also if another entry changes


def of_member(member: Mapping[str, Any], program: str) -> str:
    """Name of a member in a run directory, which does not depend on the other members of the grid.

    Args:
      member: Hyperparameters by name.
      program: Digest of the program that trains it.

    Returns:
      A hash.
    """
    content = files.canonical({"member": encode(member), "program": program})
    return hashlib.sha256(content).hexdigest()[:32]


def of_data(splits: Mapping[str, Batch]) -> dict[str, str]:
    """Digest of each split: bytes, dtypes and shapes of its arrays.

    Args:
      splits: Examples by name.

    Returns:
      SHA-256 by name.
    """
    return {name: of_arrays(jax.tree.leaves(split)) for name, split in splits.items()}


def of_arrays(arrays: Iterable[Any]) -> str:
    """Digest of arrays: their bytes, dtypes and shapes.

    Args:
      arrays: The arrays; their order matters.

    Returns:
      SHA-256.
    """
    digest = hashlib.sha256()
    for array in arrays:
        # An array on the disk, which is indexed as any other one, is read in blocks.
        array = array if hasattr(array, "dtype") and not isinstance(array, jax.Array) else np.asarray(array)
        digest.update(f"{array.dtype} {array.shape}".encode())
        rows = max(1, _BLOCK_BYTES * array.shape[0] // max(1, array.nbytes)) if array.shape else 1
        for start in range(0, array.shape[0], rows) if array.shape else [...]:
            block = array[start] if start is ... else array[start : start + rows]
            digest.update(np.ascontiguousarray(block).data)
    return digest.hexdigest()


def meshes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the meshes of a run after a further call.

    Args:
      before: As in `differences`.
      now: As in `differences`.

    Returns:
      The entry `MESHES`, in the order in which they were first used; empty if there has been no mesh.
    """
    used = []
    for mesh in [*before.get(MESHES, [None]), *now.get(MESHES, [None])]:
        if mesh not in used:
            used.append(mesh)
    return {} if used == [None] else {MESHES: used}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Describe how two calls differ in what the numbers of their runs depend on.

    Args:
      before: JSON values by name, of the earlier call; see `weightdecay.storage.run_directory`. Entries that it lacks
        are not compared.
      now: The same, of this call.

    Returns:
      A clause for each difference; empty if one run can resume the other.
    """
    if before.get("kind") != now.get("kind"):
        kinds = [call.get("kind", "fit_grid") for call in (before, now)]
        return [f"it was trained by wd.{kinds[0]}, and this is wd.{kinds[1]}"]
    causes, consequences = [], []
    now = json.loads(json.dumps(now))
    for name, earlier in before.items():
        if name == MESHES:
            continue
        if name in BY_STRUCTURE:
            current = now.get(name, {})
            if any(earlier[structure] != current[structure] for structure in earlier.keys() & current.keys()):
                (consequences if name in _CONSEQUENCES else causes).append(BY_STRUCTURE[name])
        elif name == "data":
            splits = dict.fromkeys([*earlier, *now[name]])
            changed = [split for split in splits if earlier.get(split) != now[name].get(split)]
            causes += [f"the {split} examples differ" for split in changed]
        elif name == "versions":
            changed = [package for package, version in earlier.items() if now[name].get(package) != version]
            causes += [f"{package} was {earlier[package]} and is {now[name].get(package)}" for package in changed]
        elif earlier != now.get(name):
            causes.append(f"{name} was {earlier} and is {now.get(name)}")
    return causes or consequences
