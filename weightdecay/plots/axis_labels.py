"""Units, as the axes of a plot name them: of each coefficient of each rule, and of each metric."""

import re
from collections.abc import Iterable

RATE = "1 / (step · learning rate)"
SECOND, FIRST = "loss / weight²", "loss / weight"

COEFFICIENTS: dict[str, dict[str, str]] = {
    "NoDecay": {},
    "L2": {"coefficient": SECOND},
    "L1": {"coefficient": FIRST},
    "ElasticNet": {"l1_coefficient": FIRST, "l2_coefficient": SECOND},
    "Huber": {"coefficient": SECOND, "delta": "weight"},
    "Elimination": {"coefficient": "loss", "scale": "weight"},
    "Orthogonal": {"coefficient": "loss"},
    "Spectral": {"coefficient": SECOND},
    "TowardAnchor": {"coefficient": f"{SECOND}, or {RATE} if decoupled"},
    "Decoupled": {"coefficient": RATE},
    "Independent": {"coefficient": "1 / step"},
    "Corrected": {"coefficient": RATE},
    "Cautious": {"coefficient": RATE},
    "Stable": {"coefficient": SECOND},
    "Adaptive": {"coefficient": "weight² / loss"},
    "ProximalL1": {"coefficient": FIRST},
    "ProximalL2": {"coefficient": SECOND},
    "ProximalElasticNet": {"l1_coefficient": FIRST, "l2_coefficient": SECOND},
    "ProximalGroupLasso": {"coefficient": FIRST},
    "Lp": {"coefficient": "weight^(2 - p) / (step · learning rate)", "p": "no unit"},
    "MaxNorm": {"bound": "weight"},
    "NormControl": {"coefficient": "1 / step", "ratio": "no unit"},
    "Constrained": {"bound": "weight²", "update_rate": "1 / weight²", "warm_start": "step"},
    "SelectiveProjection": {"coefficient": "no unit"},
}
"""Unit of each coefficient, by the rule's name and the coefficient's."""

_LOSSES = {"softmax_cross_entropy": "nats", "sigmoid_cross_entropy": "nats", "squared_error": "target²"}
_METRICS = {
    "penalty": "penalty",
    "weight_norm": "norm of the weights that decay, in units of weight",
    "zero_fraction": "exact zeros, share of the weights that decay",
}
_SPLITS = {"validation": "validation", "train": "training", "test": "test"}
_FIELDS = "|".join(sorted({name for rule in COEFFICIENTS.values() for name in rule}))
_COLUMN = re.compile(rf"(?:^|\.)({_FIELDS})(?:\[.*\])?$")


def is_coefficient(column: str) -> bool:
    """Whether a column of a table holds coefficients of a rule.

    Args:
      column: Such as ``"coefficient"``, ``"delta"``, ``"coefficient[Dense_0.kernel]"`` or ``"L2.coefficient"``.

    Returns:
      Whether it does.

    Examples:
      >>> [is_coefficient(name) for name in ("delta", "coefficient[Dense_[12].kernel]", "learning_rate")]
      [True, True, False]
    """
    return _COLUMN.search(column) is not None


def of_coefficient(rule: str, column: str = "coefficient") -> str:
    """Unit of a coefficient.

    Args:
      rule: Name of the rule, with its mask where it has one of its own (``"L2 on first"``), or several (``"L2 + L1"``).
      column: As for `is_coefficient`.

    Returns:
      The unit; ``"the unit of its rule"`` for a rule that is not known here.

    Examples:
      >>> of_coefficient("Decoupled")
      '1 / (step · learning rate)'
      >>> of_coefficient("L2 on first + ProximalL1", "ProximalL1.coefficient")
      'loss / weight'
    """
    found = _COLUMN.search(column)
    one_of_several = re.match(r"(\w+?)_?(?:\(\d+\)|_on_.*)?\.", column) if found and found.start() > 0 else None
    name = one_of_several.group(1) if one_of_several else re.split(r"\W", rule, maxsplit=1)[0]
    fields = COEFFICIENTS.get(name, {})
    unit = fields.get(found.group(1)) if found else None
    # A rule's only coefficient goes by the name "coefficient", whatever the rule calls it.
    return unit or (next(iter(fields.values())) if len(fields) == 1 else "the unit of its rule")


def axis_of_coefficients(rules: Iterable[tuple[str, str]]) -> str:
    """Label of an axis along which coefficients go.

    Args:
      rules: Names of rules, and the column of each one's coefficient.

    Returns:
      The label, with a unit for each rule.

    Examples:
      >>> axis_of_coefficients([("L2", "coefficient")])
      'coefficient c of L2, loss / weight²'
      >>> axis_of_coefficients([("L2", "coefficient"), ("L1", "coefficient")])
      'coefficient c: L2 in loss / weight²; L1 in loss / weight'
    """
    by_unit: dict[str, list[str]] = {}
    for rule, column in dict.fromkeys(rules):
        name = rule if column == "coefficient" else f"{rule} by {column}"
        by_unit.setdefault(of_coefficient(rule, column), []).append(name)
    if not by_unit:
        return "coefficient c, no unit (no rule here has one)"
    if len(by_unit) == 1:
        ((unit, names),) = by_unit.items()
        return f"coefficient c{f' of {names[0]}' if len(names) == 1 else ''}, {unit}"
    if sum(map(len, by_unit.values())) > 6:
        return "coefficient c, each in the unit of its rule"
    return "coefficient c: " + "; ".join(f"{', '.join(names)} in {unit}" for unit, names in by_unit.items())


def of_loss(loss: str | None) -> str:
    """Unit of a data loss.

    Args:
      loss: Its name; None where it is not known.

    Returns:
      The unit.
    """
    return _LOSSES.get(loss or "", "unit of the loss")


def axis_of_metric(metric: str, loss: str | None = None) -> str:
    """Label of an axis along which a metric goes.

    Args:
      metric: Name of a variable of the dataset, or of a column of the table.
      loss: Name of the data loss, for its unit; None where it is not known.

    Returns:
      The label.

    Examples:
      >>> axis_of_metric("validation_loss", "softmax_cross_entropy")
      'validation loss, nats'
      >>> axis_of_metric("train_accuracy")
      'training accuracy, share of examples'
    """
    split, _, rest = metric.partition("_")
    name = f"{_SPLITS[split]} {rest.replace('_', ' ')}" if split in _SPLITS and rest else metric.replace("_", " ")
    if metric in ("penalty", "generalization_gap") or rest == "loss":
        return f"{name}, {of_loss(loss)}"
    return _METRICS.get(metric, f"{name}, share of examples" if rest == "accuracy" else f"{name}, its own unit")
