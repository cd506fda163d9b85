"""Several processes on one run directory: every member is trained once, and the bits are those of one process alone."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from shared_run import MEMBERS, digest, fit

import weightdecay as wd
from weightdecay.apps import status as status_text
from weightdecay.storage import processes, run_directory, run_status

SCRIPT = Path(__file__).with_name("shared_run.py")
LEFT = {"run.json", "checkpoints", "result"}


@pytest.fixture(scope="module")
def alone():
    return digest(fit())


def start(directory, pause=0.0, heartbeat=0.2, expiry=60.0):
    arguments = [sys.executable, SCRIPT, directory, f"{pause}", f"{heartbeat}", f"{expiry}"]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process):
    output, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    return json.loads(output.splitlines()[-1])


def wait_for(condition, process=None):
    deadline = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None, process.stderr.read()
        time.sleep(0.02)


def wait_for_a_save(directory, process):
    saves = set(directory.glob("checkpoints/*"))
    wait_for(lambda: process.poll() is not None or set(directory.glob("checkpoints/*")) - saves)


def leases(directory):
    return [path.name for path in directory.glob("leases/*/*") if path.name[0].isdecimal()]


@pytest.mark.slow
def test_processes_share_the_lanes_and_return_the_same_result(tmp_path, alone):
    directory = tmp_path / "run"
    reports = [ended(process) for process in [start(directory, pause=0.5) for _ in range(2)]]
    assert {report["digest"] for report in reports} == {alone}
    assert sorted(itertools.chain(*(report["trained"] for report in reports))) == list(range(MEMBERS))
    assert wd.load(directory).dataset.sizes["member"] == MEMBERS
    assert {entry.name for entry in directory.iterdir()} == LEFT
    assert digest(fit(directory)) == alone
    status = run_status.read(directory)
    assert (status.members, status.members_done, status.is_finished) == (MEMBERS, MEMBERS, True)
    assert status_text.described(directory, status).endswith("The run is finished.")


@pytest.mark.slow
def test_processes_killed_at_random_moments_lose_nothing(tmp_path, alone):
    """Two processes at a time, eight kills; who is killed is replaced by a new process."""
    directory, generator, kills = tmp_path / "run", random.Random(0), 0
    running = [start(directory, pause=1.0) for _ in range(2)]
    reports = []
    while running:
        process = generator.choice(running)
        if kills < 8 and process.poll() is None:
            if kills % 2 == 0:  # while it starts, compiles or joins
                time.sleep(generator.uniform(0, 3))
            else:
                wait_for_a_save(directory, process)
            if process.poll() is None:
                process.kill()
                process.communicate()
                running.remove(process)
                kills += 1
                if kills < 8 or not running:
                    running.append(start(directory, pause=1.0))
                continue
        running.remove(process)
        reports.append(ended(process))
    assert kills >= 4  # the run may be done earlier
    assert {report["digest"] for report in reports} == {alone}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*was killed or crashed")
        assert digest(fit(directory)) == alone
    assert {entry.name for entry in directory.iterdir()} == LEFT


@pytest.mark.slow
def test_the_lanes_of_a_process_that_hangs_are_taken_over(tmp_path, alone):
    """A stopped process beats no more, and its leases expire; when it goes on, it does no harm."""
    directory = tmp_path / "run"
    hanging = start(directory, pause=3.0)
    wait_for(lambda: leases(directory), hanging)
    os.kill(hanging.pid, signal.SIGSTOP)
    status = run_status.read(directory)
    assert [(process.pid, process.state) for process in status.processes] == [(hanging.pid, "alive")]
    try:
        report = ended(start(directory, heartbeat=0.2, expiry=3.0))
    finally:
        os.kill(hanging.pid, signal.SIGCONT)
    assert report["digest"] == alone
    assert sorted(report["trained"]) == list(range(MEMBERS))
    assert ended(hanging)["digest"] == alone


@pytest.mark.slow
def test_a_call_for_other_members_or_with_other_settings_is_refused_meanwhile(tmp_path, alone, monkeypatch):
    monkeypatch.setattr(processes, "EXPIRY", 1e9)
    directory = tmp_path / "run"
    process = start(directory)
    wait_for(lambda: leases(directory), process)
    os.kill(process.pid, signal.SIGSTOP)  # it is there as long as this test takes
    try:
        in_use = rf"in use by process {process.pid} on .* \(since .*\)"
        for changed in ({"seeds": 5}, {"num_steps": 8}):
            with pytest.raises(RuntimeError, match=f"{in_use}, which trains other members"):
                fit(directory, **changed)
        with pytest.raises(ValueError, match="a different run: batch_size was 20 and is 10"):
            fit(directory, batch_size=10)
        with pytest.raises(RuntimeError, match=f"{in_use}: wait .* A run with a budget or a strategy cannot be shared"):
            fit(directory, budget=1.0)
        text = status_text.described(directory, run_status.read(directory))
        assert f"of {MEMBERS} members are done" in text
        assert f"{process.pid}" in text
        assert max(map(len, text.splitlines()[1:])) <= 80
    finally:
        os.kill(process.pid, signal.SIGCONT)
    assert ended(process)["digest"] == alone
    assert json.loads((directory / "run.json").read_text())["num_steps"] == 6
    assert digest(fit(directory, seeds=5)) == digest(fit(seeds=5))


def test_a_race_is_not_shared(tmp_path):
    with (
        run_directory.open_run(tmp_path, save_every=1, alone=True),
        pytest.raises(RuntimeError, match=rf"in use by process {os.getpid()} .* cannot be shared by several processes"),
    ):
        fit(tmp_path)


def test_status_of_what_is_not_a_run_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no run; give the directory of a call of wd.fit_grid"):
        run_status.read(tmp_path)
