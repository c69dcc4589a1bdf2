"""A recipe fails on what it does not know, and the command line answers without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from service.errors import UsageError
from training.cli import STAGES, main, run_stage
from training.config import Recipe, override, read_recipe
from training.run import Run, read_jsonl, write_jsonl

RECIPES = Path(__file__).parents[2] / "training" / "recipes"


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def test_flags_win_over_the_environment_and_both_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, 'data = "here"\n[fit]\nlr = 1e-3\nepochs = 5\n[evaluate]\nnum_candidates = [1, 2]\n')
    recipe = read_recipe(path, ["--fit.epochs", "7"], {"PLAUDIT_DATA": "there"})
    assert (recipe.data, recipe.fit.lr, recipe.fit.epochs) == ("there", 1e-3, 7)
    assert recipe.evaluate.num_candidates == (1, 2)
    assert read_recipe(path, ["--data", "flag"], {"PLAUDIT_DATA": "there"}).data == "flag"
    assert read_recipe(path).data == "here"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("colour = 1", "unknown keys colour"),
        ("[fit]\nspeed = 1", r"unknown keys speed"),
        ("seed = 1.5", "seed must be int"),
        ("seed = true", "seed must be int"),
        ("fit = 3", "fit is a section"),
        ("seed = ", "recipe.toml"),
    ],
)
def test_a_wrong_recipe_is_refused_by_name(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read_recipe(write(tmp_path, text))


@pytest.mark.parametrize("flags", [["--fit.speed", "1"], ["--fit", "1"], ["--seed"], ["--seed", "x"], ["seed", "1"]])
def test_a_wrong_flag_is_refused(flags: list[str]) -> None:
    with pytest.raises(UsageError):
        override(Recipe(), flags)


def test_flags_take_the_type_of_their_field() -> None:
    recipe = override(Recipe(), ["--pair.rejected-above-zero", "true", "--evaluate.num_candidates", "1,4"])
    assert recipe.pair.rejected_above_zero is True
    assert recipe.evaluate.num_candidates == (1, 4)


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.name)
def test_every_shipped_recipe_reads(recipe: Path) -> None:
    assert read_recipe(recipe).name


def test_help_of_every_stage_needs_no_torch() -> None:
    code = (
        "import sys\nfrom training.cli import STAGES, main\n"
        "assert main(['--help']) == 0\n"
        "assert all(main([name, '--help']) == 0 for name in [*STAGES, 'all'])\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert all(name in result.stdout for name in STAGES)


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["sing", "recipe.toml"], 2),
        (["fit"], 2),
        (["fit", "no-such-recipe.toml"], 2),
        (["collect", str(RECIPES / "mini.toml"), "--data", "no/such/folder"], 3),
        (["fit", str(RECIPES / "mini.toml")], 2),  # its inputs are not there
    ],
)
def test_exit_codes(argv: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLAUDIT_DATA", raising=False)
    run = ["--run", str(tmp_path)] if len(argv) > 1 else []
    assert main([*argv, *run]) == code


def test_a_finished_stage_is_not_run_again_until_its_recipe_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def pair(recipe: Recipe, run: Run) -> dict[str, object]:
        calls.append(recipe.pair.min_gap)
        return {"pairs": 1}

    monkeypatch.setattr("training.pair.pair", pair)
    run = Run(tmp_path, quiet=True)
    run.finish("verify", "abc", {}, 1.0, 1.0)
    recipe = Recipe()
    run_stage("pair", recipe, run)
    run_stage("pair", recipe, run)
    run_stage("pair", override(recipe, ["--fit.epochs", "9"]), run)
    assert calls == [0.4]
    run_stage("pair", override(recipe, ["--pair.min_gap", "0.5"]), run)
    run.finish("verify", "another", {}, 1.0, 1.0)
    run_stage("pair", recipe, run)
    assert calls == [0.4, 0.5, 0.4]


def test_rows_cut_short_by_a_kill_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"a": 1}, {"a": 2}])
    with path.open("a") as out:
        out.write('{"a": 3')
    assert [row["a"] for row in read_jsonl(path)] == [1, 2]
