"""Real data sets that are part of scikit-learn; no download is needed."""

from typing import Any

from weightdecay.core.types import Integer, Scalar
from weightdecay.data.dataset import Data
from weightdecay.data.registry import built_in
from weightdecay.data.splits import split


@built_in
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
      seed: Decides the split, the choice of ``num_train`` examples and the label noise.
      validation_size: Fraction of all examples used for validation.
      test_size: Fraction of all examples used for testing.
      num_train: Number of training examples to keep, stratified; None = all.
      label_noise: Fraction of the training labels that are replaced by another class; validation and test labels are
        not changed.

    Returns:
      Inputs float32, shape ``(examples, 64)``; targets int32, shape ``(examples,)``.

    Raises:
      ValueError: A fraction or a number that leaves a split empty or needs more examples than there are.

    References:
      E. Alpaydin & C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.

    Examples:
      >>> data = digits(num_train=300)
      >>> data.train[0].shape, data.validation[0].shape, data.test[0].shape
      ((300, 64), (359, 64), (359, 64))
    """
    options = {"validation_size": validation_size, "test_size": test_size, "num_train": num_train}
    return _split("digits", 1 / 16, seed=seed, label_noise=label_noise, **options)


@built_in
def breast_cancer(
    *,
    seed: Integer = 0,
    validation_size: Scalar = 0.2,
    test_size: Scalar = 0.2,
    num_train: Integer | None = None,
    label_noise: Scalar = 0.0,
) -> Data:
    """scikit-learn's 569 breast tumours with 30 standardized measurements, two classes.

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
    options = {"validation_size": validation_size, "test_size": test_size, "num_train": num_train}
    return _split("breast_cancer", seed=seed, label_noise=label_noise, **options)


@built_in
def wine(
    *,
    seed: Integer = 0,
    validation_size: Scalar = 0.2,
    test_size: Scalar = 0.2,
    num_train: Integer | None = None,
    label_noise: Scalar = 0.0,
) -> Data:
    """scikit-learn's 178 wines with 13 standardized measurements, three classes.

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
    options = {"validation_size": validation_size, "test_size": test_size, "num_train": num_train}
    return _split("wine", seed=seed, label_noise=label_noise, **options)


@built_in
def diabetes(
    *, seed: Integer = 0, validation_size: Scalar = 0.2, test_size: Scalar = 0.2, num_train: Integer | None = None
) -> Data:
    """scikit-learn's 442 diabetes patients with 10 standardized measurements, a standardized real target.

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
    return _split("diabetes", seed=seed, validation_size=validation_size, test_size=test_size, num_train=num_train)


def _split(name: str, factor: float | None = None, **options: Any) -> Data:
    """Load a data set of scikit-learn and split it; inputs are multiplied by a factor, or standardized."""
    from sklearn import datasets

    inputs, targets = getattr(datasets, f"load_{name}")(return_X_y=True)
    if factor is not None:
        return split(inputs * factor, targets, standardize=False, **options)
    return split(inputs, targets, **options)
