"""What happens in a run directory: who trains what, what is done, what is left. Only reads."""

import contextlib
import time
from pathlib import Path
from typing import Any, NamedTuple

from weightdecay.storage import checkpoints, entrance, leases, processes, result_folder, run_directory
from weightdecay.storage.processes import Identity


class ProcessStatus(NamedTuple):
    """A process that trains, or trained, in the directory.

    Attributes:
      host: Name of its host.
      pid: Process id.
      since: When it entered, by the clock of its host.
      lanes: Numbers of the lanes that it holds and that are not done.
      member_steps: Member-steps that it has trained.
      per_second: Member-steps a second; 0 = not known yet.
      state: ``"alive"``, ``"dead"``, or ``"silent"`` for one of another host that has not been heard for long.
    """

    host: str
    pid: int
    since: str
    lanes: list[int]
    member_steps: int
    per_second: float
    state: str


class RunStatus(NamedTuple):
    """A run directory at one moment.

    Attributes:
      members: Number of members of the calls that are not finished; of a finished run, of all members.
      members_done: Members that are saved at their last step.
      member_steps: Steps of all members together.
      member_steps_done: Steps that are saved, or trained by a living process.
      lanes_free: Lanes that are not done and that no living process holds.
      processes: Who trains there.
      is_finished: Whether the result is written, and nobody trains.
      seconds_left: Estimate from the rates of the living processes; None = nobody trains, or no rate is known.
    """

    members: int
    members_done: int
    member_steps: int
    member_steps_done: int
    lanes_free: int
    processes: list[ProcessStatus]
    is_finished: bool
    seconds_left: float | None


def read(path: str | Path) -> RunStatus:
    """Read what happens in a run directory.

    Args:
      path: The directory.

    Returns:
      Its status.

    Raises:
      FileNotFoundError: It is not the directory of a run.
      ValueError: ``run.json`` is damaged, or of a later version.
    """
    directory = Path(path)
    description = run_directory.read_description(directory)
    if not description:
        raise FileNotFoundError(
            f"directory {directory} holds no run; give the directory of a call of wd.fit_grid or wd.map_grid, or of "
            "weightdecay sweep."
        )
    saved = _saved_steps(directory)
    contents = processes.read(directory)
    states = {name: _state(directory, name) for name in contents}
    reached: dict[str, dict[int, int]] = {}
    for name, content in contents.items():
        if states[name] == "alive":
            of_call = reached.setdefault(str(content.get("call")), {})
            for unit, steps in content.get("units", {}).items():
                of_call[int(unit)] = max(of_call.get(int(unit), 0), steps)
    held: dict[str, list[int]] = {}
    total = done = members = members_done = free = 0
    for call in leases.read_units(directory):
        last, keys = call["num_steps"], call["keys"]
        members += sum(map(len, keys))
        total += last * sum(map(len, keys))
        done += sum(min(saved.get(key, 0), last) for group in keys for key in group)
        members_done += sum(saved.get(key, 0) >= last for group in keys for key in group)
        steps = [sum(min(saved.get(keys[group][one], 0), last) for one in unit) for group, unit in call["units"]]
        left = [number for number, (_, unit) in enumerate(call["units"]) if steps[number] < last * len(unit)]
        holders = leases.holders(directory, call["call"], left)
        free += sum(states.get(holders.get(number, "")) != "alive" for number in left)
        for number in left:
            held.setdefault(holders.get(number, ""), []).append(number)
        done += sum(max(0, now - steps[number]) for number, now in reached.get(call["call"], {}).items())
    if not members:  # no call is open: all that is saved was finished
        last = description["num_steps"]
        members, members_done = len(saved), sum(step >= last for step in saved.values())
        total, done = last * members, sum(min(step, last) for step in saved.values())
    trains = [
        ProcessStatus(
            host=str(content.get("host")),
            pid=int(content.get("process", 0)),
            since=str(content.get("since")),
            lanes=held.get(name, []),
            member_steps=int(content.get("done", 0)),
            per_second=content.get("done", 0) / content["seconds"] if content.get("seconds") else 0.0,
            state=states[name],
        )
        for name, content in contents.items()
    ]
    rate = sum(process.per_second for process in trains if process.state == "alive")
    has_result = result_folder.is_result(directory / entrance.RESULT) or (
        description["depends_on"].get("kind") == "map_grid" and members_done == members
    )
    is_finished = has_result and members_done == members and not any(state == "alive" for state in states.values())
    return RunStatus(
        members, members_done, total, done, free, trains, is_finished, (total - done) / rate if rate > 0 else None
    )


def _saved_steps(directory: Path) -> dict[str, int]:
    """Steps at which members are saved, by key; a checkpoint that vanishes meanwhile is left out."""
    steps: dict[str, int] = {}
    folder = directory / entrance.CHECKPOINTS
    for number in checkpoints.numbers(folder) if folder.is_dir() else ():
        with contextlib.suppress(OSError, ValueError, LookupError):
            for block in checkpoints.read_contents(folder / f"{number:08d}", verify=False)["blocks"]:
                for key in block["keys"]:
                    steps[key] = max(steps.get(key, 0), block["step"])
    return steps


def _state(directory: Path, name: str) -> str:
    """Whether a process lives: by its process id on this host, else by the age of its file, for display only."""
    identity: Any = Identity.of(name)
    if identity is None or identity.is_gone():
        return "dead"
    try:
        age = time.time() - (directory / "processes" / f"{name}.json").stat().st_mtime
    except OSError:
        return "dead"
    return "silent" if age > processes.EXPIRY else "alive"
