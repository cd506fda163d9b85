"""Labels of axes, with the unit of each coefficient and each metric."""

import re
from collections.abc import Iterable

from weightdecay.core import metrics, rule_facts

_LOSSES = {"softmax_cross_entropy": "nats", "sigmoid_cross_entropy": "nats", "squared_error": "target²"}


def is_coefficient(column: str) -> bool:
    """Whether a column of a table has coefficients of a rule.

    Args:
      column: Name such as ``"coefficient"``, ``"delta"``, ``"coefficient[Dense_0.kernel]"`` or ``"L2.coefficient"``.

    Returns:
      Whether it has.

    Examples:
      >>> import weightdecay.decay.registry  # enters the names and units of coefficients
      >>> [is_coefficient(name) for name in ("delta", "coefficient[Dense_[12].kernel]", "learning_rate")]
      [True, True, False]
    """
    return _match(column) is not None


def of_coefficient(rule: str, column: str = "coefficient") -> str:
    """Return the unit of a coefficient.

    Args:
      rule: Name of the rule, with its mask if it has its own (``"L2 on first"``), or of several rules (``"L2 + L1"``).
      column: As for `is_coefficient`.

    Returns:
      The unit; ``"the unit of its rule"`` for an unknown rule.

    Examples:
      >>> import weightdecay.decay.registry  # enters the names and units of coefficients
      >>> of_coefficient("Decoupled")
      '1 / (step · learning rate)'
      >>> of_coefficient("L2 on first + ProximalL1", "ProximalL1.coefficient")
      'loss / weight'
    """
    found = _match(column)
    one_of_several = re.match(r"(\w+?)_?(?:\(\d+\)|_on_.*)?\.", column) if found and found.start() > 0 else None
    name = one_of_several.group(1) if one_of_several else re.split(r"\W", rule, maxsplit=1)[0]
    facts = rule_facts.of_rule(name)
    if facts is None:
        return "the unit of its rule"
    # The only coefficient of a rule has the column "coefficient", whatever the field of the rule is called.
    field = facts.names[0] if len(facts.names) == 1 else found.group(1) if found else None
    return facts.units.get(field or "", "the unit of its rule")


def name_of(column: str) -> str:
    """Return a column of a table in words.

    Args:
      column: A hyperparameter, such as a coefficient as for `is_coefficient`.

    Returns:
      The words.

    Examples:
      >>> name_of("learning_rate"), name_of("coefficient[Dense_0]"), name_of("L2_on_first.coefficient")
      ('learning rate', 'coefficient of Dense_0', 'L2 on first')
      >>> name_of("Huber.delta")
      'delta of Huber'
    """
    column, bracket, layer = column.partition("[")
    rule, _, field = column.rpartition(".")
    words = field.replace("_", " ")
    rule = rule.replace("_", " ")
    named = words if not rule else rule if field == "coefficient" else f"{words} of {rule}"
    return f"{named} of {layer.removesuffix(']')}" if bracket else named


def _match(column: str) -> re.Match[str] | None:
    """Match the name of a coefficient in the name of a column."""
    names = "|".join(map(re.escape, sorted({"coefficient", *rule_facts.coefficient_names()})))
    return re.search(rf"(?:^|\.)({names})(?:\[.*\])?$", column)


def axis_of_coefficients(rules: Iterable[tuple[str, str]]) -> str:
    """Return the label of an axis of coefficients.

    Args:
      rules: Pairs of a rule's name and the column of its coefficient.

    Returns:
      The label, with the unit of each rule.

    Examples:
      >>> import weightdecay.decay.registry  # enters the names and units of coefficients
      >>> axis_of_coefficients([("L2", "coefficient")])
      'coefficient c of L2, loss / weight²'
      >>> axis_of_coefficients([("L2", "coefficient"), ("L1", "coefficient")])
      'coefficient c: L2 in loss / weight²; L1 in loss / weight'
    """
    by_unit: dict[str, list[str]] = {}
    for rule, column in dict.fromkeys(rules):
        name = rule if column == "coefficient" else f"{rule} by {name_of(column)}"
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
    """Return the unit of a data loss.

    Args:
      loss: Its name; None = unknown.

    Returns:
      The unit.
    """
    return _LOSSES.get(loss or "", metrics.LOSS_UNIT)


def axis_of_metric(metric: str, loss: str | None = None) -> str:
    """Return the label of an axis of a metric.

    Args:
      metric: Name of a variable of the dataset, or of a column of the table.
      loss: Name of the data loss, for its unit; None = unknown.

    Returns:
      The label.

    Examples:
      >>> axis_of_metric("validation_loss", "softmax_cross_entropy")
      'validation loss, nats'
      >>> axis_of_metric("train_accuracy")
      'training accuracy, fraction of examples'
    """
    return metrics.axis_label(metric, of_loss(loss))
