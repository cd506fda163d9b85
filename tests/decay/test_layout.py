"""Layouts: what each array of a network is, and rules, penalties, maps and optimizers on the matrices of layers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import weightdecay as wd
from weightdecay.core import tree
from weightdecay.decay import layout
from weightdecay.search import member

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
QUERY = RNG.normal(size=(4, 2, 3)).astype(np.float32)  # inputs, heads, width
OUT = RNG.normal(size=(2, 3, 4)).astype(np.float32)  # heads, width, outputs
STACK = RNG.normal(size=(3, 4, 5)).astype(np.float32)  # layers, inputs, outputs


@pytest.fixture
def eqx():
    return pytest.importorskip("equinox")


def step(optimizer, params, gradients=None):
    """Weights after one step; without gradients by decay alone."""
    gradients = jax.tree.map(jnp.zeros_like, params) if gradients is None else gradients
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    return optax.apply_updates(params, updates)


def described(params, given=None):
    arrays = layout.describe_arrays(params, given)
    names = [name for name, _ in tree.named_leaves(params)]
    return {name: (array.kind, str(array)) for name, array in zip(names, arrays, strict=True)}


def of_kind(params, kind):
    return {name for name, (found, _) in described(params).items() if found == kind}


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _=None):
        x = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=2)(x)
        return nn.Dense(6, use_bias=False, name="projection")(x), None


class Linen(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(11, 6)(tokens) + self.param("pos_embed", nn.initializers.normal(), (5, 6))
        scanned = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        x, _ = scanned()(x)
        x, _ = scanned(name="layers")(x)
        x = nn.DenseGeneral((3, 2))(x)
        x = nn.DenseGeneral(5, axis=(-2, -1))(x)
        x = nn.ConvTranspose(4, (3,), transpose_kernel=True)(nn.Conv(5, (3,))(x))
        experts = nn.vmap(nn.Dense, {"params": 0}, {"params": True}, in_axes=None, out_axes=-1, axis_size=3)
        return experts(7)(x)


def test_layouts_of_linen():
    params = jax.eval_shape(Linen().init, KEY, jnp.zeros((2, 5), int))["params"]
    kernels = {name: text for name, (kind, text) in described(params).items() if kind == "kernel"}
    stacked = {
        "projection/kernel": "stack in out",
        "MultiHeadDotProductAttention_0/out/kernel": "stack in in out",
        **{f"MultiHeadDotProductAttention_0/{part}/kernel": "stack in out out" for part in ("query", "key", "value")},
    }
    assert kernels == {
        "DenseGeneral_0/kernel": "in out out",
        "DenseGeneral_1/kernel": "in in out",
        "Conv_0/kernel": "in in out",
        "ConvTranspose_0/kernel": "in out in",
        "VmapDense_0/kernel": "stack in out",
        **{f"{block}/{name}": text for block in ("ScanBlock_0", "layers") for name, text in stacked.items()},
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "weights",
    [
        lambda module: nnx.state(module, nnx.Param),
        lambda module: nnx.to_pure_dict(nnx.state(module, nnx.Param)),
        lambda module: module,
    ],
)
def test_layouts_of_nnx(weights):
    class Module(nnx.Module):
        def __init__(self, rngs):
            self.attention = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)
            self.norm = nnx.BatchNorm(8, rngs=rngs)
            self.conv = nnx.Conv(8, 4, (3,), rngs=rngs)
            self.experts = nnx.Einsum("nta,hab->nthb", (2, 8, 4), (2, 4), rngs=rngs)
            self.general = nnx.LinearGeneral(8, (3, 2), rngs=rngs)
            self.lora = nnx.LoRALinear(8, 4, lora_rank=2, rngs=rngs)

    found = described(weights(Module(nnx.Rngs(0))))
    assert {name: text for name, (kind, text) in found.items() if kind == "kernel"} == {
        **{f"attention/{part}/kernel": "in out out" for part in ("query", "key", "value")},
        "attention/out/kernel": "in in out",
        "conv/kernel": "in in out",
        "experts/kernel": "stack in out",
        "general/kernel": "in out out",
        **{f"lora/{name}": "in out" for name in ("kernel", "lora/lora_a", "lora/lora_b")},
    }
    assert found.get("norm/mean", ("buffer", "out")) == ("buffer", "out")


@pytest.mark.slow
def test_layouts_of_equinox(eqx):
    keys = jax.random.split(KEY, 4)
    module = {
        "linear": eqx.nn.Linear(2, 8, key=KEY),
        "conv": eqx.nn.Conv2d(2, 3, (2, 4), key=KEY),
        "transposed": eqx.nn.ConvTranspose1d(2, 3, 4, key=KEY),
        "attention": eqx.nn.MultiheadAttention(2, 4, key=KEY),
        "gru": eqx.nn.GRUCell(2, 3, key=KEY),
        "normed": eqx.nn.WeightNorm(eqx.nn.Linear(2, 8, key=KEY)),
        "spectral": eqx.nn.SpectralNorm(eqx.nn.Linear(2, 8, key=KEY), "weight", key=KEY),
        "batch_norm": eqx.nn.BatchNorm(3, "batch", mode="batch"),
        "embedding": eqx.nn.Embedding(7, 3, key=KEY),
        "norm": eqx.nn.LayerNorm((2, 3)),
        "norms": eqx.filter_vmap(lambda key: eqx.nn.LayerNorm(3))(keys),
        "group_norms": eqx.filter_vmap(lambda key: eqx.nn.GroupNorm(1, 3))(keys),
        "slope": eqx.filter_vmap(lambda key: eqx.nn.PReLU())(keys),
        "layers": eqx.filter_vmap(lambda key: eqx.nn.Linear(3, 5, key=key))(keys),
        "convs": eqx.filter_vmap(lambda key: eqx.nn.Conv1d(3, 5, 2, key=key))(keys),
    }
    params = eqx.filter(module, eqx.is_array)
    assert {name: text for name, (kind, text) in described(params).items() if kind == "kernel"} == {
        "linear/weight": "out in",
        "conv/weight": "out in in in",
        "transposed/weight": "out in in",
        **{f"attention/{part}_proj/weight": "out in" for part in ("query", "key", "value", "output")},
        "gru/weight_hh": "out in",
        "gru/weight_ih": "out in",
        "normed/layer/weight": "out in",
        "spectral/layer/weight": "out in",
        "layers/weight": "stack out in",
        "convs/weight": "stack out in in",
    }
    assert of_kind(params, "embedding") == {"embedding/weight"}
    assert of_kind(params, "scale") >= {"norm/weight", "norms/weight", "group_norms/weight", "slope/negative_slope"}
    assert {name for name in of_kind(params, "buffer") if "batch_norm" in name or "uv_index" in name}


def test_layouts_of_plain_trees():
    zeros = np.zeros
    params = {
        "mlp": {"w1": zeros((8, 2)), "b1": zeros(8), "w2": zeros((3, 8)), "b2": zeros(3)},  # outputs first, as in torch
        "torch": [
            {"weight": zeros((8, 2)), "bias": zeros(8)},
            {"weight": zeros((8, 8)), "bias": zeros(8)},  # by itself it could be either
        ],
        "plain": {"w": zeros((3, 4)), "conv": zeros((3, 3, 1, 2))},
        "experts": {"w": zeros((5, 3, 4))},
    }
    kernels = {name: text for name, (kind, text) in described(params).items() if kind == "kernel" and " " in text}
    assert kernels == {
        "mlp/w1": "out in",
        "mlp/w2": "out in",
        "torch/0/weight": "out in",
        "torch/1/weight": "out in",
        "plain/w": "in out",
        "plain/conv": "in in in out",
        "experts/w": "stack in out",
    }
    given = {"plain/w": "out in", "conv": "stack in out out"}
    changed = described(params, given)
    assert (changed["plain/w"][1], changed["plain/conv"][1]) == ("out in", "stack in out out")


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("out in", TypeError, "layout is 'out in'; give a dictionary from patterns"),
        ({"w": ("out", "in")}, TypeError, "give a dictionary from patterns"),
        ({"w": "out on"}, ValueError, r"layout\['w'\] is 'out on'; give one of 'in', 'out' and 'stack' per axis"),
        ({"w": "in in"}, ValueError, "at least one 'out'"),
        ({"w": "in in out"}, ValueError, r"layout is 'in in out' for w of shape \(2, 3\); give one word per axis"),
        ({"v": "in out"}, ValueError, "layout: the pattern 'v' matches no weight"),
    ],
)
@pytest.mark.usefixtures("without_beartype")
def test_layout_refuses_what_does_not_fit(given, error, message):
    with pytest.raises(error, match=message):
        wd.penalties.spectral({"w": np.ones((2, 3), np.float32)}, layout=given)
    with pytest.raises(error, match=message):
        step(wd.sgd(0.1, wd.MaxNorm(1.0, layout=given)), {"w": jnp.ones((2, 3))})


@pytest.mark.slow
def test_max_norm_bounds_the_units_of_attention():
    kernel = np.array([[[3.0], [0.3]], [[4.0], [0.4]]], np.float32)  # (inputs, heads, width), unit norms 5 and .5
    params = {"attention": {"query": {"kernel": jnp.asarray(kernel)}}}
    moved = step(wd.sgd(0.1, wd.MaxNorm(1.0)), params)["attention"]["query"]["kernel"]
    np.testing.assert_allclose(np.linalg.norm(moved.reshape(2, 2), axis=0), [1.0, 0.5], rtol=1e-6)
    projected = wd.proximal.max_norm(params, 1.0)["attention"]["query"]["kernel"]
    np.testing.assert_allclose(projected, moved, rtol=1e-6)  # a rounding of the update


def test_max_norm_bounds_the_outputs_of_equinox_as_torch_does(eqx):
    torch = pytest.importorskip("torch")
    weight = np.array([[3.0, 4.0], [0.3, 0.4]], np.float32)  # rows are outputs
    module = eqx.tree_at(lambda m: m.weight, eqx.nn.Linear(2, 2, key=KEY), jnp.asarray(weight))
    moved = step(wd.sgd(0.1, wd.MaxNorm(1.0)), eqx.filter(module, eqx.is_array))
    np.testing.assert_allclose(np.linalg.norm(moved.weight, axis=1), [1.0, 0.5], rtol=1e-6)
    np.testing.assert_allclose(moved.weight, torch.renorm(torch.tensor(weight), 2, 0, 1.0), rtol=1e-6)


def as_tree(kernel, kind):
    """A kernel in a tree whose names say what it is, and the matrices that the layers multiply by."""
    if kind == "query":
        return {"query": {"kernel": kernel}}, lambda w: np.asarray(w["query"]["kernel"]).reshape(1, 4, 6)
    if kind == "out":
        names = ("query", "key", "value")
        attention = {name: {"kernel": jnp.ones((4, 2, 3))} for name in names} | {"out": {"kernel": kernel}}
        return {"a": attention}, lambda w: np.asarray(w["a"]["out"]["kernel"]).reshape(1, 6, 4)
    return {"ScanDense_0": {"kernel": kernel}}, lambda w: np.asarray(w["ScanDense_0"]["kernel"])


KINDS = [(QUERY, "query"), (OUT, "out"), (STACK, "stack")]


def lasso(matrix):
    norms = np.linalg.norm(matrix, axis=0)
    return matrix * np.maximum(0, 1 - 0.3 * np.sqrt(len(matrix)) / norms)


def spectral(matrix):
    u, s, v = np.linalg.svd(matrix)
    return matrix - 0.1 * s[0] * np.outer(u[:, 0], v[0])


def orthogonal(matrix):
    return matrix - 0.01 * 4 * matrix @ (matrix.T @ matrix - np.eye(matrix.shape[1]))


@pytest.mark.slow
@pytest.mark.parametrize(("kernel", "kind"), KINDS)
@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (wd.ProximalGroupLasso(0.3), lasso),
        (wd.Spectral(0.1, num_iterations=200), spectral),
        (wd.Orthogonal(0.01), orthogonal),
    ],
)
def test_rule_acts_on_the_matrix_that_the_layer_multiplies_by(kernel, kind, rule, expected):
    params, matrices = as_tree(jnp.asarray(kernel), kind)
    moved = step(wd.sgd(1.0, rule), params)
    desired = [expected(matrix) for matrix in matrices(params).astype(np.float64)]
    # float32; the power iteration has converged to rounding
    np.testing.assert_allclose(matrices(moved), desired, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("kernel", "kind"), KINDS)
@pytest.mark.parametrize(
    ("penalty", "expected"),
    [
        (wd.penalties.group_lasso, lambda m: np.sqrt(len(m)) * np.linalg.norm(m, axis=0).sum()),
        (wd.penalties.spectral, lambda m: np.linalg.norm(m, 2) ** 2 / 2),
        (wd.penalties.orthogonal, lambda m: np.linalg.norm(m.T @ m - np.eye(m.shape[1])) ** 2),
    ],
)
def test_penalty_is_that_of_the_matrices(kernel, kind, penalty, expected):
    params, matrices = as_tree(jnp.asarray(kernel), kind)
    mask = jax.tree.map(lambda w: w.shape == kernel.shape and bool((w == kernel).all()), params)
    desired = sum(expected(matrix) for matrix in matrices(params).astype(np.float64))
    np.testing.assert_allclose(penalty(params, mask), desired, rtol=1e-5)  # float32
    gradient = matrices(jax.grad(lambda params: penalty(params, mask))(params))
    for matrix, by_hand in zip(matrices(params), gradient, strict=True):
        np.testing.assert_allclose(jax.grad(penalty)(jnp.asarray(matrix)), by_hand, atol=1e-4)


@pytest.mark.slow
def test_group_lasso_with_a_step_size_per_weight_keeps_it_at_its_weight():
    sizes = RNG.uniform(0.1, 1.0, QUERY.shape).astype(np.float32)
    moved = wd.proximal.group_lasso({"query": {"kernel": jnp.asarray(QUERY)}}, 0.3, {"query": {"kernel": sizes}})
    desired = wd.proximal.group_lasso(jnp.asarray(QUERY.reshape(4, 6)), 0.3, jnp.asarray(sizes.reshape(4, 6)))
    np.testing.assert_allclose(moved["query"]["kernel"].reshape(4, 6), desired, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("kernel", "kind"), KINDS)
def test_muon_orthogonalizes_the_matrix_that_the_layer_multiplies_by(kernel, kind):
    params, matrices = as_tree(jnp.asarray(kernel), kind)
    gradients = jax.tree.map(lambda w: jnp.asarray(RNG.normal(size=w.shape), jnp.float32), params)
    moved = matrices(step(wd.muon(1.0, wd.NoDecay()), params, gradients))
    for before, gradient, after in zip(matrices(params), matrices(gradients), moved, strict=True):
        alone = step(wd.muon(1.0, wd.NoDecay()), {"w": jnp.asarray(before)}, {"w": jnp.asarray(gradient)})
        np.testing.assert_allclose(after, alone["w"], atol=1e-5)


@pytest.mark.slow
def test_muon_steps_a_weight_of_equinox_as_torch_does(eqx):
    torch = pytest.importorskip("torch")
    params = eqx.filter(eqx.nn.Linear(2, 8, key=KEY), eqx.is_array)
    gradients = jax.tree.map(lambda w: jnp.asarray(RNG.normal(size=w.shape), jnp.float32), params)
    moved = step(wd.muon(0.1, wd.NoDecay()), params, gradients)
    weight = torch.nn.Parameter(torch.tensor(np.array(params.weight)))
    weight.grad = torch.tensor(np.array(gradients.weight))
    torch.optim.Muon([weight], lr=0.1, weight_decay=0).step()
    # torch iterates in bfloat16
    np.testing.assert_allclose(moved.weight - params.weight, weight.detach().numpy() - params.weight, atol=5e-3)
    assert np.linalg.norm(moved.weight - params.weight) > 0.2


@pytest.mark.slow
def test_lamb_scales_each_stacked_layer_by_its_own_norm():
    gradients = RNG.normal(size=STACK.shape).astype(np.float32)
    stack = STACK * np.array([1, 10, 100], np.float32)[:, None, None]
    tree_of = lambda kernel: {"ScanDense_0": {"kernel": jnp.asarray(kernel)}}  # noqa: E731
    for rule in (wd.NoDecay(), wd.ProximalL1(0.1)):
        moved = step(wd.lamb(0.1, rule), tree_of(stack), tree_of(gradients))["ScanDense_0"]["kernel"]
        alone = [
            step(wd.lamb(0.1, rule), {"w": jnp.asarray(w)}, {"w": jnp.asarray(g)})["w"]
            for w, g in zip(stack, gradients, strict=True)
        ]
        np.testing.assert_allclose(moved, alone, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "rule",
    [
        wd.NormControl(0.5, 0.1),
        wd.Constrained(1.0, 0.1),
        wd.SelectiveProjection(0.5),
        wd.Constrained(0.5, 0.1, 0),
        wd.RadialBrake(0.3),
        wd.RelativeStep(30.0),
        wd.Hyperball(),
    ],
)
def test_rule_of_whole_arrays_takes_each_stacked_layer_on_its_own(rule):
    optimizer = wd.adam(0.3, rule)
    stack = STACK * np.array([1, 2, 4], np.float32)[:, None, None]
    stacked, alone = {"VmapDense_0": {"kernel": jnp.asarray(stack)}}, [{"w": jnp.asarray(w)} for w in stack]
    state, states = optimizer.init(stacked), [optimizer.init(each) for each in alone]
    for _ in range(3):
        gradient = RNG.normal(size=STACK.shape).astype(np.float32)
        updates, state = optimizer.update({"VmapDense_0": {"kernel": jnp.asarray(gradient)}}, state, stacked)
        stacked = optax.apply_updates(stacked, updates)
        for index in range(3):
            updates, states[index] = optimizer.update({"w": jnp.asarray(gradient[index])}, states[index], alone[index])
            alone[index] = optax.apply_updates(alone[index], updates)
    np.testing.assert_allclose(stacked["VmapDense_0"]["kernel"], [each["w"] for each in alone], rtol=2e-5)


def test_layout_of_the_user_is_part_of_a_rule_and_of_a_stored_member():
    rule = wd.MaxNorm(1.0, layout={"w1": "out in"})
    weight = jnp.array([[3.0, 4.0], [0.3, 0.4]])
    moved = jax.jit(lambda rule, w: step(wd.sgd(0.1, rule), {"w1": w}))(rule, weight)["w1"]
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), [1.0, 0.5], rtol=1e-6)
    assert member.decode(member.encode({"decay": rule})) == {"decay": rule}
    assert str(rule) == "MaxNorm(1, {'w1': 'out in'})"
    assert jax.tree.structure(rule) != jax.tree.structure(wd.MaxNorm(1.0))


def test_describe_shows_layouts_that_are_not_inputs_before_outputs():
    params = {"conv": np.zeros((3, 3, 1, 2)), "query": {"kernel": QUERY}, "w": np.zeros((2, 3))}
    lines = wd.masks.describe(params).splitlines()
    assert lines[0].split() == ["name", "shape", "layout", "weights", "decays"]
    assert "in in in out ?" in lines[1]
    assert "in out out" in lines[2]
    assert "layout" not in wd.masks.describe({"w": np.zeros((2, 3))})
    assert "out in" in wd.masks.describe({"w": np.zeros((2, 3))}, layout={"w": "out in"})
