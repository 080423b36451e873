"""Training in 8 bytes per parameter: rounding is right on average, learning does not stall, resuming is exact."""

import copy

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from transformers import LlamaForCausalLM

from qatoolkit.training import bf16_adamw, ladder
from qatoolkit.training.bf16_adamw import LowMemoryAdamW, round_stochastically

CONFIG = ladder.llama_config(ladder.size_of("xxs"), 64, 32)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def model(dtype=torch.bfloat16):
    torch.manual_seed(0)
    return LlamaForCausalLM(CONFIG).to(dtype)


def batches(count):
    """Rows of a Markov chain over 64 tokens: something to learn that can't be memorised."""
    source = torch.Generator().manual_seed(1)
    following = torch.rand(64, 64, generator=source).pow(6)
    for _ in range(count):
        row = [torch.randint(0, 64, (16,), generator=source)]
        for _ in range(31):
            row.append(torch.multinomial(following[row[-1]], 1, generator=source)[:, 0])
        yield torch.stack(row, 1)


def losses(student, optimizer, steps):
    found = []
    for ids in batches(steps):
        loss = student(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("value", [1.001, -1.001, 3e-5, -700.3, 0.0, 1.0])
def test_rounding_is_right_on_average(value):
    draws = 200_000
    noise = torch.empty(draws, dtype=torch.int32).random_(0, 2**16, generator=torch.Generator().manual_seed(0))
    rounded = round_stochastically(torch.full((draws,), value), noise).double()
    exact = torch.tensor(value).double()
    gap = (rounded.max() - rounded.min()).item()
    assert abs(rounded.mean() - exact).item() <= 4 * 0.5 * gap / draws**0.5
    # the two neighbours, or the value itself
    assert rounded.unique().numel() == (1 if value in (0.0, 1.0) else 2)


def test_infinities_stay_what_they_are():
    noise = torch.full((3,), 65535, dtype=torch.int32)
    every_bit = torch.tensor([0x7FFFFFFF], dtype=torch.int32).view(torch.float32)  # the NaN that a GPU makes
    found = round_stochastically(torch.cat([torch.tensor([float("inf"), float("-inf")]), every_bit]), noise)
    assert found[:2].tolist() == [float("inf"), float("-inf")]
    assert found[2].isnan()


def test_it_learns_like_float32_where_rounding_to_nearest_stalls():
    settings = {"lr": 1e-4, "betas": (0.9, 0.95), "weight_decay": 0.0}
    full, plain, low = model(torch.float32), model(), model()
    ends = {
        "float32": losses(full, torch.optim.AdamW(full.parameters(), **settings), 80),
        "nearest": losses(plain, torch.optim.AdamW(plain.parameters(), **settings), 80),
        "low": losses(low, LowMemoryAdamW(low.parameters(), **settings), 80),
    }
    start = ends["float32"][0]
    learnt = {name: start - sum(found[-20:]) / 20 for name, found in ends.items()}
    assert learnt["low"] == pytest.approx(learnt["float32"], rel=0.05)
    assert learnt["nearest"] < 0.6 * learnt["float32"]


def test_a_second_moment_falls_though_each_fall_is_below_its_precision():
    weight = torch.nn.Parameter(torch.zeros(1000, dtype=torch.bfloat16))
    optimizer = LowMemoryAdamW([weight], lr=0.0, betas=(0.9, 0.999))
    for size in [1.0] + [0.0] * 700:
        weight.grad = torch.full_like(weight, size)
        optimizer.step()
    mean = optimizer.state[weight]["exp_avg_sq"].double().mean().item()
    assert mean == pytest.approx(0.001 * 0.999**700, rel=0.03)


def test_float32_parameters_are_updated_as_by_torch():
    ours, theirs = model(torch.float32), model(torch.float32)
    settings = {"lr": 3e-3, "betas": (0.9, 0.95), "weight_decay": 0.1}
    losses(ours, LowMemoryAdamW(ours.parameters(), **settings), 10)
    losses(theirs, torch.optim.AdamW(theirs.parameters(), **settings), 10)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=2e-5)


def test_weight_decay_is_that_of_the_group():
    with_decay, without = (torch.nn.Parameter(torch.ones(4096, dtype=torch.bfloat16)) for _ in range(2))
    optimizer = LowMemoryAdamW(
        [{"params": [with_decay], "weight_decay": 0.1}, {"params": [without]}], lr=0.01, weight_decay=0.0
    )
    for p in (with_decay, without):
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert with_decay.float().mean().item() == pytest.approx(0.999, abs=3e-4)
    assert torch.equal(without, torch.ones_like(without))


def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path):
    unbroken = model()
    optimizer = LowMemoryAdamW(unbroken.parameters(), lr=1e-3, seed=7)
    losses(unbroken, optimizer, 4)
    torch.save({"model": unbroken.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "state.pt")
    losses(unbroken, optimizer, 4)

    state = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed = model()
    resumed.load_state_dict(state["model"])
    # the state overrides these
    again = LowMemoryAdamW(resumed.parameters(), lr=1.0, seed=0)
    again.load_state_dict(state["optimizer"])
    torch.manual_seed(12345)  # the global generator plays no part
    losses(resumed, again, 4)
    assert same(unbroken, resumed)
    for a, b in zip(optimizer.state.values(), again.state.values(), strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_another_seed_rounds_otherwise():
    one, other = model(), model()
    losses(one, LowMemoryAdamW(one.parameters(), lr=1e-3, seed=0), 1)
    losses(other, LowMemoryAdamW(other.parameters(), lr=1e-3, seed=1), 1)
    assert not same(one, other)


def test_chunks_are_computed_in_place_of_the_whole(monkeypatch):
    whole, chunked = model(torch.float32), model(torch.float32)
    losses(whole, LowMemoryAdamW(whole.parameters(), lr=1e-3), 2)
    monkeypatch.setattr(bf16_adamw, "CHUNK", 100)
    losses(chunked, LowMemoryAdamW(chunked.parameters(), lr=1e-3), 2)
    for a, b in zip(whole.parameters(), chunked.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_parameters_and_moments_take_six_bytes():
    student = model()
    optimizer = LowMemoryAdamW(student.parameters())
    losses(student, optimizer, 1)
    count = sum(p.numel() for p in student.parameters())
    moments = sum(t.nbytes for s in optimizer.state.values() for n, t in s.items() if n != "step")
    assert sum(p.nbytes for p in student.parameters()) + moments == 6 * count


def test_a_sharded_model_is_updated_as_a_whole_one(tmp_path):
    from torch.distributed.fsdp import fully_shard

    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.FileStore(str(tmp_path / "s"), 1), rank=0, world_size=1
    )
    try:
        whole = model()
        sharded = copy.deepcopy(whole)
        fully_shard(sharded, mesh=init_device_mesh("cpu", (1,)))
        losses(whole, LowMemoryAdamW(whole.parameters(), lr=1e-3), 3)
        losses(sharded, LowMemoryAdamW(sharded.parameters(), lr=1e-3), 3)
        for a, b in zip(whole.parameters(), sharded.parameters(), strict=True):
            assert torch.equal(a, b.full_tensor())
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("wrong", [{"lr": -1.0}, {"betas": (0.9, 1.0)}, {"eps": 0.0}, {"seed": -1}])
def test_a_setting_out_of_range_is_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LowMemoryAdamW([torch.nn.Parameter(torch.zeros(2))], **wrong)


def test_half_precision_is_refused():
    with pytest.raises(TypeError, match="float16"):
        LowMemoryAdamW([torch.nn.Parameter(torch.zeros(2, dtype=torch.float16))])
