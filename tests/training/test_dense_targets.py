"""Targets with several positions an example: classes, ignored positions, real numbers, and losses that return trees.

The oracles are loops of flax and optax, and losses of torch.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import weightdecay as wd
from compare import same_bits

RNG = np.random.default_rng(0)
EXAMPLES, LENGTH, TOKENS, CLASSES = 48, 6, 9, 4
INPUTS = RNG.integers(0, TOKENS, (EXAMPLES, LENGTH)).astype(np.int32)
LABELS = (INPUTS % CLASSES).astype(np.int32)
# Sentences of unequal lengths: a mean of means differs from the mean.
LENGTHS = RNG.integers(1, LENGTH + 1, EXAMPLES)
PADDED = np.where(np.arange(LENGTH) < LENGTHS[:, None], LABELS, -1).astype(np.int32)
TRAIN, VALIDATION = slice(0, 32), slice(32, EXAMPLES)
SETTINGS = {"num_steps": 12, "batch_size": None, "eval_every": 12, "progress": False}


class Tagger(nn.Module):
    """One class for each token."""

    num_outputs: int | None = CLASSES

    @nn.compact
    def __call__(self, tokens):
        return nn.Dense(self.num_outputs)(nn.relu(nn.Dense(8)(nn.Embed(TOKENS, 8)(tokens))))


def data(targets, inputs=INPUTS, weights=None):
    def split(rows):
        return (inputs[rows], targets[rows]) if weights is None else (inputs[rows], targets[rows], weights[rows])

    return wd.Data(train=split(TRAIN), validation=split(VALIDATION))


def fit(targets, model=None, decay=None, **changed):
    grid = wd.Grid(decay=decay or [wd.NoDecay(), wd.Decoupled(0.5)], learning_rate=[1e-2], seed=range(2))
    made = changed.pop("data", None) or data(targets)
    return wd.fit_grid(model or Tagger(), made, grid, **{**SETTINGS, **changed})


def trained_by_hand(model, init, loss, decay, num_steps=12, learning_rate=1e-2):
    """AdamW of optax on all examples, its decay on kernels alone."""
    mask = jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", init)
    optimizer = optax.adamw(learning_rate, weight_decay=decay, mask=mask)

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    params, state = init, optimizer.init(init)
    for _ in range(num_steps):
        params, state = step(params, state)
    return params


def initial(model, inputs, seed):
    """Weights of a member at step 0: those of a run whose one step is too small to change them."""
    grid = wd.Grid(decay=[wd.NoDecay()], learning_rate=[1e-30], seed=[seed])
    result = wd.fit_grid(model, inputs, grid, optimizer=wd.sgd, **{**SETTINGS, "num_steps": 1, "eval_every": 1})
    return result.params(0)


def masked_mean(outputs, targets):
    losses = optax.softmax_cross_entropy_with_integer_labels(outputs, jnp.maximum(targets, 0))
    return jnp.where(targets >= 0, losses, 0).sum() / (targets >= 0).sum()


@pytest.mark.slow
@pytest.mark.parametrize("targets", [LABELS, PADDED], ids=["all count", "padded"])
def test_tagger_trains_as_a_loop_written_by_hand(targets):
    model, result = Tagger(), fit(targets)
    for member, decay in ((0, 0.0), (2, 0.5)):
        start = initial(model, data(targets), seed=0)
        params = trained_by_hand(
            model,
            start,
            lambda params: masked_mean(model.apply({"params": params}, INPUTS[TRAIN]), targets[TRAIN]),
            decay,
        )
        for ours, theirs in zip(jax.tree.leaves(result.params(member)), jax.tree.leaves(params), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("ignored", [-1, -100])
def test_losses_of_a_split_are_torchs_with_ignored_positions(ignored):
    torch = pytest.importorskip("torch")
    targets = np.where(PADDED < 0, ignored, PADDED)
    result = fit(targets)
    for member in range(len(result)):
        for name, rows in (("train", TRAIN), ("validation", VALIDATION)):
            outputs = torch.tensor(np.asarray(Tagger().apply({"params": result.params(member)}, INPUTS[rows])))
            labels = torch.tensor(targets[rows].astype(np.int64))
            loss = torch.nn.functional.cross_entropy(outputs.movedim(-1, 1), labels, ignore_index=ignored)
            correct = (outputs.argmax(-1) == labels)[labels != ignored].float().mean()
            measured = result.dataset.isel(member=member, step=-1)
            np.testing.assert_allclose(measured[f"{name}_loss"], loss, rtol=1e-5)
            np.testing.assert_allclose(measured[f"{name}_accuracy"], correct, rtol=1e-6)


@pytest.mark.slow
def test_label_smoothing_is_torchs_with_ignored_positions():
    torch = pytest.importorskip("torch")
    from weightdecay.training import losses

    loss = losses.resolve("softmax_cross_entropy", PADDED)._replace(ignores=True)
    outputs = RNG.normal(size=(*PADDED.shape, CLASSES)).astype(np.float32)
    ours = loss.mean(loss.smoothed(jnp.asarray(outputs), jnp.asarray(PADDED), 0.1), jnp.asarray(PADDED))
    theirs = torch.nn.functional.cross_entropy(
        torch.tensor(outputs).movedim(-1, 1),
        torch.tensor(PADDED.astype(np.int64)),
        ignore_index=-1,
        label_smoothing=0.1,
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.slow
def test_weights_of_examples_are_spread_over_their_positions():
    weights = RNG.uniform(0.5, 2.0, EXAMPLES)
    result = fit(PADDED, data=data(PADDED, weights=weights))
    outputs = Tagger().apply({"params": result.params(0)}, INPUTS[VALIDATION])
    labels, counts = PADDED[VALIDATION], PADDED[VALIDATION] >= 0
    losses = optax.softmax_cross_entropy_with_integer_labels(outputs, np.maximum(labels, 0))
    spread = np.where(counts, weights[VALIDATION, None], 0)
    expected = (spread * losses).sum() / spread.sum()
    np.testing.assert_allclose(result.dataset["validation_loss"][0, -1], expected, rtol=1e-5)


@pytest.mark.slow
def test_streamed_dense_targets_have_the_same_bits():
    """All but the losses of training examples and what derives from them: XLA orders sums over positions itself."""
    settings = {"batch_size": 8, "num_steps": 9, "eval_every": 3}
    result = fit(PADDED, **settings)
    streamed = fit(PADDED, **settings, plan=wd.Plan(result.settings["plan"]["lane_width"], 1, streamed=True))
    of_training = ["train_loss", "train_perplexity", "train_bits_per_token"]
    for name in of_training:
        np.testing.assert_allclose(streamed.dataset[name], result.dataset[name], rtol=1e-5)
    assert result.dataset.drop_vars(of_training).equals(streamed.dataset.drop_vars(of_training))
    same_bits(result.params(2), streamed.params(2))


@pytest.mark.slow
def test_folds_of_dense_targets():
    data = wd.data.folds(INPUTS, PADDED, num_folds=3, tokens=True)
    grid = wd.Grid(decay=[wd.Decoupled(0.5)], learning_rate=[1e-2], fold=range(3))
    result = wd.fit_grid(Tagger(), data, grid, **{**SETTINGS, "batch_size": 8})
    for fold in range(3):
        rows = data.fold == fold
        outputs = Tagger().apply({"params": result.params(fold)}, data.train[0][rows])
        np.testing.assert_allclose(
            result.dataset["validation_loss"][fold, -1], masked_mean(outputs, data.train[1][rows]), rtol=1e-5
        )


@pytest.mark.slow
def test_default_loss_follows_from_the_shape_of_the_outputs():
    class Multilabel(nn.Module):
        @nn.compact
        def __call__(self, tokens):
            return nn.Dense(LENGTH)(nn.Embed(TOKENS, 4)(tokens).mean(axis=1))

    binary = (LABELS > 1).astype(np.int32)
    result = fit(binary, Tagger(num_outputs=None))  # the number of classes follows from the data
    outputs = result.predict(INPUTS[VALIDATION], 0)
    assert outputs.shape == (16, LENGTH, 2)
    np.testing.assert_allclose(
        result.dataset["validation_loss"][0, -1], masked_mean(outputs, binary[VALIDATION]), rtol=1e-5
    )
    result = fit(binary, Multilabel())
    outputs = Multilabel().apply({"params": result.params(0)}, INPUTS[VALIDATION])
    expected = optax.sigmoid_binary_cross_entropy(outputs, binary[VALIDATION]).mean()
    np.testing.assert_allclose(result.dataset["validation_loss"][0, -1], expected, rtol=1e-5)


@pytest.mark.slow
def test_segmentation_of_images():
    images = RNG.normal(size=(EXAMPLES, 8, 8, 1)).astype(np.float32)
    masks = (images[..., 0] > 0).astype(np.int32)

    class Segmenter(nn.Module):
        @nn.compact
        def __call__(self, images):
            down = nn.relu(nn.Conv(4, (3, 3), strides=2)(images))
            up = nn.relu(nn.ConvTranspose(4, (2, 2), strides=(2, 2))(down))
            return nn.Conv(2, (1, 1))(jnp.concatenate([up, images], axis=-1))

    result = fit(masks, Segmenter(), data=data(masks, images), num_steps=150, eval_every=50)
    assert result.dataset["validation_accuracy"][0, -1] > 0.8
    outputs = Segmenter().apply({"params": result.params(0)}, images[VALIDATION])
    np.testing.assert_allclose(
        result.dataset["validation_loss"][0, -1], masked_mean(outputs, masks[VALIDATION]), rtol=1e-5
    )


@pytest.mark.slow
def test_a_loss_and_a_metric_of_the_user_may_return_one_number_a_position():
    def loss(outputs, targets):
        return optax.softmax_cross_entropy_with_integer_labels(outputs, targets)

    def correct(outputs, targets):
        return (outputs.argmax(-1) == targets).astype(jnp.float32)

    ours = fit(LABELS, loss=loss, metrics={"hits": correct}, lower_is_better={"hits": False}).dataset
    theirs = fit(LABELS).dataset
    np.testing.assert_allclose(ours["validation_loss"], theirs["validation_loss"], rtol=1e-5)
    np.testing.assert_allclose(ours["validation_hits"], theirs["validation_accuracy"], rtol=1e-6)


@pytest.mark.slow
def test_targets_below_zero_do_not_count_without_positions_either():
    inputs = RNG.normal(size=(EXAMPLES, 5)).astype(np.float32)
    labels = np.where(RNG.random(EXAMPLES) < 0.3, -1, RNG.integers(0, 3, EXAMPLES)).astype(np.int32)
    with pytest.warns(UserWarning, match=r"data has \d+ targets below 0, which do not count, neither in the loss nor"):
        result = fit(labels, wd.models.MLP((4,)), data=data(labels, inputs))
    outputs = result.predict(inputs[VALIDATION], 0)
    assert outputs.shape == (16, 3)
    np.testing.assert_allclose(
        result.dataset["validation_loss"][0, -1], masked_mean(outputs, labels[VALIDATION]), rtol=1e-5
    )


@pytest.mark.slow
def test_two_labels_of_which_one_is_negative_are_classes():
    inputs = RNG.normal(size=(EXAMPLES, 5)).astype(np.float32)
    labels = np.where(inputs[:, 0] > 0, 1, -1)
    assert fit(labels, wd.models.MLP((4,)), data=data(labels, inputs)).predict(inputs, 0).shape == (EXAMPLES, 2)


def test_targets_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="targets are all below 0, so that none of them counts"):
        fit(np.full_like(LABELS, -1))
    with pytest.raises(ValueError, match=r"give the model at least 4 outputs, shape \(examples, 6, 4\)"):
        fit(LABELS, Tagger(num_outputs=3), loss="softmax_cross_entropy")


@pytest.mark.slow
def test_outputs_may_be_a_tree():
    """A variational autoencoder: three outputs, and a random stream that it is called with."""
    inputs = RNG.normal(size=(EXAMPLES, 5)).astype(np.float32)

    class Autoencoder(nn.Module):
        @nn.compact
        def __call__(self, inputs, z_rng):
            hidden = nn.relu(nn.Dense(8)(inputs))
            mean, log_variance = nn.Dense(2)(hidden), nn.Dense(2)(hidden)
            latent = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(z_rng, mean.shape)
            return {"outputs": nn.Dense(5)(nn.relu(nn.Dense(8)(latent))), "latent": (mean, log_variance)}

    def loss(outputs, targets):
        mean, log_variance = outputs["latent"]
        divergence = -0.5 * (1 + log_variance - mean**2 - jnp.exp(log_variance)).sum(axis=-1)
        return ((outputs["outputs"] - targets) ** 2).sum(axis=-1) + divergence

    settings = {"data": data(inputs, inputs), "num_steps": 150, "eval_every": 50}
    result = fit(inputs, Autoencoder(), loss=loss, **settings)
    curve = result.dataset["validation_loss"][0].values
    assert curve[-1] < curve[0]
    outputs = result.predict(inputs[VALIDATION], 0)
    assert jax.tree.map(np.shape, outputs) == {"outputs": (16, 5), "latent": ((16, 2), (16, 2))}
    np.testing.assert_allclose(curve[-1], loss(outputs, inputs[VALIDATION]).mean(), rtol=1e-4)
    same_bits(fit(inputs, Autoencoder(), loss=loss, **settings).params(1), result.params(1))
    with pytest.raises(TypeError, match="model returns outputs of type dict, and loss 'squared_error' takes one array"):
        fit(inputs, Autoencoder(), loss="squared_error", **settings)


@pytest.mark.slow
def test_targets_may_be_a_tree():
    inputs = RNG.normal(size=(EXAMPLES, 5)).astype(np.float32)
    targets = {"class": (inputs[:, 0] > 0).astype(np.int32), "value": inputs[:, :2] * 2}

    def split(rows):
        return inputs[rows], {name: values[rows] for name, values in targets.items()}

    class TwoHeads(nn.Module):
        @nn.compact
        def __call__(self, inputs):
            hidden = nn.relu(nn.Dense(16)(inputs))
            return {"class": nn.Dense(2)(hidden), "value": nn.Dense(2)(hidden)}

    def loss(outputs, targets):
        of_class = optax.softmax_cross_entropy_with_integer_labels(outputs["class"], targets["class"])
        return of_class + ((outputs["value"] - targets["value"]) ** 2).mean(axis=-1)

    made = wd.Data(train=split(TRAIN), validation=split(VALIDATION), test=split(VALIDATION))
    result = fit(None, TwoHeads(), data=made, loss=loss)
    outputs = result.predict(inputs[VALIDATION], 0)
    np.testing.assert_allclose(
        result.dataset["validation_loss"][0, -1], loss(outputs, split(VALIDATION)[1]).mean(), rtol=1e-5
    )
    with pytest.raises(ValueError, match="targets that are several arrays; give a function of your own"):
        fit(None, TwoHeads(), data=made)
