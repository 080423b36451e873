"""Two scorers agree; intervals and paired differences mean what they say."""

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

from qatoolkit.core.qa_table import qa_table
from qatoolkit.core.stats import accuracy, difference_over_seeds, mcnemar, paired_difference, wilson
from qatoolkit.evaluation.cloze import load_model, score, score_pairs
from qatoolkit.evaluation.evaluate import evaluate
from qatoolkit.evaluation.tasks import export_tasks
from qatoolkit.synthesis.budget import apportion
from qatoolkit.textbook import exams, knowledge
from qatoolkit.training import ladder
from qatoolkit.training.tokens import train_tokenizer

RIVERS = qa_table([{"question": "Which river?", "answer": "Po"}], language="en", source="rivers")
RIVERS = RIVERS.assign(choices=[["Po", "Rhône"]], answer_index=0)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A random tiny model and three small exams."""
    folder = tmp_path_factory.mktemp("world")
    book = knowledge.load().part(5, 3, 1)
    tables = {n: exams.exam(book, n, 1).head(40) for n in ("textbook_en", "textbook_zh", "textbook_math")}
    tokenizer = train_tokenizer(list(tables["textbook_en"]["question"]), 512)
    model = AutoModelForCausalLM.from_config(ladder.llama_config(ladder.size_of("xxs"), len(tokenizer), 256))
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder / "model", tables, export_tasks(tables, folder / "tasks")


def test_the_cloze_scorer_predicts_what_lm_eval_predicts(world):
    model, tables, tasks = world
    reported = evaluate(model, tasks, list(tables)).set_index("id")
    for name in ("textbook_en", "textbook_zh"):
        ours = score(*load_model(model), tables[name]).merge(tables[name][["id", "choices"]], on="id")
        given = [c[i] for c, i in zip(ours["choices"], ours["predicted"], strict=True)]
        assert given == list(reported.loc[ours["id"], "given"])
        assert list(ours["correct"]) == list(reported.loc[ours["id"], "correct"])


def test_continuations_read_together_score_as_if_each_were_read_alone(world):
    network, _ = load_model(world[0])
    rng = np.random.default_rng(0)
    draw = lambda n: rng.integers(2, 500, n).tolist()  # noqa: E731
    pairs = [(context, draw(1 + i % 4)) for context in (draw(9), draw(3)) for i in range(20)] + [(draw(1), draw(6))]

    def alone(context, continuation):
        logits = network(torch.tensor([context + continuation])).logits[0, len(context) - 1 : -1].double()
        return -torch.nn.functional.cross_entropy(logits, torch.tensor(continuation), reduction="sum").item()

    with torch.inference_mode():
        wanted = [alone(*pair) for pair in pairs]
    for batch_tokens in (10, 16_384):
        np.testing.assert_allclose(score_pairs(network, pairs, batch_tokens)[0], wanted, atol=1e-4)


def test_open_questions_cannot_be_cloze_scored(world):
    model, tables, _ = world
    with pytest.raises(ValueError, match="no choices"):
        score(*load_model(model), tables["textbook_math"])


def test_one_task_holds_one_language(world, tmp_path):
    _, tables, _ = world
    both = pd.concat([tables["textbook_en"], tables["textbook_zh"]])
    with pytest.raises(ValueError, match="mixes languages"):
        export_tasks({"both": both}, tmp_path / "tasks")
    assert not (tmp_path / "tasks").exists()


def test_wilson_is_the_textbook_interval():
    assert wilson(8, 10) == pytest.approx((0.490, 0.943), abs=0.001)
    assert wilson(0, 20)[0] == pytest.approx(0)
    assert np.isnan(wilson(0, 0)[0])


def test_accuracy_by_group():
    samples = pd.DataFrame({"arm": ["a", "a", "b"], "correct": [True, False, True]})
    table = accuracy(samples, "arm").set_index("arm")
    assert table.loc["a", "accuracy"] == 0.5
    assert table.loc["b", "n"] == 1


def test_paired_difference_is_tighter_than_its_parts_and_excludes_zero_when_it_should():
    rng = np.random.default_rng(0)
    base = pd.DataFrame({"id": range(400), "correct": rng.random(400) < 0.4})
    better = base.assign(correct=base["correct"] | (rng.random(400) < 0.3))
    found = paired_difference(better, base)
    assert found["low"] > 0
    assert found["low"] < found["difference"] < found["high"]
    assert paired_difference(base, base) == {"difference": 0.0, "low": 0.0, "high": 0.0, "n": 400}


def test_a_difference_over_seeds_tells_questions_and_seeds_apart():
    rng, ids = np.random.default_rng(0), np.arange(400)
    control = pd.DataFrame({"id": ids, "correct": rng.random(400) < 0.4})

    def better(by):
        return control.assign(correct=control["correct"] | (rng.random(400) < by))

    alike = difference_over_seeds([(better(0.3), control) for _ in range(3)])
    assert (alike["n"], alike["seeds"]) == (400, 3)
    assert alike["low"] < alike["questions_low"] < alike["difference"] < alike["questions_high"] < alike["high"]
    apart = difference_over_seeds([(better(by), control) for by in (0.1, 0.3, 0.5)])
    assert apart["seeds_high"] - apart["seeds_low"] > 3 * (alike["seeds_high"] - alike["seeds_low"])
    both = [apart[f"{kind}high"] - apart["difference"] for kind in ("", "questions_", "seeds_")]
    assert both[0] == pytest.approx(np.hypot(*both[1:]))
    one = difference_over_seeds([(better(0.3), control)])
    assert one["seeds_low"] is None
    pair = better(0.05), control
    assert difference_over_seeds([pair])["p"] == pytest.approx(mcnemar(*pair)["p"])
    assert alike["p"] < 0.05 < apart["p"]  # seeds that differ: no claim
    assert difference_over_seeds([(control, control)] * 2)["p"] == 1
    assert (one["low"], one["high"]) == pytest.approx((one["questions_low"], one["questions_high"]))
    with pytest.raises(ValueError, match="different questions"):
        difference_over_seeds([(control, control), (control[:300], control[:300])])


def test_paired_difference_refuses_different_questions():
    a = pd.DataFrame({"id": [1, 2], "correct": [True, True]})
    with pytest.raises(ValueError, match="share only 1"):
        paired_difference(a, a.assign(id=[2, 3]))


def test_a_budget_is_spent_to_the_last_question():
    assert apportion(pd.Series([0.5, 0.3, 0.2, 0.0]), 7).tolist() == [4, 2, 1, 0]
    assert apportion(pd.Series([1.0, 1.0, 1.0]), 10).sum() == 10


def test_samples_of_a_graded_metric_are_not_counted_as_right_or_wrong():
    graded = pd.DataFrame({"id": [1, 2, 3, 4], "correct": [True, None, False, None], "task": list("aabb")})
    found = accuracy(graded)
    assert found["n"].item() == 2
    assert (found["low"].item(), found["high"].item()) == wilson(1, 2)
    assert accuracy(graded[graded["correct"].isna()], "task")["n"].tolist() == [0, 0]
    for compare in (paired_difference, mcnemar):
        with pytest.raises(ValueError, match="2 samples have no right or wrong"):
            compare(graded, graded.assign(correct=True))


@pytest.mark.parametrize("scorer", ["hf", "fast"])
@pytest.mark.parametrize("kind", ["T5Config", "BertConfig"])
def test_a_model_that_is_not_causal_is_refused_in_one_sentence(kind, scorer, tmp_path):
    import transformers

    sizes = {"T5Config": {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 2}}
    bert = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokenizer = train_tokenizer(["Which river?"], 280)
    config = getattr(transformers, kind)(vocab_size=len(tokenizer), **sizes.get(kind, bert))
    made = transformers.T5ForConditionalGeneration if kind == "T5Config" else transformers.BertForMaskedLM
    made(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"{tmp_path.name} is a (T5|Bert)For.*, not a causal language model"):
        evaluate(tmp_path, {"rivers": RIVERS}, scorer=scorer)


@pytest.mark.parametrize("scorer", ["hf", "fast"])
def test_a_tokenizer_without_an_end_of_text_token_is_named(scorer, tmp_path):
    import transformers
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    tokenizer = train_tokenizer(["Which river?"], 280)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **sizes)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"no end-of-text token.*name one as eos_token in its tokenizer_config\.json"):
        evaluate(tmp_path, {"rivers": RIVERS}, scorer=scorer)
