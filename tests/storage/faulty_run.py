"""A small run in a process of its own, for faults that end a process: ``python faulty_run.py DIRECTORY NUMBER``.

The process kills itself right before that file operation of the run, counted from 1 by the events that Python reports
to audit hooks.
"""

import os
import signal
import sys

COUNTED = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.truncate", "shutil.rmtree", "os.link"}


def fit(directory, **changed):
    """Train two lanes of two members, saved after every segment."""
    import weightdecay as wd
    from weightdecay.engine.plans import Plan

    grid = wd.Grid(decay=[wd.NoDecay(), wd.L2(0.01)], learning_rate=1e-2, seed=range(2))
    settings = {"num_steps": 4, "batch_size": 20, "eval_every": 2, "plan": Plan(2, 1), "save_every": 1e-9}
    return wd.fit_grid(
        wd.models.MLP((4,)),
        wd.data.digits(num_train=40),
        grid,
        **{**settings, **changed},
        directory=directory,
        progress=False,
    )


def kill_at(directory, number):
    """End the process right before one of the file operations below a directory, counted from 1."""
    operations = []

    def hook(event, arguments):
        is_write = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (is_write or event in COUNTED) and str(arguments[0]).startswith(directory):
            operations.append(event)
            if len(operations) == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


if __name__ == "__main__":
    directory, number = sys.argv[1:]
    kill_at(directory, int(number))
    fit(directory)
