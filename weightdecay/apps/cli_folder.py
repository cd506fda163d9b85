"""The folder of a sweep: its options, the run as it is saved while it trains, and in the end the result.

A folder has the entries of a run directory (`weightdecay.storage.run_directory`; the result is in ``result``), the
options of the command (`weightdecay.apps.cli_config.FILE`), the report and the plots.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from weightdecay.apps import cli_config
from weightdecay.core.checks import ArgumentError
from weightdecay.storage import entrance, result_folder, run_directory


def resumes(folder: Path, options: str) -> bool:
    """Whether a folder has a run with the same options that is not finished.

    Args:
      folder: The folder.
      options: Content of the file of options.

    Returns:
      Whether a command with these options goes on with that run.
    """
    file = folder / cli_config.FILE
    if not file.is_file() or file.read_text(encoding="utf-8") != options:
        return False
    return not result_folder.is_result(folder / entrance.RESULT)


def check(folder: Path, *, overwrite: bool) -> None:
    """Validate the folder of a sweep: new, empty, of an earlier run that goes on or grows, or one to overwrite.

    Args:
      folder: The folder.
      overwrite: Whether an earlier result is replaced.

    Raises:
      OSError: It holds something else, or cannot be written.
      ArgumentError: Its name is not valid.
    """
    if not (folder / entrance.RUN).is_file():
        result_folder.check_folder(folder, overwrite=overwrite)


@contextlib.contextmanager
def recorded(folder: Path, options: str, *, replace: bool = False) -> Iterator[None]:
    """Write the options into a folder, and take them back if the block fails before the run has begun.

    Args:
      folder: The folder, which `check` has validated; it need not exist.
      options: Content of the file.
      replace: Whether an earlier run or result is removed, once another run has begun in its place.

    Raises:
      ArgumentError: A process trains in what would be replaced.
      OSError: The folder cannot be written.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    file, aside = folder / cli_config.FILE, None
    if replace and folder.exists():
        _require_nobody(folder)
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-replaced-", dir=folder.absolute().parent))
        folder.rename(aside / folder.name)
    try:
        earlier = file.read_text(encoding="utf-8") if file.is_file() else None
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(options, encoding="utf-8")
        try:
            yield
        except BaseException:
            if earlier is not None:
                file.write_text(earlier, encoding="utf-8")
            elif not (folder / entrance.RUN).exists():
                file.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # something else is in it
                    for path in missing or ([folder] if aside is not None else []):
                        path.rmdir()
            raise
    finally:
        if aside is not None:
            if not folder.exists():
                (aside / folder.name).rename(folder)
            shutil.rmtree(aside, ignore_errors=True)


def _require_nobody(folder: Path) -> None:
    if not (folder / entrance.RUN).is_file():
        return
    try:
        with run_directory.open_run(folder, save_every=30.0, alone=True):
            pass
    except RuntimeError as error:
        raise ArgumentError("output", str(error)) from error
