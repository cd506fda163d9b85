"""Augmentation of training inputs: noise, shifts, flips, crops, cutout, mixup, each with a strength that may be traced.

Pure functions of a key and a batch. Strength 0 gives the inputs as they are, so that members without an augmentation
share a compiled program with those that have it. What a kind draws depends on the key alone, whatever else is applied.
Images are ``(examples, height, width)`` or ``(examples, height, width, channels)``.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from weightdecay.core.types import Key, Scalar

Inputs = Float[Array | np.ndarray, "examples ..."]
Images = Float[Array | np.ndarray, "examples height width ..."]


def input_noise(key: Key, inputs: Inputs, strength: Scalar) -> Inputs:
    """Add normal noise: ``inputs + strength * noise``, a draw a number.

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
    """Move each image by whole pixels, up and down, left and right, each offset equally likely; zeros move in.

    The offsets are uniform over the whole numbers from ``-strength`` to ``strength``, so that 2.5 acts as 2.

    Args:
      key: Random key.
      inputs: Images.
      strength: Largest offset, >= 0, in pixels.

    Returns:
      The moved images.
    """
    most = jnp.floor(jnp.asarray(strength, float))
    draws = jax.random.uniform(key, (2, len(inputs), 1))
    down, right = jnp.floor(draws * (2 * most + 1)) - most
    return _moved(_moved(inputs, down, axis=1), right, axis=2)


def flip(key: Key, inputs: Images, strength: Scalar) -> Images:
    """Mirror each image, left to right, with a probability.

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
    """Cut a piece out of each image at a random place and resize it to the image's size.

    The piece has the sides ``(1 - strength) height`` and ``(1 - strength) width`` and lies inside the image, every
    place equally likely. Resizing is bilinear; a value stands at the middle of its pixel, and those of the outermost
    pixels go on to the edges.

    Args:
      key: Random key.
      inputs: Images.
      strength: Share of each side that is cut away, from 0 to below 1.

    Returns:
      The pieces, each of the image's size.
    """
    strength = jnp.asarray(strength, float)
    draws = jax.random.uniform(key, (2, len(inputs), 1))
    for axis, draw in zip((1, 2), draws, strict=True):
        size = inputs.shape[axis]
        middles = draw * strength * size + (jnp.arange(size) + 0.5) * (1 - strength)
        inputs = _interpolated(inputs, jnp.clip(middles - 0.5, 0, size - 1), axis)
    return inputs


def cutout(key: Key, inputs: Images, strength: Scalar) -> Images:
    """Set a square of each image to 0, at a random place inside it.

    Args:
      key: Random key.
      inputs: Images.
      strength: Side of the square over the shorter side of the image, from 0 to 1; the square has whole pixels.

    Returns:
      The images with a hole.

    References:
      DeVries & Taylor, Improved Regularization of Convolutional Neural Networks with Cutout, 2017; there the square may
      lie partly outside.
    """
    height, width = inputs.shape[1:3]
    side = jnp.round(jnp.asarray(strength, float) * min(height, width))
    draws = jax.random.uniform(key, (2, len(inputs), 1))
    rows, columns = (
        _along(_within(jnp.arange(size), jnp.floor(draw * (size - side + 1)), side), inputs, axis)
        for axis, size, draw in zip((1, 2), (height, width), draws, strict=True)
    )
    return jnp.where(rows & columns, 0, inputs)


class Kind(NamedTuple):
    """A kind of augmentation."""

    number: int  # of its stream of draws, which never changes
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
    """Apply kinds of augmentation, in the order of `KINDS`, each with draws of its own.

    Args:
      key: Random key.
      inputs: Shape ``(examples, ...)``.
      strengths: By the names of `KINDS`, each shape ``()``; may be traced.

    Returns:
      The augmented inputs, with the inputs' shape and dtype.
    """
    for name, kind in KINDS.items():
        if name in strengths:
            inputs = kind.augment(jax.random.fold_in(key, kind.number), inputs, strengths[name])
    return inputs


def mixup(key: Key, inputs: Inputs, strength: Scalar) -> tuple[Inputs, Int[Array, " examples"], Float[Array, ""]]:
    """Mix each example with another: ``share * inputs + (1 - share) * inputs[other]``.

    ``share`` is drawn from Beta(strength, strength), one for the batch; the losses of both targets are to be mixed
    alike. At strength 0 it is 1.

    Args:
      key: Random key.
      inputs: Shape ``(examples, ...)``.
      strength: >= 0, shape ``()``; 1 = every share equally likely.

    Returns:
      The mixed inputs; ``other``, a permutation of the examples; and ``share``.

    References:
      Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018.
    """
    for_share, for_other = jax.random.split(key)
    strength = jnp.asarray(strength, float)
    above = jnp.where(strength > 0, strength, 1)
    share = jnp.where(strength > 0, jax.random.beta(for_share, above, above), 1)
    other = jax.random.permutation(for_other, jnp.arange(len(inputs), dtype=jnp.int32))
    own = share.astype(inputs.dtype)
    return own * inputs + (1 - own) * jnp.asarray(inputs)[other], other, share


def check(name: str, shape: tuple[int, ...], dtype: Any) -> None:
    """Refuse an axis of a grid that does not fit the inputs.

    Args:
      name: Of `KINDS`, or ``"mixup"``.
      shape: Of the inputs, ``(examples, ...)``.
      dtype: Of the inputs.

    Raises:
      TypeError: Inputs that are not real numbers.
      ValueError: Inputs that are no images, where images are needed; an unknown name.
    """
    if name not in KINDS and name != "mixup":
        raise ValueError(f"name is {name!r}; give one of {', '.join((*KINDS, 'mixup'))}.")
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"grid has an axis {name!r}, which goes with real inputs, but data has inputs of dtype {jnp.dtype(dtype)}; "
            "convert them to floats if they are measurements, or leave the axis out if they are tokens."
        )
    if name in KINDS and KINDS[name].of_images and len(shape) not in (3, 4):
        raise ValueError(
            f"grid has an axis {name!r}, which goes with images, but data has inputs of shape {shape}; give the shape "
            "(examples, height, width) or (examples, height, width, channels), as inputs.reshape(-1, 8, 8) gives it to "
            "rows of 64 pixels."
        )


def _within(places: Any, start: Any, length: Any) -> Any:
    return (places >= start) & (places < start + length)


def _moved(images: Images, offsets: Float[Array, "examples 1"], axis: int) -> Images:
    """Images moved along an axis by whole pixels; zeros move in."""
    size = images.shape[axis]
    places = jnp.arange(size) - offsets
    taken = _taken(images, jnp.clip(places, 0, size - 1), axis)
    return jnp.where(_along(_within(places, 0, size), images, axis), taken, 0)


def _interpolated(images: Images, places: Float[Array, "examples places"], axis: int) -> Images:
    """Rows (axis 1) or columns (axis 2) at places of each image's own, from 0 to the last: linear between two."""
    before = jnp.floor(places)
    share = _along(places - before, images, axis).astype(images.dtype)
    after = jnp.minimum(before + 1, images.shape[axis] - 1)
    return (1 - share) * _taken(images, before, axis) + share * _taken(images, after, axis)


def _taken(images: Images, places: Float[Array, "examples places"], axis: int) -> Images:
    """Rows (axis 1) or columns (axis 2) at whole places of each image's own, from 0 to the last."""
    lines = jnp.moveaxis(jnp.asarray(images), axis, 1)
    examples = jnp.arange(len(images))[:, None]
    return jnp.moveaxis(lines[examples, places.astype(jnp.int32)], 1, axis)


def _along(values: Array, images: Images, axis: int) -> Array:
    """Values of an axis of each image, in a shape that goes with the images."""
    return jnp.expand_dims(values, [other for other in range(1, images.ndim) if other != axis])
