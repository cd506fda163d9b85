"""`Data`: the examples of a run, in splits or folds, and the checks that they pass before training.

`weightdecay.data.splits` makes `Data` from arrays. `weightdecay.training.step` standardizes the examples of a fold.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from weightdecay.core import checks, tree
from weightdecay.core.checks import ArgumentError, ArgumentTypeError
from weightdecay.core.types import Batch, Integer
from weightdecay.core.warn import warn
from weightdecay.data import classes, on_disk, trees
from weightdecay.data.array_checks import check_array, to_float32
from weightdecay.data.classes import check_weights

_LARGEST_OFFSET = 1000.0  # standard deviations; float32 then rounds a value to 6e-5 of a standard deviation
_SCALES = (1e-30, 1e30)  # standard deviations that float32 handles well


class Scaling(NamedTuple):
    """Mean and scale that standardize each fold, ``(values - mean) / scale``, fitted on its training examples alone.

    They are in the original unit of the values. Programs compute in float32, which cannot represent small differences
    of large values. Features whose mean is more than 1000 scales away from 0 are therefore shifted in float64 before
    they become float32; `stored_inputs`, `stored_targets` and `of_fold` agree on the shift.
    """

    # (folds, ...); of inputs that are several arrays: by the name of each that is standardized. None = none is.
    input_mean: Any = None
    input_scale: Any = None  # (folds, ...), > 0
    target_mean: Any = None  # (folds, ...); None = targets are not standardized
    target_scale: Any = None  # (folds, ...), > 0

    def stored_inputs(self, inputs: Any) -> Any:
        """Return inputs in the unit of `of_fold`, in a dtype from which float32 loses nothing."""
        if not isinstance(self.input_mean, dict):
            return _stored(inputs, *_reference(self.input_mean, self.input_scale))

        def stored(name: str, values: Any) -> Any:
            return _stored(values, *_reference(self.input_mean.get(name), self.input_scale.get(name)))

        return trees.mapped(stored, inputs, "inputs")

    def scaled_inputs(self, inputs: Any) -> Any:
        """Standardize inputs in the unit of `of_fold`, which made this scaling."""
        if self.input_mean is None:
            return inputs
        if not isinstance(self.input_mean, dict):
            return scaled(inputs, self.input_mean, self.input_scale)

        def scaled_array(name: str, values: Any) -> Any:
            return scaled(values, self.input_mean[name], self.input_scale[name]) if name in self.input_mean else values

        return trees.mapped(scaled_array, inputs, "inputs")

    def stored_targets(self, targets: Any) -> Any:
        """Return targets in the unit of `of_fold`, in a dtype from which float32 loses nothing."""
        return _stored(targets, *_reference(self.target_mean, self.target_scale))

    def original_targets(self, outputs: np.ndarray) -> np.ndarray:
        """Return outputs in the original unit of the targets, from the unit of `of_fold`."""
        shift, unit = _reference(self.target_mean, self.target_scale)
        return outputs if shift is None else outputs.astype(np.float64) * unit + shift

    def of_fold(self, fold: int) -> "Scaling":
        """Return the scaling of one fold, for stored values: each float32, shape ``(...)``."""
        if isinstance(self.input_mean, dict):
            pairs = {name: _of_fold(mean, self.input_scale[name], fold) for name, mean in self.input_mean.items()}
            inputs = (
                {name: mean for name, (mean, _) in pairs.items()},
                {name: scale for name, (_, scale) in pairs.items()},
            )
        else:
            inputs = _of_fold(self.input_mean, self.input_scale, fold)
        return Scaling(*inputs, *_of_fold(self.target_mean, self.target_scale, fold))


def scaled(values: Any, mean: Any, scale: Any) -> Any:
    """Standardize values; floats keep their dtype."""
    if jnp.issubdtype(values.dtype, jnp.floating):
        mean, scale = mean.astype(values.dtype), scale.astype(values.dtype)
    return (values - mean) / scale


def _reference(mean: Any, scale: Any) -> tuple[Any, Any]:
    """What is subtracted from the stored values of each feature and what divides them; None, None = nothing."""
    if mean is None:
        return None, None
    mean, scale = np.asarray(mean, np.float64), np.asarray(scale, np.float64)
    extreme = ((scale < _SCALES[0]) | (scale > _SCALES[1])).any(axis=0)
    shifted = (np.abs(mean) > _LARGEST_OFFSET * scale).any(axis=0) | extreme
    if not shifted.any():
        return None, None
    return np.where(shifted, mean[0], 0.0), np.where(extreme, scale[0], 1.0)


def _stored(values: Any, shift: Any, unit: Any) -> Any:
    return values if shift is None else (np.asarray(values, np.float64) - shift) / unit


def _of_fold(mean: Any, scale: Any, fold: int) -> tuple[Any, Any]:
    if mean is None:
        return None, None
    shift, unit = _reference(mean, scale)
    mean, scale = (np.asarray(values, np.float64)[fold] for values in (mean, scale))
    if shift is not None:
        mean, scale = (mean - shift) / unit, scale / unit
    return mean.astype(np.float32), scale.astype(np.float32)


@dataclass(frozen=True)
class Data:
    """Training, validation and test examples.

    A split is ``(inputs, targets)`` or ``(inputs, targets, weights)``: arrays with one row for each example, or trees
    of them (a dictionary, a tuple, a NamedTuple, a registered dataclass). The loss of each example is multiplied by its
    weight, shape ``(examples,)``, >= 0, relative to the others of its split. A model receives inputs as they are here;
    a dictionary is passed by name to a network whose call has arguments of these names.

    A `numpy.memmap` stays on the disk. Training examples that are larger than the memory budget are streamed, a segment
    of steps at a time; validation examples are on the device during training, and test examples when they are scored,
    so that these two must fit into memory.

    Attributes:
      train: Training examples; with folds, all examples except the test examples.
      validation: Examples on which candidates are compared; None with folds.
      test: Examples that are used once, for the chosen candidate; or None.
      fold: Number of the fold in which each training example validates, int, shape ``(examples,)``, from 0; it trains
        in all other folds. None if there are validation examples.
      scaling: Standardization of each fold; None = no standardization.
      class_names: Names of the classes 0, 1, 2, ... in the targets. None: the targets are not classes, or their own
        numbers are their names, in which case other integers than 0, 1, 2, ... are mapped to these before training.
      num_classes: Number of classes where some may not occur in the targets, such as the tokens of a vocabulary; None =
        as many as occur, or as there are ``class_names``.
      augmented: Name of the array that the axes ``shift``, ``flip``, ``crop``, ``cutout``, ``input_noise`` and
        ``mixup`` of a grid act on, where inputs are several arrays, such as ``"image"``; None = the only array of
        floats, or of images for the axes that need images.
    """

    train: Any
    validation: Any = None
    test: Any = None
    fold: Any = None
    scaling: Scaling | None = None
    class_names: tuple[Any, ...] | None = None
    num_classes: int | None = None
    augmented: str | None = None

    @property
    def num_folds(self) -> int | None:
        """Number of folds; None if there are validation examples."""
        return None if self.fold is None else int(np.max(self.fold)) + 1

    def joined(self) -> "Data":
        """Return the data with the validation examples among the training examples as well, to train a choice on all.

        Returns:
          The data; its validation examples are those that it was trained on. Arrays on the disk are read.

        Raises:
          ArgumentError: Standardized folds: each fold has its own scaling, and none is that of all examples.
        """
        if self.fold is None:
            return replace(self, train=_joined(self.train, self.validation))
        if self.scaling is not None:
            raise ArgumentError(
                "data",
                "data has folds that are standardized, each by its own training examples; standardize all examples "
                "yourself, and train the chosen candidate with wd.fit.",
            )
        return replace(self, validation=self.train, fold=None)

    def batches(self) -> dict[str, Batch]:
        """Return the splits by name, as arrays in the precision in which JAX computes.

        Weights are float32 with the mean 1 over their split. With folds, the training examples have fold numbers and
        there is no ``"validation"``. Values are in the unit of ``scaling.of_fold``.
        """
        splits = {name: _batch(f"data.{name}", split, self.scaling) for name, split in self._splits()}
        if self.fold is not None:
            splits["train"] = splits["train"]._replace(fold=np.asarray(self.fold, np.int32))
        return splits

    def with_class_indices(self, loss: Any = None) -> "Data":
        """Map integer targets that are labels of classes to the classes 0, 1, 2, ..., whose names are the labels.

        Args:
          loss: As in `fit_grid`. The targets are classes if it is ``"softmax_cross_entropy"``, or if it is None and
            they are integers or truth values, one for each example.

        Returns:
          The same data where the targets are not classes, where they already are 0, 1, 2, ... (or below 0, where they
          do not count; see `weightdecay.data.classes.uncounted`), and where ``class_names`` or ``num_classes`` is
          given.

        Raises:
          ValueError: ``loss`` is None, and the targets look like a quantity; see `weightdecay.data.classes.quantity`.
        """
        if loss not in (None, "softmax_cross_entropy"):
            return self
        try:
            targets = {name: _read_labels(split[1]) for name, split in self._splits()}
        except (TypeError, ValueError, LookupError):  # `check` reports what is wrong
            return self
        if not targets or any(values.ndim != 1 or values.dtype.kind not in "iub" for values in targets.values()):
            return self
        if self.class_names is not None or self.num_classes is not None:
            return self._with_known_classes(targets)
        labels = np.concatenate(list(targets.values()))
        below = np.zeros(len(labels), bool) if labels.dtype.kind == "b" else classes.uncounted(labels)
        if below.any():
            warn(
                f"data has {np.count_nonzero(below)} targets below 0, which do not count, neither in the loss nor in "
                "the accuracy. If they are labels of a class, make the data by wd.data.split(..., classes=True)."
            )
            labels = labels[~below]
        if loss is None and labels.dtype.kind != "b" and (description := classes.quantity(labels)):
            raise ArgumentError(
                "loss",
                f"data has integer targets that look like a quantity ({description}), and loss is None; give "
                "loss='softmax_cross_entropy' if they are labels of classes, or loss='squared_error' if they are real "
                "numbers.",
            )
        _, names = classes.indices(labels)
        if labels.dtype.kind != "b" and names == tuple(range(len(names))):
            return self

        def indices(of_split: np.ndarray) -> np.ndarray:
            known = np.searchsorted(names, of_split).astype(np.int32)
            return np.where(of_split < 0, -1, known).astype(np.int32) if below.any() else known

        splits = {name: (split[0], indices(targets[name]), *split[2:]) for name, split in self._splits()}
        return replace(self, **splits, class_names=names)

    def _with_known_classes(self, targets: Mapping[str, np.ndarray]) -> "Data":
        number = max(len(self.class_names or ()), self.num_classes or 0)
        known = f"num_classes is {number}" if self.class_names is None else f"class_names has {number} names"
        for name, values in targets.items():
            if values.size and not values.max() < number:
                raise ArgumentError(
                    "data",
                    f"data.{name} has targets from {values.min()} to {values.max()}, and {known}; give "
                    f"targets from 0 to {number - 1}, or below 0 where they do not count.",
                )
        return self

    def __repr__(self) -> str:
        """Return the shapes of the arrays."""
        parts = [f"{name}: {' and '.join(map(_shapes, split))}" for name, split in self._splits()]
        folds = [] if self.fold is None else [f"{self.num_folds} folds"]
        return f"Data({'; '.join([*parts, *folds])})"

    def _splits(self) -> Iterator[tuple[str, Any]]:
        for name in ("train", "validation", "test"):
            if (split := getattr(self, name)) is not None:
                yield name, split


def _read_labels(targets: Any) -> Any:
    """Targets as an array; what is on the disk is read if it is one number for each example."""
    stays = isinstance(targets, on_disk.RowsOnDisk) and targets.ndim > 1
    return targets if stays else np.asarray(targets)


def _shapes(values: Any) -> str:
    if not trees.is_tree(values):
        return _shape(values)
    return f"{{{', '.join(f'{name}: {_shape(leaf)}' for name, leaf in tree.named_leaves(values))}}}"


def _shape(values: Any) -> str:
    shape = getattr(values, "shape", None)
    return f"{values.dtype}{list(shape)}" if shape is not None and hasattr(values, "dtype") else type(values).__name__


def check(data: Any, batch_size: Integer | None) -> None:
    """Check data before training.

    Args:
      data: What the user passed.
      batch_size: Examples a step; None = all of them.

    Raises:
      TypeError: Not `Data`, or a split that is not arrays of numbers.
      ValueError: A split that is empty, of unequal length or shape, nan or infinite, or has values that float32 cannot
        tell apart; weights or folds that do not fit; or fewer training examples than a batch.
    """
    if not isinstance(data, Data):
        raise ArgumentTypeError(
            "data",
            f"data is of type {type(data).__name__}; give wd.data.digits() or "
            "wd.Data(train=(inputs, targets), validation=(inputs, targets), test=None).",
        )
    for name in ("train", "validation", "test"):
        split = getattr(data, name)
        if split is None and (name == "test" or (name == "validation" and data.fold is not None)):
            continue
        if not isinstance(split, tuple | list) or (len(split) not in (2, 3) and not isinstance(split, Batch)):
            raise ArgumentTypeError(
                "data",
                f"data.{name} is of type {type(split).__name__}; give a pair (inputs, targets) of arrays, or "
                "(inputs, targets, weights).",
            )
        if len(split) > 2 and split[2] is not None:
            check_weights(f"data.{name} weights", split[2], _num_rows(f"data.{name}", split[0]))
    if data.fold is not None:
        _check_folds(data)
    splits = data.batches()
    for name, batch in splits.items():
        check_examples(f"data.{name} ", batch.inputs, batch.targets)
    _check_shapes(splits)
    num_train, subject, noun = splits["train"].num_examples, "data.train has", "examples"
    if data.fold is not None:
        num_train -= int(np.bincount(splits["train"].fold).max())
        subject, noun = "data has a fold with", "training examples"
    if batch_size is None:
        return
    if not checks.is_integer(batch_size):
        raise ArgumentTypeError(
            "batch_size", f"batch_size is {batch_size!r}; give an integer of at least 1, or None for all examples."
        )
    if not 1 <= batch_size <= num_train:
        raise ArgumentError(
            "batch_size",
            f"batch_size is {batch_size}, but {subject} {num_train} {noun}; give 1 to {num_train}, or None for all of "
            "them.",
        )


def check_examples(prefix: str, inputs: Any, targets: Any) -> None:
    """Check the arrays of one split.

    Args:
      prefix: Prefix of their names in messages, such as ``"data.train "``.
      inputs: Arrays of shape ``(examples, ...)``.
      targets: Arrays of shape ``(examples, ...)``.

    Raises:
      TypeError: Not numbers.
      ValueError: Empty, of unequal length, nan or infinite.
    """
    for part, values in {"inputs": inputs, "targets": targets}.items():
        named = trees.named(values, prefix + part)
        for name, array in named:
            check_array(name, array)
        lengths = {name: len(array) for name, array in named}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise ArgumentError(
                trees.argument_of(prefix + part),
                f"{prefix + part} have unequal numbers of rows ({listed}); give one row for each example.",
            )
    if trees.num_rows(inputs) != trees.num_rows(targets):
        raise ArgumentError(
            prefix.split(".")[0] or "targets",
            f"{prefix or 'the data '}has {trees.num_rows(inputs)} inputs and {trees.num_rows(targets)} targets; give "
            "one target for each example.",
        )


def is_exact_in_float32(values: np.ndarray) -> bool:
    """Whether float32 keeps the differences between examples in every feature.

    Args:
      values: Finite numbers, shape ``(examples, ...)``.

    Returns:
      False if the mean of a feature is more than 1000 standard deviations away from 0, or its standard deviation is out
      of the range in which float32 is exact.
    """
    if not values.size:
        return True
    mean, deviation = values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
    constant = values.min(axis=0) == values.max(axis=0)
    mean, deviation = np.where(constant, 0, mean), np.where(constant, 1, deviation)
    return _reference(mean[None], deviation[None])[0] is None


def _check_folds(data: Data) -> None:
    if data.validation is not None:
        raise ArgumentError("data", "data has both validation examples and folds; give only one of them.")
    fold, num_examples = np.asarray(data.fold), _num_rows("data.train", data.train[0])
    if fold.dtype.kind not in "iu" or fold.shape != (num_examples,):
        raise ArgumentError(
            "data",
            f"data.fold has dtype {fold.dtype} and shape {fold.shape}; give one integer for each example of "
            f"data.train, shape ({num_examples},).",
        )
    sizes = np.bincount(fold) if fold.min() >= 0 else np.zeros(1, int)
    if len(sizes) < 2 or not sizes.all():
        raise ArgumentError(
            "data",
            f"data.fold contains the numbers {', '.join(map(str, np.unique(fold)[:20]))}; give 0, 1, 2, ... without a "
            "gap, at least two folds.",
        )
    if len(data.train) > 2 and data.train[2] is not None:
        weights = np.bincount(fold, np.asarray(data.train[2], np.float64))
        if not weights.all() or np.count_nonzero(weights) < 2:
            raise ArgumentError(
                "data",
                f"data.train weights are all 0 in fold {int(np.argmin(weights))}; give at least one above 0 in every "
                "fold.",
            )


def _check_shapes(splits: Mapping[str, Batch]) -> None:
    for name, batch in splits.items():
        for part in ("inputs", "targets"):
            values, of_train = getattr(batch, part), getattr(splits["train"], part)
            if jax.tree.structure(values) != jax.tree.structure(of_train):
                raise ArgumentError(
                    "data",
                    f"data.{name} has other {part} than data.train ({_shapes(values)}, {_shapes(of_train)}); every "
                    "split needs the same arrays.",
                )
            for (leaf, array), (_, train) in zip(trees.named(values, part), trees.named(of_train, part), strict=True):
                if array.shape[1:] != train.shape[1:]:
                    raise ArgumentError(
                        "data",
                        f"data.{name} has {leaf} of shape (examples, *{array.shape[1:]}), data.train has (examples, "
                        f"*{train.shape[1:]}); every split needs the same shape after the first dimension.",
                    )


def _batch(name: str, split: Any, scaling: Scaling | None) -> Batch:
    inputs, targets, weights, *_ = (*split, None)
    if scaling is not None:
        inputs, targets = scaling.stored_inputs(inputs), scaling.stored_targets(targets)
    if weights is not None:
        weights = np.asarray(weights, np.float64)
        weights = (weights / weights.mean()).astype(np.float32)
    inputs = trees.mapped(_as_array, inputs, f"{name} inputs")
    return Batch(inputs, trees.mapped(_as_array, targets, f"{name} targets"), weights)


def _joined(first: Any, second: Any) -> tuple[Any, ...]:
    """Return the examples of two splits; where one has no weights, they are 1."""
    parts = [
        jax.tree.map(
            lambda *arrays: np.concatenate(arrays), *(trees.mapped(_read_array, part, "data") for part in pair)
        )
        for pair in zip(first[:2], second[:2], strict=True)
    ]
    weights = [split[2] if len(split) > 2 else None for split in (first, second)]
    if all(values is None for values in weights):
        return tuple(parts)
    numbers = (_num_rows("data", split[0]) for split in (first, second))
    filled = [np.ones(n) if values is None else np.asarray(values) for n, values in zip(numbers, weights, strict=True)]
    return (*parts, np.concatenate(filled))


def _num_rows(name: str, values: Any) -> int:
    return len(_array(*trees.named(values, name)[0]))


def _array(name: str, values: Any) -> Any:
    if isinstance(values, on_disk.RowsOnDisk):
        return values
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ArgumentError(
            "data", f"{name} contain rows of unequal length ({error}); give arrays with one row for each example."
        ) from error


def _read_array(name: str, values: Any) -> np.ndarray:
    """An array in memory; what is on the disk is read."""
    return np.asarray(_array(name, values))


def _as_array(name: str, values: Any) -> Any:
    array = _array(name, values)
    if array.dtype == np.float64 or array.dtype == np.int64:
        from jax.dtypes import canonicalize_dtype

        dtype = canonicalize_dtype(array.dtype)
        if dtype == np.float32:
            return to_float32(name, array)
        narrow = on_disk.converted(array, dtype) if on_disk.is_on_disk(array) else array.astype(dtype)
        if array.dtype == np.int64 and not all(np.array_equal(b.astype(dtype), b) for b in on_disk.blocks(array)):
            raise ArgumentError(
                "data", f"{name} contain integers that int32 does not hold; give tokens from 0, or real numbers."
            )
        return narrow
    return array
