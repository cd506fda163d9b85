"""Executors: whoever trains a grid, and whatever happens to workers, the bits are those of this process alone."""

import concurrent.futures
import contextlib
import functools
import multiprocessing
import os
import random
import signal
import threading
import time

import numpy as np
import pytest
from shared_run import digest, fit, grid

import weightdecay as wd
from weightdecay.core.checks import ArgumentError, ArgumentTypeError
from weightdecay.engine import executors
from weightdecay.storage import result_folder

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(scope="module")
def alone():
    return digest(fit())


class Through:
    """An executor of threads, whose tasks go through a function first."""

    num_workers = 2

    def __init__(self, change):
        self.pool, self.change, self.submitted = concurrent.futures.ThreadPoolExecutor(4), change, 0

    def submit(self, function, *arguments):
        self.submitted += 1
        return self.pool.submit(self.change, self.submitted, function, *arguments)


def test_tasks_in_threads_train_the_grid(alone):
    executor = Through(lambda number, function, *arguments: function(*arguments))
    assert digest(fit(executor=executor)) == alone
    assert executor.submitted == 2


def test_a_directory_of_an_executor_is_the_users(tmp_path, alone):
    executor = Through(lambda number, function, *arguments: function(*arguments))
    assert digest(fit(tmp_path / "run", executor=executor)) == alone
    assert {entry.name for entry in (tmp_path / "run").iterdir()} == {"run.json", "checkpoints", "result"}
    assert digest(fit(tmp_path / "run")) == alone


def test_a_temporary_directory_is_removed(tmp_path, monkeypatch, alone):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    executor = Through(lambda number, function, *arguments: function(*arguments))
    assert digest(fit(executor=executor)) == alone
    assert list(tmp_path.glob("weightdecay-*")) == []


def test_results_come_back_from_workers_that_do_not_see_the_directory(alone):
    def elsewhere(number, function, payload, directory, caller, *others):
        return function(payload, directory, "nobody", *others)

    assert digest(fit(executor=Through(elsewhere))) == alone


def test_a_task_whose_worker_dies_is_submitted_again(alone):
    def dies(number, function, *arguments):
        if number <= 3:
            raise ConnectionAbortedError("a worker is gone")
        return function(*arguments)

    executor = Through(dies)
    with pytest.warns(UserWarning, match=r"a task of the executor ended by ConnectionAbortedError: a worker is gone"):
        assert digest(fit(executor=executor)) == alone
    assert executor.submitted > 3


def test_a_grid_whose_workers_all_die_goes_on_in_its_directory(tmp_path, alone):
    def dies(number, function, *arguments):
        raise ConnectionAbortedError("gone")

    with (
        pytest.warns(UserWarning, match="ended by ConnectionAbortedError: gone; the others go on"),
        pytest.raises(RuntimeError, match=r"no task of the executor is left, of 2; .*make the same call again"),
    ):
        fit(tmp_path / "run", executor=Through(dies))
    assert digest(fit(tmp_path / "run")) == alone


def test_map_grid_runs_on_an_executor():
    executor = Through(lambda number, function, *arguments: function(*arguments))
    result = wd.map_grid(lambda h: {"twice": 2 * h["seed"]}, grid(), executor=executor, progress=False)
    np.testing.assert_array_equal(result["twice"], [2 * member["seed"] for member in grid()])


def test_what_is_no_executor_is_refused(without_beartype):
    with pytest.raises(ArgumentTypeError, match=r"executor is 3; give an object with submit\(function, \*arguments\)"):
        fit(executor=3)
    executor = Through(lambda number, function, *arguments: function(*arguments))
    with pytest.raises(ArgumentError, match="executor cannot train within a budget"):
        fit(executor=executor, budget=1.0)
    with pytest.raises(ArgumentTypeError, match="executor needs a call that can be pickled"):
        fit(
            executor=executor,
            metrics={"rmse": functools.partial(lambda lock, outputs, targets: outputs[:, 0], threading.Lock())},
        )
    with pytest.raises(ArgumentError, match="num_workers is 0"):
        executors.sized(executor, 0)


# Real executors; each skips where its package is missing.


def process_pool(request):
    pool = concurrent.futures.ProcessPoolExecutor(2, mp_context=SPAWN)
    request.addfinalizer(pool.shutdown)
    return pool


def loky_pool(request):
    loky = pytest.importorskip("loky")
    pool = loky.get_reusable_executor(2)
    request.addfinalizer(pool.shutdown)
    return pool


def dask_client(request):
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(2, threads_per_worker=1, processes=True, dashboard_address=None)
    client = distributed.Client(cluster)
    request.addfinalizer(cluster.close)
    request.addfinalizer(client.close)
    return client


def ray_cluster(request):
    ray = pytest.importorskip("ray")
    executor = executors.ray(2)
    request.addfinalizer(ray.shutdown)
    return executor


def submitit_executor(request):
    submitit = pytest.importorskip("submitit")
    executor = submitit.LocalExecutor(request.getfixturevalue("tmp_path") / "submitit")
    executor.update_parameters(timeout_min=10)
    return executors.sized(executor, 2)


REAL = [process_pool, loky_pool, dask_client, ray_cluster, submitit_executor]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the packages
@pytest.mark.parametrize("make", REAL)
def test_a_real_executor_trains_the_grid(make, request, alone):
    executor = make(request)
    assert digest(fit(executor=executor)) == alone
    factor = 3.0
    result = wd.map_grid(lambda h: factor * h["seed"], grid(), executor=executor, progress=False)
    np.testing.assert_array_equal(result.outputs, [factor * member["seed"] for member in grid()])


def workers_of(directory):
    from weightdecay.storage import processes

    return {content["process"] for content in processes.read(directory).values()} - {os.getpid()}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [dask_client, ray_cluster])
def test_workers_killed_at_random_moments_lose_nothing(make, request, tmp_path, alone):
    """Six kills, each of a worker that trains."""
    executor, directory, generator, kills = make(request), tmp_path / "run", random.Random(1), []
    ended = threading.Event()

    def kill():
        while len(kills) < 6 and not ended.wait(generator.uniform(0.2, 1.0)):
            for pid in sorted(workers_of(directory) - set(kills))[:1]:
                kills.append(pid)
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        result = fit(directory, executor=executor, on_evaluation=lambda table: time.sleep(0.3))
    finally:
        ended.set()
        killer.join()
    assert digest(result) == alone
    assert kills


def with_another_version(marker):
    """Make the first worker that starts one of another version of the library."""
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    versions = result_folder.versions()
    result_folder.versions = lambda: {**versions, "optax": "0.0.1"}


@pytest.mark.slow
def test_a_worker_with_another_version_refuses_and_the_others_go_on(tmp_path, alone):
    arguments = {"initializer": with_another_version, "initargs": (tmp_path / "first",)}
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=SPAWN, **arguments) as pool:
        with pytest.warns(UserWarning, match=r"a different run: optax was .* and is 0\.0\.1"):
            assert digest(fit(executor=pool)) == alone
