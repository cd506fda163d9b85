"""Every regularizer, field and fold as an axis of a grid: one program for numbers, and each member as it is alone.

Oracles: the member alone; a loop of optax steps by hand; explicit splits of the same fold.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import weightdecay as wd
from compare import close, same_bits
from weightdecay.data.batches import Orders
from weightdecay.engine import groups, routing

DATA = wd.data.digits(num_train=64)
SHORT = {"num_steps": 8, "batch_size": 16, "eval_every": 5, "progress": False}
MODEL = wd.models.MLP((8,), dropout_rate=0.0)
REGULARIZERS = {
    "dropout_rate": [0.0, 0.3],
    "label_smoothing": [0.0, 0.2],
    "mixup": [0.0, 0.4],
    "input_noise": [0.0, 0.1],
    "clip_norm": [0.5, None],
}
AUGMENTATIONS = {"shift": [0.0, 2.0], "flip": [0.0, 0.5], "crop": [0.0, 0.3], "cutout": [0.0, 0.4]}
OFF = {**{name: values[0] for name, values in (REGULARIZERS | AUGMENTATIONS).items()}, "clip_norm": None}


def images(data):
    reshaped = {name: (x.reshape(-1, 8, 8), y) for name in ("train", "validation") for x, y in [getattr(data, name)]}
    return wd.Data(**reshaped)


CASES = {
    "regularizers": (MODEL, DATA, REGULARIZERS),
    "augmentations": (wd.models.CNN((3,), (5,), num_outputs=10), images(DATA), AUGMENTATIONS),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_regularizers_are_one_program_and_each_member_is_the_same_alone(case):
    model, data, own = CASES[case]
    traces = []

    def loss(outputs, targets):
        traces.append(outputs.shape)
        return optax.softmax_cross_entropy_with_integer_labels(outputs, targets)

    smooths = "label_smoothing" in own
    settings = {**SHORT, "optimizer": wd.sgd} | ({} if smooths else {"loss": loss})
    every = wd.Grid(learning_rate=[0.1], **own)
    result = wd.fit_grid(model, data, every, **settings)
    assert result.settings["compiled_programs"] == 1
    traced = len(traces)
    assert bool(traced) != smooths
    last = max(result.params(0))  # its bias hears of every input
    differing = {result.params(number)[last]["bias"].tobytes() for number in range(len(every))}
    assert len(differing) == len(every)
    for number in (0, 5, len(every) - 1):
        member = {name: value for name, value in result.members[number].items() if name != "decay"}
        alone = wd.fit(model, data, decay=wd.NoDecay(), **member, **settings)
        same_bits(alone.params(), result.params(number))
        for name in ("train_loss", "validation_loss", "rotation"):
            np.testing.assert_array_equal(alone.dataset[name].values[0], result.dataset[name].values[number])
    assert len(traces) == traced  # the program of the grid serves a member alone


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_regularizers_of_strength_0_are_none(case):
    model, data, own = CASES[case]
    settings = {**SHORT, "optimizer": wd.sgd, "decay": wd.NoDecay(), "learning_rate": 0.1}
    off = wd.fit(model, data, **settings, **{name: OFF[name] for name in own})
    plain = wd.fit(model, data, **settings)
    # The draws are multiplied by 0, and what is added is exact; sums stand in another order in another program.
    close(off.params(), plain.params(), atol=1e-6)
    np.testing.assert_allclose(off.dataset["validation_loss"], plain.dataset["validation_loss"], rtol=1e-5)


def by_hand(model, data, transformation, loss, seed=0):
    """Weights after steps of optax, over the batches of a member's seed."""
    batch = data.batches()["train"]
    inputs, targets = batch.inputs, batch.targets
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), seed), 0)
    params = model.init(jax.random.split(key)[0], inputs[:1])["params"]
    state = transformation.init(params)

    @jax.jit
    def step(params, state, rows):
        weights = jnp.ones(len(rows)) if batch.weights is None else jnp.asarray(batch.weights)[rows]

        def mean(params):
            outputs = model.apply({"params": params}, jnp.asarray(inputs)[rows])
            return (weights * loss(outputs, jnp.asarray(targets)[rows])).mean()

        updates, state = transformation.update(jax.grad(mean)(params), state, params)
        return optax.apply_updates(params, updates), state

    for rows in Orders(SHORT["batch_size"], batch)((seed, -1), 0, SHORT["num_steps"]):
        params, state = step(params, state, rows)
    return params


def smoothed(outputs, targets):
    return optax.softmax_cross_entropy(outputs, optax.smooth_labels(jax.nn.one_hot(targets, 10), 0.3))


@pytest.mark.slow
def test_training_under_regularizers_equals_steps_of_optax():
    model = wd.models.MLP((8,), num_outputs=10)
    weights = np.random.default_rng(0).uniform(0.2, 2, 64)
    weighted = wd.Data((*DATA.train, weights), DATA.validation)
    plain = optax.softmax_cross_entropy_with_integer_labels
    clipped = optax.chain(optax.clip_by_global_norm(0.4), optax.sgd(0.3, momentum=0.9))
    settings = {**SHORT, "optimizer": wd.sgd, "decay": wd.NoDecay()}
    for ours, theirs in [
        (wd.fit(model, DATA, learning_rate=0.3, momentum=0.9, clip_norm=0.4, **settings),
         by_hand(model, DATA, clipped, plain)),
        (wd.fit(model, DATA, learning_rate=0.3, label_smoothing=0.3, **settings),
         by_hand(model, DATA, optax.sgd(0.3), smoothed)),
        (wd.fit(model, weighted, learning_rate=0.3, **settings),
         by_hand(model, weighted, optax.sgd(0.3), plain)),
        (wd.fit(model, DATA, learning_rate=wd.schedules.Cosine(0.3, 8), **settings),
         by_hand(model, DATA, optax.sgd(optax.cosine_decay_schedule(0.3, 8)), plain)),
    ]:  # fmt: skip
        close(ours.params(), theirs, atol=2e-5)  # eight steps in float32, whose sums differ in order


@pytest.mark.slow
def test_learning_rate_schedules_of_one_kind_are_one_program():
    rates = [wd.schedules.Cosine(0.3, 8), wd.schedules.Cosine(0.1, 4), 0.3]
    grid = wd.Grid(learning_rate=rates, momentum=[0.0, 0.9])
    result = wd.fit_grid(wd.models.MLP((8,)), DATA, grid, optimizer=wd.sgd, **SHORT)
    assert result.settings["compiled_programs"] == 2
    alone = wd.fit(
        wd.models.MLP((8,)), DATA, decay=wd.NoDecay(), learning_rate=rates[1], momentum=0.9, optimizer=wd.sgd, **SHORT
    )
    same_bits(alone.params(), result.params(3))
    np.testing.assert_allclose(result.dataset["learning_rate"], [0.3, 0.3, 0.1, 0.1, 0.3, 0.3])


@pytest.mark.slow
def test_fields_of_the_model_are_structures_and_their_results_are_kept(tmp_path):
    grid = wd.Grid(learning_rate=[0.1], hidden=[(8,), (6, 5)], normalization=[None, "batch"], seed=range(2))
    result = wd.fit_grid(wd.models.MLP((8,)), DATA, grid, optimizer=wd.sgd, **SHORT)
    assert result.settings["compiled_programs"] == 4
    layers = ["Dense_0/kernel", "Dense_1/kernel", "Dense_2/kernel"]
    assert result.dataset["layer"].values.tolist() == layers
    for number, member in enumerate(grid):
        params = result.params(number)
        widths = [params[f"Dense_{place}"]["kernel"].shape[1] for place in range(len(member["hidden"]) + 1)]
        assert widths == [*member["hidden"], 10]
        assert ("BatchNorm_0" in params) == (member["normalization"] == "batch")
        norms = result.dataset["layer_weight_norm"].values[number, -1]
        expected = [np.linalg.norm(params[name.split("/")[0]]["kernel"]) for name in layers[: len(widths)]]
        np.testing.assert_allclose(norms[: len(widths)], expected, rtol=1e-5)  # sums of squares in float32
        assert np.isnan(norms[len(widths) :]).all()
    result.save(tmp_path / "saved")
    loaded = wd.load(tmp_path / "saved")
    assert loaded.dataset.identical(result.dataset)
    assert loaded.members == result.members
    for number in range(len(grid)):
        same_bits(loaded.params(number), result.params(number))


@pytest.mark.slow
def test_patience_as_an_axis_stops_those_that_have_it():
    settings = {**SHORT, "optimizer": wd.sgd, "num_steps": 24, "eval_every": 2}
    grid = wd.Grid(learning_rate=[1.5], patience=[None, 1, 2], seed=range(2))
    mixed = wd.fit_grid(wd.models.MLP((8,)), DATA, grid, **settings)
    assert mixed.settings["compiled_programs"] == 2
    assert (mixed.dataset["best_step"].values[:2] == -1).all()
    assert (mixed.dataset["stopped_at"].values[2:4] > 0).any()
    for patience, first in ((1, 2), (2, 4)):
        alike = wd.fit_grid(
            wd.models.MLP((8,)), DATA, wd.Grid(learning_rate=[1.5], seed=range(2)), patience=patience, **settings
        )
        for seed in range(2):
            same_bits(alike.params(seed), mixed.params(first + seed))
        np.testing.assert_array_equal(alike.dataset["stopped_at"], mixed.dataset["stopped_at"][first : first + 2])


INPUTS, TARGETS = (array[:48] for array in wd.data.diabetes().train)
PLACES = np.arange(48) % 3
FOLDED = wd.data.folds(5 * INPUTS + 2, TARGETS, num_folds=3)


@pytest.mark.slow
def test_folds_as_an_axis_train_on_explicit_splits():
    grid = wd.Grid(decay=[wd.NoDecay(), wd.L2(0.3)], learning_rate=[0.05], fold=range(3))
    model = wd.models.MLP((5,))
    result = wd.fit_grid(model, FOLDED, grid, optimizer=wd.sgd, **SHORT)
    assert result.settings["compiled_programs"] == 1
    inputs, targets = 5 * INPUTS.astype(np.float64) + 2, TARGETS.astype(np.float64)
    for number, member in enumerate(grid):
        validates = FOLDED.fold == member["fold"]
        x, y = (
            ((values - values[~validates].mean(axis=0)) / values[~validates].std(axis=0)).astype(np.float32)
            for values in (inputs, targets)
        )
        explicit = wd.Data((x[~validates], y[~validates]), (x[validates], y[validates]))
        alone = wd.fit(model, explicit, decay=member["decay"], learning_rate=0.05, optimizer=wd.sgd, **SHORT)
        # Standardized in float32 inside the program, and in float64 here.
        close(alone.params(), result.params(number), atol=2e-6)
        for name in ("train_loss", "validation_loss"):
            np.testing.assert_allclose(alone.dataset[name].values[0], result.dataset[name].values[number], rtol=2e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_an_example_of_weight_2_counts_as_the_example_twice():
    linear = wd.Model(init=lambda key, x: jnp.zeros(x.shape[1]), apply=lambda params, x: x @ params)
    inputs, targets = (array.astype(np.float64) for array in (INPUTS, TARGETS))
    twice = np.concatenate([np.arange(48), np.arange(10)])
    weights = np.where(np.arange(48) < 10, 2.0, 1.0)
    fits = [
        wd.fit(
            linear, wd.Data(split, split), decay=wd.L2(0.1), learning_rate=0.1, optimizer=wd.sgd,
            mask=wd.masks.everything, num_steps=20, batch_size=None, progress=False,
        )
        for split in [(inputs, targets, weights), (inputs[twice], targets[twice])]
    ]  # fmt: skip
    # Weights are held in float32, which rounds them to 6e-8.
    np.testing.assert_allclose(fits[0].params(), fits[1].params(), rtol=1e-6)
    for name in ("train_loss", "validation_loss"):
        np.testing.assert_allclose(fits[0].dataset[name], fits[1].dataset[name], rtol=1e-6)


def test_divide_gives_every_axis_to_who_takes_it():
    taken = routing.network_axes(wd.models.MLP((8,), num_outputs=10))
    member = {
        "decay": wd.L2(0.1), "learning_rate": 0.1, "seed": 3, "fold": 2, "momentum": 0.9, "nesterov": True,
        "hidden": (4,), "dropout_rate": 0.5, "clip_norm": None, "mixup": 1.0,
    }  # fmt: skip
    shares = routing.route(member, taken, patience=4)
    assert shares.training == {"mixup": 1.0, "clip_norm": np.inf, "patience": 4}
    assert (shares.network, shares.model_options) == ({"dropout_rate": 0.5}, (("hidden", (4,)),))
    assert (shares.optimizer, shares.options) == ({"momentum": 0.9}, (("nesterov", True),))
    assert (shares.decay, shares.seed, shares.fold) == (wd.L2(0.1), 3, 2)
    traced = shares.hyperparameters(shares.decay, None)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(traced)} == {"float32", "int32"}


def both(learning_rate, decay, mask, hidden=0.0):
    return wd.sgd(learning_rate, decay, mask=mask)


BAD = {
    "nobody": ({"depth": [1]}, {}, "axis 'depth', which nobody takes.*Training takes input_noise.*the model .*hidden"),
    "both": ({"hidden": [0.1]}, {"optimizer": both}, "axis 'hidden', which both the model and the optimizer take"),
    "patience twice": ({"patience": [1]}, {"patience": 2}, "patience is an axis of the grid and an argument as well"),
    "no labels": ({"label_smoothing": [0.1]}, {"loss": lambda o, t: o[:, 0]}, "has no labels to smooth"),
    "no images": ({"shift": [1.0]}, {}, "axis 'shift', which needs images"),
    "no folds": ({"fold": [0, 1]}, {}, "axis 'fold', but data has validation examples and no folds"),
    "folds without an axis": ({}, {"data": FOLDED}, r"data has 3 folds, but a member's fold is None.*fold=range\(3\)"),
    "too many folds": ({"fold": [2, 3]}, {"data": FOLDED}, "data has 3 folds, but a member's fold is 3"),
    "folds at once": ({"fold": [0]}, {"data": FOLDED, "batch_size": None}, "data has folds: give batch_size a number"),
    "folds streamed": ({"fold": [0]}, {"data": FOLDED, "plan": wd.Plan(2, 1, streamed=True)}, "no plan that streams"),
}


@pytest.mark.usefixtures("without_beartype")
@pytest.mark.parametrize("name", BAD)
def test_check_refuses(name, monkeypatch):
    monkeypatch.setattr(groups, "divide", lambda *_, **__: pytest.fail("something was traced"))
    own, changed, message = BAD[name]
    settings = {"model": wd.models.MLP((8,)), "data": DATA, "optimizer": wd.sgd, **SHORT, **changed}
    with pytest.raises(ValueError, match=message):
        wd.fit_grid(grid=wd.Grid(learning_rate=[0.1], **own), **settings)
