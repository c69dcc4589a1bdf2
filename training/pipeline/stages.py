"""The stages of a recipe. A stage that has finished with the same recipe is not run again.

A stage function imports what it needs when it is called, so that the command line answers without torch. Its docstring
is its line of help.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from plaudit.errors import UsageError
from training.pipeline.config import Recipe, result_fields
from training.pipeline.digests import content_key
from training.pipeline.manifest import record_inputs, write_readme
from training.pipeline.run import Run

StageFunction = Callable[[Recipe, Run], dict[str, object]]


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage's function, the recipe's sections on which its result depends, and the stages whose files it reads.

    `uses`: sections that only say how the work is done.
    """

    function: StageFunction
    sections: tuple[str, ...]
    after: tuple[str, ...]
    uses: tuple[str, ...] = ()

    @property
    def help(self) -> str:
        """One line."""
        return self.function.__doc__ or ""


STAGES: dict[str, Stage] = {}


def stage(
    *sections: str, after: tuple[str, ...] = (), uses: tuple[str, ...] = ()
) -> Callable[[StageFunction], StageFunction]:
    """Enter a function into `STAGES` under its name."""

    def enter(function: StageFunction) -> StageFunction:
        STAGES[function.__name__] = Stage(function, sections, after, uses)
        return function

    return enter


@stage("split", "collect", "hub")
def collect(recipe: Recipe, run: Run) -> dict[str, object]:
    """problems and programs from the data, in folds"""
    from training.data.collect import collect_problems

    return collect_problems(recipe, run)


@stage("tokenize", "split", after=("collect",))
def tokenize(recipe: Recipe, run: Run) -> dict[str, object]:
    """a tokenizer, and text"""
    from training.reward_model import tokenizer

    return tokenizer.tokenize(recipe, run)


@stage("pretrain", after=("tokenize",))
def pretrain(recipe: Recipe, run: Run) -> dict[str, object]:
    """a small language model"""
    from training.reward_model import pretrain

    return pretrain.pretrain(recipe, run)


@stage("synthesize", "writer", "oracle", "split", uses=("verify", "ray"))
def synthesize(recipe: Recipe, run: Run) -> dict[str, object]:
    """problems from seed programs"""
    from training.synthesis.synthesize import synthesize_problems

    return synthesize_problems(recipe, run)


@stage("sample", "sampler", uses=("ray",), after=("collect", "synthesize"))
def sample(recipe: Recipe, run: Run) -> dict[str, object]:
    """a model's programs"""
    from training.generation.sample import sample_programs

    return sample_programs(recipe, run)


@stage("mutate", after=("collect",))
def mutate(recipe: Recipe, run: Run) -> dict[str, object]:
    """near misses of the reference solutions"""
    from training.data.mutate import mutate_solutions

    return mutate_solutions(recipe, run)


@stage("verify", uses=("ray",), after=("collect", "mutate", "sample"))
def verify(recipe: Recipe, run: Run) -> dict[str, object]:
    """programs × tests, judged"""
    from training.data.verify import verify_programs

    return verify_programs(recipe, run)


@stage("pair", uses=("ray",), after=("verify",))
def pair(recipe: Recipe, run: Run) -> dict[str, object]:
    """which program is better than which"""
    from training.data.preferences import build_pairs

    return build_pairs(recipe, run)


@stage("fit", after=("collect", "pair", "pretrain"))
def fit(recipe: Recipe, run: Run) -> dict[str, object]:
    """the reward model, from this run's own language model or from one of the hub"""
    from training.reward_model import fit

    return fit.fit(recipe, run)


@stage("evaluate", "pair", uses=("verify", "ray"), after=("fit",))
def evaluate(recipe: Recipe, run: Run) -> dict[str, object]:
    """the report on unseen problems"""
    from training.evaluation import evaluate

    return evaluate.evaluate(recipe, run)


@stage("crossval", "split", "pair", "fit", "evaluate", after=("collect", "pretrain", "verify"))
def crossval(recipe: Recipe, run: Run) -> dict[str, object]:
    """the fit on unseen parts of the sampled problems, several seeds"""
    from training.evaluation import crossval

    return crossval.cross_validate(recipe, run)


@stage("card", after=("fit", "evaluate"))
def publish(recipe: Recipe, run: Run) -> dict[str, object]:
    """the checkpoint folder that is served"""
    from training.evaluation import publish

    return publish.publish(recipe, run)


@stage("iterate", "ppo", "world", "pretrain", "pair", "fit", "verify", "tokenize")
def iterate(recipe: Recipe, run: Run) -> dict[str, object]:
    """RewardRanker: reranker, PPO against it, mining, again"""
    from training.rewardranker import iterate

    return iterate.iterate(recipe, run)


def run_stage(name: str, recipe: Recipe, run: Run, rank: int = 0) -> dict[str, object]:
    """Run one stage unless it has finished with this recipe before. Prints its summary as a line of JSON.

    Of several processes that `accelerate launch` started, all run the stage, and rank 0 alone records it.

    Args:
        name: of the stage.
        recipe: what the stage is run with.
        run: where it reads and writes.
        rank: of this process.

    Returns:
        The stage's summary.

    Raises:
        UsageError: where a stage that comes before has not finished.
    """
    key = _key(name, recipe, run)
    record = run.record(name)
    done_before = record is not None and record["key"] == key
    function = STAGES[name].function
    if rank:
        return {} if done_before else function(recipe, run)
    if record is not None and done_before:
        print(json.dumps({"stage": name, "done_before": True, **record["summary"]}), flush=True)
        return dict(record["summary"])
    run.begin(name)
    record_inputs(recipe, run, name)
    wall_s, cpu_s = time.monotonic(), _cpu_s()
    summary = function(recipe, run)
    wall_s, cpu_s = time.monotonic() - wall_s, _cpu_s() - cpu_s
    if summary.get("complete", True):
        run.finish(name, key, summary, wall_s, cpu_s)
    else:
        run.write_progress(name, 0.0, 0.0, 0.0, None, f"shard {recipe.shard} is done")
    write_readme(recipe, run)
    print(json.dumps({"stage": name, "wall_s": round(wall_s, 1), "cpu_s": round(cpu_s, 1), **summary}), flush=True)
    return summary


def _key(name: str, recipe: Recipe, run: Run) -> str:
    """Names all that a stage's result depends on: its sections of the recipe, and the keys of the stages before."""
    stage = STAGES[name]
    before = {}
    for earlier in (earlier for earlier in stage.after if earlier in recipe.stages):
        record = run.record(earlier)
        if record is None:
            raise UsageError(f"{name} needs the files of {earlier}: run plaudit-train {earlier} first")
        before[earlier] = record["key"]
    sections = {section: result_fields(getattr(recipe, section)) for section in stage.sections}
    target = [recipe.publish] if name == "publish" else []
    return content_key(name, recipe.name, recipe.seed, sections, before, *target)


def _cpu_s() -> float:
    """CPU seconds of this process and of its finished children."""
    return sum(os.times()[:4])
