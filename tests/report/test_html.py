from __future__ import annotations

import dataclasses
import hashlib
import io
import itertools
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

import pytest
from expected_figures import EXPECTED
from fake_study import KCENTER, STATES, make_view
from pages import section, unlinked, without_scripts
from places import ROOT

from subsettune import text
from subsettune.config import FrozenDict
from subsettune.report import glossary, html
from subsettune.study.results.view import StudyView

EVIL = "<img src=https://example.com/x.png onerror=alert(1)></script><script>alert(2)</script>\"'&"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def policy_of(page: str) -> str:
    """The page's content security policy."""
    found = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]+)">', page)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("metric", ["accuracy", "mse"])
def test_every_state_has_a_page(state: str, metric: str) -> None:
    view = make_view(state, metric=metric)
    page = html.page(view)
    body = without_scripts(page)
    for name in EXPECTED[state]:
        assert body.count(f'id="figure-{name}"') == 1
    assert page.count("* plotly.js (") == bool(EXPECTED[state])
    assert "subsettune tune search_spaces/digits.yaml" in body
    assert "tolerance: 0.01" in body
    assert "nan" not in re.sub(r"<[^>]*>", " ", body).lower().split()
    if state == "empty":
        assert "Not finished: the reference has 0 of 5 runs." in body


def test_the_page_asks_for_nothing_from_anywhere() -> None:
    body = without_scripts(html.page(make_view()))
    assert policy_of(body).startswith("default-src 'none'; ")
    assert not re.search(r"https?:|//[a-z]|@import|url\(", body.replace("http-equiv", ""))
    assert {link for link in re.findall(r'(?:src|href)="([^"]*)"', body) if not link.startswith("#")} == {"data:,"}


def test_the_page_is_small_and_its_library_is_the_file_that_is_named() -> None:
    assert len(html.page(make_view(trials=200)).encode()) < 1_500_000
    assets = resources.files("subsettune.report") / "assets"
    library = (assets / "plotly-basic.min.js").read_bytes()
    told = " ".join((assets / "plotly-basic.LICENSE.txt").read_text(encoding="utf-8").split())
    assert f"SHA-256 {hashlib.sha256(library).hexdigest()})" in told
    (version,) = re.findall(rb"plotly\.js \(basic - minified\) v([\d.]+)", library[:200])
    assert f"version {version.decode()}, unchanged" in told
    assert "MIT License" in told


def evil_view() -> StudyView:
    view = make_view("subset_wins")
    trials = tuple(
        dataclasses.replace(t, message=EVIL, log=EVIL) if t.cause in ("failed", "diverged") else t for t in view.trials
    )
    renamed = {EVIL if name == "candidate-1" else name: c for name, c in view.candidates.items()}
    verdicts = {
        EVIL if n == "candidate-1" else n: dataclasses.replace(v, reason=EVIL) for n, v in view.verdicts.items()
    }
    runs = [dataclasses.replace(r, candidate=EVIL if r.candidate == "candidate-1" else r.candidate)
            for r in view.verification]  # fmt: skip
    row = dataclasses.replace(view.ablation[KCENTER], name=EVIL, reason=EVIL)
    components = tuple(dataclasses.replace(one, name=EVIL, ablation=row) for one in view.summary.components)
    summary = dataclasses.replace(view.summary, bundle=EVIL, status=EVIL, components=components)
    evil = FrozenDict({EVIL: EVIL})
    manifest = dataclasses.replace(view.manifest, command=EVIL, sampler=EVIL, versions=evil, hardware=evil)
    return dataclasses.replace(
        view,
        run_id=EVIL,
        trials=trials,
        candidates=renamed,
        verdicts=verdicts,
        verification=tuple(runs),
        summary=summary,
        manifest=manifest,
        ablation={row.component: row},
    )


def test_text_of_a_user_is_escaped_everywhere() -> None:
    page = html.page(evil_view())
    body = without_scripts(page)
    assert "<img" not in page.split("/**\n* plotly.js (")[0]
    assert "alert(2)</script>" not in page
    assert body.count("&lt;img src=") >= 10
    assert page.count("<script") - page.count("\\u003cscript") >= 3


def test_components_have_a_table_with_their_verdicts_and_both_costs() -> None:
    view = make_view("subset_wins")
    part = section(html.page(view), "components")
    assert part.count("<tr>") == 1 + len(view.summary.components)
    assert "<b>order sift</b>" in part
    assert "<b>no soup</b>" in part
    assert '<span class="chip good">paid for itself</span>' in part
    assert '<span class="chip">no difference shown</span>' in part
    cost = view.ablation[KCENTER].cost_flops
    assert part.count(f"<span>{text.flops_words(cost)}</span>") >= 2
    assert "which favours the component" in part
    assert "paid?" not in section(html.page(dataclasses.replace(view, ablation={})), "components")
    assert '<span class="chip bad">did not</span>' in html.page(make_view("full_wins"))
    assert "Which components" not in html.page(make_view("reference"))


def test_the_page_tells_how_it_was_tested_and_what_it_costs() -> None:
    view = make_view("subset_wins")
    page = unlinked(without_scripts(html.page(view)))
    evidence = section(page, "evidence")
    assert '<p class="reading">Candidates are tested one at a time, the one of the greatest expected saving' in evidence
    evidence_table = evidence.partition("<table")[2].partition("</table>")[0]
    assert evidence_table.count("<tr>") == 1 + len(view.candidates) + len(view.manifest.contrasts)
    assert "<b>candidate-1 against equal</b>" in evidence_table
    assert '<span class="chip good">better</span>' in evidence_table
    assert '<span class="chip">no claim</span>' in evidence_table
    assert '<span class="chip">outside the margin</span>' in evidence_table
    for title in ("n", "mean difference", "lower bound", "above", "other examples", "level", "p-value", "verdict"):
        assert f">{title}</th>" in evidence_table
    assert evidence.count("<h3>Test accuracy seed by seed</h3>") == 1
    assert "<span>-0.0079 to +0.0129</span>" in evidence_table
    assert ">other examples</th>" not in unlinked(html.page(make_view("equal_wins")))
    costs = section(page, "time")
    assert costs.count("<tr>") == 1 + len(view.summary.phase_costs)
    assert "to full: seconds per FLOP over those of phases on all data." in costs
    assert "<li>What it takes to match on the validation split, as the search sees it: plain training" in page
    old = unlinked(html.page(make_view("before")))
    assert '<p class="reading">Candidates were tested dearest first until the first failure, by differences' in old
    assert "How long compute takes" not in html.page(make_view("reference"))


USAGE = """In the folder:

```sh
subsettune follow bundle
```

By `train.run`, & <so> on."""


def test_the_contents_lead_to_every_section_and_to_nothing_else() -> None:
    for state in STATES:
        page = without_scripts(html.page(make_view(state), usage=USAGE))
        contents = re.findall(
            r'<li><a href="#([\w-]+)">([^<]+)</a></li>', page.partition("<nav")[2].partition("</nav>")[0]
        )
        assert contents == re.findall(r'<h2 id="([\w-]+)">([^<]+)</h2>', page)
        assert "use" in dict(contents)
        for link in re.findall(r'href="#([\w-]+)"', page):
            assert page.count(f' id="{link}"') == 1


def test_it_says_how_to_use_what_was_found() -> None:
    part = section(html.page(make_view(), usage=USAGE), "use")
    assert "<p>In the folder:</p>" in part
    assert re.search(r'<pre tabindex="0" role="group" aria-label="sh">subsettune follow bundle</pre>', part)
    assert "<p>By <code>train.run</code>, &amp; &lt;so&gt; on.</p>" in part
    assert 'id="use"' not in html.page(make_view("none_passed"))


@pytest.mark.parametrize("state", STATES)
def test_backticks_are_code_on_the_page(state: str) -> None:
    page = re.sub(r"(?s)<pre.*?</pre>", "", without_scripts(html.page(make_view(state), usage=USAGE)))
    assert "`" not in page.partition("<body")[2]
    assert "Which of two kinds a policy is: <code>full</code>, a shorter" in page


def test_the_first_thing_is_what_was_found_and_then_what_was_gained() -> None:
    view = make_view()
    page = without_scripts(html.page(view)).replace("&nbsp;", " ")
    lead, _, rest = view.summary.headline.partition("; ")
    (heading,) = re.findall(r"<h1>(.*?)</h1>", page)
    assert re.sub("<[^>]+>", "", heading) == f"{lead}."
    assert f'<p class="rest">{text.sentence(rest)}</p>' in page
    assert page.index('id="figure-gain"') < page.index("<table")


def test_a_finding_of_one_clause_stays_one_sentence() -> None:
    view = make_view("none_passed")
    page = html.page(dataclasses.replace(view, summary=dataclasses.replace(view.summary, headline="No policy passed.")))
    assert "<h1>No policy passed.</h1>" in page
    assert 'class="rest"' not in page


def test_words_are_explained_where_they_stand() -> None:
    page = html.page(make_view())
    assert '<a class="term" href="#word-bound" aria-describedby="word-bound">bound</a></th>' in page
    reading = section_of_words(page, "reading-verification")
    assert ">lower bound</a>" in reading
    assert reading.count("#word-reference") == 1  # where it first stands
    assert not re.search(r">pass(es)?</a>", without_scripts(page).replace(">passes</a></th>", ""))  # the verb
    assert str(glossary.explained("<b> a trial & trials")) == (
        '&lt;b&gt; a <a class="term" href="#word-trial" aria-describedby="word-trial">trial</a> &amp; trials'
    )


def section_of_words(page: str, name: str) -> str:
    return page.partition(f'id="{name}">')[2].partition("</figcaption>")[0]


def test_words_mean_what_the_documentation_says() -> None:
    told = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    known = dict(re.findall(r"^\| ([\w ]+) \| (.+) \|$", told, re.MULTILINE))
    shared = known.keys() & glossary.WORDS.keys()
    assert len(shared) >= 10
    assert {word: glossary.WORDS[word] for word in shared} == {word: known[word] for word in shared}
    assert set(glossary.IN_HEADINGS.values()) <= glossary.WORDS.keys()
    assert "FLOP" not in glossary.words("example")["pass"]


def test_tables_have_captions_and_headers_with_a_scope() -> None:
    page = without_scripts(html.page(make_view()))
    tables = re.findall(r"<table.*?</table>", page, re.DOTALL)
    assert len(tables) >= 5
    for table in tables:
        assert re.search(r'<caption class="unseen">[^<]+</caption>', table)
        assert all(unlinked(title).strip() for title in re.findall(r'<th scope="col"[^>]*>(.*?)</th>', table))
        body = table.partition("<tbody>")[2]
        assert body.count('scope="row"') == body.count("<tr>")
        assert "<th>" not in table


def test_the_command_is_told() -> None:
    view = make_view("search")
    assert f">{view.manifest.command}</pre>" in section(html.page(view), "origin")


def test_a_command_that_is_not_known_is_said_to_be_so() -> None:
    view = make_view()
    unknown = dataclasses.replace(view.manifest, command=None, data=None, versions=FrozenDict(), hardware=FrozenDict())
    page = html.page(dataclasses.replace(view, manifest=unknown))
    assert ">unknown</pre>" in section(page, "origin")
    assert "<h3>Versions</h3>" not in page


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    html.write_report(make_view("empty"), path)
    before = path.read_text(encoding="utf-8")
    assert before.startswith("<!doctype html>")

    def fails(self: Path, target: Path) -> Path:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(OSError, match="disk full"):
        html.write_report(make_view("reference"), path)
    assert path.read_text(encoding="utf-8") == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_a_stream_is_written_to() -> None:
    stream = io.StringIO()
    html.write_report(make_view("empty"), stream)
    assert stream.getvalue() == html.page(make_view("empty"))


def test_equal_views_give_equal_pages() -> None:
    assert html.page(make_view()) == html.page(make_view())


# ---- in a real browser


def missing(what: str) -> NoReturn:
    message = f"{what} is needed to test the report in a real browser. Install chromium, chromium-driver and selenium."
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    try:
        from selenium import webdriver
    except ImportError:
        missing("selenium")
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    driver_path = shutil.which("chromedriver")
    if program is None or driver_path is None:
        missing("chromium" if program is None else "chromedriver")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = str(program)
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver_path))
        try:
            yield driver
        finally:
            driver.quit()


@dataclasses.dataclass
class PartialRun:
    complaints: list[str]
    requests: list[str]
    plots: dict[str, int]
    overflow: int


def look(browser: Any, path: Path, *, width: int = 1280, dark: bool = False) -> PartialRun:
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # forget what was before
    browser.get(path.as_uri())
    plots = browser.execute_script(
        "return Object.fromEntries([...document.querySelectorAll('.plot')].map("
        "(plot) => [plot.id, plot.querySelectorAll('.main-svg').length]))"
    )
    wide = browser.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    urls = [one["request"]["url"] for one in sent if one["documentURL"].startswith("file:")]
    complaints = [entry["message"] for entry in browser.get_log("browser")]
    return PartialRun(complaints, [url for url in urls if not url.startswith(("file:", "data:"))], plots, wide)


@pytest.mark.parametrize("state", STATES)
def test_a_browser_draws_every_figure_without_complaint_or_network(browser: Any, tmp_path: Path, state: str) -> None:
    path = tmp_path / "report.html"
    html.write_report(make_view(state), path)
    seen = look(browser, path)
    assert seen.complaints == []
    assert seen.requests == []
    assert set(seen.plots) == {f"figure-{name}" for name in EXPECTED[state]}
    assert all(count >= 1 for count in seen.plots.values())
    assert seen.overflow <= 0


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_phones_and_dark_rooms(browser: Any, tmp_path: Path, width: int, dark: bool) -> None:
    path = tmp_path / "report.html"
    html.write_report(make_view(metric="mse"), path)
    seen = look(browser, path, width=width, dark=dark)
    assert (seen.complaints, seen.requests, seen.overflow) == ([], [], 0)
    ink = browser.execute_script("return getComputedStyle(document.querySelector('.xtick text')).fill")
    red = int(re.findall(r"\d+", ink)[0])
    assert red > 128 if dark else red < 128


def test_figures_follow_their_frame_when_the_window_says_nothing(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    html.write_report(make_view(), path)
    look(browser, path)
    widths = (
        "document.body.style.width = '360px'; setTimeout(() => arguments[0]([...document.querySelectorAll('.plot')]"
    )
    widths += ".map((one) => [one.clientWidth, one.querySelector('.main-svg').getBoundingClientRect().width])), 1000)"
    found = browser.execute_async_script(widths)
    assert found
    assert all(drawn <= frame < 360 for frame, drawn in found)


def test_verdicts_with_long_numbers_fit_their_table(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    html.write_report(make_view("none_passed"), path)
    page = re.sub(r"(missed by) [0-9.]+", r"\1 252013189100", path.read_text())
    page = re.sub(r'(data-label="(?:accuracy|bound)"><span>)[-+]?[0-9.]+', r"\1-302013189100", page)
    path.write_text(page)
    look(browser, path)
    room = "const one = document.querySelector('.scroll'); return one.clientWidth - one.scrollWidth"
    assert browser.execute_script(room) == 0


CHECKED = """
const seen = (colour) => (colour.match(/[\\d.]+/g) || []).map(Number);
const light = (rgb) => rgb.slice(0, 3).map((v) => v / 255)
  .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const behind = (one) => {
  for (let at = one; at; at = at.parentElement) {
    const colour = seen(getComputedStyle(at).backgroundColor);
    if (colour.length === 3 || colour[3] > 0) return colour;
  }
  return [255, 255, 255];
};
const contrast = (one, ink) => {
  const [a, b] = [light(seen(ink)), light(behind(one))].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
};
const texts = [...document.querySelectorAll('main *, #tip')].filter((one) => !one.closest('svg') &&
  [...one.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim()));
const marks = [...document.querySelectorAll('.plot text')];
return {
  faint: [
    ...texts.map((one) => [one, getComputedStyle(one).color]),
    ...marks.map((one) => [one, getComputedStyle(one).fill]),
  ].filter(([one, ink]) => contrast(one, ink) < 4.5).map(([one]) => one.textContent.trim().slice(0, 40)),
  nameless: [...document.querySelectorAll('[role=img], [role=region], nav, pre[tabindex], figure')]
    .filter((one) => !(one.getAttribute('aria-label') || '').trim()).map((one) => one.outerHTML.slice(0, 80)),
  dangling: [...document.querySelectorAll('[aria-describedby]')]
    .filter((one) => !document.getElementById(one.getAttribute('aria-describedby'))?.textContent.trim()).length,
  doubled: [...document.querySelectorAll('[id]')].map((one) => one.id).filter((id, i, all) => all.indexOf(id) !== i),
  levels: [...document.querySelectorAll('h1, h2, h3')].map((one) => Number(one.tagName[1])),
};
"""


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_contrast_and_what_is_no_text_has_a_name(browser: Any, tmp_path: Path, dark: bool) -> None:
    path = tmp_path / "report.html"
    html.write_report(make_view("subset_wins"), path, usage=USAGE)
    look(browser, path, dark=dark)
    found = browser.execute_script(CHECKED)
    levels = found.pop("levels")
    assert found == {"faint": [], "nameless": [], "dangling": 0, "doubled": []}
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_a_word_is_explained_by_pointer_and_by_keyboard_and_escape_hides_it(browser: Any, tmp_path: Path) -> None:
    from selenium.webdriver import ActionChains, Keys

    path = tmp_path / "report.html"
    html.write_report(make_view("subset_wins"), path)
    look(browser, path)
    tip, term = browser.find_element("id", "tip"), browser.find_element("css selector", "th a.term[href='#word-bound']")
    assert not tip.is_displayed()
    ActionChains(browser).move_to_element(term).perform()
    assert tip.is_displayed()
    assert tip.text == glossary.WORDS["bound"]
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    assert not tip.is_displayed()
    browser.execute_script("arguments[0].focus()", term)
    assert tip.is_displayed()
    ActionChains(browser).send_keys(Keys.TAB).perform()
    assert tip.text != glossary.WORDS["bound"] or not tip.is_displayed()
    term.click()
    assert browser.current_url.endswith("#word-bound")


def test_paper_is_white_and_figures_fit_it(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    html.write_report(make_view("subset_wins"), path)
    look(browser, path, dark=True)
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    widths = browser.execute_script(
        "return [...document.querySelectorAll('.plot .main-svg')].map((one) => one.clientWidth)"
    )
    assert widths
    assert max(widths) <= 700  # pixels between the margins of A4
    assert browser.execute_script("return document.querySelectorAll('details:not([open])').length") == 0
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert browser.execute_script("return document.querySelectorAll('details:not([open])').length") == 1
    wide = browser.execute_script("return document.querySelector('.plot .main-svg').clientWidth")
    assert wide > 900


def test_text_of_a_user_runs_nowhere(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    html.write_report(evil_view(), path)
    seen = look(browser, path)
    assert (seen.complaints, seen.requests) == ([], [])
    assert browser.execute_script("return document.images.length") == 0


def test_the_look_itself_sees_errors_and_requests(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    page = html.page(make_view("empty"))
    path.write_text(page.replace("</main>", "<script>throw new Error('seen')</script></main>"), encoding="utf-8")
    assert any("seen" in complaint for complaint in look(browser, path).complaints)
    fetch = "<img src='http://127.0.0.1:9/x.png'></main>"
    path.write_text(page.replace("</main>", fetch), encoding="utf-8")
    assert any("Content Security Policy" in complaint for complaint in look(browser, path).complaints)
    open_page = page.replace(policy_of(page), "").replace("</main>", fetch)
    path.write_text(open_page, encoding="utf-8")
    assert look(browser, path).requests == ["http://127.0.0.1:9/x.png"]
