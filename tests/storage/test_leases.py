"""Leases, the turn and the index of checkpoints: what holds while several processes use one directory.

The processes are real ones, forked before anything of JAX runs in them; each claim is counted against the number that
follows from the definition of mutual exclusion: one winner, every unit once, no update lost.
"""

import itertools
import json
import multiprocessing
import os
import signal
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from weightdecay.storage import checkpoints, processes
from weightdecay.storage.checkpoint_index import CheckpointIndex
from weightdecay.storage.checkpoints import Snapshot
from weightdecay.storage.leases import Leases, holders
from weightdecay.storage.processes import Identity, Processes

FORK = multiprocessing.get_context("fork")


def units(count):
    return {"units": [[0, [number]] for number in range(count)], "keys": [[f"{n}" for n in range(count)]]}


def entered(directory):
    present = Processes(directory)
    present.enter()
    return present


def in_processes(function, count, *arguments):
    """Call a function in forked processes at the same time, and return what they return."""
    results, gate = FORK.SimpleQueue(), FORK.Barrier(count)

    def run(number):
        gate.wait()
        try:
            results.put((number, function(number, *arguments)))
        except BaseException as error:
            results.put((number, repr(error)))
        gate.wait()  # nobody is dead before all have returned

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX warns of forks
        children = [FORK.Process(target=run, args=(number,)) for number in range(count)]
        for child in children:
            child.start()
        returned = dict(results.get() for _ in children)
        for child in children:
            child.join()
    return [returned[number] for number in range(count)]


def killed_process(directory, function=lambda present: None):
    """A process that registers itself, does something, and is killed; return its name."""
    names = FORK.SimpleQueue()

    def run():
        present = entered(directory)
        function(present)
        names.put(present.name)
        time.sleep(60)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = FORK.Process(target=run)
        child.start()
    name = names.get()
    assert not Processes(directory).is_dead(name)
    os.kill(child.pid, signal.SIGKILL)
    return name, child


def take_all(number, directory):
    present = entered(directory)
    leases = Leases(directory, "call", present, units(60))
    return [unit for unit in range(60) if leases.take(unit)]


def test_every_unit_is_taken_by_one_process(tmp_path):
    taken = in_processes(take_all, 6, tmp_path)
    assert sorted(itertools.chain(*taken)) == list(range(60))


def test_a_killed_process_is_dead_at_once_and_one_process_takes_over(tmp_path):
    name, child = killed_process(tmp_path, lambda present: Leases(tmp_path, "call", present, units(3)).take(1))
    present = entered(tmp_path)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # the signal has arrived; the process stays a zombie
    assert present.is_dead(name)
    child.join()
    assert present.is_dead(name)
    leases = Leases(tmp_path, "call", present, units(3))
    assert leases.is_lost(1)
    assert leases.holder(1) == ("1.0", name)
    taken = in_processes(lambda _: Leases(tmp_path, "call", entered(tmp_path), units(3)).take(1), 6)
    assert sum(taken) == 1
    present.leave()


def test_a_process_that_left_has_lost_its_units(tmp_path):
    gone, present = entered(tmp_path), entered(tmp_path)
    assert Leases(tmp_path, "call", gone, units(2)).take(0)
    leases = Leases(tmp_path, "call", present, units(2))
    assert not leases.take(0)
    gone.leave()
    assert leases.take(0)
    assert holders(tmp_path, "call", [0, 1]) == {0: present.name}
    present.leave()


def test_a_process_of_another_machine_expires_by_this_ones_clock(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "EXPIRY", 0.4)
    present, name = entered(tmp_path), "elsewhere_1_7_boot_abcd"
    assert Identity.of(name).host == "elsewhere"
    file = tmp_path / "processes" / f"{name}.json"

    def beat(number):
        file.write_text(json.dumps({"beat": number, "since": "tomorrow"}))
        os.utime(file, (0, 0))  # its clock is decades behind

    for number in range(6):
        beat(number)
        assert not present.is_dead(name)
        time.sleep(0.15)
    deadline = time.monotonic() + 30
    while not present.is_dead(name) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert present.is_dead(name)
    beat(7)
    assert not present.is_dead(name)  # it was only stopped
    present.leave()


def test_a_lease_without_a_name_expires(tmp_path, monkeypatch):
    """Its holder was killed between creating the file and writing its name."""
    monkeypatch.setattr(processes, "EXPIRY", 0.2)
    present = entered(tmp_path)
    leases = Leases(tmp_path, "call", present, units(2))
    (tmp_path / "leases" / "call" / "1").touch()
    assert not leases.take(1)
    time.sleep(0.3)
    assert leases.take(1)
    present.leave()


def test_a_process_id_that_another_process_has_now_is_dead(tmp_path):
    present = entered(tmp_path)
    identity = Identity.of(present.name)
    other = present.name.replace(f"_{identity.start}_", f"_{int(identity.start) - 1}_")
    assert not identity.is_gone()
    assert Identity.of(other).is_gone()
    present.leave()


def count_up(number, directory, times):
    present, counter = Processes(directory), directory / "counter"
    for _ in range(times):
        with present.turn():
            value = int(counter.read_text())
            time.sleep(0.001)
            counter.write_text(f"{value + 1}")


def test_turns_exclude_each_other(tmp_path):
    (tmp_path / "counter").write_text("0")
    in_processes(count_up, 5, tmp_path, 12)
    assert int((tmp_path / "counter").read_text()) == 60
    assert not [entry for entry in tmp_path.iterdir() if "turn" in entry.name]


def test_a_turn_of_a_killed_process_goes_on(tmp_path):
    kept = []  # a context that is dropped is left

    def take(present):
        kept.append(present.turn())
        kept[0].__enter__()

    _, child = killed_process(tmp_path, take)
    assert (tmp_path / "turn").exists()
    (tmp_path / "counter").write_text("0")
    in_processes(count_up, 3, tmp_path, 4)
    assert int((tmp_path / "counter").read_text()) == 12
    child.join()


def test_the_first_process_decides_on_the_units(tmp_path):
    published = in_processes(lambda number: Leases(tmp_path, "call", entered(tmp_path), units(number + 1)).units, 5)
    assert all(each == published[0] for each in published)
    assert [entry.name for entry in (tmp_path / "leases").iterdir()] == ["call"]


def test_only_one_process_writes_the_result(tmp_path):
    def write(_):
        leases = Leases(tmp_path, "call", entered(tmp_path), units(1))
        if leases.take_result():
            time.sleep(0.2)
            leases.result_is_written()
            return 1
        return 0

    assert sum(in_processes(write, 5)) == 1


def snapshot(keys, step, *, done=False):
    values = np.array([hash_of(key) + step for key in keys], np.float32)
    return Snapshot(list(keys), step, [values], {}, [], done)


def hash_of(key):
    return 100 * ord(key)


def test_two_writers_number_their_checkpoints_apart_and_read_each_other(tmp_path):
    one, other = CheckpointIndex(tmp_path, "one"), CheckpointIndex(tmp_path, "other")

    def write(index, key):
        for step in range(1, 7):
            index.write([snapshot([key], step, done=step == 6)], lambda: None)

    threads = [threading.Thread(target=write, args=pair) for pair in ((one, "a"), (other, "b"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in (one, other):
        index.refresh()
        assert (index.step("a"), index.step("b")) == (6, 6)
        np.testing.assert_array_equal(index.read(["b", "a"]).leaves[0], [hash_of("b") + 6, hash_of("a") + 6])
    assert len(checkpoints.numbers(tmp_path)) == 2  # one for each member that is done
    assert all(entry.name.isdecimal() for entry in tmp_path.iterdir())


def test_a_checkpoint_that_is_removed_meanwhile_is_read_from_a_later_one(tmp_path):
    writer, reader = CheckpointIndex(tmp_path, "writer"), CheckpointIndex(tmp_path, "reader")
    writer.write([snapshot(["a"], 1)], lambda: None)
    reader.refresh()
    for step in (2, 3, 4):
        writer.write([snapshot(["a"], step, done=step == 4)], lambda: None)
    read = reader.read(["a"])
    assert (read.step, read.leaves[0].tolist()) == (4, [hash_of("a") + 4])


def test_a_number_that_another_checkpoint_has_now_is_not_mistaken(tmp_path):
    """A reader knows checkpoint 1, which is removed; its number goes to a checkpoint of other members."""
    writer, reader = CheckpointIndex(tmp_path, "writer"), CheckpointIndex(tmp_path, "reader")
    writer.write([snapshot(["a"], 1)], lambda: None)
    reader.refresh()
    Path(tmp_path / "00000001").rename(tmp_path / ".away")
    CheckpointIndex(tmp_path, "third").write([snapshot(["b"], 5)], lambda: None)
    checkpoints.read.cache_clear()
    with pytest.raises(OSError, match=r"a"):
        reader.read(["a"])
    assert reader.read(["b"]).leaves[0].tolist() == [hash_of("b") + 5]


def test_members_of_a_dead_writer_go_on_and_its_checkpoint_is_removed(tmp_path):
    dead = CheckpointIndex(tmp_path, "dead")
    dead.write([snapshot(["a", "b"], 2)], lambda: None)
    others = [CheckpointIndex(tmp_path, name) for name in ("one", "two")]
    for index, key in zip(others, "ab", strict=True):
        index.refresh()
        assert index.read([key]).step == 2
        index.write([snapshot([key], 4, done=True)], lambda: None)
    for index in others:
        index.refresh()
    assert sorted(checkpoints.numbers(tmp_path)) == [2, 3]
