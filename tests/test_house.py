"""The house: eleven rooms whose imports only go down, a whole face, and nothing imported that is not used."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import weightdecay

PACKAGE = Path(weightdecay.__file__).parent
# What each room may import in addition to itself. A room imports only from rooms above its own row.
ROOMS = {
    "core": set(),
    "decay": {"core"},
    "models": {"core"},
    "data": {"core"},
    "plots": {"core"},
    "training": {"core", "decay", "models", "data"},
    "search": {"core", "decay"},
    "storage": {"core", "search"},
    "results": {"core", "decay", "search", "storage", "plots"},
    "engine": {"core", "decay", "models", "data", "plots", "training", "search", "storage", "results"},
    "apps": {"core", "decay", "models", "data", "plots", "training", "search", "storage", "results", "engine"},
}
FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
MODULES = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}


def imported(path):
    """Modules of the package that a file imports, as dotted names below ``weightdecay``; a face counts as its room."""
    modules = set()
    for node in ast.walk(ast.parse((PACKAGE / path).read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.split(".")[0] == "weightdecay"]
            modules |= {name.removeprefix("weightdecay").removeprefix(".") for name in names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "weightdecay":
            base = node.module.removeprefix("weightdecay").removeprefix(".")
            for alias in node.names:
                dotted = f"{base}.{alias.name}".removeprefix(".")
                modules.add(dotted if dotted in MODULES else base)
    return modules


def arrows():
    """Pairs of rooms, importer and imported, with the files that draw each arrow."""
    drawn = {}
    for path in FILES:
        if len(path.parts) > 1:
            for module in imported(path):
                drawn.setdefault((path.parts[0], module.split(".")[0]), []).append(f"{path} -> {module}")
    return drawn


def test_package_holds_rooms_and_its_face_alone():
    entries = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert entries == {"__init__.py", "__init__.pyi", "py.typed", *ROOMS}
    assert all((PACKAGE / room / "__init__.py").is_file() for room in ROOMS)


@pytest.mark.slow
@pytest.mark.parametrize("room", ROOMS)
def test_room_imports_what_its_row_permits(room):
    unpermitted = {target: files for (source, target), files in arrows().items() if source == room and target != source}
    unpermitted = {target: files for target, files in unpermitted.items() if target not in ROOMS[room]}
    assert not unpermitted, f"{room} may not import {unpermitted}"


def test_table_of_rooms_has_no_arrow_up():
    order = list(ROOMS)
    assert all(order.index(target) < order.index(room) for room, targets in ROOMS.items() for target in targets)


def test_files_import_each_other_in_no_circle():
    # A room's face imports its files, and its files import each other, never the face of their own room.
    waiting = {
        name: {module for module in imported(path) if module in MODULES and module != name}
        for name, path in MODULES.items()
        if name
    }
    while ready := [name for name, needs in waiting.items() if not needs & waiting.keys()]:
        for name in ready:
            del waiting[name]
    assert not waiting, f"files in a circle: {sorted(waiting)}"


def test_every_room_has_tests_of_its_own():
    tests = Path(__file__).parent
    assert {path.parent.name for path in tests.glob("*/test_*.py")} == set(ROOMS)


# What each file maps a function over. Only the engine knows that there is more than one member.
MAPPED = {
    "engine/lane_programs.py": "members",
    "models/equinox.py": "examples, since a module of equinox sees one",
    "models/network.py": "an axis of size 1, for layers that average over an axis by its name",
    **dict.fromkeys(
        [f"decay/{name}.py" for name in ("laid_out", "layout", "penalties", "preconditioners", "proximal")],
        "matrices that one array stacks",
    ),
}


def test_members_are_batched_in_one_file_alone():
    mapping = {str(path) for path in FILES if re.search(r"\bvmap\(", (PACKAGE / path).read_text())}
    assert mapping == {*MAPPED}


def test_face_loads_every_name_that_it_lists():
    listed = ast.parse((PACKAGE / "__init__.pyi").read_text()).body[-1].value
    names = [element.value for element in listed.elts]
    assert sorted(weightdecay.__all__) == sorted(names)
    for name in names:
        assert getattr(weightdecay, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = weightdecay.nothing


def modules_after(code):
    loaded = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(loaded.stdout.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import weightdecay", {"jax", "numpy"}),
        ("import weightdecay.apps.cli", {"jax", "numpy", "pandas", "matplotlib", "sklearn"}),
        ("import weightdecay as wd; wd.adam(1e-3, wd.L2(0.1))", {"flax", "pandas", "xarray", "matplotlib", "sklearn"}),
        ("import weightdecay as wd; wd.fit_grid", {"matplotlib", "sklearn"}),
        (
            "import weightdecay as wd; wd.fit_grid; wd.trackers.MLflow, wd.trackers.WandB, wd.trackers.TensorBoard",
            {"mlflow", "wandb", "tensorboardX", "optuna"},
        ),
    ],
)
def test_import_loads_nothing_that_is_not_used(code, unwanted):
    assert not modules_after(code) & unwanted


UNWANTED = "|".join(
    rf"\b(?:{word})\b"
    for word in (
        *("told", "foretells?", "foretold", "beside", "stretch(?:es)?", "whole numbers?", "divided by commas"),
        "stands? (?:in|at|before|under)",
    )
)
"""Words that plain technical English does not use, or not in this sense; see the style in CONTRIBUTING.md."""


def texts():
    """What a reader reads: the source of the package, its guides, the documents and the prose of the notebooks."""
    root = PACKAGE.parent
    for path in [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyi"), *PACKAGE.rglob("*.md"), *root.glob("*.md")]:
        yield path.relative_to(root), path.read_text(encoding="utf-8")
    for path in root.glob("notebooks/*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        prose = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
        yield path.relative_to(root), "\n".join(prose)


def test_texts_are_in_plain_words():
    lines = [
        f"{path}:{number}: {line.strip()}"
        for path, text in texts()
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(UNWANTED, line, flags=re.IGNORECASE)
    ]
    assert lines == []
