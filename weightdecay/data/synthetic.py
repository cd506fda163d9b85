"""Made data sets, whose truth is known: a teacher's answers, classes in the plane, an order of tokens.

Every number follows from the seed. What the docstrings say of the truth holds by construction.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from weightdecay.core.types import Integer, Scalar
from weightdecay.data.dataset import Data
from weightdecay.data.splits import split


def teacher_student(
    *,
    num_train: Integer = 200,
    num_validation: Integer = 1000,
    num_test: Integer = 1000,
    num_features: Integer = 50,
    noise_variance: Scalar = 0.25,
    hidden: Sequence[int] = (),
    irrelevant_features: Integer = 0,
    seed: Integer = 0,
) -> Data:
    """Real targets that a random teacher gives, with noise: ``y = teacher(x) + sqrt(noise_variance) * e``.

    Inputs and ``e`` are standard normal. A linear teacher is ``w · x`` with ``w ~ N(0, I / num_features)``; one with
    hidden layers is a tanh network of weights ``N(0, 1 / fan_in)``, times what gives its answers the variance 1.
    Validation and test targets are as noisy as the training targets, so that a student's mean squared error on them is
    ``noise_variance`` at best.

    For a linear teacher, and a linear student without a bias, the best decay is known. The expected weights, given the
    training examples, minimize ``|y - X w|²/num_train + c/2 |w|²`` with
    ``c = 2 * noise_variance * num_features / num_train``: on average over seeds no other coefficient of `wd.L2` with
    the squared error does better.

    Args:
      num_train: Training examples.
      num_validation: Validation examples.
      num_test: Test examples.
      num_features: Numbers that the teacher looks at.
      noise_variance: Of the targets, >= 0; the teacher's own variance is about 1.
      hidden: Widths of the teacher's hidden layers; none = it is linear.
      irrelevant_features: Standard normal numbers that the teacher does not look at, after those that it does.
      seed: Of everything.

    Returns:
      Inputs float32, shape ``(examples, num_features + irrelevant_features)``; targets float32, shape ``(examples,)``.

    Raises:
      ValueError: A number below what makes sense.

    References:
      Krogh & Hertz, A Simple Weight Decay Can Improve Generalization, 1991.

    Examples:
      >>> data = teacher_student(num_train=100, num_features=20, irrelevant_features=5)
      >>> data.train[0].shape, data.train[1].shape
      ((100, 25), (100,))
    """
    sizes = {"num_train": num_train, "num_validation": num_validation, "num_test": num_test}
    _check_counts(**sizes, num_features=num_features, **{f"hidden[{at}]": width for at, width in enumerate(hidden)})
    _check_counts(least=0, irrelevant_features=irrelevant_features)
    if not (noise_variance >= 0 and np.isfinite(noise_variance)):
        raise ValueError(f"noise_variance is {noise_variance}; give a finite number of at least 0.")
    random = _random(seed, 0)
    widths = [int(width) for width in (num_features, *hidden, 1)]
    layers = [random.normal(0, shape[0] ** -0.5, shape) for shape in itertools.pairwise(widths)]

    def teacher(inputs: np.ndarray) -> np.ndarray:
        for layer in layers[:-1]:
            inputs = np.tanh(inputs @ layer)
        return (inputs @ layers[-1])[:, 0]

    gain = 1.0 if not hidden else 1 / teacher(random.normal(size=(4096, widths[0]))).std()

    def examples(size: int) -> tuple[np.ndarray, np.ndarray]:
        inputs = random.normal(size=(size, widths[0]))
        targets = gain * teacher(inputs) + float(noise_variance) ** 0.5 * random.normal(size=size)
        return inputs.astype(np.float32), targets.astype(np.float32)

    data = Data(train=examples(int(num_train)), validation=examples(int(num_validation)), test=examples(int(num_test)))
    return with_irrelevant_features(data, irrelevant_features, seed=seed) if irrelevant_features else data


def clusters(
    *,
    num_examples: Integer = 1000,
    num_features: Integer = 20,
    num_informative: Integer = 5,
    num_classes: Integer = 2,
    separation: Scalar = 1.0,
    irrelevant_features: Integer = 0,
    seed: Integer = 0,
    validation_size: Scalar = 0.2,
    test_size: Scalar = 0.2,
    num_train: Integer | None = None,
    label_noise: Scalar = 0.0,
) -> Data:
    """Classes of two Gaussian clusters each at the corners of a cube, by scikit-learn's ``make_classification``.

    Args:
      num_examples: Of all splits together.
      num_features: Numbers an example; those that are not informative are mixtures of these.
      num_informative: Dimensions of the cube.
      num_classes: At least 2; classes are equally frequent.
      separation: Half the side of the cube, in standard deviations of a cluster.
      irrelevant_features: Standard normal numbers to add that say nothing of the class.
      seed: Of everything.
      validation_size: As in `split`.
      test_size: As in `split`.
      num_train: As in `split`.
      label_noise: As in `split`.

    Returns:
      Inputs float32, shape ``(examples, num_features + irrelevant_features)``, standardized by the training examples;
      targets int32, shape ``(examples,)``.

    Raises:
      ValueError: As `split`, or a number below what makes sense.

    References:
      I. Guyon, Design of experiments of the NIPS 2003 variable selection benchmark, 2003.
    """
    from sklearn.datasets import make_classification

    _check_counts(num_examples=num_examples, num_informative=num_informative)
    _check_counts(least=num_informative, num_features=num_features)
    _check_counts(least=2, num_classes=num_classes)
    _check_counts(least=0, irrelevant_features=irrelevant_features)
    if 2 * num_classes > 2**num_informative:
        raise ValueError(
            f"num_informative is {num_informative}, which gives a cube {2**num_informative} corners, and {num_classes} "
            f"classes need {2 * num_classes}; give more."
        )
    inputs, targets = make_classification(
        int(num_examples),
        int(num_features),
        n_informative=int(num_informative),
        n_redundant=int(num_features - num_informative),
        n_classes=int(num_classes),
        class_sep=float(separation),
        flip_y=0.0,
        random_state=_seed(seed),
    )
    data = split(
        inputs,
        targets,
        seed=seed,
        validation_size=validation_size,
        test_size=test_size,
        num_train=num_train,
        label_noise=label_noise,
    )
    return with_irrelevant_features(data, irrelevant_features, seed=seed) if irrelevant_features else data


def spirals(
    *,
    num_examples: Integer = 1000,
    num_classes: Integer = 2,
    turns: Scalar = 1.0,
    noise: Scalar = 0.05,
    irrelevant_features: Integer = 0,
    seed: Integer = 0,
    validation_size: Scalar = 0.2,
    test_size: Scalar = 0.2,
    num_train: Integer | None = None,
    label_noise: Scalar = 0.0,
) -> Data:
    """Arms of a spiral in the plane, one a class: no line divides them.

    Arm ``c`` is ``r (cos a, sin a)`` with ``a = 2π (turns r + c / num_classes)`` for ``r`` uniform in [0.1, 1].

    Args:
      num_examples: Of all splits together.
      num_classes: At least 2; classes are equally frequent.
      turns: Of an arm around the origin.
      noise: Standard deviation of what is added to both coordinates.
      irrelevant_features: As in `clusters`.
      seed: Of everything.
      validation_size: As in `split`.
      test_size: As in `split`.
      num_train: As in `split`.
      label_noise: As in `split`.

    Returns:
      Inputs float32, shape ``(examples, 2 + irrelevant_features)``, standardized by the training examples; targets
      int32, shape ``(examples,)``.

    Raises:
      ValueError: As `split`, or a number below what makes sense.

    References:
      Lang & Witbrock, Learning to Tell Two Spirals Apart, 1988.
    """
    _check_counts(num_examples=num_examples)
    _check_counts(least=2, num_classes=num_classes)
    _check_counts(least=0, irrelevant_features=irrelevant_features)
    if not noise >= 0:
        raise ValueError(f"noise is {noise}; give a standard deviation of at least 0.")
    random = _random(seed, 0)
    targets = np.arange(num_examples) % num_classes
    radius = random.uniform(0.1, 1, int(num_examples))
    angle = 2 * np.pi * (float(turns) * radius + targets / num_classes)
    plane = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    data = split(
        plane + float(noise) * random.normal(size=plane.shape),
        targets,
        seed=seed,
        validation_size=validation_size,
        test_size=test_size,
        num_train=num_train,
        label_noise=label_noise,
    )
    return with_irrelevant_features(data, irrelevant_features, seed=seed) if irrelevant_features else data


def token_order(
    *,
    num_examples: Integer = 2000,
    length: Integer = 16,
    num_tokens: Integer = 20,
    seed: Integer = 0,
    validation_size: Scalar = 0.2,
    test_size: Scalar = 0.2,
    num_train: Integer | None = None,
    label_noise: Scalar = 0.0,
) -> Data:
    """Sequences of tokens; the class is 1 where token 0 comes before token 1: for a network that knows positions.

    Each sequence holds 0 and 1 once each, at any two places, and other tokens elsewhere. The classes are equally
    frequent, and how often a token comes says nothing of the class.

    Args:
      num_examples: Of all splits together.
      length: Tokens a sequence, at least 2.
      num_tokens: Different tokens, at least 3: 0 to ``num_tokens - 1``.
      seed: Of everything.
      validation_size: As in `split`.
      test_size: As in `split`.
      num_train: As in `split`.
      label_noise: As in `split`.

    Returns:
      Inputs int32, shape ``(examples, length)``; targets int32, shape ``(examples,)``.

    Raises:
      ValueError: As `split`, or a number below what makes sense.

    Examples:
      >>> data = token_order(length=6)
      >>> data.train[0].shape, data.train[0].dtype.name
      ((1200, 6), 'int32')
    """
    _check_counts(num_examples=num_examples)
    _check_counts(least=2, length=length)
    _check_counts(least=3, num_tokens=num_tokens)
    random, shape = _random(seed, 0), (int(num_examples), int(length))
    inputs = random.integers(2, int(num_tokens), shape, dtype=np.int32)
    targets = np.arange(num_examples) % 2
    places = np.sort(random.permuted(np.broadcast_to(np.arange(length), shape), axis=1)[:, :2], axis=1)
    np.put_along_axis(inputs, places, np.stack([1 - targets, targets], axis=1).astype(np.int32), axis=1)
    return split(
        inputs,
        targets,
        seed=seed,
        validation_size=validation_size,
        test_size=test_size,
        num_train=num_train,
        label_noise=label_noise,
    )


def with_irrelevant_features(data: Data, num_features: Integer, *, seed: Integer = 0) -> Data:
    """Data with features added that say nothing of the targets: independent, standard normal.

    What decay makes of their weights is a test of it: an L1 penalty should zero them.

    Args:
      data: With inputs of shape ``(examples, features)``, real numbers.
      num_features: How many to add, after those that there are.
      seed: Of the features.

    Returns:
      New data; targets, weights and folds as they are.

    Raises:
      ValueError: Inputs of another shape, or tokens.

    Examples:
      >>> from weightdecay.data.builtin import wine
      >>> with_irrelevant_features(wine(), 7).train[0].shape
      (106, 20)
    """
    _check_counts(num_features=num_features)
    num_features = int(num_features)
    made: dict[str, Any] = {}
    for stream, name in enumerate(("train", "validation", "test"), start=1):
        if (examples := getattr(data, name)) is None:
            continue
        inputs = np.asarray(examples[0])
        if inputs.ndim != 2 or inputs.dtype.kind not in "fb":
            raise ValueError(
                f"data.{name} has inputs of dtype {inputs.dtype} and shape {inputs.shape}; give real numbers of shape "
                "(examples, features)."
            )
        added = _random(seed, stream).normal(size=(len(inputs), num_features)).astype(np.float32)
        made[name] = (np.concatenate([inputs, added], axis=1), *examples[1:])
    if data.scaling is not None and data.scaling.input_mean is not None:
        wider = [(0, 0), (0, num_features)]
        made["scaling"] = data.scaling._replace(
            input_mean=np.pad(data.scaling.input_mean, wider),
            input_scale=np.pad(data.scaling.input_scale, wider, constant_values=1),
        )
    return replace(data, **made)


def _check_counts(least: Integer = 1, **counts: Any) -> None:
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < least:
            raise ValueError(f"{name} is {count!r}; give a whole number of at least {least}.")


def _seed(seed: Integer) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed!r}; give a whole number from 0 to {2**32 - 1}.")
    return int(seed)


def _random(seed: Integer, stream: int) -> np.random.Generator:
    return np.random.default_rng([stream, _seed(seed)])
