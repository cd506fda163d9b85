"""Every notebook runs at a small size without warnings, and is committed with its outputs in order."""

import ast
import json
import os
import re
from pathlib import Path

import nbformat
import pytest

import weightdecay

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
# The content of the cell tagged "parameters" while a test runs the notebook: each of its names, with a smaller value.
SMALL = {
    "a_tenth_of_the_grid": {"NUM_STEPS": 20, "NUM_COEFFICIENTS": 5, "SEEDS": 2, "BUDGET": 0.3},
    "a_grid_of_thousands": {"NUM_CANDIDATES": 32, "SEEDS": 2, "NUM_STEPS": 20, "NUM_TRAIN": 100},
    "coupled_and_decoupled": {"NUM_STEPS": 20, "SEEDS": 2, "NUM_COEFFICIENTS": 4, "NUM_LEARNING_RATES": 3},
    "dropout_and_normalization": {
        "NUM_STEPS": 20,
        "NUM_TRAIN": 100,
        "NUM_COEFFICIENTS": 2,
        "DROPOUT_RATES": (0.0, 0.5),
        "NUM_TRIALS": 2,
        "SEEDS": 2,
    },
    "first_sweep": {"NUM_STEPS": 20, "SEEDS": 2, "NUM_COEFFICIENTS": 3, "LEARNING_RATES": [1e-3, 3e-3]},
    "l1_and_sparsity": {
        "NUM_LASSO_STEPS": 20,
        "NUM_ALPHAS": 3,
        "NUM_STEPS": 20,
        "NUM_COEFFICIENTS": 3,
        "SEEDS": 2,
    },
    "norms_and_rotation": {"NUM_STEPS": 40, "EVAL_EVERY": 10, "COEFFICIENTS": (0.3, 3.0), "SEEDS": 2},
    "repeated_text": {"NUM_STEPS": 20, "EPOCHS": (1, 4), "NUM_COEFFICIENTS": 2, "SEEDS": 2},
    "what_a_coefficient_means": {"NUM_STEPS": 20, "ALPHAS": [1.0, 100.0], "NUM_FREE_STEPS": 10},
    "your_own_network": {"NUM_STEPS": 20, "NUM_TRAIN": 100, "NUM_COEFFICIENTS": 2, "SEEDS": 2, "WIDTHS": (16,)},
}


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def assigned(cell):
    statements = ast.parse(cell.source).body
    assert all(isinstance(statement, ast.Assign) for statement in statements)
    return [target.id for statement in statements for target in statement.targets]


def pictures(cell):
    return sum("image/png" in output.get("data", {}) for output in cell.outputs)


def text(notebook):
    """Sources and outputs without the pictures, whose encoded bytes could look like paths."""
    for cell in code(notebook):
        for output in cell.outputs:
            output.get("data", {}).pop("image/png", None)
    return "\n".join(strings(json.loads(nbformat.writes(notebook))))


def strings(value):
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings(part)
    elif isinstance(value, str):
        yield value


def test_every_notebook_has_a_small_size():
    assert sorted(SMALL) == NOTEBOOKS


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_runs_at_a_small_size(name, tmp_path):
    from nbclient import NotebookClient

    notebook = read(name)
    drawn = [pictures(cell) for cell in code(notebook)]
    first = code(notebook)[0]
    assert first.metadata.get("tags") == ["parameters"]
    assert assigned(first) == list(SMALL[name])
    first.source = "\n".join(f"{parameter} = {value!r}" for parameter, value in SMALL[name].items())
    # The kernel draws into the notebook, and does not use the settings of the person who runs the test.
    environment = {variable: value for variable, value in os.environ.items() if variable != "MPLBACKEND"}
    environment |= {"IPYTHONDIR": str(tmp_path / "ipython"), "PYTHONPATH": str(FOLDER.parent)}
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    client.execute(env=environment)
    printed = [output.text for cell in code(notebook) for output in cell.outputs if output.get("name") == "stderr"]
    assert not printed  # a warning, or a progress bar
    assert [pictures(cell) for cell in code(notebook)] == drawn


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_is_committed_as_it_ran(name):
    cells = code(read(name))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        assert all(output.output_type != "error" and output.get("name") != "stderr" for output in cell.outputs)
        shows = not isinstance(
            ast.parse(cell.source).body[-1], ast.Assign | ast.Import | ast.ImportFrom | ast.FunctionDef
        )
        assert bool(cell.outputs) or not shows
    assert sum(map(pictures, cells)) > 0
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 500_000


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_names_no_absolute_path(name):
    notebook = read(name)
    absolute = re.findall(r"(?<![\w:/.<)*])(?:/[A-Za-z_][\w.-]*){2,}|\b[A-Za-z]:\\\w+|file://\S+", text(notebook))
    assert not absolute
    assert notebook.metadata.kernelspec.name == "python3"
    assert all("execution" not in cell.metadata for cell in notebook.cells)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_asks_one_question_and_answers_it(name):
    cells = read(name).cells
    titles = [
        line for cell in cells if cell.cell_type == "markdown" for line in cell.source.splitlines() if line[:2] == "# "
    ]
    assert cells[0].cell_type == "markdown"
    assert cells[0].source.startswith("# ")
    assert len(titles) == 1
    assert titles[0].endswith("?")
    assert cells[-1].source.startswith("## Answer\n")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_uses_only_public_names(name):
    for cell in code(read(name)):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith("weightdecay")
            elif isinstance(node, ast.Import):
                imported = [(alias.name, alias.asname) for alias in node.names if alias.name.startswith("weightdecay")]
                assert imported in ([], [("weightdecay", "wd")])
            elif isinstance(node, ast.Attribute):
                assert not node.attr.startswith("_")
                if isinstance(node.value, ast.Name) and node.value.id == "wd":
                    assert node.attr in weightdecay.__all__
