"""Questions are browsed, filtered and marked in a real browser, from a served page and from a file, and curation honours
the marks."""

import json
import threading
import time
import urllib.error
import urllib.request

import pandas as pd
import pytest
from conftest import needs_chromium

import qatoolkit as qt
from qatoolkit.curate import CurateSettings, curate
from qatoolkit.curate.marks import apply_marks, read_marks

HOSTILE = "</script><script>window.ran = 1</script><img src=x onerror='window.ran = 1'> costs $5 or $6 {{ 1 + 1 }}"


def table(n: int = 60) -> pd.DataFrame:
    seeds = [
        {"question": f"Which force keeps planet number {i} in its orbit?", "answer": "gravity", "choices": ["gravity", "friction"],
         "answer_index": 0, "discipline": "physics", "difficulty": "H1"} for i in range(3)
    ]  # fmt: skip
    found = qt.qa_table(seeds, language="en", source="own").assign(set="seeds", outcome="kept")
    made = [
        {"question": f"What is {i} plus {i + 1}?", "answer": str(2 * i + 1), "discipline": "mathematics", "strategy": "link",
         "difficulty": "H5" if i % 2 else "H3", "parents": [found["id"].iloc[0]], "rationale": "Added."} for i in range(n)
    ]  # fmt: skip
    made = qt.qa_table(made, language="en", source="synthetic").assign(set="linkqa", outcome="kept")
    made = made.assign(first_answer=made["answer"], second_answer="7", decided="first")
    hostile = qt.qa_table([{"question": HOSTILE, "answer": HOSTILE}], language="en", source=HOSTILE)
    return pd.concat([found, made, hostile.assign(set="linkqa", outcome=HOSTILE)], ignore_index=True)


@pytest.fixture
def browser(tmp_path):
    found = qt.browse(table(), marks=tmp_path / "marks.jsonl", serve=True)
    yield found
    found.close()


def opened(chromium, url, **options):
    page = chromium.new_page(**options)
    page.problems = []
    page.on("console", lambda message: page.problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("requestfailed", lambda request: page.problems.append(request.url))
    page.goto(url)
    page.wait_for_function("() => document.getElementById('count').textContent.includes('questions')", timeout=60_000)
    return page


@needs_chromium
def test_filter_mark_and_edit_and_curation_honours_it(browser, chromium, tmp_path):
    page = opened(chromium, browser.url)
    assert page.inner_text("#count").startswith("64 of 64 questions")
    page.fill("#search", '"7 plus 8?"')
    page.wait_for_function("() => document.getElementById('count').textContent.startsWith('1 of')")
    assert "What is 7 plus 8?" in page.inner_text("#one")
    assert "Which force keeps planet number 0 in its orbit?" in page.inner_text("#one")  # the seed beside it
    page.keyboard.press("Escape")
    page.keyboard.press("b")
    page.wait_for_function("() => document.getElementById('saved').textContent.includes('saved')")
    page.click("#reset")
    page.select_option("#filter-difficulty", "H3")
    assert page.inner_text("#count").startswith("30 of 64")
    page.focus("#list")
    page.keyboard.press("j")
    page.keyboard.press("g")
    page.keyboard.press("j")
    page.keyboard.press("e")
    page.fill("#edit-answer", "")
    page.click("#keep")
    assert "needs a question and an answer" in page.inner_text("#saved")
    page.fill("#edit-answer", "nine, by hand")
    page.fill("#note", "looks odd\u2028here")
    page.click("#keep")  # while the note has just changed
    page.wait_for_function("() => document.getElementById('count').textContent.includes('3 marked')")
    page.wait_for_function("() => document.getElementById('saved').textContent === '· saved'")
    assert page.problems == []
    page.close()

    marks = browser.marks.set_index("mark")
    assert sorted(marks.index) == ["bad", "edit", "good"]
    assert marks.loc["edit", "note"].startswith("looks odd")
    kept, rejects, report = curate(
        table(), settings=CurateSettings(marks=str(tmp_path / "marks.jsonl"), near_threshold=1.0)
    )
    lost = rejects.set_index("reason").loc["marked_bad"]
    assert lost["question"] == "What is 7 plus 8?"
    assert kept.set_index("id").loc[marks.loc["edit", "id"], "answer"] == "nine, by hand"
    assert set(report.loc[report["outcome"] == "flagged", "reason"]) >= {"marked_good", "marked_edit"}


@needs_chromium
def test_a_saved_page_works_alone_keeps_hostile_text_as_text_and_hands_out_its_marks(chromium, tmp_path):
    place = qt.browse(table(), marks=tmp_path / "none.jsonl", serve=False).save(tmp_path / "page.html")
    for width in (1280, 400):
        page = opened(chromium, place.as_uri(), viewport={"width": width, "height": 900})
        page.fill("#search", "costs")
        page.wait_for_function("() => document.getElementById('count').textContent.startsWith('1 of')")
        assert HOSTILE in page.inner_text("#one .question")
        assert HOSTILE in page.inner_text("#one p.bad")  # the outcome, which says why it is not kept
        assert page.evaluate("() => window.ran") is None
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width
        page.keyboard.press("Escape")
        page.keyboard.press("g")
        with page.expect_download() as download:
            page.click("#download")
        download.value.save_as(tmp_path / f"{width}.jsonl")
        assert read_marks(tmp_path / f"{width}.jsonl")["mark"].tolist() == ["good"]
        assert page.problems == []
        page.close()


@needs_chromium
def test_a_hundred_thousand_rows_stay_responsive(chromium, tmp_path):
    many = pd.concat([table(500)] * 200, ignore_index=True)
    many["id"] = [f"{i:016x}" for i in range(len(many))]
    place = qt.browse(many, marks=tmp_path / "none.jsonl", serve=False).save(tmp_path / "page.html")
    page = opened(chromium, place.as_uri())
    took = page.evaluate(
        "() => { document.getElementById('search').value = '\"76 plus 77?\"'; const t = performance.now(); refresh();"
        " for (let i = 0; i < 50; i++) go(1); return performance.now() - t; }"
    )
    assert page.inner_text("#count").startswith("200 of 100,800")
    assert took < 3_000  # a filter over all rows and fifty steps
    page.close()


def test_the_server_answers_only_who_knows_its_address(browser):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    root = browser.url.rsplit("/", 2)[0]
    port = root.rsplit(":", 1)[1]

    def answer(url, data=None, **headers):
        try:
            return opener.open(urllib.request.Request(url, data, headers), timeout=10).status
        except urllib.error.HTTPError as error:
            return error.code

    assert answer(browser.url) == 200
    assert answer(f"{root}/") == answer(f"{root}/x/") == answer(f"{root}/../etc/passwd") == 404
    assert answer(browser.url, Host=f"evil.example:{port}") == 404
    assert answer(f"{browser.url}marks", b'{"id": 3}') == 400
    assert answer(f"{browser.url}marks", b"no json") == 400
    assert answer(f"{root}/x/marks", b'{"id": "a", "mark": "bad"}') == 404
    assert browser.marks.empty
    assert answer(f"{browser.url}marks", b'{"id": "a", "mark": "bad"}') == 200
    assert browser.marks["id"].tolist() == ["a"]


def test_a_notebook_keeps_questions_that_can_be_read_and_nothing_that_runs(browser):
    html = browser._repr_html_()
    assert "<script" not in html
    assert "while this kernel runs" in html
    assert "✓" in html or "answer" in html


@pytest.mark.parametrize(
    ("line", "said"),
    [("[]", "not a JSON object"), ("{", "not a JSON object"), ('{"mark": "bad"}', "needs an id"), ('{"id": "a", "mark": "best"}', "good, bad, edit"),
     ('{"id": "a", "mark": "edit", "question": "Q?"}', "needs the corrected question and answer"), ('{"id": ["a"], "mark": "bad"}', "must be strings")],
)  # fmt: skip
def test_a_damaged_mark_is_named_with_its_line(tmp_path, line, said):
    (tmp_path / "marks.jsonl").write_text('{"id": "b", "mark": "good"}\n' + line + "\n")
    with pytest.raises(ValueError, match=rf"marks.jsonl line 2: .*{said}"):
        read_marks(tmp_path / "marks.jsonl")


def test_an_edited_answer_stays_the_right_choice(tmp_path):
    asked = table().head(2)
    marks = [
        {"id": id, "mark": "edit", "question": "Which force?", "answer": answer}
        for id, answer in zip(asked["id"], ("weight", "friction"), strict=True)
    ]
    (tmp_path / "marks.jsonl").write_text("".join(json.dumps(mark) + "\n" for mark in marks))
    edited, bad, flagged = apply_marks(asked, read_marks(tmp_path / "marks.jsonl"))
    assert edited["choices"].tolist() == [["weight", "friction"], ["gravity", "friction"]]
    assert [choices[int(i)] for choices, i in zip(edited["choices"], edited["answer_index"], strict=True)] == [
        "weight",
        "friction",
    ]
    assert not bad
    assert [mark for *_, mark in flagged] == ["marked_edit"] * 2


def test_marks_of_many_questions_are_taken_in_turn(tmp_path):
    browser = qt.browse(table(), marks=tmp_path / "marks.jsonl", serve=False)
    started = time.perf_counter()
    for i in range(50):
        browser.take([json.dumps({"id": f"q{i % 10}", "mark": "good" if i < 40 else "bad", "note": str(i)})])
    assert browser.marks["mark"].tolist() == ["bad"] * 10
    browser.take(['{"id": "q3"}'])
    assert len(browser.marks) == 9  # taken back
    assert time.perf_counter() - started < 30


def test_two_pages_on_one_file_of_marks_lose_none(tmp_path):
    pages = [qt.browse(table(), marks=tmp_path / "marks.jsonl", serve=False) for _ in range(2)]

    def mark(k):
        for i in range(20):
            pages[k].take([json.dumps({"id": f"{k}-{i}", "mark": "good", "note": "a\u2028b"}, ensure_ascii=False)])

    threads = [threading.Thread(target=mark, args=(k,)) for k in (0, 1)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(pages[0].marks) == 40
    assert b"@DATA@" not in pages[0].page()


def test_a_cell_that_is_run_again_serves_one_page(tmp_path):
    first = qt.browse(table(), marks=tmp_path / "marks.jsonl", serve=True)
    second = qt.browse(table(), marks=tmp_path / "marks.jsonl", serve=True)
    assert first.url is None
    assert second.url
    second.close()


@needs_chromium
def test_numbers_for_ids_and_values_that_json_has_not_are_shown(chromium, tmp_path):
    odd = pd.DataFrame(
        {"id": [1, 2], "question": ["a?", "b?"], "answer": ["a", "b"], "score": [float("inf"), float("nan")]}
    )
    page = opened(chromium, qt.browse(odd, marks=tmp_path / "m", serve=False).save(tmp_path / "page.html").as_uri())
    assert page.inner_text("#count").startswith("2 of 2")
    assert page.problems == []
    page.close()
    marks = pd.DataFrame({"id": ["2"], "mark": ["bad"], "note": [None], "question": [None], "answer": [None]})
    assert list(apply_marks(odd, marks)[1]) == [1]
