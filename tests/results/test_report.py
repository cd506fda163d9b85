"""The report: one page that stands alone, begins with the decision, and opens in a browser."""

import base64
import html
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from typer.testing import CliRunner

import weightdecay as wd
from weightdecay.apps import cli
from weightdecay.core import html as markup
from weightdecay.engine import plans
from weightdecay.results import dataset as datasets
from weightdecay.results.report import figures
from weightdecay.results.report import page as report
from weightdecay.storage import result_folder

SECTIONS = [
    "Decision",
    "Choice",
    "Candidates",
    "Plots",
    "Grid",
    "Data",
    "Model",
    "Settings",
    "Plan",
    "Seeds",
    "Versions",
    "Failures",
]
DATA = wd.data.digits(num_train=80)
DECAY = [wd.NoDecay(), *wd.logspace(wd.L2, 1e-4, 1e-1, 2), wd.ProximalL1(1e-2)]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
VOID = {"meta", "img", "br", "link", "input", "hr"}


def train(grid, data=DATA, **settings):
    asked = {"num_steps": 20, "batch_size": 20, "eval_every": 5, "progress": False, **settings}
    return wd.fit_grid(wd.models.MLP((8,)), data, grid, **asked)


@pytest.fixture(scope="module")
def result():
    return train(wd.Grid(decay=DECAY, learning_rate=[1e-3, 1e-2], seed=range(3)))


@pytest.fixture(scope="module")
def page(result):
    return report.page(result)


@pytest.fixture
def undrawn(monkeypatch):
    """Leave out the plots, which take most of the time."""
    monkeypatch.setattr(figures, "of", lambda *_: [])


class Page(HTMLParser):
    """The text of each section, the rows of its tables, its plots; refuses tags that do not fit together."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.sources, self.links, self.alts = [], [], [], [], []
        self.sections, self.rows, self.headings, self.tags = {"": ""}, {"": []}, [], set()
        self.section = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        told = dict(attributes)
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [told["id"]] if "id" in told else []
        if tag == "section":
            self.section = told["id"]
            self.sections[self.section], self.rows[self.section] = "", []
        if tag == "tr":
            self.rows[self.section].append([])
        if tag in ("td", "th"):
            self.rows[self.section][-1].append("")
        if tag == "h2":
            self.headings.append("")
        if tag == "img":
            self.alts.append(told["alt"])
        self.sources += [told["src"]] if "src" in told else []
        self.links += [told["href"]] if "href" in told else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.section = "" if tag == "section" else self.section

    def handle_data(self, text):
        if {"style", "title", "script"} & set(self.open):
            return
        self.sections[self.section] += text
        if {"td", "th"} & set(self.open):
            self.rows[self.section][-1][-1] += text
        if self.open and self.open[-1] == "h2":
            self.headings[-1] += text

    def facts(self, section):
        return {row[0]: row[1] for row in self.rows[section] if len(row) == 2}

    def table(self, section):
        head, *rows = self.rows[section]
        return [dict(zip(head, row, strict=True)) for row in rows if row != head]


@pytest.mark.slow
def test_page_begins_with_the_decision_and_has_every_section(result, page):
    read = Page(page)
    assert read.headings == SECTIONS
    assert [name for name in read.ids if name in read.sections] == [name.lower() for name in SECTIONS]
    head, sentence = read.sections[""], result.best().sentence
    assert head.split() == ["Weight", "decay", "report:", *"8 candidates, 24 members, 20 training steps".split()]
    assert read.sections["decision"].split("\n")[2] == sentence
    assert f"<title>Weight decay report: {html.escape(sentence)}</title>" in page


@pytest.mark.slow
def test_page_stands_alone(page):
    read = Page(page)
    assert len(read.sources) == len(read.alts) > 5
    assert all(source.startswith("data:image/") for source in read.sources)
    assert all(link.startswith("#") and link[1:] in read.ids for link in read.links)
    assert len(set(read.ids)) == len(read.ids)
    assert not {"link", "iframe", "object"} & read.tags
    assert page.count("<script") == 1  # that of the tables, which is part of the page
    assert not re.search("fetch|XMLHttp|WebSocket|import|Worker|Beacon|eval|innerHTML", page.partition("<script>")[2])
    assert "://" not in page
    assert "url(" not in page
    assert "@import" not in page
    assert len(page) < 2e6


def test_page_is_html_without_errors(page):
    html5lib = pytest.importorskip("html5lib")
    html5lib.HTMLParser(strict=True).parse(page)


@pytest.mark.slow
def test_page_is_the_same_for_the_same_result_and_after_loading(result, page, tmp_path):
    result.save(tmp_path / "result")
    assert report.page(wd.load(tmp_path / "result")) == page.replace(" result.extend() trains it.", "")


def test_candidates_are_those_of_the_table_with_intervals_and_differences(result, page):
    rows, table = Page(page).table("candidates"), result.table(interval="t")
    assert [int(row["candidate"]) for row in rows] == table["validation_loss"].argsort().tolist()
    apart = result.differences()
    none = result.no_decay().number
    for row in rows:
        number = int(row["candidate"])
        told = table.loc[number]
        # Printed to the second digit of the standard error: half of the last one.
        for cell, values in {
            "validation loss": ["validation_loss", "validation_loss_standard_error"],
            "95 % interval": ["validation_loss_lower", "validation_loss_upper"],
            "validation accuracy": ["validation_accuracy", "validation_accuracy_standard_error"],
        }.items():
            shown = [float(part) for part in re.split(" ± | to ", row[cell])]
            np.testing.assert_allclose(shown, told[values].astype(float), atol=6e-3)
        if number != none:
            shown = [float(part) for part in row["minus no decay"].split(" ± ")]
            np.testing.assert_allclose(shown, apart.loc[number, ["difference", "standard_error"]], atol=6e-3)
    roles = {row["role"]: int(row["candidate"]) for row in rows if row["role"]}
    assert roles["chosen"] == result.best().number
    assert roles.get("no decay", roles["chosen"]) == none


def test_choice_shows_the_criteria_beside_no_decay(result, page):
    rows = {row["by"]: int(row["candidate"]) for row in Page(page).table("choice")}
    assert rows == {
        "best mean": result.best().number,
        "one standard error": result.best("one_standard_error").number,
        "one standard error, paired": result.best("one_standard_error_paired").number,
        "no decay": result.no_decay().number,
    }


@pytest.mark.slow
def test_test_set_is_not_looked_at_by_a_report(tmp_path, undrawn):
    result = train(wd.Grid(decay=DECAY[:2], learning_rate=1e-2, seed=range(2)))
    file = tmp_path / "report.html"
    assert "not looked at yet" in Page(result.report(file).read_text(encoding="utf-8")).sections["decision"]
    assert result._test is None
    scores = result.test()
    read = Page(result.report(file).read_text(encoding="utf-8"))
    shown = float(re.search(r"Test accuracy\s*(0\.\d+)", read.sections["decision"]).group(1))
    assert shown == pytest.approx(scores.loc["chosen", "test_accuracy"], abs=6e-3)  # as many digits as its error leaves
    other = {**result._test, "candidates": {"chosen": 1 - result.best().number}}
    assert f"of candidate {1 - result.best().number}, " in Page(report.page(result, test=other)).sections["decision"]


def test_facts_are_those_of_the_run(result, page):
    read = Page(page)
    sizes = {
        "training examples": "80",
        "validation examples": "359",
        "test examples": "359",
        "folds": "none: one split",
    }
    assert read.facts("data") == sizes
    assert "MLP(" in read.sections["model"]
    count = sum(leaf.size for layer in result.params(0).values() for leaf in layer.values())
    assert read.facts("model")["weights"] == f"{count} in 4 arrays"
    settings = read.facts("settings")
    assert (settings["optimizer"], settings["num steps"], settings["batch size"]) == ("adam", "20", "20")
    assert (settings["loss"], settings["patience"], settings["evaluations"]) == ("softmax_cross_entropy", "none", "4")
    plan = read.facts("plan")
    assert (plan["lane width"], plan["backend"]) == (str(result.settings["plan"]["lane_width"]), "cpu")
    assert read.facts("seeds") == {"seeds": "0, 1, 2", "members per candidate": "3"}
    assert read.facts("versions") == result_folder.versions()
    assert [row[:2] for row in read.rows["grid"][1:]] == [["decay", "4"], ["learning rate", "2"], ["seed", "3"]]
    assert "No member diverged." in read.sections["failures"]


@pytest.mark.slow
def test_versions_are_those_that_trained_it(result, tmp_path, monkeypatch, undrawn):
    result.save(tmp_path / "result")
    monkeypatch.setattr(result_folder, "versions", lambda: {"weightdecay": "99"})
    loaded = wd.load(tmp_path / "result")
    loaded.save(tmp_path / "again")
    for one in (loaded, wd.load(tmp_path / "again"), loaded.part([0])):
        assert Page(report.page(one)).facts("versions") == result.versions != {"weightdecay": "99"}


def test_versions_that_are_damaged_are_told(result, tmp_path):
    result.save(tmp_path / "result")
    file = tmp_path / "result" / "settings.json"
    stored = json.loads(file.read_text(encoding="utf-8"))
    del stored["sha256"]
    file.write_text(json.dumps({**stored, "version": 1}), encoding="utf-8")
    assert wd.load(tmp_path / "result").versions == result.versions
    for versions in (["jax"], {"jax": 1}):
        file.write_text(json.dumps({**stored, "version": 1, "versions": versions}), encoding="utf-8")
        with pytest.raises(ValueError, match="its versions are not an object of strings"):
            wd.load(tmp_path / "result")


@pytest.mark.slow
def test_warnings_tell_what_is_doubtful(result, undrawn):
    edge = result.best()
    read = Page(report.page(result)).sections["decision"]
    assert (edge.advice != "") == ("is at the edge" in read)
    assert edge.advice in read
    interrupted = wd.GridResult(
        result.dataset, result.members, result._weights, {**result.settings, "interrupted": True}
    )
    told = Page(report.page(interrupted))
    assert "The run was interrupted." in told.sections["decision"]
    assert "0 of 24 members did not reach the last step" in told.sections["failures"]
    assert "interrupted." not in read
    one = result.part(np.flatnonzero(result.dataset["seed"].values == 0))
    assert "One seed only." in Page(report.page(one)).sections["decision"]
    assert "One seed only." not in read
    assert f"here by {result.optimism().mean:.1g}"[:12] in read


@pytest.mark.slow
def test_diverged_members_are_listed_with_their_steps(undrawn):
    result = train(wd.Grid(decay=[wd.NoDecay(), wd.L2(0.1)], learning_rate=[1e-2, 1e30], seed=range(2)))
    read = Page(report.page(result))
    died = result.dataset["diverged_at"].values.reshape(4, 2)
    assert 0 < (died >= 0).sum() < 8
    expected = {}
    for number, steps in enumerate(died):
        seeds = np.flatnonzero(steps >= 0)
        if len(seeds):
            members = "all 2" if len(seeds) == 2 else "1 of 2"
            expected[str(number)] = members, ", ".join(map(str, seeds)), ", ".join(map(str, steps[seeds]))
    rows = read.table("failures")
    assert {row["candidate"]: (row["members"], row["seeds"], row["at step"]) for row in rows} == expected
    assert {row["learning rate"] for row in rows} == {"1e+30"}
    assert f"{(died >= 0).sum()} of 8 members diverged. They are never chosen" in read.sections["decision"]


@pytest.mark.slow
def test_stopped_members_are_listed(result, undrawn):
    at = np.full(len(result), -1)
    at[[3, 5]] = 10, 15
    dataset = result.dataset.assign(stopped_at=("member", at))
    read = Page(report.page(wd.GridResult(dataset, result.members, result._weights, result.settings | {"patience": 2})))
    assert "2 of 24 members stopped early, of 1 candidate." in read.sections["failures"]
    (row,) = read.table("failures")
    assert (row["candidate"], row["members"], row["seeds"], row["at step"]) == ("1", "2 of 3", "0, 2", "10, 15")
    before = Page(report.page(result)).sections["failures"]
    assert "No member stopped early. Patience was off." in before


def test_page_of_members_that_all_diverged_says_so(result):
    measured = {name: values * np.nan for name, values in result.dataset.data_vars.items() if "step" in values.dims}
    dataset = result.dataset.assign(**measured, diverged_at=("member", np.arange(1, 25)))
    read = Page(report.page(wd.GridResult(dataset, result.members, result._weights, result.settings)))
    assert read.headings == SECTIONS
    assert "No choice: every one of the 24 members diverged, the last at step 24" in read.sections["decision"]
    assert "All 24 members diverged." in read.sections["decision"]
    assert read.sources == []
    assert len(read.table("candidates")) == len(read.table("failures")) == 8
    assert "nan" not in "".join(read.sections.values()).lower()


@pytest.mark.slow
def test_page_of_a_regression_with_one_member_has_no_accuracy():
    result = train(wd.Grid(decay=wd.L2(0.1), learning_rate=1e-2), wd.data.diabetes())
    read = Page(report.page(result))
    assert "accuracy" not in "".join(read.sections.values())
    assert "The grid has none without decay" in read.sections["choice"]
    assert "One seed only." in read.sections["decision"]
    assert "nan" not in "".join(read.sections.values()).lower()


@pytest.mark.slow
def test_page_of_folds_names_them(undrawn):
    data = wd.data.folds(*DATA.train, num_folds=2)
    result = train(wd.Grid(decay=DECAY[:2], learning_rate=1e-2, seed=range(2), fold=range(2)), data)
    read = Page(report.page(result))
    assert read.facts("data")["folds"] == "2 of a cross-validation"
    assert read.facts("seeds") == {"seeds": "0, 1", "folds": "0, 1", "members per candidate": "4"}


def many(result, num):
    """A result with as many candidates as asked for, whose metrics are those of the first members again."""
    grid = wd.Grid(decay=wd.logspace(wd.L2, 1e-6, 1e-1, num // 2), learning_rate=[1e-3, 1e-2])
    places = [place % len(result) for place in range(len(grid))]
    own = {name: ("member", values) for name, values in datasets.coordinates(list(grid)).items()}
    dataset = result.part(places).dataset.assign_coords(own)
    return wd.GridResult(dataset, list(grid), [result._weights[place] for place in places], result.settings)


@pytest.mark.slow
def test_page_of_hundreds_of_candidates_folds_all_but_twenty(result, undrawn):
    text = report.page(many(result, 200))
    assert len(Page(text).table("candidates")) == 200
    shown, folded = text.split("<summary>The other 180 of 200 candidates</summary>")
    assert shown.partition('<section id="candidates">')[2].count("</tr>") == 1 + 20
    assert folded.partition("</details>")[0].count("</tr>") == 1 + 180
    assert len(text) < 2e5


def test_page_escapes_what_users_name(result, undrawn):
    name, value = "<i>axis</i>", "<script>alert(1)</script>"
    members = [{**member, name: value if index >= 12 else "&amp;"} for index, member in enumerate(result.members)]
    settings = {**result.settings, "model": '<MLP hidden="8">', "optimizer": "<lambda>"}
    page_of_users = report.page(wd.GridResult(result.dataset, members, result._weights, settings))
    read = Page(page_of_users)
    assert page_of_users.count("<script") == 1
    assert not {"i", "mlp", "lambda"} & read.tags
    assert "alert(1)" not in page_of_users.partition("<script>")[2]
    assert {row[name] for row in read.table("candidates")} == {value, "&amp;"}
    assert '<MLP hidden="8">' in read.sections["model"]
    assert read.facts("settings")["optimizer"] == "<lambda>"


@pytest.mark.slow
def test_choice_by_another_metric(result, undrawn):
    read = Page(report.page(result, metric="validation_accuracy"))
    assert read.sections["decision"].split("\n")[2] == result.best(metric="validation_accuracy").sentence
    with pytest.raises(ValueError, match="metric is 'train_loss'; the choice is made on validation data"):
        report.page(result, metric="train_loss")


@pytest.mark.slow
def test_report_replaces_a_report_and_nothing_else(result, tmp_path, undrawn):
    path = result.report(tmp_path / "new" / "a.html")
    written = path.read_text(encoding="utf-8")
    assert Page(written).headings == SECTIONS
    assert result.report(str(path)) == path
    assert [entry.name for entry in path.parent.iterdir()] == ["a.html"]
    path.write_text("<html>mine</html>")
    with pytest.raises(FileExistsError, match=r"path .*a\.html exists and is not a report; nothing was touched"):
        result.report(path)
    assert path.read_text() == "<html>mine</html>"
    with pytest.raises(ValueError, match=r"path is .*report; give a path that ends in \.html"):
        result.report(tmp_path / "report")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(FileExistsError, match="exists and is not a report"):
        result.report(tmp_path / "folder.html")


@pytest.mark.slow
def test_large_drawings_become_pixels(result, monkeypatch):
    drawn = {one.name: one.source for one in figures.of(result, "validation_loss", result.best())}
    assert list(drawn) == ["facets", "heatmap", "curves", "gap", "sparsity", "norms", "weights", "rotation"]
    assert all(base64.b64decode(source.partition(",")[2]).startswith(b"<?xml") for source in drawn.values())
    monkeypatch.setattr(figures, "_MAX_SVG_BYTES", 1000)
    (first, *_) = figures.of(result, "validation_loss", result.best())
    assert base64.b64decode(first.source.removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")


@pytest.mark.slow
def test_pictures_do_not_follow_the_users_style(result):
    import matplotlib

    (plain, *_) = figures.of(result, "validation_loss", result.best())
    with matplotlib.rc_context({"figure.facecolor": "black", "font.size": 30}):
        (same, *_) = figures.of(result, "validation_loss", result.best())
        assert matplotlib.rcParams["font.size"] == 30
    assert same == plain


def invoke(*arguments):
    return CliRunner().invoke(cli.app, ["report", *map(str, arguments)])


@pytest.mark.slow
def test_command_writes_beside_the_result_or_where_it_is_told(result, page, tmp_path):
    folder, output = tmp_path / "result", tmp_path / "out" / "page.html"
    result.save(folder)
    shown = invoke(folder)
    assert shown.exit_code == 0, shown.output
    assert shown.stdout == f"Read {folder / 'report.html'} in a browser.\n"
    assert (folder / "report.html").read_text(encoding="utf-8") == page.replace(" result.extend() trains it.", "")
    assert wd.load(folder).best().number == result.best().number
    result.save(folder, overwrite=True)
    assert invoke(folder, "--output", output, "--metric", "validation_accuracy").exit_code == 0
    assert (
        result.best(metric="validation_accuracy").sentence
        in Page(output.read_text(encoding="utf-8")).sections["decision"]
    )


@pytest.mark.slow
def test_command_takes_the_directory_of_a_run(tmp_path, undrawn):
    grid = wd.Grid(decay=DECAY[:2], learning_rate=1e-2)
    train(grid, directory=tmp_path / "run")
    assert invoke(tmp_path / "run").exit_code == 0
    assert (tmp_path / "run" / "report.html").is_file()
    train(grid, directory=tmp_path / "run")


@pytest.mark.slow
def test_sweep_writes_a_report_even_where_all_diverges(tmp_path):
    folder = tmp_path / "out"
    quick = "digits --widths 8 --steps 20 --rules L2 --num-coefficients 1 --train-size 100 --seeds 2 --batch-size 50"
    for rates, begins in (("1e-2", "Take "), ("1e30", "No choice: every one of the 4 members diverged")):
        where = ["--learning-rates", rates, "--output", str(folder), "--overwrite"]
        shown = CliRunner().invoke(cli.app, ["sweep", *quick.split(), *where])
        read = Page((folder / "report.html").read_text(encoding="utf-8"))
        assert re.match(f"{begins}|No decay is", read.sections["decision"].split("\n")[2])
        assert ("No choice" in read.sections["decision"]) == (rates == "1e30")
        assert (f"Read {folder / 'report.html'} in a browser." in shown.stdout) == (rates == "1e-2")


@pytest.mark.slow
def test_command_says_what_is_wrong(result, tmp_path, undrawn):
    folder = tmp_path / "result"
    result.save(folder)
    (folder / "dataset.nc").write_bytes(b"CDF\1")
    for arguments, message in (
        ([tmp_path / "none"], rf"weightdecay: folder {tmp_path / 'none'} holds no weightdecay result"),
        ([folder], r"weightdecay: file .*dataset\.nc is missing, damaged or altered"),
    ):
        shown = invoke(*arguments)
        assert shown.exit_code == 2
        assert re.match(message, shown.stderr)
    result.save(folder, overwrite=True)
    shown = invoke(folder, "--output", tmp_path / "report.pdf")
    assert shown.stderr.startswith("weightdecay: --output: path is ")
    assert invoke(folder, "--metric", "loss").stderr.startswith("weightdecay: --metric: metric is 'loss'")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
def test_page_opens_in_a_browser(result, tmp_path):
    path = result.report(tmp_path / "report.html")
    quiet = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    quiet += " --disable-component-update --disable-sync --disable-dev-shm-usage"
    dumped = subprocess.run(
        [CHROMIUM, *quiet.split(), f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", path.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    read = Page(dumped.stdout)
    assert read.headings == SECTIONS
    assert read.sections["decision"].split("\n")[2] == result.best().sentence
    assert read.rows["choice"][1][0] == "best mean"
    assert len(read.sources) == 8


def test_grid_shows_its_axes_and_first_members():
    grid = wd.Grid(decay=DECAY, learning_rate=[1e-3, 1e-2], clip_norm=[None, 1.0], seed=range(30))
    read = Page(grid._repr_html_())
    assert read.rows[""][:5] == [
        ["axis", "values", "which"],
        ["decay", "4", ", ".join(map(str, DECAY))],
        ["learning rate", "2", "0.001, 0.01"],
        ["clip norm", "2", "none, 1"],
        ["seed", "30", "0, 1, 2, 3, 4, 5, 6, 7, 8, ..., 28, 29"],
    ]
    assert "The first 10 of 480 members" in read.sections[""]
    assert read.rows[""][-1] == ["9", "NoDecay()", "0.001", "none", "9"]
    both = wd.Grid(decay=DECAY[:1], momentum=0.9) + wd.Grid(decay=DECAY[:1], learning_rate=0.1)
    assert Page(both._repr_html_()).rows[""][-3:] == [
        ["member", "decay", "momentum", "seed", "learning_rate"],
        ["0", "NoDecay()", "0.9", "0", ""],
        ["1", "NoDecay()", "", "0", "0.1"],
    ]


def test_plan_shows_its_layout_and_what_it_says():
    forecast = plans.Forecast(members=8, programs=1, device_bytes=10, total_bytes=20, disk_bytes=30)
    plan = wd.Plan(lane_width=4, num_devices=2, reasons=("because < of it",), forecast=forecast)
    read = Page(plan._repr_html_())
    assert dict(read.rows[""]) == {
        "lane width": "4",
        "num devices": "2",
        "steps per call": "1000",
        "streamed": "False",
        "convolutions": "slices",
    }
    lines = [line.strip() for line in str(plan).splitlines()[1:]]
    assert len(lines) == 3
    assert all(line in read.sections[""] for line in lines)


def test_mask_is_a_string_that_a_notebook_shows_as_a_table():
    params = {"Dense_0": {"kernel": np.zeros((3, 2)), "bias": np.zeros(2)}}
    described = wd.masks.describe(params, decay=wd.L2(0.01))
    assert isinstance(described, str)
    assert described == str(described)
    assert described.splitlines()[-1] == "6 of 8 weights decay (75.0 %)"
    read = Page(described._repr_html_())
    assert read.rows[""] == [
        ["name", "shape", "weights", "decays", "coefficient"],
        ["Dense_0/bias", "(2,)", "2", "no", "-"],
        ["Dense_0/kernel", "(3, 2)", "6", "yes", "0.01"],
    ]
    assert "6 of 8 weights decay (75.0 %)" in read.sections[""]


def test_table_marks_rows_and_keeps_numbers_right():
    text = markup.table({"a": ["x", "y"], "b": [1, math.inf]}, text_columns=["a"], row_classes={1: "chosen"})
    assert text.count('style="text-align:left"') == 3
    assert '<tr class="chosen"><td style="text-align:left">y</td><td>inf</td></tr>' in text
