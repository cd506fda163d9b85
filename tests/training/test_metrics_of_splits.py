"""Metrics of a whole split, against scikit-learn on the same float32 outputs."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn import metrics as sklearn_metrics
from sklearn.calibration import calibration_curve

import weightdecay as wd

NUM = 150
# A sum of 150 float32 numbers, and their quotients.
TOLERANCE = {"rtol": 2e-6, "atol": 1e-7}
OF_LABELS = (
    wd.metrics.roc_auc,
    wd.metrics.average_precision,
    wd.metrics.f1,
    wd.metrics.expected_calibration_error,
)


def drawn(kind, seed, ties):
    """Outputs and targets of one kind, float32; with ties, the outputs are rounded to a few values."""
    rng = np.random.default_rng(seed)
    if kind == "one logit":
        targets = rng.integers(0, 2, NUM)
        outputs = rng.normal(size=NUM) + targets
    elif kind == "labels":
        targets = rng.integers(0, 2, (NUM, 3))
        outputs = rng.normal(size=(NUM, 3)) + targets
    else:
        classes = {"two logits": 2, "four classes": 4}[kind]
        targets = rng.integers(0, classes, NUM)
        outputs = rng.normal(size=(NUM, classes)) + 1.5 * np.eye(classes)[targets]
    if ties:
        outputs = outputs.round()
    return outputs.astype(np.float32), targets.astype(np.int32)


def probabilities(kind, outputs):
    outputs = outputs.astype(np.float64)
    if kind == "two logits":
        return outputs[:, 1] - outputs[:, 0]
    return softmax(outputs, axis=1).round(12) if kind == "four classes" else outputs


def weights_of(kind, seed):
    rng = np.random.default_rng(seed + 100)
    return {None: None, "drawn": rng.uniform(0.1, 3, NUM), "some 0": rng.integers(0, 3, NUM) * 1.0}[kind]


@functools.cache
def compiled(*metrics):
    """All metrics in one program, as they are computed within a training program."""
    return jax.jit(lambda *given: [metric(*given) for metric in metrics])


@pytest.mark.parametrize("kind", ["one logit", "two logits", "four classes", "labels"])
def test_ranks_and_f1_agree_with_scikit_learn(kind):
    averaged = {"multi_class": "ovr"} if kind == "four classes" else {}
    average = "macro" if kind in ("four classes", "labels") else "binary"
    for seed, (ties, weighted) in enumerate(
        (ties, kind) for ties in (False, True) for kind in (None, "drawn", "some 0")
    ):
        outputs, targets = drawn(kind, seed, ties)
        weights, scores = weights_of(weighted, seed), probabilities(kind, outputs)
        predicted = outputs.argmax(axis=1) if outputs.ndim > targets.ndim else outputs > 0
        expected = [
            sklearn_metrics.roc_auc_score(targets, scores, sample_weight=weights, **averaged),
            sklearn_metrics.average_precision_score(targets, scores, sample_weight=weights),
            sklearn_metrics.f1_score(targets, predicted, sample_weight=weights, average=average),
        ]
        ours = compiled(wd.metrics.roc_auc, wd.metrics.average_precision, wd.metrics.f1)(
            outputs, targets, np.ones(NUM) if weights is None else weights
        )
        np.testing.assert_allclose(ours, expected, **TOLERANCE, err_msg=f"ties {ties}, weights {weighted}")


def computed(metric, *given):
    return compiled(metric)(*given)[0]


def test_without_weights_all_examples_count_alike():
    outputs, targets = drawn("one logit", 2, ties=True)
    for metric in OF_LABELS:
        weighted = computed(metric, outputs, targets, np.ones(NUM))
        np.testing.assert_allclose(computed(metric, outputs, targets), weighted, rtol=1e-6)


@pytest.mark.parametrize("kind", ["two logits", "four classes", "labels"])
@pytest.mark.parametrize("num_bins", [15, 4])
def test_calibration_error_agrees_with_calibration_curves_of_scikit_learn(kind, num_bins):
    outputs, targets = drawn(kind, 5, ties=False)
    if outputs.ndim > targets.ndim:
        confidence = softmax(outputs, axis=1).max(axis=1)[:, None]
        correct = (outputs.argmax(axis=1) == targets)[:, None]
    else:
        confidence = expit(abs(outputs))
        correct = (outputs > 0) == targets
    expected = []
    for one_correct, one_confidence in zip(correct.T, confidence.T, strict=True):
        accuracy, mean = calibration_curve(one_correct, one_confidence, n_bins=num_bins)
        number = np.histogram(one_confidence, np.linspace(0, 1, num_bins + 1))[0]
        expected.append((number[number > 0] * abs(accuracy - mean)).sum() / NUM)
    error = computed(functools.partial(wd.metrics.expected_calibration_error, num_bins=num_bins), outputs, targets)
    np.testing.assert_allclose(error, np.mean(expected), rtol=1e-5)


def test_calibration_error_with_weights_is_that_of_repeated_examples():
    outputs, targets = drawn("four classes", 6, ties=False)
    repeats = weights_of("some 0", 6).astype(int)
    error = computed(wd.metrics.expected_calibration_error, outputs, targets, repeats)
    repeated = computed(
        wd.metrics.expected_calibration_error, np.repeat(outputs, repeats, axis=0), np.repeat(targets, repeats)
    )
    np.testing.assert_allclose(error, repeated, rtol=1e-5)


@pytest.mark.parametrize("shape", [(NUM,), (NUM, 3)])
def test_r2_agrees_with_scikit_learn(shape):
    rng = np.random.default_rng(7)
    for offset in (0, 1000):
        for weighted in (None, "drawn", "some 0"):
            targets = (rng.normal(size=shape) + offset).astype(np.float32)
            outputs = (targets + 0.3 * rng.normal(size=shape)).astype(np.float32)
            weights = weights_of(weighted, 7)
            expected = sklearn_metrics.r2_score(targets.astype(float), outputs.astype(float), sample_weight=weights)
            ours = computed(wd.metrics.r2, outputs, targets, np.ones(NUM) if weights is None else weights)
            np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_r2_of_equal_targets_is_that_of_scikit_learn():
    targets = np.stack([np.full(5, 2.5), np.full(5, -1.0), np.arange(5.0)], axis=1).astype(np.float32)
    outputs = targets + np.array([0, 1, 0.5], np.float32)
    np.testing.assert_allclose(
        computed(wd.metrics.r2, outputs, targets), sklearn_metrics.r2_score(targets, outputs), rtol=1e-6
    )
    assert np.isnan(computed(wd.metrics.r2, outputs[:1], targets[:1]))


@pytest.mark.parametrize("metric", [wd.metrics.roc_auc, wd.metrics.average_precision])
def test_classes_without_both_kinds_of_examples_are_left_out(metric):
    outputs, targets = drawn("four classes", 8, ties=False)
    kept = targets < 3
    outputs, targets = outputs[kept], targets[kept]
    scores = softmax(outputs.astype(float), axis=1)
    reference = {
        wd.metrics.roc_auc: sklearn_metrics.roc_auc_score,
        wd.metrics.average_precision: sklearn_metrics.average_precision_score,
    }[metric]
    expected = np.mean([reference(targets == label, scores[:, label]) for label in range(3)])
    np.testing.assert_allclose(computed(metric, outputs, targets), expected, **TOLERANCE)
    assert np.isnan(computed(metric, outputs[:, 0], np.zeros(len(outputs), np.int32)))


def test_f1_averages_over_the_classes_that_occur():
    outputs = np.eye(5, dtype=np.float32)[[0, 1, 1, 3]]
    targets = np.array([0, 1, 0, 0], np.int32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = sklearn_metrics.f1_score(targets, outputs.argmax(axis=1), average="macro")
    np.testing.assert_allclose(computed(wd.metrics.f1, outputs, targets), expected, rtol=1e-6)
    assert wd.metrics.f1(np.full(4, -1.0, np.float32), np.zeros(4, np.int32)) == 0


def test_saturated_probabilities_are_still_ranked():
    """In float32 the softmax of these outputs is 1 or 0; the ranking is that of float64."""
    rng = np.random.default_rng(9)
    targets = rng.integers(0, 3, NUM)
    outputs = (20 * rng.uniform(1, 2, NUM)[:, None] * np.eye(3)[rng.integers(0, 3, NUM)]).astype(np.float32)
    wide = outputs.astype(np.longdouble)
    odds = np.stack([wide[:, k] - np.log(np.exp(np.delete(wide, k, axis=1)).sum(axis=1)) for k in range(3)], axis=1)
    expected = np.mean([sklearn_metrics.roc_auc_score(targets == k, odds[:, k].astype(float)) for k in range(3)])
    np.testing.assert_allclose(computed(wd.metrics.roc_auc, outputs, targets), expected, rtol=1e-5)


@pytest.mark.parametrize("metric", OF_LABELS)
def test_positions_are_examples_and_targets_below_0_do_not_count(metric):
    outputs, targets = drawn("four classes", 10, ties=True)
    ignored = np.arange(NUM) % 4 == 0
    dense, weights = (outputs.reshape(30, 5, 4), np.where(ignored, -1, targets).reshape(30, 5)), np.arange(30.0)
    expected = computed(metric, outputs[~ignored], targets[~ignored], np.repeat(weights, 5)[~ignored])
    np.testing.assert_allclose(computed(metric, *dense, weights), expected, rtol=1e-6)


@pytest.mark.parametrize("metric", [*OF_LABELS, wd.metrics.r2])
def test_nan_in_nan_out_but_for_what_does_not_count(metric):
    outputs, targets = drawn("one logit", 11, ties=False)
    outputs[7] = np.nan
    assert np.isnan(computed(metric, outputs, targets))
    counts = np.arange(NUM) != 7
    expected = computed(metric, outputs[counts], targets[counts])
    np.testing.assert_allclose(computed(metric, outputs, targets, counts * 1.0), expected, rtol=1e-6)


def test_shapes_that_do_not_fit_are_refused(without_beartype):
    with pytest.raises(ValueError, match=r"outputs have shape \(4, 3, 2\) and targets \(4,\); give logits"):
        wd.metrics.f1(np.zeros((4, 3, 2), np.float32), np.zeros(4, np.int32))
    with pytest.raises(TypeError, match="function is 'kappa'; give a function"):
        wd.metrics.whole_split("kappa")


# In runs: 151 and 359 examples are chunks of which the last one is filled up.
DATA = wd.data.digits(num_train=151)
MODEL = wd.models.MLP((8,))
SHORT = {"num_steps": 20, "batch_size": 32, "eval_every": 10, "progress": False, "optimizer": wd.sgd}


@wd.metrics.whole_split
def kappa(outputs, targets, weights):
    """Cohen's kappa, which scikit-learn has as well."""
    predicted = outputs.argmax(axis=-1)
    of_targets, of_predicted = (
        jnp.zeros(outputs.shape[-1]).at[labels].add(weights) / weights.sum() for labels in (targets, predicted)
    )
    agreement, by_chance = (weights * (predicted == targets)).sum() / weights.sum(), (of_targets * of_predicted).sum()
    return (agreement - by_chance) / (1 - by_chance)


OWN = {"roc_auc": wd.metrics.roc_auc, "average_precision": wd.metrics.average_precision, "f1": wd.metrics.f1}
OWN |= {"ece": wd.metrics.expected_calibration_error, "kappa": kappa}


def expected_metrics(outputs, targets, weights=None):
    return {
        "roc_auc": np.mean(
            [
                sklearn_metrics.roc_auc_score(targets == label, column, sample_weight=weights)
                for label, column in enumerate(softmax(outputs.astype(float), axis=1).T)
            ]
        ),
        "average_precision": sklearn_metrics.average_precision_score(
            targets, softmax(outputs.astype(float), axis=1), sample_weight=weights
        ),
        "f1": sklearn_metrics.f1_score(targets, outputs.argmax(axis=1), average="macro", sample_weight=weights),
        "kappa": sklearn_metrics.cohen_kappa_score(targets, outputs.argmax(axis=1), sample_weight=weights),
    }


@pytest.fixture(scope="module")
def result():
    grid = wd.Grid(decay=[wd.NoDecay(), wd.L2(0.1)], learning_rate=[0.03, 0.3], seed=range(2))
    return wd.fit_grid(MODEL, DATA, grid, metrics=OWN, **SHORT)


@pytest.mark.slow
def test_metrics_of_every_split_are_those_of_its_outputs(result):
    for split in ("train", "validation"):
        inputs, targets = getattr(DATA, split)
        for member in (0, 5):
            for name, value in expected_metrics(result.predict(inputs, member), targets).items():
                np.testing.assert_allclose(result.dataset[f"{split}_{name}"][member, -1], value, rtol=1e-5)
    scores = result.test(metric="validation_roc_auc")
    chosen = result.best(metric="validation_roc_auc")
    curve = result.dataset["validation_roc_auc"].values[:, -1].reshape(4, 2).mean(axis=1)
    assert chosen.number == curve.argmax()
    of_seeds = [expected_metrics(result.predict(DATA.test[0], m), DATA.test[1]) for m in chosen.members]
    for name in ("roc_auc", "average_precision", "f1", "kappa"):
        np.testing.assert_allclose(
            scores.loc["chosen", f"test_{name}"], np.mean([one[name] for one in of_seeds]), rtol=1e-5
        )
    assert result.best(metric="validation_ece").mean == pytest.approx(
        result.dataset["validation_ece"].values[:, -1].reshape(4, 2).mean(axis=1).min()
    )


@pytest.mark.slow
def test_streamed_training_examples_give_the_same_metrics(result):
    grid = wd.Grid(decay=[wd.NoDecay(), wd.L2(0.1)], learning_rate=[0.03, 0.3], seed=range(2))
    plan = wd.Plan(result.settings["plan"]["lane_width"], 1, streamed=True)
    unweighted = wd.metrics.whole_split(lambda outputs, targets: (outputs.argmax(axis=-1) == targets).mean())
    streamed = wd.fit_grid(MODEL, DATA, grid, metrics={**OWN, "hit_rate": unweighted}, **SHORT, plan=plan)
    for name in OWN:
        for split in ("train", "validation"):
            ours, theirs = (one.dataset[f"{split}_{name}"].values for one in (streamed, result))
            np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    np.testing.assert_allclose(streamed.dataset["train_hit_rate"], result.dataset["train_accuracy"], rtol=1e-6)


@pytest.mark.slow
def test_weights_and_folds_and_targets_that_do_not_count_are_left_out():
    rng = np.random.default_rng(12)
    (inputs, targets), weights = DATA.train, rng.integers(1, 4, 151).astype(float)
    targets = np.where(rng.random(151) < 0.2, -1, targets).astype(np.int32)
    data = wd.Data(train=(inputs, targets, weights), validation=None, fold=np.arange(151) % 3)
    grid = wd.Grid(learning_rate=[0.3], fold=range(3))
    with pytest.warns(UserWarning, match="targets below 0, which do not count"):
        result = wd.fit_grid(MODEL, data, grid, metrics=OWN, **SHORT)
    for fold in range(3):
        for split, which in {"validation": data.fold == fold, "train": data.fold != fold}.items():
            rows = which & (targets >= 0)
            outputs = result.predict(inputs[rows], fold)
            for name, value in expected_metrics(outputs, targets[rows], weights[rows]).items():
                np.testing.assert_allclose(result.dataset[f"{split}_{name}"][fold, -1], value, rtol=2e-5)
    unweighted = wd.metrics.whole_split(lambda outputs, targets: outputs.mean())
    with (
        pytest.warns(UserWarning, match="targets below 0"),
        pytest.raises(ValueError, match=r"metrics\['mean_score'\] takes no weights, and not all examples count alike"),
    ):
        wd.fit_grid(MODEL, data, grid, metrics={"mean_score": unweighted}, **SHORT)


@pytest.mark.slow
def test_a_metric_of_a_split_stops_members_early():
    settings = {**SHORT, "num_steps": 24, "eval_every": 2, "metrics": {"f1": wd.metrics.f1}}
    grid = wd.Grid(learning_rate=[1.0], seed=range(3))
    plain = wd.fit_grid(MODEL, DATA, grid, **settings)
    stopping = wd.fit_grid(MODEL, DATA, grid, patience=1, stopping_metric="validation_f1", **settings)
    for number, curve in enumerate(plain.dataset["validation_f1"].values):
        worse = np.flatnonzero(curve[1:] <= np.maximum.accumulate(curve)[:-1])
        expected = plain.dataset["step"].values[worse[0] + 1] if len(worse) else -1
        assert stopping.dataset["stopped_at"].values[number] == expected
    assert (stopping.dataset["stopped_at"] > 0).any()


def test_a_metric_of_a_split_that_returns_no_number_is_refused():
    settings = {**SHORT, "lower_is_better": {"errors": True}}
    for function, message in {
        wd.metrics.whole_split(lambda outputs, targets, weights: outputs[:, 0]): "return one number, shape",
        lambda outputs, targets: (outputs.argmax(-1) != targets).mean(): r"give wd.metrics.whole_split\(function\)",
    }.items():
        with pytest.raises(ValueError, match=message):
            wd.fit_grid(MODEL, DATA, wd.Grid(learning_rate=[0.1]), metrics={"errors": function}, **settings)
