"""`deterministic`: a text has the same bits whatever else is scored, before it or beside it, in whichever process."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from service.scoring.reward_model import Encoded, RewardModel
from support.checkpoints import write_family

FAMILIES = ["qwen2", "qwen3", "llama", "mistral", "gemma"]
DTYPES = ["float32", "bfloat16"]
AGAIN = """
import json, sys
from service.scoring.reward_model import Encoded, RewardModel
folders, batch = json.load(sys.stdin)
print(json.dumps([
    [score.hex() for score in RewardModel.load(folder, dtype=dtype, deterministic=True).score(
        [Encoded(tuple(ids), 0, truncated=False) for ids in batch])]
    for folder in folders for dtype in ("float32", "bfloat16")
]))
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: write_family(tmp_path_factory.mktemp(family), family) for family in FAMILIES}


@pytest.fixture(scope="module")
def batch() -> list[Encoded]:
    """A group, texts of every length up to the maximum, and one that comes twice."""
    draw = random.Random(1)
    prompt = tuple(draw.choices(range(8, 400), k=60))
    texts = [(*prompt, *draw.choices(range(8, 400), k=length)) for length in (1, 2, 15, 16, 17, 100, 196)]
    texts += [tuple(draw.choices(range(8, 400), k=length)) for length in (1, 2, 3, 31, 64, 255, 256)]
    return [Encoded(ids, 0, truncated=False) for ids in [*texts, texts[3]]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_has_the_same_bits_in_any_company_and_order(
    folders: dict[str, Path], batch: list[Encoded], family: str, dtype: str
) -> None:
    draw = random.Random(2)
    model = RewardModel.load(folders[family], dtype=dtype, deterministic=True)
    alone = [model.score([one])[0] for one in batch]
    for _ in range(4):
        order = draw.choices(range(len(batch)), k=draw.randint(1, 12))
        assert model.score([batch[at] for at in order]) == [alone[at] for at in order]
    assert RewardModel.load(folders[family], dtype=dtype, deterministic=True).score(batch) == alone
    assert str(model.prefix_sharing_disabled_reason).startswith("deterministic")
    assert model.check_golden().max_batch_error == 0.0


def test_another_process_gives_the_same_bits(folders: dict[str, Path], batch: list[Encoded]) -> None:
    """As a worker does that was started again, in both types."""
    given = json.dumps([[str(folder) for folder in folders.values()], [one.ids for one in batch]])
    done = subprocess.run([sys.executable, "-c", AGAIN], input=given, stdout=subprocess.PIPE, check=True, text=True)
    want = [
        [score.hex() for score in RewardModel.load(folder, dtype=dtype, deterministic=True).score(batch)]
        for folder in folders.values()
        for dtype in DTYPES
    ]
    assert json.loads(done.stdout) == want


@pytest.mark.parametrize("dtype", DTYPES)
def test_without_it_company_moves_the_last_bits(folders: dict[str, Path], batch: list[Encoded], dtype: str) -> None:
    """Otherwise the mode, and the tests above, would be for nothing."""
    model = RewardModel.load(folders["qwen2"], dtype=dtype)
    assert model.score(batch) != [model.score([one])[0] for one in batch]
