"""The README's code runs as written, what it names exists, and its figures are those of the guides."""

import re
from pathlib import Path

import pytest

from weightdecay.apps.cli import app

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


def text():
    return README.read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text(), flags=re.S | re.M)


@pytest.mark.slow
@pytest.mark.parametrize("index", range(2))
def test_readme_python_runs_as_written(index, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert len(blocks("python")) == 2
    exec(compile(blocks("python")[index], "README.md", "exec"), {})
    assert capsys.readouterr().out == ""


def test_readme_fits_on_two_screens():
    assert len(text().splitlines()) <= 160
    assert all(len(block.splitlines()) <= 13 for block in blocks("python"))


def test_readme_names_files_that_exist():
    named = re.findall(r"`(?:python )?((?:tests|benchmarks|weightdecay)/[\w/]+\.\w+)", text())
    named += re.findall(r"\]\((.*?)\)", text())
    assert len(named) > 40
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_readme_links_to_every_guide_and_notebook():
    linked = set(re.findall(r"\]\((.*?)\)", text()))
    for pattern in ("weightdecay/*/*.md", "notebooks/*.ipynb"):
        assert {path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern)} <= linked


def test_readme_names_every_command():
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert set(re.findall(r"^\| `weightdecay (\w+) ", text(), flags=re.M)) == commands


def test_readme_begins_with_the_command_and_its_plot():
    assert "weightdecay sweep digits" in blocks("console")[0]
    assert (ROOT / "notebooks" / "figures" / "noisy-digits.png").read_bytes().startswith(b"\x89PNG")


def test_readme_speeds_are_those_of_the_tables_and_name_their_processor():
    (paragraph,) = re.findall(r"^## Speed\n\n(.*?)\n\n", text(), flags=re.S | re.M)
    guide = (ROOT / "weightdecay" / "engine" / "speed.md").read_text(encoding="utf-8")
    for processor in ("AMD EPYC", "Intel Xeon"):
        (section,) = re.findall(rf"^## {processor}.*?(?=^## )", guide, flags=re.S | re.M)
        factors = [
            [float(cell) for cell in line.split("|")[2:6] if cell.strip()]
            for line in re.findall(r"^\| (?:loop|torch|`Grid|hand).*$", section, flags=re.M)
        ]
        assert len(factors) == 6
        dense = [factor for row in factors for factor in row[:3]]
        sentence = paragraph.split(processor)[1].split(":")[0].split(". ")[0]
        assert f"{min(dense):.1f} to {max(dense):.0f}" in " ".join(sentence.split())
        assert factors[0][3] < 1  # a plain torch loop on convolutions


def contributing():
    return (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_contributing_names_files_that_exist():
    named = re.findall(r"`((?:tests|benchmarks|weightdecay|\.ci)/[\w/.]*)`", contributing())
    assert len(set(named)) > 20
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_contributing_has_a_skeleton_and_a_checklist_for_each_kind_of_part(monkeypatch):
    monkeypatch.setattr("weightdecay.data.registry.BUILT_IN", {})  # one skeleton registers itself
    sections = dict(re.findall(r"^## Where does my ([\w ]+) live\?\n(.*?)(?=^## )", contributing(), flags=re.S | re.M))
    assert list(sections) == ["rule", "mask", "metric", "data source", "plot", "strategy", "executor"]
    assert all("```python" in section and section.count("- [ ] ") >= 2 for section in sections.values())
    for name, section in sections.items():
        for skeleton in re.findall(r"^```python\n(.*?)^```$", section, flags=re.S | re.M):
            exec(compile(skeleton, f"CONTRIBUTING.md, {name}", "exec"), {"__name__": "skeleton"})


def test_citation_and_changelog_name_the_version():
    (version,) = re.findall(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), flags=re.M)
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## [{version}] - " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_contributing_skeletons_of_strategy_and_executor_give_the_same_bits(monkeypatch):
    import weightdecay as wd

    def fit():
        grid = wd.Grid(decay=wd.logspace(wd.L2, 1e-3, 1e-1, 3), learning_rate=1e-3)
        return wd.fit_grid(
            wd.models.MLP((4,)),
            wd.data.digits(num_train=50),
            grid,
            num_steps=4,
            batch_size=16,
            plan=wd.Plan(2, 1),
            progress=False,
        )

    monkeypatch.setattr("weightdecay.data.registry.BUILT_IN", {})
    expected, names = fit(), {}
    for skeleton in re.findall(r"^```python\n(.*?)^```$", contributing(), flags=re.S | re.M):
        exec(compile(skeleton, "CONTRIBUTING.md", "exec"), names)
    monkeypatch.setattr("weightdecay.engine.lanes.schedule", names["shortest_first"])
    monkeypatch.setattr("weightdecay.engine.workers.distribute", names["one_after_another"])
    assert fit().dataset.identical(expected.dataset)
