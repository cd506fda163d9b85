"""The command line: what it prints, what it writes, and which arguments it refuses."""

import fcntl
import io
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.main import get_command
from typer.testing import CliRunner

import weightdecay as wd
from weightdecay.apps import cli, cli_arguments, cli_ladder, cli_output
from weightdecay.core.checks import ArgumentError
from weightdecay.storage.training_records import TrainingRecords

QUICK = ["--widths", "8", "--steps", "20", "--num-coefficients", "2", "--seeds", "2", "--train-size", "100"]


def run(*arguments):
    return CliRunner().invoke(cli.app, ["sweep", *map(str, arguments)])


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_sweep_prints_a_table_and_a_choice_and_writes_a_folder(here):
    shown = run("digits", *QUICK)
    assert shown.exit_code == 0, shown.output
    assert "100 training, 359 validation, 359 test examples. 9 candidates x 2 seeds = 18 members" in shown.stdout
    table = [line for line in shown.stdout.splitlines() if line.endswith("%")]
    assert len(table) == 9
    result = wd.load("runs/digits")
    best = result.best()
    losses = [float(re.search(r"(0|1|2)\.\d{4} ± .* (\d\.\d{4}) ± ", line)[2]) for line in table]
    assert losses == sorted(losses)
    assert sorted(line[3:].split("  ")[0] for line in table) == sorted(str(one.decay) for one in result.candidates())
    assert table[0].startswith("* ")
    assert sum(line.startswith("*") for line in table) == 1
    assert f"* best mean:          {best}" in shown.stdout
    assert f"\n\n{best.sentence}\n\n" in shown.stdout
    assert "one standard error: " in shown.stdout
    assert re.search(r"test accuracy: +\S+ 0\.\d{4} ± 0\.\d{4}, NoDecay\(\) 0\.\d{4} ± ", shown.stdout)
    assert ("Warning: " in shown.stdout) == (best.edge is not None)
    assert "written to runs/digits" in shown.stdout
    for name in ("validation-path.png", "sparsity.png"):
        assert (here / "runs" / "digits" / name).read_bytes().startswith(b"\x89PNG")
    assert "100%" in shown.stderr
    assert "left" in shown.stderr


@pytest.mark.slow
def test_sweep_a_second_time_takes_a_new_folder(here):
    for folder in ("runs/digits", "runs/digits-2"):
        assert f"written to {folder}\n" in run("digits", *QUICK).stdout


@pytest.mark.slow
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
    assert "one standard error: one seed has no standard error" in shown.stdout
    assert "learning rate" in shown.stdout


@pytest.mark.slow
def test_compare_prints_a_ranking_and_writes_a_folder(here):
    arguments = ["digits", "--widths", "8", "--steps", "20", "--trials", "2", "--seeds", "2", "--train-size", "100"]
    shown = CliRunner().invoke(cli.app, ["compare", *arguments])
    assert shown.exit_code == 0, shown.output
    table = pd.read_csv("runs/digits-compared/comparison.csv", index_col=0)
    lines = [line for line in shown.stdout.splitlines() if "%" in line]
    assert len(lines) == len(table) == 12
    for line, (name, row) in zip(lines, table.iterrows(), strict=True):
        assert line.startswith(f"{name}  ")
        assert row["trials"] == 2
    assert f"\nBest test accuracy: {table.index[0]}, " in shown.stdout
    assert len(wd.load("runs/digits-compared")) == 12 * 2 * 2
    assert (here / "runs" / "digits-compared" / "comparison.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_sweep_of_a_regression_has_a_loss_and_no_accuracy(here):
    shown = run("diabetes", *QUICK)
    assert shown.exit_code == 0, shown.output
    assert "test loss: " in shown.stdout
    assert "accuracy" not in shown.stdout


@pytest.mark.slow
def test_sweep_where_every_member_diverges_keeps_the_result(here):
    shown = run("digits", *QUICK, "--learning-rates", "1e30")
    assert shown.exit_code == 2
    assert "every one of the 18 members diverged" in shown.stderr
    assert len(wd.load("runs/digits")) == 18


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mnist"], "dataset is 'mnist'; give one of digits, breast_cancer, wine, diabetes"),
        (["digits", "--rules", "L2,L3"], "--rules: rules is 'L3'; give one of NoDecay, L2, L1"),
        (["digits", "--rules", ","], "--rules: rules is ','; give a comma-separated list"),
        (
            ["digits", "--coefficients", "-0.1", "0.1"],
            "--coefficients: coefficients is -0.1; give two finite numbers above 0, the smaller one first",
        ),
        (["digits", "--coefficients", "0.1", "0.01"], "--coefficients: coefficients is 0.1 0.01; give the smaller one"),
        (["digits", "--coefficients", "0.1", "0.1"], "--coefficients: coefficients is 0.1 0.1; give the smaller one"),
        (
            ["digits", "--num-coefficients", "0"],
            "--num-coefficients: num_coefficients is 0; give an integer of at least 1",
        ),
        (
            ["digits", "--learning-rates", "0"],
            "--learning-rates: learning_rates is 0.0; give finite numbers above 0",
        ),
        (
            ["digits", "--learning-rates", "fast"],
            "--learning-rates: learning_rates is 'fast'; give comma-separated numbers",
        ),
        (["digits", "--widths", "64;64"], "--widths: widths is '64;64'; give comma-separated integers"),
        (["digits", "--seeds", "0"], "--seeds: seeds is 0; give an integer of at least 1"),
        (["digits", "--steps", "0"], "--steps: steps is 0; give an integer of at least 1"),
        (["digits", "--batch-size", "5000"], "--batch-size: batch_size is 5000, but data.train has 1079 examples"),
        (["digits", "--train-size", "3"], "--train-size: num_train is 3; give 10 to 1069"),
        (["digits", "--label-noise", "2"], "--label-noise: label_noise is 2.0; give a fraction from 0 to 1"),
        (
            ["digits", "--optimizer", "adagrad"],
            "--optimizer: optimizer is 'adagrad'; give one of adam, sgd, lion",
        ),
        (["digits", "--metric", "luck"], "--metric: metric is 'luck'; give one of validation_loss"),
        (
            ["diabetes", "--label-noise", "0.1"],
            "--label-noise: label_noise is 0.1, but the targets of diabetes are not labels; give 0.",
        ),
        (
            ["diabetes", "--metric", "validation_accuracy"],
            "--metric: metric is 'validation_accuracy', but diabetes is a regression; give validation_loss.",
        ),
        (["digits", "--output", "taken"], "--output: folder taken holds other files (notes.txt)"),
        (["digits", "--output", "taken", "--overwrite"], "--output: folder taken holds other files (notes.txt)"),
        (
            ["digits", "--output", "taken/notes.txt"],
            "--output: folder taken/notes.txt is a file; give a new or an empty folder",
        ),
    ],
)
def test_sweep_refuses_with_one_message_and_touches_nothing(here, arguments, message, monkeypatch):
    def compiled(*_):
        raise AssertionError("something was compiled")

    monkeypatch.setattr("weightdecay.engine.lane_programs.compiled", compiled)
    (here / "taken").mkdir()
    (here / "taken" / "notes.txt").write_text("mine")
    shown = run(*arguments)
    assert shown.exit_code == 2, shown.output
    messages = shown.stderr.splitlines()
    assert messages[-1].startswith(f"weightdecay: {message}")
    assert "Traceback" not in shown.output
    assert [path.relative_to(here).as_posix() for path in here.rglob("*")] == ["taken", "taken/notes.txt"]


def test_help_describes_every_option():
    shown = CliRunner().invoke(cli.app, ["sweep", "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    for option in ("--widths", "--rules", "--coefficients", "--learning-rates", "--seeds", "--steps", "--batch-size",
                   "--train-size", "--label-noise", "--output"):  # fmt: skip
        assert option in shown.stdout


def convert(*arguments):
    return CliRunner().invoke(cli.app, ["convert", *map(str, arguments)])


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (
            ["0.01", "--from", "keras.L2", "--to", "torch.SGD"],
            ["0.02", "weight_decay = 2 * l2", "Stays the same: the penalty that is added to the mean", "Source: Krogh"],
        ),
        (["0.01", "--from", "keras.L2", "--to", "keras.SGD"], ["0.02", "", "Stays the same: every step of plain SGD"]),
        (["2,0.25", "--from", "sklearn.ElasticNet", "--to", "ElasticNet"], ["0.5,1.5", "(c1, c2) = (alpha * l1_ratio"]),
        (["0.5", "--from", "L2", "--to", "sklearn.Ridge", "--num-examples", "442"], ["221.0", "alpha = coefficient"]),
        (["inf", "--from", "time_scale.steps", "--to", "Independent"], ["0.0"]),
        (
            ["0.1", "--from", "torch.AdamW", "--to", "torch.AdamW", "--batch-size", "256", "--new-batch-size", "512"],
            ["0.2", "weight_decay = weight_decay * new_batch_size / batch_size", "Stays the same: the time scale in"],
        ),
        (
            ["0.5", "--from", "Decoupled", "--to", "time_scale.epochs", "--learning-rate", "0.125", "--batch-size", "4",
             "--num-examples", "64", "--new-learning-rate", "0.5", "--new-num-examples", "128"],
            ["1.0", "epochs = 1 / ("],
        ),
        (
            ["0.5", "--from", "Independent", "--to", "Independent", "--num-steps", "4", "--new-num-steps", "8"],
            ["0.25", "", "Stays the same: the time scale as a fraction of the run", "Source: Wang & Aitchison 2024"],
        ),
        (["0.5", "--from", "torch.SGD", "--to", "Decoupled", "--momentum", "0"], ["0.5"]),
    ],
)  # fmt: skip
def test_convert_prints_the_number_and_its_explanation(arguments, lines):
    shown = convert(*arguments)
    assert shown.exit_code == 0, shown.output
    printed = shown.stdout.splitlines()
    assert printed[0] == lines[0]
    for line, start in zip(printed, lines, strict=False):
        assert line.startswith(start)


def test_convert_lists_the_conventions():
    shown = convert("--list")
    assert shown.exit_code == 0, shown.output
    assert re.search(r"c = 2 \* l2 +keras\.L2\n", shown.stdout)
    assert "time_scale.epochs" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "coefficient is missing; write for example weightdecay convert 0.01 --from keras.L2 --to torch.SGD"),
        (["0.1", "--to", "L2"], "--from: source is missing"),
        (["0.1", "--from", "L2"], "--to: target is missing"),
        (["some", "--from", "L2", "--to", "L2"], "coefficient is 'some'; give comma-separated numbers"),
        (["0.1", "--from", "L3", "--to", "L2"], "--from: source is 'L3', which is not a known"),
        (
            ["0.1", "--from", "L2", "--to", "torch.SDG"],
            "--to: target is 'torch.SDG', which is not a known convention. Did you mean 'tor",
        ),
        (["0.1", "--from", "torch.Adam", "--to", "torch.AdamW"], "torch.Adam to torch.AdamW: no conversion exists"),
        (
            ["0.1", "--from", "L2", "--to", "sklearn.Ridge"],
            "--num-examples: num_examples is missing: sklearn.Ridge has",
        ),
        (["0.1", "--from", "Decoupled", "--to", "Independent"], "--learning-rate: learning_rate is missing"),
        (
            ["0.1", "--from", "L2", "--to", "L2", "--num-steps", "0"],
            "--num-steps: num_steps is 0.0; give a finite number",
        ),
        (["0.1", "--from", "L2", "--to", "L2", "--momentum", "1"], "--momentum: momentum is 1.0"),
        (
            ["0.1", "--from", "L2", "--to", "L2", "--new-batch-size", "9"],
            "--new-batch-size: new_batch_size: L2 to L2 has",
        ),
        (["0.1,0.2", "--from", "L2", "--to", "keras.L2"], "coefficient is (0.1, 0.2); L2 takes one number"),
    ],
)
def test_convert_refuses_with_one_message(arguments, message):
    shown = convert(*arguments)
    assert shown.exit_code == 2, shown.output
    assert shown.stderr.splitlines()[-1].startswith(f"weightdecay: {message}")
    assert "Traceback" not in shown.output
    assert shown.stdout == ""


def test_convert_has_an_option_for_every_number_of_the_function():
    import inspect

    from weightdecay.decay.convert import convert as convert_coefficient

    shown = CliRunner().invoke(cli.app, ["convert", "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    for name in list(inspect.signature(convert_coefficient).parameters)[3:]:
        assert f"--{name.replace('_', '-')} " in shown.stdout


@pytest.mark.slow
def test_sweep_in_a_directory_resumes_where_it_was_interrupted(here, monkeypatch):
    complete = run("digits", *QUICK, "--output", "complete", "--patience", 3)
    write_metrics, seen = TrainingRecords.write_metrics, []

    def interrupt(*arguments):
        write_metrics(*arguments)
        seen.append(arguments)
        if len(seen) > 1:  # only one Ctrl-C: a second one would not wait until the run is saved
            return
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(1)  # until the main thread has received it

    with monkeypatch.context() as patch:
        patch.setattr(TrainingRecords, "write_metrics", interrupt)
        cut = run("digits", *QUICK, "--patience", 3)
    assert cut.exit_code == 130
    message = "what was trained is saved in runs/digits; the same command resumes the run.\n"
    assert cut.stderr.endswith(f"\nweightdecay: interrupted; {message}")
    assert not (here / "runs" / "digits" / "report.html").exists()
    other = run("digits", *QUICK, "--patience", 4)  # other options: another folder
    assert "written to runs/digits-2\n" in other.stdout
    resumed = run("digits", *QUICK, "--patience", 3)
    assert "members are done; resuming" in resumed.stderr
    assert resumed.stdout.replace("runs/digits", "complete") == complete.stdout
    assert wd.load("runs/digits").dataset.identical(wd.load("complete").dataset)
    again = run("digits", *QUICK, "--patience", 3)  # what is finished is not resumed
    assert "written to runs/digits-3\n" in again.stdout


@pytest.mark.slow
def test_sweep_in_its_folder_grows_and_refuses_another_run(here):
    assert run("wine", *QUICK, "--output", "out", "--seeds", 1).exit_code == 0
    grown = run("wine", *QUICK, "--output", "out")
    assert grown.exit_code == 0, grown.output
    assert len(wd.load("out")) == 18
    other = run("wine", *QUICK, "--output", "out", "--batch-size", 32)
    assert other.exit_code == 2
    assert other.stderr.splitlines()[-1].startswith("weightdecay: --output: directory out holds a different run: ")
    assert "batch_size: 64" in (here / "out" / "sweep.yaml").read_text()
    assert run("wine", *QUICK, "--output", "out", "--batch-size", 32, "--overwrite").exit_code == 0
    assert wd.load("out").settings["batch_size"] == 32


# The terminal.


def in_terminal(arguments, folder, *, columns, **environment):
    """Run a command in a pseudo-terminal of a width; return its exit status and the lines that it displays.

    A carriage return starts a line again, so that only what stands last on a line is displayed; all states of the
    progress bar are returned as lines of their own.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    variables = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-m", "weightdecay.apps.cli", *map(str, arguments)],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=folder,
        env={**variables, "TERM": "xterm", "PYTHONPATH": str(Path(wd.__file__).parents[1]), **environment},
    )
    os.close(slave)
    written = b""
    while True:
        try:
            some = os.read(master, 65536)
        except OSError:  # the other end is closed
            break
        if not some:
            break
        written += some
    os.close(master)
    text = written.decode("utf-8").replace("\x1b[A", "")
    return process.wait(), [line for line in re.split(r"[\r\n]+", text) if line]


@pytest.mark.slow
def test_sweep_fits_on_a_terminal_of_80_columns(tmp_path):
    status, lines = in_terminal(["sweep", "digits", *QUICK, "--num-coefficients", 1], tmp_path, columns=80)
    assert status == 0, lines
    assert max(map(len, lines)) <= 80
    bars = [line for line in lines if re.match(r"(compiling|training) +\d+%", line)]
    assert bars[0].startswith("compiling   0% |")
    assert bars[-1].startswith("training 100% |")
    assert all(re.search(r" (\?|[\d:]+) left *$", bar) for bar in bars)
    head = next(line for line in lines if line.strip().startswith("candidate "))
    assert head.split()[-1] == "zeros"
    rows = [line for line in lines if line.endswith(" %")]
    assert len(rows) == 5
    assert {len(row) for row in rows} == {len(head)}
    assert "Columns that do not fit here: train accuracy, weight norm; the report has them." in lines


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", "digits", *QUICK],
        ["compare", "digits", "--widths", 8, "--steps", 8, "--trials", 1, "--seeds", 2, "--train-size", 100],
        ["convert", "--list"],
        ["convert", 0.01, "--from", "keras.L2", "--to", "torch.SGD"],
        ["sweep", "digits", *QUICK, "--dry-run"],
        ["sweep", "--help"],
    ],
    ids=lambda arguments: " ".join(map(str, arguments[:2])),
)
def test_command_fits_on_a_terminal_of_80_columns(tmp_path, arguments):
    status, lines = in_terminal(arguments, tmp_path, columns=80)
    assert status == 0, lines
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in lines]  # without colours
    assert [line for line in lines if len(line) > 80] == []


def test_nothing_printed_names_a_function_of_python(capsys):
    for name, command in get_command(cli.app).commands.items():
        shown = CliRunner().invoke(cli.app, [name, "--help"], env={"COLUMNS": "200"})
        assert not re.search(r"\bwd\.|result\.\w+\(", shown.stdout), command
    settings = {"num_steps": 30, "batch_size": 32, "progress": False}
    grid = wd.Grid(decay=wd.logspace(wd.Decoupled, 1, 90, 3), learning_rate=0.01, seed=range(2))
    result = wd.fit_grid(wd.models.MLP((4,)), wd.data.wine(), grid, **settings)
    assert result.best().edge
    assert "wd.logspace" in result.best().advice
    cli_output.show(result, "validation_loss")
    printed = capsys.readouterr().out
    kind = "wd" + r"\."
    assert not re.search(kind, printed)
    assert re.search(r"as with --rules Decoupled --coefficients \S+ \S+ --num-coefficients \d\.", printed)


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_output_of_any_encoding_is_written(tmp_path, encoding):
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(Path(wd.__file__).parents[1])}
    command = [sys.executable, "-m", "weightdecay.apps.cli", "sweep", "digits", *QUICK, "--num-coefficients", "1"]
    shown = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)
    assert shown.returncode == 0, shown.stderr
    assert re.search(
        r" 0\.\d{4} \+- 0\.\d{4} " if encoding == "ascii" else r" 0\.\d{4} ± 0\.\d{4} ", shown.stdout.decode(encoding)
    )


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", "0.12 +- 0.03 - eta sqrt(w2) 9 x 9 Muller ?"),
        ("latin-1", "0.12 ± 0.03 - eta sqrt(w²) 9 × 9 Müller ?"),  # noqa: RUF001
        ("cp1252", "0.12 ± 0.03 – eta sqrt(w²) 9 × 9 Müller ?"),  # noqa: RUF001
        ("utf-8", "0.12 ± 0.03 – η √(w²) 9 × 9 Müller 漢"),  # noqa: RUF001
    ],
)
def test_characters_that_an_encoding_lacks_are_transliterated(monkeypatch, encoding, expected):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr("sys.stdout", stream)
    cli_output.transliterate()
    cli_output.echo("0.12 ± 0.03 – η √(w²) 9 × 9 Müller 漢")  # noqa: RUF001
    assert stream.buffer.getvalue().decode(encoding) == f"{expected}\n"


def test_warnings_show_no_file_and_no_python(capsys):
    with cli_output.plain_warnings(), warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("the disk is full; training continues. Save it with result.save(...) later.", stacklevel=1)
    assert capsys.readouterr().err == "weightdecay: warning: the disk is full; training continues.\n"


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        (None, ["candidate", "loss", "gap", "zeros"]),
        (37, ["candidate", "loss", "gap", "zeros"]),
        (36, ["candidate", "loss", "zeros"]),
        (20, ["candidate", "loss"]),
        (5, ["candidate", "loss"]),
    ],
)
def test_table_removes_columns_until_it_fits(columns, names):
    rows = [["candidate", "loss", "gap", "zeros"], ["L2(0.1)", "0.1200", "+0.2000", "0.00001 %"]]
    kept = cli_output.fitted(rows, ("gap", "zeros"), columns)
    assert kept == [[row[rows[0].index(name)] for name in names] for row in rows]


@pytest.mark.slow
def test_overwrite_without_output_replaces_the_result_in_the_default_folder(here):
    few = [*QUICK, "--rules", "NoDecay", "--steps", 4]
    assert "written to runs/wine\n" in run("wine", *few).stdout
    written = (here / "runs" / "wine" / "result" / "settings.json").stat().st_mtime_ns
    assert "written to runs/wine\n" in run("wine", *few, "--overwrite").stdout
    assert [folder.name for folder in (here / "runs").iterdir()] == ["wine"]
    before = wd.load("runs/wine").dataset
    refused = run("wine", *few, "--overwrite", "--batch-size", 5000)
    assert refused.stderr.splitlines()[-1].startswith("weightdecay: --batch-size: batch_size is 5000")
    assert wd.load("runs/wine").dataset.identical(before)
    assert [folder.name for folder in (here / "runs").iterdir()] == ["wine"]
    assert (here / "runs" / "wine" / "result" / "settings.json").stat().st_mtime_ns > written


# Errors and options.


def options(command):
    return {parameter.name: parameter.opts for parameter in get_command(cli.app).commands[command].params}


@pytest.mark.parametrize("argument", cli.PARAMETERS)
def test_argument_of_the_library_names_the_option_of_a_command(argument):
    commands = [name for name in get_command(cli.app).commands if name != "convert"]
    for parameter in cli.PARAMETERS[argument]:
        assert any(parameter in options(command) for command in commands)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ArgumentError("num_train", "num_train is 3; give 10."), "--train-size: num_train is 3; give 10."),
        (ArgumentError("learning_rate[0]", "learning_rate[0] is 0."), "--learning-rates: learning_rate[0] is 0."),
        (ArgumentError("momentum", "momentum is 2."), "momentum is 2."),  # `sweep` has no such option
        (ArgumentError("dataset", "dataset is 'x'."), "dataset is 'x'."),  # not an option, but an argument
        (ValueError("num_train is 3; give 10."), "num_train is 3; give 10."),
        (OSError("metric is a word of no meaning here."), "metric is a word of no meaning here."),
        (MemoryError("batch_size might help."), "batch_size might help."),
        (MemoryError(), "there is not enough memory; give fewer members."),
        (ArgumentError("patience", "patience is 0; give 1, or None."), "--patience: patience is 0; give 1."),
        (
            FileExistsError(
                "it is there. Give another, or overwrite it (overwrite=True; --overwrite on the command line)."
            ),
            "it is there. Give another, or overwrite it with --overwrite.",
        ),
    ],
)
def test_error_names_the_option_of_its_argument_alone(monkeypatch, error, message):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(cli_arguments, "output_folder", fails)
    shown = run("digits")
    assert (shown.exit_code, shown.stderr) == (2, f"weightdecay: {message}\n")


def ladder_of(*options, name="Decoupled"):
    """Both ends of the coefficients of a rule in the grid of a sweep."""
    arguments = cli_arguments.GridArguments("wine", **dict(options))
    members = [one["decay"].coefficient for one in arguments.job()["grid"] if one["decay"].name == name]
    return pytest.approx((min(members), max(members)))


def test_sweep_ladder_is_the_range_of_each_rule_whatever_the_run():
    for options in ((), (("steps", 50),), (("learning_rates", "0.1"),), (("optimizer", "sgd"),)):
        assert ladder_of(*options) == wd.Decoupled.search_range


def test_sweep_ladder_of_steps_follows_the_time_scale():
    assert ladder_of(("ladder", "steps")) == wd.Decoupled.search_range
    assert ladder_of(("ladder", "steps"), ("steps", 10_000)) == (1e-4, 1.0)
    assert ladder_of(("ladder", "steps"), ("learning_rates", "3e-2,1e-2")) == (1e-4, 1.0)
    assert ladder_of(("ladder", "steps"), ("optimizer", "sgd"), ("learning_rates", "0.1"), name="L2") == (1e-5, 0.1)
    assert ladder_of(("ladder", "steps"), ("steps", 10_000), name="L2") == wd.L2.search_range


def test_sweep_ladder_of_a_scout_is_the_interval_of_the_suggestion():
    steps = np.arange(20, 1001, 20)
    suggestion = wd.suggest(steps, np.log(steps / 200) ** 2, learning_rate=1e-3)
    range_of = cli_ladder.of_suggestion(suggestion)
    row = suggestion["Decoupled"]
    assert range_of(wd.Decoupled) == (row.low, row.high)
    assert range_of(wd.L1) == wd.L1.search_range  # nothing is known of it
    smallest, largest = range_of(wd.L2)
    assert wd.L2.search_range[0] <= smallest < largest <= wd.L2.search_range[1]
    never = wd.suggest(steps, 1 / steps, learning_rate=1e-3)
    assert cli_ladder.of_suggestion(never)(wd.Decoupled) == pytest.approx(
        (never["Decoupled"].high / 1000, never["Decoupled"].high)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ladder", "rungs"], "--ladder: ladder is 'rungs'; give one of range, steps, scout."),
        (
            ["--ladder", "scout", "--coefficients", "0.1", "1"],
            "--ladder: ladder is 'scout', and coefficients are given",
        ),
    ],
)
def test_sweep_refuses_a_ladder_without_a_meaning(here, options, message):
    shown = run("digits", *options)
    assert shown.exit_code == 2
    assert message in shown.stderr


@pytest.mark.slow
def test_sweep_with_a_scout_trains_without_decay_first(here):
    shown = run("wine", *QUICK, "--rules", "Decoupled", "--ladder", "scout", "--learning-rates", "1e-3,1e-2")
    assert shown.exit_code == 0, shown.output
    result = wd.load("runs/wine")
    suggestion = wd.suggest(result, confidence=0.95)
    assert str(suggestion) in shown.stdout
    expected = cli_ladder.of_suggestion(suggestion)(wd.Decoupled)
    coefficients = result.dataset["coefficient"].values
    assert (np.nanmin(coefficients), np.nanmax(coefficients)) == pytest.approx(expected)
