"""Faults that are made for real: full disks, killed and forked processes, removed directories, interrupts.

What comes of a fault is compared, bit for bit, with the same run without it.
"""

import contextlib
import ctypes
import ctypes.util
import gc
import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from faulty_run import fit

import weightdecay as wd
from compare import same_bits
from weightdecay.core.checks import ArgumentError
from weightdecay.engine import lanes
from weightdecay.storage import checkpoints, result_folder, run_directory, weights
from weightdecay.storage.training_records import RecordedWeights, TrainingRecords


def same_result(actual, expected):
    assert actual.dataset.identical(expected.dataset)
    for member in range(len(expected)):
        same_bits(actual.params(member), expected.params(member))


@pytest.fixture(scope="module")
def whole():
    return fit(None)


@contextlib.contextmanager
def small_disk(folder, size):
    """Mount a small file system in memory, and yield a function that changes its size; skip where forbidden."""
    libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)

    def mount(size, flags=0):
        return libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", flags, f"size={size}".encode())

    folder.mkdir()
    if not sys.platform.startswith("linux") or mount(size) != 0:
        pytest.skip("only root may mount a file system")
    try:
        yield lambda size, flags=0: mount(size, flags=32 | flags)  # MS_REMOUNT
    finally:
        libc.umount2(os.fsencode(folder), 2)  # MNT_DETACH


# Full disks


@pytest.mark.slow
def test_a_full_disk_gives_the_result_and_saves_it_when_there_is_room(tmp_path, whole):
    with small_disk(tmp_path / "disk", "120k") as resize:
        directory = tmp_path / "disk" / "run"
        with (
            pytest.warns(UserWarning, match=r"cannot be written \(.*(No space|RESOURCE_EXHAUSTED).*training continues"),
            pytest.warns(UserWarning, match=r"last members could not be saved .*; the returned result holds them"),
        ):
            same_result(fit(directory), whole)
        resize("10m")
        same_result(fit(directory), whole)
        same_result(wd.load(directory), whole)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_disk_with_room_for_checkpoints_alone_gives_the_result(tmp_path, whole, monkeypatch):
    with small_disk(tmp_path / "disk", "2m") as resize:
        directory, save = tmp_path / "disk" / "run", result_folder.write

        def fill_and_save(path, *arguments, **settings):
            with contextlib.suppress(OSError), open(tmp_path / "disk" / "filler", "wb") as filler:
                while True:
                    filler.write(bytes(4096))
            return save(path, *arguments, **settings)

        with monkeypatch.context() as patch:
            patch.setattr(result_folder, "write", fill_and_save)
            # The last checkpoint may be written before the disk is full, or after.
            with warnings.catch_warnings(record=True) as reported:
                warnings.simplefilter("always")
                same_result(fit(directory), whole)
        assert any("could not be" in str(warning.message) for warning in reported)
        # The run is finished, so that the same call trains nothing; there is room for a result now.
        resize("10m")
        same_result(fit(directory), whole)
        assert [entry.name for entry in directory.iterdir() if entry.name.startswith(".")] == []


@pytest.mark.slow
def test_a_run_resumes_on_a_full_disk(tmp_path, whole):
    with small_disk(tmp_path / "disk", "10m"):
        directory = tmp_path / "disk" / "run"
        fit(directory)
        with contextlib.suppress(OSError), open(tmp_path / "disk" / "filler", "wb") as filler:
            while True:
                filler.write(bytes(4096))
        with pytest.warns(UserWarning, match=r"the result could not be written there \(.*\); it is returned"):
            same_result(fit(directory), whole)


def test_a_full_disk_is_refused_before_a_new_run(tmp_path):
    with small_disk(tmp_path / "disk", "8k"):
        (tmp_path / "disk" / "filler").write_bytes(bytes(8000))
        with pytest.raises(OSError, match=r"directory .*run cannot be written \(.*No space left.*\); (make|give)"):
            fit(tmp_path / "disk" / "run")


@pytest.mark.slow
def test_a_read_only_disk_is_refused_before_training(tmp_path, whole, monkeypatch):
    with small_disk(tmp_path / "disk", "1m") as change:
        (tmp_path / "disk" / "run").mkdir()
        change("1m", flags=1)  # MS_RDONLY
        monkeypatch.setattr("weightdecay.engine.lanes.run", lambda *_: pytest.fail("it trains"))
        for name in ("run", "new"):
            with pytest.raises(
                OSError, match=r"directory .* cannot be written \(.*Read-only file system.*give another"
            ):
                fit(tmp_path / "disk" / name)
        with pytest.raises(
            PermissionError, match=r"folder .* cannot be created \(Read-only file system\); give another"
        ):
            result_folder.check_folder(tmp_path / "disk" / "result")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of orbax's threads
@pytest.mark.parametrize("limit", [100, 5000])
def test_a_limit_of_file_size_during_the_run_gives_the_result(tmp_path, whole, monkeypatch, limit):
    write, before = checkpoints.write, resource.getrlimit(resource.RLIMIT_FSIZE)

    def limited(*arguments):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            return write(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    save = run_directory.RunDirectory.save

    def save_and_wait(self, snapshot):
        save(self, snapshot)
        if self._writing is not None:
            self._writing.result()  # the limit is one of the process: nothing else may be written meanwhile

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write", limited)
        patch.setattr(run_directory.RunDirectory, "save", save_and_wait)
        with (
            pytest.warns(UserWarning, match="training continues"),
            pytest.warns(UserWarning, match="could not be saved"),
        ):
            same_result(fit(tmp_path / "run"), whole)
    same_result(fit(tmp_path / "run"), whole)
    gc.collect()  # what orbax left is reported in this test


@pytest.mark.parametrize("size", [10_000, 1_000])
def test_weights_on_a_full_disk_are_an_error_of_the_file_system(tmp_path, size):
    with small_disk(tmp_path / "disk", "8k"):
        with pytest.raises(OSError, match=r"No space left|cannot be written"):
            weights.write_params(tmp_path / "disk" / "w.safetensors", {"w": np.zeros(size * 10)})
        assert os.listdir(tmp_path / "disk") == []


def test_a_full_folder_of_temporary_files_is_refused_before_training(tmp_path, whole, monkeypatch):
    with small_disk(tmp_path / "disk", "64k"):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "disk"))
        monkeypatch.setattr("weightdecay.engine.lanes.run", lambda *_: pytest.fail("it trains"))
        with pytest.raises(OSError, match=rf"folder {tmp_path}/disk for temporary files has no room for .*bytes\)"):
            fit(None, num_steps=4000, eval_every=1)


@pytest.mark.slow
def test_everything_that_training_writes_to_temporary_files_is_allocated(tmp_path, whole):
    """A disk that is filled once training begins neither ends the process nor loses the result."""
    code = f"""
import tempfile, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
tempfile.tempdir = {str(tmp_path / "disk")!r}
from faulty_run import fit
from weightdecay.engine import lanes
run = lanes.run
def fill(*arguments):
    with open(tempfile.tempdir + "/filler", "wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            pass
    return run(*arguments)
lanes.run = fill
print(float(fit(None).dataset["validation_loss"].values.sum()))
"""
    with small_disk(tmp_path / "disk", "1m"):
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout) == pytest.approx(float(whole.dataset["validation_loss"].values.sum()), rel=1e-6)


# Killed processes


def check_killed_at(tmp_path, whole, number):
    directory = tmp_path / f"run {number}"
    script = [sys.executable, Path(__file__).with_name("faulty_run.py"), directory, str(number)]
    ended = subprocess.run(script, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*was killed or crashed")
        same_result(fit(directory), whole)
    same_result(wd.load(directory), whole)
    entries = {entry.name for entry in directory.iterdir()}
    assert entries == {"run.json", "checkpoints", "result"}
    assert all(entry.name.isdecimal() for entry in (directory / "checkpoints").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("number", [2, 5, 9, 14])
def test_a_run_killed_at_its_first_file_operations_goes_on(tmp_path, whole, number):
    """The operations that take the turn, register the process, and make the directory and ``run.json``."""
    check_killed_at(tmp_path, whole, number)


@pytest.mark.slow
def test_saves_killed_at_any_file_operation_go_on(tmp_path, whole):
    """Every operation of a run that saves two lanes twice and its result; see `killed_saves`."""
    whole.save(tmp_path / "result")
    (tmp_path / "runs").mkdir()
    script = [sys.executable, Path(__file__).with_name("killed_saves.py"), tmp_path / "result", tmp_path / "runs"]
    ended = subprocess.run(script, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 100


# Forked and other processes


def read_often(stored, expected, seed, wrong):
    generator = np.random.default_rng(seed)
    for index in generator.integers(0, len(expected), 4000):
        wrong.value += not np.array_equal(stored[int(index)]["w"], expected[index])


@pytest.mark.slow
def test_forked_processes_read_the_weights_of_the_member(tmp_path):
    expected = np.arange(32 * 5000, dtype=np.float32).reshape(32, 5000)
    stored = RecordedWeights(32)
    for index, row in enumerate(expected):
        stored.write(index, {"w": row})
    context = multiprocessing.get_context("fork")
    counts = [context.Value("i", 0) for _ in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX warns of forks
        processes = [
            context.Process(target=read_often, args=(stored, expected, seed, wrong))
            for seed, wrong in enumerate(counts)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert [wrong.value for wrong in counts] == [0, 0, 0]


def test_weights_of_several_structures_and_sizes_come_back():
    trees = [
        {"a": np.arange(3.0)},
        {"a": np.zeros((0, 2), np.int8), "b": np.ones((), np.float16)},
        (),
        {"a": np.ones(3)},
    ]
    stored = RecordedWeights(5)
    for index, tree in enumerate(trees):
        stored.write(index, {"other": np.ones(7)})
        stored.write(index, tree)
    for index, tree in enumerate(trees):
        same_bits(stored[index], tree)
    with pytest.raises(ValueError, match="member 4 has no weights: it was not trained"):
        stored[4]


def test_a_pickled_result_is_the_result(whole):
    copy = pickle.loads(pickle.dumps(whole))
    same_result(copy, whole)
    assert copy.table().equals(whole.table())
    assert str(copy.best()) == str(whole.best())


def test_weights_that_cannot_be_pickled_say_so():
    @jax.tree_util.register_pytree_node_class
    class Local:
        def __init__(self, w):
            self.w = w

        def tree_flatten(self):
            return (self.w,), None

        @classmethod
        def tree_unflatten(cls, _, leaves):
            return cls(*leaves)

    stored = RecordedWeights(1)
    stored.write(0, Local(np.ones(2)))
    with pytest.raises(TypeError, match=r"the weights cannot be pickled \(.*Local.*\); use result.save\(folder\) here"):
        pickle.dumps(stored)


# Directories that are removed, and paths


@pytest.mark.slow
@pytest.mark.parametrize("how", [shutil.rmtree, lambda path: path.rename(path.with_name("moved"))])
def test_a_directory_removed_during_the_run_is_reported(tmp_path, whole, monkeypatch, how):
    write_metrics, removed = TrainingRecords.write_metrics, []

    def remove(self, *arguments):
        if not removed:
            removed.append(how(tmp_path / "run"))
        return write_metrics(self, *arguments)

    monkeypatch.setattr(TrainingRecords, "write_metrics", remove)
    with (
        pytest.warns(UserWarning, match=r"cannot be written \(it was removed, moved or replaced during the run\)"),
        pytest.warns(UserWarning, match="last members could not be saved .*; the returned result holds them"),
    ):
        same_result(fit(tmp_path / "run"), whole)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_directory_removed_when_it_is_resumed_is_reported(tmp_path, monkeypatch):
    """The members that it held are trained from the first step on."""
    directory, run = tmp_path / "run", lanes.run
    fit(directory)
    longer = fit(None, num_steps=8)

    def remove_and_run(*arguments):
        shutil.rmtree(directory)
        checkpoints.read.cache_clear()
        return run(*arguments)

    monkeypatch.setattr(lanes, "run", remove_and_run)
    with (
        pytest.warns(UserWarning, match=r"saved members cannot be read \(.*\); they start again at step 0"),
        pytest.warns(UserWarning, match=r"cannot be written \(it was removed, moved or replaced during the run\)"),
        pytest.warns(UserWarning, match="last members could not be saved .*; the returned result holds them"),
    ):
        same_result(fit(directory, num_steps=8), longer)


def test_paths_that_are_not_utf8_are_refused_before_training(tmp_path, whole, monkeypatch):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    monkeypatch.setattr("weightdecay.engine.lanes.run", lambda *_: pytest.fail("it trains"))
    with pytest.raises(ArgumentError, match=r"directory is .* which is not valid UTF-8; give another path"):
        fit(path)
    with pytest.raises(ArgumentError, match=r"folder is .* which is not valid UTF-8; give another path"):
        whole.save(path)
    with pytest.raises(ArgumentError, match=r"path is .* which is not valid UTF-8; give another path"):
        whole.save_params(path + ".safetensors", 0)
    assert os.listdir(tmp_path) == []


def test_a_mount_point_is_refused_before_training(tmp_path):
    with (
        small_disk(tmp_path / "disk", "1m"),
        pytest.raises(ArgumentError, match=r"folder .*disk is a mount point.*; give a folder in it"),
    ):
        result_folder.check_folder(tmp_path / "disk")


# What the numbers depend on


def accurate(outputs, targets):
    return (outputs.argmax(-1) == targets).astype(jnp.float32)


@pytest.mark.slow
def test_a_changed_metric_of_the_same_name_is_refused(tmp_path):
    def half(outputs, targets):
        return 0.5 * accurate(outputs, targets)

    directory = tmp_path / "run"
    fit(directory, metrics={"own_accuracy": accurate})
    for changed in (half, lambda outputs, targets: accurate(outputs, targets) + SHIFT):
        with pytest.raises(ValueError, match=r"a different run: the program of an evaluation \(.*\) differs"):
            fit(directory, metrics={"own_accuracy": changed})
    again = fit(directory, metrics={"own_accuracy": accurate}).dataset
    assert np.isfinite(again["validation_own_accuracy"].values[:, -1]).all()


SHIFT = np.linspace(0, 1, 5).sum()


@pytest.mark.slow
def test_changed_arrays_that_a_metric_closes_over_are_refused(tmp_path):
    def weighted(class_weights):
        return {"own_accuracy": lambda outputs, targets: accurate(outputs, targets) * class_weights[targets]}

    first, second = jnp.ones(10), jnp.ones(10).at[3].set(2.0)
    fit(tmp_path / "run", metrics=weighted(first))
    with pytest.raises(ValueError, match=r"the program of an evaluation .* differs"):
        fit(tmp_path / "run", metrics=weighted(second))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("_instruction_set", "x86_64 avx avx2 fma", "instruction_set was x86_64 avx avx2 fma and is "),
        ("xla_flags", "--xla_cpu_max_isa=AVX2", "xla_flags was --xla_cpu_max_isa=AVX2 and is "),
    ],
)
def test_a_run_of_another_processor_is_refused(tmp_path, monkeypatch, name, value, told):
    from weightdecay.engine import devices

    with monkeypatch.context() as patch:
        patch.setattr(devices, name, lambda: value)
        fit(tmp_path / "run")
    with pytest.raises(ValueError, match=told):
        fit(tmp_path / "run")


def test_flags_of_xla_that_change_no_bits_are_left_out(monkeypatch):
    from weightdecay.engine import devices

    flags = "--xla_force_host_platform_device_count=8 --xla_cpu_max_isa=AVX2 --xla_dump_to=/nowhere"
    monkeypatch.setenv("XLA_FLAGS", flags)
    for quick, expected in (
        (False, "--xla_cpu_max_isa=AVX2"),
        (True, "--xla_cpu_max_isa=AVX2 jax_disable_most_optimizations"),
    ):
        jax.config.update("jax_disable_most_optimizations", quick)
        assert devices.xla_flags() == expected


# Interrupts


@pytest.mark.slow
@pytest.mark.parametrize("has_directory", [True, False])
def test_three_interrupts_in_a_row_return_the_result(tmp_path, has_directory):
    code = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from faulty_run import fit
from weightdecay.engine import lanes
compute = lanes.DeviceWorker.compute
def compute_and_end_late(*arguments):
    sys.stdout.write("trains\\n")
    sys.stdout.flush()
    compute(*arguments)
    time.sleep(2)
lanes.DeviceWorker.compute = compute_and_end_late
result = fit({str(tmp_path / "run") if has_directory else None!r}, num_steps=10**7, eval_every=10**6, save_every=0.1)
print(result.settings["interrupted"], flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "trains\n"
    time.sleep(0.5)
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(0.4)  # Python reports two signals that come at once as one
    out, told = process.communicate(timeout=300)
    assert (out.removeprefix("trains\n"), process.returncode) == ("True\n", 0), told  # of the second device
    assert "interrupted already; waiting for the devices" in told
    if has_directory:
        assert run_directory.read_description(tmp_path / "run")["num_steps"] == 10**7
