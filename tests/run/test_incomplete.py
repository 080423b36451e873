"""Finished means finished: a stage whose teacher could not be reached for some rows is incomplete, and goes on later."""

import json
import threading
from collections import Counter

import pandas as pd
import pytest
from aiohttp import web
from own_world import ArithmeticTeacher, ask
from teacher_server import failure

from qatoolkit.core.files import remove
from qatoolkit.run import cli, stages
from qatoolkit.run.answer_counts import Incomplete
from qatoolkit.run.contracts import stage
from qatoolkit.run.stages.teachers import teachers
from qatoolkit.run.store import MissingUpstream, open_run
from qatoolkit.teacher.calls import is_transient

N = 40
LOGIN = "<!DOCTYPE html>\n<html><head><title>Log in to continue</title></head>"
UNIFORM = {
    "plan": {"rule": "uniform", "questions": 60},
    "student": {"size": "xxs", "tokens": 5_000},
    "scaling": {"sizes": []},
}


class Unreliable(ArithmeticTeacher):
    """Answers some requests as `fail(task, given, nth)` says, others as it should; counts what it answered."""

    def __init__(self):
        self.respond = None
        self.fail, self.answered = (lambda task, given, nth: None), Counter()
        self._nth = Counter()
        super().__init__()

    async def _handle(self, request):
        if self.respond:
            return self.respond()
        body = await request.json()
        messages = body["messages"]
        task, given = messages[0]["content"].split()[1].strip(","), json.loads(messages[1]["content"])
        what = task, given.get("question", ""), len(messages)
        self._nth[what] += 1
        if (status := self.fail(task, given, self._nth[what])) == "drop":
            request.transport.close()
        if status:
            return failure(status if isinstance(status, int) else 500)
        response = await super()._handle(request)
        self.answered[what] += 1
        return response


@pytest.fixture
def teacher(monkeypatch):
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    server = Unreliable()
    yield server
    server.close()


@pytest.fixture
def opened(teacher, tmp_path, monkeypatch):
    """A function that opens the run of a world of `N` seeds in a results folder."""
    operations = ("plus", "minus", "times")
    rows = [ask(i + 2, operations[i % 3], i + 5) for i in range(N)]
    (tmp_path / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[: N // 2]))
    (tmp_path / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[N // 2 :]))

    def run(results="results", **dials):
        monkeypatch.setenv("QATOOLKIT_RESULTS", str(tmp_path / results))
        settings = {"base_url": teacher.url, "endpoint_name": "arithmetic", "attempts": 1}
        (tmp_path / "mine.yaml").write_text(
            json.dumps(
                {
                    "profile": "smoke",
                    "seeds": {"sources": ["seeds.jsonl", "more.jsonl"]},
                    "exams": {"textbook_en": {"source": "textbook"}},
                    "teacher": settings,
                    "evaluate": {"label": 0},
                }
                | dials
            )
        )
        return open_run("mine", profile=tmp_path / "mine.yaml", change=True)

    return run


def annotated(run, lines=None):
    return stages.run_to(run, "annotate", log=(lines if lines is not None else []).append)


def some(task, given, nth):
    """A bad hour: one request in three fails, as an outage does, and goes on failing."""
    number = sum(map(ord, given.get("question", "")))
    return (500, 503, 408, "drop")[number % 4] if number % 3 == 0 else None


def test_an_outage_leaves_the_stage_incomplete_and_a_rerun_asks_for_the_missing_alone(opened, teacher):
    undisturbed = annotated(opened("undisturbed"))
    expected, once = undisturbed.seeds, Counter(teacher.answered)
    teacher.answered.clear()

    run = opened()
    teacher.fail = some
    with pytest.raises(Incomplete) as caught:
        annotated(run)
    said = str(caught.value)
    assert len(said.splitlines()) == 1
    assert "rows are missing (" in said
    assert "http_503" in said
    assert "run notebooks/02_annotate.ipynb again" in said
    assert run.manifest("annotate") is None
    assert 0 < len(teacher.answered) < len(once)

    teacher.fail = lambda *_: None
    again = annotated(opened())
    pd.testing.assert_frame_equal(again.seeds, expected)
    assert again.rejects.empty
    assert teacher.answered == once  # every request answered once over both runs
    assert run.notes.read() == {}


@pytest.mark.parametrize("strategy", ["boostqa", "linkqa"])
def test_an_outage_at_any_step_of_a_strategy_loses_nothing(opened, teacher, trained_here, strategy):
    run = opened(**UNIFORM)
    stages.run_to(run, "plan", log=str)
    teacher.answered.clear()
    expected, once = stages.synthesise(run, strategy, log=str), Counter(teacher.answered)
    expected = {name: getattr(expected, name) for name in ("made", "questions", "rejects")}
    for forgotten in (*run.root.glob("ledger.sqlite*"), run.root / "stages" / strategy):
        remove(forgotten)
    teacher.answered.clear()
    for every in (3, 5, 7):  # an outage that comes and goes, at each step of the strategy
        teacher.fail = lambda task, given, nth, every=every: (
            503 if sum(map(ord, task + json.dumps(given))) % every == 0 else None
        )
        with pytest.raises(Incomplete, match=r"rows are missing \(http_503"):
            stages.synthesise(opened(**UNIFORM), strategy, log=str)
        assert run.manifest(strategy) is None
    teacher.fail = lambda *_: None
    again = stages.synthesise(opened(**UNIFORM), strategy, log=str)
    for name, table in expected.items():
        pd.testing.assert_frame_equal(getattr(again, name), table)
    assert {
        what: n for what, n in teacher.answered.items() if what in once
    } == once  # each answered once over all of it
    more = teacher.answered - once  # LinkQA checks answers that are over the budget once the missing ones are there
    assert {task for task, *_ in more} <= ({"refine", "solve"} if strategy == "linkqa" else set())
    assert more.total() < 0.1 * once.total()


def test_status_and_downstream_name_what_is_missing(opened, teacher, capsys):
    teacher.fail = lambda task, given, nth: 503 if "plus" in given["question"] else None
    run = opened()
    with pytest.raises(Incomplete, match=r"annotate is incomplete: 14 of 66 rows are missing \(http_503 14\)"):
        annotated(run)
    with pytest.raises(MissingUpstream, match=r"'annotate' of run 'mine' is incomplete: 14 of 66 rows .*02_annotate"):
        stages.synthesise(opened(), "boostqa", log=str)
    assert cli.main(["status", "--profile", str(run.source), "--run", "mine"]) == 0
    said = capsys.readouterr().out
    assert "annotate           incomplete, 14 of 66 rows are missing (http_503 14); running it again" in said


def test_a_dead_teacher_finishes_nothing_however_few_the_rows(opened, teacher):
    run = opened()
    stages.run_to(run, "seeds", log=str)
    teacher.fail = lambda *_: "drop"
    with pytest.raises(Incomplete, match=rf"{N} of {N} rows are missing \(connection {N}\); no connection to http"):
        stages.annotate(run, log=str)
    assert run.manifest("annotate") is None


@pytest.mark.parametrize(
    ("respond", "words"),
    [
        (
            lambda: web.Response(text=LOGIN, content_type="text/html"),
            "no chat completion \\(status 200\\) from {}: .*Log in",
        ),
        (lambda: failure(500, "worn out"), "status 500 Internal Server Error from {}: 'worn out'; check that"),
    ],
)
def test_a_server_that_answers_nothing_of_use_is_named_with_what_it_says(opened, teacher, respond, words):
    run = opened()
    stages.run_to(run, "seeds", log=str)
    teacher.respond = respond
    with pytest.raises(
        Incomplete, match=rf"{N} of {N} rows are missing \(http_\d+ {N}\); " + words.format(teacher.url)
    ):
        stages.annotate(run, log=str)
    assert "it usually ends in /v1" in run.notes.read()["annotate"]
    teacher.respond = None
    assert annotated(opened()).rejects.empty


def test_a_stage_where_every_row_is_refused_by_the_server_is_not_finished(opened, teacher):
    run = opened()
    stages.run_to(run, "seeds", log=str)
    teacher.fail = lambda *_: 422
    with pytest.raises((Incomplete, RuntimeError)):
        stages.annotate(run, log=str)
    assert run.manifest("annotate") is None


def test_a_stop_of_the_teacher_is_noted_with_the_rows_that_it_left(opened, teacher):
    run = opened(teacher={"base_url": teacher.url, "in_flight": 2, "attempts": 1, "endpoint_name": "arithmetic"})
    stages.run_to(run, "seeds", log=str)
    teacher.fail = lambda task, given, nth: 402 if sum(teacher.answered.values()) >= 10 else None
    with pytest.raises(RuntimeError, match="top it up"):
        stages.annotate(run, log=str)
    note = run.notes.read()["annotate"]
    assert "of 40 rows are missing (not asked" in note
    assert "top it up" in note


def test_accepted_missing_rows_are_counted_and_the_dial_turned_back_asks_for_them(opened, teacher):
    teacher.fail = lambda task, given, nth: 503 if given["question"].startswith("What is 2 ") else None
    settings = {"base_url": teacher.url, "endpoint_name": "arithmetic", "attempts": 1}
    run, lines = opened(teacher=settings | {"accept_missing": 0.05}), []
    assert len(annotated(run, lines).rejects) == 1
    assert "1 of 79 rows missing (http_503 1), as teacher.accept_missing allows" in lines[-1]
    lines.clear()
    annotated(run, lines)
    assert any("done before, nothing to do; 1 of 79 rows missing" in line for line in lines)
    teacher.fail, before = (lambda *_: None), sum(teacher.answered.values())
    assert annotated(opened(teacher=settings)).rejects.empty
    assert sum(teacher.answered.values()) - before == 2  # its labels and its knowledge points


def test_rejects_for_good_are_printed_by_reason_and_finish_the_stage(opened, teacher):
    teacher.fail = lambda task, given, nth: 400 if given["question"].startswith("What is 3 ") else None
    lines = []
    run = opened()
    assert annotated(run, lines).rejects["reason"].tolist() == ["http_400"]
    assert lines[-1].startswith("annotate: done in")
    assert lines[-1].endswith("; 1 rows rejected (http_400 1)")
    assert run.manifest("annotate")["teachers"] == {"rows": 79, "rejected": {"http_400": 1}, "missing": {}}


def test_any_stage_that_asks_is_watched_strategies_from_outside_too(opened, teacher):
    @stage("trial_of_asking")
    def asking(run, folder):
        with teachers(run, "trial") as by:
            said = by.named("any").ask([[{"role": "system", "content": "Task: annotate, v"}, QUESTION]] * 2)
        return {"value": int((said["outcome"] == "ok").sum())}

    run = opened()
    teacher.fail = lambda *_: 503
    with pytest.raises(Incomplete, match="2 of 2 rows are missing"):
        asking(run, log=str)
    teacher.fail = lambda *_: None
    assert asking(run, log=str).value == 2


QUESTION = {"role": "user", "content": json.dumps({"question": "What is 1 plus 1?"})}


def test_a_correction_that_could_not_be_asked_for_is_a_missing_row(opened, teacher):
    run, lock = opened(), threading.Lock()
    teacher._annotate = lambda given: {"no": "label"}

    def fail(task, given, nth):
        with lock:
            return 503 if task == "annotate" and teacher.answered["annotate", given["question"], 2] else None

    teacher.fail = fail
    with pytest.raises(Incomplete, match=rf"{N} of {N} rows are missing \(http_503 {N}\)"):
        annotated(run)


@pytest.mark.parametrize(
    "outcome",
    ["connection", "timeout", "interrupted", "batch_expired", "batch_cancelled"]
    + [f"http_{n}" for n in (200, 302, 401, 402, 403, 404, 408, 409, 425, 429, 500, 502, 503, 504, 520, 529)],
)
def test_outcomes_that_may_be_otherwise_another_time(outcome):
    assert is_transient(outcome)


@pytest.mark.parametrize(
    "outcome", ["ok", "empty", "length", "refusal", "unparsed", "http_400", "http_413", "http_422"]
)
def test_outcomes_for_good(outcome):
    assert not is_transient(outcome)
