"""Workers take jobs in turn, each job once, and an error of one ends all."""

import contextlib
import threading

import jax
import jax.numpy as jnp
import pytest

from weightdecay.engine import workers


def collect(jobs, num_workers, do=lambda job: None):
    """Do jobs: who did which, and who has left."""
    done, left, lock, stop = [], [], threading.Lock(), threading.Event()

    def begin(index, stack):
        stack.callback(left.append, index)

        def one(job):
            do(job)
            with lock:
                done.append((index, job))

        return one

    try:
        workers.distribute(jobs, num_workers, begin, stop)
    finally:
        assert stop.is_set()
        assert sorted(left) == list(range(num_workers))
    return done


@pytest.mark.parametrize("num_workers", [1, 3, 8])
def test_distribute_does_every_job_once(num_workers):
    done = collect(iter(range(20)), num_workers)
    assert sorted(job for _, job in done) == list(range(20))
    if num_workers == 1:
        assert [job for _, job in done] == list(range(20))


def test_distribute_without_jobs_ends():
    assert collect([], 2) == []


def test_distribute_gives_a_job_to_whoever_is_free():
    held = threading.Barrier(2, timeout=60)
    done = collect(range(2), 2, do=lambda job: held.wait())  # each waits for the other
    assert {index for index, _ in done} == {0, 1}


def test_distribute_raises_what_a_job_raised_and_takes_no_more():
    begun = []

    def fail(job):
        begun.append(job)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        collect(range(1000), 1, do=fail)
    assert begun == [0]


def test_distribute_that_failed_leaves_the_other_jobs_alone():
    begun, both, stop = [], threading.Barrier(2, timeout=60), threading.Event()

    def do(job):
        begun.append(job)
        both.wait()
        if job == 0:
            raise OSError("disk full")
        assert stop.wait(60)  # as a lane does, which leaves at the end of its stretch

    with pytest.raises(OSError, match="disk full"):
        workers.distribute(range(1000), 2, lambda index, stack: do, stop)
    assert sorted(begun) == [0, 1]


def test_distribute_raises_what_the_making_of_jobs_raised():
    def jobs():
        yield 1
        raise ValueError("no program")

    with pytest.raises(ValueError, match="no program"):
        collect(jobs(), 2)


def test_distribute_raises_where_a_worker_cannot_begin():
    def begin(index, stack):
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        workers.distribute([1], 2, begin, threading.Event())


@pytest.mark.parametrize("wide", [False, True])
def test_distribute_computes_in_the_precision_of_the_caller(wide):
    seen = []
    with jax.enable_x64(True) if wide else contextlib.nullcontext():
        workers.distribute(
            [1], 1, lambda index, stack: lambda job: seen.append(jnp.zeros(()).dtype.name), threading.Event()
        )
    assert seen == ["float64" if wide else "float32"]
