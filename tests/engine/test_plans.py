"""What a plan depends on, what it foretells, and what it refuses."""

import subprocess
import sys

import jax
import numpy as np
import pytest

import weightdecay as wd
from compare import same_bits
from weightdecay.engine import devices, lanes
from weightdecay.engine import plans as planning

DATA = wd.data.digits(num_train=150)
MODEL = wd.models.MLP((13, 7))
SHORT = {"num_steps": 24, "batch_size": 32, "eval_every": 10}
SIZES = {"params_bytes": 1000, "forward_bytes": 1000, "state_bytes": 3000, "data_bytes": 10**6, "batch_bytes": 1000}


@pytest.mark.slow
def test_plan_is_what_fit_grid_runs():
    grid = wd.Grid(decay=[wd.NoDecay(), wd.L2(0.1)], learning_rate=1e-3, seed=range(2))
    plan = wd.plan(MODEL, DATA, grid, calibrate=False, **SHORT)
    result = wd.fit_grid(MODEL, DATA, grid, plan=plan, progress=False, **SHORT)
    assert wd.Plan(**result.settings["plan"]) == plan
    assert wd.fit_grid(MODEL, DATA, grid, progress=False, **SHORT).settings["plan"] == result.settings["plan"]
    assert plan.forecast.members == 4
    assert plan.forecast.seconds is None


@pytest.mark.slow
def test_plan_does_not_depend_on_the_grid():
    grids = [
        wd.Grid(decay=[wd.L2(0.1)], learning_rate=1e-3),
        wd.Grid(decay=wd.logspace(wd.Decoupled, 1e-4, 1, 50), learning_rate=[1e-3, 1e-2], seed=range(4)),
        wd.Grid(decay=[wd.TowardAnchor(0.1), wd.Constrained(1.0, 0.1), wd.Spectral(0.1)], learning_rate=1e-3),
    ]
    plans = [wd.plan(MODEL, DATA, grid, calibrate=False, **SHORT) for grid in grids]
    assert len({plan.lane_width for plan in plans}) == 1
    assert plans[0] == plans[1] == plans[2]


@pytest.mark.slow
def test_plan_calibrated_tells_time_and_what_batching_gains():
    grid = wd.Grid(decay=[wd.NoDecay(), wd.L2(0.1)], learning_rate=1e-3)
    forecast = wd.plan(MODEL, DATA, grid, **SHORT).forecast
    assert forecast.seconds > 0
    assert forecast.member_steps_per_second > 0
    assert forecast.batching_gain > 0


def test_plan_says_itself_in_words():
    forecast = planning.Forecast(
        members=10, programs=1, device_bytes=2**20, total_bytes=2**21, disk_bytes=2**11, free_bytes=2**33,
        seconds=7300.0, compile_seconds=2.0, member_steps_per_second=12345.0, batching_gain=1.01,
    )  # fmt: skip
    told = str(wd.Plan(8, 2, reasons=("lane width: why",), forecast=forecast))
    assert "lanes of 8 on 2 cpu device(s)" in told
    assert "lane width: why" in told
    assert "1.0 MiB a device, 2.0 MiB in all of 8.0 GiB free; 2.0 KiB on disk" in told
    assert "about 2.0 h at 12,345 member-steps a second, after 2.0 s of compiling" in told
    assert "batching gains nothing here: a lane of 8 is 1.01 times as fast" in told


@pytest.mark.parametrize(("params_bytes", "width"), [(10**3, 16), (10**5, 4), (10**6, 1), (10**8, 1)])
def test_choose_keeps_lanes_of_large_models_within_the_cache(params_bytes, width):
    assert planning.choose(**{**SIZES, "params_bytes": params_bytes}, memory_budget=None).lane_width == width


def test_choose_streams_what_is_above_the_budget():
    plan = planning.choose(**SIZES, memory_budget=10**5)
    assert plan.streamed
    assert 2 * plan.lane_width * plan.steps_per_call * 1000 <= 10**5
    assert not planning.choose(**SIZES, memory_budget=10**6).streamed
    assert not planning.choose(**{**SIZES, "batch_bytes": None}, memory_budget=0).streamed


def test_choose_spares_devices_that_share_too_little_memory(monkeypatch):
    monkeypatch.setattr(devices, "num_cores", lambda: 8)
    need = 16 * (3000 + 1000 + 1000) + 10**6
    monkeypatch.setattr(devices, "free_memory", lambda _: 3 * need + 1)
    plan = planning.choose(**SIZES, memory_budget=10**7)
    assert plan.num_devices == 3
    assert "that they share" in plan.reasons[-1]


def test_choose_refuses_what_fits_nowhere(monkeypatch):
    monkeypatch.setattr(devices, "free_memory", lambda _: 10**9)
    with pytest.raises(MemoryError, match=r"needs 3\.\d GiB for a lane of 1.*954 MiB are free.*smaller model"):
        planning.choose(**{**SIZES, "state_bytes": 4 * 10**9}, memory_budget=None)


@pytest.mark.slow
def test_fit_grid_refuses_before_training_what_does_not_fit(monkeypatch):
    monkeypatch.setattr(devices, "free_memory", lambda _: 10**5)
    with pytest.raises(MemoryError, match="no plan makes this run fit"):
        wd.fit_grid(MODEL, DATA, wd.Grid(learning_rate=1e-3), progress=False, **SHORT)
    # A plan given by hand is compiled, and its program measured.
    with pytest.raises(MemoryError, match="The compiled program needs"):
        wd.fit_grid(MODEL, DATA, wd.Grid(learning_rate=1e-3), plan=wd.Plan(4, 1), progress=False, **SHORT)


MEMORY = """
from pathlib import Path
import numpy as np
import weightdecay as wd

lines = lambda: Path("/proc/self/status").read_text().splitlines()

def kilobytes(name):
    return next(int(line.split()[1]) for line in lines() if line.startswith(name))

rng = np.random.default_rng(0)
inputs, targets = rng.normal(size=(500, 784)).astype(np.float32), rng.integers(0, 10, 500)
data = wd.Data((inputs, targets), (inputs[:100], targets[:100]))
grid = wd.Grid(decay=wd.logspace(wd.Decoupled, 1e-3, 1, 2), learning_rate=1e-3)
arguments = {"num_steps": 2, "batch_size": 16, "eval_every": 2}
plan = wd.plan(wd.models.MLP((4096, 4096)), data, grid, calibrate=False, **arguments)
before = kilobytes("VmRSS")
wd.fit_grid(wd.models.MLP((4096, 4096)), data, grid, plan=plan, progress=False, **arguments)
print(plan.forecast.total_bytes / 1024 / (kilobytes("VmHWM") - before))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory from /proc")
def test_plan_foretells_the_memory():
    """A network of 20 million weights, so that what every process needs counts little."""
    told = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True).stdout
    assert 0.7 < float(told) < 1.3


SECOND = """
import jax
import weightdecay as wd
from weightdecay.engine import devices as backend, executables

compiled = []
compile_ = executables._compile
executables._compile = lambda *arguments: compiled.append(arguments) or compile_(*arguments)
data = wd.data.digits(num_train=150)
grid = wd.Grid(decay=[wd.L2(0.1)], learning_rate=1e-3)
result = wd.fit_grid(wd.models.MLP((64, 64)), data, grid, num_steps=5, batch_size=32, progress=False)
print(len(compiled))
print(result.params()["Dense_0"]["kernel"].tobytes().hex()[:200])
assert jax.config.jax_compilation_cache_dir is None
"""


def _second(folder):
    environment = {"PATH": "/usr/bin", "WEIGHTDECAY_COMPILATION_CACHE": str(folder), "HOME": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", SECOND], env=environment, capture_output=True, text=True, check=True
    ).stdout.splitlines()


@pytest.mark.slow
def test_programs_are_kept_between_processes(tmp_path):
    first, again = _second(tmp_path / "programs"), _second(tmp_path / "programs")
    assert first[0] == "3"  # first weights, training and evaluation, for all devices
    assert int(again[0]) <= 1
    assert first[1] == again[1]
    assert _second("off") == first
    assert not (tmp_path / "off").exists()


def test_cache_folder_is_left_to_who_has_chosen(monkeypatch, tmp_path):
    monkeypatch.delenv("WEIGHTDECAY_COMPILATION_CACHE", raising=False)
    assert devices.cache_folder().parent.name == "weightdecay"
    monkeypatch.setenv("WEIGHTDECAY_COMPILATION_CACHE", "off")
    assert devices.cache_folder() is None
    monkeypatch.setenv("WEIGHTDECAY_COMPILATION_CACHE", str(tmp_path))
    assert devices.cache_folder() == tmp_path
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    try:
        assert devices.cache_folder() is None
    finally:
        jax.config.update("jax_compilation_cache_dir", None)


LATE = """
import warnings
import jax
jax.devices()
import weightdecay as wd
from weightdecay.engine import devices as backend
backend.num_cores = lambda: 2
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    backend.prepare()
print(*(warning.message for warning in caught))
"""


@pytest.mark.slow
def test_prepare_warns_where_jax_runs_with_too_few_devices():
    told = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=True).stdout
    assert "JAX already runs with 1 CPU device(s), and lanes of members could use 2 cores" in told
    assert "jax.config.update('jax_num_cpu_devices', 2)" in told


def test_records_read_back_what_was_written():
    from weightdecay.storage.training_records import RecordedWeights

    weights = RecordedWeights(3)
    rng = np.random.default_rng(0)
    trees = [{"a": rng.normal(size=(2, 3)), "b": (np.float32(rng.normal()), np.zeros((0, 4)))} for _ in range(2)]
    trees.append([np.arange(5)])
    for place in (2, 0, 1):
        weights.write(place, trees[place])
    for place in range(3):
        jax.tree.map(np.testing.assert_array_equal, weights[place], trees[place])
    assert len(weights) == 3
    with pytest.raises(ValueError, match="member 1 has no weights: it was not trained"):
        RecordedWeights(2)[1]


def exhausted(monkeypatch, num_failures):
    """Have devices run out of memory in their first lanes."""
    compute, failed = lanes.DeviceWorker.compute, []

    def limited(self, *arguments):
        if len(failed) < num_failures:
            failed.append(self)
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8 bytes.")
        return compute(self, *arguments)

    monkeypatch.setattr(lanes.DeviceWorker, "compute", limited)


def short(**changed):
    grid = wd.Grid(decay=wd.logspace(wd.L2, 1e-3, 1e-1, 3), learning_rate=1e-3)
    return wd.fit_grid(MODEL, DATA, grid, progress=False, **{**SHORT, **changed})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plan", "told"),
    [
        (wd.Plan(2, 2), "lanes of 2 on 2 device.*trying once more with lanes of 2 on 1 cpu"),
        (wd.Plan(2, 1), "lanes of 2 on 1 device.*trying once more with lanes of 2 on 1 cpu.*examples from the host"),
    ],
)
def test_fit_grid_out_of_memory_tries_a_smaller_plan_with_the_same_bits(monkeypatch, plan, told):
    expected = short(plan=plan)
    exhausted(monkeypatch, 1)
    with pytest.warns(UserWarning, match=told):
        result = short(plan=plan)
    assert result.dataset.identical(expected.dataset)
    for member in range(3):
        same_bits(result.params(member), expected.params(member))


@pytest.mark.slow
def test_fit_grid_out_of_memory_twice_is_told(monkeypatch):
    exhausted(monkeypatch, 99)
    with (
        pytest.warns(UserWarning, match="trying once more"),
        pytest.raises(MemoryError, match=r"ran out of memory with lanes of 2 on 1 device.*RESOURCE_EXHAUSTED"),
    ):
        short(plan=wd.Plan(2, 2))


@pytest.mark.slow
def test_fit_grid_out_of_memory_does_not_stream_folds(monkeypatch):
    exhausted(monkeypatch, 1)
    folded = wd.data.folds(*DATA.train, num_folds=2)
    with pytest.raises(MemoryError, match=r"ran out of memory with lanes of 2 on 1 device"):
        wd.fit_grid(
            MODEL, folded, wd.Grid(learning_rate=[1e-3], fold=range(2)), plan=wd.Plan(2, 1), progress=False, **SHORT
        )


@pytest.mark.slow
def test_fit_grid_keeps_the_width_of_members_that_are_saved(monkeypatch, tmp_path):
    short(plan=None, directory=tmp_path)
    width = short(plan=None, directory=tmp_path).settings["plan"]["lane_width"]
    monkeypatch.setattr(planning, "reduced", narrower := Narrower())
    exhausted(monkeypatch, 1)
    with pytest.raises(MemoryError, match="ran out of memory"):
        short(plan=None, directory=tmp_path, num_steps=2 * SHORT["num_steps"])
    assert narrower.width_is_free == [False]
    assert width > 1


class Narrower:
    def __init__(self):
        self.width_is_free = []

    def __call__(self, plan, *, batch_size, width_is_free):
        self.width_is_free.append(width_is_free)


@pytest.mark.parametrize(
    ("plan", "backend_name", "width_is_free", "batch_size", "expected"),
    [
        (wd.Plan(8, 4), "cpu", True, 16, wd.Plan(8, 2)),
        (wd.Plan(8, 1), "cpu", True, 16, wd.Plan(4, 1)),
        (wd.Plan(8, 4), "gpu", True, 16, wd.Plan(4, 4)),
        (wd.Plan(8, 4), "gpu", False, 16, wd.Plan(8, 4, steps_per_call=100, streamed=True)),
        (wd.Plan(1, 4), "gpu", True, 16, wd.Plan(1, 4, steps_per_call=100, streamed=True)),
        (wd.Plan(8, 4, streamed=True), "gpu", False, 16, None),
        (wd.Plan(8, 4), "gpu", False, None, None),
    ],
)
def test_lowered_gives_up_no_bit_that_must_stay(monkeypatch, plan, backend_name, width_is_free, batch_size, expected):
    monkeypatch.setattr(jax, "default_backend", lambda: backend_name)
    assert planning.reduced(plan, batch_size=batch_size, width_is_free=width_is_free) == expected
