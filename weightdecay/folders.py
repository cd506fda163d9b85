"""What lies on disk: a result as a folder of ordinary files, which other programs can read.

- ``dataset.nc``: every metric and coordinate, netCDF 3.
- ``weights.safetensors``: every weight array, all members stacked along the first dimension, under its name
  (``params/Dense_0/kernel``).
- ``settings.json``: format, hyperparameters of each member, settings of the run, versions, test scores.

Reading runs no code from the files.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from weightdecay import grid as grids
from weightdecay import tree

_FORMAT = "weightdecay result"
_VERSION = 1
_DATASET, _WEIGHTS, _SETTINGS = "dataset.nc", "weights.safetensors", "settings.json"


class Contents(NamedTuple):
    """What a result folder holds."""

    dataset: Any
    members: list[dict[str, Any]]
    weights: Sequence[tuple[Any, Any]]  # (params, model_state) of each member
    settings: dict[str, Any]
    test: dict[str, Any] | None


def check_folder(path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Refuse a folder that a result cannot be written to, before any work is done for it.

    Args:
      path: The folder; it may be missing or empty.
      overwrite: Whether an earlier result may be replaced.

    Returns:
      The path.

    Raises:
      NotADirectoryError: It is a file.
      FileExistsError: It holds something else, or an earlier result without ``overwrite``.
      PermissionError: It cannot be written.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"folder {folder} is a file; give a new or an empty folder.")
    entries = sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []
    if entries and not is_result(folder):
        raise FileExistsError(
            f"folder {folder} holds something else ({', '.join(entries[:3])}{', ...' if len(entries) > 3 else ''}); "
            "nothing was touched. Give a new or an empty folder."
        )
    if entries and not overwrite:
        raise FileExistsError(
            f"folder {folder} holds an earlier result; nothing was touched. Give another folder, or "
            "overwrite it (overwrite=True; --overwrite on the command line)."
        )
    parent = next(ancestor for ancestor in folder.absolute().parents if ancestor.exists())
    if not parent.is_dir():
        raise NotADirectoryError(f"folder {folder} lies under {parent}, which is a file; give another folder.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(f"folder {folder} cannot be made: {parent} is not writable; give another folder.")
    return folder


def is_result(path: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a result that this library wrote.

    Args:
      path: The folder.

    Returns:
      True if it does.
    """
    try:
        settings = json.loads((Path(path) / _SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(settings, dict) and settings.get("format") == _FORMAT


def write(path: str | os.PathLike[str], contents: Contents, *, overwrite: bool = False) -> Path:
    """Write a result folder; it appears whole or not at all.

    Args:
      path: The folder; see `check_folder`.
      contents: What to write.
      overwrite: Whether an earlier result may be replaced.

    Returns:
      The path.

    Raises:
      OSError: As `check_folder`.
    """
    from safetensors.numpy import save_file

    folder = check_folder(path, overwrite=overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        contents.dataset.to_netcdf(unfinished / _DATASET, engine="scipy")
        save_file(_stack(contents.weights), unfinished / _WEIGHTS)
        settings = {
            "format": _FORMAT,
            "version": _VERSION,
            "versions": {
                name: metadata.version(name) for name in ("weightdecay", "jax", "jaxlib", "optax", "flax", "numpy")
            },
            "settings": contents.settings,
            "test": contents.test,
            "members": [grids.encode(member) for member in contents.members],
        }
        (unfinished / _SETTINGS).write_text(json.dumps(settings, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        unfinished.chmod(0o755)
        (unfinished / _WEIGHTS).chmod(0o644)
        if folder.exists() and any(folder.iterdir()):
            replaced = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            os.replace(folder, replaced)
            os.replace(unfinished, folder)
            shutil.rmtree(replaced)
        else:
            os.replace(unfinished, folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return folder


def read(path: str | os.PathLike[str]) -> Contents:
    """Read a result folder.

    Args:
      path: The folder.

    Returns:
      What it holds. Weights come as nested dictionaries by their names, in NumPy arrays.

    Raises:
      FileNotFoundError: No such folder, or no result in it.
      ValueError: A file that is broken, or written by a later version.
    """
    import xarray
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    folder = Path(path)
    if not is_result(folder):
        raise FileNotFoundError(
            f"folder {folder} holds no weightdecay result; give a folder that result.save(...) wrote."
        )
    file = _SETTINGS
    try:
        stored = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
        version = int(stored["version"])
        if version <= _VERSION:
            members = [grids.decode(member) for member in stored["members"]]
            settings, test = stored["settings"], stored["test"]
            file = _DATASET
            dataset = xarray.load_dataset(folder / _DATASET, engine="scipy")
            if dataset.sizes["member"] != len(members):
                raise ValueError(f"it has {dataset.sizes['member']} members, {_SETTINGS} has {len(members)}")
            file = _WEIGHTS
            weights = _unstack(load_file(folder / _WEIGHTS), len(members))
            return Contents(dataset, members, weights, settings, test)
    except (OSError, ValueError, TypeError, LookupError, AttributeError, SafetensorError) as error:
        raise ValueError(
            f"file {folder / file} is missing, damaged or altered ({error}); save the result again."
        ) from error
    raise ValueError(
        f"folder {folder} has format version {version}, this library reads up to {_VERSION}; upgrade weightdecay."
    )


def _stack(weights: Sequence[tuple[Any, Any]]) -> dict[str, np.ndarray]:
    arrays: dict[str, list[np.ndarray]] = {}
    for params, model_state in weights:
        for leaf_name, leaf in tree.named_leaves({"params": params, "model_state": model_state}):
            arrays.setdefault(leaf_name, []).append(np.asarray(leaf))
    return {leaf_name: np.stack(leaves) for leaf_name, leaves in arrays.items()}


def _unstack(arrays: dict[str, np.ndarray], num_members: int) -> list[tuple[Any, Any]]:
    def member(index: int) -> tuple[Any, Any]:
        nested: dict[str, Any] = {}
        for leaf_name, stacked in arrays.items():
            *outer, last = leaf_name.split("/")
            place = nested
            for key in outer:
                place = place.setdefault(key, {})
            place[last] = stacked[index]
        return nested["params"], nested.get("model_state", {})

    return [member(index) for index in range(num_members)]
