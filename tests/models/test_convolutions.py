"""Rewritten convolutions and poolings: the numbers and gradients of jax's own, at ties too, in any program."""

import collections
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax import lax
from jax.extend.core import jaxprs_in_params

from weightdecay import models
from weightdecay.models import convolutions as lowering

SLOW = {"conv_general_dilated", "reduce_window_max", "select_and_gather_add", "select_and_scatter_add"}
LAYOUT = ("NHWC", "HWIO", "NHWC")


def convolution(inputs, kernel, strides=(1, 1), padding="SAME", **options):
    options = {"dimension_numbers": LAYOUT, **options}
    return lax.conv_general_dilated(inputs, kernel, strides, padding, **options)


def pool(inputs, *, window=(2, 2), strides=(2, 2), padding="VALID", kind=lax.max):
    start = -jnp.inf if kind is lax.max else 0.0
    return lax.reduce_window(inputs, start, kind, (1, *window, 1), (1, *strides, 1), padding)


def normal(*shape, seed=0, dtype=None):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype or jnp.zeros(()).dtype)


def with_gradients(function, *args):
    """Results, and gradients of a weighted sum of them by every argument."""

    @jax.jit
    def run(*args):
        outputs, backward = jax.vjp(function, *args)
        weights = jax.tree.map(lambda a: jnp.cos(jnp.arange(a.size, dtype=a.dtype)).reshape(a.shape), outputs)
        return outputs, backward(weights)

    return run(*args)


def assert_same(actual, expected, tolerance=None):
    actual, expected = jax.tree.leaves(actual), jax.tree.leaves(expected)
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        # sums in another order: relative to the largest entry
        within = tolerance or (1e-12 if one.dtype == jnp.float64 else 1e-5)
        one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
        np.testing.assert_allclose(one, other, rtol=0, atol=within * max(1, np.abs(other).max(initial=0)))


def assert_rewritten(function, *args, tolerance=None):
    """The function's own numbers and gradients, by other operations."""
    assert primitives(jax.make_jaxpr(function)(*args)) & SLOW
    rewritten = lowering.rewrite(function)
    assert not primitives(jax.make_jaxpr(rewritten)(*args)) & SLOW
    assert_same(with_gradients(rewritten, *args), with_gradients(function, *args), tolerance)


def count_primitives(traced):
    counts = collections.Counter()
    for equation in getattr(traced, "jaxpr", traced).eqns:
        counts[equation.primitive.name] += 1
        for inner in jaxprs_in_params(equation.params):
            counts += count_primitives(inner)
    return counts


def primitives(traced):
    return set(count_primitives(traced))


@st.composite
def convolutions(draw):
    """Shapes and options of a convolution, small, with all that flax can ask for."""
    num_axes = draw(st.sampled_from([1, 2, 2]))
    each = lambda entries: st.tuples(*[entries] * num_axes)  # noqa: E731
    groups, channels, outputs = (draw(st.integers(1, 3)) for _ in range(3))
    sizes, window = draw(each(st.integers(1, 7))), draw(each(st.integers(1, 3)))
    letters = "HW"[:num_axes]
    layout = tuple("".join(draw(st.permutations(name + letters))) for name in ("NC", "OI", "NC"))
    ones = st.just((1,) * num_axes)
    strides = draw(ones | each(st.integers(1, 3)))
    options = {
        "padding": draw(st.sampled_from(["SAME", "VALID"]) | each(st.tuples(st.integers(-1, 3), st.integers(-1, 3)))),
        "lhs_dilation": draw(ones | each(st.integers(1, 3))),
        "rhs_dilation": draw(each(st.integers(1, 2))),
        "feature_group_count": groups,
        "dimension_numbers": layout,
    }
    if isinstance(options["padding"], str) and max(options["lhs_dilation"]) > 1:
        options["padding"] = ((1, 2),) * num_axes
    if not isinstance(options["padding"], str):
        assume(
            all(n + min(low, 0) + min(high, 0) > 0 for n, (low, high) in zip(sizes, options["padding"], strict=True))
        )
    extent = dict(zip(letters, zip(sizes, window, strict=True), strict=True))
    inputs = [{"N": 2, "C": groups * channels}.get(name) or extent[name][0] for name in layout[0]]
    kernel = [{"O": groups * outputs, "I": channels}.get(name) or extent[name][1] for name in layout[1]]
    return inputs, kernel, strides, options


@pytest.mark.slow
@settings(max_examples=24, deadline=None, derandomize=True)
@given(convolutions())
def test_rewrite_keeps_convolution_in_float64(drawn):
    inputs, kernel, strides, options = drawn
    with jax.enable_x64(True):
        function = functools.partial(convolution, strides=strides, **options)
        args = normal(*inputs), normal(*kernel, seed=1)
        assume(jax.eval_shape(function, *args).size)
        assert_rewritten(function, *args)


@pytest.mark.slow
@settings(max_examples=10, deadline=None, derandomize=True)
@given(convolutions(), st.sampled_from([jnp.float32, jnp.bfloat16, jnp.float16]), st.booleans())
def test_rewrite_keeps_convolution_in_dtype(drawn, dtype, wide):
    inputs, kernel, strides, options = drawn
    function = functools.partial(
        convolution, strides=strides, preferred_element_type=jnp.float32 if wide else None, **options
    )
    args = normal(*inputs, dtype=dtype), normal(*kernel, seed=1, dtype=dtype)
    assume(jax.eval_shape(function, *args).size)
    # a few roundings of the dtype; float32 as promised
    tolerance = 1e-5 if dtype == jnp.float32 else 4 * float(jnp.finfo(dtype).eps)
    assert_rewritten(function, *args, tolerance=tolerance)


def test_depthwise_convolution_of_float16_is_summed_in_float32():
    inputs, kernel = jnp.ones((1, 8, 8, 2), jnp.bfloat16), jnp.full((8, 8, 1, 2), 1 / 3, jnp.bfloat16)
    function = functools.partial(convolution, padding="VALID", feature_group_count=2)
    # 64 equal entries: the sum is exact in bfloat16, its parts are not
    expected = jnp.full((1, 1, 1, 2), 64 * kernel[0, 0, 0, 0])
    np.testing.assert_array_equal(jax.jit(lowering.rewrite(function))(inputs, kernel), expected)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("window", [(3, 3, 3), (1, 1, 1)])
def test_rewrite_keeps_convolution_of_volumes(window):
    layout = ("NDHWC", "DHWIO", "NDHWC")
    function = functools.partial(convolution, strides=(2, 1, 1), dimension_numbers=layout)
    assert_rewritten(function, normal(2, 5, 4, 3, 2), normal(*window, 2, 3, seed=1))


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("layer", "padding"),
    [
        *(
            (layer, padding)
            for layer in (nn.Conv, nn.ConvTranspose)
            for padding in ("SAME", "CIRCULAR", ((0, 2), (1, 0)))
        ),
        (nn.Conv, "REFLECT"),
    ],
)
def test_rewrite_keeps_flax_layers(layer, padding):
    layer = layer(4, (3, 2), strides=(2, 2), padding=padding, param_dtype=jnp.float64)
    inputs = normal(2, 6, 5, 3)
    params = layer.init(jax.random.key(0), inputs)
    assert_rewritten(layer.apply, params, inputs)


@pytest.mark.usefixtures("float64")
def test_rewrite_keeps_causal_layer():
    layer = nn.Conv(4, (3,), padding="CAUSAL", kernel_dilation=2, param_dtype=jnp.float64)
    inputs = normal(2, 9, 3)
    assert_rewritten(layer.apply, layer.init(jax.random.key(0), inputs), inputs)


@pytest.mark.slow
@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    st.tuples(st.integers(3, 7), st.integers(3, 7)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)) | st.none(),
    st.sampled_from(["SAME", "VALID", ((0, 0), (1, 0), (0, 2), (0, 0))]),
    st.integers(0, 5),
)
def test_maximum_keeps_values_and_gradients_at_ties(sizes, window, strides, padding, seed):
    with jax.enable_x64(True):
        # small whole numbers after a relu: most windows have several maxima
        inputs = jax.nn.relu(jnp.round(normal(2, *sizes, 3, seed=seed)))
        function = functools.partial(pool, window=window, strides=strides or window, padding=padding)
        assert_rewritten(function, inputs)


@pytest.mark.slow
def test_maximum_sends_gradient_to_first_maximum():
    inputs = jnp.array([[0.0, 1, 2, 2], [1, 1, 0, 2], [0, 0, 3, 3], [0, 0, 3, 9]]).reshape(1, 4, 4, 1)
    gradient = jax.grad(lambda a: lowering.rewrite(pool)(a).sum())(inputs)
    np.testing.assert_array_equal(gradient.reshape(4, 4), [[0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    overlapping = functools.partial(pool, window=(3, 3), strides=(1, 1))
    gradient = jax.grad(lambda a: lowering.rewrite(overlapping)(a).sum())(inputs)
    # the windows at (0, 0), (0, 1) and (1, 0) have their first 3 at (2, 2)
    np.testing.assert_array_equal(gradient.reshape(4, 4), [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize("place", range(4))
def test_maximum_keeps_nan(place):
    inputs = jnp.ones(4).at[place].set(jnp.nan).reshape(1, 2, 2, 1)
    pooled, _ = with_gradients(lowering.rewrite(pool), inputs)
    assert jnp.isnan(pooled).all()
    assert jnp.isnan(lowering.rewrite(pool)(inputs)).all()


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("layer", [nn.max_pool, nn.avg_pool, functools.partial(nn.avg_pool, count_include_pad=False)])
@pytest.mark.parametrize(("window", "strides"), [((3, 3), (2, 1)), ((2, 2), (2, 2)), ((3,), (1,))])
def test_rewrite_keeps_flax_pooling(layer, window, strides, padding):
    inputs = normal(2, *(7, 6)[: len(window)], 3)
    function = functools.partial(layer, window_shape=window, strides=strides, padding=padding)
    rewritten = lowering.rewrite(function)
    assert_same(with_gradients(rewritten, inputs), with_gradients(function, inputs))
    left = primitives(jax.make_jaxpr(rewritten)(inputs)) & {"reduce_window_max", "reduce_window_sum"}
    assert left == ({"reduce_window_sum"} if window == strides and layer is not nn.max_pool else set())


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("shape", ["convolution", "depthwise", "transposed", "apart", "overlapping"])
def test_rewrite_keeps_tangents_and_second_derivatives(shape):
    function, args = {
        "convolution": (convolution, (normal(2, 4, 4, 2), normal(3, 3, 2, 2, seed=1))),
        "depthwise": (
            functools.partial(convolution, feature_group_count=2),
            (normal(2, 4, 4, 2), normal(3, 3, 1, 2, seed=1)),
        ),
        "transposed": (
            lambda a, b: lax.conv_transpose(a, b, (2, 2), "SAME", dimension_numbers=LAYOUT),
            (normal(2, 3, 3, 2), normal(3, 3, 2, 2, seed=1)),
        ),
        "apart": (pool, (normal(2, 4, 4, 2),)),
        "overlapping": (functools.partial(pool, window=(3, 3), strides=(1, 1)), (normal(2, 4, 4, 2),)),
    }[shape]
    tangents = tuple(normal(*a.shape, seed=9) for a in args)

    @functools.partial(jax.jit, static_argnums=0)
    def derivatives(function):
        smooth = lambda *args: jnp.sin(function(*args)).sum()  # noqa: E731
        along = jax.jvp(jax.grad(smooth, argnums=tuple(range(len(args)))), args, tangents)
        return jax.jvp(function, args, tangents), along

    assert_same(derivatives(lowering.rewrite(function)), derivatives(function))


class Linen(nn.Module):
    """Every kind of layer that is rewritten, with what stands between them."""

    @nn.compact
    def __call__(self, inputs, train):
        dtype = inputs.dtype
        hidden = nn.Conv(4, (3, 3), param_dtype=dtype)(inputs)
        hidden = nn.BatchNorm(use_running_average=not train, param_dtype=dtype)(hidden)
        hidden = nn.max_pool(nn.relu(hidden), (2, 2), (2, 2))
        hidden = nn.Conv(8, (3, 3), feature_group_count=4, param_dtype=dtype)(hidden)
        hidden = nn.Dropout(0.5, deterministic=not train)(nn.relu(hidden))
        hidden = nn.max_pool(nn.remat(nn.Conv)(8, (1, 1), param_dtype=dtype)(hidden), (3, 3), (1, 1), "SAME")
        hidden = nn.ConvTranspose(3, (3, 3), (2, 2), param_dtype=dtype)(hidden)
        hidden = nn.Conv(6, (3, 3), feature_group_count=3, param_dtype=dtype)(hidden)
        hidden = nn.avg_pool(hidden, (3, 3), (2, 2))
        return nn.Dense(5, param_dtype=dtype)(hidden.reshape(hidden.shape[0], -1))


def linen_forward(params, state, inputs, key):
    return Linen().apply({"params": params, **state}, inputs, True, rngs={"dropout": key}, mutable=list(state))


def linen_members(count):
    """Arguments of `linen_forward`, one row a member."""
    keys, inputs = jax.random.split(jax.random.key(0), count), normal(count, 4, 8, 8, 2)
    variables = jax.jit(jax.vmap(lambda key, inputs: Linen().init(key, inputs, False)))(keys, inputs)
    return variables["params"], {"batch_stats": variables["batch_stats"]}, inputs, keys


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_rewrite_keeps_linen_network_and_leaves_members_no_grouped_convolution():
    args = linen_members(2)

    def gradients(forward):
        def loss(*args):
            outputs, state = forward(*args)
            return jnp.sin(outputs).sum(), state

        return jax.vmap(jax.value_and_grad(loss, has_aux=True))

    plain, rewritten = gradients(linen_forward), gradients(lowering.rewrite(linen_forward))
    assert primitives(jax.make_jaxpr(plain)(*args)) >= SLOW - {"select_and_gather_add"}
    assert not primitives(jax.make_jaxpr(rewritten)(*args)) & (SLOW | {"reduce_window_sum"})
    assert_same(jax.jit(rewritten)(*args), jax.jit(plain)(*args))


@pytest.mark.slow
def test_rewrite_keeps_nnx_network():
    class Network(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(2, 4, (3, 3), strides=2, rngs=rngs)
            self.norm = nnx.BatchNorm(4, rngs=rngs)
            self.wider = nnx.ConvTranspose(4, 3, (2, 2), strides=(2, 2), rngs=rngs)

        def __call__(self, inputs):
            return self.wider(nnx.relu(self.norm(self.conv(nnx.max_pool(inputs, (2, 2), (1, 1))))))

    graph, params, state = nnx.split(Network(nnx.Rngs(0)), nnx.Param, ...)

    def forward(params, state, inputs):
        network = nnx.merge(graph, params, state)
        outputs = network(inputs)
        return outputs, nnx.state(network, nnx.BatchStat)

    assert_rewritten(forward, params, state, normal(4, 8, 8, 2))


def looped(inputs, kernel):
    return lax.scan(lambda carry, _: (jnp.tanh(convolution(carry, kernel)), carry.sum()), inputs, None, length=3)


def whiled(inputs, kernel):
    return lax.fori_loop(0, 3, lambda _, carry: jnp.tanh(convolution(carry, kernel)), inputs)


def branched(inputs, kernel):
    branches = (lambda a, b: convolution(a, b), lambda a, b: a * b[0, 0, 0], lambda a, b: convolution(a, -b))
    return [lax.switch(index, branches, inputs, kernel) for index in (jnp.int32(0), jnp.int32(1), jnp.int32(2))]


@jax.jit
def jitted(inputs, kernel):
    return jax.jit(convolution)(inputs, kernel), kernel, 1.0


@functools.partial(jax.checkpoint, policy=jax.checkpoint_policies.dots_saveable)
def checkpointed(inputs, kernel):
    return jnp.sin(pool(convolution(jnp.sin(inputs), kernel)))


PROGRAMS = [looped, whiled, branched, jitted, checkpointed]


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("program", PROGRAMS)
def test_rewrite_enters_programs(program):
    with jax.enable_checks(True):
        assert_rewritten(program, normal(2, 4, 4, 3), normal(3, 3, 3, 3, seed=1))


@jax.custom_vjp
def halved(inputs, kernel):
    return convolution(inputs, kernel)


halved.defvjp(lambda *args: (convolution(*args), args), lambda args, g: (args[0] * g.sum() / 2, args[1] * g.mean()))


@jax.custom_jvp
def doubled(inputs, kernel):
    return convolution(inputs, kernel)


doubled.defjvp(lambda args, tangents: (convolution(*args), 2 * convolution(tangents[0], args[1])))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("program", [halved, doubled])
def test_rewrite_keeps_custom_derivatives(program):
    args = normal(2, 4, 4, 3), normal(3, 3, 3, 3, seed=1)
    rewritten = lowering.rewrite(program)
    assert_same(with_gradients(rewritten, *args), with_gradients(program, *args))
    assert not primitives(jax.make_jaxpr(rewritten)(*args)) & SLOW


def test_rewrite_keeps_inner_equation_that_holds_nothing():
    custom = jax.custom_vjp(jnp.sin)
    custom.defvjp(lambda a: (jnp.sin(a), a), lambda a, g: (7 * g,))
    function = lambda inputs, kernel: custom(jax.nn.relu(convolution(inputs, kernel)))  # noqa: E731
    args = normal(2, 4, 4, 3), normal(3, 3, 3, 3, seed=1)
    plain, rewritten = (jax.make_jaxpr(f)(*args).eqns for f in (function, lowering.rewrite(function)))
    assert [e.primitive.name for e in plain[-2:]] == ["custom_jvp_call", "custom_vjp_call"]
    for one, other in zip(rewritten[-2:], plain[-2:], strict=True):
        assert one.primitive is other.primitive
        assert str(one.params["call_jaxpr"]) == str(other.params["call_jaxpr"])
    assert_same(with_gradients(lowering.rewrite(function), *args), with_gradients(function, *args))


@pytest.mark.slow
def test_rewrite_leaves_mlp_alone():
    network = models.MLP((16, 16), num_outputs=4)
    inputs = normal(8, 5)
    params = network.init(jax.random.key(0), inputs)

    def step(forward):
        return jax.value_and_grad(lambda params, inputs: nn.log_softmax(forward(params, inputs))[:, 0].sum())

    plain, rewritten = step(network.apply), step(lowering.rewrite(network.apply))
    assert str(jax.make_jaxpr(rewritten)(params, inputs)) == str(jax.make_jaxpr(plain)(params, inputs))
    jax.tree.map(np.testing.assert_array_equal, jax.jit(rewritten)(params, inputs), jax.jit(plain)(params, inputs))


def test_rewrite_traces_once_and_takes_closed_over_tracers():
    traces = []

    def loss(kernel, inputs):
        def forward(inputs):
            traces.append(None)
            return convolution(inputs, kernel)

        return lowering.rewrite(forward)(inputs).sum()

    args = normal(3, 3, 2, 2), normal(2, 4, 4, 2)
    gradient = jax.jit(jax.grad(loss))(*args)
    assert len(traces) == 1
    assert_same(gradient, jax.grad(lambda kernel, inputs: convolution(inputs, kernel).sum())(*args))


@pytest.mark.parametrize(("argnums", "products"), [((1,), 2), ((0, 1), 3)])
def test_gradient_of_first_layer_is_not_paid_for(argnums, products):
    function = lambda inputs, kernel: jnp.sin(lowering.rewrite(convolution)(inputs, kernel)).sum()  # noqa: E731
    args = normal(2, 4, 4, 3), normal(3, 3, 3, 3, seed=1)
    traced = jax.jit(jax.grad(function, argnums=argnums)).trace(*args).jaxpr
    assert count_primitives(traced)["dot_general"] == products


@pytest.mark.parametrize(
    ("function", "args"),
    [
        (functools.partial(convolution, batch_group_count=2), [(4, 5, 5, 2), (3, 3, 2, 4)]),
        (functools.partial(convolution, feature_group_count=2), [(2, 9, 9, 2), (9, 9, 1, 2)]),
        (functools.partial(convolution, padding="VALID"), [(2, 2, 2, 2), (3, 3, 2, 4)]),
        (convolution, [(0, 5, 5, 2), (3, 3, 2, 4)]),
        (functools.partial(pool, window=(9, 9)), [(1, 20, 20, 1)]),
        (functools.partial(pool, window=(7, 7), strides=(7, 7)), [(1, 20, 20, 1)]),
        (functools.partial(pool, kind=lax.add), [(1, 4, 4, 1)]),
        (lambda a: pool(a, kind=lax.min), [(1, 4, 4, 1)]),
    ],
)
def test_rewrite_leaves_what_the_rule_leaves(function, args):
    args = [normal(*shape) for shape in args]
    assert str(jax.make_jaxpr(lowering.rewrite(function))(*args)) == str(jax.make_jaxpr(function)(*args))


def test_rewrite_leaves_whole_numbers():
    function = functools.partial(convolution, preferred_element_type=jnp.int32)
    args = jnp.ones((1, 4, 4, 1), jnp.int8), jnp.ones((3, 3, 1, 1), jnp.int8)
    assert str(jax.make_jaxpr(lowering.rewrite(function))(*args)) == str(jax.make_jaxpr(function)(*args))
