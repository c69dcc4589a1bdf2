"""Decoder layers through oneDNN, in place: the numbers of the original, packed or alone, and only where that is so."""

from __future__ import annotations

import pytest
import torch

from service.scoring.attention import packed
from service.scoring.decoder import FAMILIES as REPLACED
from service.scoring.decoder import DecoderLayer, speed_up
from service.scoring.linear import usable
from service.scoring.packing import Ids, pack
from service.scoring.prefix_sharing import why_not
from support.decoders import FAMILIES, MAX_LENGTH, VOCABULARY, WINDOW, classifier

pytestmark = pytest.mark.skipif(not usable(), reason="no AVX-512 here, or a torch without the operator")
OURS = [family for family in FAMILIES if family in {name.lower() for name in REPLACED}]


def tokens(count: int, seed: int) -> Ids:
    draw = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(3, VOCABULARY, (count,), generator=draw).tolist())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_gives_the_same_scores_with_its_layers_replaced(family: str) -> None:
    plain, fast = classifier(family), classifier(family)
    assert speed_up(fast.model) > 0
    assert all(isinstance(layer, DecoderLayer) == (family in OURS) for layer in fast.model.layers)
    for count in (1, 7, MAX_LENGTH):
        ids = torch.tensor([tokens(count, count)])
        with torch.inference_mode():
            assert torch.allclose(fast(ids, use_cache=False).logits, plain(ids).logits, atol=1e-4), count


@pytest.mark.parametrize("family", OURS)
@pytest.mark.parametrize("length", [8, WINDOW, 40])
def test_a_packed_row_gives_every_read_place_the_state_that_it_has_alone(family: str, length: int) -> None:
    plain, fast = classifier(family).base_model, classifier(family).base_model
    speed_up(fast)
    assert why_not(fast, MAX_LENGTH) is None
    prompt = tokens(length, 1)
    sequences = [prompt + tokens(9, 2), prompt + tokens(9, 2)[:5] + tokens(4, 3), prompt, tokens(6, 4)]
    packing = pack(sequences, min_saved=1)
    read = [(at, step) for at, ids in enumerate(sequences) for step in {len(ids) - 1, len(ids) // 2, 0}]
    places = [packing.place(at, step) for at, step in read]
    with torch.inference_mode():
        with packed(fast, packing, places):
            ids, positions = torch.tensor([packing.ids]), torch.tensor([packing.positions])
            hidden = fast(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state[0]
        for (at, step), place in zip(read, places, strict=True):
            alone = plain(input_ids=torch.tensor([sequences[at]]), use_cache=False).last_hidden_state[0, step]
            assert torch.allclose(hidden[place], alone, atol=1e-4), (at, step)


def test_a_layer_whose_numbers_differ_stays_as_it_is() -> None:
    model = classifier("qwen2").base_model
    norm = model.layers[0].input_layernorm
    plain = norm.forward
    norm.forward = lambda given: plain(given) + 0.01  # a version of the family that does something more
    speed_up(model)
    assert [isinstance(layer, DecoderLayer) for layer in model.layers] == [False, True]


def test_a_cache_is_refused() -> None:
    model = classifier("llama").base_model
    speed_up(model)
    with pytest.raises(ValueError, match="no cache"):
        model(input_ids=torch.tensor([[3, 4]]), use_cache=True)
