"""Real data sets that come with scikit-learn, so that none needs a download."""

import numpy as np

from weightdecay.core.types import Integer, Scalar
from weightdecay.data.dataset import Data
from weightdecay.data.splits import split


def digits(
    *,
    seed: Integer = 0,
    validation_size: Scalar = 0.2,
    test_size: Scalar = 0.2,
    num_train: Integer | None = None,
    label_noise: Scalar = 0.0,
) -> Data:
    """scikit-learn's 1,797 handwritten digits, 8 x 8 pixels in [0, 1], ten classes.

    Args:
      seed: Of the split, the choice of ``num_train`` examples and the label noise.
      validation_size: Share of all examples that validates.
      test_size: Share of all examples that tests.
      num_train: Training examples to keep, classes in proportion; None keeps all.
      label_noise: Share of the training labels to replace by another class; validation and test stay clean.

    Returns:
      Inputs float32, shape ``(examples, 64)``; targets int32, shape ``(examples,)``.

    Raises:
      ValueError: A share or a number that leaves a split empty or asks for more than there is.

    References:
      E. Alpaydin & C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.

    Examples:
      >>> data = digits(num_train=300)
      >>> data.train[0].shape, data.validation[0].shape, data.test[0].shape
      ((300, 64), (359, 64), (359, 64))
    """
    inputs, targets = _load("digits")
    return split(
        inputs / 16,
        targets,
        seed=seed,
        validation_size=validation_size,
        test_size=test_size,
        num_train=num_train,
        label_noise=label_noise,
        standardize=False,
    )


def breast_cancer(
    *,
    seed: Integer = 0,
    validation_size: Scalar = 0.2,
    test_size: Scalar = 0.2,
    num_train: Integer | None = None,
    label_noise: Scalar = 0.0,
) -> Data:
    """scikit-learn's 569 breast tumours, 30 standardized measurements, two classes.

    Args:
      seed: As in `digits`.
      validation_size: As in `digits`.
      test_size: As in `digits`.
      num_train: As in `digits`.
      label_noise: As in `digits`.

    Returns:
      Inputs float32, shape ``(examples, 30)``; targets int32, shape ``(examples,)``.

    Raises:
      ValueError: As `digits`.

    References:
      W. Wolberg et al., Breast Cancer Wisconsin (Diagnostic), UCI Machine Learning Repository, 1995.
    """
    return split(
        *_load("breast_cancer"),
        seed=seed,
        validation_size=validation_size,
        test_size=test_size,
        num_train=num_train,
        label_noise=label_noise,
    )


def wine(
    *,
    seed: Integer = 0,
    validation_size: Scalar = 0.2,
    test_size: Scalar = 0.2,
    num_train: Integer | None = None,
    label_noise: Scalar = 0.0,
) -> Data:
    """scikit-learn's 178 wines, 13 standardized measurements, three classes.

    Args:
      seed: As in `digits`.
      validation_size: As in `digits`.
      test_size: As in `digits`.
      num_train: As in `digits`.
      label_noise: As in `digits`.

    Returns:
      Inputs float32, shape ``(examples, 13)``; targets int32, shape ``(examples,)``.

    Raises:
      ValueError: As `digits`.

    References:
      S. Aeberhard & M. Forina, Wine, UCI Machine Learning Repository, 1992.
    """
    return split(
        *_load("wine"),
        seed=seed,
        validation_size=validation_size,
        test_size=test_size,
        num_train=num_train,
        label_noise=label_noise,
    )


def diabetes(
    *, seed: Integer = 0, validation_size: Scalar = 0.2, test_size: Scalar = 0.2, num_train: Integer | None = None
) -> Data:
    """scikit-learn's 442 diabetes patients, 10 standardized measurements, a standardized real target.

    Args:
      seed: As in `digits`; not stratified.
      validation_size: As in `digits`.
      test_size: As in `digits`.
      num_train: As in `digits`.

    Returns:
      Inputs float32, shape ``(examples, 10)``; targets float32, shape ``(examples,)``, in standard deviations of the
      training targets.

    Raises:
      ValueError: As `digits`.

    References:
      Efron et al., Least Angle Regression, 2004.
    """
    return split(
        *_load("diabetes"), seed=seed, validation_size=validation_size, test_size=test_size, num_train=num_train
    )


def _load(name: str) -> tuple[np.ndarray, np.ndarray]:
    from sklearn import datasets

    return getattr(datasets, f"load_{name}")(return_X_y=True)
