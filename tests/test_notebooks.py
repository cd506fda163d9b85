"""Every notebook runs at a small size without warnings, and is committed with its outputs in order."""

import ast
import json
import re
import runpy
from pathlib import Path

import nbformat
import pytest

import weightdecay

FOLDER = Path(__file__).parent.parent / "notebooks"
INDEX = (FOLDER / "README.md").read_text(encoding="utf-8")
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
RUN = runpy.run_path(str(FOLDER / "run.py"))


def read(name):
    return RUN["read"](name)


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
    assert sorted(RUN["SMALL"]) == NOTEBOOKS


def test_index_has_every_notebook_with_its_title():
    rows = re.findall(r"^\| (\d+) \| \[(.*?)\]\((\w+)\.ipynb\) \| (start|middle|far) \|", INDEX, flags=re.M)
    assert sorted(name for _, _, name, _ in rows) == NOTEBOOKS
    assert [int(number) for number, *_ in rows] == list(range(1, len(rows) + 1))
    assert all(f"# {title}" == read(name).cells[0].source.splitlines()[0] for _, title, name, _ in rows)
    levels = [("start", "middle", "far").index(level) for *_, level in rows]
    assert levels == sorted(levels)


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_runs_at_a_small_size(name, tmp_path):
    notebook, small = read(name), RUN["SMALL"][name]
    drawn = [pictures(cell) for cell in code(notebook)]
    first = code(notebook)[0]
    assert first.metadata.get("tags") == ["parameters"]
    assert assigned(first) == list(small)
    RUN["executed"](notebook, tmp_path, small)
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
