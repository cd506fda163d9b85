"""The directory of a run: whatever happens to the process, the disk or the files, the result has the same bits.

Every comparison is with the same grid trained in one go without a directory.
"""

import multiprocessing
import os
import random
import signal
import time

import pytest

import weightdecay as wd
from tests.compare import same_bits
from weightdecay import checkpoints, lanes
from weightdecay.planning import Plan

DATA = wd.data.digits(num_train=100)
MODEL = wd.models.MLP((8,))
GRID = {"decay": [wd.NoDecay(), wd.L2(0.01), wd.ProximalL1(0.001)], "learning_rate": [1e-2, 1e30], "seed": range(3)}
SETTINGS = {"num_steps": 40, "batch_size": 20, "eval_every": 10, "progress": False}
FOUR_WIDE = Plan(4, 2)
OFTEN = 1e-9  # seconds between saves: after every stretch


def fit(directory=None, grid=None, **changed):
    settings = {"model": MODEL, "data": DATA, "plan": FOUR_WIDE, "save_every": OFTEN, **SETTINGS, **changed}
    return wd.fit_grid(grid=wd.Grid(**(grid or GRID)), directory=directory, **settings)


def same_result(actual, expected):
    assert actual.dataset.identical(expected.dataset)
    for member in range(len(expected)):
        same_bits(actual.params(member), expected.params(member))


@pytest.fixture(scope="module")
def whole():
    return fit()


@pytest.fixture
def trained(monkeypatch):
    """Steps of the members that are trained, told as ``{(start, steps, members)}`` a stretch."""
    told = []
    train = lanes.Lane.train

    def counted(self, programs, job, *rest):
        told.append((job.start, len(job.members)))
        return train(self, programs, job, *rest)

    monkeypatch.setattr(lanes.Lane, "train", counted)
    return told


class Cut(RuntimeError):
    pass


@pytest.fixture
def cut(monkeypatch):
    """Cut the run off after some saves, with nothing more written: as if the process were gone."""

    def after(num_saves):
        write, saves = checkpoints._write_checkpoint, []

        def limited(folder, blocks):
            if len(saves) >= num_saves:
                raise Cut("gone")
            saves.append(folder)
            return write(folder, blocks)

        monkeypatch.setattr(checkpoints, "_write_checkpoint", limited)

    yield after
    monkeypatch.undo()


def cut_off(directory, cut, num_saves, monkeypatch, **changed):
    cut(num_saves)
    with pytest.raises(Cut):
        fit(directory, **changed)
    monkeypatch.undo()


def test_a_run_in_a_directory_has_the_bits_of_one_without(tmp_path, whole, trained):
    same_result(fit(tmp_path / "run"), whole)
    assert trained
    trained.clear()
    same_result(fit(tmp_path / "run"), whole)
    assert not trained  # all was found
    loaded = wd.load(tmp_path / "run")
    assert loaded.dataset.identical(whole.dataset)
    same_bits(loaded.params(3), whole.params(3))


TWO_LANES = {"decay": [wd.NoDecay(), wd.L2(0.01)], "learning_rate": [1e-3, 1e-2], "seed": range(2)}


def child(directory):
    """Train in a process of its own, until it is killed or done."""
    fit(
        directory, TWO_LANES, num_steps=100_000, eval_every=200, patience=100, save_every=0.02, plan=Plan(4, 2),
        data=wd.data.digits(num_train=100),
    )  # fmt: skip


def last_checkpoint(directory):
    return max((int(path.name) for path in (directory / "checkpoints").glob("0*")), default=0)


def test_a_run_killed_twenty_times_has_the_bits_of_one_that_was_not(tmp_path, monkeypatch):
    monkeypatch.setenv("WEIGHTDECAY_COMPILATION_CACHE", str(tmp_path / "programs"))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.test_checkpoints"])
    chance, directory = random.Random(0), tmp_path / "run"
    for number in range(20):
        process = context.Process(target=child, args=(directory,))
        process.start()
        before, until = last_checkpoint(directory), time.monotonic() + 60
        # Some die at any moment, perhaps before they have begun; the others soon after they have saved something.
        while number % 2 and last_checkpoint(directory) == before and time.monotonic() < until:
            time.sleep(0.005)
        process.join(chance.uniform(0, 0.5 if number % 2 else 4))
        assert process.is_alive(), "the run was done before it was killed twenty times: give it more steps"
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert last_checkpoint(directory) > 10
    process = context.Process(target=child, args=(directory,))
    process.start()
    process.join()
    assert process.exitcode == 0
    child(tmp_path / "in one go")
    for name in ("dataset.nc", "weights.safetensors"):
        assert (directory / "result" / name).read_bytes() == (tmp_path / "in one go" / "result" / name).read_bytes()
