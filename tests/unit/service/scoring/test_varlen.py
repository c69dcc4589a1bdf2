"""On a GPU the same attention goes through a few variable-length kernels. Here their plan runs with a kernel of ours,
and the kernels' own signatures on tensors without content; with a GPU, everything."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from plaudit.errors import HostLacks
from service.scoring import varlen
from service.scoring.attention import PackedRow, _joined, packed
from service.scoring.device import device_of, to_device
from service.scoring.packing import Ids, Packing, pack
from service.scoring.reward_model import RewardModel
from service.settings import Settings
from support.checkpoints import checkpoint as folder_of
from support.decoders import classifier

HEADS, KEY_HEADS, SIZE = 4, 2, 16
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU and a torch that is built for it")


def softmax_kernel(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: varlen.VarlenCall, scaling: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the kernels promise, a sequence at a time: (T, Hq, D) and the log-sum-exp (Hq, T)."""
    out, lse = torch.full_like(query, torch.nan), query.new_full((query.shape[1], query.shape[0]), torch.nan)
    repeat = query.shape[1] // key.shape[1]
    ends = zip(pairwise(call.query_ends.tolist()), pairwise(call.key_ends.tolist()), strict=True)
    for (q_from, q_to), (k_from, k_to) in ends:
        assert q_to - q_from <= call.max_queries
        assert k_to - k_from <= call.max_keys
        if q_from == q_to:
            continue
        keys, values = (part[k_from:k_to].repeat_interleave(repeat, 1) for part in (key, value))
        logits = torch.einsum("qhd,khd->hqk", query[q_from:q_to], keys) * (scaling or query.shape[2] ** -0.5)
        if call.causal:
            logits = logits.masked_fill(torch.ones_like(logits[0], dtype=torch.bool).triu(1), -torch.inf)
        out[q_from:q_to] = torch.einsum("hqk,khd->qhd", logits.softmax(2), values)
        lse[:, q_from:q_to] = logits.logsumexp(2)
    assert call.query_ends[-1] == len(query)
    return out, lse


def tree(draw: random.Random) -> list[Ids]:
    """Sequences of a small alphabet: prompts, stems, completions within completions."""
    prompts = [tuple(draw.choices(range(3), k=draw.randint(1, 30))) for _ in range(draw.randint(1, 3))]
    return [(*draw.choice(prompts), *draw.choices(range(3), k=draw.randint(1, 24))) for _ in range(draw.randint(1, 20))]


def tensors(tokens: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(1, heads, tokens, SIZE) for heads in (HEADS, KEY_HEADS, KEY_HEADS)]
    query, key, value = (torch.randn(shape, generator=generator) for shape in shapes)
    return query, key, value


def layer_of(packing: Packing, known: list[list[tuple[torch.Tensor, torch.Tensor]]]) -> PackedRow:
    row = PackedRow(packing, packing.pooled, 1, known)
    row.layers = 1
    return row


@pytest.mark.parametrize("seed", range(40))
def test_the_few_calls_of_a_row_give_what_a_call_for_each_segment_gives(seed: int) -> None:
    draw = random.Random(seed)
    sequences = tree(draw)
    known = [min(7, len(ids) - 1) if draw.random() < 0.3 else 0 for ids in sequences] if seed % 2 else None
    packing = pack(sequences, known, min_saved=1)
    query, key, value = tensors(len(packing.ids), seed)
    before = [[tensors(len(one.known), 100 + at)[1:]] for at, one in enumerate(packing.continued)]
    row = layer_of(packing, before)

    plan = varlen.plan(packing, torch.device("cpu"))
    pairs = [(keys, values) for _, keys, values in row.continued()]
    ours = varlen.joined(plan, query, key, value, 0.3, pairs, softmax_kernel)

    torch.testing.assert_close(ours, _joined(row, query, key, value, 0.3), atol=2e-6, rtol=0)


def test_a_layer_costs_a_call_for_each_depth_of_the_tree_and_gathers_no_key() -> None:
    prompts = [tuple(range(at, at + 40)) for at in (0, 100, 200)]
    packing = pack([(*prompt, 300 + at, *range(400 + at, 420)) for prompt in prompts for at in range(64)])
    calls: list[int] = []

    def counted(query: torch.Tensor, key: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(key.data_ptr())
        return softmax_kernel(query, key, *rest)

    query, key, value = tensors(len(packing.ids), 0)
    varlen.joined(varlen.plan(packing, torch.device("cpu")), query, key, value, None, kernel=counted)

    assert len(packing.segments) == 3 * 65
    assert calls == [key.data_ptr()] * 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama", "mistral", "gemma", "phi"])
def test_torch_takes_the_calls_of_a_whole_model(family: str, dtype: torch.dtype) -> None:
    """On the meta device: shapes, types, devices and signatures are checked by torch's own kernels, without numbers."""
    model = classifier(family).base_model
    config = model.config
    with torch.device("meta"):
        empty = type(model)(config).to(dtype).eval().requires_grad_(requires_grad=False)
    prompt = tuple(range(3, 23))
    packing = pack([(*prompt, at, at + 1) for at in range(30, 36)])
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []
    ids, positions = (to_device([part], empty.device) for part in (packing.ids, packing.positions))
    with packed(empty, packing, kept=[(packing.beginning(0, len(prompt)), kept)]) as row:
        hidden = empty(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state
    assert row.layers == len(kept) == config.num_hidden_layers
    assert hidden.shape == (1, len(packing.ids), config.hidden_size)
    assert hidden.device.type == "meta"
    if row.windows:  # what slides does not continue an earlier row
        return
    later = pack([(*prompt, 40, 41, 42)], [len(prompt)])
    ids, positions = (to_device([part], empty.device) for part in (later.ids, later.positions))
    with packed(empty, later, known=[kept]):
        again = empty(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state

    assert again.shape == (1, 3, config.hidden_size)


def test_a_log_sum_exp_of_another_shape_is_an_error_and_not_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.nn.attention import varlen as torchs

    def turned(query: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return query, query.new_zeros(query.shape[:2])

    monkeypatch.setattr(torchs, "varlen_attn", turned)
    packing = pack([(1, 2, 3)])
    with pytest.raises(RuntimeError, match="log-sum-exp of shape"):
        varlen.joined(varlen.plan(packing, torch.device("cpu")), *tensors(3, 0), None)


def test_a_gpu_that_is_not_there_is_named() -> None:
    assert device_of("cpu") == torch.device("cpu")
    if not torch.cuda.is_available():
        assert device_of("auto") == torch.device("cpu")
        with pytest.raises(HostLacks, match="device cuda:3: torch sees 0 GPUs"):
            device_of("cuda:3")
        with pytest.raises(HostLacks, match="device split"):
            device_of("split")
    with pytest.raises(ValueError, match="device"):
        Settings(device="tpu")


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-4), ("bfloat16", 0.5)])
@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_a_gpu_scores_as_the_cpu_does(tmp_path: Path, family: str, dtype: str, bound: float) -> None:
    folder = folder_of(tmp_path, kind=family)
    right, there = RewardModel.load(folder), RewardModel.load(folder, dtype=dtype, device="cuda")
    assert there.prefix_sharing_disabled_reason is None
    batch = [right.encoder.encode("a prompt", "x = 1\n" * at) for at in range(1, 9)]
    assert there.score(batch) == pytest.approx(right.score(batch), abs=bound)
    assert there.score(batch) == pytest.approx([there.score([one])[0] for one in batch], abs=bound)
