"""The command line with people's files, networks and files of options."""

import gzip
import inspect
import re
import shlex
import struct
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.main import get_command
from typer.testing import CliRunner

import weightdecay as wd
from weightdecay.apps import cli, cli_config, cli_data, cli_output
from weightdecay.apps.cli_data import DataArguments
from weightdecay.core.checks import ArgumentError
from weightdecay.training.task import REGULARIZERS

QUICK = ["--steps", "8", "--num-coefficients", "1", "--seeds", "2", "--rules", "L2"]


def command(*arguments):
    return CliRunner().invoke(cli.app, list(map(str, arguments)))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def frame(num_examples=150):
    random = np.random.default_rng(0)
    table = pd.DataFrame(random.normal(size=(num_examples, 2)), columns=["size", "age"])
    table["colour"] = np.where(random.random(num_examples) < 0.5, "red", "blue")
    table["price"] = 3 * table["size"] + table["age"] + random.normal(size=num_examples)
    table["kind"] = np.where(table["size"] > 0, "large", "small")
    table["rooms"] = random.integers(1000, 90000, num_examples)
    return table


def same_data(ours, theirs):
    for name in ("train", "validation", "test"):
        for own, other in zip(getattr(ours, name), getattr(theirs, name), strict=True):
            np.testing.assert_array_equal(own, other)


# Files. What pandas and NumPy hold in memory, split by `wd.data.split`, is what the file must give.


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "tsv", "parquet"])
def test_table_is_split_as_its_frame_in_memory(here, suffix):
    table = frame()
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
        table.to_parquet("my.parquet")
    else:
        table.to_csv(f"my.{suffix}", index=False, sep="\t" if suffix == "tsv" else ",")
    ours = cli_data.load(f"my.{suffix}", DataArguments(target="price"))
    same_data(ours, wd.data.split(table.drop(columns="price"), table["price"]))
    assert cli_data.is_regression(ours)
    some = cli_data.load(
        f"my.{suffix}", DataArguments(target="kind", inputs="age, colour", split_seed=3), train_size=20
    )
    same_data(some, wd.data.split(table[["age", "colour"]], table["kind"], seed=3, num_train=20))
    assert some.class_names == ("large", "small")
    assert not cli_data.is_regression(some)


def test_table_without_a_header_has_numbers_as_names(here):
    table = frame()[["size", "age", "price"]]
    table.to_csv("my.csv", index=False, header=False)
    for target in ("2", "-1"):
        same_data(
            cli_data.load("my.csv", DataArguments(target=target)), wd.data.split(table.iloc[:, :2], table["price"])
        )


def test_integers_are_classes_or_numbers_as_the_task_says(here):
    table = frame()
    table.to_csv("my.csv", index=False)
    with pytest.raises(ArgumentError, match=r"quantity.*give --task regression or --task classification"):
        cli_data.load("my.csv", DataArguments(target="rooms"))
    ours = cli_data.load("my.csv", DataArguments(target="rooms", task="regression", inputs="size,age"))
    same_data(ours, wd.data.split(table[["size", "age"]], table["rooms"], classes=False))


@pytest.mark.parametrize("names", [("inputs", "targets"), ("X", "y"), ("pixels", "labels")])
def test_npz_arrays_are_found_by_their_usual_names(here, names):
    random = np.random.default_rng(0)
    x, y = random.normal(size=(50, 3)), random.integers(0, 3, 50)
    np.savez("my.npz", **dict(zip(names, (x, y), strict=True)))
    same_data(cli_data.load("my.npz", DataArguments()), wd.data.split(x, y))
    np.savez("my.npz", a=x, b=y, c=y)
    same_data(cli_data.load("my.npz", DataArguments(inputs="a", target="c")), wd.data.split(x, y))
    with pytest.raises(ArgumentError, match="target is None; give one of the arrays of the file: a, b, c"):
        cli_data.load("my.npz", DataArguments())


def write_idx(path, array):
    header = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    with gzip.open(path, "wb") as file:
        file.write(header + array.astype(np.uint8).tobytes())


def test_npy_and_idx_have_their_targets_in_another_file(here):
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (40, 4, 4)), np.arange(40) % 2
    np.save("images.npy", images)
    np.save("labels.npy", labels)
    write_idx("train-images-idx3-ubyte.gz", images)
    write_idx("train-labels-idx1-ubyte.gz", labels)
    expected = wd.data.split(images, labels)
    same_data(cli_data.load("images.npy", DataArguments(target="labels.npy")), expected)
    idx = cli_data.load("train-images-idx3-ubyte.gz", DataArguments(target="train-labels-idx1-ubyte.gz"))
    same_data(idx, expected)
    with pytest.raises(ArgumentError, match="target is None; give the file that has the targets"):
        cli_data.load("train-images-idx3-ubyte.gz", DataArguments())


def test_text_is_windows_of_its_bytes(here):
    text = "to be or not to be, that is the question. " * 30
    (here / "my.txt").write_text(text)
    np.save("my.npy", np.arange(1000) % 50)
    np.array([3, 1, 4] * 300, np.uint16).tofile("my.bin")
    same_data(cli_data.load("my.txt", DataArguments(length=8)), wd.data.tokens(text.encode(), length=8))
    same_data(cli_data.load("my.npy", DataArguments(length=8)), wd.data.tokens(np.arange(1000) % 50, length=8))
    ours = cli_data.load("my.bin", DataArguments(length=8, token_dtype="uint16", test_size=0.3))
    same_data(ours, wd.data.tokens(np.array([3, 1, 4] * 300, np.uint16), length=8, test_size=0.3))
    assert cli_data.is_tokens(ours)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.csv"], "dataset is 'none.csv', and there is no such file"),
        (["notes.md"], "dataset is 'notes.md'; give a file of one of these formats: CSV, TSV, parquet"),
        (["my.csv"], "--target: target is None; give one of the columns: size, age, colour, price, kind, rooms."),
        (["my.csv", "--target", "cost"], "--target: target is 'cost'; give one of the columns: size, age"),
        (["my.csv", "--target", "price", "--inputs", "hue"], "--inputs: inputs is 'hue'; give one of the columns"),
        (["my.csv", "--target", "price", "--inputs", "price"], "--inputs: inputs is 'price'; give columns other than"),
        (["my.csv", "--target", "price", "--task", "ranking"], "--task: task is 'ranking'; give one of auto, class"),
        (["my.csv", "--target", "price", "--length", "9"], "--length: length is 9, but my.csv is a table"),
        (["my.csv", "--target", "rooms"], "--task: targets are integers that look like a quantity"),
        (["my.csv", "--target", "price", "--test-size", "2"], "--test-size: "),
        (
            ["my.csv", "--target", "price", "--metric", "validation_accuracy"],
            "--metric: metric is 'validation_accuracy'",
        ),
        (["gaps.csv", "--target", "b"], "--inputs: inputs: column 'a' has 1 missing values, the first in row 1"),
        (["gaps.csv", "--target", "a"], "--target: target 'a' has 1 missing values, the first in row 1"),
        (["rows.csv", "--target", "a"], "dataset rows.csv cannot be read ("),
        (["digits", "--target", "price"], "--target: target is 'price', but digits is not a file"),
        (["my.txt", "--train-size", "9"], "--train-size: train_size is 9, but my.txt is a text; omit it."),
        (["my.txt", "--target", "x"], "--target: target is 'x', but my.txt is a text"),
        (["my.txt", "--widths", "8"], "--widths: widths is '8', but the network is a decoder"),
        (["my.txt", "--length", "900"], "source has 1260 tokens"),
        (["digits", "--model", "nets"], "--model: model is 'nets'; give module:Class, such as my_models:Net"),
        (["digits", "--model", "no_nets:A"], "--model: model is 'no_nets:A', and the module cannot be imported (No mo"),
        (["digits", "--model", "json:A"], "--model: model is 'json:A', and the module has nothing of this name"),
        (
            ["digits", "--model", "json:loads", "--widths", "8"],
            "--widths: widths is '8', but the network is json:loads",
        ),
    ],
)
def test_what_a_file_cannot_give_is_refused_with_one_message(here, arguments, message):
    frame().to_csv("my.csv", index=False)
    (here / "gaps.csv").write_text("a,b\n1,2\n,3\n4,5\n")
    (here / "rows.csv").write_text("a,b\n1,2\n3,4,5,6\n")
    (here / "my.txt").write_text("to be or not to be, that is the question. " * 30)
    (here / "notes.md").write_text("notes")
    shown = command("sweep", *arguments)
    assert shown.exit_code == 2, shown.output
    assert shown.stderr.splitlines()[-1].startswith(f"weightdecay: {message}")
    assert "Traceback" not in shown.output
    assert not (here / "runs").exists()


# Runs.


@pytest.mark.slow
def test_sweep_of_a_table_is_fit_grid_of_its_frame_and_is_repeated_from_its_folder(here):
    table = frame()
    table.to_csv("my.csv", index=False)
    shown = command("sweep", "my.csv", "--target", "price", "--widths", "4", "--learning-rates", "1e-3,3e-3", *QUICK)
    assert shown.exit_code == 0, shown.output
    assert "test loss: " in shown.stdout
    result = wd.load("runs/my")
    grid = wd.Grid(decay=[wd.NoDecay(), wd.L2(wd.L2.search_range[0])], learning_rate=[1e-3, 3e-3], seed=range(2))
    data = wd.data.split(table.drop(columns="price"), table["price"])
    ours = wd.fit_grid(wd.models.MLP((4,)), data, grid, num_steps=8, batch_size=64, progress=False)
    np.testing.assert_array_equal(result.dataset["validation_loss"], ours.dataset["validation_loss"])

    options = yaml.safe_load((here / "runs" / "my" / "sweep.yaml").read_text())
    assert options["data"]["dataset"] == str(here / "my.csv")
    assert options["grid"]["learning_rates"] == [1e-3, 3e-3]
    assert list(options) == ["data", "model", "grid", "training"]
    repeated = command("sweep", "--config", "runs/my/sweep.yaml", "--output", "again")
    assert repeated.exit_code == 0, repeated.output
    assert wd.load("again").dataset.identical(result.dataset)
    assert (here / "again" / "sweep.yaml").read_text() == (here / "runs" / "my" / "sweep.yaml").read_text()
    more = command("sweep", "--config", "runs/my/sweep.yaml", "--output", "more", "--seeds", 1)
    assert more.exit_code == 0, more.output
    assert len(wd.load("more")) == 4


@pytest.mark.slow
def test_text_trains_a_decoder_and_a_network_of_ones_own_trains(here, monkeypatch):
    (here / "my.txt").write_text("to be or not to be, that is the question. " * 30)
    (here / "small_nets_for_the_test.py").write_text(
        "import flax.linen as nn\n\n\n"
        "class Bigram(nn.Module):\n"
        "    num_outputs: int = 256\n\n"
        "    @nn.compact\n"
        "    def __call__(self, tokens):\n"
        "        return nn.Dense(self.num_outputs)(nn.Embed(256, 4)(tokens))\n"
    )
    monkeypatch.syspath_prepend(str(here))
    shown = command("sweep", "my.txt", "--length", 8, "--model", "small_nets_for_the_test:Bigram", *QUICK)
    assert shown.exit_code == 0, shown.output
    assert "val. bits per token" in shown.stdout
    assert wd.load("runs/my").params(0)["Embed_0"]["embedding"].shape == (256, 4)
    planned = command("plan", "my.txt", "--length", 8, "--steps", 2, "--seeds", 1, "--rules", "NoDecay")
    assert planned.exit_code == 0, planned.output
    assert "lanes of " in planned.stdout


@pytest.mark.slow
def test_compare_takes_a_table_and_writes_its_options(here):
    frame().to_csv("my.csv", index=False)
    arguments = ["my.csv", "--target", "kind", "--widths", "4", "--trials", 1, "--seeds", 2, "--steps", 4]
    shown = command("compare", *arguments)
    assert shown.exit_code == 0, shown.output
    options = yaml.safe_load((here / "runs" / "my-compared" / "sweep.yaml").read_text())
    assert options["grid"] == {"seeds": 2, "trials": 1}
    repeated = command("compare", "--config", "runs/my-compared/sweep.yaml", "--output", "again")
    assert repeated.exit_code == 0, repeated.output
    assert wd.load("again").dataset.identical(wd.load("runs/my-compared").dataset)


def test_dry_run_shows_the_options_and_writes_nothing(here):
    shown = command("sweep", "wine", *QUICK, "--dry-run", "--coefficients", "1e-3", "0.1", "--widths", "8,4")
    assert shown.exit_code == 0, shown.output
    assert "2 candidates x 2 seeds = 4 members, 8 steps each." in shown.stdout
    assert "Nothing was trained. The run would be in runs/wine" in shown.stdout
    options = yaml.safe_load(shown.stdout.partition("options:\n\n")[2])
    assert options["grid"]["coefficients"] == [1e-3, 0.1]
    assert options["model"] == {"widths": [8, 4]}
    assert list(here.iterdir()) == []
    (here / "own.yaml").write_text(shown.stdout.partition("options:\n\n")[2])
    again = command("sweep", "--config", "own.yaml", "--dry-run")
    assert again.stdout == shown.stdout


def test_options_of_the_command_line_precede_those_of_the_file(here):
    (here / "own.yaml").write_text("data: {dataset: wine}\ngrid: {seeds: 5, learning-rates: [1e-2, 0.1]}\n")
    shown = command("sweep", "--config", "own.yaml", "--dry-run", "--seeds", 2)
    options = yaml.safe_load(shown.stdout.partition("options:\n\n")[2])
    assert options["grid"]["seeds"] == 2
    assert options["grid"]["learning_rates"] == [0.01, 0.1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("grid: [", "file own.yaml is not YAML (while parsing"),
        ("- grid", "file own.yaml has no sections; give some of data, model, grid, training."),
        (
            "gird: {seeds: 2}",
            "file own.yaml has 'gird', which is not one of the sections data, model, grid, training, ",
        ),
        ("grid: {seed: 2}", "file own.yaml has 'seed' in the section grid; give some of rules, coefficients"),
        ("grid: {trials: 2}", "file own.yaml has 'trials' in the section grid; give some of rules"),
        ("grid: !!python/object/apply:os.mkdir [hacked]", "file own.yaml is not YAML (could not determine"),
    ],
)
def test_file_of_options_without_a_meaning_is_refused(here, content, message):
    (here / "own.yaml").write_text(content)
    shown = command("sweep", "wine", "--config", "own.yaml")
    assert shown.exit_code == 2
    assert shown.stderr.startswith(f"weightdecay: --config: {message}")
    assert [path.name for path in here.iterdir()] == ["own.yaml"]


def test_every_option_of_a_sweep_is_in_a_section():
    names = {parameter.name for parameter in get_command(cli.app).commands["sweep"].params}
    sorted_names = {name for names in cli_config.SECTIONS.values() for name in names}
    assert names - sorted_names == {"config", "output", "overwrite", "dry_run", "show_all"}


# What is printed.


@pytest.fixture(scope="module")
def of_many_candidates():
    rules = [wd.NoDecay(), *wd.logspace(wd.Decoupled, 1e-3, 1e3, 13)]
    return wd.fit_grid(
        wd.models.MLP((4,)),
        wd.data.wine(),
        wd.Grid(decay=rules, learning_rate=0.01, seed=range(2)),
        num_steps=30,
        batch_size=32,
        progress=False,
    )


@pytest.mark.parametrize("metric", ["validation_loss", "validation_accuracy"])
def test_best_ten_come_first_and_all_shows_the_rest(of_many_candidates, capsys, metric):
    result = of_many_candidates.part(range(28))  # the test set of each part is scored once
    cli_output.show(result, metric)
    some = [line[3:].split("  ")[0] for line in capsys.readouterr().out.splitlines() if line.endswith("%")]
    cli_output.show(result, metric, show_all=True)
    printed = capsys.readouterr().out
    every = [line[3:].split("  ")[0] for line in printed.splitlines() if line.endswith("%")]
    means = result.table()[metric].to_numpy()
    order = np.argsort(means if metric == "validation_loss" else -means, kind="stable")
    assert every == [str(result.candidates()[number].decay) for number in order]
    assert "are not shown" not in printed
    assert some[:10] == every[:10]
    named = {str(result.best(metric=metric).decay), str(result.best("one_standard_error", metric=metric).decay)}
    assert set(some[10:]) <= named | {"NoDecay()"}
    assert named | {"NoDecay()"} <= set(some)


def test_what_is_not_shown_is_counted(of_many_candidates, capsys):
    cli_output.show(of_many_candidates, "validation_loss")
    printed = capsys.readouterr().out
    shown = sum(line.endswith("%") for line in printed.splitlines())
    assert f"{14 - shown} worse candidates are not shown; --all shows them" in printed


# The guide.

GUIDE = Path(cli.__file__).parent / "command_line.md"


@pytest.fixture
def files_of_the_guide(here, monkeypatch):
    """Files of the names that the guide has, and a module with a network."""
    pytest.importorskip("pyarrow")
    random = np.random.default_rng(0)
    table = frame()
    table.to_csv("houses.csv", index=False)
    table.rename(columns={"kind": "species"}).drop(columns=["price", "rooms"]).to_parquet("flowers.parquet")
    images, labels = random.integers(0, 256, (60, 4, 4)), np.arange(60) % 3
    np.savez("digits.npz", images=images, labels=labels)
    write_idx("train-images-idx3-ubyte.gz", images)
    write_idx("train-labels-idx1-ubyte.gz", labels)
    (here / "book.txt").write_text("to be or not to be, that is the question. " * 30)
    (here / "my_models.py").write_text("import weightdecay as wd\n\nNet = wd.models.MLP((4,))\n")
    monkeypatch.syspath_prepend(str(here))
    yield
    sys.modules.pop("my_models", None)


class Accepted(Exception):
    """Raised in place of training."""


def commands_of_the_guide():
    (block,) = re.findall(r"^```sh\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), flags=re.S | re.M)
    return [shlex.split(line)[1:] for line in block.splitlines()]


@pytest.mark.parametrize("arguments", commands_of_the_guide(), ids=lambda arguments: " ".join(arguments[:2]))
def test_commands_of_the_guide_begin_to_train(files_of_the_guide, monkeypatch, arguments):
    def accept(*_, **__):
        raise Accepted

    for name in ("engine.fit.fit_grid", "apps.comparison.compare", "engine.forecast.plan"):
        monkeypatch.setattr(f"weightdecay.{name}", accept)
    assert isinstance(command(*arguments).exception, Accepted)


def test_file_of_options_in_the_guide_is_read(here):
    (content,) = re.findall(r"^```yaml\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), flags=re.S | re.M)
    (here / "sweep.yaml").write_text(content)
    options = cli_config.read(here / "sweep.yaml", {name for names in cli_config.SECTIONS.values() for name in names})
    assert cli_config.of_options(options) == yaml.safe_load(content)


def rows_of_what_you_know():
    table = GUIDE.read_text(encoding="utf-8").partition("| you know |")[2]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines()[2:] if line]


def test_table_of_what_you_know_has_every_library():
    known = {row[0].partition(":")[0] for row in rows_of_what_you_know()}
    assert {"scikit-learn", "Optuna", "Keras Tuner", "glmnet", "W&B sweeps", "timm"} <= known


@pytest.mark.parametrize("row", rows_of_what_you_know(), ids=lambda row: row[0])
def test_names_of_ours_in_what_you_know_exist(row):
    known, ours = row
    codes = re.findall(r"`([^`]*)`", ours)
    assert codes
    for code in codes:
        for dotted in re.findall(r"\bwd((?:\.\w+)+)", code):
            found = wd
            for name in dotted.split(".")[1:]:
                found = getattr(found, name)
            assert found is not None
        for name in re.findall(r"\bresult\.(\w+)", code):
            assert hasattr(wd.GridResult, name)
        for name, keyword in re.findall(r"\bwd\.(\w+)\([^()]*?\b(budget|accumulate|log_to|source|decay)=", code):
            parameters = inspect.signature(getattr(wd, name)).parameters
            assert keyword in parameters or any(one.kind is one.VAR_KEYWORD for one in parameters.values())
        if code.startswith("weightdecay "):
            parts = shlex.split(code)
            options = {name for one in get_command(cli.app).commands[parts[1]].params for name in one.opts}
            assert {part for part in parts[2:] if part.startswith("--")} <= options
        elif not re.search(r"\b(wd|result)\.|\.yaml$", code):  # an axis of a grid
            axis = code.partition("=")[0]
            assert axis in {"fold", "seed", "ema", *REGULARIZERS, "clip_norm", "dropout_rate"}, known
