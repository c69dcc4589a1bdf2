"""The head on a text's surface: what it counts, that it reads what the model reads, and what it refuses."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification

from plaudit.errors import UsageError
from service.scoring.reward_model import RewardModel
from service.scoring.spec import SPEC_FILE, RewardModelSpec
from service.scoring.surface import NUMBERS, SurfaceHead, SurfaceWeight, parsed, surface_of
from support.checkpoints import checkpoint

PROMPT = 'def total(numbers):\n    """The sum of the numbers."""\n'
BODY = "    result = 0\n    for number in numbers:\n        result += nubmer\n    return result\n"
WHOLE = "def total(numbers):\n" + BODY
WEIGHTS = (SurfaceWeight("undefined_names", -2.0, 0.5, 0.25), SurfaceWeight("returns", 0.5, 0.0, 1.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("surface"), surface=WEIGHTS)


@pytest.fixture(scope="module")
def model(folder: Path) -> RewardModel:
    return RewardModel.load(folder)


def head(model: RewardModel) -> SurfaceHead:
    return SurfaceHead(model.encoder.tokenizer, model.spec.template, WEIGHTS)


def number(values: list[float], name: str) -> float:
    return values[NUMBERS.index(name)]


def test_a_score_is_the_own_heads_logit_and_the_weighted_surface(folder: Path, model: RewardModel) -> None:
    own = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    batch = [model.encode(PROMPT, BODY), model.encode(PROMPT, BODY.replace("nubmer", "number"))]
    wrong, right = model.score(batch)
    for encoded, score, undefined in zip(batch, (wrong, right), (math.log1p(1), 0.0), strict=True):
        with torch.no_grad():
            logit = float(own(torch.tensor([encoded.ids])).logits)
        surface = -2.0 * (undefined - 0.5) / 0.25 + 0.5 * math.log1p(1)
        assert score == pytest.approx(logit + surface, abs=1e-4)


@pytest.mark.parametrize("completion", [BODY, WHOLE, f"Here it is.\n\n```python\n{WHOLE}```\nIt sums them up.\n"])
def test_a_body_a_function_and_a_fence_have_the_same_tree(model: RewardModel, completion: str) -> None:
    values = head(model).numbers(model.encode(PROMPT, completion).ids)
    assert number(values, "undefined_names") == math.log1p(1)
    assert number(values, "ends_with_return") == 1.0
    assert number(values, "parameters_used") == 1.0
    assert number(values, "returns") == math.log1p(1)


def test_a_text_in_the_template_has_the_score_of_its_prompt_and_completion(model: RewardModel) -> None:
    (by_text,) = model.encode_group(None, [model.spec.template.format(prompt=PROMPT, completion=BODY)])
    by_parts = model.encode(PROMPT, BODY)
    assert model.score([by_text]) == pytest.approx(model.score([by_parts]))  # type: ignore[list-item]


def test_a_text_without_the_template_is_a_completion(model: RewardModel) -> None:
    (encoded,) = model.encode_group(None, [WHOLE])
    values = head(model).numbers(encoded.ids)  # type: ignore[union-attr]
    assert values == pytest.approx(surface_of("", WHOLE, parsed(WHOLE)), nan_ok=True)


def test_other_languages_have_no_tree_and_lose_nothing_by_it(model: RewardModel) -> None:
    values = head(model).numbers(model.encode("int add(int a, int b) {", "\n  return a + b;\n}").ids)
    assert math.isnan(number(values, "undefined_names"))
    only = SurfaceHead(model.encoder.tokenizer, model.spec.template, WEIGHTS[:1])
    assert only(model.encode("int add(int a, int b) {", "\n  return a + b;\n}").ids) == 0.0


@given(prompt=st.text(max_size=200), completion=st.text(max_size=400))
@settings(max_examples=100, deadline=None)
def test_any_text_has_finite_numbers_and_unknown_ones_only_of_its_tree(prompt: str, completion: str) -> None:
    values = surface_of(prompt, completion, parsed(prompt + completion))
    assert len(values) == len(NUMBERS)
    assert all(map(math.isfinite, values[: NUMBERS.index("undefined_names")]))


@pytest.mark.parametrize("text", ["(" * 4000, "[" * 900 + "]" * 900, "-" * 5000 + "1", "()" * 2000 + ":" * 3000, "\0"])
def test_hostile_texts_are_counted(text: str) -> None:
    assert len(surface_of(text, text, parsed(text))) == len(NUMBERS)


def test_the_spec_keeps_its_surface_and_older_files_stay_as_they_were(folder: Path, tmp_path: Path) -> None:
    spec = RewardModelSpec.read(folder / SPEC_FILE)
    assert spec.surface == WEIGHTS
    assert "surface" not in replace(spec, surface=None).as_json()


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (("words", 1.0, 0.0, 1.0), "'words' is not counted here"),
        (("lines", 1.0, 0.0, 0.0), "lines: takes finite numbers, and a scale above 0"),
        (("lines", math.inf, 0.0, 1.0), "lines: takes finite numbers"),
    ],
)
def test_a_weight_that_means_nothing_is_refused_by_name(weight: tuple[str, float, float, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SurfaceWeight(*weight)


def test_a_chat_template_has_no_surface(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    spec = (copy / SPEC_FILE).read_text().replace(RewardModelSpec.read(copy / SPEC_FILE).template, "chat_template")
    (copy / SPEC_FILE).write_text(spec)
    with pytest.raises(UsageError, match="surface needs a text template"):
        RewardModel.load(copy)
