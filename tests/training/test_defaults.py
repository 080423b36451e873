"""Safe defaults by model and device: a usual rate, a step that leaves about 200, and the first manner that fits."""

import math

import pytest
from transformers import GPT2Config, LlamaConfig, T5Config

from qatoolkit.training import ladder
from qatoolkit.training.defaults import check_rate, defaults, usual_rate
from qatoolkit.training.memory_estimate import estimate_needs
from qatoolkit.training.settings import CourseSettings, StepSettings

SMOLLM = LlamaConfig(
    vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
    num_key_value_heads=3, max_position_embeddings=8192, tie_word_embeddings=True,
)  # fmt: skip
EIGHT_B = ladder.llama_config(ladder.size_of("8b"), 128_256, 8192)
FIELDS = ["learning_rate", "block", "batch", "micro_batch", "memory", "checkpointing"]
LARGE = 10**15  # bytes: everything fits


def values(config, **given):
    given = {"tokens": 10**7, "gpu": True, "device_bytes": LARGE} | given
    return {name: default.value for name, default in defaults(config, **given).items()}


def test_the_usual_rate_goes_through_what_was_measured_and_what_the_paper_used():
    assert usual_rate(134_515_008) == 3e-4
    assert usual_rate(8.03e9) == 3e-5
    between = [usual_rate(10**power) for power in (8, 8.5, 9, 9.5, 10)]
    assert between == sorted(between, reverse=True)
    assert usual_rate(math.sqrt(135e6 * 8e9)) == pytest.approx(math.sqrt(3e-4 * 3e-5), rel=0.02)
    assert usual_rate(1e3) == 1e-2


@pytest.mark.parametrize("parameters", [200_000, 134_515_008, 8e9])
def test_a_rate_far_above_the_usual_must_be_said_twice(parameters):
    usual = usual_rate(parameters)
    check_rate(10 * usual, parameters, where="midtrain.learning_rate")
    check_rate(99 * usual, parameters, accepted=True, where="midtrain.learning_rate")
    with pytest.raises(ValueError, match=r"midtrain.accept_rate: true") as caught:
        check_rate(11 * usual, parameters, where="mine.yaml: midtrain.learning_rate")
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith("mine.yaml: midtrain.learning_rate is ")
    assert f"{11 * usual:g}" in said
    assert f"{usual:g} that is usual" in said


@pytest.mark.parametrize("config", [SMOLLM, EIGHT_B, GPT2Config(n_positions=64)], ids=["135m", "8b", "gpt2"])
@pytest.mark.parametrize("gpu", [True, False])
def test_defaults_are_settings_with_a_reason_each(config, gpu):
    found = defaults(config, tokens=10**7, gpu=gpu, device_bytes=LARGE)
    assert list(found) == FIELDS
    values = {name: default.value for name, default in found.items()}
    CourseSettings(learning_rate=values.pop("learning_rate"))
    StepSettings(**values)
    for default in found.values():
        assert "\n" not in default.reason
        assert any(c.isdigit() for c in default.reason)


def test_the_measured_rate_is_named_for_its_model():
    reason = defaults(SMOLLM, tokens=10**7, gpu=False, device_bytes=LARGE)["learning_rate"].reason
    assert reason == "135M parameters: 0.0003 measured on SmolLM2-135M"


@pytest.mark.parametrize(
    ("config", "tokens", "step"),
    [
        (SMOLLM, 10_000, 1024),  # the fewest
        (SMOLLM, 1_638_400, 8192),  # 200 steps
        (SMOLLM, 10**9, 2**15),  # the most
        (EIGHT_B, 4 * 10**10, 2**22),
        (ladder.llama_config(ladder.size_of("1b"), 32_000, 4096), 10**12, 2**19),
    ],
)
def test_a_step_leaves_about_two_hundred_within_the_bounds_of_the_size(config, tokens, step):
    found = values(config, tokens=tokens)
    assert found["batch"] * found["block"] == step


@pytest.mark.parametrize(
    ("config", "given", "block"),
    [
        (SMOLLM, {}, 1024),
        (SMOLLM, {"gpu": False}, 512),
        (EIGHT_B, {}, 4096),
        (EIGHT_B, {"gpu": False}, 512),
        (EIGHT_B, {"tokens": 500_000}, 2048),  # 2,500 tokens of a step
        (GPT2Config(n_positions=100), {}, 64),  # of its context
    ],
)
def test_a_block_is_the_largest_power_of_two_that_every_limit_allows(config, given, block):
    assert values(config, **given)["block"] == block


def fits(config, found, device_bytes):
    manner = StepSettings(**{name: found[name] for name in FIELDS[1:]})
    given = {"tokens": 1, "context": 0, "gpu": True, "flops_per_second": 1.0, "device_bytes": device_bytes}
    return estimate_needs(config, manner, **given).fits


def test_memory_is_saved_by_fewer_rows_then_checkpointing_then_low_memory():
    """Over ever smaller devices the order is kept, what is returned fits, and what is better does not."""
    order = [("standard", False), ("standard", True), ("low", False), ("low", True)]
    seen = []
    for device_bytes in [int(10**power) for power in (15, 11, 10.5, 10, 9.8, 9.6, 9.5, 9.45, 9.4, 9.35, 9.3, 9.2, 9.1)]:
        found = values(SMOLLM, tokens=10**8, device_bytes=device_bytes)
        place = order.index((found["memory"], found["checkpointing"]))
        if not fits(SMOLLM, found, device_bytes):
            break
        seen.append((place, -found["micro_batch"]))
        if found["micro_batch"] < found["batch"]:
            assert not fits(SMOLLM, found | {"micro_batch": 2 * found["micro_batch"]}, device_bytes)
        for memory, checkpointing in order[:place]:
            better = {"memory": memory, "checkpointing": checkpointing, "micro_batch": 1}
            assert not fits(SMOLLM, found | better, device_bytes)
    assert seen == sorted(seen)
    assert seen[0] == (0, -found["batch"])
    assert {place for place, _ in seen} >= {0, 1, 2}


def test_eight_billion_parameters_on_an_80_gb_card_are_trained_in_low_memory():
    found = values(EIGHT_B, tokens=10**9, device_bytes=85_000_000_000)
    assert (found["memory"], found["checkpointing"]) == ("low", True)
    assert found["micro_batch"] >= 1
    assert fits(EIGHT_B, found, 85_000_000_000)


def test_where_nothing_fits_the_reason_says_so():
    found = defaults(EIGHT_B, tokens=10**9, gpu=True, device_bytes=10**9)
    assert found["micro_batch"].value == 1
    assert "does not fit 1.0 GB" in found["memory"].reason


def test_a_configuration_without_a_causal_model_is_refused():
    with pytest.raises(ValueError, match="no causal language model"):
        defaults(T5Config(), tokens=10**7, gpu=False)
