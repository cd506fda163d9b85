"""Result folders: a saved result as a folder of ordinary files, which other programs can read.

- ``dataset.nc``: all metrics and coordinates, netCDF 3.
- ``weights.safetensors``: all weight arrays under their names (``params/Dense_0/kernel``), the members stacked along
  the first dimension; what the model carries in addition to its weights is under ``model_state/...``. If members have
  arrays of different names, shapes or dtypes, each such structure has a number, which precedes the names
  (``1/params/Dense_0/kernel``), and its members are stacked separately. Averaged weights of members that have them are
  under ``average/params/...`` and ``average/model_state/...``. `weightdecay.storage.weights` describes how the file
  holds keys that are not part of a name.
- ``settings.json``: an object with

  - ``format``: ``"weightdecay result"``, and ``version`` of this layout: 2, 3 if there are several structures, or 4 if
    members share arrays, were not trained, or have averaged weights;
  - ``versions``: versions of the packages that trained the members, by name;
  - ``settings``: settings of the run; ``test``: scores on the test examples, or null;
  - ``members``: hyperparameters of each member by name, in the order of the arrays;
  - ``structures``: from version 3 on, the number of each member's structure, from 0; in version 4, -1 for a member that
    was not trained, and it may be empty, if all have one structure;
  - ``shared``: only in version 4, the names of the arrays that all members of a structure share (frozen weights, which
    were given). Each is stored once: its first dimension is 1;
  - ``sha256``: SHA-256 in hexadecimal by file name. For ``dataset.nc`` and ``weights.safetensors`` it is that of the
    file's bytes; for ``settings.json`` that of this object without this entry, written as Python's
    ``json.dumps(..., sort_keys=True, separators=(",", ":"))`` writes it.

Version 1 has no ``sha256``. The weights of a single member can be written to a file of their own; see
`weightdecay.storage.weights`.

Reading executes no code from the files, verifies their checksums, and allocates no more memory than the sizes of the
files account for.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from weightdecay.core import files
from weightdecay.core.checks import ArgumentError
from weightdecay.search.member import decode, encode
from weightdecay.storage import netcdf, weights
from weightdecay.storage.weights import KeyPath, NamedArrays

_FORMAT = "weightdecay result"
_VERSION = 4
_DATASET, _WEIGHTS, _SETTINGS = "dataset.nc", "weights.safetensors", "settings.json"
_LARGEST_SETTINGS = 2**28  # bytes


class Contents(NamedTuple):
    """What a result folder holds.

    Attributes:
      dataset: All metrics, an ``xarray.Dataset`` with the dimension ``member``.
      members: Hyperparameters of each member by name.
      weights: ``(params, model_state)`` of each member.
      settings: Settings of the run.
      test: Scores on the test examples; None if they were not computed.
      versions: Versions of the packages that trained the members, by name.
      averages: The same as ``weights`` of the averaged weights, None for a member without them; None = no member has
        them.
    """

    dataset: Any
    members: list[dict[str, Any]]
    weights: Sequence[Any]
    settings: dict[str, Any]
    test: dict[str, Any] | None
    versions: dict[str, str]
    averages: Sequence[tuple[Any, Any] | None] | None = None


def check_folder(path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Validate a folder for a result before any work is done for it.

    Args:
      path: The folder. It need not exist, or may be empty.
      overwrite: Whether an existing result is replaced.

    Returns:
      The path.

    Raises:
      NotADirectoryError: It is a file.
      FileExistsError: It holds other files, or a result and ``overwrite`` is False.
      PermissionError: It cannot be written.
      ArgumentError: It is a mount point, or its name is not valid UTF-8.
    """
    folder = files.check_path(path, "folder")
    files.recover(folder)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"folder {folder} is a file; give a new or an empty folder.")
    if folder.is_mount():
        raise ArgumentError(
            "folder", f"folder {folder} is a mount point, which cannot be replaced; give a folder in it."
        )
    entries = sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []
    if entries and not is_result(folder):
        raise FileExistsError(
            f"folder {folder} holds other files ({', '.join(entries[:3])}{', ...' if len(entries) > 3 else ''}); "
            "nothing was changed. Give a new or an empty folder."
        )
    if entries and not overwrite:
        raise FileExistsError(
            f"folder {folder} holds an earlier result; nothing was changed. Give another folder, or "
            "overwrite it (overwrite=True; --overwrite on the command line)."
        )
    parent = next(ancestor for ancestor in folder.absolute().parents if ancestor.exists())
    if not parent.is_dir():
        raise NotADirectoryError(f"folder {folder} is below {parent}, which is a file; give another folder.")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=parent):
            pass
    except OSError as error:
        raise PermissionError(f"folder {folder} cannot be created ({error.strerror}); give another folder.") from error
    return folder


def is_result(path: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a result that this library wrote.

    Args:
      path: The folder.

    Returns:
      True if it holds one.
    """
    try:
        return _is_ours(_parse(Path(path) / _SETTINGS))
    except (OSError, ValueError):
        return False


def write(path: str | os.PathLike[str], contents: Contents, *, overwrite: bool = False) -> Path:
    """Write a result folder, completely or not at all.

    Args:
      path: The folder; see `check_folder`.
      contents: What to write.
      overwrite: Whether an existing result is replaced.

    Returns:
      The path.

    Raises:
      OSError: As `check_folder`, or the folder cannot be written.
      ValueError: As `check_folder`, or ``settings.json`` would be too large to be read.
    """
    folder = check_folder(path, overwrite=overwrite)
    with files.atomic(folder) as unfinished:
        unfinished.mkdir()
        contents.dataset.to_netcdf(unfinished / _DATASET, engine="scipy")
        arrays, structures, shared = _stack(contents)
        has_averages = any(_has_average(contents, index) for index in range(len(contents.members)))
        is_latest = bool(shared) or has_averages or -1 in structures
        weights.write_arrays(unfinished / _WEIGHTS, arrays)
        settings: dict[str, Any] = {
            "format": _FORMAT,
            "version": 4 if is_latest else 3 if structures else 2,
            "versions": contents.versions,
            "settings": contents.settings,
            "test": contents.test,
            "members": [encode(member) for member in contents.members],
            **({"structures": structures} if structures or is_latest else {}),
            **({"shared": shared} if shared else {}),
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
    return folder


def read(path: str | os.PathLike[str]) -> Contents:
    """Read a result folder.

    Args:
      path: The folder.

    Returns:
      What it holds. Weights are nested dictionaries and lists of NumPy arrays.

    Raises:
      FileNotFoundError: There is no such folder, or it holds no result.
      ValueError: A file is missing, damaged or altered, or was written by a later version.
    """
    folder = Path(path)
    files.recover(folder)
    if not (folder / _SETTINGS).is_file():
        raise _no_result(folder)
    file = _SETTINGS
    try:
        stored = _parse(folder / file)
        version = stored["version"] if _is_ours(stored) else None
        if version is not None and (type(version) is not int or version < 1):
            raise ValueError(f"its version is {version!r}")
    except Exception as error:  # parsers raise errors of many types for damaged files
        raise files.damaged(folder / file, error) from error
    if version is None:
        raise _no_result(folder)
    if version > _VERSION:
        raise ValueError(
            f"folder {folder} has format version {version}, this library reads up to {_VERSION}; upgrade weightdecay."
        )
    try:
        sums = _checked_sums(stored) if version > 1 or "sha256" in stored else None
        members = [decode(member) for member in stored["members"]]
        settings, test, trained_by = stored["settings"], stored["test"], stored["versions"]
        if not isinstance(trained_by, dict) or not all(isinstance(name, str) for name in trained_by.values()):
            raise ValueError("its versions are not an object of strings")
        if not isinstance(settings, dict) or not isinstance(test, dict | None):
            raise ValueError("its settings or its test are not objects")
        file = _DATASET
        _check_file(folder / file, sums)
        dataset = netcdf.read(folder / file)
        if dataset.sizes["member"] != len(members):
            raise ValueError(f"it has {dataset.sizes['member']} members, {_SETTINGS} has {len(members)}")
        file = _WEIGHTS
        _check_file(folder / file, sums)
        structures = (stored["structures"] if version > 2 else None) or [0] * len(members)
        members_weights = _StackedWeights(
            weights.read_arrays(folder / file),
            _checked_structures(structures, len(members), may_lack=version > 3),
            stored.get("shared", []) if version > 3 else [],
        )
    except Exception as error:
        raise files.damaged(folder / file, error) from error
    averages = _StackedAverages(members_weights) if version > 3 else None
    return Contents(dataset, members, members_weights, settings, test, trained_by, averages)


class _StackedWeights(Sequence[Any]):
    """``(params, model_state)`` of each member, taken from the stacked arrays on access."""

    def __init__(self, named: NamedArrays, structures: Sequence[int], shared: Sequence[str] = ()) -> None:
        if not isinstance(shared, Sequence) or not named.arrays.keys() >= set(shared):
            raise ValueError(f"its shared arrays are {shared!r}")
        sizes = np.bincount([structure for structure in structures if structure >= 0])
        by_structure: list[dict[KeyPath, np.ndarray]] = [{} for _ in sizes]
        self._shared: list[dict[KeyPath, np.ndarray]] = [{} for _ in sizes]
        for name, stacked in named.arrays.items():
            first, *path = named.path(name) if len(sizes) > 1 else ("0", *named.path(name))
            if first not in map(str, range(len(sizes))):
                raise ValueError(f"{name} is of a structure that {_SETTINGS} does not have")
            number = int(first)
            if stacked.shape[:1] != (1 if name in shared else sizes[number],):
                raise ValueError(f"{name} has shape {stacked.shape}, {_SETTINGS} has {sizes[number]} members")
            if name in shared:  # the same array for every member, so that none changes it for the others
                stacked.flags.writeable = False
                self._shared[number][tuple(path)] = stacked[0, ...]
            else:
                by_structure[number][tuple(path)] = stacked
        for arrays, of_all in zip(by_structure, self._shared, strict=True):
            named_arrays = weights.nested(arrays | of_all)
            average = named_arrays.pop("average", {"params": {}})
            if set(named_arrays) - {"model_state"} != {"params"} or set(average) - {"model_state"} != {"params"}:
                raise ValueError("its arrays are not all of params/..., model_state/... and average/...")
        rows = [0] * len(sizes)
        # Of each member: the stacked arrays, its row in them, and the shared arrays; None = it was not trained.
        self._arrays: list[tuple[dict[KeyPath, np.ndarray], int, dict[KeyPath, np.ndarray]] | None] = []
        for structure in structures:
            if structure < 0:
                self._arrays.append(None)
                continue
            self._arrays.append((by_structure[structure], rows[structure], self._shared[structure]))
            rows[structure] += 1

    def __len__(self) -> int:
        return len(self._arrays)

    def __getitem__(self, index: Any) -> Any:
        tree = self.tree(index)
        return tree["params"], tree.get("model_state", {})

    def tree(self, index: Any) -> dict[str, Any]:
        """Return all arrays of a member."""
        found = self._arrays[index]
        if found is None:
            raise weights.MissingWeights(f"member {index} has no weights: it was not trained.")
        arrays, row, shared = found
        return weights.nested({path: stacked[row, ...] for path, stacked in arrays.items()} | shared)


class _StackedAverages(Sequence[tuple[Any, Any] | None]):
    """Averages of the weights and of the model state of each member, None for a member without them."""

    def __init__(self, stacked: _StackedWeights) -> None:
        self._stacked = stacked

    def __len__(self) -> int:
        return len(self._stacked)

    def __getitem__(self, index: Any) -> Any:
        average = self._stacked.tree(index).get("average")
        return None if average is None else (average["params"], average.get("model_state", {}))


def versions() -> dict[str, str]:
    """Return the versions of the packages that the bits of a member depend on."""
    return {name: metadata.version(name) for name in ("weightdecay", "jax", "jaxlib", "optax", "flax", "numpy")}


def _no_result(folder: Path) -> FileNotFoundError:
    return FileNotFoundError(f"folder {folder} holds no weightdecay result; give a folder that result.save(...) wrote.")


def _is_ours(stored: Any) -> bool:
    return isinstance(stored, dict) and stored.get("format") == _FORMAT


def _parse(file: Path) -> Any:
    """Parse a JSON file; everything that is wrong with it is a ValueError."""

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
        raise ValueError("its content does not match its sha256")
    return stored["sha256"]


def _check_file(file: Path, sums: Mapping[str, str] | None) -> None:
    """Compare a file with its checksum; version 1 has no checksums."""
    if sums is not None and sums[file.name] != (actual := files.file_sum(file)):
        raise ValueError(f"its sha256 is {actual}, {_SETTINGS} has {sums[file.name]}")


def _has_average(contents: Contents, index: int) -> bool:
    return contents.averages is not None and contents.members[index].get("ema") is not None


def _stack(contents: Contents) -> tuple[NamedArrays, list[int], list[str]]:
    """Stack the arrays of the members by structure. What is one array in memory for all members is stored once.

    Returns:
      The stacked arrays; the number of each member's structure, no numbers if all members have one structure; and the
      names of the arrays that are stored once.
    """
    shared: list[str] = []

    def stacked_rows(name: str, rows: list[np.ndarray]) -> np.ndarray:
        if len(rows) == 1 or any(row is not rows[0] for row in rows):
            return np.stack(rows)
        shared.append(name)
        return rows[0][None]

    by_structure: dict[Any, dict[str, list[np.ndarray]]] = {}
    all_paths: dict[Any, dict[str, KeyPath]] = {}
    structures: list[Any] = []
    for index in range(len(contents.weights)):
        try:
            arrays_of_member: dict[str, Any] = dict(
                zip(("params", "model_state"), contents.weights[index], strict=True)
            )
        except weights.MissingWeights:
            structures.append(None)
            continue
        if contents.averages is not None and _has_average(contents, index):
            averages: Any = contents.averages[index]
            arrays_of_member["average"] = dict(zip(("params", "model_state"), averages, strict=True))
        named = weights.by_name(arrays_of_member)
        structure = frozenset(
            (name, named.path(name), array.shape, array.dtype.str) for name, array in named.arrays.items()
        )
        arrays = by_structure.setdefault(structure, {name: [] for name in named.arrays})
        all_paths[structure] = named.paths
        for name, array in named.arrays.items():
            arrays[name].append(array)
        structures.append(structure)
    if len(by_structure) == 1:
        ((structure, arrays),) = by_structure.items()
        together = {name: stacked_rows(name, rows) for name, rows in arrays.items()}
        numbers_of_members = [-1 if one is None else 0 for one in structures] if None in structures else []
        return NamedArrays(together, all_paths[structure]), numbers_of_members, shared
    numbers: dict[Any, int] = {structure: number for number, structure in enumerate(by_structure)}
    stacked = {
        f"{numbers[structure]}/{name}": stacked_rows(f"{numbers[structure]}/{name}", rows)
        for structure, arrays in by_structure.items()
        for name, rows in arrays.items()
    }
    paths = {
        f"{numbers[structure]}/{name}": (str(numbers[structure]), *path)
        for structure, by_name in all_paths.items()
        for name, path in by_name.items()
    }
    return NamedArrays(stacked, paths), [numbers.get(structure, -1) for structure in structures], shared


def _checked_structures(structures: Any, num_members: int, *, may_lack: bool) -> list[int]:
    is_list = isinstance(structures, list) and all(type(number) is int for number in structures)
    if not is_list or len(structures) != num_members:
        raise ValueError(f"{_SETTINGS} does not have the structure of each of {num_members} members")
    numbers = set(structures) - ({-1} if may_lack else set())
    if sorted(numbers) != list(range(len(numbers))):
        raise ValueError(f"{_SETTINGS} has structures that are not numbered 0, 1, 2, ...")
    return structures
