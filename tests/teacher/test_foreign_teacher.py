"""The stages against a server that nobody here wrote: `transformers serve` with a model that can only stammer.

It knows neither `n` nor `logprobs` nor `response_format`, names its model by the path of the folder, and its answers are no
JSON; so every row has to come back as a reject with a reason, and no table may vanish or break because it is empty.
"""

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pandas as pd
import pytest

from qatoolkit.core.qa_table import COLUMNS
from qatoolkit.synthesis import boostqa, knowledge_points, linkqa, refine
from qatoolkit.synthesis.annotate import annotate
from qatoolkit.synthesis.settings import BoostQASettings, LinkQASettings
from qatoolkit.synthesis.write import write_and_label
from qatoolkit.teacher.client import Endpoint, Teacher, TeacherError
from qatoolkit.teacher.ledger import Ledger
from qatoolkit.textbook import exams
from qatoolkit.textbook.server import parts
from qatoolkit.textbook.settings import TextbookSettings
from qatoolkit.training.ladder import llama_config, size_of
from qatoolkit.training.tokens import train_tokenizer

missing = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.skipif(bool(missing), reason=f"no {', '.join(missing)}: pip install 'transformers[serving]'"),
    pytest.mark.timeout(180),
]

CHAT = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}assistant:"
REASONS = {"unparsed", "length", "empty"}
SETTINGS = BoostQASettings(samples=2)


@pytest.fixture(scope="module")
def seeds():
    """Textbook seeds with all their labels: enough for every stage to have something to do."""
    book = parts(TextbookSettings(entities=3, entities_zh=2, relations=3))
    tables = [exams.seed_questions(book[language], language, 1)[:3] for language in ("en", "zh")]
    return pd.concat(tables, ignore_index=True)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, seeds):
    """A Llama of half a megabyte with random weights, that ends its answers at any of half its tokens."""
    import torch
    from transformers import LlamaForCausalLM

    folder = tmp_path_factory.mktemp("foreign") / "stammerer"
    tokenizer = train_tokenizer([*seeds["question"], *seeds["answer"]], 512)
    tokenizer.chat_template = CHAT
    torch.manual_seed(0)
    special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    model = LlamaForCausalLM(llama_config(size_of("xs"), len(tokenizer), 16384, **special))
    model.generation_config.eos_token_id = list(range(0, len(tokenizer), 2))
    model.generation_config.do_sample = True
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def served(checkpoint):
    """The base URL of a `transformers serve`, ended with the tests."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    main = "import sys; from transformers.cli.transformers import main; sys.exit(main())"
    command = [sys.executable, "-c", main, "serve", str(checkpoint), "--device", "cpu", "--host", "127.0.0.1"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    log = checkpoint.parent / "server.log"
    with log.open("wb") as file:
        server = subprocess.Popen(
            [*command, "--port", str(port)], env=environment, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + 120
        while not _up(port):
            assert server.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _up(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture(scope="module")
def teacher(served, checkpoint, tmp_path_factory):
    """Makes Teachers that share a ledger."""
    with Ledger(tmp_path_factory.mktemp("foreign_ledger") / "ledger.sqlite") as ledger:

        def make(model=str(checkpoint), **changes):
            options = {"max_tokens": 12, "in_flight": 4, "timeout": 60.0, "attempts": 2, "backoff": 0.05}
            return Teacher(model, endpoint=Endpoint(base_url=served), ledger=ledger, **options | changes)

        yield make


@pytest.fixture(scope="module")
def plan():
    rows = [("mathematics", "H2", 3), ("mathematics", "H5", 2), ("physics", "H4", 0), ("medicine", "H1", 1)]
    return pd.DataFrame(rows, columns=["discipline", "difficulty", "budget"])


@pytest.fixture(scope="module")
def labelled(seeds):
    """The seeds, all said to be of one discipline, so that the plan finds them."""
    return seeds.assign(discipline="mathematics", knowledge_points=[["a", "b"]] * len(seeds))


def assert_all_rejected(rejects, n):
    assert len(rejects) == n
    assert set(rejects["reason"]) <= REASONS
    assert rejects["detail"].str.len().gt(0).all()


def test_it_answers_and_what_it_says_is_typed_and_counted(teacher):
    table = teacher(max_tokens=24).ask([f"Say {i}." for i in range(8)])
    assert set(table["outcome"]) <= {"ok", "length", "empty"}
    assert table["prompt_tokens"].gt(0).all()
    assert table["completion_tokens"].le(24).all()
    assert teacher(max_tokens=24).ask([f"Say {i}." for i in range(8)])["cached"].all()


def test_every_question_it_cannot_label_is_a_reject(teacher, seeds):
    done, rejects = annotate(seeds, teacher())
    assert done.empty
    assert_all_rejected(rejects, len(seeds))
    assert rejects[["id", "question", "answer"]].equals(seeds[["id", "question", "answer"]])


def test_every_question_without_knowledge_points_is_a_reject(teacher, seeds):
    done, rejects = knowledge_points.extract(seeds.assign(knowledge_points=None), teacher())
    assert done.empty
    assert_all_rejected(rejects, len(seeds))
    assert list(rejects["id"]) == list(seeds["id"])


def test_a_synthesis_that_wrote_nothing_runs_to_its_end(teacher, labelled, plan):
    made, rejects = write_and_label(boostqa.requests(labelled, plan, SETTINGS), teacher(), teacher())
    assert made.empty
    assert set(COLUMNS) <= set(made)
    assert_all_rejected(rejects, len(boostqa.requests(labelled, plan, SETTINGS)))


def test_refinement_rejects_what_it_cannot_check_and_takes_nothing_too(teacher, labelled, plan):
    kept, rejects = refine.refine(labelled, teacher(), SETTINGS)
    assert kept.empty
    assert_all_rejected(rejects, len(labelled))
    made, _ = write_and_label(boostqa.requests(labelled, plan, SETTINGS), teacher(), teacher())
    for table in (made, made.drop(columns="attempt")):
        kept, rejects = refine.refine(table, teacher(), SETTINGS)
        assert len(kept) == len(rejects) == 0
        assert set(COLUMNS) <= set(kept)


def test_links_that_wrote_nothing_run_to_their_end(teacher, labelled, plan):
    paths = pd.DataFrame(
        {
            "path": [0, 1],
            "kps": [["a", "b"], ["b", "a"]],
            "seeds": [list(labelled["id"][:2]), list(labelled["id"][3:5])],
        }
    )
    asked = linkqa.requests(paths, labelled, plan, LinkQASettings(questions_per_path=2))
    made, rejects = linkqa.synthesise(asked, teacher(), teacher())
    assert made.empty
    assert set(COLUMNS) <= set(made)
    assert_all_rejected(rejects, len(asked))
    kept, rejects = refine.refine(made, teacher(), SETTINGS)
    assert len(kept) == len(rejects) == 0


def test_empty_tables_pass_through_every_stage(teacher, labelled, plan):
    nothing = labelled[:0]
    for step in (annotate, knowledge_points.extract):
        done, rejects = step(nothing, teacher())
        assert len(done) == len(rejects) == 0
        assert set(labelled) <= set(done)
    made, rejects = write_and_label(boostqa.requests(nothing, plan, SETTINGS), teacher(), teacher())
    assert len(made) == len(rejects) == 0
    assert set(COLUMNS) <= set(made)
    paths = pd.DataFrame({"path": [], "kps": [], "seeds": []})
    asked = linkqa.requests(paths, nothing, plan, LinkQASettings())
    made, rejects = linkqa.synthesise(asked, teacher(), teacher())
    assert len(made) == len(rejects) == 0
    assert set(COLUMNS) <= set(made)


@pytest.mark.parametrize(
    "extra", [{"generation_config": "no JSON"}, {"temperature": -1.0}, {"max_tokens": "many"}, {"tools": 7}]
)
def test_a_request_it_chokes_on_is_a_row_with_its_error(teacher, extra):
    """It answers some of these with a plain-text 500 or drops the connection, and ignores others."""
    row = teacher(extra=extra).ask(["One."]).iloc[0]
    assert row["outcome"] in ("ok", "length", "empty", "connection", "http_400", "http_422", "http_500")
    assert row["outcome"] == "ok" or row["error"]


def test_it_goes_on_after_what_it_choked_on(teacher):
    odd = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "nowhere"}}]}]
    table = teacher().ask(["One.", odd, [{"role": "user"}], "Two."])
    assert len(table) == 4
    assert set(table["outcome"][[0, 3]]) <= {"ok", "length", "empty"}


def test_a_model_it_does_not_serve_is_an_error_that_says_so(teacher):
    with pytest.raises(TeacherError, match=r"answered 404|has-this-model"):
        teacher("nobody/has-this-model", attempts=1, in_flight=1).ask(["x"] * 30)
