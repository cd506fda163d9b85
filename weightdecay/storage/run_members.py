"""Which member has which name in a run directory, while the run is not finished: ``members.json``.

Checkpoints hold members by name, a hash. This file holds the hyperparameters of each name, so that a report can be
written of a run that is not finished. It is removed when the result is written. Only reports depend on it.
"""

from pathlib import Path
from typing import Any, NamedTuple

from weightdecay.core import files
from weightdecay.search import member as member_json
from weightdecay.storage import checkpoints, entrance, run_directory
from weightdecay.storage.checkpoints import Snapshot

_LOOKS = 4  # attempts at reading checkpoints, which those who train there replace


class Unfinished(NamedTuple):
    """A run that is not finished, as it is saved.

    Attributes:
      members: Hyperparameters of all members by name, in the order of the grid.
      saved: For each member its snapshot of one row, as it was saved last; None = it is not saved.
      description: Content of ``run.json``.
    """

    members: list[dict[str, Any]]
    saved: list[Snapshot | None]
    description: dict[str, Any]


def is_recorded(directory: Path) -> bool:
    """Whether a folder is the directory of a run whose members are recorded and whose result is not written."""
    return bool(run_directory.read_description(directory)) and (directory / entrance.MEMBERS).exists()


def read(path: str | Path) -> Unfinished | None:
    """Read a run that is not finished; others may train there meanwhile.

    Args:
      path: A folder, which may be a run directory.

    Returns:
      What is saved; None if the folder is not one of an unfinished run, or is one of an earlier version.

    Raises:
      ValueError: A file is damaged, or of a later version.
      OSError: Checkpoints vanish faster than they can be read.
    """
    directory = Path(path)
    if not is_recorded(directory):
        return None
    description = run_directory.read_description(directory)
    file = directory / entrance.MEMBERS
    try:
        content = files.read_json(file)
        if content["format"] != entrance.MEMBERS_FORMAT:
            raise ValueError(f"its format is {content['format']!r}")
        encoded = dict(content["members"])
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"file {file} is damaged or of another version ({error}); resume the run by the same call, which writes it."
        ) from error
    members = [member_json.decode(one) for one in encoded.values()]
    for look in range(_LOOKS):
        try:
            return Unfinished(members, _saved(directory / entrance.CHECKPOINTS, list(encoded)), description)
        except (OSError, LookupError, ValueError) as error:
            if look == _LOOKS - 1:
                raise OSError(f"directory {directory} cannot be read ({error}); try again.") from error
            checkpoints.read.cache_clear()
    raise AssertionError("unreachable")


def _saved(folder: Path, keys: list[str]) -> list[Snapshot | None]:
    """Return the latest snapshot of each member."""
    latest: dict[str, tuple[int, int, int, int]] = {}  # step, checkpoint, block, row
    wanted = set(keys)
    for number in sorted(checkpoints.numbers(folder)) if folder.is_dir() else ():
        blocks = checkpoints.read_contents(folder / f"{number:08d}", verify=False)["blocks"]
        for index, block in enumerate(blocks):
            for row, key in enumerate(block["keys"]):
                if key in wanted:
                    latest[key] = max(latest.get(key, (-1, 0, 0, 0)), (block["step"], number, index, row))
    snapshots: dict[str, Snapshot] = {}
    for number in sorted({place[1] for place in latest.values()}):
        blocks = checkpoints.read(folder / f"{number:08d}")
        for key, (_, checkpoint, index, row) in latest.items():
            if checkpoint == number:
                snapshots[key] = blocks[index].member(row)
    return [snapshots.get(key) for key in keys]
