"""What a run depends on, as digests, and how two calls differ in it."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from weightdecay.core import files
from weightdecay.core.types import Batch
from weightdecay.search import member as member_json

BY_STRUCTURE = {  # of what a run depends on, that which each structure in a grid has by itself; and what a change says
    "programs": "the program of a training step (model, loss, optimizer or mask) is another one",
    "functions": "train_fn is another one",
    "closed_over": "the arrays that train_fn uses are others",
    "lane_widths": "the lanes are of another width",
}


def of_member(member: Mapping[str, Any], program: str) -> str:
    """Who a member is, whatever stands beside it.

    Args:
      member: Hyperparameters by name.
      program: Digest of what trains it.

    Returns:
      A hash.
    """
    told = files.canonical({"member": member_json.encode(member), "program": program})
    return hashlib.sha256(told).hexdigest()[:32]


def of_data(splits: Mapping[str, Batch]) -> dict[str, str]:
    """Digest of each split: bytes, dtypes and shapes of its arrays.

    Args:
      splits: Examples by name.

    Returns:
      SHA-256 by name.
    """
    return {name: of_arrays(jax.tree.leaves(split)) for name, split in splits.items()}


def of_arrays(arrays: Iterable[Any]) -> str:
    """Digest of some arrays: their bytes, dtypes and shapes.

    Args:
      arrays: In their order.

    Returns:
      SHA-256.
    """
    digest = hashlib.sha256()
    for array in map(np.asarray, arrays):
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """How two calls differ in what their runs depend on.

    Args:
      before: Values of JSON by name, of the earlier call; see `weightdecay.storage.run_directory.Run.settle`.
      now: Likewise, of this call.

    Returns:
      A clause for each difference; none where one run goes on with the other.
    """
    if before.get("kind") != now.get("kind"):
        kinds = [one.get("kind", "fit_grid") for one in (before, now)]
        return [f"it was trained by wd.{kinds[0]}, and this is wd.{kinds[1]}"]
    told = []
    now = json.loads(json.dumps(now))
    for name in before:
        if name in BY_STRUCTURE:
            common = before[name].keys() & now[name].keys()
            if any(before[name][kind] != now[name][kind] for kind in common):
                told.append(BY_STRUCTURE[name])
        elif name == "data":
            changed = [
                split for split in {**before[name], **now[name]} if before[name].get(split) != now[name].get(split)
            ]
            told += [f"the {split} examples are others" for split in changed]
        elif name == "versions":
            changed = [lib for lib, version in before[name].items() if now[name].get(lib) != version]
            told += [f"{lib} was {before[name][lib]} and is {now[name].get(lib)}" for lib in changed]
        elif before[name] != now.get(name):
            told.append(f"{name} was {before[name]} and is {now.get(name)}")
    # What follows from another difference is not told beside it.
    return [one for one in told if not one.startswith("the program")] or told
