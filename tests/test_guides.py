"""The guides of the reference: their code runs, their commands work, and their tables agree with the code."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

import weightdecay
from weightdecay import decay
from weightdecay.apps.cli import app
from weightdecay.decay import masks, registry
from weightdecay.training.task import REGULARIZERS

ROOT = Path(__file__).parent.parent
PACKAGE = Path(weightdecay.__file__).parent
GUIDES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.md"))


def text(guide):
    return (PACKAGE / guide).read_text(encoding="utf-8")


def blocks(guide):
    """The fenced blocks of a guide in their order, as pairs of language and content."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", text(guide), flags=re.S | re.M)


def cases(language):
    return [
        pytest.param(guide, index, id=f"{guide}:{index}")
        for guide in GUIDES
        for index, (name, _) in enumerate(blocks(guide))
        if name == language
    ]


def shown_after(guide, index):
    """What a guide shows as the output of a block: the text block that follows it, or nothing."""
    following = blocks(guide)[index + 1 : index + 2]
    return following[0][1] if following and following[0][0] == "text" else None


def rows(guide, title):
    """The first column of the table that has a title in its head, without the marks of code."""
    head, _, *lines = re.search(rf"^\| {title} .*?(?=\n\n|\Z)", text(guide), flags=re.S | re.M).group(0).splitlines()
    assert head.startswith(f"| {title} |")
    return [re.split(r"(?<!\\)\|", line)[1].strip() for line in lines]


@pytest.mark.parametrize("guide", GUIDES)
def test_guide_is_on_the_page_of_its_room(guide):
    folder, name = guide.split("/")
    docstring = (PACKAGE / folder / "__init__.py").read_text(encoding="utf-8").split('"""')[1]
    assert f"\n.. include:: {name}\n" in docstring


@pytest.mark.slow
@pytest.mark.parametrize(("guide", "index"), cases("python"))
def test_guide_python_runs_as_written(guide, index, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks(guide)[index][1], guide, "exec"), {})
    assert capsys.readouterr().out == (shown_after(guide, index) or "")


class Accepted(Exception):
    """Raised in place of training, with the arguments of the training."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args)
        self.arguments = kwargs


@pytest.fixture
def without_training(monkeypatch):
    """Let commands stop where they would begin to train."""

    def accept(*args, **kwargs):
        raise Accepted(*args, **kwargs)

    monkeypatch.setattr("weightdecay.engine.fit.fit_grid", accept)
    monkeypatch.setattr("weightdecay.apps.comparison.compare", accept)


@pytest.mark.slow
@pytest.mark.parametrize(("guide", "index"), cases("console"))
def test_guide_commands_work(guide, index, tmp_path, monkeypatch, without_training):
    monkeypatch.chdir(tmp_path)
    for line in blocks(guide)[index][1].splitlines():
        program, command, *arguments = shlex.split(line)
        assert program == "weightdecay"
        shown = CliRunner().invoke(app, [command, *arguments])
        if command in ("sweep", "compare"):
            assert isinstance(shown.exception, Accepted), shown.output
        else:
            assert shown.exit_code == 0, shown.output
            assert shown_after(guide, index) in (None, shown.stdout)
        if command == "sweep":
            grid, optimizer = (shown.exception.arguments[name] for name in ("grid", "optimizer"))
            rules = arguments[arguments.index("--rules") + 1].split(",")
            assert {member["decay"].name for member in grid} == {"NoDecay", *rules}
            for member in grid:  # the optimizer takes the rule
                jax.eval_shape(optimizer(member["learning_rate"], member["decay"]).init, {"kernel": jnp.zeros((2, 2))})


@pytest.mark.parametrize("guide", GUIDES)
def test_guide_names_files_that_exist(guide):
    named = re.findall(r"`(?:python )?((?:tests|benchmarks|weightdecay)/[\w/]+\.\w+)", text(guide))
    assert [name for name in named if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("guide", GUIDES)
def test_guide_links_to_its_own_headings_alone(guide):
    # A guide is read as a file and as a part of a page: a link to another file would break in one of the two.
    prose = re.sub(r"^```.*?^```$", "", text(guide), flags=re.S | re.M)
    headings = {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.*)$", prose, re.M)
    }
    links = re.findall(r"\]\(([^)]*)\)", prose)
    assert {link.removeprefix("#") for link in links} <= headings


@pytest.mark.parametrize("guide", GUIDES)
def test_guide_names_things_that_exist(guide):
    for dotted in set(re.findall(r"\bwd((?:\.[A-Za-z]\w*)+)", text(guide))):
        thing = weightdecay
        for name in dotted.split(".")[1:]:
            thing = getattr(thing, name)
    for name in set(re.findall(r"`result\.(\w+)", text(guide))) | set(re.findall(r"`(plot_\w+)`", text(guide))):
        assert hasattr(weightdecay.GridResult, name) or name in ("dataset", "settings")


def test_rules_guide_has_the_table_of_the_registry():
    assert f"\n{registry.table().strip()}\n" in text("decay/rules.md")


def test_choosing_guide_searches_within_the_ranges_of_the_rules():
    (table,) = re.findall(r"^\| situation .*?(?=\n\n)", text("decay/choosing.md"), flags=re.S | re.M)
    number_of_ranges = 0
    for line in table.splitlines()[2:]:
        cells = line.split("|")
        kinds = [decay.KINDS[name] for name in re.findall(r"`(\w+)`", cells[2])]
        for low, high in re.findall(r"([\d.e-]+) to ([\d.e-]+)", cells[4]):
            number_of_ranges += 1
            limits = [kind.search_range for kind in kinds if kind.search_range is not None]
            assert any(smallest <= float(low) < float(high) <= largest for smallest, largest in limits), line
    assert number_of_ranges >= 10


def test_choosing_guide_names_rules_that_exist():
    named = set(re.findall(r"`([A-Z]\w+)[`(]", text("decay/choosing.md"))) - {"LogTime", "EarlyOnly"}
    assert len(named) >= 20
    assert named <= {*decay.KINDS, "Masked", "PerLayer", "Touched"}


def test_choosing_guide_gives_a_source_for_each_situation():
    situations = re.split(r"^## ", text("decay/choosing.md"), flags=re.M)[1:]
    assert len(situations) >= 10
    for situation in situations:
        assert re.search(r"\b(19|20)\d\d\b", situation)
        assert "```" in situation


def test_masks_guide_has_every_mask():
    named = {re.match(r"`wd\.masks\.(\w+)", row).group(1) for row in rows("decay/masks.md", "mask")}
    assert named == {*masks.NAMED, "matching"}


def test_grids_guide_has_every_regularizer():
    row = next(row for row in rows("search/grids.md", "axis") if "dropout_rate" in row)
    assert set(re.findall(r"`(\w+)`", row)) == {"patience", "dropout_rate", *REGULARIZERS}


def test_data_guide_says_how_arrays_are_understood():
    assert "refused; say `classes=True` (labels) or `classes=False` (a quantity)" in text("data/your_own_data.md")
    inputs, prices = np.arange(200).reshape(100, 2), np.arange(100) % 5 * 10000 + 180000
    with pytest.raises(ValueError, match="classes"):
        weightdecay.data.split(inputs, prices)
    assert weightdecay.data.split(inputs, prices, classes=False).train[1].dtype == np.float32
    labelled = weightdecay.data.split(inputs, prices, classes=True)
    assert labelled.class_names == (180000, 190000, 200000, 210000, 220000)
    assert labelled.train[1].max() == 4
    assert labelled.train[0].dtype == np.float32
    assert weightdecay.data.split(inputs, prices, classes=True, tokens=True).train[0].dtype == np.int32


def test_glossary_has_the_terms_of_the_project():
    assert [row.strip("*") for row in rows("core/glossary.md", "term")] == [
        *("rule", "coefficient", "mask", "time scale"),
        *("grid", "member", "candidate", "replicate", "group", "lane", "segment", "plan"),
        *("run directory", "result folder"),
    ]


def test_faults_guide_names_a_test_for_each_row():
    for line in re.search(r"^\| what happens .*?\n\n", text("engine/running.md"), flags=re.S | re.M)[0].splitlines()[
        2:
    ]:
        if line:
            assert re.search(r"\| `tests/\w+/\w+\.py`(, `tests/\w+/\w+\.py`)* \|$", line)


def test_speed_guide_names_the_processor_of_each_table():
    sections = re.split(r"^## ", text("engine/speed.md"), flags=re.M)[1:]
    tables = [section for section in sections if "| small |" in section]
    assert [re.match(r"AMD EPYC|Intel Xeon", section) is not None for section in tables] == [True, True]


@pytest.mark.slow
def test_reference_has_a_page_for_each_room_and_its_front_page_leads_to_the_guides(tmp_path):
    pytest.importorskip("pdoc")
    command = [sys.executable, "-W", "error", "-m", "weightdecay.apps.reference", tmp_path]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms == {path.stem for path in (tmp_path / "weightdecay").glob("*.html")}
    links = re.findall(r"\]\((\S+)#(\S+)\)", weightdecay.__doc__ or "")
    assert len(links) > 10
    for page, heading in links:
        assert f'id="{heading}"' in (tmp_path / page).read_text(encoding="utf-8")
