"""What lies on disk: a result as a folder of ordinary files, which other programs can read.

- ``dataset.nc``: every metric and coordinate, netCDF 3.
- ``weights.safetensors``: every weight array, all members stacked along the first dimension, under its name
  (``params/Dense_0/kernel``; what the model carries beside its weights under ``model_state/...``). Where members have
  arrays of other names, shapes or dtypes, each such structure has its number before the names
  (``1/params/Dense_0/kernel``), and its members are stacked apart.
- ``settings.json``: an object with

  - ``format``: ``"weightdecay result"``, and ``version``: 2, of this layout; 3 where there are several structures;
  - ``versions``: of the packages that trained its members, by name;
  - ``settings``: of the run; ``test``: scores on the test examples, or null;
  - ``members``: hyperparameters of each member by name, in the order of the arrays;
  - ``structures``: in version 3 alone, the number of each member's structure, from 0;
  - ``sha256``: in hexadecimal by file name. ``dataset.nc`` and ``weights.safetensors``: of the file's bytes.
    ``settings.json``: of this object without that entry, written as Python's ``json.dumps(..., sort_keys=True,
    separators=(",", ":"))`` writes it.

Version 1 is the same without ``sha256``. The weights of one member alone are a file of their own:
`weightdecay.storage.weights`.

Reading runs no code from the files, holds them against their sums, and takes no more memory than their sizes account
for.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from weightdecay.core import files
from weightdecay.search import member as member_json
from weightdecay.storage import netcdf
from weightdecay.storage import weights as weight_files

_FORMAT = "weightdecay result"
_VERSION = 3
_DATASET, _WEIGHTS, _SETTINGS = "dataset.nc", "weights.safetensors", "settings.json"
_LARGEST_SETTINGS = 2**28  # bytes


class Contents(NamedTuple):
    """What a result folder holds."""

    dataset: Any
    members: list[dict[str, Any]]
    weights: Sequence[tuple[Any, Any]]  # (params, model_state) of each member
    settings: dict[str, Any]
    test: dict[str, Any] | None
    versions: dict[str, str]  # of the packages that trained the members, by name


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
        return _is_ours(_parse(Path(path) / _SETTINGS))
    except (OSError, ValueError):
        return False


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
      ValueError: Two weights of one name, or more members than ``settings.json`` may hold.
    """
    from safetensors.numpy import save_file

    folder = check_folder(path, overwrite=overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        contents.dataset.to_netcdf(unfinished / _DATASET, engine="scipy")
        arrays, structures = _stack(contents.weights)
        save_file(arrays, unfinished / _WEIGHTS)
        settings: dict[str, Any] = {
            "format": _FORMAT,
            "version": 3 if structures else 2,
            "versions": contents.versions,
            "settings": contents.settings,
            "test": contents.test,
            "members": [member_json.encode(member) for member in contents.members],
            **({"structures": structures} if structures else {}),
            "sha256": {file: files.file_sum(unfinished / file) for file in (_DATASET, _WEIGHTS)},
        }
        settings["sha256"][_SETTINGS] = _settings_sum(settings)
        text = json.dumps(settings, indent=1, allow_nan=False) + "\n"
        if len(text) > _LARGEST_SETTINGS:
            raise ValueError(
                f"the hyperparameters of {len(contents.members)} members take {len(text)} bytes, {_SETTINGS} may have "
                f"{_LARGEST_SETTINGS}; save the grid in parts."
            )
        (unfinished / _SETTINGS).write_text(text, encoding="utf-8")
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
      ValueError: A file that is missing, damaged or altered, or written by a later version.
    """
    folder = Path(path)
    if not (folder / _SETTINGS).is_file():
        raise _no_result(folder)
    file = _SETTINGS
    try:
        stored = _parse(folder / file)
        version = stored["version"] if _is_ours(stored) else None
        if version is not None and (type(version) is not int or version < 1):
            raise ValueError(f"its version is {version!r}")
    except Exception as error:  # what parsers make of broken bytes is of many types
        raise files.damaged(folder / file, error) from error
    if version is None:
        raise _no_result(folder)
    if version > _VERSION:
        raise ValueError(
            f"folder {folder} has format version {version}, this library reads up to {_VERSION}; upgrade weightdecay."
        )
    try:
        sums = _checked_sums(stored) if version > 1 or "sha256" in stored else None
        members = [member_json.decode(member) for member in stored["members"]]
        settings, test, trained_by = stored["settings"], stored["test"], stored["versions"]
        if not isinstance(trained_by, dict) or not all(isinstance(one, str) for one in trained_by.values()):
            raise ValueError("its versions are no object of words")
        if not isinstance(settings, dict) or not isinstance(test, dict | None):
            raise ValueError("its settings or its test are no objects")
        file = _DATASET
        _check_file(folder / file, sums)
        dataset = netcdf.read(folder / file)
        if dataset.sizes["member"] != len(members):
            raise ValueError(f"it has {dataset.sizes['member']} members, {_SETTINGS} has {len(members)}")
        file = _WEIGHTS
        _check_file(folder / file, sums)
        structures = stored["structures"] if version > 2 else [0] * len(members)
        weights = _Weights(weight_files.read_arrays(folder / file), _checked_structures(structures, len(members)))
    except Exception as error:
        raise files.damaged(folder / file, error) from error
    return Contents(dataset, members, weights, settings, test, trained_by)


class _Weights(Sequence[tuple[Any, Any]]):
    """``(params, model_state)`` of each member, taken from the stacked arrays when asked for."""

    def __init__(self, arrays: Mapping[str, np.ndarray], structures: Sequence[int]) -> None:
        sizes = np.bincount(structures)
        apart: list[dict[str, np.ndarray]] = [{} for _ in sizes]
        for name, stacked in arrays.items():
            number, own = name.split("/", 1) if len(sizes) > 1 else ("0", name)
            if number not in map(str, range(len(sizes))):
                raise ValueError(f"{name} is of no structure that {_SETTINGS} has")
            if stacked.shape[:1] != (sizes[int(number)],):
                raise ValueError(f"{name} has shape {stacked.shape}, {_SETTINGS} has {sizes[int(number)]} members")
            apart[int(number)][own] = stacked
        for own in apart:
            if set(weight_files.nested_by_name(own)) - {"model_state"} != {"params"}:
                raise ValueError("its arrays are not all of params/... and model_state/...")
        places = [0] * len(sizes)
        self._arrays: list[tuple[dict[str, np.ndarray], int]] = []  # of each member, with its place in them
        for structure in structures:
            self._arrays.append((apart[structure], places[structure]))
            places[structure] += 1

    def __len__(self) -> int:
        return len(self._arrays)

    def __getitem__(self, index: Any) -> Any:
        arrays, place = self._arrays[index]
        nested = weight_files.nested_by_name({name: stacked[place, ...] for name, stacked in arrays.items()})
        return nested["params"], nested.get("model_state", {})


def versions() -> dict[str, str]:
    """Return the versions of the libraries that a member's bits depend on."""
    return {name: metadata.version(name) for name in ("weightdecay", "jax", "jaxlib", "optax", "flax", "numpy")}


def _no_result(folder: Path) -> FileNotFoundError:
    return FileNotFoundError(f"folder {folder} holds no weightdecay result; give a folder that result.save(...) wrote.")


def _is_ours(stored: Any) -> bool:
    return isinstance(stored, dict) and stored.get("format") == _FORMAT


def _parse(file: Path) -> Any:
    """JSON in a file; a ValueError for whatever is wrong with it."""

    def refuse(constant: str) -> None:
        raise ValueError(f"it holds {constant}")

    with files.opened_file(file) as opened:
        if os.fstat(opened.fileno()).st_size > _LARGEST_SETTINGS:
            raise ValueError(f"it has more than {_LARGEST_SETTINGS} bytes")
        content = opened.read()
    try:
        return json.loads(content.decode("utf-8"), parse_constant=refuse)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _settings_sum(stored: dict[str, Any]) -> str:
    sums = {file: value for file, value in stored["sha256"].items() if file != _SETTINGS}
    return hashlib.sha256(files.canonical(stored | {"sha256": sums})).hexdigest()


def _checked_sums(stored: dict[str, Any]) -> dict[str, str]:
    if stored["sha256"][_SETTINGS] != _settings_sum(stored):
        raise ValueError("its content does not fit its sha256")
    return stored["sha256"]


def _check_file(file: Path, sums: Mapping[str, str] | None) -> None:
    """Hold a file against its sum; version 1 has none."""
    if sums is not None and sums[file.name] != (found := files.file_sum(file)):
        raise ValueError(f"its sha256 is {found}, {_SETTINGS} says {sums[file.name]}")


def _stack(weights: Sequence[tuple[Any, Any]]) -> tuple[dict[str, np.ndarray], list[int]]:
    """Arrays by name, members stacked; and the number of each member's structure, empty where all have one."""
    apart: dict[Any, dict[str, list[np.ndarray]]] = {}
    of_members = []
    for params, model_state in weights:
        arrays = weight_files.by_name({"params": params, "model_state": model_state})
        structure = frozenset((name, array.shape, array.dtype.str) for name, array in arrays.items())
        own = apart.setdefault(structure, {name: [] for name in arrays})
        for name, array in arrays.items():
            own[name].append(array)
        of_members.append(structure)
    numbers = {structure: number for number, structure in enumerate(apart)}
    stacked = {
        f"{numbers[structure]}/{name}" if len(apart) > 1 else name: np.stack(members)
        for structure, own in apart.items()
        for name, members in own.items()
    }
    return stacked, [numbers[structure] for structure in of_members] if len(apart) > 1 else []


def _checked_structures(structures: Any, num_members: int) -> list[int]:
    is_list = isinstance(structures, list) and all(type(one) is int for one in structures)
    if not is_list or len(structures) != num_members:
        raise ValueError(f"{_SETTINGS} does not have the structure of each of {num_members} members")
    if sorted(set(structures)) != list(range(len(set(structures)))):
        raise ValueError(f"{_SETTINGS} has structures that are not numbered 0, 1, 2, ...")
    return structures
