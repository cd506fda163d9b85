"""The command line: what it prints, what it writes, and what it refuses."""

import re

import numpy as np
import pytest
from typer.testing import CliRunner

import weightdecay as wd
from weightdecay import cli

QUICK = ["--widths", "8", "--steps", "20", "--num-coefficients", "2", "--seeds", "2", "--train-size", "100"]


def run(*arguments):
    return CliRunner().invoke(cli.app, ["sweep", *map(str, arguments)])


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_sweep_prints_a_table_and_a_choice_and_writes_a_folder(here):
    shown = run("digits", *QUICK)
    assert shown.exit_code == 0, shown.output
    assert "100 training, 359 validation, 359 test examples. 9 candidates x 2 seeds = 18 members" in shown.stdout
    table = [line for line in shown.stdout.splitlines() if "%" in line]
    assert len(table) == 9
    assert [line[3:].split("(")[0] for line in table] == ["NoDecay"] + [
        kind for kind in ("L2", "L1", "ProximalL1", "Decoupled") for _ in range(2)
    ]
    result = wd.load("runs/digits")
    best = result.best()
    assert sum(line.startswith("*") for line in table) == 1
    assert f"* best mean:          {best}" in shown.stdout
    assert "one standard error: " in shown.stdout
    assert re.search(r"test accuracy: +\S+ 0\.\d{4} ± 0\.\d{4}, NoDecay\(\) 0\.\d{4} ± ", shown.stdout)
    assert ("Warning: " in shown.stdout) == (best.edge is not None)
    assert "written to runs/digits" in shown.stdout
    for name in ("validation-path.png", "sparsity.png"):
        assert (here / "runs" / "digits" / name).read_bytes().startswith(b"\x89PNG")
    assert "100%" in shown.stderr
    assert "left" in shown.stderr


def test_sweep_a_second_time_takes_a_new_folder(here):
    for folder in ("runs/digits", "runs/digits-2"):
        assert f"written to {folder}\n" in run("digits", *QUICK).stdout


def test_sweep_options_reach_the_grid(here):
    shown = run(
        "wine", "--rules", "no_decay,proximal_elastic_net", "--coefficients", 1e-3, 1e-1, "--num-coefficients", 3,
        "--learning-rates", "1e-2,2e-2", "--optimizer", "sgd", "--seeds", 1, "--steps", 7, "--batch-size", 9,
        "--label-noise", 0.1, "--output", "out", "--metric", "validation_accuracy", "--widths", "4,3",
    )  # fmt: skip
    assert shown.exit_code == 0, shown.output
    result = wd.load("out")
    assert len(result) == (1 + 3) * 2
    np.testing.assert_allclose(np.unique(result.dataset["l1_coefficient"])[:3], [1e-3, 1e-2, 1e-1])
    assert set(result.dataset["learning_rate"].values) == {1e-2, 2e-2}
    assert result.settings["optimizer"] == "sgd"
    assert (result.settings["num_steps"], result.settings["batch_size"]) == (7, 9)
    assert result.params(0)["Dense_1"]["kernel"].shape == (4, 3)
    assert "one standard error: not to be told from one seed" in shown.stdout
    assert "learning rate" in shown.stdout


def test_sweep_of_a_regression_has_a_loss_and_no_accuracy(here):
    shown = run("diabetes", *QUICK)
    assert shown.exit_code == 0, shown.output
    assert "test loss: " in shown.stdout
    assert "accuracy" not in shown.stdout


def test_sweep_where_every_member_diverges_keeps_the_result(here):
    shown = run("digits", *QUICK, "--learning-rates", "1e30")
    assert shown.exit_code == 2
    assert "no candidate has a finite validation_loss for every seed" in shown.stderr
    assert len(wd.load("runs/digits")) == 18


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mnist"], "dataset has 'mnist', which is unknown; give one of digits, breast_cancer, wine, diabetes"),
        (["digits", "--rules", "L2,L3"], "--rules: rules has 'L3', which is unknown; give one of NoDecay, L2, L1"),
        (["digits", "--rules", ","], "--rules: rules is empty; give words divided by commas"),
        (
            ["digits", "--coefficients", "-0.1", "0.1"],
            "--coefficients: start is -0.1; a logarithmic axis needs ends above 0",
        ),
        (["digits", "--num-coefficients", "0"], "--num-coefficients: num is 0; give at least 1"),
        (
            ["digits", "--learning-rates", "0"],
            "--learning-rates: learning_rate[0] is 0.0; a learning rate is a number above 0",
        ),
        (
            ["digits", "--learning-rates", "fast"],
            "--learning-rates: learning_rates is 'fast'; give numbers divided by commas",
        ),
        (["digits", "--widths", "64;64"], "--widths: widths is '64;64'; give numbers"),
        (["digits", "--seeds", "0"], "--seeds: seeds is 0; give at least 1"),
        (["digits", "--steps", "0"], "--steps: num_steps is 0; give a whole number of at least 1"),
        (["digits", "--batch-size", "5000"], "--batch-size: batch_size is 5000, but data.train has 1079 examples"),
        (["digits", "--train-size", "3"], "--train-size: num_train is 3; give 10 to 1069"),
        (["digits", "--label-noise", "2"], "--label-noise: label_noise is 2.0; give a share between 0 and 1"),
        (
            ["digits", "--optimizer", "adagrad"],
            "--optimizer: optimizer has 'adagrad', which is unknown; give one of adam, sgd",
        ),
        (["digits", "--metric", "luck"], "--metric: metric is 'luck'; give one of validation_loss"),
        (["diabetes", "--label-noise", "0.1"], "dataset diabetes is a regression"),
        (["digits", "--output", "taken"], "--output: folder taken holds something else (notes.txt)"),
        (["digits", "--output", "taken", "--overwrite"], "--output: folder taken holds something else (notes.txt)"),
        (
            ["digits", "--output", "taken/notes.txt"],
            "--output: folder taken/notes.txt is a file; give a new or an empty folder",
        ),
    ],
)
def test_sweep_refuses_with_one_message_and_touches_nothing(here, arguments, message, monkeypatch):
    def compiled(*_):
        raise AssertionError("something was compiled")

    monkeypatch.setattr("weightdecay.running._programs", compiled)
    (here / "taken").mkdir()
    (here / "taken" / "notes.txt").write_text("mine")
    shown = run(*arguments)
    assert shown.exit_code == 2, shown.output
    told = shown.stderr.splitlines()
    assert told[-1].startswith(f"weightdecay: {message}")
    assert "Traceback" not in shown.output
    assert [path.relative_to(here).as_posix() for path in here.rglob("*")] == ["taken", "taken/notes.txt"]


def test_help_describes_every_option():
    shown = CliRunner().invoke(cli.app, ["sweep", "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    for option in ("--widths", "--rules", "--coefficients", "--learning-rates", "--seeds", "--steps", "--batch-size",
                   "--train-size", "--label-noise", "--output"):  # fmt: skip
        assert option in shown.stdout
