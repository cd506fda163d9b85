"""A result folder and a run directory that release 0.1.0 wrote still load, with the numbers that it printed."""

from pathlib import Path

import numpy as np
import pytest

import weightdecay as wd
from compare import same_bits
from weightdecay.storage import run_directory

WRITTEN = Path(__file__).parent / "written_by_0_1_0"


@pytest.fixture(scope="module", params=["folder", "run"])
def result(request):
    return wd.load(WRITTEN / request.param)


def test_members_and_choice_are_those_that_were_written(result):
    assert len(result) == 28
    best = result.best()
    assert str(best.decay) == "L2({Dense_0: 0.001, .*: 0.0001})"
    assert best.hyperparameters["learning_rate"] == 0.003
    assert (round(best.mean, 4), round(best.standard_error, 4)) == (2.2122, 0.0211)


def test_table_has_the_numbers_that_were_printed(result):
    table = result.table()
    assert list(table["decay"][::2]) == [
        *("NoDecay", "L2", "Decoupled", "L2 + ProximalL1", "MaxNorm", "L2", "TowardAnchor"),
    ]
    printed = {
        "validation_loss": [2.312353, 2.214018, 2.312224, 2.212525, 2.310947, 2.216262, 2.312055],
        "penalty": [0.0, 0.0, 0.008948, 0.008676, 0.0, 0.0, 0.007487],
        "weight_norm": [4.275119, 4.279921, 4.230129, 4.165159, 4.232614, 4.154428, 4.118605],
        "zero_fraction": [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.112331],
    }
    for name, values in printed.items():
        np.testing.assert_allclose(table[name][:7], values, atol=6e-7)


def test_weights_are_those_that_the_metrics_measured(result):
    norms = result.dataset["weight_norm"].values[:, -1]
    for member in range(len(result)):
        params = result.params(member)
        assert {name: sorted(layer) for name, layer in params.items()} == {
            "Dense_0": ["bias", "kernel"],
            "Dense_1": ["bias", "kernel"],
        }
        kernels = np.concatenate([layer["kernel"].ravel() for layer in params.values()])
        np.testing.assert_allclose(np.linalg.norm(kernels), norms[member], rtol=1e-6)


def test_a_result_that_is_saved_again_is_the_same(result, tmp_path):
    result.save(tmp_path / "again")
    again = wd.load(tmp_path / "again")
    assert again.dataset.identical(result.dataset)
    for member in range(len(result)):
        same_bits(again.params(member), result.params(member))


def test_the_description_of_the_run_is_read():
    description = run_directory.read_description(WRITTEN / "run")
    assert (description["num_steps"], description["depends_on"]["batch_size"]) == (20, 16)
