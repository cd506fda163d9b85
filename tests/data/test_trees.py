"""Inputs that are several arrays: splits, folds, standardization, streaming, resuming, and what is refused."""

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weightdecay as wd
from compare import same_bits
from weightdecay.data import trees
from weightdecay.storage import fingerprints

RNG = np.random.default_rng(0)
EXAMPLES = 60
REAL = RNG.normal(loc=5, scale=3, size=(EXAMPLES, 4))
TOKENS = RNG.integers(0, 6, (EXAMPLES, 3))
LABELS = ((REAL[:, 0] > 5) ^ (TOKENS[:, 0] > 2)).astype(np.int32)
SETTINGS = {"num_steps": 6, "batch_size": 8, "eval_every": 3, "progress": False}


class Both(nn.Module):
    @nn.compact
    def __call__(self, inputs):
        hidden = jnp.concatenate([inputs["real"], nn.Embed(6, 4)(inputs["tokens"]).mean(axis=1)], axis=-1)
        return nn.Dense(2)(nn.relu(nn.Dense(8)(hidden)))


def inputs():
    return {"real": REAL, "tokens": TOKENS}


@pytest.mark.slow
def test_split_standardizes_floats_and_leaves_integers():
    data, alone = wd.data.split(inputs(), LABELS, seed=3), wd.data.split(REAL, LABELS, seed=3)
    for name in ("train", "validation", "test"):
        made, labels = getattr(data, name)
        np.testing.assert_array_equal(made["real"], getattr(alone, name)[0])
        np.testing.assert_array_equal(labels, getattr(alone, name)[1])
        assert made["tokens"].dtype == np.int32
    assert repr(data).startswith("Data(train: {real: float32[36, 4], tokens: int32[36, 3]} and int32[36]")


@pytest.mark.slow
def test_folds_are_those_of_one_array():
    """Large offsets included, which float32 loses."""
    shifted = REAL + 1.7e9
    data, alone = (wd.data.folds(given, LABELS, num_folds=3) for given in ({"real": shifted}, shifted))

    class Takes(nn.Module):
        @nn.compact
        def __call__(self, inputs):
            inputs = inputs["real"] if isinstance(inputs, dict) else inputs
            return nn.Dense(2)(nn.relu(nn.Dense(4)(inputs)))

    grid = wd.Grid(decay=[wd.NoDecay()], learning_rate=[1e-2], fold=range(3))
    result, expected = (wd.fit_grid(Takes(), given, grid, **SETTINGS) for given in (data, alone))
    assert result.dataset["validation_loss"].equals(expected.dataset["validation_loss"])
    same_bits(result.params(2), expected.params(2))
    same_bits(result.predict({"real": shifted}, 1), expected.predict(shifted, 1))


@pytest.mark.slow
def test_a_tree_is_streamed_resumed_and_scored_as_it_lies(tmp_path):
    data = wd.data.split(inputs(), LABELS, seed=3)
    grid = wd.Grid(decay=[wd.NoDecay(), wd.L2(0.1)], learning_rate=[1e-2], seed=range(2))
    result = wd.fit_grid(Both(), data, grid, **SETTINGS)
    streamed = wd.fit_grid(
        Both(), data, grid, **SETTINGS, plan=wd.Plan(result.settings["plan"]["lane_width"], 1, streamed=True)
    )
    assert result.dataset.equals(streamed.dataset)
    saved = wd.fit_grid(Both(), data, grid, **SETTINGS, directory=tmp_path / "run")
    assert wd.load(tmp_path / "run").dataset.equals(saved.dataset)
    assert np.isfinite(result.test()["test_loss"].to_numpy(float)).all()
    other = {"real": REAL, "tokens": np.roll(TOKENS, 1)}
    with pytest.raises(ValueError, match="holds a different run"):
        wd.fit_grid(Both(), wd.data.split(other, LABELS, seed=3), grid, **SETTINGS, directory=tmp_path / "run")


def test_digest_of_a_tree_is_that_of_its_arrays():
    batches = wd.data.split(inputs(), LABELS).batches()
    arrays = [batches["train"].inputs["real"], batches["train"].inputs["tokens"], batches["train"].targets]
    assert fingerprints.of_data(batches)["train"] == fingerprints.of_arrays(arrays)


class Pair(NamedTuple):
    left: np.ndarray
    right: np.ndarray


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Record:
    left: np.ndarray
    right: np.ndarray


@pytest.mark.slow
@pytest.mark.parametrize("made", [Pair, Record, lambda left, right: (left, right)])
def test_every_kind_of_tree_reaches_the_network_as_it_is(made):
    class Takes(nn.Module):
        @nn.compact
        def __call__(self, inputs):
            left, right = jax.tree.leaves(inputs)
            assert type(inputs) is type(made(0, 0))
            return nn.Dense(2)(jnp.concatenate([left, right], axis=-1))

    data = wd.data.split(made(REAL, REAL[:, :2]), LABELS)
    assert np.isfinite(
        wd.fit(Takes(), data, decay=wd.NoDecay(), learning_rate=1e-2, **SETTINGS).dataset["validation_loss"]
    ).all()


def test_lists_and_tuples_of_rows_are_one_array():
    rows = tuple(map(tuple, REAL.tolist()))
    assert not trees.is_tree(rows)
    assert wd.data.split(rows, LABELS).train[0].shape == (36, 4)
    assert wd.data.split(REAL.tolist(), LABELS).train[0].shape == (36, 4)


def test_trees_that_do_not_fit_are_refused():
    train, validation = ({"a": REAL[:40]}, LABELS[:40]), ({"a": REAL[40:]}, LABELS[40:])
    with pytest.raises(ValueError, match=r"inputs have unequal numbers of rows \(inputs\[a\] 60, inputs\[b\] 59\)"):
        wd.data.split({"a": REAL, "b": TOKENS[1:]}, LABELS)
    with pytest.raises(ValueError, match=r"data.validation has other inputs than data.train \(\{b: float"):
        fit(wd.Data(train, ({"b": REAL[40:]}, LABELS[40:])))
    with pytest.raises(ValueError, match=r"inputs\[a\] of shape \(examples, \*\(3,\)\), data.train has \(examples, \*"):
        fit(wd.Data(train, ({"a": REAL[40:, :3]}, LABELS[40:])))
    broken = REAL.copy()
    broken[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"data.train inputs\[a\] contain 1 values that are nan or infinite"):
        fit(wd.Data(({"a": broken}, LABELS), validation))
    with pytest.raises(ValueError, match="inputs have no arrays; give at least one"):
        wd.data.split({}, LABELS)
    with pytest.raises(
        ValueError, match=r"'shift', which acts on one array of images .*, and 0 of the inputs fit: a of"
    ):
        fit(wd.Data(train, validation), shift=[1])


class TakesImages(nn.Module):
    @nn.compact
    def __call__(self, inputs):
        images = inputs["image"] if isinstance(inputs, dict) else inputs
        return nn.Dense(2)(nn.relu(nn.Dense(4)(images.reshape(len(images), -1))))


AUGMENTED = {"shift": [1], "flip": [0.5], "crop": [0.2], "cutout": [0.3], "input_noise": [0.1], "mixup": [0.2]}


@pytest.mark.slow
def test_augmentation_acts_on_one_array_of_several():
    """On the only one that fits each kind, or on the one that is named, as on that array alone."""
    images, others = (RNG.normal(size=(EXAMPLES, 4, 4)).astype(np.float32) for _ in range(2))
    grid = wd.Grid(learning_rate=1e-2, **AUGMENTED)

    def trained(inputs, augmented=None, grid=grid):
        data = wd.Data((inputs, LABELS), (inputs, LABELS), augmented=augmented)
        return wd.fit_grid(TakesImages(), data, grid, **SETTINGS).params()

    expected = trained(images)
    same_bits(trained({"image": images, "tokens": TOKENS}), expected)
    both = {"image": images, "other": others}
    same_bits(trained(both, "image"), expected)
    plain = wd.Grid(learning_rate=1e-2)
    same_bits(trained(both, "other", wd.Grid(learning_rate=1e-2, shift=[1])), trained(images, grid=plain))
    with pytest.raises(AssertionError):
        same_bits(expected, trained(images, grid=plain))


def test_array_to_augment_that_is_not_known_or_does_not_fit_is_refused():
    images = RNG.normal(size=(EXAMPLES, 4, 4)).astype(np.float32)

    def refused(inputs, match, augmented=None, error=ValueError, **axes):
        data = wd.Data((inputs, LABELS), (inputs, LABELS), augmented=augmented)
        with pytest.raises(error, match=match):
            wd.fit_grid(TakesImages(), data, wd.Grid(learning_rate=1e-2, **axes), **SETTINGS)

    both = {"image": images, "other": images}
    refused(both, r"2 of the inputs fit: image of dtype float32 .*, other of .*augmented='image'\)", shift=[1])
    refused(both, r"'mixup', which acts on one array of floats, and 2 of", mixup=[1])
    refused(both, r"data\.augmented is 'images', but the inputs are image, other", "images", shift=[1])
    refused({"image": images, "tokens": TOKENS}, "needs real inputs", "tokens", TypeError, input_noise=[1])


def fit(data, **axes):
    grid = wd.Grid(decay=[wd.NoDecay()], learning_rate=[1e-2], **axes)
    return wd.fit_grid(wd.models.MLP((4,)), data, grid, **SETTINGS)
