"""Perplexity and bits per token: derived from each member's own loss, and usable wherever a metric is."""

import flax.linen as nn
import numpy as np
import pytest

import weightdecay as wd

TEXT = "she sells sea shells by the sea shore, and the shells she sells are sea shells for sure. " * 6
DATA = wd.data.tokens(TEXT, length=8)
NAMES = [f"{split}_{name}" for split in ("train", "validation") for name in ("perplexity", "bits_per_token")]
SETTINGS = {"num_steps": 20, "batch_size": 16, "eval_every": 5, "progress": False}


class Bigrams(nn.Module):
    num_outputs: int | None = None

    @nn.compact
    def __call__(self, tokens):
        return nn.Dense(self.num_outputs)(nn.Embed(self.num_outputs, 8)(tokens))


def fit(data=DATA, **changed):
    grid = wd.Grid(decay=[wd.NoDecay(), wd.Decoupled(1.0)], learning_rate=[3e-2], seed=range(2))
    return wd.fit_grid(Bigrams(), data, grid, **{**SETTINGS, **changed})


@pytest.fixture(scope="module")
def result():
    return fit()


@pytest.mark.slow
def test_every_recorded_value_derives_from_the_loss_of_its_member(result):
    for split in ("train", "validation"):
        loss = result.dataset[f"{split}_loss"].values.astype(np.float64)
        perplexity, bits = result.dataset[f"{split}_perplexity"], result.dataset[f"{split}_bits_per_token"]
        assert perplexity.dims == bits.dims == ("member", "step")
        np.testing.assert_allclose(perplexity, np.exp(loss), rtol=1e-5)
        np.testing.assert_allclose(bits, np.log2(np.exp(loss)), rtol=1e-6)


@pytest.mark.slow
def test_bits_per_token_are_those_of_the_probabilities_of_the_network(result):
    inputs, targets = DATA.validation
    logits = np.asarray(result.predict(inputs, 3), np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    of_targets = np.take_along_axis(probabilities, targets[..., None].astype(int), axis=-1)
    expected = -np.log2(of_targets).mean()
    np.testing.assert_allclose(result.dataset["validation_bits_per_token"][3, -1], expected, rtol=1e-5)


@pytest.mark.slow
def test_table_averages_the_perplexities_of_the_members(result):
    table, last = result.table(interval="t"), result.dataset.isel(step=-1)
    for candidate, members in ((0, [0, 1]), (1, [2, 3])):
        for name in NAMES:
            np.testing.assert_allclose(table[name][candidate], last[name].values[members].mean(), rtol=1e-6)
        perplexities = np.exp(last["validation_loss"].values[members].astype(np.float64))
        error = perplexities.std(ddof=1) / np.sqrt(2)
        np.testing.assert_allclose(table["validation_perplexity_standard_error"][candidate], error, rtol=1e-3)
        assert table["validation_perplexity_lower"][candidate] < perplexities.mean()
    assert result.lower_is_better("validation_perplexity")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["perplexity", "bits_per_token"])
def test_choice_and_report_take_them(result, name, tmp_path):
    metric = f"validation_{name}"
    chosen = result.best(metric=metric)
    assert chosen.number == int(result.table()[metric].idxmin())
    assert chosen.mean == pytest.approx(result.table()[metric].min())
    title, page = name.replace("_", " "), tmp_path / "report.html"
    result.report(page)
    assert f">validation {title}<" in page.read_text()
    result.report(page, metric=metric)
    assert f"Sorted by validation {title}" in page.read_text()
    assert f"validation {title}" in result._repr_html_()


@pytest.mark.slow
def test_test_scores_have_them(result, tmp_path):
    scores = result.test()
    np.testing.assert_allclose(
        scores["test_bits_per_token"].astype(float), scores["test_loss"].astype(float) / np.log(2), rtol=1e-6
    )
    assert (scores["test_perplexity"].astype(float) > np.exp(scores["test_loss"].astype(float)) * 0.9999).all()
    result.report(tmp_path / "report.html")
    assert "Test perplexity" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_early_stopping_takes_them():
    """Ranks are those of the loss, so that members stop at the same step; the kept value is that of the best step."""
    settings = {"num_steps": 400, "eval_every": 20, "patience": 2}
    by_loss, by_perplexity = fit(**settings), fit(**settings, stopping_metric="validation_perplexity")
    assert (by_loss.dataset["stopped_at"] > 0).any()
    for name in ("stopped_at", "best_step", "validation_loss", "validation_perplexity"):
        np.testing.assert_array_equal(by_loss.dataset[name], by_perplexity.dataset[name])
    last = by_perplexity.dataset.isel(step=-1)
    np.testing.assert_allclose(last["validation_perplexity"], np.exp(last["validation_loss"]), rtol=1e-5)


@pytest.mark.slow
def test_they_are_saved_and_resumed(result, tmp_path):
    result.save(tmp_path / "saved")
    loaded = wd.load(tmp_path / "saved")
    for name in NAMES:
        np.testing.assert_array_equal(loaded.dataset[name], result.dataset[name])
    fit(directory=tmp_path / "run")
    again = fit(directory=tmp_path / "run")
    for name in NAMES:
        np.testing.assert_array_equal(again.dataset[name], result.dataset[name])


@pytest.mark.slow
def test_streamed_training_examples_give_them_too(result):
    streamed = fit(plan=wd.Plan(result.settings["plan"]["lane_width"], 1, streamed=True))
    for name in NAMES:
        np.testing.assert_allclose(streamed.dataset[name], result.dataset[name], rtol=1e-5)


@pytest.mark.slow
def test_one_class_an_example_has_none_and_may_use_the_name():
    data = wd.Data(*((np.eye(4, dtype=np.float32), np.arange(4)) for _ in range(2)))
    options = {"learning_rate": 1e-2, "num_steps": 2, "batch_size": 4, "progress": False}
    plain = wd.fit(wd.models.MLP(()), data, decay=wd.NoDecay(), **options)
    assert not [name for name in plain.dataset if "perplexity" in str(name) or "bits" in str(name)]
    with pytest.raises(ValueError, match="stopping_metric is 'validation_perplexity'; give one of validation_accuracy"):
        wd.fit(wd.models.MLP(()), data, decay=wd.NoDecay(), stopping_metric="validation_perplexity", **options)
    for name in ("perplexity", "validation_bits_per_token"):
        with pytest.raises(ValueError, match=f"metrics has the name '{name}', which is reserved"):
            fit(metrics={name: lambda outputs, targets: outputs[..., 0]}, lower_is_better={name: True})
