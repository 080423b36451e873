"""What a synthesis will take is counted before it starts."""

import pytest

from qatoolkit.cli import main
from qatoolkit.config import load_profile
from qatoolkit.estimate import ENOUGH, USUAL, estimate, requests
from qatoolkit.ledger import Attempt, Ledger


def test_requests_follow_from_the_settings():
    profile = load_profile("demo", **{"plan.questions": 1000, "plan.high": 0.2, "boostqa.samples": 5})
    table = requests(profile).set_index(["arm", "task"])["requests"]
    assert table["boostqa", "synthesise"] == 800 / 5 + 200 / 2 + 50
    assert table["boostqa", "annotate"] == 1050
    assert table["boostqa", "refine"] == 1000 * 2
    without = requests(load_profile(profile, **{"boostqa.refine": False}))
    assert "refine" not in set(without["task"])


def test_a_known_price_gives_money_and_an_unknown_one_none():
    table = estimate(load_profile("paper")).set_index(["arm", "task"])
    assert table["usd"].notna().all()
    first = table.loc[("boostqa", "synthesise")]
    assert first["completion_tokens"] == first["requests"] * USUAL["synthesise"].completion
    stranger = estimate(load_profile("paper", **{"teacher.refiner": "nobody-knows"}))
    assert stranger["usd"].isna().tolist() == (stranger["model"] == "nobody-knows").tolist()


def test_earlier_requests_replace_the_assumptions(tmp_path):
    profile = load_profile("paper")
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        for i in range(ENOUGH):
            attempt = Attempt(str(i), profile.teacher.refiner, "r", "s", 0.0, 2.0, 200, "ok", 100, 50, 0, 0.0)
            ledger.put(attempt, "{}", "{}")
        table = estimate(profile, ledger)
    known = table[table["model"] == profile.teacher.refiner]
    assert known["measured"].all()
    assert (known["prompt_tokens"] == 100 * known["requests"]).all()
    assert not table.loc[table["model"] == profile.teacher.synthesiser, "measured"].any()


def test_the_command_prints_the_bill_and_spends_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("QATOOLKIT_RESULTS", str(tmp_path / "results"))
    assert main(["plan", "--profile", "paper"]) == 0
    said = capsys.readouterr().out
    for word in ("requests", "tokens", "$", "hours", "assumptions"):
        assert word in said
    assert not (tmp_path / "results").exists()


def test_an_unknown_profile_ends_with_exit_code_2(capsys):
    assert main(["plan", "--profile", "nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err
    with pytest.raises(ValueError, match="nonsense"):
        load_profile("nonsense")
