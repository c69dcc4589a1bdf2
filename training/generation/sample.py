"""`sample`: n candidates of every problem from the recipe's `sampler`.

- Each reply is on disk before the next is waited for; a killed run asks only for what was in flight.
- The seed of a request is a hash of the recipe's seed and the problem, so the texts after a kill are those that would
  have come without it. A GPU server that batches may differ in the last bits, and then in a token.
- Problems are dealt into shards by a hash of their name. `--shard 3/16` runs one shard, on any machine that sees the
  folder; the command without `--shard` runs what is left and ends the stage.
- Equal programs of a problem become one row with `copies`.

Train a reward model on what its own backbone samples: AceCoder does, and finds other models' samples worse.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from plaudit.extract import answer, closed
from training.data.programs import GREEDY, SampledText, chat_question, distinct_programs, solution_of
from training.generation.batch import complete_all
from training.generation.sources.base import CompletionReply, CompletionRequest, TokenUsage, before_stop, request_seed
from training.pipeline import config
from training.pipeline.config import Recipe
from training.pipeline.files import write_jsonl
from training.pipeline.records import Problem, ProgramRecord, as_row, read_problems
from training.pipeline.run import Run
from training.pipeline.shards import shard_name, shard_of, shard_path, shards_to_run


def sample_programs(recipe: Recipe, run: Run) -> dict[str, object]:
    """Write `samples/SHARD.jsonl`: distinct programs of every problem, problems in their order."""
    problems = list(read_problems(run.path("problems.jsonl")).values())
    numbers = shards_to_run(recipe)
    usage, counts = TokenUsage(), {"candidates": 0, "distinct": 0, "no_code": 0}
    for number in numbers:
        in_shard = [p for p in problems if shard_of(p.task_id, recipe.sample.shards) == number]
        journal = f"samples/{shard_name(number, recipe)}.replies.jsonl"
        requests = (sampling_request(problem, recipe) for problem in in_shard)
        replies = complete_all(recipe, run, journal, recipe.sampler, requests, usage, total=len(in_shard))
        greedy = greedy_replies(recipe, run, journal, in_shard, usage)
        programs = _programs(in_shard, recipe.sampler, replies, greedy, counts)
        write_jsonl(shard_path(run, "samples", number, recipe), map(as_row, programs))
    return {
        "problems": len(problems),
        **counts,
        "cut": usage.cut,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cost": round(usage.cost(recipe.sampler), 4),
        "complete": len(numbers) == recipe.sample.shards,
    }


def _programs(
    problems: Sequence[Problem],
    sampler: config.SourceConfig,
    replies: Mapping[str, CompletionReply],
    greedy: Mapping[str, CompletionReply],
    counts: dict[str, int],
) -> Iterator[ProgramRecord]:
    """The distinct programs of each problem in turn, counted."""
    for problem in problems:
        sampled = programs_of(problem, replies[problem.task_id], sampler, greedy.get(problem.task_id))
        counts["candidates"] += sum(program.iid_copies for program in sampled)
        counts["no_code"] += sum(program.iid_copies for program in sampled if not program.solution)
        counts["distinct"] += len(sampled)
        yield from sampled


def sampling_request(problem: Problem, recipe: Recipe) -> CompletionRequest:
    """What the sampler is sent for a problem."""
    seed = request_seed(recipe.seed, problem.task_id)
    if not recipe.sampler.chat:
        return CompletionRequest(problem.task_id, problem.prompt, recipe.sample.n, seed, problem.stop)
    return CompletionRequest(problem.task_id, (("user", chat_question(problem)),), recipe.sample.n, seed)


def greedy_replies(
    recipe: Recipe, run: Run, journal: str, problems: Sequence[Problem], usage: TokenUsage
) -> Mapping[str, CompletionReply]:
    """The one greedy completion of each problem, if the recipe wants it."""
    if not recipe.sample.greedy:
        return {}
    settings = dataclasses.replace(recipe.sampler, temperature=0.0, top_p=1.0)
    requests = (dataclasses.replace(sampling_request(problem, recipe), n=1) for problem in problems)
    name = journal.replace(".replies.", ".greedy.")
    return complete_all(recipe, run, name, settings, requests, usage, total=len(problems))


def programs_of(
    problem: Problem, reply: CompletionReply, sampler: config.SourceConfig, greedy: CompletionReply | None = None
) -> list[ProgramRecord]:
    """Distinct programs of a reply in the order they first came; a completion without code is an empty program.

    The greedy program stands last, or is one of the others; its sample_id ends with `GREEDY`.
    """
    source = sampler.model or sampler.path
    texts = [(f"{problem.task_id}#{at}", text) for at, text in enumerate(reply.texts)]
    if greedy is not None:
        texts.append((problem.task_id + GREEDY, greedy.texts[0]))
    if not sampler.chat:  # recorded completions may go on behind the end of the program
        texts = [(name, before_stop(text, problem.stop)) for name, text in texts]
    samples = [
        SampledText(
            solution=solution_of(problem, text, sampler.chat),
            completion=answer(text) if sampler.chat else closed(text),
            sample_id=sample_id,
            source=source,
        )
        for sample_id, text in texts
    ]
    return distinct_programs(problem, samples, "")
