"""Flawed copies and surface numbers: what the language model learns beside the next token."""

from __future__ import annotations

import math
import random
import textwrap

import pytest
import torch

from service.scoring.reward_model import Encoder
from service.scoring.surface import NUM_NUMBERS, parsed, surface_of, undefined_names
from training.pipeline.config import PretrainConfig, Recipe, TokenizeConfig
from training.reward_model.documents import DEFINED, UNDEFINED, UNMARKED, Document, name_marks, rows_of
from training.reward_model.flaws import FLAWS, FOREIGN, NUM_KINDS, flawed
from training.reward_model.objectives import Objectives, SummaryHead
from training.reward_model.pretrain import new_model
from training.reward_model.template import spec
from training.reward_model.tokenizer import train_tokenizer

BODY = "    total = 0\n    for value in values:\n        if value > 2:\n            total += value\n    return total\n"
JAVA = "    int total = 0;\n    for (int v : values) {\n        total += v;\n    }\n    return total;\n}\n"
PROMPT = 'def add(values):\n    """The sum."""\n'
RECIPE = Recipe(
    tokenize=TokenizeConfig(vocab_size=300, flawed=True),
    pretrain=PretrainConfig(hidden_size=32, intermediate_size=48, num_layers=1, num_heads=2),
)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(train_tokenizer([PROMPT + BODY, JAVA], RECIPE), spec(RECIPE))


@pytest.mark.parametrize("text", [BODY, JAVA], ids=["python", "java"])
def test_every_kind_of_flaw_is_made_and_changes_the_text(text: str) -> None:
    draw, kinds = random.Random(1), set()
    for _ in range(400):
        copy, kind = flawed(text, ["    return sorted(numbers)\n"], draw)
        assert (copy == text) == (kind == 0)
        kinds.add(kind)
    assert set(range(1, NUM_KINDS)) <= kinds


@pytest.mark.parametrize("text", ["", "\n", "    \n", "x", "}\n", "    return 'é'"])
def test_a_text_too_short_for_a_flaw_is_left_as_it_is(text: str) -> None:
    draw = random.Random(2)
    for _ in range(200):
        copy, kind = flawed(text, [text], draw)
        assert 0 <= kind <= FOREIGN
        assert copy == text or kind


def test_each_flaw_does_what_its_name_says() -> None:
    by_name = {flaw.__name__: flaw(BODY, random.Random(3)) for flaw in FLAWS}
    assert BODY.startswith(by_name["truncated"])
    assert len(by_name["line_removed"].splitlines()) == len(BODY.splitlines()) - 1
    assert sorted(by_name["lines_exchanged"].split()) == sorted(BODY.split())
    assert by_name["repeated"].startswith(BODY)
    assert len(by_name["returned_early"].splitlines()) == len(BODY.splitlines()) + 1


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("    return sum(values)\n", set()),
        ("    return helper(values)\n", {"helper"}),
        ("    import math\n    return math.fsum(values)\n", set()),
        ("    return [v for v in values if w]\n", {"w"}),
        ("    with open('f') as file:\n        return file\n", set()),
        ("    try:\n        pass\n    except KeyError as error:\n        raise error\n", set()),
        ("    match values:\n        case [first, *rest]:\n            return first, rest\n", set()),
        ("    if (n := len(values)) > 1:\n        return n\n", set()),
        ("    return (lambda a, *b, **c: (a, b, c))(values)\n", set()),
        ("    class Box:\n        pass\n    return Box\n", set()),
    ],
)
def test_undefined_names_are_those_that_nothing_binds(body: str, expected: set[str]) -> None:
    module = parsed(PROMPT + body)
    assert module is not None
    assert {node.id for node in undefined_names(module)} == expected


def test_surface_numbers_are_finite_and_unknown_only_without_a_tree() -> None:
    whole = surface_of(PROMPT, BODY, parsed(PROMPT + BODY))
    cut = surface_of(PROMPT, BODY[:60], None)
    assert len(whole) == len(cut) == NUM_NUMBERS
    assert all(map(math.isfinite, whole))
    assert any(map(math.isnan, cut))
    assert all(map(math.isfinite, surface_of("", "", parsed(""))[: NUM_NUMBERS - 9]))


def test_marks_fall_on_the_last_token_of_each_name(encoder: Encoder) -> None:
    completion = '    part = "ßé"\n    return helper(part, values)\n'
    module = parsed(PROMPT + completion)
    assert module is not None
    marks = name_marks(PROMPT, completion, module, encoder)
    spans = encoder.tokenizer(completion, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    ends = [(completion[:high], mark) for (_, high), mark in zip(spans, marks, strict=True) if mark != UNMARKED]
    assert [mark for _, mark in ends] == [DEFINED, UNDEFINED, DEFINED, DEFINED]
    assert [text.split("(")[-1].split()[-1].strip(",") for text, _ in ends] == ["part", "helper", "part", "values"]


def test_rows_hold_targets_for_whole_texts_and_only_ids_for_cut_ones(encoder: Encoder) -> None:
    documents = [Document(PROMPT, BODY, "corpus"), Document("add(", JAVA, "solution", "java")]
    rows = list(rows_of([*documents, Document(PROMPT, BODY * 40, "corpus")], encoder, RECIPE))
    clean = [row for row in rows if row["kind"] != "flawed"]
    assert ["flaw" in row for row in clean] == [True, True, False]
    assert ["names" in row for row in clean] == [True, False, False]
    assert len(clean[0]["names"]) == len(clean[0]["ids"])
    assert all(row["flaw"] > 0 for row in rows if row["kind"] == "flawed")


def test_without_targets_the_loss_is_that_of_the_next_token_alone(encoder: Encoder) -> None:
    rows = list(rows_of([Document(PROMPT, BODY, "corpus")] * 3, encoder, RECIPE))
    torch.manual_seed(1)
    tokenizer = encoder.tokenizer
    model = new_model(RECIPE, len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id)
    plain = Objectives(model)([{"ids": row["ids"]} for row in rows if not row["flaw"]], 320)
    assert set(plain) == {"loss", "total"}
    assert plain["total"] == plain["loss"]
    full = Objectives(model, SummaryHead(32, rows), 0.5)(rows, 320)
    assert set(full) == {"loss", "flaw", "surface", "names", "total"}
    assert full["loss"].item() == pytest.approx(plain["loss"].item(), rel=1e-3)
    assert all(torch.isfinite(loss) for loss in full.values())


def test_a_summary_learns_to_tell_a_flaw(encoder: Encoder) -> None:
    bodies = [textwrap.indent(f"x{n} = values[{n}]\nreturn x{n}\n", "    ") for n in range(6)]
    rows = list(rows_of([Document(PROMPT, body, "corpus") for body in bodies], encoder, RECIPE))
    torch.manual_seed(1)
    tokenizer = encoder.tokenizer
    model = new_model(RECIPE, len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id)
    objectives = Objectives(model, SummaryHead(32, rows), 0.5)
    optimiser = torch.optim.Adam(objectives.parameters(), lr=1e-2)
    first = last = objectives(rows, 320)
    for _ in range(40):
        last = objectives(rows, 320)
        torch.autograd.backward(last["total"])
        optimiser.step()
        optimiser.zero_grad()
    for name in ("loss", "flaw", "surface", "names"):
        assert last[name] < 0.7 * first[name], name
