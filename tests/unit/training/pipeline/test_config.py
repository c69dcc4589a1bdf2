"""A recipe fails on what it does not know, and the command line answers without torch."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from plaudit.errors import UsageError
from training.pipeline.cli import main
from training.pipeline.config import Recipe, SynthesizeConfig, override, read_recipe
from training.pipeline.digests import file_digest
from training.pipeline.files import read_jsonl, write_jsonl, write_text
from training.pipeline.manifest import input_files
from training.pipeline.progress import StageProgress
from training.pipeline.run import Run
from training.pipeline.stages import STAGES, run_stage
from training.pipeline.status import status_lines

RECIPES = Path(__file__).parents[4] / "training" / "recipes"


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
        ("colour = 1", "unknown key colour"),
        ("[fit]\nspeed = 1", r"unknown key fit\.speed"),
        ("[fit]\nepoch = 1", r"unknown key fit\.epoch; did you mean epochs"),
        ("seed = 1.5", "seed: expected `int`, got `float`"),
        ("seed = true", "seed: expected `int`, got `bool`"),
        ("fit = 3", "fit is a section"),
        ("[pair]\nmin_chosen = 1.5", r"pair\.min_chosen: must be from 0 to 1, and is 1\.5"),
        ("[pair]\nmin_gap = -3.0", r"pair\.min_gap: must be from 0 to 1"),
        ("[sample]\nn = 0", r"sample\.n: must be 1 or more, and is 0"),
        ("[evaluate]\nnum_candidates = [4, -1]", r"evaluate\.num_candidates: must be 0 or more, and is -1"),
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


def test_an_unknown_flag_names_the_nearest_one() -> None:
    with pytest.raises(UsageError, match=r"unknown flag --fit\.epoch; did you mean --fit\.epochs"):
        override(Recipe(), ["--fit.epoch", "1"])


def test_flags_take_the_type_of_their_field() -> None:
    recipe = override(Recipe(), ["--pair.rejected-above-zero", "false", "--evaluate.num_candidates", "1,4"])
    assert recipe.pair.rejected_above_zero is False
    assert recipe.evaluate.num_candidates == (1, 4)


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.name)
def test_every_shipped_recipe_reads(recipe: Path) -> None:
    assert read_recipe(recipe).name


def test_help_of_every_stage_needs_no_torch() -> None:
    code = (
        "import sys\nfrom training.pipeline.cli import main\nfrom training.pipeline.stages import STAGES\n"
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

    monkeypatch.setattr("training.data.preferences.build_pairs", pair)
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


def test_a_run_folder_stands_for_its_recipe_and_explains_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pair(recipe: Recipe, run: Run) -> dict[str, object]:
        return {"pairs": 7, "gap": recipe.pair.min_gap}

    monkeypatch.setattr("training.data.preferences.build_pairs", pair)
    recipe = write(tmp_path, 'name = "n"\nstages = ["collect", "pair"]\n[pair]\nmin_gap = 0.3\n')
    folder = tmp_path / "run"
    assert main(["pair", str(recipe), "--run", str(folder)]) == 0
    assert main(["pair", str(folder)]) == 0
    assert main(["pair", str(folder), "--pair.min_gap", "0.2"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["gap"], line.get("done_before", False)) for line in told] == [(0.3, False), (0.3, True), (0.2, False)]
    assert json.loads((folder / "recipe.json").read_text())["pair"]["min_gap"] == 0.2
    assert json.loads((folder / "environment.json").read_text())["pair"]["packages"]["transformers"]
    readme = (folder / "README.md").read_text()
    assert "| pair | pairs 7, gap 0.2 |" in readme
    assert "recipe.json" in readme
    assert main(["status", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["collect", "to", "do"]
    assert lines[2].split()[:2] == ["pair", "done"]
    assert main(["status", str(tmp_path)]) == 2


def test_what_a_killed_stage_left_half_written_is_swept(tmp_path: Path) -> None:
    host = os.uname().nodename
    mine, gone, other = (
        tmp_path / f".pairs.jsonl.{name}" for name in (f"{host}.{os.getpid()}", f"{host}.4194305", "elsewhere.4194305")
    )
    for path in (mine, gone, other):
        path.write_text("{")
    Run(tmp_path, quiet=True).begin("pair")
    assert (mine.exists(), gone.exists(), other.exists()) == (True, False, True)


def test_status_tells_a_running_stage_from_a_stopped_one(tmp_path: Path) -> None:
    run = Run(tmp_path, quiet=True)
    run.begin("pair")
    recipe = Recipe(stages=("pair", "fit"))
    progress = StageProgress(run, "pair", 200, every_s=0.0)
    progress.at(0)
    progress.at(50, "so far")
    assert "running   25%  pair: 50 of 200" in status_lines(recipe, run)[1]
    path = tmp_path / "stages" / "pair.progress"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pid": 2**22 + 1}))
    assert "stopped   25%" in status_lines(recipe, run)[1]
    run.finish("pair", "k", {"pairs": 3}, 2.0, 1.0)
    assert "done     2 s  pairs 3" in status_lines(recipe, run)[1]
    assert status_lines(recipe, run)[2].endswith("to do")


def test_progress_is_a_bar_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = StageProgress(Run(tmp_path), "pair", 200)
    progress.at(50)
    progress.at(200, "so far")
    lines = terminal.getvalue().split("\r")
    assert "50/200" in lines[1]
    assert lines[-1].startswith("pair: 100%")
    assert "so far" in lines[-1]
    assert lines[-1].endswith("\n")


def test_what_was_read_from_outside_is_named_by_its_digest(tmp_path: Path) -> None:
    (tmp_path / "seeds.jsonl").write_text("{}\n")
    recipe = Recipe(synthesize=SynthesizeConfig(seeds=str(tmp_path / "seeds.jsonl")))
    found = {name: file_digest(path) for name, path in input_files(recipe, "synthesize")}
    assert found == {"seeds.jsonl": "sha256:ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356"}


def test_diff_names_what_differs_between_two_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, epochs, loss in (("left", 1, 0.5), ("right", 2, 0.4)):
        run = Run(tmp_path / name, quiet=True)
        write_text(run.path("recipe.json"), json.dumps({"seed": 1, "fit": {"epochs": epochs, "lr": 0.1}}))
        write_text(run.path("environment.json"), json.dumps({"packages": {"torch": "2.13.0"}}))
        run.finish("fit", "key", {"loss": loss}, 1.0, 2.0)
    assert main(["diff", str(tmp_path / "left"), str(tmp_path / "right")]) == 1
    assert capsys.readouterr().out.splitlines() == ["recipe: fit.epochs: 1 → 2", "stages/fit: loss: 0.5 → 0.4"]
    assert main(["diff", str(tmp_path / "left"), str(tmp_path / "left")]) == 0
    assert "the same" in capsys.readouterr().out
    assert main(["diff", str(tmp_path), str(tmp_path / "left")]) == 2
    assert "is not a run folder" in capsys.readouterr().err


def test_everything_that_is_missing_is_said_before_the_first_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (
        'stages = ["collect", "sample", "verify"]\ndata = "nowhere"\n'
        '[sampler]\nurl = "http://127.0.0.1:9/v1"\nkey_file = "no.key"\n'
        '[verify]\nservice = "http://127.0.0.1:9"\n'
    )
    recipe = write(tmp_path, text)
    assert main(["all", str(recipe), "--run", str(tmp_path / "run")]) == 3
    said = capsys.readouterr().err
    for lack in (
        "problems.python.jsonl.gz in nowhere",
        "labels.jsonl.gz",
        "sampler.key_file",
        "sampler.url",
        "verify.service",
    ):
        assert lack in said, lack
    assert not (tmp_path / "run" / "problems.jsonl").exists()


def test_a_reader_that_leaves_early_is_no_traceback() -> None:
    argv = [sys.executable, "-m", "training.pipeline.cli", "fit", "--help"]
    read, write = os.pipe()
    os.close(read)  # as `| head` does, before anything was written
    with os.fdopen(write, "w") as closed:
        done = subprocess.run(
            argv, stdout=closed, stderr=subprocess.PIPE, text=True, timeout=60, cwd=RECIPES.parents[1]
        )
    assert (done.returncode, done.stderr) == (1, "")
