"""Augmentation: laws of every kind, closed forms, distributions by SciPy's tests at fixed seeds, torch's resampling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from weightdecay.data import augment

RANDOM = np.random.default_rng(0)
KEY = jax.random.key(1)
IMAGES = RANDOM.normal(size=(6, 9, 8, 2)).astype(np.float32)
INPUTS = {"vectors": IMAGES[:, :, 0, 0], "gray": IMAGES[..., 0], "color": IMAGES}
STRENGTHS = {"input_noise": 0.5, "shift": 2.0, "flip": 0.5, "crop": 0.4, "cutout": 0.5}
STREAMS = {"input_noise": 0, "shift": 1, "flip": 2, "crop": 3, "cutout": 4}
cases = pytest.mark.parametrize(
    ("name", "inputs"),
    [
        (name, inputs)
        for name, kind in augment.KINDS.items()
        for inputs in INPUTS
        if inputs != "vectors" or not kind.of_images
    ],
)


APPLY = jax.jit(augment.augmented)
MIXUP = jax.jit(augment.mixup)
SHARES = jax.jit(jax.vmap(lambda key, strength: augment.mixup(key, IMAGES, strength)[2], in_axes=(0, None)))
JITTED = {name: jax.jit(kind.augment) for name, kind in augment.KINDS.items()}


def augmented(name, inputs, strength, key=KEY):
    return np.asarray(APPLY(key, inputs, {name: strength}))


def test_kinds_are_applied_in_this_order():
    assert tuple(augment.KINDS) == ("input_noise", "shift", "flip", "crop", "cutout")


@pytest.mark.slow
@cases
def test_kinds_give_the_inputs_at_strength_0_and_others_above(name, inputs):
    before = INPUTS[inputs]
    np.testing.assert_array_equal(augmented(name, before, 0.0), before)  # bit for bit
    after = augmented(name, before, STRENGTHS[name])
    assert after.shape == before.shape
    assert after.dtype == before.dtype
    assert (after != before).any()


@pytest.mark.slow
@pytest.mark.parametrize("name", augment.KINDS)
def test_kinds_take_traced_strengths_one_a_member(name):
    strengths = jnp.array([0.0, 0.3, 0.9]) * STRENGTHS[name]
    together = jax.jit(jax.vmap(lambda s: augment.augmented(KEY, IMAGES, {name: s})))(strengths)
    for strength, one in zip(strengths, together, strict=True):
        # the same draws; places in float32 are off by some 1e-6
        np.testing.assert_allclose(one, augmented(name, IMAGES, strength), atol=1e-5)


@pytest.mark.slow
@cases
def test_kinds_draw_from_the_key_alone(name, inputs):
    one, again, other = (augmented(name, INPUTS[inputs], STRENGTHS[name], jax.random.key(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


@pytest.mark.slow
@pytest.mark.parametrize("name", augment.KINDS)
def test_kinds_have_finite_gradients(name):
    def total(inputs, strength):
        return (augment.augmented(KEY, inputs, {name: strength}) ** 2).sum()

    gradients = jax.jit(jax.grad(total, argnums=(0, 1)))
    for strength in (0.0, STRENGTHS[name]):
        for gradient in gradients(IMAGES, strength):
            assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", augment.KINDS)
def test_kinds_keep_low_precision(name):
    images = jnp.asarray(IMAGES, jnp.bfloat16)
    assert augmented(name, images, STRENGTHS[name]).dtype == jnp.bfloat16
    np.testing.assert_array_equal(augmented(name, images, 0.0), images)


@pytest.mark.slow
@pytest.mark.parametrize("name", augment.KINDS)
def test_augmented_gives_each_kind_a_stream_that_others_do_not_change(name):
    direct = JITTED[name](jax.random.fold_in(KEY, STREAMS[name]), IMAGES, STRENGTHS[name])
    alone = augmented(name, IMAGES, STRENGTHS[name])
    np.testing.assert_array_equal(alone, direct)
    others = dict.fromkeys(set(augment.KINDS) - {name}, 0.0)
    beside = APPLY(KEY, IMAGES, {name: STRENGTHS[name], **others})
    np.testing.assert_allclose(beside, alone, atol=1e-5)  # the same draws; places in float32


def test_augmented_applies_kinds_one_after_the_other_whatever_the_order_given():
    strengths = {"cutout": 0.5, "shift": 2.0}
    after = APPLY(KEY, IMAGES, strengths)
    np.testing.assert_array_equal(after, augmented("cutout", augmented("shift", IMAGES, 2.0), 0.5))


def test_input_noise_is_normal_with_the_strength_as_its_deviation():
    noise = JITTED["input_noise"](KEY, np.full((400, 20), 7, np.float32), 0.3) - 7
    assert stats.kstest(np.ravel(noise), stats.norm(0, 0.3).cdf).pvalue > 0.01  # fixed key: no chance in it


def test_shift_moves_a_point_to_each_place_equally_often_and_nowhere_else():
    points = np.zeros((2000, 9, 11), np.float32)
    points[:, 4, 5] = 1
    after = np.asarray(JITTED["shift"](KEY, points, 2.9))  # acts as 2
    assert (after.sum(axis=(1, 2)) == 1).all()
    counts = after.sum(axis=0)
    assert counts.sum() == counts[2:7, 3:8].sum()
    assert stats.chisquare(counts[2:7, 3:8].ravel()).pvalue > 0.01  # 25 places; fixed key: no chance in it


def test_shift_lets_zeros_in_and_keeps_the_rest():
    images = RANDOM.uniform(1, 2, size=(50, 6, 7, 3)).astype(np.float32)
    padded = np.pad(images, ((0, 0), (3, 3), (3, 3), (0, 0)))
    moved = JITTED["shift"]
    seen = set()
    for before, after in zip(padded, np.asarray(moved(KEY, images, 3.0)), strict=True):
        found = [
            (down, right)
            for down in range(-3, 4)
            for right in range(-3, 4)
            if (before[3 - down : 9 - down, 3 - right : 10 - right] == after).all()
        ]
        assert len(found) == 1
        seen |= set(found)
    assert len(seen) > 25  # of 49 places in 50 draws, each image its own
    assert not moved(KEY, images, 1e6).any()


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_flip_mirrors_left_to_right_as_often_as_its_strength(strength):
    images = np.tile(IMAGES[:1], (2000, 1, 1, 1))
    after = np.asarray(JITTED["flip"](KEY, images, strength))
    mirrored = (after == np.flip(IMAGES[0], axis=1)).all(axis=(1, 2, 3))
    kept = (after == IMAGES[0]).all(axis=(1, 2, 3))
    assert (mirrored ^ kept).all()
    # fixed key: no chance in it; of strength 1, one image that is kept has the p-value 0
    assert stats.binomtest(int(mirrored.sum()), 2000, strength).pvalue > 0.01


def ramps(num_examples, height, width):
    """Images whose two channels are the row and the column of a pixel."""
    return np.tile(np.stack(np.mgrid[:height, :width], axis=-1).astype(np.float32), (num_examples, 1, 1, 1))


def test_crop_of_a_ramp_is_a_ramp_of_the_predicted_slope_inside_the_image():
    strength, height, width = 0.4, 10, 15
    after = np.asarray(JITTED["crop"](KEY, ramps(1500, height, width), strength))
    rows, columns = after[:, :, 7, 0], after[:, 5, :, 1]
    for places, size in ((rows, height), (columns, width)):
        assert places.min() >= 0
        assert places.max() <= size - 1
        inner = places[:, 3:-3]  # not at the image's edges, where values go on
        np.testing.assert_allclose(np.diff(inner), 1 - strength, rtol=1e-4)  # differences of float32 near 10
        starts = inner[:, 0] + 0.5 - 3.5 * (1 - strength)
        assert stats.kstest(starts, stats.uniform(0, strength * size).cdf).pvalue > 0.01  # fixed key: no chance in it
    across = after[:, :, :, 0]
    np.testing.assert_allclose(across, np.broadcast_to(across[:, :, :1], across.shape), rtol=1e-6)  # rows stay rows
    assert abs(np.corrcoef(rows[:, 4], columns[:, 7])[0, 1]) < 0.1  # the two draws are apart: 1/sqrt(1500) is 0.03


@pytest.mark.slow
def test_crop_resizes_as_torch_does():
    torch = pytest.importorskip("torch")
    images = RANDOM.normal(size=(20, 10, 15, 3)).astype(np.float32)
    strength = 0.35
    after = JITTED["crop"](KEY, images, strength)
    places = np.asarray(JITTED["crop"](KEY, ramps(20, 10, 15), strength))  # the same draws
    start = [places[:, 5, 7, axis] + 0.5 - (at + 0.5) * (1 - strength) for axis, at in ((0, 5), (1, 7))]
    # from the piece's start to torch's -1 to 1, in which the middle of the piece is the translation
    middle = [2 * (s + size * (1 - strength) / 2) / size - 1 for s, size in zip(start, (10, 15), strict=True)]
    scale = np.full(20, 1 - strength)
    zero = np.zeros(20)
    theta = np.stack([np.stack([scale, zero, middle[1]], 1), np.stack([zero, scale, middle[0]], 1)], axis=1)
    tensors = torch.tensor(images).permute(0, 3, 1, 2)
    where = torch.nn.functional.affine_grid(torch.tensor(theta.astype(np.float32)), tensors.shape, align_corners=False)
    expected = torch.nn.functional.grid_sample(tensors, where, padding_mode="border", align_corners=False)
    # places in float32 are off by some 1e-6, times the steepness of the noise
    np.testing.assert_allclose(after, expected.permute(0, 2, 3, 1).numpy(), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(("strength", "side"), [(0.25, 5), (0.5, 10), (1.0, 20)])
def test_cutout_sets_a_square_inside_the_image_to_0(strength, side):
    after = np.asarray(JITTED["cutout"](KEY, np.ones((2000, 20, 26, 1), np.float32), strength))[..., 0] == 0
    assert (after.sum(axis=(1, 2)) == side**2).all()
    tops, lefts = after.any(axis=2).argmax(axis=1), after.any(axis=1).argmax(axis=1)
    for hole, top, left in zip(after[:100], tops, lefts, strict=False):
        assert hole[top : top + side, left : left + side].all()
    for starts, size in ((tops, 20), (lefts, 26)):
        counts = np.bincount(starts, minlength=size - side + 1)
        assert len(counts) == size - side + 1
        if len(counts) > 1:
            assert stats.chisquare(counts).pvalue > 0.01  # each place equally often; fixed key: no chance in it


@pytest.mark.slow
@pytest.mark.parametrize("strength", [0.2, 1.0, 4.0])
def test_mixup_draws_shares_from_the_beta_distribution(strength):
    shares = np.asarray(SHARES(jax.random.split(KEY, 3000), strength))
    beta = stats.beta(strength, strength)
    # four standard errors of the mean and of the variance of 3,000 draws
    np.testing.assert_allclose(shares.mean(), beta.mean(), atol=4 * beta.std() / 3000**0.5)
    fourth = beta.var() ** 2 * (beta.stats(moments="k") + 2)
    np.testing.assert_allclose(shares.var(), beta.var(), atol=4 * (fourth / 3000) ** 0.5)
    assert stats.kstest(shares, beta.cdf).pvalue > 0.01  # fixed key: no chance in it


def test_mixup_mixes_each_example_with_its_other_by_one_share():
    mixed, other, share = MIXUP(KEY, IMAGES, 1.0)
    assert mixed.dtype == IMAGES.dtype
    assert other.dtype == jnp.int32
    np.testing.assert_array_equal(np.sort(other), np.arange(len(IMAGES)))
    assert (np.asarray(other) != np.arange(len(IMAGES))).any()
    assert 0 < share < 1
    expected = float(share) * IMAGES.astype(float) + (1 - float(share)) * IMAGES.astype(float)[other]
    np.testing.assert_allclose(mixed, expected, rtol=1e-5, atol=1e-6)  # float32


@pytest.mark.slow
def test_mixup_gives_the_inputs_at_strength_0_in_a_batch_of_strengths():
    strengths = jnp.array([0.0, 0.7, 1e-30])
    mixed, other, shares = jax.jit(jax.vmap(lambda s: augment.mixup(KEY, IMAGES, s)))(strengths)
    np.testing.assert_array_equal(mixed[0], IMAGES)  # bit for bit
    assert shares[0] == 1
    assert 0 < shares[1] < 1
    assert shares[2] in (0, 1)  # the limit of the distribution
    for strength, one, share in zip(strengths, mixed, shares, strict=True):
        alone, same, alone_share = MIXUP(KEY, IMAGES, strength)
        np.testing.assert_allclose(share, alone_share, rtol=1e-5)  # a loop of rejections in float32
        np.testing.assert_allclose(one, alone, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(other[0], same)


@pytest.mark.slow
def test_mixup_has_finite_gradients():
    total = lambda inputs, strength: (augment.mixup(KEY, inputs, strength)[0] ** 2).sum()  # noqa: E731
    gradients = jax.jit(jax.grad(total, argnums=(0, 1)))
    for strength in (0.0, 0.5):
        by_inputs, by_strength = gradients(IMAGES, strength)
        assert np.isfinite(by_inputs).all()
        assert np.isfinite(by_strength)
        assert (by_strength != 0) == (strength != 0)


@pytest.mark.parametrize("name", [*augment.KINDS, "mixup"])
def test_check_takes_what_the_kind_takes(name):
    augment.check(name, (5, 8, 8, 1), np.dtype(np.float32))
    augment.check(name, (5, 8, 8), jnp.bfloat16)
    if name in ("input_noise", "mixup"):
        augment.check(name, (5, 64), np.dtype(np.float32))


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "error", "words"),
    [
        *(
            (name, (5, 64), np.float32, ValueError, rf"'{name}', which needs images.*\(5, 64\); give .*reshape")
            for name in ("shift", "flip", "crop", "cutout")
        ),
        ("crop", (5, 2, 8, 8, 1), np.float32, ValueError, "needs images"),
        *((name, (5, 8, 8), np.int32, TypeError, f"'{name}'.* dtype int32; convert") for name in ("shift", "mixup")),
        ("input_noise", (5, 8), np.uint8, TypeError, "dtype uint8; convert"),
        ("rotate", (5, 8, 8), np.float32, ValueError, "name is 'rotate'; give one of 'input_noise', .*, 'mixup'"),
    ],
)
def test_check_refuses_what_does_not_fit(name, shape, dtype, error, words):
    with pytest.raises(error, match=words):
        augment.check(name, shape, np.dtype(dtype))
