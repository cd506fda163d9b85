"""Augmentation of training inputs: noise, shifts, flips, crops, cutout and mixup.

Pure functions of a key and a batch, with a strength that may be traced. Strength 0 returns the inputs unchanged, so
that members with and without an augmentation share a compiled program. The random numbers of each kind depend on the
key alone, and not on the other kinds that are applied. Images have the shape ``(examples, height, width)`` or
``(examples, height, width, channels)``. A new kind is a function and one entry of `KINDS`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from weightdecay.core import checks, tree
from weightdecay.core.checks import ArgumentError, ArgumentTypeError
from weightdecay.core.types import Key, Scalar

Inputs = Float[Array | np.ndarray, "examples ..."]
Images = Float[Array | np.ndarray, "examples height width ..."]


def input_noise(key: Key, inputs: Inputs, strength: Scalar) -> Inputs:
    """Add independent normal noise to each value: ``inputs + strength * noise``.

    Args:
      key: Random key.
      inputs: Any real inputs, shape ``(examples, ...)``.
      strength: Standard deviation of the noise, >= 0, in the unit of the inputs.

    Returns:
      The noisy inputs.

    References:
      Bishop, Training with Noise is Equivalent to Tikhonov Regularization, Neural Computation 7, 1995.
    """
    noise = jax.random.normal(key, inputs.shape, inputs.dtype)
    return inputs + jnp.asarray(strength, inputs.dtype) * noise


def shift(key: Key, inputs: Images, strength: Scalar) -> Images:
    """Shift each image vertically and horizontally by whole pixels; pixels that enter are 0.

    Both offsets are uniform over the integers from ``-strength`` to ``strength``, so that 2.5 has the effect of 2.

    Args:
      key: Random key.
      inputs: Images.
      strength: Largest offset, >= 0, in pixels.

    Returns:
      The shifted images.
    """
    largest = jnp.floor(jnp.asarray(strength, float))
    draws = jax.random.uniform(key, (2, len(inputs), 1))
    down, right = jnp.floor(draws * (2 * largest + 1)) - largest
    return _shifted(_shifted(inputs, down, axis=1), right, axis=2)


def flip(key: Key, inputs: Images, strength: Scalar) -> Images:
    """Mirror each image horizontally, with a probability.

    Args:
      key: Random key.
      inputs: Images.
      strength: Probability, from 0 to 1.

    Returns:
      Each image or its mirror image.
    """
    mirrored = jax.random.bernoulli(key, strength, (len(inputs), *[1] * (inputs.ndim - 1)))
    return jnp.where(mirrored, inputs[:, :, ::-1], inputs)


def crop(key: Key, inputs: Images, strength: Scalar) -> Images:
    """Crop each image at a random position and resize the crop to the size of the image.

    The crop has the sides ``(1 - strength) height`` and ``(1 - strength) width``; its position is uniform inside the
    image. Resizing is bilinear between the centers of pixels; beyond the outermost centers values are constant.

    Args:
      key: Random key.
      inputs: Images.
      strength: Fraction of each side that is removed, in [0, 1).

    Returns:
      The resized crops.
    """
    strength = jnp.asarray(strength, float)
    draws = jax.random.uniform(key, (2, len(inputs), 1))
    for axis, draw in zip((1, 2), draws, strict=True):
        size = inputs.shape[axis]
        centers = draw * strength * size + (jnp.arange(size) + 0.5) * (1 - strength)
        inputs = _interpolated(inputs, jnp.clip(centers - 0.5, 0, size - 1), axis)
    return inputs


def cutout(key: Key, inputs: Images, strength: Scalar) -> Images:
    """Set a square of each image to 0, at a random position inside it.

    Args:
      key: Random key.
      inputs: Images.
      strength: Side of the square, divided by the shorter side of the image, in [0, 1]; rounded to whole pixels.

    Returns:
      The images with the square set to 0.

    References:
      DeVries & Taylor, Improved Regularization of Convolutional Neural Networks with Cutout, 2017, where the square may
      be partly outside.
    """
    height, width = inputs.shape[1:3]
    side = jnp.round(jnp.asarray(strength, float) * min(height, width))
    draws = jax.random.uniform(key, (2, len(inputs), 1))
    rows, columns = (
        _aligned(_within(jnp.arange(size), jnp.floor(draw * (size - side + 1)), side), inputs, axis)
        for axis, size, draw in zip((1, 2), (height, width), draws, strict=True)
    )
    return jnp.where(rows & columns, 0, inputs)


class Kind(NamedTuple):
    """A kind of augmentation."""

    number: int  # of its random stream; it never changes
    augment: Callable[[Key, Any, Any], Any]
    of_images: bool


KINDS: Mapping[str, Kind] = {
    "input_noise": Kind(0, input_noise, of_images=False),
    "shift": Kind(1, shift, of_images=True),
    "flip": Kind(2, flip, of_images=True),
    "crop": Kind(3, crop, of_images=True),
    "cutout": Kind(4, cutout, of_images=True),
}
"""Kinds by name, in the order in which they are applied."""


def augmented(key: Key, inputs: Inputs, strengths: Mapping[str, Any]) -> Inputs:
    """Apply kinds of augmentation in the order of `KINDS`, each with its own random stream.

    Args:
      key: Random key.
      inputs: Shape ``(examples, ...)``.
      strengths: By the names of `KINDS`, each shape ``()``; may be traced.

    Returns:
      The augmented inputs, with the same shape and dtype.
    """
    for name, kind in KINDS.items():
        if name in strengths:
            inputs = kind.augment(jax.random.fold_in(key, kind.number), inputs, strengths[name])
    return inputs


def mixup(key: Key, inputs: Inputs, strength: Scalar) -> tuple[Inputs, Int[Array, " examples"], Float[Array, ""]]:
    """Mix each example with another one: ``fraction * inputs + (1 - fraction) * inputs[partners]``.

    ``fraction`` is drawn from Beta(strength, strength), once for the batch. The caller mixes the losses of both targets
    with the same fraction. At strength 0 it is 1.

    Args:
      key: Random key.
      inputs: Shape ``(examples, ...)``.
      strength: >= 0, shape ``()``; 1 = every fraction is equally likely.

    Returns:
      The mixed inputs; ``partners``, a permutation of the examples; and ``fraction``.

    References:
      Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018.
    """
    fraction_key, partners_key = jax.random.split(key)
    strength = jnp.asarray(strength, float)
    positive = jnp.where(strength > 0, strength, 1)
    fraction = jnp.where(strength > 0, jax.random.beta(fraction_key, positive, positive), 1)
    partners = jax.random.permutation(partners_key, jnp.arange(len(inputs), dtype=jnp.int32))
    factor = fraction.astype(inputs.dtype)
    return factor * inputs + (1 - factor) * jnp.asarray(inputs)[partners], partners, fraction


def leaf(name: str, inputs: Any, augmented: str | None) -> int:
    """Find the array that a kind of augmentation acts on, where inputs are a tree of arrays.

    Args:
      name: A name of `KINDS`, or ``"mixup"``.
      inputs: A tree of arrays, of shapes or of tracers.
      augmented: Name of the array, as the data name it; None = the only one that fits the kind.

    Returns:
      Its position among the leaves of ``inputs``.

    Raises:
      ArgumentError: There is no array of that name, or not exactly one that fits.
      ArgumentTypeError: The named array does not fit.
    """
    leaves = tree.named_leaves(inputs)
    names = [one for one, _ in leaves]
    listed = ", ".join(f"{one} of dtype {array.dtype} and shape {array.shape}" for one, array in leaves)
    if augmented is not None:
        if augmented not in names:
            raise ArgumentError(
                "data", f"data.augmented is {augmented!r}, but the inputs are {', '.join(names)}; give one of these."
            )
        array = leaves[names.index(augmented)][1]
        check(name, array.shape, array.dtype)
        return names.index(augmented)
    of_images = name in KINDS and KINDS[name].of_images
    fitting = [
        index
        for index, (_, array) in enumerate(leaves)
        if jnp.issubdtype(array.dtype, jnp.floating) and (not of_images or array.ndim in (3, 4))
    ]
    if len(fitting) != 1:
        what = "images (real numbers of shape (examples, height, width) or with channels)" if of_images else "floats"
        raise ArgumentError(
            "grid",
            f"grid has an axis {name!r}, which acts on one array of {what}, and {len(fitting)} of the inputs fit: "
            f"{listed}. Name the array, as in wd.Data(train=..., validation=..., augmented={names[0]!r}).",
        )
    return fitting[0]


def check(name: str, shape: tuple[int, ...], dtype: Any) -> None:
    """Check that an axis of a grid fits the inputs.

    Args:
      name: A name of `KINDS`, or ``"mixup"``.
      shape: Shape of the inputs, ``(examples, ...)``.
      dtype: Dtype of the inputs.

    Raises:
      TypeError: Inputs that are not real numbers.
      ValueError: Inputs that are not images, for a kind that needs images; an unknown name.
    """
    checks.one_of(name, "name", (*KINDS, "mixup"))
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ArgumentTypeError(
            "grid",
            f"grid has an axis {name!r}, which needs real inputs, but data has inputs of dtype {jnp.dtype(dtype)}; "
            "convert them to floats if they are measurements, or remove the axis if they are tokens.",
        )
    if name in KINDS and KINDS[name].of_images and len(shape) not in (3, 4):
        raise ArgumentError(
            "grid",
            f"grid has an axis {name!r}, which needs images, but data has inputs of shape {shape}; give the shape "
            "(examples, height, width) or (examples, height, width, channels), such as inputs.reshape(-1, 8, 8) for "
            "rows of 64 pixels.",
        )


def _within(positions: Any, start: Any, length: Any) -> Any:
    return (positions >= start) & (positions < start + length)


def _shifted(images: Images, offsets: Float[Array, "examples 1"], axis: int) -> Images:
    """Shift images along an axis by whole pixels; pixels that enter are 0."""
    size = images.shape[axis]
    positions = jnp.arange(size) - offsets
    values = _lines(images, jnp.clip(positions, 0, size - 1), axis)
    return jnp.where(_aligned(_within(positions, 0, size), images, axis), values, 0)


def _interpolated(images: Images, positions: Float[Array, "examples positions"], axis: int) -> Images:
    """Interpolate rows (axis 1) or columns (axis 2) linearly at positions of each image, from 0 to the last."""
    before = jnp.floor(positions)
    fraction = _aligned(positions - before, images, axis).astype(images.dtype)
    after = jnp.minimum(before + 1, images.shape[axis] - 1)
    return (1 - fraction) * _lines(images, before, axis) + fraction * _lines(images, after, axis)


def _lines(images: Images, positions: Float[Array, "examples positions"], axis: int) -> Images:
    """Rows (axis 1) or columns (axis 2) at integer positions of each image, from 0 to the last."""
    lines = jnp.moveaxis(jnp.asarray(images), axis, 1)
    examples = jnp.arange(len(images))[:, None]
    return jnp.moveaxis(lines[examples, positions.astype(jnp.int32)], 1, axis)


def _aligned(values: Array, images: Images, axis: int) -> Array:
    """Values along an axis of each image, in a shape that broadcasts against the images."""
    return jnp.expand_dims(values, [other for other in range(1, images.ndim) if other != axis])
