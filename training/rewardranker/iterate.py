"""`iterate`: RewardRanker's loop (arXiv 2504.09643), as steps that meet only in files.

    sft ──▶ samples ──▶ reranker ──▶ PPO from the SFT model ──▶ sample, execute, mine ──┐
               (data)      ▲                                                            │
                           └────────── the data, and what the mode adds of it ◀─────────┘

A generator is fine-tuned on passing solutions; its samples are executed and a Bradley-Terry reranker is fitted on
them. PPO then trains the generator against that reranker, not for the generator's sake: it is the adversary that finds
what the reranker wrongly likes. Its completions are executed, and passing programs and high-scoring failures
(`mining`) join the data for the next reranker, which is fitted from the pretrained backbone anew; the next PPO starts
from the SFT model anew. `rounds` counts rerankers.

The paper's body gives no sizes, thresholds or hyper-parameters that we know of: every number in the recipe's
`[iterate]`, `[ppo]` and `[fit]` is plaudit's own choice. Round 1 is the same in both modes and is made once.

Each step notes what it was made from and is not made again; one that was killed is made again from the last programs
judged and the last PPO state saved, with the same result, because every draw is named by its seed.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from plaudit.errors import UsageError
from training.pipeline.config import Recipe
from training.pipeline.records import Problem, Program, read_problems, read_programs, row
from training.pipeline.run import Run, digest, read_jsonl, write_jsonl
from training.reward_model.template import load_encoder
from training.rewardranker import policy
from training.rewardranker.from_service_log import Seen, read_seen
from training.rewardranker.mining import MODES, execute, merged, mine, recorded


class Loop:
    """The steps of one recipe in one run folder, and where each writes."""

    def __init__(self, recipe: Recipe, run: Run) -> None:
        if recipe.iterate.mode not in MODES:
            raise UsageError(f"iterate.mode {recipe.iterate.mode!r} is not one of {', '.join(MODES)}")
        self.recipe, self.run = recipe, run
        self.seeded = dataclasses.replace(recipe, seed=recipe.iterate.seed or recipe.seed)  # what the rounds go by
        self.base = Run(run.path("iterate/stages").parent, quiet=run.quiet)  # what all modes share
        self.key = self.mined_key = self.report_key = ""  # what the data, the last mining and the report are made from

    def start(self) -> None:
        """Problems, tokenizer, backbone, the SFT model, and its executed samples."""
        if self.recipe.world.problems:
            self._world()
        elif self.run.record("pretrain") is None:
            raise UsageError("iterate needs pretrain first, or a recipe with world.problems")
        self.problems = read_problems(self.run.path("problems.jsonl"))
        self.seen = Seen({}, {}, 0)
        if self.recipe.iterate.seen:
            if self.recipe.fit.presentation:
                raise UsageError("iterate.seen needs fit.presentation = 0: what was logged is shown as it was scored")
            self.seen = read_seen(self.recipe.iterate.seen, self.problems.values(), self.recipe.split.ngram)
            self.problems |= self.seen.problems
        self.encoder = load_encoder(self.recipe, self.run.path("tokenizer"))
        backbone = (self.run.record("pretrain") or {})["key"]
        settings = self.recipe.iterate
        self.train, self.held = self._fold("train", settings.problems), self._fold("test", settings.held_out)
        drawing = (settings.temperature, settings.max_new_tokens, self.recipe.seed)
        self.key = digest(backbone, settings.sft_epochs, settings.sft_lr, self.recipe.seed)
        self.step(self.base, "sft", self.key, self._sft)
        self.key = digest(self.key, drawing, settings.problems, settings.samples, self.recipe.verify.cpu_s)
        self.step(self.base, "samples", self.key, self._samples)
        self.report_key = digest(settings.held_out, settings.candidates, drawing)
        sft = self.run.path("iterate/sft")
        self.step(self.base, "held_out", digest(self.key, self.report_key), lambda: self._answer(self.base, sft))
        self.step(self.base, "greedy", digest(self.key, self.report_key), self._greedy)

    def folder(self, number: int) -> Run:
        """Where a round writes; the first is the same in every mode."""
        name = "round-1" if number == 1 else f"{self.recipe.iterate.mode}/round-{number}"
        return Run(self.run.path(f"iterate/seed-{self.seeded.seed}/{name}/stages").parent, quiet=self.run.quiet)

    def round(self, number: int) -> None:
        """Reranker, PPO, its answers on held-out problems, and what is mined for the next round."""
        from service.scoring.reward_model import RewardModel

        recipe, here = self.seeded, self.folder(number)
        data_key = self.key if number == 1 else digest(self.mined_key, recipe.iterate.mode)
        key = digest(data_key, recipe.pair, recipe.fit, recipe.seed)
        self.step(here, "reranker", key, lambda: self._reranker(here, number))
        reranker, sft = RewardModel.load(here.path("checkpoint/config.json").parent), self.run.path("iterate/sft")
        key = digest(key, recipe.ppo)
        self.step(
            here,
            "ppo",
            key,
            lambda: policy.reinforce(recipe, here, self.encoder, self.train, sft, reranker),
        )
        generator = here.path("ppo/config.json").parent
        self.step(here, "held_out", digest(key, self.report_key), lambda: self._answer(here, generator))
        self.step(here, "scores", digest(key, self.report_key), lambda: self._score(here, reranker))
        settings = recipe.iterate
        self.mined_key = digest(
            key,
            settings.mined_problems,
            settings.mined_samples,
            settings.hard_quantile,
            settings.max_positives,
            Path(settings.recorded).read_bytes() if settings.recorded and Path(settings.recorded).is_file() else b"",
            self.seen,
        )
        self.step(here, "mine", self.mined_key, lambda: self._mine(here, number, generator, reranker))

    def step(self, run: Run, name: str, key: str, work: Callable[[], dict[str, Any]]) -> None:
        """Do this step unless it was done from the same."""
        record = run.record(name)
        if record is not None and record["key"] == key:
            return
        wall, cpu = time.monotonic(), time.process_time()
        summary = work()
        wall, cpu = time.monotonic() - wall, time.process_time() - cpu
        run.finish(name, key, summary, wall, cpu)
        run.say(f"{run.folder.name}/{name}: {summary} ({wall:.0f} s)")

    def _world(self) -> None:
        from training.reward_model.pretrain import pretrain
        from training.rewardranker.microworld import microworld

        recipe = self.recipe
        key = digest(recipe.world, recipe.tokenize, recipe.fit.max_length, recipe.seed)
        self.step(self.run, "microworld", key, lambda: microworld(recipe, self.run))
        key = digest(key, recipe.pretrain)
        self.step(self.run, "pretrain", key, lambda: pretrain(recipe, self.run))

    def _fold(self, fold: str, count: int) -> list[Problem]:
        found = [p for p in self.problems.values() if p.fold == fold and p.task_id not in self.seen.problems]
        return sorted(found, key=lambda problem: digest(self.recipe.seed, problem.task_id))[:count]

    def _sft(self) -> dict[str, Any]:
        """On one passing solution a problem, the reference first."""
        chosen: dict[str, Program] = {}
        for program in read_programs(self.run.path("programs.jsonl")):
            if self.problems[program.task_id].fold != "train" or program.pass_rate != 1.0:
                continue
            if program.task_id not in chosen or program.origin == "canonical":
                chosen[program.task_id] = program
        documents = [(self.problems[name].prompt, program.completion) for name, program in chosen.items()]
        if not self.recipe.iterate.sft_epochs:  # a world whose text already is prompts with programs
            shutil.copytree(self.run.path("pretrained"), self.run.path("iterate/sft"), dirs_exist_ok=True)
            return {"documents": 0}
        return policy.fine_tune(self.recipe, self.run, self.encoder, documents)

    def _samples(self) -> dict[str, Any]:
        """Executed samples of training problems and their references; of validation problems for the calibration."""
        settings = self.recipe.iterate
        asked = [*self.train, *self._fold("validation", max(20, settings.problems // 10))]
        programs = self._programs(self.base, "samples", self.run.path("iterate/sft"), asked, settings.samples)
        found = [program for group in programs.values() for program in group]
        names = {problem.task_id for problem in self.train}
        known = [p for p in read_programs(self.run.path("programs.jsonl")) if p.task_id in names and p.pass_rate == 1.0]
        write_jsonl(self.base.path("data.jsonl"), map(row, merged(found, known)))
        copies = sum(program.copies for program in found)
        passing = sum(program.copies for program in found if program.pass_rate == 1.0)
        return {"completions": copies, "programs": len(found), "pass_rate": round(passing / max(1, copies), 4)}

    def _programs(
        self,
        here: Run,
        name: str,
        generator: Path,
        asked: Sequence[Problem],
        count: int,
        also: dict[str, list[str]] | None = None,
    ) -> dict[str, list[Program]]:
        model, recipe = policy.load_generator(generator), self.recipe if here is self.base else self.seeded
        drawn = policy.draw(model, self.encoder, asked, count, recipe, here, f"{here.folder.name}:{name}")
        texts = {problem.task_id: made for problem, made in zip(asked, drawn, strict=True)}
        for task_id, more in (also or {}).items():
            texts[task_id] = [*texts.get(task_id, []), *more]
        return execute(self.recipe, self.base, self.problems, texts)

    def _reranker(self, here: Run, number: int) -> dict[str, Any]:
        """`pair` and `fit` as they are, on the data of this round."""
        from training.data.preferences import pair
        from training.reward_model.fit import fit

        for name in ("tokenizer", "pretrained"):
            shutil.copytree(self.run.path(name), here.path(name), dirs_exist_ok=True)
        data = read_programs(self.base.path("data.jsonl"))
        if number > 1:
            added = [
                read_programs(self.folder(n).path(f"mined.{self.recipe.iterate.mode}.jsonl")) for n in range(1, number)
            ]
            data = merged(data, [program for programs in added for program in programs])
        used = {program.task_id for program in data}
        write_jsonl(here.path("problems.jsonl"), (row(p) for name, p in self.problems.items() if name in used))
        write_jsonl(here.path("verified.jsonl"), map(row, data))
        pairs = pair(self.seeded, here)
        if not pairs.get("train_problems"):
            raise UsageError("no problem has a better and a worse program: sample more, or a stronger generator")
        return {"programs": len(data), "pairs": pairs["pairs"], **fit(self.seeded, here)}

    def _answer(self, here: Run, generator: Path) -> dict[str, Any]:
        """`held_out.jsonl`: executed candidates on the test problems."""
        programs = self._programs(here, "held_out", generator, self.held, self.recipe.iterate.candidates)
        write_jsonl(here.path("held_out.jsonl"), (row(p) for group in programs.values() for p in group))
        rates = [mean_pass(group) for group in programs.values()]
        return {"problems": len(rates), "pass_rate": round(sum(rates) / max(1, len(rates)), 4)}

    def _greedy(self) -> dict[str, Any]:
        model = policy.load_generator(self.run.path("iterate/sft"))
        made = policy.draw(model, self.encoder, self.held, 1, self.recipe, self.base, "greedy", greedy=True)
        drawn = {problem.task_id: texts for problem, texts in zip(self.held, made, strict=True)}
        programs = execute(self.recipe, self.base, self.problems, drawn)
        write_jsonl(self.base.path("greedy.jsonl"), (row(p) for group in programs.values() for p in group))
        return {"pass_rate": sum(mean_pass(group) for group in programs.values()) / max(1, len(programs))}

    def _score(self, here: Run, reranker: Any) -> dict[str, Any]:
        """`scores.jsonl`: this round's reranker on the candidates of the SFT model and of this round's generator."""
        rows = []
        for pool, source in (("sft", self.base), ("ppo", here)):
            for program in read_programs(source.path("held_out.jsonl")):
                problem = self.problems[program.task_id]
                score = policy.scores_of(reranker, problem.prompt, [program.completion])[0]
                rows.append(
                    {
                        "pool": pool,
                        "task_id": program.task_id,
                        "score": score,
                        "copies": program.copies,
                        "passed": program.pass_rate == 1.0,
                    }
                )
        write_jsonl(here.path("scores.jsonl"), rows)
        return {"candidates": sum(r["copies"] for r in rows)}

    def _mine(self, here: Run, number: int, generator: Path, reranker: Any) -> dict[str, Any]:
        settings = self.recipe.iterate
        asked = sorted(self.train, key=lambda p: digest(self.seeded.seed, number, p.task_id))[: settings.mined_problems]
        trainable = {problem.task_id: problem for problem in self._fold("train", len(self.problems))}
        also = recorded(settings.recorded, trainable)
        executed = self._programs(here, "mine", generator, asked, settings.mined_samples, also)
        executed |= self.seen.programs
        scores: dict[str, float] = {}
        for task_id, programs in executed.items():
            found = policy.scores_of(reranker, self.problems[task_id].prompt, [p.completion for p in programs])
            scores |= {program.program_id: score for program, score in zip(programs, found, strict=True)}
        mined = mine(executed, scores, self.recipe)
        # Of what the service has seen, only groups with a disagreement teach something that the data does not.
        agreed = self.seen.problems.keys() - {program.task_id for program in mined.hard}
        for mode in MODES:
            added = [program for program in mined.added(mode) if program.task_id not in agreed]
            write_jsonl(here.path(f"mined.{mode}.jsonl"), map(row, added))
        return mined.summary()


def iterate(recipe: Recipe, run: Run) -> dict[str, object]:
    """Run the loop and write `iterate/seed-N/MODE/report.md` and `report.json`."""
    from training.rewardranker.iterate_report import write_report

    loop = Loop(recipe, run)
    loop.start()
    for number in range(1, recipe.iterate.rounds + 1):
        loop.round(number)
    return write_report(loop)


def mean_pass(programs: Sequence[Program]) -> float:
    """Share of these programs' completions that pass everything."""
    return sum(p.copies for p in programs if p.pass_rate == 1.0) / sum(p.copies for p in programs)


def read_scores(here: Run, pool: str) -> dict[str, list[tuple[float, bool]]]:
    """task → (score, passed) of every candidate of the pool, copies repeated."""
    found: dict[str, list[tuple[float, bool]]] = {}
    for r in read_jsonl(here.path("scores.jsonl")):
        if r["pool"] == pool:
            found.setdefault(r["task_id"], []).extend([(r["score"], r["passed"])] * r["copies"])
    return found
