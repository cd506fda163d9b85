"""Trackers: what was logged is read back with the libraries of the trackers themselves, and equals the result."""

import json
import struct
import threading

import numpy as np
import pytest

import weightdecay as wd
from weightdecay.core.checks import ArgumentError, ArgumentTypeError
from weightdecay.results.trackers import base

DATA = wd.data.digits(num_train=64)
MODEL = wd.models.MLP((4,))
RULES = [wd.NoDecay(), wd.L2(0.01), wd.ElasticNet(0.01, 0.1)]
GRID = wd.Grid(decay=RULES, learning_rate=[0.01, 1e30], seed=range(2))  # half of the members diverge
STEPS = (4, 8, 9)
# Libraries of the trackers use what others have deprecated.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def fit(**settings):
    run = {"num_steps": 9, "batch_size": 16, "eval_every": 4, "optimizer": wd.sgd, "progress": False}
    return wd.fit_grid(MODEL, DATA, GRID, **run, **settings)


@pytest.fixture(scope="module")
def result():
    return fit()


def expected_curve(result, name, members):
    """Steps and values of a curve by NumPy: means over members, without what is not finite."""
    values = result.dataset[name].values[list(members)].astype(np.float64).mean(axis=0)
    return [(step, value) for step, value in zip(STEPS, values, strict=True) if np.isfinite(value)]


def assert_curves(result, logged, each="candidate"):
    """``logged`` has by number of the run its curves by name, each a list of pairs of step and value."""
    groups = (
        [candidate.members for candidate in result.candidates()] if each == "candidate" else [[i] for i in range(12)]
    )
    assert sorted(logged) == list(range(len(groups)))
    by_step = [name for name, values in result.dataset.data_vars.items() if values.dims == ("member", "step")]
    for number, members in enumerate(groups):
        for name in by_step:
            points, expected = sorted(logged[number].get(name, [])), expected_curve(result, name, members)
            assert [step for step, _ in points] == [step for step, _ in expected], (number, name)
            # Files have float32.
            np.testing.assert_allclose([value for _, value in points], [value for _, value in expected], rtol=1e-6)
        if each == "candidate" and number == 0:
            own = result.dataset["validation_loss"].values[list(members), -1].astype(np.float64)
            error = own.std(ddof=1) / np.sqrt(2)
            np.testing.assert_allclose(logged[number]["validation_loss_standard_error"], [(9, error)], rtol=1e-5)
        diverged = (result.dataset["diverged_at"].values[list(members)] >= 0).sum()
        assert logged[number]["diverged"] == [(9, diverged)]


# MLflow.


def of_mlflow(folder, group):
    """Parent run, and nested runs by number, of an MLflow database."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("weightdecay")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if run.info.run_name == group]
    nested = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert all(run.info.status == "FINISHED" for run in runs)
    by_number = {int(run.info.run_name.split(":")[0].split(" ")[1]): run for run in nested}
    curves = {
        number: {
            name: [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]
            for name in run.data.metrics
        }
        for number, run in by_number.items()
    }
    return client, parent, by_number, curves


@pytest.mark.slow
def test_mlflow_has_runs_curves_hyperparameters_and_the_report(result, tmp_path):
    pytest.importorskip("mlflow")
    pytest.importorskip("alembic")
    places = result.log("mlflow", to=tmp_path, group="mine")
    client, parent, runs, curves = of_mlflow(tmp_path, "mine")
    assert places == [parent.info.run_id, *(runs[number].info.run_id for number in range(6))]
    assert_curves(result, curves)
    assert runs[4].data.params == {
        "candidate": "4",
        "decay": "ElasticNet", "l1_coefficient": "0.01", "l2_coefficient": "0.1", "learning_rate": "0.01",
        "rule": "ElasticNet(0.01, 0.1)",
    }  # fmt: skip
    assert "coefficient" not in runs[0].data.params
    assert parent.data.params["num_steps"] == "9"
    assert parent.data.params["optimizer"] == "sgd"
    assert parent.data.tags["mlflow.note.content"] == result.best().summary
    (report,) = client.list_artifacts(parent.info.run_id)
    page = client.download_artifacts(parent.info.run_id, report.path, str(tmp_path))
    result.report(tmp_path / "own.html")
    assert open(page).read() == (tmp_path / "own.html").read_text()

    live = fit(log_to=wd.trackers.MLflow(tmp_path, group="during", each="member"))
    _, _, runs, curves = of_mlflow(tmp_path, "during")
    assert_curves(live, curves, each="member")
    assert runs[3].data.params["seed"] == "1"


# TensorBoard.


def of_tensorboard(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    readers = {}
    for path in sorted(folder.glob("*-[0-9]*")):
        reader = readers[int(path.name.split("-")[1])] = EventAccumulator(str(path), size_guidance={"scalars": 0})
        reader.Reload()
    curves = {
        number: {tag: [(e.step, e.value) for e in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}
        for number, reader in readers.items()
    }
    return readers, curves


@pytest.mark.slow
@pytest.mark.parametrize("each", ["candidate", "member"])
def test_tensorboard_has_runs_curves_hyperparameters_and_the_report(result, tmp_path, each):
    pytest.importorskip("tensorboardX")
    pytest.importorskip("tensorboard")
    from tensorboard.plugins.hparams import plugin_data_pb2

    places = result.log("tensorboard", to=tmp_path, group="a/b", each=each)
    folder = tmp_path / "a-b"
    readers, curves = of_tensorboard(folder)
    assert places == [str(folder), *(str(folder / f"{each}-{number:04d}") for number in readers)]
    assert_curves(result, curves, each)
    number = 2 if each == "candidate" else 5  # candidate 2 has members 4 and 5
    content = readers[number].SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    given = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert given["coefficient"].number_value == 0.01
    assert given["decay"].string_value == "L2"
    assert ("seed" in given) == (each == "member")
    assert (folder / "report.html").read_text().startswith("<!DOCTYPE html>")


@pytest.mark.slow
def test_tensorboard_during_a_run_has_the_same_curves(tmp_path):
    pytest.importorskip("tensorboardX")
    pytest.importorskip("tensorboard")
    live = fit(log_to=wd.trackers.TensorBoard(tmp_path, group="live"), plan=wd.Plan(2, 2))
    assert_curves(live, of_tensorboard(tmp_path / "live")[1])


@pytest.mark.slow
def test_layers_are_logged_where_they_are_asked_for(result, tmp_path):
    pytest.importorskip("tensorboardX")
    pytest.importorskip("tensorboard")
    result.log("tensorboard", to=tmp_path, group="g", layers=True)
    rotation = of_tensorboard(tmp_path / "g")[1][0]["rotation/Dense_0/kernel"]
    own = result.dataset["rotation"].sel(layer="Dense_0/kernel").values[:2].mean(axis=0)
    np.testing.assert_allclose([value for _, value in rotation], own, rtol=1e-6)


# Weights & Biases, offline.


def records_of_wandb(file):
    """Records of an offline run: the log format of LevelDB, with blocks of 32 KiB and records in parts."""
    from wandb.proto import wandb_internal_pb2

    content, at, part, records = file.read_bytes(), 7, b"", []
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        part += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            records.append(wandb_internal_pb2.Record.FromString(part))
            part = b""
    return records


def of_wandb(folder):
    runs, curves, reports = {}, {}, []
    for file in folder.glob("wandb/offline-run-*/*.wandb"):
        records = records_of_wandb(file)
        of_kind = lambda kind: [getattr(one, kind) for one in records if one.WhichOneof("record_type") == kind]  # noqa: B023, E731
        run = of_kind("run")[0]
        if run.job_type == "report":
            reports.append((run, of_kind("artifact")))
            continue
        number = int(run.display_name.split(":")[0].split(" ")[1])
        runs[number] = run, {item.key: json.loads(item.value_json) for item in run.config.update}
        own = curves.setdefault(number, {})
        for history in of_kind("history"):
            row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in history.item}
            for name in row.keys() - {"step", "_step", "_timestamp", "_runtime"}:
                own.setdefault(name, []).append((row["step"], row[name]))
    return runs, curves, reports


@pytest.mark.slow
def test_wandb_has_runs_curves_hyperparameters_and_the_report(result, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    places = result.log("wandb", to=tmp_path / "after", group="mine")
    runs, curves, reports = of_wandb(tmp_path / "after")
    assert sorted(places) == sorted([*(run.run_id for run, _ in runs.values()), reports[0][0].run_id])
    assert_curves(result, curves)
    assert {run.run_group for run, _ in runs.values()} == {"mine"}
    assert {name: runs[2][1][name] for name in ("decay", "coefficient", "learning_rate", "rule")} == {
        "decay": "L2", "coefficient": 0.01, "learning_rate": 0.01, "rule": "L2(0.01)",
    }  # fmt: skip
    ((of_group, artifacts),) = reports
    assert of_group.notes == result.best().summary
    assert [entry.path for entry in artifacts[0].manifest.contents] == ["report.html"]

    live = fit(log_to=wd.trackers.WandB(tmp_path / "during"))
    assert_curves(live, of_wandb(tmp_path / "during")[1])


# A run that is resumed, and trackers that fail.


class Recorded(base.Session):
    """A session in memory, which may fail or wait."""

    def __init__(self, fails_after=None, waits_for=None):
        self.calls, self.curves, self.aborted, self.closed, self.waited_in_vain = 0, {}, False, None, False
        self._fails_after, self._waits_for = fails_after, waits_for

    def points(self, run, points):
        self.calls += 1
        if self._fails_after is not None and self.calls > self._fails_after:
            raise ConnectionError("no server")
        if self._waits_for is not None and not self.waited_in_vain:
            self.waited_in_vain = not self._waits_for.wait(60)
        for step, values in points:
            for name, value in values.items():
                self.curves.setdefault(run.number, {}).setdefault(name, []).append((step, value))

    def end(self, run, last):
        pass

    def close(self, settings, decision, report):
        self.closed = settings

    def abort(self):
        self.aborted = True

    def places(self):
        return []


class InMemory(base.Tracker):
    def session(self, group):
        return self.own


def in_memory(own, **settings):
    tracker = InMemory(**settings)
    object.__setattr__(tracker, "own", own)
    return tracker


def assert_same(ours, theirs):
    for name in theirs.dataset.data_vars:
        assert ours.dataset[name].values.tobytes() == theirs.dataset[name].values.tobytes(), name


@pytest.mark.slow
def test_tracker_that_fails_is_left_alone_and_reported_once(result):
    own = Recorded(fails_after=2)
    with pytest.warns(UserWarning, match=r"InMemory failed, .* the result is complete \(.*no server.*log\(") as caught:
        assert_same(fit(log_to=in_memory(own)), result)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert own.calls == 3
    with pytest.warns(UserWarning, match="InMemory failed") as caught:
        assert result.log(in_memory(Recorded(fails_after=0))) == []
    assert len(caught) == 1


@pytest.mark.slow
def test_tracker_that_does_not_answer_is_not_waited_for(result):
    released = threading.Event()
    own = Recorded(waits_for=released)
    with pytest.warns(UserWarning, match=r"InMemory was not done 0\.1 seconds after the training"):
        assert_same(fit(log_to=in_memory(own, timeout=0.1)), result)
    released.set()
    assert not own.waited_in_vain


def test_training_that_fails_ends_the_runs(monkeypatch):
    own = Recorded()

    def fails(*_, **__):
        raise RuntimeError("no device")

    monkeypatch.setattr("weightdecay.engine.fit.outcome.record_theory", fails)
    with pytest.raises(RuntimeError, match="no device"):
        fit(log_to=in_memory(own))
    assert own.aborted
    assert own.closed is None


@pytest.mark.slow
def test_resumed_run_is_logged_from_its_start(tmp_path):
    part = {"num_steps": 9, "batch_size": 16, "eval_every": 4, "optimizer": wd.sgd, "progress": False}
    smaller = wd.Grid(decay=RULES[:2], learning_rate=[0.01, 1e30], seed=range(2))
    wd.fit_grid(MODEL, DATA, smaller, directory=tmp_path / "run", **part)
    own = Recorded()
    assert_curves(fit(directory=tmp_path / "run", log_to=in_memory(own)), own.curves)


# Bad input.


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("tensorflow",), ArgumentError, "tracker is 'tensorflow'; give one of 'mlflow', 'wandb', 'tensorboard'"),
        ((3,), ArgumentTypeError, "tracker is 3; give one of 'mlflow'"),
        ((wd.trackers.TensorBoard, {"each": "seed"}), ArgumentError, "each is 'seed'; give one of 'candidate', 'mem"),
        ((wd.trackers.TensorBoard, {"timeout": 0}), ArgumentError, "timeout is 0; give seconds"),
        ((wd.trackers.TensorBoard, {"group": ""}), ArgumentError, "group is ''; give a name"),
    ],
)
def test_bad_tracker_is_refused_before_training(result, without_beartype, arguments, error, message):
    tracker = arguments[0] if len(arguments) == 1 else arguments[0](**arguments[1])
    with pytest.raises(error, match=message):
        result.log(tracker)
    with pytest.raises(error, match=message.replace("tracker is", "log_to is")):
        fit(log_to=tracker)


def test_unknown_setting_of_a_tracker_is_refused(result):
    with pytest.raises(ArgumentTypeError, match=r"with the settings to, group, each, layers, timeout: .*project"):
        result.log("tensorboard", project="mine")


def test_missing_library_is_refused_before_training(monkeypatch):
    monkeypatch.setattr(wd.trackers.WandB, "modules", ("no_such_library",))
    with pytest.raises(ArgumentError, match=r"WandB needs no_such_library, .* pip install 'weightdecay\[wandb\]'"):
        fit(log_to="wandb")


# Optuna.


def test_study_has_the_candidates_of_the_result(result, tmp_path):
    optuna = pytest.importorskip("optuna")
    url = f"sqlite:///{tmp_path}/study.db"
    result.to_optuna(url, name="mine")
    study = optuna.load_study(study_name="mine", storage=url)
    trials, candidates = study.trials, result.candidates()
    assert len(trials) == len(candidates) == 6
    assert study.direction == optuna.study.StudyDirection.MINIMIZE
    assert study.best_trial.user_attrs["candidate"] == result.best().number
    np.testing.assert_allclose(study.best_value, result.best().mean)
    for trial, candidate in zip(trials, candidates, strict=True):
        finite = np.isfinite(candidate.mean)
        assert trial.state == (optuna.trial.TrialState.COMPLETE if finite else optuna.trial.TrialState.FAIL)
        assert trial.params["decay"] == candidate.decay.name
        assert trial.params["learning_rate"] == candidate.hyperparameters["learning_rate"]
        curve = expected_curve(result, "validation_loss", candidate.members)
        assert list(trial.intermediate_values) == [step for step, _ in curve]
        np.testing.assert_allclose(list(trial.intermediate_values.values()), [value for _, value in curve])
    assert trials[2].params == {"decay": "L2", "coefficient of L2": 0.01, "learning_rate": 0.01}
    assert trials[4].params["l2_coefficient of ElasticNet"] == 0.1
    assert trials[0].distributions["learning_rate"].log
    with pytest.raises(ArgumentError, match="name is 'mine', and the storage has a study of this name"):
        result.to_optuna(url, name="mine")
    accuracy = result.to_optuna(metric="validation_accuracy")
    assert accuracy.direction == optuna.study.StudyDirection.MAXIMIZE


def test_study_is_drawn_by_optuna(result):
    optuna = pytest.importorskip("optuna")
    pytest.importorskip("plotly")
    study = result.to_optuna()
    finite = [candidate.mean for candidate in result.candidates() if np.isfinite(candidate.mean)]
    history = optuna.visualization.plot_optimization_history(study)
    np.testing.assert_allclose(history.data[0].y, finite)
    curves = optuna.visualization.plot_intermediate_values(study)
    np.testing.assert_allclose(curves.data[0].y[-1], result.candidates()[0].mean)
    slices = optuna.visualization.plot_slice(study, params=["coefficient of L2"])
    assert list(slices.data[0].x) == [0.01]


@pytest.mark.slow
def test_study_of_a_search_has_pruned_trials_and_leaves_out_what_was_not_trained():
    optuna = pytest.importorskip("optuna")
    grid = wd.Grid(decay=[wd.NoDecay(), *wd.logspace(wd.L2, 1e-4, 1e-1, 7)], learning_rate=0.01, seed=range(2))
    searched = wd.fit_grid(MODEL, DATA, grid, num_steps=8, batch_size=16, eval_every=4, budget=0.6, progress=False)
    dropped = searched.dataset["dropped_at"].values.reshape(8, 2)
    states = {trial.user_attrs["candidate"]: trial.state for trial in searched.to_optuna().trials}
    assert sorted(states) == np.flatnonzero((dropped != 0).any(axis=1)).tolist()
    assert len(states) < 8 or (dropped >= 0).any()
    for number, state in states.items():
        whole = (dropped[number] == -1).all()
        assert (state == optuna.trial.TrialState.COMPLETE) == whole
