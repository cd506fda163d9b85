"""Results: the table, one look at the test set, and files that any program can read."""

import json

import jax
import numpy as np
import optax
import pytest
import xarray
from safetensors.numpy import load_file

import weightdecay as wd
from tests.compare import same_bits

DATA = wd.data.digits(num_train=120)
GRID = wd.Grid(
    decay=[wd.NoDecay(), wd.ElasticNet(1e-4, 1e-3), *wd.logspace(wd.Decoupled, 0.1, 10, 3)],
    learning_rate=[1e-2],
    seed=range(3),
)


def train(data=DATA, grid=GRID):
    return wd.fit_grid(wd.models.MLP((8,)), data, grid, num_steps=60, batch_size=20, eval_every=20, progress=False)


@pytest.fixture(scope="module")
def result():
    return train()


def test_table_averages_the_seeds_at_the_last_step(result):
    table, dataset = result.table(), result.dataset
    assert table.index.name == "candidate"
    assert table["decay"].tolist() == ["NoDecay", "ElasticNet", "Decoupled", "Decoupled", "Decoupled"]
    last = dataset.isel(step=-1).groupby("candidate")
    for name in ("validation_loss", "train_accuracy", "weight_norm", "zero_fraction", "penalty"):
        np.testing.assert_allclose(table[name], last.mean()[name], rtol=1e-6)  # float32 means against float64 ones
    error = last.reduce(np.std, ddof=1)["validation_loss"] / np.sqrt(3)
    np.testing.assert_allclose(table["validation_loss_standard_error"], error, rtol=1e-4)
    np.testing.assert_allclose(table["generalization_gap"], table["train_accuracy"] - table["validation_accuracy"])
    assert table["seeds"].tolist() == [3] * 5
    assert table["diverged"].tolist() == [0] * 5
    assert table.loc[1, ["l1_coefficient", "l2_coefficient"]].tolist() == [1e-4, 1e-3]
    assert table["coefficient"].isna().tolist() == [True, True, False, False, False]


def test_best_uses_validation_data_alone(result):
    spoiled = wd.Data(DATA.train, DATA.validation, (DATA.test[0], np.roll(DATA.test[1], 1)))
    other = train(spoiled)
    assert other.best() == result.best()
    assert other.best().number == int(result.table()["validation_loss"].idxmin())
    by_accuracy = result.best(metric="validation_accuracy")
    assert by_accuracy.mean == pytest.approx(result.table()["validation_accuracy"].max())


def test_best_hyperparameters_train_again(result):
    chosen = result.best()
    same = {"num_steps": 60, "batch_size": 20, "eval_every": 20, "progress": False}
    alone = wd.fit(wd.models.MLP((8,)), DATA, **chosen.hyperparameters, seed=1, **same)
    np.testing.assert_array_equal(
        alone.dataset["validation_loss"].values[0], result.dataset["validation_loss"].values[chosen.members[1]]
    )


def test_test_scores_the_chosen_and_no_decay_once(tmp_path):
    result = train()
    scores = result.test()
    chosen = result.best()
    assert scores.loc["chosen", "candidate"] == chosen.number
    assert scores.loc["no decay", "decay"] == "NoDecay()"
    outputs = [result.model.apply({"params": result.params(index)}, DATA.test[0]) for index in chosen.members]
    losses = [optax.softmax_cross_entropy_with_integer_labels(o, DATA.test[1]).mean() for o in outputs]
    accuracies = [(o.argmax(axis=1) == DATA.test[1]).mean() for o in outputs]
    assert scores.loc["chosen", "test_loss"] == pytest.approx(np.mean(losses), rel=1e-5)  # float32
    assert scores.loc["chosen", "test_accuracy"] == pytest.approx(np.mean(accuracies), rel=1e-6)

    calls = []
    result._score_test = lambda *_: calls.append(1)
    assert result.test().equals(scores)
    result.save(tmp_path / "run")
    assert wd.load(tmp_path / "run").test().equals(scores)
    assert not calls


def test_test_refuses_a_second_look_for_another_choice():
    result = train()
    result.test(metric="validation_loss")
    worst = result.dataset["validation_loss"].values
    result.dataset["validation_loss"].values[:] = worst.max() - worst
    with pytest.raises(ValueError, match=r"already looked at.*cannot judge another choice.*fresh data"):
        result.test()


def test_test_without_test_examples_says_so():
    with pytest.raises(ValueError, match=r"no test examples: give wd.Data a test split"):
        train(wd.Data(DATA.train, DATA.validation)).test()


def test_params_refuses_a_member_that_is_not_there(result):
    with pytest.raises(IndexError, match="member is 15; give 0 to 14"):
        result.params(15)
    with pytest.raises(IndexError, match="member is None; give 0 to 14"):
        result.params()


def test_all_diverged_is_told_and_kept(tmp_path):
    grid = wd.Grid(decay=[wd.NoDecay(), wd.L2(0.1)], learning_rate=[1e30], seed=range(2))
    result = train(grid=grid)
    assert "all of them diverged, " in repr(result)
    assert "no choice: every one of the 4 members diverged" in repr(result)
    assert result.table()["diverged"].tolist() == [2, 2]
    result.save(tmp_path / "run")
    assert len(wd.load(tmp_path / "run")) == 4


def test_save_params_writes_what_any_program_reads(result, tmp_path):
    file = tmp_path / "member.safetensors"
    result.save_params(file, member=1)
    read = load_file(file)
    assert sorted(read) == ["Dense_0/bias", "Dense_0/kernel", "Dense_1/bias", "Dense_1/kernel"]
    same_bits(read["Dense_0/kernel"], result.params(1)["Dense_0"]["kernel"])
    same_bits(wd.load_params(file), result.params(1))
    with pytest.raises(FileExistsError):
        result.save_params(file, member=0)
    result.save_params(file, member=0, overwrite=True)
    same_bits(wd.load_params(file), result.params(0))
    with pytest.raises(IndexError, match="member is 99"):
        result.save_params(tmp_path / "other.safetensors", member=99)


def test_load_gives_back_what_was_saved(result, tmp_path):
    result.save(tmp_path / "deep" / "run")
    loaded = wd.load(tmp_path / "deep" / "run")
    xarray.testing.assert_identical(loaded.dataset, result.dataset)
    assert loaded.members == result.members
    assert loaded.settings == result.settings
    assert loaded.best() == result.best()
    for index in range(len(result)):
        jax.tree.map(np.testing.assert_array_equal, loaded.params(index), result.params(index))
        jax.tree.map(lambda a, b: a.dtype == b.dtype, loaded.params(index), result.params(index))


def test_save_writes_files_that_other_programs_read(result, tmp_path):
    result.save(tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    kernels = load_file(tmp_path / "run" / "weights.safetensors")["params/Dense_0/kernel"]
    np.testing.assert_array_equal(kernels[7], result.params(7)["Dense_0"]["kernel"])
    with xarray.open_dataset(tmp_path / "run" / "dataset.nc", engine="scipy") as dataset:
        assert dataset["decay"].values[-1] == "Decoupled"
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert settings["members"][3] == {
        "decay": {"rule": "ElasticNet", "l1_coefficient": 1e-4, "l2_coefficient": 1e-3},
        "learning_rate": 1e-2,
        "seed": 0,
    }


def test_save_batch_statistics(tmp_path):
    import flax.linen as nn

    class Normalized(nn.Module):
        @nn.compact
        def __call__(self, inputs, train):
            return nn.Dense(10)(nn.BatchNorm(use_running_average=not train)(inputs))

    result = wd.fit(Normalized(), DATA, decay=wd.L2(0.1), learning_rate=0.1, num_steps=2, batch_size=10, progress=False)
    result.save(tmp_path / "run")
    loaded = wd.load(tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, loaded.model_state(), result.model_state())


def test_save_refuses_a_folder_with_something_else_and_touches_nothing(result, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(
        FileExistsError, match=r"holds something else \(thesis.tex\); nothing was touched.*empty folder"
    ):
        result.save(tmp_path, overwrite=True)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("thesis.tex", "years of work")]
    with pytest.raises(NotADirectoryError, match="is a file"):
        result.save(tmp_path / "thesis.tex")
    with pytest.raises(NotADirectoryError, match="is a file; give another folder"):
        result.save(tmp_path / "thesis.tex" / "below")


def test_save_replaces_an_earlier_result_only_when_told(result, tmp_path):
    result.save(tmp_path / "run")
    before = (tmp_path / "run" / "settings.json").read_bytes()
    with pytest.raises(FileExistsError, match=r"holds an earlier result; nothing was touched"):
        result.save(tmp_path / "run")
    assert (tmp_path / "run" / "settings.json").read_bytes() == before
    result.save(tmp_path / "run", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_save_that_fails_leaves_nothing_behind(result, tmp_path, monkeypatch):
    monkeypatch.setattr("safetensors.numpy.save_file", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        result.save(tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("file", ["dataset.nc", "weights.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "garbage"])
def test_load_tells_a_damaged_file(result, tmp_path, file, damage):
    result.save(tmp_path / "run")
    path = tmp_path / "run" / file
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:100] if damage == "truncated" else b"\x80\x04garbage" * 20)
    with pytest.raises(ValueError, match=f"{file} is missing, damaged or altered"):
        wd.load(tmp_path / "run")


def test_load_tells_what_is_no_result(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no weightdecay result; give a folder that result.save"):
        wd.load(tmp_path)
    (tmp_path / "settings.json").write_text('{"format": "weightdecay result", "version": 99}')
    with pytest.raises(ValueError, match="format version 99, this library reads up to 2; upgrade"):
        wd.load(tmp_path)


def test_save_takes_decays_of_every_form(tmp_path):
    decays = [
        wd.L2(wd.PerLayer({"Dense_0/kernel": 0.1, "Dense_.*": 0.2})),
        wd.L2({"Dense_0": {"kernel": 0.1, "bias": 0.0}, "Dense_1": 0.2}),
        (wd.Masked(wd.L2(0.1), wd.masks.matching("Dense_0/kernel")), wd.Masked(wd.L2(0.2), wd.masks.last)),
        wd.MaxNorm(2.0),
    ]
    grid = wd.Grid(decay=decays, learning_rate=1e-3)
    result = wd.fit_grid(
        wd.models.MLP((5,)), wd.data.digits(num_train=50), grid, num_steps=2, batch_size=None, progress=False
    )
    result.save(tmp_path / "out")
    loaded = wd.load(tmp_path / "out")
    assert loaded.members == result.members == list(grid)
    assert loaded.dataset.equals(result.dataset)
    assert loaded.dataset["coefficient[Dense_0.kernel]"].values.tolist()[:2] == [0.1, 0.1]
    assert loaded.dataset["coefficient"].values[3] == 2.0
    assert loaded.dataset["decay"].values[2] == "L2 on matching('Dense_0/kernel') + L2 on last"
    assert loaded.best().decay in [member["decay"] for member in grid]
    loaded.plot_path()
