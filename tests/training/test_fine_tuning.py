"""Weights that are given, frozen, or trained at another rate; the oracles are loops of optax with `optax.partition`."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import weightdecay as wd
from compare import close, same_bits
from weightdecay.core import tree
from weightdecay.engine import preparation

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(60, 5)).astype(np.float32)
LABELS = (INPUTS[:, 0] > 0).astype(np.int32)
DATA = wd.Data(train=(INPUTS[:40], LABELS[:40]), validation=(INPUTS[40:], LABELS[40:]), test=(INPUTS[40:], LABELS[40:]))
SETTINGS = {"num_steps": 10, "batch_size": None, "eval_every": 5, "progress": False}
HEAD = wd.masks.matching("head")


class Net(nn.Module):
    """A backbone of two layers and a head."""

    @nn.compact
    def __call__(self, inputs):
        for name in ("first", "second"):
            inputs = nn.relu(nn.Dense(6, name=name)(inputs))
        return nn.Dense(2, name="head")(inputs)


class Normalized(nn.Module):
    """A backbone with batch statistics."""

    @nn.compact
    def __call__(self, inputs, train: bool):
        hidden = nn.BatchNorm(use_running_average=not train, name="norm")(nn.Dense(6, name="first")(inputs))
        return nn.Dense(2, name="head")(nn.relu(hidden))


PRETRAINED = {
    name: {
        "kernel": RNG.normal(size=shape).astype(np.float32),
        "bias": RNG.normal(size=shape[1:]).astype(np.float32),
    }
    for name, shape in (("first", (5, 6)), ("second", (6, 6)))
}


def fit(decay, model=None, data=DATA, **changed):
    grid = wd.Grid(
        decay=decay if isinstance(decay, list) else [decay],
        learning_rate=[changed.pop("learning_rate", 1e-2)],
        seed=changed.pop("seed", range(2)),
    )
    return wd.fit_grid(model or Net(), data, grid, **{**SETTINGS, **changed})


def initial(seed, **changed):
    """All weights of a member at step 0: those of a run whose one step is too small to change them."""
    settings = {"num_steps": 1, "eval_every": 1, "optimizer": wd.sgd, "learning_rate": 1e-30, **changed}
    params = fit(wd.NoDecay(), seed=[seed], **settings).params(0)
    return jax.tree.map(lambda w: np.where(np.abs(w) < 1e-20, np.float32(0), w), params)


def loss(params):
    outputs = Net().apply({"params": params}, INPUTS[:40])
    return optax.softmax_cross_entropy_with_integer_labels(outputs, LABELS[:40]).mean()


def trained_by_hand(optimizer, params, gradient=None):
    state, gradient = optimizer.init(params), jax.jit(gradient or jax.grad(loss))
    for _ in range(SETTINGS["num_steps"]):
        updates, state = jax.jit(optimizer.update)(gradient(params), state, params)
        params = optax.apply_updates(params, updates)
    return params


def labels(params, frozen=("first", "second")):
    return {name: jax.tree.map(lambda _, name=name: str(name not in frozen), layer) for name, layer in params.items()}


@pytest.mark.slow
def test_frozen_backbone_trains_as_a_partition_of_optax():
    result = fit([wd.NoDecay(), wd.Decoupled(0.5)], initial=PRETRAINED, trainable=HEAD)
    for member, (decay, seed) in enumerate((decay, seed) for decay in (0.0, 0.5) for seed in range(2)):
        start = PRETRAINED | {"head": initial(seed)["head"]}
        adamw = optax.adamw(1e-2, weight_decay=decay, mask=lambda params: jax.tree.map(lambda w: w.ndim > 1, params))
        by_hand = optax.partition({"True": adamw, "False": optax.set_to_zero()}, labels)
        params = result.params(member)
        close(params, trained_by_hand(by_hand, start), rtol=2e-5, atol=2e-6)
        same_bits({name: params[name] for name in PRETRAINED}, PRETRAINED)
    heads = [result.params(member)["head"]["kernel"] for member in range(2)]
    assert not np.array_equal(*heads)


@pytest.mark.slow
def test_frozen_weights_have_no_state_and_are_counted_nowhere():
    result = fit(wd.L2(0.1), initial=PRETRAINED, trainable=HEAD)
    head = result.params(0)["head"]["kernel"]
    last = result.dataset.isel(member=0, step=-1)
    np.testing.assert_allclose(last["weight_norm"], np.linalg.norm(head), rtol=1e-6)
    np.testing.assert_allclose(last["penalty"], 0.1 * (head**2).sum() / 2, rtol=1e-6)
    assert result.dataset["layer"].values.tolist() == ["head/kernel"]
    np.testing.assert_allclose(last["decaying_fraction"], 12 / 14)
    run = preparation.prepare_run(
        Net(),
        DATA,
        wd.Grid(decay=[wd.L2(0.1)], learning_rate=[1e-2]),
        **{name: None for name in ("loss", "patience", "metrics", "lower_is_better", "plan", "memory_budget", "dtype")},
        **{name: value for name, value in SETTINGS.items() if name != "progress"},
        optimizer=wd.adam,
        stopping_metric="validation_loss",
        mask=wd.masks.kernels,
        initial=PRETRAINED,
        accumulate=1,
        trainable=HEAD,
    )
    state = run.groups[0].state
    assert sum(leaf.size for leaf in jax.tree.leaves(state.params)) == 14
    assert max(leaf.size for leaf in jax.tree.leaves(state.optimizer_state)) == 12
    assert jax.tree.leaves(state.model_state) == []


@pytest.mark.slow
def test_weights_without_given_values_are_frozen_as_their_seed_draws_them():
    result = fit(wd.Decoupled(0.5), trainable=HEAD)
    for member in range(2):
        drawn, params = initial(member), result.params(member)
        same_bits(params["first"], drawn["first"])
        assert not np.array_equal(params["head"]["kernel"], drawn["head"]["kernel"])
    assert not np.array_equal(result.params(0)["first"]["kernel"], result.params(1)["first"]["kernel"])
    outputs = Net().apply({"params": result.params(1)}, INPUTS[40:])
    expected = optax.softmax_cross_entropy_with_integer_labels(outputs, LABELS[40:]).mean()
    np.testing.assert_allclose(result.dataset["validation_loss"][1, -1], expected, rtol=1e-5)
    np.testing.assert_allclose(result.predict(INPUTS[40:], 1), outputs, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("decoupled", [False, True])
def test_rule_toward_the_start_pulls_toward_given_weights_and_a_new_head_toward_zero(decoupled):
    result = fit(wd.TowardAnchor(0.3, decoupled=decoupled), initial=PRETRAINED, optimizer=wd.sgd, seed=[0])
    start = PRETRAINED | {"head": initial(0)["head"]}
    anchor = PRETRAINED | {"head": jax.tree.map(np.zeros_like, start["head"])}

    def gradient(params):
        pulls = jax.tree.map(lambda w, a: 0.3 * (w - a) * (w.ndim > 1), params, anchor)
        return jax.tree.map(jnp.add, jax.grad(loss)(params), pulls)

    close(result.params(0), trained_by_hand(optax.sgd(1e-2), start, gradient), rtol=2e-5, atol=2e-6)
    if not decoupled:
        squares = jax.tree.map(lambda w, a: ((w - a) ** 2).sum() * (w.ndim > 1), result.params(0), anchor)
        expected = 0.3 * sum(jax.tree.leaves(squares)) / 2
        np.testing.assert_allclose(result.dataset["penalty"][0, -1], expected, rtol=1e-4)


@pytest.mark.slow
def test_masks_see_the_whole_network():
    decay = [wd.Masked(wd.Decoupled(0.5), mask) for mask in (wd.masks.hidden, wd.masks.last)]
    result = fit(decay, trainable=wd.masks.matching("second", "head"), mask=wd.masks.everything, seed=[0])
    without = fit(wd.NoDecay(), trainable=wd.masks.matching("second", "head"), seed=[0]).params(0)
    for member, decayed in enumerate(("second", "head")):
        assert result.params(member)["first"]["kernel"].tobytes() == without["first"]["kernel"].tobytes()
        norms = {name: np.linalg.norm(layer["kernel"]) for name, layer in result.params(member).items()}
        assert norms[decayed] < np.linalg.norm(without[decayed]["kernel"])
    with pytest.raises(ValueError, match="selects no weight"):
        fit(wd.Masked(wd.Decoupled(0.5), wd.masks.first), trainable=HEAD)


@pytest.mark.slow
@pytest.mark.parametrize("given", [None, PRETRAINED], ids=["drawn", "given"])
def test_member_has_the_same_bits_alone_resumed_and_with_patience(given, tmp_path):
    settings = {"initial": given, "trainable": HEAD, "batch_size": 8}
    together = fit([wd.NoDecay(), wd.Decoupled(0.5)], **settings)
    alone = fit(wd.Decoupled(0.5), seed=[1], **settings)
    same_bits(alone.params(0), together.params(3))
    fit(wd.Decoupled(0.5), directory=tmp_path, **{**settings, "num_steps": 5})
    resumed = fit(wd.Decoupled(0.5), directory=tmp_path, **settings)
    for member in range(2):
        same_bits(resumed.params(member), together.params(2 + member))
    loaded = wd.load(tmp_path)
    same_bits(jax.tree.map(np.asarray, loaded.params(1)), together.params(3))
    patient = fit(wd.Decoupled(0.5), patience=50, **settings)
    assert patient.params(0)["first"]["kernel"].shape == (5, 6)
    same_bits(patient.params(1)["first"], together.params(3)["first"])


@pytest.mark.slow
def test_given_frozen_weights_are_stored_once(tmp_path):
    from safetensors.numpy import load_file

    result = fit([wd.NoDecay(), wd.Decoupled(0.5)], initial=PRETRAINED, trainable=HEAD)
    for name in ("result", "again"):
        result.save(tmp_path / name)
        arrays = load_file(tmp_path / name / "weights.safetensors")
        assert arrays["params/first/kernel"].shape == (1, 5, 6)
        assert arrays["params/head/kernel"].shape == (4, 6, 2)
        loaded = wd.load(tmp_path / name)
        for member in range(4):
            same_bits(jax.tree.map(np.asarray, loaded.params(member)), result.params(member))
        result = loaded
    with pytest.raises(ValueError, match="read-only"):
        loaded.params(0)["first"]["kernel"][:] = 0


@pytest.mark.slow
def test_other_given_or_frozen_weights_are_another_run(tmp_path):
    fit(wd.NoDecay(), directory=tmp_path, initial=PRETRAINED, trainable=HEAD)
    other = jax.tree.map(lambda w: w + 1, PRETRAINED)
    with pytest.raises(ValueError, match="the initial weights differ"):
        fit(wd.NoDecay(), directory=tmp_path, initial=other, trainable=HEAD)
    with pytest.raises(ValueError, match="the frozen weights"):
        fit(wd.NoDecay(), directory=tmp_path, initial=PRETRAINED, trainable=wd.masks.matching("head", "second"))


@pytest.mark.slow
def test_batch_statistics_are_given_too():
    variables = {
        "params": {
            "first": PRETRAINED["first"],
            "norm": {"scale": np.ones(6, np.float32), "bias": np.zeros(6, np.float32)},
        },
        "batch_stats": {"norm": {"mean": np.full(6, 3, np.float32), "var": np.full(6, 2, np.float32)}},
    }
    result = fit(wd.NoDecay(), Normalized(), initial=variables, trainable=HEAD, num_steps=1, eval_every=1)
    hidden = INPUTS[:40] @ PRETRAINED["first"]["kernel"] + PRETRAINED["first"]["bias"]
    expected = 0.99 * 3 + 0.01 * hidden.mean(axis=0)
    np.testing.assert_allclose(result.model_state(0)["batch_stats"]["norm"]["mean"], expected, rtol=1e-5)


@pytest.mark.slow
def test_file_with_other_names_and_module_of_nnx(tmp_path):
    from safetensors.numpy import save_file

    arrays = {name.replace("/", "."): value for name, value in tree.named_leaves({"model": {"encoder": PRETRAINED}})}
    save_file(arrays, tmp_path / "weights.safetensors")
    renamed = wd.Initial(tmp_path / "weights.safetensors", rename={"model/encoder": ""})
    same_bits(fit(wd.NoDecay(), initial=renamed, trainable=HEAD).params(0)["first"], PRETRAINED["first"])

    class OfNnx(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(5, 6, rngs=rngs)
            self.norm = nnx.BatchNorm(6, rngs=rngs)
            self.head = nnx.Linear(6, 2, rngs=rngs)

        def __call__(self, inputs):
            return self.head(nnx.relu(self.norm(self.first(inputs))))

    module = OfNnx(nnx.Rngs(7))
    module.norm.mean[...] = jnp.full(6, 3.0)
    result = fit(wd.NoDecay(), OfNnx, initial=module, trainable=HEAD, num_steps=1, eval_every=1)
    np.testing.assert_array_equal(result.params(0)["first"]["kernel"], module.first.kernel[...])
    np.testing.assert_array_equal(result.params(1)["first"]["kernel"], module.first.kernel[...])
    assert (result.model_state(0)["norm"]["mean"] > 2).all()


@pytest.mark.slow
def test_module_of_equinox_and_bare_functions_start_from_given_weights():
    class OfEquinox(eqx.Module):
        first: eqx.nn.Linear
        head: eqx.nn.Linear

        def __init__(self, key):
            self.first, self.head = eqx.nn.Linear(5, 6, key=key), eqx.nn.Linear(6, 2, key=key)

        def __call__(self, inputs):
            return self.head(jax.nn.relu(self.first(inputs)))

    given = OfEquinox(jax.random.key(7))
    result = fit(wd.TowardAnchor(0.3), OfEquinox, initial=given, trainable=HEAD)
    same_bits(np.asarray(result.params(1).first.weight), np.asarray(given.first.weight))
    assert result.dataset["layer"].values.tolist() == ["head/weight"]
    # A module can be called, and is not a schedule.
    anchored = wd.sgd(0.1, wd.TowardAnchor(0.3, anchor=eqx.filter(given, eqx.is_array)), mask=wd.masks.everything)
    weights = jax.tree.map(lambda w: w + 1, eqx.filter(given, eqx.is_array))
    updates, _ = anchored.update(jax.tree.map(jnp.zeros_like, weights), anchored.init(weights), weights)
    np.testing.assert_allclose(updates.head.weight, np.full((2, 6), -0.03), rtol=1e-5)

    bare = wd.Model(
        init=lambda key, inputs: [jax.random.normal(key, (5, 6)), jnp.zeros((6, 2))],
        apply=lambda params, inputs: jnp.tanh(inputs @ params[0]) @ params[1],
    )
    settings = {"trainable": [False, True], "mask": [True, True], "batch_size": 8}
    on_device = fit(wd.L2(0.1), bare, initial=[np.ones((5, 6)), None], **settings)
    streamed = fit(wd.L2(0.1), bare, initial=[np.ones((5, 6)), None], memory_budget=0, **settings)
    same_bits(streamed.params(1), on_device.params(1))
    np.testing.assert_array_equal(on_device.params(1)[0], np.ones((5, 6)))


def test_what_does_not_fit_is_told():
    params = jax.eval_shape(Net().init, jax.random.key(0), INPUTS[:1])["params"]
    other_head = PRETRAINED | {"head": {"kernel": np.zeros((6, 9)), "bias": np.zeros(9)}}
    table = wd.Initial(other_head).describe(params)
    assert "the seed; head/kernel has shape (6, 9)" in table
    assert "left over: head/bias, head/kernel" in table
    with pytest.warns(UserWarning, match=r"drawn from the seed: head/bias, head/kernel; left over: head/bias"):
        fit(wd.NoDecay(), initial=other_head, num_steps=1)
    with pytest.warns(UserWarning, match="trainable freezes second/bias, second/kernel, which initial does not give"):
        fit(wd.NoDecay(), initial={"first": PRETRAINED["first"]}, trainable=HEAD, num_steps=1)
    with pytest.raises(ValueError, match=r"initial gives none of the weights.*rename="):
        fit(wd.NoDecay(), initial={"backbone": PRETRAINED})
    with pytest.raises(ValueError, match="numbers in first/kernel that are nan"):
        fit(wd.NoDecay(), initial={"first": {"kernel": np.full((5, 6), np.nan)}})
    with pytest.raises(TypeError, match="initial has first of type str"):
        wd.Initial({"first": "kernel"})
    with pytest.raises(ValueError, match="matches no array of initial"):
        wd.Initial(PRETRAINED, rename={"third": "first"})
    with pytest.raises(ValueError, match="rename makes 'one/bias' of both"):
        wd.Initial(PRETRAINED, rename={"first": "one", "second": "one"})
    with pytest.raises(TypeError, match="rename"):
        wd.Initial(PRETRAINED, rename=3)
    with pytest.raises(ValueError, match="trainable selects no weight"):
        fit(wd.NoDecay(), trainable=False)
    with pytest.raises(TypeError, match="trainable has a leaf 1 of type int"):
        fit(wd.NoDecay(), trainable=lambda params: jax.tree.map(lambda _: 1, params))
    with pytest.raises(ValueError, match="trainable is a tree that does not fit"):
        fit(wd.NoDecay(), trainable={"first": False})


@pytest.mark.slow
@pytest.mark.parametrize("decay", [wd.L2(0.1), wd.Decoupled(0.5), wd.TowardAnchor(0.3)], ids=lambda rule: rule.name)
def test_weights_that_a_partition_of_optax_freezes_are_counted_nowhere(decay):
    def partitioned(learning_rate, decay, mask):
        ours = wd.adam(learning_rate, decay, mask=mask)
        return optax.partition({"True": ours, "False": optax.set_to_zero()}, labels)

    settings = {"model": Net(), "optimizer": partitioned, "seed": [0]}
    by_partition = fit(decay, **settings, initial=PRETRAINED)
    frozen = fit(decay, initial=PRETRAINED, trainable=HEAD, seed=[0])
    close(by_partition.params(0), frozen.params(0), rtol=1e-5, atol=1e-6)
    for name in ("penalty", "weight_norm", "zero_fraction", "layer_weight_norm"):
        np.testing.assert_allclose(by_partition.dataset[name], frozen.dataset[name], rtol=1e-5)


@pytest.mark.slow
def test_every_layer_trains_at_its_own_rate():
    rates = {"first": 1e-3, "second": 3e-3, "head": 1e-2}
    result = fit([wd.Decoupled(0.5), wd.L2(0.1)], learning_rate=wd.PerLayer(rates), initial=PRETRAINED, seed=[0])
    start = PRETRAINED | {"head": initial(0)["head"]}

    def matrices(params):
        return jax.tree.map(lambda w: getattr(w, "ndim", 0) > 1, params)

    def l2(rate):
        return optax.chain(optax.masked(optax.add_decayed_weights(0.1), matrices), optax.adam(rate))

    for member, optimizer in enumerate((lambda rate: optax.adamw(rate, weight_decay=0.5, mask=matrices), l2)):
        by_hand = optax.partition(
            {name: optimizer(rate) for name, rate in rates.items()},
            lambda params: {name: jax.tree.map(lambda _, name=name: name, layer) for name, layer in params.items()},
        )
        close(result.params(member), trained_by_hand(by_hand, start), rtol=2e-5, atol=2e-6)


@pytest.mark.slow
def test_rates_by_layer_are_stored_and_may_be_schedules(tmp_path):
    unfrozen = wd.PerLayer({"head": 1e-2}, default=wd.schedules.Linear(1e-3, 0.0, 10))
    grid = wd.Grid(decay=[wd.Decoupled(0.5)], learning_rate=[1e-2, unfrozen, wd.PerLayer({"head": 1e-2}, default=0.0)])
    result = wd.fit_grid(Net(), DATA, grid, **SETTINGS)
    result.save(tmp_path / "result")
    assert wd.load(tmp_path / "result").members == result.members
    assert result.table()["learning_rate_schedule"].tolist()[0] == ""
    same_bits(result.params(2)["first"], initial(0)["first"])
    assert not np.array_equal(result.params(1)["first"]["kernel"], result.params(2)["first"]["kernel"])
    with pytest.raises(ValueError, match=r"no pattern matches .*head/kernel.*default"):
        fit(wd.NoDecay(), learning_rate=wd.PerLayer({"first": 1e-3}))
    with pytest.raises(ValueError, match="'third' matches no weight"):
        fit(wd.NoDecay(), learning_rate=wd.PerLayer({"third": 1e-3}, default=1e-2))
    with pytest.raises(ValueError, match="head"):
        wd.Grid(decay=[wd.NoDecay()], learning_rate=[wd.PerLayer({"head": -1.0})])
