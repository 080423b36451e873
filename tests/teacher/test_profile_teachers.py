"""What a profile says of its teachers is what their server gets: endpoint, headers, fields of a request, prices."""

import json
import socket

import pytest
from teacher_server import USAGE, completion, failure

from qatoolkit.run.profiles import load_profile
from qatoolkit.run.stages.teachers import endpoint_of, is_offline, teachers
from qatoolkit.run.store import open_run
from qatoolkit.teacher.batch_client import BatchTeacher
from qatoolkit.teacher.client import BudgetError, Endpoint, Teacher, TeacherError
from qatoolkit.teacher.ledger import Ledger
from qatoolkit.teacher.prices import price_of
from qatoolkit.teacher.settings import Price

SECRET = "gw-very-secret-4711"


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("QATOOLKIT_RESULTS", str(tmp_path))


def ask(run, prompt="q"):
    """The one row of a question to the run's annotator, and what it spent."""
    with teachers(run, "annotate") as teacher:
        row = teacher.annotator.ask([prompt]).iloc[0]
        return row, teacher.annotator.ledger.spend(run.name).iloc[0]


def profile(tmp_path, text, **dials):
    """The run of a YAML profile."""
    file = tmp_path / "mine.yaml"
    file.write_text(f"profile: smoke\nteacher:\n{text}")
    return open_run("mine", profile=file, **dials)


def test_a_yaml_profile_sets_every_field_of_a_request(server, tmp_path):
    run = profile(
        tmp_path,
        f"""
  base_url: {server.url}
  annotator: gpt-4.1
  max_tokens: null
  temperature: null
  extra: {{enable_thinking: false, max_completion_tokens: 8000, chat_template_kwargs: {{thinking: off}}}}
  price: {{gpt-4: {{input: 1, output: 2}}, gpt-4.1: {{input: 3, output: 5, cached_input: 1}}}}
""",
    )
    row, spend = ask(run)
    body = server.requests[0][0]
    assert body == {
        **{"model": "gpt-4.1", "messages": [{"role": "user", "content": "q"}], "enable_thinking": False},
        **{"max_completion_tokens": 8000, "chat_template_kwargs": {"thinking": False}},
    }
    usd = (USAGE["prompt_tokens"] * 3 + USAGE["completion_tokens"] * 5) / 1e6
    assert row["cost"] == spend["cost"] == pytest.approx(usd)


def test_batches_carry_the_fields_and_the_price_too(server):
    dials = {
        **{"teacher.base_url": server.url, "teacher.batch": True, "teacher.temperature": None},
        **{
            "teacher.extra": {"reasoning_effort": "low"},
            "teacher.price": {"textbook-err05": {"input": 1, "output": 2}},
        },
    }
    with teachers(open_run("r", profile="smoke", **dials), "annotate") as teacher:
        asker = teacher.annotator
        assert isinstance(asker, BatchTeacher)
        assert asker._request([], 0).body.keys() == {"model", "max_tokens", "reasoning_effort", "messages"}
        assert asker.price == Price(input=1, output=2)


def test_keys_change_only_with_what_is_sent(server, tmp_path):
    def keys(**dials):
        given = {f"teacher.{name}": value for name, value in dials.items()}
        run = open_run("r", profile="smoke", **{"teacher.base_url": server.url} | given)
        with teachers(run, "annotate") as teacher:
            return teacher.annotator.keys(["q"])

    with Ledger(tmp_path / "plain.sqlite") as ledger:
        plain = Teacher("textbook-err05", ledger=ledger, endpoint=Endpoint(base_url=server.url), max_tokens=4096)
        assert keys() == plain.keys(["q"])
    price = {"textbook-err05": {"input": 1, "output": 1}}
    assert keys(price=price, headers={"X-Team": "TEAM"}, key_env="OTHER", extra={}) == keys()
    assert len({*keys(), *keys(extra={"top_p": 0.5}), *keys(max_tokens=None), *keys(temperature=None)}) == 4


def test_a_named_endpoint_keeps_its_answers_when_it_moves(server):
    named = {"teacher.endpoint_name": "our-vllm"}
    ask(open_run("r", profile="smoke", **{"teacher.base_url": server.url}, **named))
    row, _ = ask(open_run("r", profile="smoke", **{"teacher.base_url": "http://127.0.0.1:9/v1"}, **named))
    assert row["cached"]
    assert len(server.requests) == 1


def test_headers_and_key_come_from_the_environment_and_stay_out_of_every_file(server, tmp_path, monkeypatch):
    dials = {
        **{"teacher.base_url": server.url, "teacher.key_env": "MY_KEY"},
        "teacher.headers": {"X-Gateway-Key": "GATEWAY", "OpenAI-Organization": "ORG"},
    }
    monkeypatch.setenv("MY_KEY", "my-key-0815-xyz")
    monkeypatch.setenv("GATEWAY", SECRET)
    run = open_run("r", profile="smoke", **dials)
    with pytest.raises(TeacherError, match=r"no value for the header OpenAI-Organization: set .* ORG"):
        ask(run)
    assert not server.requests
    monkeypatch.setenv("ORG", "org-1")
    server.answer = lambda prompt, nth: completion(f"you sent {SECRET}")
    row, _ = ask(run)
    sent = server.requests[0][1]
    assert (sent["Authorization"], sent["X-Gateway-Key"]) == ("Bearer my-key-0815-xyz", SECRET)
    assert sent["OpenAI-Organization"] == "org-1"
    assert row["content"] == "you sent [GATEWAY]"
    assert all(SECRET.encode() not in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    server.answer = lambda prompt, nth: failure(401)
    with pytest.raises(TeacherError, match="check the key in MY_KEY and GATEWAY and ORG"):
        ask(run, "another")
    keyless = {"teacher.base_url": server.url, "teacher.key_env": None}
    server.answer = lambda prompt, nth: completion("ok")
    ask(open_run("r", profile="smoke", **keyless), "a third")
    assert "Authorization" not in server.requests[-1][1]


def test_a_budget_works_with_a_price_of_the_profile(server):
    dials = {
        **{"teacher.base_url": server.url, "teacher.annotator": "mine", "teacher.budget": 0.0001},
        **{"teacher.price": {"mine": {"input": 1, "output": 10}}, "teacher.max_tokens": None},
        "teacher.extra": {"max_completion_tokens": 100},
    }
    run = open_run("r", profile="smoke", **dials | {"teacher.refiner": "mine", "teacher.synthesiser": "mine"})
    with pytest.raises(BudgetError, match=r"budget of \$0.0001 reached"):
        ask(run)
    assert not server.requests


def test_an_endpoint_refuses_a_key_for_a_variable_and_a_header_that_is_its_own():
    for wrong, message in (
        ({"key_env": SECRET}, r"Endpoint\.key_env does not name an environment variable"),
        ({"headers": {"X-Key": SECRET}}, r"Endpoint\.headers does not name an environment variable"),
        ({"headers": {"authorization": "A"}}, "a header other than authorization"),
        ({"headers": {"a b": "A"}}, r"Endpoint\.headers has 'a b'"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            Endpoint(base_url="http://127.0.0.1:9/v1", **wrong)
        assert SECRET not in str(caught.value)


def test_own_prices_come_before_the_list():
    own = {"deepseek-chat": Price(input=9, output=9)}
    assert price_of("deepseek-chat", own=own).input == 9
    assert (
        price_of("deepseek-chat", "2025-03-01").input == price_of("deepseek-chat", "2025-03-01", own={}).input == 0.27
    )
    assert price_of("unlisted", own=own) is None


@pytest.mark.parametrize(
    ("dial", "value", "message"),
    [
        ("extra", {"n": 2}, "teacher.extra may not set 'n': samples= does"),
        ("extra", {"model": "x"}, "teacher.extra may not set 'model'"),
        ("extra", {"max_completion_tokens": 8}, "set max_tokens to null"),
        ("extra", {"seed": {1, 2}}, "JSON can't hold"),
        ("price", {"m": {"input": -1, "output": 1}}, "teacher.price.m.input is -1"),
        ("price", {"m": {"input": 1}}, "teacher.price.m.output must be given"),
        ("base_url", "ofline", "teacher.base_url is 'ofline': give http"),
        ("key_env", "sk-secret-123", "teacher.key_env does not name an environment variable"),
        ("headers", {"X-Key": "gw-secret-123"}, "teacher.headers does not name an environment variable"),
        ("base_url", "https://me:secret@host/v1", "teacher.base_url contains credentials"),
    ],
)
def test_a_wrong_value_is_refused_when_the_profile_is_read(dial, value, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_profile("smoke", **{f"teacher.{dial}": value})
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_offline_names_the_worlds_own_teacher_whatever_the_environment_says(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    real, offline = open_run("r", profile="smoke"), open_run("r", profile="smoke", **{"teacher.base_url": "offline"})
    assert (is_offline(real), is_offline(offline)) == (False, True)
    with endpoint_of(real) as endpoint:
        assert endpoint.base_url == "http://127.0.0.1:9/v1"
    with endpoint_of(offline) as endpoint:
        assert endpoint.name.startswith("offline-textbook-")
    row, _ = ask(offline)
    assert row["outcome"] == "refusal"
    monkeypatch.delenv("OPENAI_BASE_URL")
    assert is_offline(open_run("r", profile="smoke"))


def test_a_variant_asks_the_offline_teacher_of_its_run_unless_it_names_another(server):
    run = open_run("r", profile="smoke", **{"teacher.base_url": "offline"})
    with endpoint_of(run) as own:
        pass
    same = run.variant("v", {"boostqa.refine": False})
    other = run.variant("w", {"teacher.base_url": server.url})
    with endpoint_of(same) as shared, endpoint_of(other) as foreign:
        assert shared.base_url == own.base_url
        assert foreign.base_url == server.url


def test_no_public_host_is_asked_unless_it_is_named(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the network was used")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        for make in (Teacher, BatchTeacher):
            with pytest.raises(ValueError, match="no endpoint is named: set OPENAI_BASE_URL") as caught:
                make("gpt-4o", ledger=ledger).ask(["q"])
            assert "\n" not in str(caught.value)
        with pytest.raises(ValueError, match="set OPENAI_BASE_URL"):
            Endpoint.from_env()
        assert ledger.attempts().empty


def test_the_offline_teacher_is_one_call_and_ends_by_itself(tmp_path):
    from qatoolkit.run.offline import offline_teacher
    from qatoolkit.synthesis.annotate import annotate
    from qatoolkit.textbook import exams, knowledge

    seeds = exams.seed_questions(knowledge.load(), "en", 1)[:5]
    with offline_teacher() as teacher:
        labelled, rejects = annotate(seeds, teacher)
        url, path = teacher.endpoint.base_url, teacher.ledger.path
    assert (len(labelled), len(rejects)) == (5, 0)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1].split("/")[0])))
    assert not path.exists()
    with Ledger(tmp_path / "kept.sqlite") as ledger:
        teacher = offline_teacher("textbook", ledger=ledger)
        teacher.ask(["q"])
        teacher.close()
        teacher.close()
        assert len(ledger.attempts()) == 1
        with offline_teacher("textbook", ledger=ledger) as teacher:
            assert teacher.ask(["q"])["cached"].all()  # another process, the same answers


def test_settings_survive_json(server):
    dials = {"teacher.extra": {"a": [1, None]}, "teacher.price": {"m": {"input": 1, "output": 2}}}
    settings = load_profile("smoke", **dials).teacher
    assert type(settings)(**json.loads(settings.model_dump_json())) == settings
