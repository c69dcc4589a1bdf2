"""Each engine does what the recipe says, or says which setting it lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from plaudit.errors import HostLacks, UsageError
from training.pipeline.config import EvaluateConfig, RayConfig, Recipe, SourceConfig, VerifyConfig, read_recipe
from training.pipeline.engines import judging_engine, pairing_engine, scoring_engine, source_engine
from training.pipeline.needs import check_needs
from training.pipeline.ray_executors import chunked

SERVED = VerifyConfig(service="http://a")
SCORED = EvaluateConfig(service="http://b")
HF = SourceConfig(kind="hf")


@pytest.mark.parametrize(
    ("recipe", "judged", "scored", "paired"),
    [
        (Recipe(), "local", "local", "local"),
        (Recipe(verify=SERVED, evaluate=SCORED), "service http://a", "service http://b", "local"),
        (Recipe(engine="local", verify=SERVED), "local", "local", "local"),
        (Recipe(engine="service", verify=SERVED, evaluate=SCORED), "service http://a", "service http://b", "local"),
        (Recipe(engine="service", evaluate=SCORED), "service http://b", "service http://b", "local"),
        (Recipe(engine="ray", verify=SERVED), "ray", "ray", "ray"),
    ],
)
def test_who_does_the_work(recipe: Recipe, judged: str, scored: str, paired: str) -> None:
    choices = (judging_engine(recipe), scoring_engine(recipe), pairing_engine(recipe))
    assert [f"{choice.name} {choice.url}".strip() for choice in choices] == [judged, scored, paired]


def test_who_asks_for_completions() -> None:
    assert source_engine(Recipe(engine="ray"), HF).name == "ray"
    assert source_engine(Recipe(engine="local"), HF).name == "local"
    assert source_engine(Recipe(engine="service"), SourceConfig(url="http://c")).url == "http://c"
    with pytest.raises(UsageError, match="the source's kind is 'hf'"):
        source_engine(Recipe(engine="service"), HF)


def test_settings_that_do_not_go_together_are_named() -> None:
    with pytest.raises(UsageError, match=r"verify\.service: it is empty"):
        judging_engine(Recipe(engine="service"))
    with pytest.raises(UsageError, match=r"evaluate\.service: it is empty"):
        scoring_engine(Recipe(engine="service", verify=SERVED))
    with pytest.raises(UsageError, match=r"evaluate\.service names .* --engine ray"):
        scoring_engine(Recipe(engine="ray", evaluate=SCORED))


def test_an_engine_is_a_flag_of_every_stage(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text('[ray]\naddress = "auto"\n')
    recipe = read_recipe(tmp_path / "recipe.toml", ["--engine", "ray", "--ray.chunk", "4"])
    assert (recipe.engine, recipe.ray) == ("ray", RayConfig(address="auto", chunk=4))
    with pytest.raises(UsageError, match="--engine"):
        read_recipe(tmp_path / "recipe.toml", ["--engine", "spark"])


def test_ray_is_looked_for_before_the_first_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "ray" else object())
    with pytest.raises(HostLacks, match=r"the package ray is not installed: pip install 'plaudit-server\[ray\]'"):
        check_needs(Recipe(engine="ray"), ["verify", "pair"], tmp_path)


def test_chunks_are_made_as_they_are_taken() -> None:
    numbers = iter(range(10))
    chunks = chunked(numbers, 4)
    assert next(chunks) == [0, 1, 2, 3]
    assert next(numbers) == 4
    assert list(chunks) == [[5, 6, 7, 8], [9]]
