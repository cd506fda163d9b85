"""The directory of a run: whatever happens to the process, the disk or the files, the result has the same bits.

Every comparison is with the same grid trained in one go without a directory.
"""

import concurrent.futures
import errno
import multiprocessing
import os
import random
import resource
import shutil
import signal
import threading
import time
import warnings
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import weightdecay as wd
from compare import same_bits
from weightdecay.core.files import read_json, write_json
from weightdecay.engine import lanes, training_workload
from weightdecay.engine.plans import Plan
from weightdecay.storage import checkpoints, result_folder, run_directory, training_records

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
    compute = lanes.DeviceWorker.compute

    def counted(self, lane, programs):
        told.append((lane.start, len(lane.members)))
        return compute(self, lane, programs)

    monkeypatch.setattr(lanes.DeviceWorker, "compute", counted)
    return told


@pytest.fixture(autouse=True)
def _saved_at_once(monkeypatch):
    """Have every save done before training continues, so that each stretch leaves a checkpoint."""
    save = run_directory.RunDirectory.save

    def wait(self, snapshot):
        save(self, snapshot)
        if self._writing is not None:
            self._writing.result()

    monkeypatch.setattr(run_directory.RunDirectory, "save", wait)


@pytest.fixture
def cut_off(monkeypatch):
    """Train until some checkpoints are written, and stop as if the process were gone: nothing more is written."""

    def until(directory, num_saves):
        write, saves = checkpoints.write, []

        def limited(folder, blocks):
            if len(saves) == num_saves:
                raise ConnectionAbortedError("gone")
            saves.append(folder)
            return write(folder, blocks)

        with monkeypatch.context() as patch:
            patch.setattr(checkpoints, "write", limited)
            with (
                pytest.warns(UserWarning, match="training continues"),
                pytest.warns(UserWarning, match="could not be saved"),
            ):
                fit(directory)
        shutil.rmtree(directory / "result")

    return until


@pytest.mark.slow
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


def child(directory, pause=0.0):
    """Train in a process of its own, until it is killed or done; a pause an evaluation keeps it from being done."""
    evaluate = training_workload.TrainingLane._evaluate

    def slow(*arguments):
        time.sleep(pause)
        return evaluate(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_workload.TrainingLane, "_evaluate", slow)
        fit(
            directory, TWO_LANES, num_steps=50_000, eval_every=100, patience=500, save_every=0.02, plan=Plan(4, 2),
            data=wd.data.digits(num_train=100),
        )  # fmt: skip


def last_checkpoint(directory):
    return max((int(path.name) for path in (directory / "checkpoints").glob("0*")), default=0)


@pytest.mark.slow
def test_a_run_killed_twenty_times_has_the_bits_of_one_that_was_not(tmp_path, monkeypatch):
    monkeypatch.setenv("WEIGHTDECAY_COMPILATION_CACHE", str(tmp_path / "programs"))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["test_checkpoints"])
    chance, directory = random.Random(0), tmp_path / "run"
    for number in range(20):
        process = context.Process(target=child, args=(directory, 0.1))  # 50 s in all
        process.start()
        before, until = last_checkpoint(directory), time.monotonic() + 60
        # Some die at any moment, perhaps before they have begun; the others soon after they have saved something.
        while number % 2 and last_checkpoint(directory) == before and time.monotonic() < until:
            time.sleep(0.005)
        process.join(chance.uniform(0, 0.5 if number % 2 else 3))
        assert process.is_alive(), "the run was done before it was killed twenty times"
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


@pytest.mark.slow
@pytest.mark.parametrize("num_saves", [1, 3, 6])
def test_a_run_cut_off_goes_on_from_its_last_save(tmp_path, whole, trained, cut_off, num_saves):
    cut_off(tmp_path, num_saves)
    trained.clear()
    same_result(fit(tmp_path), whole)
    assert any(start > 0 for start, _ in trained)


@pytest.mark.slow
def test_a_run_goes_on_on_another_number_of_devices_and_streamed(tmp_path, whole, cut_off):
    cut_off(tmp_path, 3)
    same_result(fit(tmp_path, plan=Plan(4, 1, steps_per_call=3, streamed=True)), whole)


@pytest.mark.slow
def test_a_run_with_a_plan_of_its_own_choice_takes_the_same_again(tmp_path, monkeypatch):
    fit(tmp_path, plan=None)
    monkeypatch.setattr("weightdecay.engine.plans._WIDEST", {"cpu": 2})  # as if the machine were another one
    assert fit(tmp_path, plan=None, num_steps=80).settings["plan"]["lane_width"] == 16


GROWN = [
    {"decay": [*GRID["decay"], wd.Decoupled(0.1)]},
    {"decay": [wd.Decoupled(0.1), wd.MaxNorm(2.0), *GRID["decay"][::-1]]},  # a structure more, in another order
    {"seed": range(4)},
    {"learning_rate": [1e-1, 1e-2, 1e30]},
    {"decay": [wd.NoDecay()], "seed": [0, 7]},  # fewer of the old ones
]


@pytest.mark.slow
@pytest.mark.parametrize("axes", GROWN)
def test_a_grown_grid_trains_only_what_is_new(tmp_path, trained, axes):
    fit(tmp_path)
    trained.clear()
    grown = {**GRID, **axes}
    result = fit(tmp_path, grown)
    old = [member for member in wd.Grid(**grown) if member in list(wd.Grid(**GRID))]
    assert sum(members for _, members in trained) == len(wd.Grid(**grown)) - len(old)
    same_result(result, fit(None, grown))


@pytest.mark.slow
@pytest.mark.parametrize("changed", [{}, {"patience": 2}, {"eval_every": None}])
def test_more_steps_train_only_what_is_new(tmp_path, trained, changed):
    fit(tmp_path, **changed)
    trained.clear()
    longer = fit(tmp_path, num_steps=70, **changed)
    assert {start for start, _ in trained} == {40}
    same_result(longer, fit(None, num_steps=70, **{**changed, "eval_every": changed.get("eval_every", 10) or 2}))


@pytest.mark.slow
def test_more_steps_after_an_evaluation_out_of_turn(tmp_path):
    fit(tmp_path, num_steps=35)
    same_result(fit(tmp_path, num_steps=60), fit(None, num_steps=60))
    fit(tmp_path / "patient", num_steps=35, patience=1)
    with pytest.raises(ValueError, match="last step, 35, is not a multiple of eval_every, 10, so that it"):
        fit(tmp_path / "patient", num_steps=60, patience=1)


def other_data():
    (inputs, targets), *rest = DATA.train, DATA.validation, DATA.test
    return wd.Data((inputs, np.roll(targets, 1)), *rest)


def apply(params, inputs):
    return inputs @ params["w"]


def other_apply(params, inputs):
    return inputs @ params["w"] + 1.0


def init(key, inputs):
    return {"w": jnp.zeros((64, 10))}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"batch_size": 10}, "batch_size was 20 and is 10"),
        ({"eval_every": 20}, "eval_every was 10 and is 20"),
        ({"patience": 3}, "patience was None and is 3"),
        ({"optimizer": wd.sgd}, "optimizer was adam and is sgd"),
        ({"mask": wd.masks.everything}, "mask was kernels and is everything"),
        ({"loss": "squared_error", "data": wd.data.diabetes(), "model": wd.models.MLP((8,))}, "loss was softmax"),
        ({"model": wd.models.MLP((9,))}, r"model was MLP\(.*hidden = \(8,\).* and is MLP\(.*hidden = \(9,\)"),
        ({"plan": Plan(2, 2)}, "lane_width was 4 and is 2"),
        ({"plan": Plan(4, 2, convolutions="plain")}, "lowering was slices and is plain"),
        ({"dtype": "bfloat16"}, "dtype was None and is bfloat16"),
        ({"data": other_data()}, "a different run: the train examples differ. Nothing was changed"),
        ({"num_steps": 30}, "num_steps is 30, but directory .* holds a run of 40 steps, and a run can only grow"),
    ],
)
def test_another_run_is_refused_with_the_difference_named(tmp_path, whole, changed, told):
    fit(tmp_path)
    with pytest.raises(ValueError, match=told):
        fit(tmp_path, **changed)
    same_result(fit(tmp_path), whole)


@pytest.mark.slow
def test_another_function_of_the_same_name_is_refused(tmp_path, monkeypatch):
    fit(tmp_path, model=wd.Model(init, apply))
    monkeypatch.setattr(other_apply, "__qualname__", "apply")
    monkeypatch.setattr(other_apply, "__name__", "apply")
    with pytest.raises(ValueError, match=r"the program of a training step .* differs"):
        fit(tmp_path, model=wd.Model(init, other_apply))


@pytest.mark.slow
def test_other_versions_are_refused(tmp_path, monkeypatch):
    fit(tmp_path)
    versions = result_folder.versions()
    monkeypatch.setattr(result_folder, "versions", lambda: {**versions, "jax": "9.9"})
    with pytest.raises(ValueError, match=r"jax was \d.* and is 9\.9"):
        fit(tmp_path)


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def alter(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [truncate, alter, Path.unlink])
def test_a_damaged_checkpoint_is_left_out_and_the_one_before_taken(tmp_path, whole, cut_off, damage):
    cut_off(tmp_path, 5)
    newest = tmp_path / "checkpoints" / f"{last_checkpoint(tmp_path):08d}"
    damage(random.Random(0).choice([path for path in files(newest) if path.stat().st_size > 0]))
    with pytest.warns(UserWarning, match=r"checkpoint .* is damaged \(.*\); it is skipped"):
        result = fit(tmp_path)
    same_result(result, whole)


@pytest.mark.slow
def test_every_checkpoint_damaged_trains_everything_again(tmp_path, whole):
    fit(tmp_path)
    for path in files(tmp_path / "checkpoints"):
        path.write_bytes(b"")
    with pytest.warns(UserWarning, match="is damaged"):
        same_result(fit(tmp_path), whole)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [truncate, alter])
def test_a_damaged_description_of_the_run_is_told(tmp_path, damage):
    fit(tmp_path)
    damage(tmp_path / "run.json")
    with pytest.raises(ValueError, match=r"file .*run.json is damaged or altered .*; nothing was changed"):
        fit(tmp_path)


@pytest.mark.slow
def test_a_later_format_is_refused(tmp_path):
    fit(tmp_path)
    stored = read_json(tmp_path / "run.json")
    write_json(tmp_path / "run.json", {**stored, "version": 99})
    with pytest.raises(ValueError, match="has format version 99, this library reads up to 1; upgrade weightdecay"):
        fit(tmp_path)


@pytest.mark.slow
def test_the_last_checkpoints_are_kept_and_no_more(tmp_path, cut_off):
    cut_off(tmp_path, 6)
    kept = [path for path in (tmp_path / "checkpoints").iterdir() if path.name.isdecimal()]
    assert 2 <= len(kept) < 6
    fit(tmp_path)
    newest = {}
    for path in sorted((tmp_path / "checkpoints").iterdir()):
        for block in read_json(path / "contents.json")["blocks"]:
            newest |= dict.fromkeys(block["keys"], (path, block["done"]))
    assert len(newest) == len(wd.Grid(**GRID))
    assert all(done for _, done in newest.values())
    assert {path for path, _ in newest.values()} == set((tmp_path / "checkpoints").iterdir())  # no other is left


def hold(directory, held, let_go):
    with run_directory.open_run(directory, save_every=1):
        held.set()
        let_go.wait(60)


@pytest.mark.slow
def test_a_killed_process_is_named_and_its_run_goes_on(tmp_path, whole):
    context = multiprocessing.get_context("spawn")
    held, let_go = context.Event(), context.Event()
    process = context.Process(target=hold, args=(tmp_path, held, let_go))
    process.start()
    assert held.wait(600)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with pytest.warns(UserWarning, match=f"process {process.pid} .* was killed or crashed; resuming from what"):
        same_result(fit(tmp_path), whole)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a run that ended well leaves no such word
        same_result(fit(tmp_path), whole)


@pytest.mark.slow
def test_two_calls_of_one_process_share_a_directory(tmp_path, whole, trained):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda _: fit(tmp_path), range(2)))
    for result in results:
        same_result(result, whole)
    assert sum(num_members for _, num_members in trained) == len(wd.Grid(**GRID))


@pytest.mark.slow
def test_a_path_that_is_no_directory_is_refused_before_training(tmp_path, trained):
    file = tmp_path / "file"
    file.write_text("text")
    with pytest.raises(NotADirectoryError, match="file is a file; give a new or an empty directory"):
        fit(file)
    with pytest.raises(NotADirectoryError, match="is below a file; give another directory"):
        fit(file / "run")
    with pytest.raises(FileExistsError, match=r"holds other files \(file\); nothing was changed"):
        fit(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert not trained


def full(monkeypatch, num_failures):
    write, failed = checkpoints.write, []

    def limited(folder, blocks):
        if len(failed) < num_failures:
            failed.append(folder)
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(folder, blocks)

    monkeypatch.setattr(checkpoints, "write", limited)


@pytest.mark.slow
def test_a_disk_that_is_full_for_a_while_loses_nothing(tmp_path, whole, trained, monkeypatch):
    full(monkeypatch, 8)
    with pytest.warns(UserWarning, match=r"cannot be written \(.*No space left.*\); training continues"):
        same_result(fit(tmp_path), whole)
    trained.clear()
    same_result(fit(tmp_path), whole)
    assert not trained


@pytest.mark.slow
def test_a_disk_that_stays_full_still_gives_the_result(tmp_path, whole, monkeypatch):
    full(monkeypatch, 10**9)
    with (
        pytest.warns(UserWarning, match="training continues"),
        pytest.warns(UserWarning, match=r"the last members could not be saved \(.*\); the returned result holds them"),
    ):
        same_result(fit(tmp_path), whole)


def test_a_limit_of_the_system_is_told(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
        with pytest.raises(OSError, match=r"folder .* has no room for .* \(File too large\). Make room"):
            fit(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.slow
def test_ctrl_c_saves_and_returns_what_there_is(tmp_path, whole, trained, monkeypatch):
    write_metrics, seen = training_records.TrainingRecords.write_metrics, []

    def interrupted(self, *arguments):
        write_metrics(self, *arguments)
        seen.append(arguments)
        if len(seen) == 3:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            time.sleep(1)  # until the main thread has heard of it

    with monkeypatch.context() as patch:
        patch.setattr(training_records.TrainingRecords, "write_metrics", interrupted)
        with pytest.warns(
            UserWarning, match=rf"interrupted; what was trained is saved. To resume, .*directory='{tmp_path}'"
        ):
            part = fit(tmp_path)
    assert part.settings["interrupted"]
    known = np.isfinite(part.dataset["validation_loss"].values)
    assert known.any()
    np.testing.assert_array_equal(
        part.dataset["validation_loss"].values[known], whole.dataset["validation_loss"].values[known]
    )
    with pytest.raises(FileNotFoundError, match="holds a run that is not finished; resume it by the same call"):
        wd.load(tmp_path)
    trained.clear()
    same_result(fit(tmp_path), whole)
    assert any(start > 0 for start, _ in trained)


@pytest.mark.slow
@pytest.mark.parametrize("has_directory", [True, False])
def test_ctrl_c_before_the_first_evaluation_returns_a_result_of_nans(tmp_path, whole, monkeypatch, has_directory):
    """What was interrupted before anything was evaluated is a result all the same, and is resumed."""
    directory = tmp_path if has_directory else None

    def interrupted(*_):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(60)  # until the main thread has raised in it

    with monkeypatch.context() as patch:
        patch.setattr(
            "weightdecay.engine.lanes.schedule_shared" if directory else "weightdecay.engine.lanes.schedule",
            interrupted,
        )
        told = "saved. To resume, make the same call" if has_directory else "nothing is saved: a run in a directory"
        with pytest.warns(UserWarning, match=f"interrupted; what was trained is .*{told}"):
            part = fit(directory)
    assert part.settings["interrupted"]
    assert set(part.dataset.data_vars) == set(whole.dataset.data_vars)
    assert part.dataset.sizes == whole.dataset.sizes
    assert np.isnan(part.dataset["validation_loss"].values).all()
    assert np.isnan(part.dataset["layer_weight_norm"].values).all()
    with pytest.raises(ValueError, match="member 0 has no weights: it was not trained"):
        part.params(0)
    if has_directory:
        same_result(fit(directory), whole)


@pytest.mark.parametrize("wrong", [0, -1.0, float("nan"), True, "often"])
def test_save_every_refuses_what_is_no_time(tmp_path, wrong, without_beartype):
    with pytest.raises(ValueError, match=r"save_every is .*; give a number of seconds above 0"):
        fit(tmp_path, save_every=wrong)
