"""The direction of a metric: whether less of it is better."""


def lower_is_better(metric_name: str) -> bool:
    """Whether less of a metric is better: of those that are called a loss or an error.

    Args:
      metric_name: Such as ``"validation_loss"``.

    Returns:
      True where the name ends in ``loss`` or ``error``.

    Examples:
      >>> lower_is_better("validation_loss"), lower_is_better("validation_accuracy")
      (True, False)
    """
    return metric_name.endswith(("loss", "error"))
