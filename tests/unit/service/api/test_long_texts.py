"""Work on long texts is linear, or bounded."""

from __future__ import annotations

import time

from plaudit.extract import CLOSING, closed
from plaudit.schemas import RewardItem, RewardSpec
from service.agreement import MAX_CONSENSUS_CHARACTERS
from service.api.handlers.reward_terms import join


def test_closing_tokens_are_taken_off_in_one_pass() -> None:
    began = time.process_time()
    assert closed("x = 1\n" + "</s> \n" * 50_000) == "x = 1\n"
    assert closed("x = 1" + " " * 1_000_000 + "</s>") == "x = 1" + " " * 1_000_000
    assert closed("x = 1" + " " * 1_000_000) == "x = 1" + " " * 1_000_000
    assert time.process_time() - began < 2


def test_closing_tokens_are_those_at_the_very_end() -> None:
    for token in CLOSING:
        for blanks in ("", " ", "\n" * 200, "\t" * 64):
            assert closed(f"a{token}b{blanks}{token}{blanks}{token}{blanks}") == f"a{token}b{blanks}"
        assert closed(token) == ""


def test_a_group_too_large_for_consensus_says_so() -> None:
    spec = RewardSpec.model_validate({"terms": [{"name": "c", "type": "consensus"}]})
    item = RewardItem(prompt="p", completions=["x" * MAX_CONSENSUS_CHARACTERS, "y"])
    result = join(spec, item, {}, None)
    for completion in result.completions:
        assert (completion.status, completion.reward, completion.trainable) == ("invalid", None, False)
        error = completion.components["c"].error
        assert error is not None
        assert error.code == "too_large"
