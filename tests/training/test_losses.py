"""Data losses against scikit-learn, torch and NumPy; labels smoothed by traced strengths; a user's own functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

import weightdecay as wd
from weightdecay.core import metrics as metric_table
from weightdecay.core.types import Batch
from weightdecay.training import losses, task

RANDOM = np.random.default_rng(0)


def test_softmax_cross_entropy_equals_scikit_learn():
    outputs, targets = RANDOM.normal(size=(50, 4)).astype(np.float32), RANDOM.integers(0, 4, 50)
    shares = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    ours = losses.softmax_cross_entropy(outputs, targets)
    assert ours.shape == (50,)
    np.testing.assert_allclose(ours.mean(), metrics.log_loss(targets, shares, labels=range(4)), rtol=1e-5)  # float32
    loss = losses.resolve(None, targets)
    expected = metrics.accuracy_score(targets, outputs.argmax(axis=1))
    np.testing.assert_allclose(loss.accuracy(outputs, targets).mean(), expected, rtol=1e-6)


def test_sigmoid_cross_entropy_equals_scikit_learn():
    outputs, targets = RANDOM.normal(size=50).astype(np.float32), RANDOM.integers(0, 2, 50)
    ours = losses.sigmoid_cross_entropy(outputs, targets)
    np.testing.assert_allclose(ours.mean(), metrics.log_loss(targets, 1 / (1 + np.exp(-outputs))), rtol=1e-5)
    correct = losses.resolve("sigmoid_cross_entropy", targets).accuracy(outputs, targets)
    np.testing.assert_allclose(correct.mean(), metrics.accuracy_score(targets, outputs > 0), rtol=1e-6)


def test_squared_error_equals_scikit_learn_and_never_broadcasts():
    outputs, targets = RANDOM.normal(size=(2, 30, 3)).astype(np.float32)
    ours = losses.squared_error(outputs, targets)
    assert ours.shape == (30,)
    np.testing.assert_allclose(ours.mean(), metrics.mean_squared_error(targets, outputs), rtol=1e-5)
    loss = losses.resolve(None, targets[:, 0])
    aligned = loss.align(outputs[:, :1], targets[:, 0])
    assert aligned.shape == (30,)
    np.testing.assert_allclose(
        loss.per_example(aligned, targets[:, 0]), (outputs[:, 0] - targets[:, 0]) ** 2, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("targets", "name"),
    [
        (np.zeros(3, np.int32), "softmax_cross_entropy"),
        (np.zeros(3), "squared_error"),
        (np.array([[0, 1], [1, 1]]), "sigmoid_cross_entropy"),
        (np.array([[0, 1], [1, 2]]), "squared_error"),
        (np.array([[0.0, 1.0], [1.0, 1.0]]), "squared_error"),
    ],
)
def test_resolve_takes_the_default_from_the_targets(targets, name):
    assert losses.resolve(None, targets).name == name


def test_sigmoid_cross_entropy_of_several_labels_equals_scikit_learn():
    outputs, targets = RANDOM.normal(size=(50, 3)).astype(np.float32), RANDOM.integers(0, 2, (50, 3))
    loss = losses.resolve(None, targets)
    ours = loss.per_example(outputs, targets)
    shares = 1 / (1 + np.exp(-outputs))
    each = [metrics.log_loss(targets[:, label], shares[:, label]) for label in range(3)]
    assert ours.shape == (50,)
    np.testing.assert_allclose(ours.mean(), np.mean(each), rtol=1e-5)  # float32
    correct = loss.accuracy(outputs, targets).mean()
    np.testing.assert_allclose(correct, 1 - metrics.hamming_loss(targets, outputs > 0), rtol=1e-6)


@pytest.mark.parametrize("name", ["sigmoid_cross_entropy", "huber", "squared_error"])
def test_align_sets_one_output_beside_integer_targets(name):
    outputs, targets = RANDOM.normal(size=(50, 1)).astype(np.float32), RANDOM.integers(0, 2, 50)
    loss = losses.resolve(name, targets)
    losses.check_targets(loss, targets, argument="data.train targets")
    assert losses.num_outputs(loss, [targets]) == 1
    aligned = loss.align(outputs, targets)
    losses.check_outputs(loss, aligned, [targets])
    np.testing.assert_array_equal(loss.per_example(aligned, targets), loss.per_example(outputs[:, 0], targets))


def test_huber_equals_torch_and_its_gradient():
    torch = pytest.importorskip("torch")
    outputs, targets = 2 * RANDOM.normal(size=(2, 200, 3)).astype(np.float32)
    assert (np.abs(outputs - targets) > 1).any()
    assert (np.abs(outputs - targets) < 1).any()
    tensor = torch.tensor(outputs, requires_grad=True)
    expected = torch.nn.HuberLoss(reduction="none")(tensor, torch.tensor(targets)).mean(dim=1)
    expected.sum().backward()
    ours = losses.resolve("huber", targets).per_example(outputs, targets)
    assert ours.shape == (200,)
    np.testing.assert_allclose(ours, expected.detach().numpy(), rtol=1e-5, atol=1e-7)  # float32
    gradient = jax.grad(lambda outputs: losses.huber(outputs, targets).sum())(outputs)
    np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-5, atol=1e-7)


def logits_and_targets(name):
    logits = 3 * RANDOM.normal(size=(40, 5)).astype(np.float32)
    if name == "softmax":
        return losses.resolve(None, np.zeros(1, int)), logits, RANDOM.integers(0, 5, 40).astype(np.int32)
    loss = losses.resolve("sigmoid_cross_entropy", np.zeros(1))
    if name == "binary":
        return loss, logits[:, 0], RANDOM.integers(0, 2, 40).astype(np.int32)
    return loss, logits, RANDOM.integers(0, 2, (40, 5)).astype(np.int32)


def torch_smoothed(name, logits, targets, strength):
    torch = pytest.importorskip("torch")
    tensor = torch.tensor(logits, requires_grad=True)
    if name == "softmax":
        criterion = torch.nn.CrossEntropyLoss(reduction="none", label_smoothing=strength)
        values = criterion(tensor, torch.tensor(targets).long())
    else:
        soft = torch.tensor(np.where(targets, 1 - strength / 2, strength / 2).astype(np.float32))
        values = torch.nn.BCEWithLogitsLoss(reduction="none")(tensor, soft)
        values = values if values.ndim == 1 else values.mean(dim=1)
    values.sum().backward()
    return values.detach().numpy(), tensor.grad.numpy()


smoothing = pytest.mark.parametrize("name", ["softmax", "binary", "multi-label"])


@smoothing
def test_smoothed_equals_torch_at_every_strength_of_a_traced_batch(name):
    loss, logits, targets = logits_and_targets(name)
    strengths = np.array([0, 0.1, 0.5, 0.95], np.float32)

    def both(strength):
        values, pull = jax.vjp(lambda logits: loss.smoothed(logits, targets, strength), logits)
        return values, pull(jnp.ones(len(targets)))[0]

    for strength, *ours in zip(strengths, *jax.jit(jax.vmap(both))(strengths), strict=True):
        expected = torch_smoothed(name, logits, targets, float(strength))
        for one, other in zip(ours, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=2e-6)  # float32, sums of numbers near 10


@pytest.mark.slow
@smoothing
def test_smoothed_is_the_plain_loss_at_strength_0_bit_for_bit(name):
    loss, logits, targets = logits_and_targets(name)
    plain = lambda logits: loss.per_example(logits, targets)  # noqa: E731
    smoothed = lambda logits, strength: loss.smoothed(logits, targets, strength)  # noqa: E731
    np.testing.assert_array_equal(smoothed(logits, 0.0), plain(logits))
    np.testing.assert_array_equal(jax.jit(smoothed)(logits, 0.0), jax.jit(plain)(logits))
    together = jax.jit(jax.vmap(smoothed, in_axes=(None, 0)))(logits, np.array([0, 0.5], np.float32))
    np.testing.assert_array_equal(together[0], jax.jit(plain)(logits))
    assert (together[1] != together[0]).any()


@pytest.mark.slow
@smoothing
def test_smoothed_has_finite_gradients_far_out(name):
    loss, logits, targets = logits_and_targets(name)
    for strength in (0.0, 0.3):
        total = lambda logits, strength: loss.smoothed(logits, targets, strength).sum()  # noqa: E731
        for gradient in jax.grad(total, argnums=(0, 1))(1e4 * logits, strength):
            assert np.isfinite(gradient).all()


def test_smoothed_is_for_losses_with_labels():
    smooths = {name: losses.resolve(name, np.zeros(1)).smooths for name in losses._BY_NAME}
    assert smooths == {
        "softmax_cross_entropy": True,
        "sigmoid_cross_entropy": True,
        "squared_error": False,
        "huber": False,
    }
    with pytest.raises(ValueError, match="loss is 'huber', which has no labels to smooth; give softmax"):
        losses.resolve("huber", np.zeros(1)).smoothed(np.zeros(1), np.zeros(1), 0.1)


@pytest.mark.parametrize("name", losses._BY_NAME)
def test_resolve_does_not_take_a_function_of_the_user_for_its_namesake(name):
    def own(outputs, targets):
        return jnp.abs(outputs[:, 0])

    own.__name__ = name
    loss = losses.resolve(own, np.zeros(3))
    assert loss.name == name
    assert not loss.smooths
    assert np.isnan(loss.accuracy(np.zeros((3, 1)), np.zeros(3, int))).all()
    losses.check_targets(loss, np.full(3, -7.5), argument="data.train targets")
    assert loss.align(np.zeros((3, 1)), np.zeros(3)).shape == (3, 1)
    assert losses.resolve(getattr(losses, name), np.zeros(3)) == losses.resolve(name, np.zeros(3))


@pytest.mark.parametrize(
    ("loss", "error", "words"),
    [
        ("hinge", ValueError, "loss is 'hinge'; give one of softmax_cross_entropy, .*, huber, or loss_fn"),
        (3, TypeError, "loss is 3; give one of softmax_cross_entropy, "),
    ],
)
def test_resolve_refuses_what_is_no_loss(loss, error, words, without_beartype):
    with pytest.raises(error, match=words):
        losses.resolve(loss, np.zeros(3))


def absolute_error(outputs, targets):
    return jnp.abs(outputs - targets)


def test_metrics_come_in_the_order_given():
    assert losses.resolve_metrics(None) == ()
    given = {"mae": absolute_error, "a": np.abs}
    expected = losses.UserMetric("mae", absolute_error, True), losses.UserMetric("a", np.abs, False)
    assert losses.resolve_metrics(given, {"a": False}) == expected


@pytest.mark.parametrize(
    ("stated", "error", "words"),
    [
        (None, ValueError, "metric 'a' has a name from which it does not follow .*give lower_is_better={'a': True}"),
        ({"b": True}, ValueError, "lower_is_better contains 'b', which is not the name of a metric in metrics"),
        ({"a": "yes"}, TypeError, "lower_is_better is {'a': 'yes'}; give True or False"),
        (["a"], TypeError, r"lower_is_better is \['a'\]; give True or False"),
    ],
)
def test_metrics_need_a_direction(stated, error, words, without_beartype):
    with pytest.raises(error, match=words) as caught:
        losses.resolve_metrics({"a": absolute_error}, stated)
    assert caught.value.argument == "lower_is_better"
    with pytest.raises(error, match=words):
        wd.fit_grid(wd.models.MLP((3,)), wd.data.wine(), wd.Grid(learning_rate=[0.1]), num_steps=1, batch_size=8,
                    metrics={"a": absolute_error}, lower_is_better=stated)  # fmt: skip


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ([absolute_error], TypeError, "metrics is .*; give functions by name"),
        ({3: absolute_error}, TypeError, "metrics has the name 3, of type int; give a string"),
        *(
            ({name: absolute_error}, ValueError, rf"metrics has the name {name!r}; give letters, digits")
            for name in ("absolute error", "", "2nd")
        ),
        *(
            ({name: absolute_error}, ValueError, f"metrics has the name {name!r}, which is reserved")
            for name in ("loss", "accuracy", "penalty")
        ),
        ({"a": 1.0}, TypeError, r"metrics\['a'\] is 1.0; give a function"),
    ],
)
def test_metrics_refuses_names_and_what_is_no_function(given, error, words, without_beartype):
    with pytest.raises(error, match=words):
        losses.resolve_metrics(given)


@pytest.mark.parametrize("name", metric_table.recorded())
def test_metrics_refuses_the_names_of_recorded_metrics(name):
    examples = Batch(np.zeros((4, 2), np.float32), np.zeros(4, np.int32))
    with pytest.raises(ValueError, match=f"metrics has the name {name!r}"):
        task.prepare(
            wd.models.MLP((3,)), {"train": examples}, loss=None, optimizer=wd.adam, mask=wd.masks.kernels,
            batch_size=None, metrics={name: absolute_error},
        )  # fmt: skip


def test_check_metric_shape_takes_one_number_an_example():
    arrays = np.zeros(4, np.float32), np.zeros(4, np.int32)
    shapes = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in arrays]
    for given in (arrays, shapes):
        losses.check_metric_shape(losses.UserMetric("a", absolute_error, True), *given)
        losses.check_metric_shape(losses.UserMetric("a", lambda outputs, targets: outputs > targets, True), *given)


@pytest.mark.parametrize(
    ("metric", "error", "words"),
    [
        (lambda outputs, targets: (outputs - targets).mean(), ValueError, r"shape \(\) for 4 examples.*not their mean"),
        (lambda outputs, targets: outputs[:, None] - targets, ValueError, r"shape \(4, 4\) .* shape \(4,\)"),
        (lambda outputs, targets: {"a": outputs}, TypeError, "returns a dict; return one array"),
        (lambda outputs, targets: np.asarray(outputs), TypeError, "write it in jax.numpy"),
        (lambda outputs, targets: outputs if outputs[0] > 0 else targets, TypeError, "write it in jax.numpy"),
        (lambda outputs, targets: metrics.accuracy_score(targets, outputs), TypeError, "write it in jax.numpy"),
    ],
)
def test_check_metric_shape_refuses_all_else(metric, error, words):
    with pytest.raises(error, match=rf"metrics\['my_metric'\] .*{words}"):
        losses.check_metric_shape(losses.UserMetric("my_metric", metric, True), jnp.zeros(4), jnp.zeros(4))


def test_check_metric_shape_takes_one_number_for_each_position():
    for metric in (lambda o, t: o.sum(axis=-1) - t, lambda o, t: o - t[..., None], lambda o, t: t.mean(axis=1)):
        losses.check_metric_shape(losses.UserMetric("a", metric, True), jnp.zeros((4, 5, 3)), jnp.zeros((4, 5)))
