"""A run that is not finished is shown as far as it is saved, with the numbers that the finished run has."""

import signal
import threading
import time

import numpy as np
import pytest
from typer.testing import CliRunner

import weightdecay as wd
from weightdecay.apps import cli
from weightdecay.core import files
from weightdecay.results import unfinished
from weightdecay.search import member
from weightdecay.storage import training_records

DATA = wd.data.digits(num_train=60)
GRID = wd.Grid(
    decay=[wd.NoDecay(), (wd.Masked(wd.L2(0.1), wd.masks.first), wd.L1(1e-3))],
    learning_rate=[1e-2, 3e-2, 1e30],
    seed=range(2),
)
METRICS = ["validation_loss", "validation_accuracy", "train_loss", "weight_norm"]


def fit(directory, grid=GRID):
    plan = wd.Plan(lane_width=4, num_devices=1, steps_per_call=10)
    asked = {"num_steps": 40, "batch_size": 20, "eval_every": 10, "progress": False, "plan": plan}
    return wd.fit_grid(wd.models.MLP((4,)), DATA, grid, directory=directory, save_every=1e-9, **asked)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A directory whose run was interrupted in its second lane, and what the interrupted call returned."""
    directory, seen = tmp_path_factory.mktemp("run") / "run", []
    write_metrics = training_records.TrainingRecords.write_metrics

    def interrupted(self, *arguments):
        write_metrics(self, *arguments)
        seen.append(arguments)
        if len(seen) == 7:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            time.sleep(1)  # until the main thread has heard of it

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_records.TrainingRecords, "write_metrics", interrupted)
        with pytest.warns(UserWarning, match="interrupted; what was trained is saved"):
            part = fit(directory)
    return directory, part


@pytest.mark.slow
def test_unfinished_run_has_the_numbers_that_are_saved(run):
    directory, part = run
    assert unfinished.is_unfinished(directory)
    result = unfinished.load(directory)
    assert [str(member) for member in result.members] == [str(member) for member in GRID]
    progress = result.settings["unfinished"]
    assert (progress["members"], progress["num_steps"]) == (12, 40)
    assert 0 < progress["done"] <= progress["saved"] < 12
    for name in METRICS:
        expected = part.dataset[name].sel(step=result.dataset["step"].values).values
        np.testing.assert_array_equal(result.dataset[name].values, expected)
    compared = result.dataset["step"].values[-1]
    whole = np.isfinite(part.dataset["validation_loss"].sel(step=compared).values).reshape(-1, 2).all(axis=1)
    begun = np.isfinite(part.dataset["validation_loss"].values[:, 0]).reshape(-1, 2).all(axis=1)
    assert whole.sum() >= begun.sum() / 2 > 0
    assert whole[result.best().number]


@pytest.mark.slow
def test_command_reports_an_unfinished_run_and_then_the_finished_one(run, tmp_path):
    directory, _ = run
    output = tmp_path / "report.html"
    command = ["report", str(directory), "--output", str(output)]
    shown = CliRunner().invoke(cli.app, command)
    assert shown.exit_code == 0, shown.output
    page = output.read_text(encoding="utf-8")
    assert "The run is not finished." in page
    assert "of 12 members are done" in page
    assert "http-equiv" not in page
    assert {entry.name for entry in directory.iterdir()} >= {"members.json", "run.json"}
    threads = []

    def resumed(_):  # in place of waiting: the run goes on meanwhile
        written = output.read_text(encoding="utf-8")
        assert '<meta http-equiv="refresh" content="2">' in written
        threads.append(fit(directory))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("weightdecay.apps.cli_report.time.sleep", resumed)
        shown = CliRunner().invoke(cli.app, [*command, "--every", "2"])
    assert shown.exit_code == 0, shown.output
    assert len(threads) == 1
    page = output.read_text(encoding="utf-8")
    assert "The run is not finished." not in page
    assert "http-equiv" not in page
    assert not (directory / "members.json").exists()
    assert unfinished.load(directory).best().number == threads[0].best().number


def test_command_says_what_is_wrong(tmp_path):
    shown = CliRunner().invoke(cli.app, ["report", str(tmp_path), "--every", "0"])
    assert shown.exit_code == 2
    assert shown.stderr.startswith("weightdecay: --every: every is 0; give a number of seconds above 0.")
    description = {"format": "weightdecay run", "version": 1, "num_steps": 2, "depends_on": {}}
    files.write_json(tmp_path / "run.json", description)
    recorded = {"format": "weightdecay members 1", "members": {"a": member.encode(GRID[0])}}
    files.write_json(tmp_path / "members.json", recorded)
    with pytest.raises(FileNotFoundError, match="of which no evaluation is saved yet"):
        unfinished.load(tmp_path)
    (tmp_path / "members.json").write_text("{}")
    with pytest.raises(ValueError, match=r"file .*members\.json is damaged or of another version"):
        unfinished.load(tmp_path)
