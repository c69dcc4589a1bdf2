"""Linear layers through oneDNN: the same sums, for any number of rows, in memory that does not grow with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from service.scoring import linear
from service.scoring.linear import GatedMLP, OneDNNLinear, speed_up, usable
from service.scoring.reward_model import RewardModel
from support.checkpoints import checkpoint
from support.decoders import FAMILIES, classifier

needs_onednn = pytest.mark.skipif(not usable(), reason="no AVX-512 here, or a torch without the operator")


@needs_onednn
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_scores_as_before(family: str) -> None:
    plain, fast = classifier(family), classifier(family)
    assert speed_up(fast.model) > 0
    for tokens in (1, 7, 90):
        ids = torch.randint(3, 97, (1, tokens), generator=torch.Generator().manual_seed(tokens))
        assert torch.allclose(fast(ids).logits, plain(ids).logits, atol=1e-4), tokens


@needs_onednn
def test_long_rows_go_through_a_gated_block_in_parts() -> None:
    plain, fast = classifier("llama"), classifier("llama")
    speed_up(fast.model)
    assert isinstance(fast.model.layers[0].mlp, GatedMLP)
    given = torch.randn(1, 2 * linear.ROWS + 3, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(fast.model.layers[0].mlp(given), plain.model.layers[0].mlp(given), atol=1e-5)


@needs_onednn
def test_a_block_with_another_activation_keeps_it() -> None:
    gemma = classifier("gemma")
    speed_up(gemma.model)
    assert not isinstance(gemma.model.layers[0].mlp, GatedMLP)
    assert isinstance(gemma.model.layers[0].mlp.gate_proj, OneDNNLinear)


@needs_onednn
def test_kernels_of_many_lengths_do_not_pile_up() -> None:
    layer = OneDNNLinear(torch.nn.Linear(256, 1024))

    def resident_mb() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

    for rows in range(900, 920):
        layer(torch.ones(rows, 256))
    before = resident_mb()
    for rows in range(1000, 1400):  # unbounded, these are over half a gigabyte
        layer(torch.ones(rows, 256))
    assert resident_mb() - before < 250


def test_where_it_is_of_no_use_a_model_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half = classifier("qwen2").bfloat16()
    assert speed_up(half.model) == 0
    monkeypatch.setattr(linear, "usable", lambda: False)
    plain = RewardModel.load(checkpoint(tmp_path))
    assert not any(isinstance(part, OneDNNLinear | GatedMLP) for part in plain._backbone.modules())
    monkeypatch.undo()
    fast = RewardModel.load(tmp_path)
    batch = [plain.encode("add", "a + b"), plain.encode("add", "a")]
    assert fast.score(batch) == pytest.approx(plain.score(batch), abs=1e-4)
    assert fast.parameters == plain.parameters
