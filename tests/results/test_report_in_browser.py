"""The pages in headless Chromium: tables sort and filter by mouse and keyboard, and nothing is wider than the page."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest

import weightdecay as wd
from made_results import made
from weightdecay.apps import comparison_page
from weightdecay.apps.comparison import Comparison

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars"
)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")]

TABLE = """
const box = document.querySelector("#candidates [data-rows]");
const table = box.querySelector("table");
const heads = [...table.tHead.rows[0].cells];
const titles = heads.map((head) => head.textContent.trim());
const shown = (title) => [...table.tBodies[0].rows].filter((row) => !row.hidden)
  .map((row) => row.cells[titles.indexOf(title)].textContent.trim());
const press = (title) => heads[titles.indexOf(title)].querySelector("button").click();
const search = (words) => {
  const input = box.querySelector("input");
  input.value = words;
  input.dispatchEvent(new Event("input"));
};
"""


def run(page, script, tmp_path, *, width=1100, height=1000):
    """What a script finds in a page: it fills ``found``, which comes back."""
    file = tmp_path / "probe.html"
    probe = f"<script>const found = {{}};\n{script}\ndocument.title = 'found ' + JSON.stringify(found);</script>"
    file.write_text(page.replace("</body>", f"{probe}</body>"), encoding="utf-8")
    dumped = chromium(tmp_path, "--dump-dom", f"--window-size={width},{height}", file.as_uri())
    (title,) = re.findall(r"<title>found (.*?)</title>", dumped, re.DOTALL)
    return json.loads(title.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


def chromium(tmp_path, *arguments):
    command = [CHROMIUM, *QUIET.split(), f"--user-data-dir={tmp_path / 'profile'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def written(result, tmp_path):
    return result.report(tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def wide():
    """Many rules, long names, further axes, and members that diverged."""
    decay = [
        wd.NoDecay(),
        *wd.logspace(wd.L2, 1e-7, 1e-1, 7),
        *((wd.Masked(wd.L2(c), wd.masks.first), wd.ProximalElasticNet(0.1, 0.25)) for c in (1e-3, 1e-2)),
        wd.L2(wd.PerLayer({"Dense_0": 1e-3, "Dense_1": 0.1})),
    ]
    axes = {"momentum": [0.0, 0.9], "clip_norm": [None, 1.0], "dropout_rate": [0.0, 0.5]}
    grid = wd.Grid(decay=decay, learning_rate=[1e-3, 1e-2], **axes, seed=range(2))
    return made(grid, died=range(0, len(grid), 9), steps=np.array([10, 20]))


@pytest.fixture(scope="module")
def page(wide, tmp_path_factory):
    return written(wide, tmp_path_factory.mktemp("wide"))


def test_tables_sort_by_each_column(wide, page, tmp_path):
    script = (
        TABLE
        + """
    found.first = shown("candidate");
    press("validation loss"); press("validation loss");
    found.sort = heads[titles.indexOf("validation loss")].getAttribute("aria-sort");
    found.descending = shown("validation loss");
    press("validation loss");
    found.again = shown("candidate");
    found.none = heads.filter((head) => head.hasAttribute("aria-sort")).length;
    press("learning rate"); found.rates = shown("learning rate");
    press("decay"); found.decay = shown("decay");
    found.others = heads.filter((head) => head.hasAttribute("aria-sort")).length;
    found.focusable = heads.every((head) => head.querySelector("button").tabIndex === 0 && head.scope === "col");
    """
    )
    found = run(page, script, tmp_path)
    means = np.array([candidate.mean for candidate in wide.candidates()])
    assert list(map(int, found["first"])) == np.argsort(means, kind="stable")[:20].tolist()
    assert found["again"] == found["first"]
    assert (found["sort"], found["none"], found["others"], found["focusable"]) == ("descending", 0, 1, True)
    shown = [float(cell.split(" ")[0]) for cell in found["descending"]]
    np.testing.assert_allclose(shown, np.sort(means[np.isfinite(means)])[::-1][:20], atol=0.06)  # rounded to the error
    assert found["rates"] == ["0.001"] * 20
    assert found["decay"] == ["L2(1e-07)"] * 16 + ["L2(1e-06)"] * 4


def test_tables_filter_by_words_and_show_all(wide, page, tmp_path):
    script = (
        TABLE
        + """
    const status = box.querySelector("[role=status]"), more = box.querySelector(".tools button");
    found.status = status.textContent;
    more.click(); found.all = shown("candidate").length; found.less = more.textContent;
    search("ProximalElasticNet 0.01"); found.words = shown("decay"); found.rates = shown("learning rate");
    found.matching = status.textContent;
    search("nothing of this kind"); found.nothing = shown("decay"); found.hidden = more.hidden;
    search("CHOSEN"); found.chosen = shown("candidate");
    """
    )
    found = run(page, script, tmp_path)
    count = len(wide.candidates())
    assert found["status"] == f"the first 20 of {count} candidates"
    assert (found["all"], found["less"]) == (count, "show 20")
    assert len(found["words"]) > 10
    assert all("ProximalElasticNet" in decay for decay in found["words"])
    assert found["matching"] == f"{len(found['words'])} candidates that match, of {count}"
    assert (found["nothing"], found["hidden"]) == ([], True)
    assert found["chosen"] == [str(wide.best().number)]


@pytest.mark.parametrize("width", [1100, 390])
def test_nothing_is_wider_than_the_page(page, width, tmp_path):
    script = """
    found.page = document.documentElement.scrollWidth;
    found.tables = [...document.querySelectorAll(".scrolled")].map((box) => box.scrollWidth - box.clientWidth);
    found.outside = [...document.querySelectorAll("main *")].filter(
      (one) => one.closest(".scrolled, .wide, summary, details") === null
        && one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.outerHTML.slice(0, 80));
    found.width = innerWidth;
    """
    found = run(page, script, tmp_path, width=max(width, 500))
    if width < 500:  # a window of Chromium is not narrower; a frame is
        frame = f"<iframe id=f style='width:{width}px;height:900px;border:0'></iframe>"
        inner = json.dumps(page.replace("</body>", "</body>")).replace("</", "<\\/")
        script = f"""
        const frame = document.getElementById("f");
        frame.contentDocument.open(); frame.contentDocument.write({inner}); frame.contentDocument.close();
        found.page = frame.contentDocument.documentElement.scrollWidth; found.tables = [0];
        found.outside = []; found.width = frame.clientWidth;
        """
        found = run(f"<!DOCTYPE html><title></title><body>{frame}</body>", script, tmp_path)
    assert found["width"] == width
    assert found["page"] <= width
    assert found["outside"] == []
    assert max(found["tables"]) <= 0


def test_page_without_its_script_has_every_row(wide, page):
    count = len(wide.candidates())
    body = page.partition('<section id="candidates">')[2].partition("</section>")[0]
    assert body.count("<tr") == count + 2  # and the heads of both tables


def test_printed_page_keeps_tables_and_plots(page, tmp_path):
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    output = tmp_path / "page.pdf"
    chromium(tmp_path, f"--print-to-pdf={output}", "--no-pdf-header-footer", (tmp_path / "page.html").as_uri())
    if shutil.which("pdftotext") is None:
        pytest.skip("no pdftotext is installed")
    text = subprocess.run(["pdftotext", "-layout", output, "-"], capture_output=True, text=True, check=True).stdout
    for words in ("Candidates", "Training and validation curves", "Failures"):
        assert words in text
    assert "Filter:" not in text


def test_page_of_a_comparison_sorts_and_fits(tmp_path):
    methods = ["a method with a long name and more", "decoupled decay", "no regularization"]
    result = made(wd.Grid(decay=[wd.L2(0.1), wd.Decoupled(0.1), wd.NoDecay()], learning_rate=1e-2, seed=range(3)))
    rng = np.random.default_rng(0)
    correct = {name: (rng.uniform(size=(3, 200)) < 0.9 - 0.2 * row).astype(float) for row, name in enumerate(methods)}
    losses = {name: rng.uniform(size=(3, 200)) for name in methods}
    chosen = {name: result.part(range(3 * row, 3 * row + 3)).best() for row, name in enumerate(methods)}
    trials = {name: [row] for row, name in enumerate(methods)}
    compared = Comparison(result, trials, chosen, "validation_loss", losses, correct)
    page = comparison_page.page(compared)
    script = (
        TABLE.replace("#candidates", "#ranking")
        + """
    found.first = shown("method");
    press("test accuracy"); found.ascending = shown("method");
    found.page = document.documentElement.scrollWidth;
    found.tables = [...document.querySelectorAll(".scrolled")].map((box) => box.scrollWidth - box.clientWidth);
    """
    )
    found = run(page, script, tmp_path)
    assert found["first"] == compared.ranking
    assert found["ascending"] == compared.ranking[::-1]
    assert found["page"] <= 1100
    assert max(found["tables"]) <= 0
