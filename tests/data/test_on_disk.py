"""Arrays that stay on the disk: the bits of arrays in memory, and far less memory than their file."""

import hashlib
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import weightdecay as wd
from compare import same_bits
from weightdecay.data import on_disk
from weightdecay.storage import fingerprints

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 90)
SETTINGS = {"num_steps": 6, "batch_size": 8, "eval_every": 3, "progress": False}
MLP = wd.models.MLP((4,))


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(on_disk, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(fingerprints, "_BLOCK_BYTES", 1000)


def mapped(path, array):
    """A read-only `numpy.memmap` of an array, as users open one."""
    np.save(path, array)
    return np.load(path, mmap_mode="r")


def splits(data):
    return [split for split in (data.train, data.validation, data.test) if split is not None]


@pytest.mark.parametrize("shape", [(90,), (90, 1), (90, 3), (90, 1, 5), (90, 4, 4, 3), (7, 200)])
def test_moments_have_the_bits_of_numpys(tmp_path, shape):
    values = RNG.normal(loc=3, scale=7, size=shape).astype(np.float32)
    rows = RNG.permutation(len(values))[: 2 * len(values) // 3]
    chosen = on_disk.selected(mapped(tmp_path / "values.npy", values), rows)
    assert chosen.shape == (len(rows), *shape[1:])
    precise = values.astype(np.float64)[rows]
    mean, deviation, constant = on_disk.moments(chosen)
    np.testing.assert_array_equal(mean, precise.mean(axis=0))
    np.testing.assert_array_equal(deviation, precise.std(axis=0))
    assert not np.any(constant)
    assert (chosen.min(), chosen.max()) == (values[rows].min(), values[rows].max())


def test_what_is_on_the_disk_is_recognized(tmp_path):
    values = mapped(tmp_path / "values.npy", np.arange(6.0).reshape(3, 2))
    for stays in (
        values,
        np.asarray(values),
        values[1:],
        np.asarray(values).reshape(2, 3),
        on_disk.selected(values, [0]),
    ):
        assert on_disk.is_on_disk(stays)
    for is_in_memory in (np.zeros(3), values[[0, 1]].copy(), on_disk.in_memory(values), [1.0], None):
        assert not on_disk.is_on_disk(is_in_memory)
    rows = on_disk.selected(on_disk.selected(values, np.array([2, 0])), np.array([1]))
    np.testing.assert_array_equal(rows[np.zeros((2, 2), int)], np.tile(values[0], (2, 2, 1)))
    np.testing.assert_array_equal(np.asarray(rows, np.float32), np.float32([[0.0, 1.0]]))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int64"])
@pytest.mark.parametrize("standardize", [True, False])
def test_split_of_a_memmap_has_the_bits_of_the_array(tmp_path, dtype, standardize):
    array = RNG.uniform(0, 200, size=(90, 3, 5)).astype(dtype)
    given = mapped(tmp_path / "inputs.npy", array)
    data, expected = (wd.data.split(x, LABELS, seed=1, standardize=standardize) for x in (given, array))
    for (inputs, targets), (in_memory, labels) in zip(splits(data), splits(expected), strict=True):
        assert on_disk.is_on_disk(inputs)
        assert inputs.dtype == in_memory.dtype
        np.testing.assert_array_equal(np.asarray(inputs), in_memory)
        np.testing.assert_array_equal(targets, labels)
    batches = expected.batches()
    assert fingerprints.of_data(data.batches()) == fingerprints.of_data(batches)
    inputs = batches["train"].inputs
    whole = hashlib.sha256(f"{inputs.dtype} {inputs.shape}".encode() + inputs.tobytes()).hexdigest()
    assert fingerprints.of_arrays([inputs]) == whole
    assert repr(data) == repr(expected)


@pytest.mark.slow
def test_training_from_the_disk_has_the_bits_of_training_from_memory(tmp_path):
    """Streamed and on the device; the test score and the predictions too; one directory resumes the other's run."""
    array = RNG.normal(size=(90, 6))
    data, expected = (wd.data.split(x, LABELS, seed=1) for x in (mapped(tmp_path / "inputs.npy", array), array))
    grid = wd.Grid(decay=[wd.L2(0.01), wd.Decoupled(0.1)], learning_rate=0.01, seed=range(2))
    result = wd.fit_grid(MLP, expected, grid, **SETTINGS)
    streamed = wd.fit_grid(MLP, data, grid, memory_budget=0, directory=tmp_path / "run", **SETTINGS)
    assert streamed.settings["plan"]["streamed"]
    resumed = wd.fit_grid(MLP, expected, grid, directory=tmp_path / "run", **SETTINGS)
    for other in (streamed, resumed, wd.fit_grid(MLP, data, grid, **SETTINGS)):
        xr.testing.assert_equal(other.dataset, result.dataset)
        for member in range(len(grid)):
            same_bits(other.params(member), result.params(member))
    pd.testing.assert_frame_equal(streamed.test(), result.test())


@pytest.mark.slow
def test_dense_targets_and_trees_stay_on_the_disk(tmp_path):
    images, masks = RNG.normal(size=(40, 4, 4, 2)), RNG.integers(0, 3, (40, 4, 4)).astype(np.uint8)
    given = {"image": mapped(tmp_path / "images.npy", images)}, mapped(tmp_path / "masks.npy", masks)
    data, expected = wd.data.split(*given, seed=2), wd.data.split({"image": images}, masks, seed=2)
    for split, in_memory in zip(splits(data), splits(expected), strict=True):
        assert all(map(on_disk.is_on_disk, jax.tree.leaves(split)))
        for one, other in zip(jax.tree.leaves(split), jax.tree.leaves(in_memory), strict=True):
            np.testing.assert_array_equal(np.asarray(one), other)
    assert fingerprints.of_data(data.batches()) == fingerprints.of_data(expected.batches())


def test_values_that_cannot_train_are_found_on_the_disk(tmp_path):
    array = np.ones((90, 6), np.float32)
    array[70, 2], array[80, 1] = np.nan, np.inf
    given = mapped(tmp_path / "inputs.npy", array)
    grid = wd.Grid(learning_rate=0.1)
    with pytest.raises(ValueError, match=r"inputs contain 2 values that are nan or infinite, the first in example 70"):
        wd.data.split(given, LABELS)
    with pytest.raises(ValueError, match=r"data\.train inputs contain 2 values .* in example 70"):
        wd.fit_grid(MLP, wd.Data((given, LABELS), (given, LABELS)), grid, **SETTINGS)
    precise = 1e9 + RNG.normal(size=(90, 6))
    for values in (precise, mapped(tmp_path / "precise.npy", precise)):
        with pytest.raises(ValueError, match="differences float32 cannot represent"):
            wd.data.split(values, LABELS, standardize=False)


@pytest.mark.slow
def test_file_of_gigabytes_trains_in_a_fraction_of_its_size(tmp_path):
    """2 GiB of the type that most arrays have; the process may have 1 GiB of data in addition to what imports take."""
    program = f"""
        import resource
        import numpy as np
        import weightdecay as wd

        rows, features = 2**18, 1024
        images = np.memmap("{tmp_path}/images.bin", np.float64, "w+", shape=(rows, features))  # a hole in the file
        labels = np.arange(rows) % 2
        chosen = np.random.default_rng(0).choice(rows, 64, replace=False)
        images[chosen, 0] = np.where(labels[chosen] == 1, 1.0, -1.0)
        images.flush()
        images = np.memmap("{tmp_path}/images.bin", np.float64, "r", shape=(rows, features))

        small = wd.fit(wd.models.MLP((2,)), wd.data.digits(), decay=wd.NoDecay(), learning_rate=0.1, num_steps=1,
                       batch_size=4, progress=False)
        used = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmData"))
        limit = used + 2**30
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        try:
            np.zeros((rows, features))
        except MemoryError:
            print("limited")
        data = wd.data.split(images, labels, validation_size=0.002, test_size=0.002)
        result = wd.fit(wd.models.MLP((2,)), data, decay=wd.L2(0.01), learning_rate=0.1, num_steps=3, batch_size=64,
                        memory_budget=2**26, directory="{tmp_path}/run", progress=False)
        print(result.settings["plan"]["streamed"], np.isfinite(result.dataset["validation_loss"]).all().item())
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.split() == ["limited", "True", "True"]
