"""The xarray dataset of a result: built from records, joined from two results, reduced to some members."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray

from weightdecay.core import rule_facts, tree
from weightdecay.decay import PerLayer
from weightdecay.decay.schedules import Parametric
from weightdecay.search import member as member_json
from weightdecay.storage.training_records import TrainingRecords


def build(members: Sequence[dict[str, Any]], steps: Sequence[int], records: TrainingRecords) -> xarray.Dataset:
    """Build the dataset of trained members.

    Args:
      members: Hyperparameters of each member by name.
      steps: Evaluation steps.
      records: Metrics and weights of the members.

    Returns:
      The dataset, as ``result.dataset``.
    """
    dimensions = ("member", "step", "layer")
    return xarray.Dataset(
        {name: (dimensions[: values.ndim], values) for name, values in records.metrics.items()}
        | {name: ("member", values) for name, values in records.marks.items()},
        coords={"member": np.arange(len(members), dtype=np.int32), "step": np.array(steps, np.int32)}
        | {"layer": records.layers}
        | {name: ("member", values) for name, values in coordinates(members).items()},
    )


def concatenate(first: xarray.Dataset, second: xarray.Dataset, members: Sequence[dict[str, Any]]) -> xarray.Dataset:
    """Concatenate the datasets of two results along the members.

    Args:
      first: Dataset of the first result.
      second: Dataset of the second result.
      members: Hyperparameters of all members, those of the first result before those of the second.

    Returns:
      The dataset; layers that only one of the results has are nan for the members of the other.

    Raises:
      ValueError: The results have different evaluation steps.
    """
    steps, others = first["step"].values, second["step"].values
    if not np.array_equal(steps, others):
        raise ValueError(
            f"second was evaluated at {len(others)} steps up to {others[-1]}, first at {len(steps)} up to {steps[-1]}; "
            "train both with the same num_steps and eval_every."
        )
    without_labels = [
        dataset.drop_vars([name for name, values in dataset.coords.items() if values.dims == ("member",)])
        for dataset in (first, second)
    ]
    joined = xarray.concat(
        without_labels, dim="member", data_vars="minimal", coords="minimal", compat="override", join="outer"
    )
    return joined.assign_coords(_member_coordinates(members))


def subset(dataset: xarray.Dataset, indices: Sequence[int], members: Sequence[dict[str, Any]]) -> xarray.Dataset:
    """Reduce a dataset to some members.

    Args:
      dataset: Dataset of all members.
      indices: Indices of the members that are kept.
      members: Hyperparameters of these members.

    Returns:
      The dataset, with members and candidates numbered anew.
    """
    coordinates_of_members = _member_coordinates(members)
    kept = dataset.isel(member=list(indices))
    dropped = [
        name
        for name, values in kept.coords.items()
        if values.dims == ("member",) and name not in coordinates_of_members
    ]
    return kept.drop_vars(dropped).assign_coords(coordinates_of_members)


def coordinates(members: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Compute the labels of the members: the rule's name, its coefficients, the other axes, the candidate.

    Args:
      members: Hyperparameters of each member by name.

    Returns:
      Arrays by name, each of shape ``(members,)``.
    """
    rows = [_labels(member) for member in members]
    names = dict.fromkeys(["decay", "coefficient", *(name for row in rows for name in row)])
    columns = {name: _column([row.get(name) for row in rows]) for name in names}
    return columns | {"candidate": np.array(member_json.candidates(members), np.int32)}


def _member_coordinates(members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    numbers = {"member": np.arange(len(members), dtype=np.int32)}
    return numbers | {name: ("member", values) for name, values in coordinates(members).items()}


def _column(values: Sequence[Any]) -> np.ndarray:
    """Make an array of numbers, with nan for None, or of strings, with an empty string for None."""
    if all(value is None or isinstance(value, bool | float | int | np.number) for value in values):
        has_none = any(value is None for value in values)
        return np.array([np.nan if value is None else value for value in values] if has_none else values)
    return np.array(["" if value is None else value if isinstance(value, str) else str(value) for value in values])


def _labels(member: Mapping[str, Any]) -> dict[str, Any]:
    """Compute the labels of one member."""
    decay = member["decay"]
    labels: dict[str, Any] = {"decay": decay.name}
    coefficients = decay.coefficients()
    for name, value in coefficients.items():
        name = "coefficient" if len(coefficients) == 1 else rule_facts.column(name)
        for leaf_name, leaf in tree.named_leaves(value):
            # netCDF allows no slash in a name, and no space in the name of a coordinate.
            column = (f"{name}[{leaf_name}]" if leaf_name else name).replace("/", ".").replace(" ", "_")
            labels[column] = float(leaf)
    for name, value in member.items():
        if isinstance(value, Parametric):
            labels |= {name: value.at_start(), f"{name}_schedule": str(value)}
        elif isinstance(value, PerLayer):
            rates = [rate for rate in (*value.coefficients.values(), value.default) if rate is not None]
            largest = max(rate.at_start() if isinstance(rate, Parametric) else float(rate) for rate in rates)
            labels |= {name: largest, f"{name}_schedule": str(value)}
        elif name != "decay":
            labels[name] = np.int32(value) if name in member_json.REPLICATES else value
    return labels
