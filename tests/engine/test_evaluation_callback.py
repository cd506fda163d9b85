"""`on_evaluation`: the tables that it gets are the result's own numbers, and nothing that it does changes a run."""

import threading
import time

import numpy as np
import pandas as pd
import pytest

import weightdecay as wd
from compare import same_bits
from weightdecay.storage.training_records import TrainingRecords

DATA = wd.data.digits(num_train=64)
MODEL = wd.models.MLP((6,))
GRID = wd.Grid(decay=[wd.NoDecay(), wd.L2(0.01), wd.ProximalL1(0.01)], learning_rate=[0.01, 1e30], seed=range(2))
SHORT = {"num_steps": 9, "batch_size": 16, "eval_every": 4, "optimizer": wd.sgd, "progress": False}
SETTINGS = {**SHORT, "plan": wd.Plan(2, 2)}


def fit(on_evaluation=None, grid=GRID, **settings):
    return wd.fit_grid(MODEL, DATA, grid, on_evaluation=on_evaluation, **{**SETTINGS, **settings})


def assert_same_result(ours, theirs):
    for name in theirs.dataset.data_vars:
        assert ours.dataset[name].values.tobytes() == theirs.dataset[name].values.tobytes(), name
    for member in range(len(theirs)):
        same_bits(ours.params(member), theirs.params(member))


@pytest.fixture(scope="module")
def plain():
    return fit()


def test_tables_hold_every_number_of_the_result(plain):
    tables = []
    assert_same_result(fit(tables.append), plain)
    rows = pd.concat(tables)
    assert all(table["step"].nunique() == 1 for table in tables)
    assert sorted(zip(rows["member"], rows["step"], strict=True)) == [(m, s) for m in range(12) for s in (4, 8, 9)]
    rows = rows.set_index(["member", "step"]).sort_index()
    dataset = plain.dataset
    for name in ("decay", "coefficient", "learning_rate", "seed", "candidate"):
        for member in range(12):
            np.testing.assert_array_equal(rows.loc[member][name], [dataset[name].values[member]] * 3)
    computed_later = {"time_scale_epochs", "predicted_rotation"}
    for name, values in dataset.data_vars.items():
        if values.dims == ("member", "step") and name not in computed_later:
            np.testing.assert_array_equal(rows[name].to_numpy().reshape(12, 3), values.values)
        if values.dims == ("member", "step", "layer") and name not in computed_later:
            for layer in dataset["layer"].values:
                of_layer = rows[f"{name}/{layer}"].to_numpy().reshape(12, 3)
                np.testing.assert_array_equal(of_layer, values.sel(layer=layer).values)


def test_calls_come_one_after_the_other_in_one_thread_and_are_done_at_the_end():
    threads, running, steps = set(), [], {}

    def slow(table):
        assert not running
        running.append(None)
        threads.add(threading.current_thread())
        time.sleep(0.02)
        for member in table["member"]:
            steps.setdefault(member, []).append(int(table["step"].iloc[0]))
        running.clear()

    fit(slow)
    assert steps == {member: [4, 8, 9] for member in range(12)}
    assert len(threads) == 1
    assert threading.main_thread() not in threads
    assert not next(iter(threads)).is_alive()


def test_training_does_not_wait_for_the_function(monkeypatch):
    """The function waits for the end of the lane, which would never come if training waited for the function."""
    lane_has_ended, waits = threading.Event(), []
    write = TrainingRecords.write_members

    def write_members(self, *arguments, **keywords):
        lane_has_ended.set()
        return write(self, *arguments, **keywords)

    monkeypatch.setattr(TrainingRecords, "write_members", write_members)
    fit(lambda table: waits.append(lane_has_ended.wait(60)), wd.Grid(learning_rate=[0.01]))
    assert waits == [True] * 3


@pytest.mark.parametrize("error", [ValueError("no disk"), SystemExit(3)])
def test_an_exception_is_reported_once_and_changes_nothing(plain, capsys, error):
    calls = []

    def raises(table):
        calls.append(len(table))
        raise error

    with pytest.warns(
        UserWarning, match=r"on_evaluation raised an exception in 18 of 18 calls, .*(no disk|3)"
    ) as caught:
        result = fit(raises)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert len(calls) == 18
    assert capsys.readouterr().err.count("Traceback") == 1
    assert_same_result(result, plain)


def test_a_table_is_a_copy(plain):
    def changes(table):
        for name in table.select_dtypes("number"):
            table.loc[:, name] = 0
            values = table[name].to_numpy()  # a view of the table's own memory
            values.flags.writeable = True
            values[:] = 0

    assert_same_result(fit(changes), plain)


@pytest.mark.slow
def test_a_run_directory_does_not_know_of_it(plain, tmp_path):
    """A run that was cut off resumes with a function or without one; only what is trained anew is reported."""
    part = wd.Grid(decay=[wd.NoDecay(), wd.L2(0.01)], learning_rate=[0.01, 1e30], seed=range(2))
    fit(lambda table: None, part, directory=tmp_path / "run")
    tables = []
    assert_same_result(fit(tables.append, directory=tmp_path / "run"), plain)
    assert set(pd.concat(tables)["decay"]) == {"ProximalL1"}
    assert_same_result(fit(directory=tmp_path / "run"), plain)


@pytest.mark.slow
def test_members_that_stopped_are_reported_as_they_are_recorded():
    tables = []
    grid = wd.Grid(learning_rate=[1.5], seed=range(3))
    settings = {"num_steps": 24, "eval_every": 2, "patience": 1}
    result = fit(tables.append, grid, **settings)
    rows = pd.concat(tables).set_index(["member", "step"])["validation_loss"].sort_index().to_numpy().reshape(3, 12)
    assert (result.dataset["stopped_at"] > 0).any()
    np.testing.assert_array_equal(rows[:, :-1], result.dataset["validation_loss"].values[:, :-1])


def test_fit_and_an_extended_result_report_as_well():
    tables = []
    result = wd.fit(MODEL, DATA, decay=wd.L2(0.1), learning_rate=0.01, on_evaluation=tables.append, **SETTINGS)
    assert [int(table["step"].iloc[0]) for table in tables] == [4, 8, 9]
    result.extend(seeds=[1])
    assert [int(table["seed"].iloc[0]) for table in tables] == [0, 0, 0, 1, 1, 1]


def test_what_is_no_function_is_refused(without_beartype):
    with pytest.raises(TypeError, match="on_evaluation is 'log'; give a function of one table"):
        fit("log")
