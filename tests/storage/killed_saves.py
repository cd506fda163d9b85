"""Kill the saves of a run right before each of their file operations, and resume each: run by `test_faults`.

``python killed_saves.py RESULT FOLDER``: nothing is trained, so that hundreds of kills take a minute. What is saved are
two lanes of two members at two steps, in a new directory below ``FOLDER`` for each kill, and the result in the folder
``RESULT`` as the result of the run. Every run is a forked process. Prints the number of kills.
"""

import os
import signal
import sys
import traceback
import warnings
from pathlib import Path

import numpy as np
import orbax.checkpoint  # noqa: F401  (imported once, before the forks)
from faulty_run import kill_at

import weightdecay as wd
from weightdecay.storage import run_directory
from weightdecay.storage.checkpoints import Snapshot

LANES, LAST = (["a", "b"], ["c", "d"]), 4


def snapshot(keys, step):
    values = np.array([ord(key) + step / 10 for key in keys], np.float32)
    metrics = {"loss": np.repeat(values[:, None], step // 2, axis=1)}
    return Snapshot(
        keys, step, [values, np.outer(values, np.ones(3))], metrics, list(range(2, step + 1, 2)), step == LAST
    )


def save_run(directory, result):
    """Save as `fit_grid` does, from the steps on that are saved already, which must be as they were."""
    with run_directory.open_run(directory, save_every=1e-9) as run:
        run.record_dependencies({"kind": "fit_grid", "eval_every": 2, "data": {}}, LAST)
        for keys in LANES:
            (start,) = {run.saved_steps(key, LAST) for key in keys}
            if start:
                saved, expected = run.read(keys), snapshot(keys, start)
                assert saved.keys == keys
                assert all(map(np.array_equal, saved.leaves, expected.leaves))
                assert np.array_equal(saved.metrics["loss"], expected.metrics["loss"])
            for step in range(start + 2, LAST + 1, 2):
                run.save(snapshot(keys, step))
                run._writing.result()
        run.write_result(lambda path: result.save(path, overwrite=True))


def check_resumes(directory, result):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*was killed or crashed")
        save_run(directory, result)
    assert wd.load(directory).dataset.identical(result.dataset)
    assert {entry.name for entry in directory.iterdir()} == {"run.json", "checkpoints", "result"}
    assert all(entry.name.isdecimal() for entry in (directory / "checkpoints").iterdir())


def forked(function, *arguments):
    """Call a function in a forked process, and return the status of the process."""
    process = os.fork()
    if process == 0:
        try:
            function(*arguments)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(process, 0)[1]


def main(result, folder):
    result, number = wd.load(result), 0

    def save_until_killed(directory):
        kill_at(str(directory), number)
        save_run(directory, result)

    while True:
        number += 1
        directory = folder / f"{number}"
        if forked(save_until_killed, directory) != signal.SIGKILL:
            print(number - 1)
            return
        if forked(check_resumes, directory, result):
            sys.exit(f"killed before file operation {number}: the run does not go on")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
