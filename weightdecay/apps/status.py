"""The text of ``weightdecay status``: who trains what in a run directory, what is done, and what is left."""

from pathlib import Path

from weightdecay.core import text
from weightdecay.storage.run_status import ProcessStatus, RunStatus

_LANES = 14  # columns of the lanes of a process


def described(path: Path, status: RunStatus) -> str:
    """Return the status of a run directory as text.

    Args:
      path: The directory.
      status: What `weightdecay.storage.run_status.read` returned.

    Returns:
      Lines of at most 80 columns; the path has one of its own.
    """
    lines = [f"{path}", _progress(status)]
    if status.is_finished:
        return "\n".join([*lines, "The run is finished."])
    living = [process for process in status.processes if process.state == "alive"]
    if not living:
        lines.append("Nobody trains; the same call, or the same command, goes on with what is left.")
    elif status.seconds_left is not None:
        lines.append(f"{len(living)} process(es) train; about {text.duration(status.seconds_left)} left.")
    else:
        lines.append(f"{len(living)} process(es) train; the time left is not known yet.")
    if living:
        lines.append(f"{status.lanes_free} lanes wait for a process.")
    if status.processes:
        rows = [("host", "process", "since", "lanes", "member-steps", "state"), *map(_row, status.processes)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        rows = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
        lines += ["", *("  ".join(row).rstrip() for row in rows)]
    return "\n".join(lines)


def _progress(status: RunStatus) -> str:
    percent = 100 * status.member_steps_done / status.member_steps if status.member_steps else 0.0
    return f"{status.members_done} of {status.members} members are done; {percent:.0f} % of all member-steps."


def _row(process: ProcessStatus) -> tuple[str, ...]:
    host = process.host if len(process.host) <= 20 else f"{process.host[:17]}..."
    lanes = ", ".join(map(str, process.lanes)) or "-"
    if len(lanes) > _LANES:
        lanes = f"{len(process.lanes)} lanes"
    return host, str(process.pid), process.since[4:16], lanes, str(process.member_steps), process.state
