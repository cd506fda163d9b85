"""From a result to the trained model: weights in the network's own library, ensembles, refits, and parts by value."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import expit, softmax

import weightdecay as wd
from compare import close, same_bits
from weightdecay.core.checks import ArgumentError

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(60, 5)).astype(np.float32)
LABELS = (INPUTS[:, 0] + 0.3 * RNG.normal(size=60) > 0).astype(np.int32)
DATA = wd.Data(
    train=(INPUTS[:30], LABELS[:30]), validation=(INPUTS[30:45], LABELS[30:45]), test=(INPUTS[45:], LABELS[45:])
)
SETTINGS = {"num_steps": 6, "batch_size": 10, "eval_every": 3, "progress": False}


class Linen(nn.Module):
    """A flag in the call, batch statistics, dropout."""

    @nn.compact
    def __call__(self, inputs, train: bool = False):
        hidden = nn.BatchNorm(use_running_average=not train)(nn.Dense(6)(inputs))
        return nn.Dense(2)(nn.Dropout(0.3, deterministic=not train)(hidden))


class Flagged(nn.Module):
    """A flag in a field."""

    deterministic: bool = False

    @nn.compact
    def __call__(self, inputs):
        return nn.Dense(2)(nn.Dropout(0.3, deterministic=self.deterministic)(nn.Dense(6)(inputs)))


class Nnx(nnx.Module):
    """Batch statistics and dropout."""

    def __init__(self, rngs: nnx.Rngs):
        self.first, self.norm = nnx.Linear(5, 6, rngs=rngs), nnx.BatchNorm(6, rngs=rngs)
        self.dropout, self.last = nnx.Dropout(0.3, rngs=rngs), nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, inputs):
        return self.last(self.dropout(self.norm(self.first(inputs))))


class Equinox(eqx.Module):
    """Dropout, which inference turns off."""

    first: eqx.nn.Linear
    dropout: eqx.nn.Dropout
    last: eqx.nn.Linear

    def __init__(self, key):
        one, two = jax.random.split(key)
        self.first, self.last = eqx.nn.Linear(5, 6, key=one), eqx.nn.Linear(6, 2, key=two)
        self.dropout = eqx.nn.Dropout(0.3)

    def __call__(self, inputs, key=None):
        return self.last(self.dropout(jax.nn.relu(self.first(inputs)), key=key))


class Stateful(eqx.Module):
    """Batch statistics, which are a state."""

    first: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    last: eqx.nn.Linear

    def __init__(self, key):
        one, two = jax.random.split(key)
        self.first, self.last = eqx.nn.Linear(5, 6, key=one), eqx.nn.Linear(6, 2, key=two)
        self.norm = eqx.nn.BatchNorm(6, "batch", mode="batch")

    def __call__(self, inputs, state):
        hidden, state = self.norm(self.first(inputs), state)
        return self.last(hidden), state


PLAIN = wd.Model(
    init=lambda key, inputs: {"kernel": 0.1 * jax.random.normal(key, (5, 2))},
    apply=lambda params, inputs: inputs @ params["kernel"],
)


def outputs_of(network, inputs):
    """Call a network as its own library's users do."""
    if isinstance(network, tuple):
        module, state = network
        return jax.vmap(lambda one: module(one, state)[0])(inputs)
    return jax.vmap(network)(inputs) if isinstance(network, eqx.Module) else network(jnp.asarray(inputs))


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [Linen(), Flagged(), Nnx, Equinox, Stateful, PLAIN, wd.Model.pair(train=Linen(), evaluate=Linen())],
    ids=["linen", "field", "nnx", "equinox", "stateful", "functions", "pair"],
)
def test_network_gives_the_predictions(model):
    grid = wd.Grid(decay=[wd.NoDecay(), wd.Decoupled(3.0)], learning_rate=1e-2, seed=[0, 1])
    result = wd.fit_grid(model, DATA, grid, **SETTINGS)
    for member in (None, 0, 3):
        outputs = outputs_of(result.network(member), INPUTS[45:])
        close(outputs, result.predict(INPUTS[45:], member), rtol=1e-5, atol=1e-6)
    assert not np.allclose(result.predict(INPUTS, 0), result.predict(INPUTS, 3))
    kept = result.part([3, 0])
    close(outputs_of(kept.network(0), INPUTS[45:]), result.predict(INPUTS[45:], 3), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_network_has_the_options_and_the_averages_of_its_member():
    grid = wd.Grid(decay=wd.NoDecay(), learning_rate=1e-2, activation=["relu", "tanh"], ema=[None, 0.5])
    result = wd.fit_grid(wd.models.MLP((4,)), DATA, grid, **SETTINGS)
    for member in range(4):
        for average in (False, True) if result.members[member]["ema"] else (False,):
            outputs = result.network(member, average=average)(INPUTS)
            close(outputs, result.predict(INPUTS, member, average=average), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("targets", "loss", "combine"),
    [
        (LABELS, None, lambda rows: np.log(softmax(rows, axis=-1).mean(axis=0))),
        (
            np.stack([LABELS, 1 - LABELS], axis=1).astype(np.float32),
            "sigmoid_cross_entropy",
            lambda rows: np.log(expit(rows).mean(axis=0) / (1 - expit(rows).mean(axis=0))),
        ),
        (INPUTS[:, :1] * 2, None, lambda rows: rows.mean(axis=0)),
    ],
    ids=["classes", "labels", "real"],
)
def test_ensemble_averages_what_its_members_predict(targets, loss, combine):
    data = wd.Data((INPUTS[:30], targets[:30]), (INPUTS[30:45], targets[30:45]))
    grid = wd.Grid(decay=[wd.NoDecay(), wd.Decoupled(3.0)], learning_rate=3e-2, seed=range(3))
    result = wd.fit_grid(wd.models.MLP((8,)), data, grid, loss=loss, **SETTINGS)
    members = result.best().members
    rows = np.stack([result.predict(INPUTS, member) for member in members]).astype(np.float64)
    together = result.predict(INPUTS, ensemble=True)
    close(together, combine(rows), rtol=1e-4, atol=1e-5)
    same_bits(together, result.predict(INPUTS, members[2], ensemble=True))
    assert not np.allclose(together, rows[0])
    if targets.ndim == 1:
        plain = combine(rows).argmax(axis=1)
        np.testing.assert_array_equal(together.argmax(axis=1), plain)


@pytest.mark.slow
def test_refit_trains_the_choice_on_training_and_validation_examples():
    grid = wd.Grid(decay=[wd.NoDecay(), wd.Decoupled(1.0)], learning_rate=[1e-2, 3e-2], seed=[4, 7])
    result = wd.fit_grid(wd.models.MLP((8,)), DATA, grid, **SETTINGS)
    refitted = result.refit()
    chosen = result.best().hyperparameters
    assert [member["seed"] for member in refitted.members] == [4, 7]
    assert all({**member, "seed": None} == {**chosen, "seed": None} for member in refitted.members)
    alone = wd.fit(
        wd.models.MLP((8,)),
        wd.Data((INPUTS[:45], LABELS[:45]), (INPUTS[30:45], LABELS[30:45])),
        decay=chosen["decay"],
        learning_rate=chosen["learning_rate"],
        seed=7,
        **SETTINGS,
    )
    same_bits(refitted.params(1), alone.params())
    assert refitted.test().shape == result.test().shape
    more = result.refit(num_steps=8, seeds=[1])
    assert (len(more), int(more.dataset["step"].values[-1])) == (1, 8)


@pytest.mark.slow
def test_refit_after_early_stopping_takes_the_steps_of_the_best_evaluations():
    overfitted = wd.Data((INPUTS[:12], 1 - LABELS[:12]), DATA.validation)
    settings = {**SETTINGS, "num_steps": 40, "eval_every": 4}
    grid = wd.Grid(decay=wd.NoDecay(), learning_rate=3e-2, seed=[0, 1])
    result = wd.fit_grid(wd.models.MLP((16,)), overfitted, grid, patience=2, **settings)
    best = result.dataset["best_step"].values
    assert (best < 40).all()
    assert int(result.refit().dataset["step"].values[-1]) == round(best.mean())


@pytest.mark.slow
def test_refit_of_folds_and_of_weights():
    weights = np.linspace(0.5, 2, 45).astype(np.float32)
    folds = wd.Data((INPUTS[:45], LABELS[:45], weights), fold=np.arange(45) % 3)
    grid = wd.Grid(decay=wd.NoDecay(), learning_rate=1e-2)
    of_folds = wd.Grid(decay=wd.NoDecay(), learning_rate=1e-2, fold=range(3))
    refitted = wd.fit_grid(wd.models.MLP((8,)), folds, of_folds, **SETTINGS).refit()
    assert len(refitted) == 1
    split = wd.Data((INPUTS[:30], LABELS[:30], weights[:30]), (INPUTS[30:45], LABELS[30:45], weights[30:]))
    same_bits(refitted.params(0), wd.fit_grid(wd.models.MLP((8,)), split, grid, **SETTINGS).refit().params(0))
    assert refitted.settings["examples"]["train"] == 45
    standardized = wd.data.folds(INPUTS, LABELS, num_folds=3, standardize=True)
    result = wd.fit_grid(wd.models.MLP((8,)), standardized, of_folds, **SETTINGS)
    with pytest.raises(ArgumentError, match="standardize all examples yourself"):
        result.refit()


def test_joined_data_keeps_trees_and_fills_weights():
    trees = wd.Data(
        ({"a": INPUTS[:30], "b": LABELS[:30]}, LABELS[:30]),
        ({"a": INPUTS[30:45], "b": LABELS[30:45]}, LABELS[30:45], np.full(15, 2.0)),
    ).joined()
    inputs, targets, weights = trees.train
    np.testing.assert_array_equal(inputs["a"], INPUTS[:45])
    np.testing.assert_array_equal(inputs["b"], LABELS[:45])
    np.testing.assert_array_equal(targets, LABELS[:45])
    np.testing.assert_array_equal(weights, [1] * 30 + [2] * 15)
    lists = wd.Data(([[1.0], [2.0]], [0, 1]), ([[3.0]], [1])).joined()
    np.testing.assert_array_equal(lists.train[0], [[1.0], [2.0], [3.0]])


@pytest.mark.slow
def test_parts_and_differences_name_their_members(tmp_path):
    grid = wd.Grid(
        decay=[wd.NoDecay(), wd.L2(1e-3), wd.L2(1e-2), (wd.L1(1e-4), wd.L2(1e-3))],
        learning_rate=[1e-3, 1e-2],
        seed=range(2),
    )
    result = wd.fit_grid(wd.models.MLP((4,)), DATA, grid, **SETTINGS)
    kept = result.where(learning_rate=1e-3, decay="L2")
    assert [(str(m["decay"]), m["learning_rate"]) for m in kept.members] == [
        (f"L2({c})", 1e-3) for c in (0.001, 0.001, 0.01, 0.01)
    ]
    assert len(result.where(decay=wd.L2(1e-2), seed=range(2))) == 4
    assert len(result.where(decay=[wd.NoDecay, wd.L2], seed=0)) == 6
    assert len(result.where(lambda member: member["seed"] == 1, learning_rate=np.float32(1e-2))) == 4
    assert list(grid.where(decay="L2", seed=1)) == list(result.where(decay="L2", seed=1).members)
    table = result.differences()
    assert table["decay"].tolist() == [str(candidate.decay) for candidate in result.candidates()]
    assert table["learning_rate"].tolist() == [1e-3, 1e-2] * 4
    with pytest.raises(ArgumentError, match=r"no member has 'learning_rat'.*Did you mean 'learning_rate'\?"):
        result.where(learning_rat=1e-3)
    with pytest.raises(ArgumentError, match=r"decay = Lion.*decay is one of .*NoDecay, L2"):
        result.where(decay="Lion")
    saved = wd.load(result.save(tmp_path / "saved") or tmp_path / "saved")
    for method in (saved.network, saved.refit):
        with pytest.raises(ValueError, match="it was read from disk"):
            method()


def test_predicate_that_is_not_a_function_is_refused(without_beartype):
    with pytest.raises(TypeError, match="give a function of a member"):
        wd.Grid(decay=wd.NoDecay(), learning_rate=0.1).where(3)
