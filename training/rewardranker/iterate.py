"""`iterate`: RewardRanker's loop (arXiv 2504.09643), as steps that communicate only through files.

    SFT ──▶ samples ──▶ reranker ──▶ PPO from the SFT model ──▶ sample, execute, mine ──┐
               (data)      ▲                                                            │
                           └────────── the data, and what the mode adds to it ◀─────────┘

- A generator is fine-tuned on passing solutions (SFT). A Bradley-Terry reranker is fitted on its executed samples.
- PPO trains the generator against that reranker. The generator is the adversary: it finds what the reranker overrates.
- Its completions are executed. Passing programs and hard negatives (`mining`) join the data for the next reranker.
- Every reranker starts from the pretrained backbone, every PPO from the SFT model. `rounds` counts rerankers.
- Round 1 is the same in both modes and is computed once.
- The paper gives no sizes, thresholds or hyper-parameters: those in `[iterate]`, `[ppo]` and `[fit]` are plaudit's.
- A step records what it was made from and is not repeated. A killed step resumes from the last judged program or the
  last saved PPO state, with the same result, because every random draw has a seed of its own.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from plaudit.errors import UsageError
from service.scoring.checkpoint import locate
from training.data.programs import completion_of
from training.pipeline.config import Recipe
from training.pipeline.digests import content_key
from training.pipeline.files import write_jsonl
from training.pipeline.records import Problem, ProgramRecord, as_row, read_problems, read_programs
from training.pipeline.run import Run
from training.reward_model.template import load_encoder
from training.rewardranker import policy
from training.rewardranker.from_service_log import LoggedGroups, read_logged_groups
from training.rewardranker.generator_text import GeneratorText, OwnText, PretrainedText
from training.rewardranker.iterate_report import write_report
from training.rewardranker.mining import (
    MODES,
    execute_completions,
    mean_pass_rate,
    merge_programs,
    mine,
    recorded_completions,
)
from training.rewardranker.sft_data import generator_digest, right_solutions, sft_sets_key, sft_solutions


class RewardRankerLoop:
    """The steps of one recipe in one run folder, and where each writes.

    `prepare` first, then `round` for 1, 2, …. After `prepare`: `problems` by task id, `train_problems` to sample from,
    `test_problems` of the report, `text` of the generator, and `logged` groups of the service.
    """

    def __init__(self, recipe: Recipe, run: Run) -> None:
        if recipe.iterate.mode not in MODES:
            raise UsageError(f"iterate.mode is {recipe.iterate.mode!r}; it must be one of {', '.join(MODES)}")
        self.recipe, self.run = recipe, run
        self.round_recipe = dataclasses.replace(recipe, seed=recipe.iterate.seed or recipe.seed)
        self.shared = Run(run.path("iterate/stages").parent, quiet=run.quiet)  # what all modes and seeds share
        self.data_key = self.mined_key = self.report_key = ""  # digests of what these are made from

    def prepare(self) -> None:
        """Problems, tokenizer, backbone, the SFT model, and its executed samples."""
        settings, own = self.recipe.iterate, not (self.recipe.iterate.generator and self.recipe.fit.base)
        if self.recipe.world.problems:
            self._microworld()
        elif own and self.run.record("pretrain") is None:
            raise UsageError(
                "iterate needs pretrain first, or a recipe with world.problems, or both iterate.generator and fit.base"
            )
        self.problems = read_problems(self.run.path("problems.jsonl"))
        self.logged = LoggedGroups({}, {}, 0)
        if settings.seen:
            if self.recipe.fit.presentation:
                raise UsageError(
                    "iterate.seen needs fit.presentation = 0: logged completions are shown as they were scored"
                )
            self.logged = read_logged_groups(settings.seen, self.problems.values(), self.recipe.split.ngram)
            self.problems |= self.logged.problems
        self.start = locate(settings.generator) if settings.generator else self.run.path("pretrained")
        self.text: GeneratorText = (
            PretrainedText(self.start)
            if settings.generator
            else OwnText(load_encoder(self.recipe, self.run.path("tokenizer")))
        )
        self.train_problems = self._unforgeable(self._fold("train", settings.problems))
        self.test_problems = self._fold("test", settings.held_out)
        backbone_key = (
            content_key(generator_digest(self.start))
            if settings.generator
            else (self.run.record("pretrain") or {})["key"]
        )
        sampling = (settings.temperature, settings.max_new_tokens, self.recipe.seed)
        sft_key = content_key(
            backbone_key, settings.sft_epochs, policy.SFT_LR, self.recipe.seed, *sft_sets_key(settings.sft)
        )
        self.step(self.shared, "sft", sft_key, self._sft)
        self.data_key = content_key(sft_key, sampling, settings.problems, settings.samples, self.recipe.verify.cpu_s)
        self.step(self.shared, "samples", self.data_key, self._samples)
        self.report_key = content_key(settings.held_out, settings.candidates, sampling)
        sft, key = self.run.path("iterate/sft"), content_key(self.data_key, self.report_key)
        self.step(self.shared, "held_out", key, lambda: self._held_out(self.shared, sft))
        self.step(self.shared, "greedy", key, self._greedy)

    def round_folder(self, number: int) -> Run:
        """Where a round writes; the first is the same in every mode."""
        name = "round-1" if number == 1 else f"{self.recipe.iterate.mode}/round-{number}"
        return Run(self.run.path(f"iterate/seed-{self.round_recipe.seed}/{name}/stages").parent, quiet=self.run.quiet)

    def round(self, number: int) -> None:
        """Reranker, PPO, its completions of test problems, and what is mined for the next round."""
        from service.scoring.reward_model import RewardModel

        recipe, folder = self.round_recipe, self.round_folder(number)
        data_key = self.data_key if number == 1 else content_key(self.mined_key, recipe.iterate.mode)
        key = content_key(data_key, recipe.pair, recipe.fit, recipe.seed)
        self.step(folder, "reranker", key, lambda: self._reranker(folder, number))
        reranker, sft = RewardModel.load(folder.path("checkpoint/config.json").parent), self.run.path("iterate/sft")
        key = content_key(key, recipe.ppo)
        self.step(
            folder,
            "ppo",
            key,
            lambda: policy.train_ppo(recipe, folder, self.text, self.train_problems, sft, reranker),
        )
        generator = folder.path("ppo/config.json").parent
        self.step(folder, "held_out", content_key(key, self.report_key), lambda: self._held_out(folder, generator))
        self.step(folder, "scores", content_key(key, self.report_key), lambda: self._scores(folder, reranker))
        settings = recipe.iterate
        self.mined_key = content_key(
            key,
            settings.mined_problems,
            settings.mined_samples,
            settings.hard_quantile,
            settings.max_positives,
            Path(settings.recorded).read_bytes() if settings.recorded and Path(settings.recorded).is_file() else b"",
            self.logged,
        )
        self.step(folder, "mine", self.mined_key, lambda: self._mine(folder, number, generator, reranker))

    def step(self, run: Run, name: str, key: str, work: Callable[[], dict[str, Any]]) -> None:
        """Do `work` and record its summary in `run`, unless it was done with the same key."""
        record = run.record(name)
        if record is not None and record["key"] == key:
            return
        wall_s, cpu_s = time.monotonic(), time.process_time()
        summary = work()
        wall_s, cpu_s = time.monotonic() - wall_s, time.process_time() - cpu_s
        run.finish(name, key, summary, wall_s, cpu_s)
        run.say(f"{run.folder.name}/{name}: {summary} ({wall_s:.0f} s)")

    def _microworld(self) -> None:
        from training.reward_model.pretrain import pretrain
        from training.rewardranker.microworld import microworld

        recipe = self.recipe
        key = content_key(recipe.world, recipe.tokenize, recipe.fit.max_length, recipe.seed)
        self.step(self.run, "microworld", key, lambda: microworld(recipe, self.run))
        key = content_key(key, recipe.pretrain)
        self.step(self.run, "pretrain", key, lambda: pretrain(recipe, self.run))

    def _fold(self, fold: str, most: int) -> list[Problem]:
        """Up to `most` problems of this fold, the logged ones left out, in an order by the seed."""
        problems = [p for p in self.problems.values() if p.fold == fold and p.task_id not in self.logged.problems]
        return sorted(problems, key=lambda problem: content_key(self.recipe.seed, problem.task_id))[:most]

    def _unforgeable(self, problems: list[Problem]) -> list[Problem]:
        """Those whose verdict no program can forge, unless the recipe wants all. Raises `UsageError` if none is."""
        kept = [problem for problem in problems if problem.kind != "script" or self.recipe.iterate.shared_process]
        if len(kept) < len(problems):
            self.run.say(
                f"iterate: {len(problems) - len(kept)} training problems are left out: their tests run in the "
                "program's process, and a policy would learn to forge them (iterate.shared_process = true takes them)"
            )
        if problems and not kept:
            raise UsageError(
                "iterate: the tests of all training problems run in the program's process, and a policy would learn to "
                "forge them; iterate.shared_process = true trains on them nevertheless"
            )
        return kept

    def _sft(self) -> dict[str, Any]:
        """Fine-tune on one passing solution per problem, the reference first, and on those of `iterate.sft`."""
        if not self.recipe.iterate.sft_epochs:  # the pretraining text already is prompts with programs
            if self.recipe.iterate.sft:
                raise UsageError("iterate.sft names sets to fine-tune on, and iterate.sft_epochs is 0: set it to 1")
            shutil.copytree(self.start, self.run.path("iterate/sft"), dirs_exist_ok=True)
            return {"documents": 0}
        verified = self.run.folder / "verified.jsonl"
        programs = read_programs(verified if verified.is_file() else self.run.path("programs.jsonl"))
        own = right_solutions(programs, self.problems)
        more = sft_solutions(self.recipe.iterate.sft, self.problems.values(), self.recipe.split.ngram)
        self.run.say(f"sft: {len(own)} solutions of this run, {len(more)} of iterate.sft")
        return policy.fine_tune(self.recipe, self.run, self.text, self.start, [*own, *more])

    def _samples(self) -> dict[str, Any]:
        """Executed samples of training problems and their references; of validation problems for the calibration."""
        settings = self.recipe.iterate
        asked = [*self.train_problems, *self._fold("validation", max(20, settings.problems // 10))]
        groups = self._executed(self.shared, "samples", self.run.path("iterate/sft"), asked, settings.samples)
        samples = [program for group in groups.values() for program in group]
        names = {problem.task_id for problem in self.train_problems}
        programs = read_programs(self.run.path("programs.jsonl"))
        references = [program for program in programs if program.task_id in names and program.pass_rate == 1.0]
        write_jsonl(self.shared.path("data.jsonl"), map(as_row, merge_programs(samples, references)))
        completions = sum(program.copies for program in samples)
        passing = sum(program.copies for program in samples if program.pass_rate == 1.0)
        rate = round(passing / max(1, completions), 4)
        return {"completions": completions, "programs": len(samples), "pass_rate": rate}

    def _executed(
        self,
        folder: Run,
        name: str,
        generator: Path,
        problems: Sequence[Problem],
        num_samples: int,
        recorded: dict[str, list[str]] | None = None,
    ) -> dict[str, list[ProgramRecord]]:
        """Sample completions of these problems, add the recorded ones, and execute all; programs by task id."""
        recipe = self.recipe if folder is self.shared else self.round_recipe
        model, step = policy.load_generator(generator), f"{folder.folder.name}:{name}"
        samples = policy.sample_completions(model, self.text, problems, num_samples, recipe, folder, step)
        completions = {problem.task_id: texts for problem, texts in zip(problems, samples, strict=True)}
        for task_id, texts in (recorded or {}).items():
            completions[task_id] = [*completions.get(task_id, []), *texts]
        return execute_completions(self.recipe, self.shared, self.problems, completions)

    def _reranker(self, folder: Run, number: int) -> dict[str, Any]:
        """The stages `pair` and `fit` on the data of this round."""
        from training.data.preferences import build_pairs
        from training.reward_model.fit import fit

        for name in () if self.recipe.fit.base else ("tokenizer", "pretrained"):
            shutil.copytree(self.run.path(name), folder.path(name), dirs_exist_ok=True)
        mined_file = f"mined.{self.recipe.iterate.mode}.jsonl"
        programs = list(read_programs(self.shared.path("data.jsonl")))
        if number > 1:
            rounds = [read_programs(self.round_folder(before).path(mined_file)) for before in range(1, number)]
            programs = merge_programs(programs, [program for mined in rounds for program in mined])
        used = {program.task_id for program in programs}
        write_jsonl(folder.path("problems.jsonl"), (as_row(p) for name, p in self.problems.items() if name in used))
        write_jsonl(folder.path("verified.jsonl"), map(as_row, programs))
        pairs = build_pairs(self.round_recipe, folder)
        if not pairs.get("train_problems"):
            raise UsageError("no problem has a better and a worse program: sample more, or use a stronger generator")
        return {"programs": len(programs), "pairs": pairs["pairs"], **fit(self.round_recipe, folder)}

    def _held_out(self, folder: Run, generator: Path) -> dict[str, Any]:
        """`held_out.jsonl`: executed candidates of the test problems."""
        groups = self._executed(folder, "held_out", generator, self.test_problems, self.recipe.iterate.candidates)
        write_jsonl(folder.path("held_out.jsonl"), (as_row(p) for group in groups.values() for p in group))
        rates = [mean_pass_rate(group) for group in groups.values()]
        return {"problems": len(rates), "pass_rate": round(sum(rates) / max(1, len(rates)), 4)}

    def _greedy(self) -> dict[str, Any]:
        """`greedy.jsonl`: the SFT model's executed greedy completions of the test problems."""
        model = policy.load_generator(self.run.path("iterate/sft"))
        samples = policy.sample_completions(
            model, self.text, self.test_problems, 1, self.recipe, self.shared, "greedy", greedy=True
        )
        completions = {problem.task_id: texts for problem, texts in zip(self.test_problems, samples, strict=True)}
        groups = execute_completions(self.recipe, self.shared, self.problems, completions)
        write_jsonl(self.shared.path("greedy.jsonl"), (as_row(p) for group in groups.values() for p in group))
        return {"pass_rate": sum(mean_pass_rate(group) for group in groups.values()) / max(1, len(groups))}

    def _scores(self, folder: Run, reranker: Any) -> dict[str, Any]:
        """`scores.jsonl`: this round's reranker on the candidates of the SFT model and of this round's generator."""
        rows = []
        for pool, source in (("sft", self.shared), ("ppo", folder)):
            for program in read_programs(source.path("held_out.jsonl")):
                problem = self.problems[program.task_id]
                score = policy.score_completions(reranker, problem.prompt, [program.completion])[0]
                rows.append(
                    {
                        "pool": pool,
                        "task_id": program.task_id,
                        "score": score,
                        "copies": program.copies,
                        "passed": program.pass_rate == 1.0,
                    }
                )
        write_jsonl(folder.path("scores.jsonl"), rows)
        return {"candidates": sum(line["copies"] for line in rows)}

    def _mine(self, folder: Run, number: int, generator: Path, reranker: Any) -> dict[str, Any]:
        """`mined.MODE.jsonl` for every mode: what it adds to the data."""
        settings, seed = self.recipe.iterate, self.round_recipe.seed
        order = sorted(self.train_problems, key=lambda problem: content_key(seed, number, problem.task_id))
        trainable = {problem.task_id: problem for problem in self._fold("train", len(self.problems))}
        recorded = recorded_completions(settings.recorded, trainable)
        asked = order[: settings.mined_problems]
        executed = self._executed(folder, "mine", generator, asked, settings.mined_samples, recorded)
        executed |= self.logged.programs
        scores: dict[str, float] = {}
        for task_id, programs in executed.items():
            completions = [program.completion for program in programs]
            values = policy.score_completions(reranker, self.problems[task_id].prompt, completions)
            scores |= {program.program_id: value for program, value in zip(programs, values, strict=True)}
        mined = mine(executed, scores, self._reference_scores(executed, reranker), self.recipe)
        # Logged groups teach something new only where the reranker and the tests disagree.
        agreed = self.logged.problems.keys() - {program.task_id for program in mined.hard}
        for mode in MODES:
            added = [program for program in mined.added(mode) if program.task_id not in agreed]
            write_jsonl(folder.path(f"mined.{mode}.jsonl"), map(as_row, added))
        return mined.summary()

    def _reference_scores(self, executed: Mapping[str, Sequence[ProgramRecord]], reranker: Any) -> dict[str, float]:
        """The score of the reference of each problem of which no program passes."""
        scores = {}
        for task_id, programs in executed.items():
            problem = self.problems[task_id]
            if problem.canonical is None or any(program.pass_rate == 1.0 for program in programs):
                continue
            completion = completion_of(problem, problem.canonical)
            scores[task_id] = policy.score_completions(reranker, problem.prompt, [completion])[0]
        return scores


def iterate(recipe: Recipe, run: Run) -> dict[str, object]:
    """Run the loop and write `iterate/seed-N/MODE/report.md` and `report.json`. Returns the last round's numbers."""
    loop = RewardRankerLoop(recipe, run)
    loop.prepare()
    rounds = []
    for number in range(1, recipe.iterate.rounds + 1):
        loop.round(number)
        rounds.append(loop.round_folder(number))
        mined = (rounds[-1].record("mine") or {})["summary"]
        if not mined["hard_kept"] and (recipe.iterate.mode == "hard_negatives" or not mined["positives_kept"]):
            run.say(f"iterate: round {number} mined nothing, so the next one would be the same: the loop ends")
            break
    return write_report(loop.round_recipe, run, loop.shared, rounds, loop.test_problems)
