"""``weightdecay status``: the numbers of a run directory whose members are saved by hand, so that each is known."""

import json
import os

import numpy as np
import pytest
from typer.testing import CliRunner

from weightdecay.apps.cli import app
from weightdecay.storage import processes, run_directory, run_status
from weightdecay.storage.checkpoints import Snapshot

UNITS = {
    "units": [[0, [0, 1]], [0, [2, 3]], [0, [4, 5]], [0, [6, 7]]],
    "keys": [[f"key {number}" for number in range(8)]],
    "num_steps": 10,
}


def save(run, members, step):
    keys = [f"key {number}" for number in members]
    run.save(Snapshot(keys, step, [np.zeros(len(keys), np.float32)], {}, [], step == 10))
    run.flush()


@pytest.fixture
def shared(tmp_path):
    """Unit 0 is done, unit 1 half saved and this process is at 18 of its 20 steps; another host holds unit 2."""
    with run_directory.open_run(tmp_path, save_every=1e-9) as run:
        run.record_dependencies({"kind": "fit_grid", "eval_every": 5, "data": {}}, 10, call="call")
        leases = run.share(UNITS)
        assert [leases.take(unit) for unit in (0, 1)] == [True, True]
        save(run, [0, 1], 10)
        save(run, [2, 3], 5)
        run.processes.content |= {"units": {"1": 18}, "done": 38, "seconds": 19.0}
        run.processes.write()
        other = f"{'a-long-name' * 4}_77_123_boot_beef"
        content = {"process": 77, "host": "a-long-name" * 4, "since": "Fri Nov 27 21:24:21 2026", "call": "call"}
        file = tmp_path / "processes" / f"{other}.json"
        file.write_text(json.dumps({**content, "units": {"2": 4}, "done": 4, "seconds": 4.0, "beat": 9}))
        (tmp_path / "leases" / "call" / "2").write_text(other)
        yield tmp_path, file


def test_status_counts_what_everybody_trains(shared):
    directory, _ = shared
    status = run_status.read(directory)
    assert (status.members, status.members_done) == (8, 2)
    assert (status.member_steps, status.member_steps_done) == (80, 20 + 18 + 4)
    assert status.lanes_free == 1
    assert not status.is_finished
    assert status.seconds_left == pytest.approx((80 - 42) / (38 / 19 + 4 / 4))
    assert {process.pid: (process.lanes, process.state) for process in status.processes} == {
        os.getpid(): ([1], "alive"),
        77: ([2], "alive"),
    }


def test_a_process_that_is_not_heard_is_silent_and_its_lanes_wait(shared):
    directory, file = shared
    long_ago = file.stat().st_mtime - 2 * processes.EXPIRY
    os.utime(file, (long_ago, long_ago))
    status = run_status.read(directory)
    assert [process.state for process in status.processes if process.pid == 77] == ["silent"]
    assert (status.lanes_free, status.member_steps_done) == (2, 38)


def test_the_command_prints_80_columns_and_names_who_trains(shared):
    directory, _ = shared
    shown = CliRunner().invoke(app, ["status", str(directory)])
    assert shown.exit_code == 0, shown.output
    lines = shown.output.splitlines()
    assert lines[1] == "2 of 8 members are done; 52 % of all member-steps."
    assert lines[2].startswith("2 process(es) train; about 12.7 s left.")
    assert lines[3] == "1 lanes wait for a process."
    assert max(map(len, lines[1:])) <= 80
    assert any(line.startswith("a-long-namea-long...  77 ") for line in lines)


def test_the_command_refuses_a_folder_without_a_run(tmp_path):
    shown = CliRunner().invoke(app, ["status", str(tmp_path)])
    assert shown.exit_code == 2
    assert "holds no run" in shown.output
