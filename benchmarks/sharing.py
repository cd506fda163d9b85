"""How many lanes a second can processes lease in one run directory, and what does a lane cost the file system?

Lanes are empty, so that the figures are the overhead alone: each of 1, 8 and 64 processes enters a directory and takes
units of work until none is left. Entering is not counted. Then one process shares a directory in the library's own way,
and its file operations are counted per lane by Python's audit hooks. Prints one line of JSON per measurement.

    python benchmarks/sharing.py [FOLDER]

FOLDER is where the directories are made; give one on the file system in question.
"""

import json
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from weightdecay.storage.leases import Leases
from weightdecay.storage.processes import Processes

_UNITS = 2000
_REPEATS = 3


def content(num_units: int, width: int = 8) -> dict[str, Any]:
    """Return what ``units.json`` holds for lanes of some members."""
    members = [list(range(first, first + width)) for first in range(0, num_units * width, width)]
    keys = [f"{number:032x}" for number in range(num_units * width)]
    return {"units": [[0, unit] for unit in members], "keys": [keys], "num_steps": 1}


def take_all(directory: Path, gate: Any, taken: Any) -> None:
    """Take units until none is left, as a process does in its first round."""
    present = Processes(directory)
    present.enter()
    leases = Leases(directory, "call", present, content(_UNITS))
    gate.wait()
    number = sum(leases.take(unit) for unit in range(_UNITS) if leases.is_free(unit))
    gate.wait()
    taken.put(number)
    present.leave()


def rate(folder: str, num_processes: int) -> float:
    """Return the leases a second of some processes together."""
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory(dir=folder) as name:
        gate, taken = context.Barrier(num_processes + 1), context.SimpleQueue()
        children = [context.Process(target=take_all, args=(Path(name), gate, taken)) for _ in range(num_processes)]
        for child in children:
            child.start()
        gate.wait()
        started = time.perf_counter()
        gate.wait()
        seconds = time.perf_counter() - started
        together = sum(taken.get() for _ in children)
        for child in children:
            child.join()
    assert together == _UNITS
    return _UNITS / seconds


def operations(folder: str) -> dict[str, float]:
    """Return files, bytes and operations a lane of a process that takes all units alone."""
    counted: list[str] = []
    with tempfile.TemporaryDirectory(dir=folder) as name:
        directory = Path(name)

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if arguments and isinstance(arguments[0], str | os.PathLike) and str(arguments[0]).startswith(name):
                counted.append(event)

        sys.addaudithook(hook)
        present = Processes(directory)
        present.enter()
        leases = Leases(directory, "call", present, content(_UNITS))
        counted.clear()
        for unit in range(_UNITS):
            if leases.is_free(unit):
                leases.take(unit)
        made, during = [path for path in (directory / "leases" / "call").iterdir()], len(counted)
        present.leave()
        sizes = {path.name: path.stat().st_size for path in made}
    return {
        "file_operations_a_lane": during / _UNITS,
        "files_a_lane": (len(made) - 1) / _UNITS,
        "bytes_a_lane": (sum(sizes.values()) - sizes["units.json"]) / _UNITS,
        "bytes_of_units_json_a_lane": sizes["units.json"] / _UNITS,
    }


def main() -> None:
    """Run the benchmark."""
    folder = sys.argv[1] if len(sys.argv) > 1 else tempfile.gettempdir()
    for num_processes in (1, 8, 64):
        rates = [rate(folder, num_processes) for _ in range(_REPEATS)]
        print(
            json.dumps({"processes": num_processes, "leases_a_second": [round(value) for value in rates]}), flush=True
        )
    print(json.dumps({"cores": os.cpu_count(), "units": _UNITS, **operations(folder)}))


if __name__ == "__main__":
    main()
