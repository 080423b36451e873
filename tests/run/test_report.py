"""The report and the page of questions are read offline in a real browser: on a screen, a phone, in the dark, in print."""

import re

import pytest
from conftest import needs_chromium

import qatoolkit as qt
from qatoolkit.run.store import open_run

pytestmark = [pytest.mark.timeout(1500), needs_chromium]


@pytest.fixture(scope="module", params=["report", "questions"])
def place(request, smoke, tmp_path_factory):
    if request.param == "report":
        return smoke.folder / "report.html"
    run = open_run("smoke", root=smoke.folder.parent)
    return qt.browse(run, serve=False).save(tmp_path_factory.mktemp("page") / "questions.html")


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_works_offline_fits_and_is_accessible(place, chromium, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    page, problems = context.new_page(), []
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("requestfailed", lambda request: problems.append(request.url))
    page.goto(place.as_uri())
    page.wait_for_timeout(500)
    assert problems == []
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    cut = page.evaluate(
        "() => [...document.querySelectorAll('table')].filter(t => t.scrollWidth > innerWidth && "
        "getComputedStyle(t.parentElement).overflowX !== 'auto').length"
    )
    assert cut == 0
    found = Axe().run(page).response["violations"]
    assert not [(one["id"], one["nodes"][0]["html"][:120]) for one in found if one["impact"] != "minor"]
    context.close()


def test_nothing_is_cut_in_print(smoke, chromium, tmp_path):
    page = chromium.new_page(viewport={"width": 718, "height": 1000})  # A4 without its margins
    page.emulate_media(media="print")
    page.goto((smoke.folder / "report.html").as_uri())
    wide = page.evaluate(
        "() => [...document.querySelectorAll('table, img')].filter(t => t.getBoundingClientRect().right > innerWidth + 1)"
        ".map(t => t.innerText ? t.innerText.slice(0, 60) : t.alt)"
    )
    assert wide == []
    assert len(page.pdf(path=str(tmp_path / "report.pdf"), format="A4")) > 10_000
    page.close()


def test_the_report_opens_with_what_was_found_and_what_it_was_made_with(smoke):
    page = (smoke.folder / "report.html").read_text(encoding="utf-8")
    order = [
        page.index(f'id="{name}"')
        for name in ("run-and-report", "what-was-found", "along-the-way", "accuracy", "figures", "cost", "stages")
    ]
    assert order == sorted(order)
    for said in (
        "BoostQA compared with base",
        "The smoke profile only shows that everything runs",
        " cores, ",
        "torch 2.",
    ):
        assert said in page
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", page)
    assert re.search(r"commit</td><td[^>]*>([0-9a-f]{12}|no git checkout)", page)
    assert re.search(r"machine</td><td[^>]*>\w+, \d+ cores", page)
    assert re.search(r"stages made</td><td[^>]*>\d{4}-\d\d-\d\d \d\d:\d\d", page)
