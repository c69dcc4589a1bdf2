"""Templates that print the date print the one of the spec; named templates have a default or are refused."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from plaudit.errors import UsageError
from service.scoring.factory import open_engine
from service.scoring.reward_model import RewardModel
from service.settings import Settings
from service.worker.model_manager import _describe
from support.checkpoints import CHAT, write_family
from support.kind_makers import write_spec

LLAMA = (
    "{% if not date_string is defined %}{% if strftime_now is defined %}"
    "{% set date_string = strftime_now('%d %b %Y') %}{% else %}{% set date_string = '26 Jul 2024' %}{% endif %}"
    "{% endif %}<|system|>Today Date: {{ date_string }}<|end|>"
)
GRANITE = "<|system|>Today's Date: {{ strftime_now('%B %d, %Y') }}.<|end|>"
SECONDS = "<|system|>{{ strftime_now('%H:%M:%S.%f') }}<|end|>"
ODD = (  # a format in a variable, what is no directive, glibc's flag, one directive next to another
    "{% macro say(f) %}{{ strftime_now(format=f) }}{% endmacro %}{% set f = '100%% %%d %-d.%-m.%y ' %}"
    "<|system|>{{ say(f) }}{% for _ in [1] %}{{ strftime_now('%d/%m/%Y %A %b') }}{% endfor %}<|end|>"
)
WITH_TOOLS = "{% if tools is defined and tools %}{{ strftime_now('%Y') }}{% endif %}"
CLOCKS = {"llama": LLAMA, "granite": GRANITE, "seconds": SECONDS, "tools": WITH_TOOLS, "odd": ODD}


def dated(folder: Path, opening: str) -> Path:
    write_family(folder, "llama")
    (folder / "chat_template.jinja").write_text(opening + CHAT)
    return folder


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_template_that_asks_for_the_date_is_refused_until_it_is_pinned(tmp_path: Path, clock: str) -> None:
    folder = dated(tmp_path, CLOCKS[clock])
    with pytest.raises(UsageError, match=r"asks for today's date .*: \"YYYY-MM-DD\" in reward_model\.json") as told:
        RewardModel.load(folder)
    spec = json.loads(told.value.detail[told.value.detail.index("{") :])
    (folder / "reward_model.json").write_text(json.dumps(spec))
    with pytest.raises(UsageError, match="asks for today's date"):
        RewardModel.load(folder)
    (folder / "reward_model.json").write_text(json.dumps(spec | {"date": "2024-07-26"}))
    assert RewardModel.load(folder).spec.date == "2024-07-26"


@pytest.mark.parametrize(
    ("clock", "date", "words"),
    [
        ("llama", "2024-07-26", "Today Date: 26 Jul 2024"),
        ("granite", "2025-02-01", "Today's Date: February 01, 2025."),
        ("odd", "2024-07-06", "100% %d 6.7.24 06/07/2024 Saturday Jul"),
        ("seconds", "2025-02-01T12:30:01.5", "12:30:01.500000"),
    ],
)
def test_the_pinned_date_is_what_the_template_prints(tmp_path: Path, clock: str, date: str, words: str) -> None:
    folder = dated(tmp_path, CLOCKS[clock])
    write_spec(folder, template="chat_template", date=date, pooled="last_non_pad", pad="<|pad|>")
    model = RewardModel.load(folder)
    assert words in model.encoder.full_text("a", "b")
    assert words in model.encoder.head_text([{"role": "user", "content": "a"}])


@pytest.mark.parametrize(
    "opening", ["", "\n", "  \n ", "{# a comment #}\n", "  {% if true %}x{% endif %}\n", "{{- 'x' }} "]
)
def test_a_template_prints_the_same_as_where_it_reads_the_clock(tmp_path: Path, opening: str) -> None:
    today = dated(tmp_path, f"{opening}{{{{ strftime_now('%Y') }}}}\n")
    write_spec(today, template="chat_template", date=f"{datetime.datetime.now():%Y-%m-%d}")
    model = RewardModel.load(today)
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    plain = PreTrainedTokenizerFast.from_pretrained(today).apply_chat_template(messages, tokenize=False)
    assert model.encoder.full_text("a", "b") == plain


def test_a_date_is_part_of_the_revision_and_is_shown(tmp_path: Path) -> None:
    folder = dated(tmp_path, LLAMA)
    shown = []
    for date in ("2024-07-26", "2024-07-27"):
        write_spec(folder, template="chat_template", date=date, pooled="last_non_pad", pad="<|pad|>")
        engine, parity = open_engine("default", str(folder), Settings())
        shown.append(_describe("default", engine, parity))
    first, second = shown
    assert (first["template_date"], second["template_date"]) == ("2024-07-26", "2024-07-27")
    assert first["revision"] != second["revision"]
    assert first["parity"]["own_class_error"] < 1e-4


@pytest.mark.parametrize("date", ["26 Jul 2024", "2024-13-01", "", 20240726])
def test_a_date_that_is_none_is_refused_by_name(tmp_path: Path, date: Any) -> None:
    folder = dated(tmp_path, LLAMA)
    write_spec(folder, template="chat_template", date=date)
    with pytest.raises(UsageError, match=r"reward_model\.json: date .* is not YYYY-MM-DD"):
        RewardModel.load(folder)


def test_a_template_without_a_clock_needs_no_date(tmp_path: Path) -> None:
    assert RewardModel.load(write_family(tmp_path, "llama")).spec.date is None


@pytest.mark.parametrize(
    ("names", "served"), [(("default", "rag"), True), (("tool_use", "rag"), False), (("x",), False)]
)
def test_of_several_templates_the_default_is_used_or_all_are_named(tmp_path: Path, names: Any, served: bool) -> None:
    write_family(tmp_path, "llama")
    (tmp_path / "chat_template.jinja").unlink()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    tokenizer.chat_template = {name: CHAT + ("" if name == "default" else name) for name in names}
    tokenizer.save_pretrained(tmp_path, save_jinja_files=False)
    if served:
        assert RewardModel.load(tmp_path).encoder.full_text("a", "b").endswith("b<|end|>\n")
    else:
        with pytest.raises(
            UsageError, match=rf"{len(names)} chat templates \(.*{names[0]}.*\) and none is named 'default'"
        ):
            RewardModel.load(tmp_path)
