"""The command ``weightdecay report``: the page of a result, or of a run that is not finished, as often as asked for."""

import time
from pathlib import Path

from weightdecay.apps import cli_arguments, cli_output
from weightdecay.core.checks import ArgumentError
from weightdecay.results import unfinished
from weightdecay.results.grid_result import GridResult


def write(folder: Path, output: Path | None, *, metric: str, every: float | None) -> None:
    """Write the page, and say where it is.

    Args:
      folder: Folder of a result, or directory of a run.
      output: File to write; None = ``report.html`` in the folder.
      metric: Metric of the choice.
      every: Seconds after which the page is written again while the run is not finished; None = it is written once.

    Raises:
      ArgumentError: The time is not above 0, or the metric is unknown.
      FileNotFoundError: There is no result, and nothing of a run is saved yet.
    """
    if every is not None and not every > 0:
        raise ArgumentError("every", f"every is {every:g}; give a number of seconds above 0.")
    file = folder / "report.html" if output is None else output
    is_first = True
    while True:
        result = _loaded(folder, wait=None if is_first or every is None else every)
        progress = result.settings.get("unfinished")
        seconds = None if every is None or progress is None else max(1, round(every))
        with cli_arguments.concerning("output"):
            result.report(file, metric=metric, refresh=seconds)
        if is_first:
            cli_output.echo(f"Read {file} in a browser.")
            is_first = False
        if every is None or progress is None:
            return
        cli_output.echo(f"{progress['done']} of {progress['members']} members are done.")
        time.sleep(every)


def _loaded(folder: Path, *, wait: float | None) -> GridResult:
    """Load what there is; a run that was shown before may be writing its result just now."""
    try:
        return unfinished.load(folder)
    except FileNotFoundError:
        if wait is None:
            raise
        time.sleep(wait)
        return unfinished.load(folder)
