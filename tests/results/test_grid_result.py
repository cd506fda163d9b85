"""Results: the table, one look at the test set, and files that any program can read."""

import json
import math
from html.parser import HTMLParser

import jax
import numpy as np
import optax
import pytest
import xarray
from safetensors.numpy import load_file
from scipy import stats

import weightdecay as wd
from compare import same_bits
from weightdecay.core import statistics
from weightdecay.results import dataset as datasets
from weightdecay.results import extension

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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
    with pytest.raises(IndexError, match="member is 15; give 0 to 14, or None for the chosen candidate"):
        result.params(15)


def test_methods_take_the_chosen_candidate_where_no_member_is_given(result, tmp_path):
    first = result.best().members[0]
    assert result.chosen_member == first
    same_bits(result.params(), result.params(first))
    same_bits(result.model_state(), result.model_state(first))
    inputs = DATA.test[0][:5]
    np.testing.assert_array_equal(result.predict(inputs), result.predict(inputs, first))
    result.save_params(tmp_path / "chosen.safetensors")
    same_bits(wd.load_params(tmp_path / "chosen.safetensors"), result.params(first))
    broken = result.dataset.assign(diverged_at=("member", np.full(len(result), 3)))
    with pytest.raises(ValueError, match=r"member is None, and no candidate can be chosen: every .* a member, 0"):
        wd.GridResult(broken, result.members, result._weights, result.settings).params()


@pytest.mark.slow
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


@pytest.mark.slow
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
    with pytest.raises(FileExistsError, match=r"holds other files \(thesis.tex\); nothing was changed.*empty folder"):
        result.save(tmp_path, overwrite=True)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("thesis.tex", "years of work")]
    with pytest.raises(NotADirectoryError, match="is a file"):
        result.save(tmp_path / "thesis.tex")
    with pytest.raises(NotADirectoryError, match="is a file; give another folder"):
        result.save(tmp_path / "thesis.tex" / "below")


def test_save_replaces_an_earlier_result_only_when_told(result, tmp_path):
    result.save(tmp_path / "run")
    before = (tmp_path / "run" / "settings.json").read_bytes()
    with pytest.raises(FileExistsError, match=r"holds an earlier result; nothing was changed"):
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
    with pytest.raises(ValueError, match="format version 99, this library reads up to 4; upgrade"):
        wd.load(tmp_path)


@pytest.mark.slow
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


PATH = [wd.NoDecay(), wd.L2(0.01), wd.L2(0.1), wd.L2(1.0)]


def built(grid, last, *, steps=(10, 20), settings=None, extend=None, layers=None, score_test=None):
    """A result of given validation losses at the last step; weights say whose they are."""
    members, shape = list(grid), (len(grid), len(steps))
    loss = np.full(shape, 5.0, np.float32)
    loss[:, -1] = np.ravel(last)
    variables = {name: (("member", "step"), loss + place) for place, name in enumerate(("train_loss", "penalty"))}
    variables |= {name: (("member", "step"), loss) for name in ("validation_loss", "weight_norm", "zero_fraction")}
    variables |= {f"{split}_accuracy": (("member", "step"), 1 - loss / 10) for split in ("train", "validation")}
    variables |= {"diverged_at": ("member", np.where(np.isnan(loss[:, -1]), 15, -1).astype(np.int32))}
    along = {name: ("member", values) for name, values in datasets.coordinates(members).items()}
    coordinates = {"member": np.arange(len(members), dtype=np.int32), "step": np.array(steps, np.int32), **along}
    if layers is not None:
        coordinates["layer"] = layers
        norms = np.ones((*shape, len(layers)), np.float32)
        variables["layer_norm"] = (("member", "step", "layer"), norms)
    weights = [({"kernel": np.array([_number(member)], np.float32)}, {}) for member in members]
    settings = {"batch_size": 4, "seconds": 1.5, "compiled_programs": 1, "interrupted": False, **(settings or {})}
    dataset = xarray.Dataset(variables, coordinates)
    return wd.GridResult(dataset, members, weights, settings, score_test=score_test, extend=extend)


def _number(member):
    """A number that tells a member from others."""
    return sum(member["decay"].coefficients().values()) + 1000 * member["seed"]


class Trainer:
    """Trains a grid by writing down its loss; keeps what it was asked for."""

    def __init__(self, **others):
        self.asked, self.others = [], others

    def __call__(self, grid, num_steps=None):
        self.asked.append((list(grid), num_steps))
        last = [abs(_number({**member, "seed": 0}) - 1.0) / 10 + 0.01 * member["seed"] for member in grid]
        steps = (10, 20) if num_steps is None else (10, 20, num_steps)
        return built(grid, last, steps=steps, extend=self, **self.others)


def test_table_adds_intervals_of_the_validation_metrics_as_scipy_has_them():
    metric = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    result = built(wd.Grid(decay=PATH, learning_rate=0.1, seed=range(5)), metric)
    plain, table = result.table(), result.table(interval="t", confidence=0.9)
    added = [f"validation_{name}_{end}" for name in ("loss", "accuracy") for end in ("lower", "upper")]
    assert sorted(set(table) - set(plain)) == sorted(added)
    assert table[list(plain)].equals(plain)
    expected = [stats.ttest_1samp(values.astype(float), 0).confidence_interval(0.9) for values in metric]
    np.testing.assert_allclose(table[["validation_loss_lower", "validation_loss_upper"]], expected, rtol=1e-9)
    again = result.table(interval="bootstrap")
    for place, values in enumerate(metric):
        found = statistics.estimate(values, interval="bootstrap")
        assert again.loc[place, ["validation_loss_lower", "validation_loss_upper"]].tolist() == [
            found.lower,
            found.upper,
        ]
    with pytest.raises(ValueError, match="interval is 'normal'; give one of 't', 'bootstrap'"):
        result.table(interval="normal")


def test_table_and_choice_of_folds_take_into_account_that_they_share_examples():
    metric = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)  # candidate, seed, fold
    grid = wd.Grid(decay=PATH, learning_rate=0.1, seed=range(2), fold=range(3))
    result = built(grid, metric, settings={"folds": 3})
    by_fold = metric.astype(float).mean(axis=1)
    expected = math.sqrt(1 / 3 + 1 / 2) * by_fold.std(axis=1, ddof=1)
    np.testing.assert_allclose(result.table()["validation_loss_standard_error"], expected, rtol=1e-9)
    chosen = result.best()
    np.testing.assert_allclose(chosen.standard_error, expected[chosen.number], rtol=1e-9)
    assert "2 seeds x 3 folds" in chosen.sentence


@pytest.mark.parametrize(("reference", "number"), [("no decay", 0), ("best", 2), (3, 3), (np.int64(1), 1)])
def test_differences_equals_scipy(reference, number):
    metric = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    metric[2] -= 9
    result = built(wd.Grid(decay=PATH, learning_rate=0.1, seed=range(6)), metric)
    table = result.differences(reference, confidence=0.8)
    assert table.index.name == "candidate"
    assert table["pairs"].tolist() == [6] * 4
    apart = metric.astype(float) - metric[number]
    np.testing.assert_allclose(table["difference"], apart.mean(axis=1), rtol=1e-9)
    np.testing.assert_allclose(table["standard_error"], stats.sem(apart, axis=1), rtol=1e-9)
    others = [place for place in range(4) if place != number]
    expected = [stats.ttest_rel(*metric[[place, number]].astype(float)).confidence_interval(0.8) for place in others]
    np.testing.assert_allclose(table.loc[others, ["lower", "upper"]], expected, rtol=1e-9)
    assert table.loc[number, ["difference", "standard_error", "lower", "upper"]].tolist() == [0.0] * 4


def test_differences_of_broken_candidates_are_nan_and_one_seed_has_no_error():
    result = built(wd.Grid(decay=PATH, learning_rate=0.1), [0.5, math.nan, 0.25, 1.0])
    table = result.differences()
    np.testing.assert_array_equal(table["difference"], [0.0, math.nan, -0.25, 0.5])
    assert table[["standard_error", "lower", "upper"]].isna().all(axis=None)
    assert table["pairs"].tolist() == [1] * 4


def test_differences_refuses_what_there_is_not(without_beartype):
    result = built(wd.Grid(decay=PATH[1:], learning_rate=0.1), [0.5, 0.25, 1.0])
    with pytest.raises(ValueError, match="reference is 'no decay', but no candidate without decay has a finite valid"):
        result.differences()
    for wrong in (3, -1, True, "worst", 1.0):
        with pytest.raises(
            ValueError, match=r"reference is .*; give 'no decay', 'best', or a candidate's number, 0 to 2"
        ):
            result.differences(wrong)
    with pytest.raises(ValueError, match="metric is 'train_loss'; the choice is made on validation data"):
        result.differences("best", metric="train_loss")


def test_best_tells_the_difference_to_no_decay_and_the_optimism():
    metric = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    result = built(wd.Grid(decay=PATH, learning_rate=0.1, seed=range(6)), metric)
    chosen, row = result.best(confidence=0.8), result.differences(confidence=0.8).loc[result.best().number]
    told = [chosen.difference.mean, chosen.difference.standard_error, chosen.difference.lower, chosen.difference.upper]
    assert told == row[["difference", "standard_error", "lower", "upper"]].tolist()
    assert chosen.optimism is None
    asked = result.best(optimism=True)
    assert asked.optimism == result.optimism()
    assert str(asked.sentence) in asked.summary
    assert "re-splitting" in asked.summary


def test_optimism_leaves_out_broken_candidates_and_seeds_that_not_all_have():
    metric = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    metric[1, 2] = np.nan
    whole = wd.Grid(decay=PATH, learning_rate=0.1, seed=range(4))
    result = built(whole, metric)
    expected = statistics.optimism(metric[[0, 2, 3]].astype(float), lower_is_better=True)
    np.testing.assert_allclose(result.optimism(), expected, rtol=1e-12)
    by_accuracy = statistics.optimism(1 - metric[[0, 2, 3]] / 10, lower_is_better=False)
    np.testing.assert_allclose(result.optimism(metric="validation_accuracy"), by_accuracy, rtol=1e-5)  # float32
    fewer = whole.where(lambda member: member["decay"] != wd.L2(1.0) or member["seed"] > 0)
    result = built(fewer, [metric[PATH.index(member["decay"]), member["seed"]] for member in fewer])
    expected = statistics.optimism(metric[[0, 2, 3], 1:].astype(float), lower_is_better=True)
    np.testing.assert_allclose(result.optimism(), expected, rtol=1e-12)


def test_optimism_leaves_out_folds_and_not_their_seeds():
    metric = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
    grid = wd.Grid(decay=PATH, learning_rate=0.1, seed=range(2), fold=range(3))
    expected = statistics.optimism(metric.astype(float).mean(axis=1), lower_is_better=True)
    np.testing.assert_allclose(built(grid, metric).optimism(), expected, rtol=1e-12)


def test_extend_without_a_grid_goes_on_beyond_the_edge():
    train = Trainer()
    grid = wd.Grid(decay=PATH[:3], learning_rate=0.1, seed=range(2))
    result = train(grid)
    chosen = result.best()
    assert (chosen.decay, chosen.edge) == (wd.L2(0.1), "highest")
    assert chosen.advice.endswith("extend the grid, as with wd.logspace(wd.L2, 1, 10, 2). result.extend() trains it.")
    extended = result.extend()
    further = wd.Grid(decay=[wd.L2(1.0), wd.L2(10.0)], learning_rate=0.1, seed=range(2))
    assert train.asked[1:] == [(list(further), None)]
    assert extended.members == [*grid, *further]
    assert (extended.best().decay, extended.best().edge, len(result)) == (wd.L2(1.0), None, 6)
    with pytest.raises(
        ValueError, match=r"grid is None, but the best candidate, L2\(1\).* is not at an edge of its grid"
    ):
        extended.extend()


def test_extend_gives_what_one_run_of_all_gives():
    train = Trainer()
    first = wd.Grid(decay=[*PATH[:2], wd.ElasticNet(0.1, 0.2)], learning_rate=0.1, seed=range(2))
    added = wd.Grid(decay=[wd.L2(0.01), wd.L1(0.5)], learning_rate=0.1, seed=range(1, 4), momentum=[0.0, 0.9])
    joined, whole = train(first).extend(added), train(first + added)
    xarray.testing.assert_identical(joined.dataset, whole.dataset)
    assert {name: values.dtype for name, values in joined.dataset.variables.items()} == {
        name: values.dtype for name, values in whole.dataset.variables.items()
    }
    assert joined.members == whole.members
    same_bits([joined.params(place) for place in range(len(joined))], [whole.params(p) for p in range(len(whole))])
    assert joined.table().equals(whole.table())
    assert joined.settings == whole.settings | {
        "seconds": 3.0,
        "compiled_programs": 2,
        "extensions": [len(added)],
    }
    assert joined.extend(wd.Grid(decay=wd.L2(7.0), learning_rate=0.1)).settings["extensions"] == [len(added), 1]


def test_extend_trains_only_what_is_new():
    train = Trainer()
    grid = wd.Grid(decay=PATH, learning_rate=0.1, seed=range(2))
    result = train(grid)
    result.extend(wd.Grid(decay=[wd.L2(1.0), wd.L2(2.0)], learning_rate=0.1, seed=range(2)))
    assert train.asked[1] == (list(wd.Grid(decay=wd.L2(2.0), learning_rate=0.1, seed=range(2))), None)
    more = result.extend(seeds=range(1, 4))
    assert train.asked[2] == ([{**one, "seed": seed} for one in grid[::2] for seed in (2, 3)], None)
    assert more.table()["seeds"].tolist() == [4] * 4
    both = result.extend(wd.Grid(decay=wd.L2(2.0), learning_rate=0.1), seeds=2)
    assert [(str(one["decay"]), one["seed"]) for one in both.members[8:]] == [
        ("L2(2)", 0),
        *((str(decay), 2) for decay in (*PATH, wd.L2(2.0))),
    ]


def test_extend_with_more_steps_runs_all_members():
    train = Trainer()
    grid = wd.Grid(decay=PATH, learning_rate=0.1, seed=range(2))
    added = wd.Grid(decay=wd.L2(2.0), learning_rate=0.1)
    longer = train(grid).extend(added, num_steps=40)
    assert train.asked[1] == ([*grid, *added], 40)
    assert longer.dataset["step"].values.tolist() == [10, 20, 40]
    same = train(grid).extend(added, num_steps=np.int32(20))
    assert train.asked[3] == (list(added), None)
    assert len(same) == 9


def test_extend_keeps_the_look_at_the_test_set():
    scored = []

    def score(member, params, model_state):
        scored.append((member, params["kernel"].item()))
        return {"loss": 0.5, "accuracy": None}

    train = Trainer(score_test=score)
    result = train(wd.Grid(decay=PATH[:2], learning_rate=0.1, seed=range(2)))
    scores = result.test()
    with_more = result.extend(seeds=[2])
    assert with_more.test().equals(scores)
    better = result.extend(wd.Grid(decay=wd.L2(1.0), learning_rate=0.1, seed=range(2)))
    with pytest.raises(
        ValueError, match=r"already looked at for candidates {'chosen': 1, 'no decay': 0}, so it cannot"
    ):
        better.test()
    with pytest.raises(
        ValueError, match=r"already looked at for candidates .* after 20 of 40 steps, so it cannot judge"
    ):
        result.extend(num_steps=40).test()
    # Never looked at: a member of the second part is scored by its own number there.
    scored.clear()
    fresh = train(wd.Grid(decay=PATH[:1], learning_rate=0.1, seed=range(2))).extend(
        wd.Grid(decay=PATH[3], learning_rate=0.1, seed=range(2))
    )
    assert fresh.test().loc["chosen", "candidate"] == 1
    assert scored == [(0, 1.0), (1, 1001.0), (0, 0.0), (1, 1000.0)]


def test_extend_refuses_what_it_cannot_do(tmp_path, without_beartype):
    grid = wd.Grid(decay=PATH, learning_rate=0.1, seed=range(2))
    result = Trainer()(grid)
    with pytest.raises(ValueError, match="grid has only members that are trained already; give other"):
        result.extend(grid)
    with pytest.raises(TypeError, match=r"grid is of type list; give wd.Grid\("):
        result.extend(PATH)
    for wrong in (10, 2.5, True):
        with pytest.raises(ValueError, match=r"num_steps is .*; give an integer of at least 20, the number"):
            result.extend(num_steps=wrong)
    with pytest.raises(ValueError, match="this result cannot train: it was read from disk"):
        built(grid, np.ones(8)).extend()


def test_join_refuses_results_that_do_not_go_together():
    def one(rule, **others):
        return built(wd.Grid(decay=rule, learning_rate=0.1), [0.5], **others)

    with pytest.raises(ValueError, match="second has members that first has as well"):
        extension.join(one(wd.L2(0.1)), one(wd.L2(0.1)))
    with pytest.raises(
        ValueError, match="second was evaluated at 3 steps up to 30, first at 2 up to 20; train both with"
    ):
        extension.join(one(wd.L2(0.1)), one(wd.L2(0.2), steps=(10, 20, 30)))
    with pytest.raises(ValueError, match="second has batch_size 8, first has 4; join results of the same settings"):
        extension.join(one(wd.L2(0.1)), one(wd.L2(0.2), settings={"batch_size": 8}))


def test_join_brings_layers_together():
    first = built(wd.Grid(decay=wd.L2(0.1), learning_rate=0.1), [0.5], layers=["a", "b"])
    second = built(wd.Grid(decay=wd.L2(0.2), learning_rate=0.1), [0.5], layers=["b", "c"])
    norms = extension.join(first, second).dataset["layer_norm"]
    assert norms["layer"].values.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(norms.values[:, 0], [[1, 1, np.nan], [np.nan, 1, 1]])


def test_joined_result_is_saved_as_any_other(tmp_path):
    train = Trainer()
    joined = train(wd.Grid(decay=PATH[:3], learning_rate=0.1, seed=range(2))).extend()
    joined.save(tmp_path / "run")
    loaded = wd.load(tmp_path / "run")
    xarray.testing.assert_identical(loaded.dataset, joined.dataset)
    assert (loaded.members, loaded.settings) == (joined.members, joined.settings)
    same_bits(loaded.params(-1), joined.params(-1))
    assert loaded.best().sentence == joined.best().sentence


@pytest.mark.slow
def test_extend_of_a_trained_grid_equals_one_run_bit_for_bit(result):
    added = wd.Grid(decay=wd.Decoupled(100.0), learning_rate=[1e-2], seed=range(3))
    joined, whole = result.extend(added), train(grid=GRID + added)
    xarray.testing.assert_identical(joined.dataset, whole.dataset)
    for place in range(len(whole)):
        same_bits(joined.params(place), whole.params(place))
    assert joined.test().equals(whole.test())


class Text(HTMLParser):
    """Rows of the tables of a page, and its paragraphs."""

    def __init__(self, page):
        super().__init__()
        self.rows, self.paragraphs, self.tags, self.inside = [], [], [], None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        assert not {"src", "href"} & {name for name, _ in attrs}
        if tag == "tr":
            self.rows.append([])
        if tag == "p":
            self.paragraphs.append("")
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self.inside = tag if tag in ("td", "th", "p") else self.inside

    def handle_endtag(self, tag):
        self.inside = None if tag == self.inside else self.inside

    def handle_data(self, data):
        if self.inside == "p":
            self.paragraphs[-1] += data
        elif self.inside:
            self.rows[-1][-1] += data


def test_repr_html_shows_the_sentence_and_the_best_candidates():
    decay = [wd.NoDecay(), wd.Masked(wd.L2(0.5), wd.masks.matching("<a>&b")), *wd.logspace(wd.L2, 1e-3, 1e3, 12)]
    metric = np.linspace(9, 10, 28).reshape(14, 2)
    metric[1], metric[5], metric[7], metric[2] = [0.1, 0.2], [0.3, 0.3], [np.nan, 0.0], [-np.inf, 0.0]
    result = built(wd.Grid(decay=decay, learning_rate=0.1, seed=range(2), normalization=["batch"]), metric)
    page = Text(result._repr_html_())
    chosen = result.best()
    assert page.paragraphs == [
        chosen.sentence,
        "GridResult of 28 members, 1 of them diverged, 2 evaluations",
        "The best 10 of 14 candidates.",
    ]
    head, *rows = page.rows
    assert head[:4] == ["candidate", "decay", "learning rate", "normalization"]
    assert head[4:] == ["validation loss", "validation accuracy", "diverged"]
    assert [row[0] for row in rows[:3]] == ["1", "5", "0"]
    assert rows[0][1:5] == [str(decay[1]), "0.1", "batch", "0.150 ± 0.050"]
    assert len(rows) == 10
    assert not {"script", "img", "link"} & set(page.tags)


def test_repr_html_of_what_has_no_choice_says_so():
    result = built(wd.Grid(decay=PATH, learning_rate=0.1), [np.nan] * 4)
    page = Text(result._repr_html_())
    assert page.paragraphs[0].startswith("No choice: every one of the 4 members diverged")
    assert len(page.rows) == 5


def test_part_is_the_result_of_those_members(result):
    some = result.part([5, 2])
    assert some.members == [result.members[5], result.members[2]]
    for name in ("validation_loss", "rotation", "diverged_at"):
        np.testing.assert_array_equal(some.dataset[name].values, result.dataset[name].values[[5, 2]])
    assert list(some.dataset["member"].values) == [0, 1]
    same_bits(some.params(1), result.params(2))
    inputs = DATA.test[0][:7]
    np.testing.assert_array_equal(some.predict(inputs, 0), result.predict(inputs, 5))
    with pytest.raises(IndexError, match="member is 99"):
        result.part([99])


def test_where_keeps_the_members_for_which_it_is_true(result):
    some = result.where(lambda member: member["seed"] == 1)
    assert some.members == [member for member in result.members if member["seed"] == 1]
    with pytest.raises(ValueError, match="none of the 15 members satisfies the predicate"):
        result.where(lambda member: False)


def test_predict_gives_what_the_model_gives(result, tmp_path):
    inputs = DATA.test[0][:7]
    expected = result.model.apply({"params": result.params(-1)}, inputs)
    # Another program than the model's own: the last digits of float32.
    np.testing.assert_allclose(result.predict(inputs, -1), expected, rtol=1e-5, atol=1e-6)
    result.save(tmp_path / "saved")
    with pytest.raises(ValueError, match="has no model: it was read from disk"):
        wd.load(tmp_path / "saved").predict(inputs, 0)


def test_best_takes_a_margin():
    metric = np.array([[1.0, 1.1, 1.2], [0.98, 1.13, 1.18]])
    result = built(wd.Grid(decay=PATH[:2], learning_rate=0.1, seed=range(3)), metric)
    assert result.best().no_decay_is_as_good is None
    assert result.best(margin=0.2).no_decay_is_as_good is True
    assert "within ± 0.2" in result.best(margin=0.2).sentence
