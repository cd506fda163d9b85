"""The README's code runs as written, and its table of rules says what the docstrings say."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from weightdecay import decay
from weightdecay.apps.cli import app

README = Path(__file__).parent.parent / "README.md"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(encoding="utf-8"), flags=re.S | re.M)


@pytest.mark.parametrize("index", range(4))
def test_readme_python_runs_as_written(index, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert len(blocks("python")) == 4
    exec(compile(blocks("python")[index], "README.md", "exec"), {})
    assert capsys.readouterr().out in ("", *blocks("text"))


def test_readme_converts_as_shown():
    command = next(block for block in blocks("console") if block.startswith("weightdecay convert"))
    shown = CliRunner().invoke(app, shlex.split(command)[1:])
    assert shown.exit_code == 0
    assert shown.stdout in blocks("text")


@pytest.mark.parametrize("name", decay.KINDS)
def test_readme_has_each_rule_with_its_own_formula(name):
    # A bar that stands in a formula is escaped in a table.
    (row,) = re.findall(rf"^\| `{name}` \| `(.*?)` \| (.*?) ?\| ", README.read_text(encoding="utf-8"), flags=re.M)
    formula, unit = (cell.replace("\\|", "|") for cell in row)
    docstring = " ".join((decay.KINDS[name].__doc__ or "").split())
    assert formula == re.findall(r"``(.*?)``", docstring)[0]
    for part in unit.strip().split(", "):
        assert part in docstring


def test_readme_names_files_that_are_there():
    text = README.read_text(encoding="utf-8")
    named = re.findall(r"`(?:python )?((?:tests|benchmarks|weightdecay)/[\w/]+\.py)", text) + re.findall(
        r"\]\((.*?)\)", text
    )
    assert len(named) > 40
    assert [name for name in named if not (README.parent / name).is_file()] == []


def test_readme_names_every_command():
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert set(re.findall(r"^\| `weightdecay (\w+) ", README.read_text(encoding="utf-8"), flags=re.M)) == commands


def test_readme_begins_with_the_command_and_its_plot():
    assert "weightdecay sweep digits" in blocks("console")[0]
    assert (README.parent / "notebooks" / "figures" / "noisy-digits.png").read_bytes().startswith(b"\x89PNG")
