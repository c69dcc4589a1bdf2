"""Pair groups: programs of one problem that are scored together, so that their prompt is computed once.

A group is one prompt with up to `fit.group_size` of its programs, chosen and rejected ones. Some groups show whole
functions, bare or fenced, because clients send those too.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from plaudit.errors import TooLong
from service.scoring.encoder import Encoder
from training.pipeline.config import FitConfig, Recipe
from training.pipeline.files import read_jsonl
from training.pipeline.records import Problem, ProgramRecord
from training.pipeline.run import Run
from training.reward_model.template import presented

PACK = 6144  # tokens of a forward

Ids = tuple[int, ...]
Preferences = dict[str, set[tuple[str, str]]]  # task id → program ids (chosen, rejected)


@dataclass(frozen=True, slots=True)
class PairGroup:
    """Ids of programs of one problem that are scored together, in one form."""

    task_id: str
    programs: tuple[str, ...]
    form: str


def read_preferences(run: Run) -> tuple[Preferences, set[str]]:
    """Training pairs (chosen, rejected) by problem, and the ids of validation problems that have pairs."""
    preferences: Preferences = defaultdict(set)
    validation_tasks: set[str] = set()
    for pair in read_jsonl(run.path("pairs.jsonl")):
        if pair["fold"] == "train":
            preferences[pair["task_id"]].add((pair["chosen"], pair["rejected"]))
        else:
            validation_tasks.add(pair["task_id"])
    return dict(preferences), validation_tasks


class Encodings:
    """Ids of prompt and completion of every program in every form, made when they are first asked for.

    A program has none in a form in which it is longer than the encoder or `longest` allows.

    Args:
        encoder: of the checkpoint.
        problems: by task id.
        programs: by their names.
        longest: tokens of a program with its prompt.
    """

    def __init__(
        self,
        encoder: Encoder,
        problems: dict[str, Problem],
        programs: Mapping[str, ProgramRecord],
        longest: int = FitConfig().longest,
    ) -> None:
        self._encoder, self._problems, self._programs, self._longest = encoder, problems, programs, longest
        self._made: dict[tuple[str, str], tuple[Ids, Ids] | None] = {}

    def __contains__(self, key: tuple[str, str]) -> bool:
        return self._ids(key) is not None

    def __getitem__(self, key: tuple[str, str]) -> tuple[Ids, Ids]:
        ids = self._ids(key)
        if ids is None:
            raise KeyError(key)
        return ids

    def last_ids(self) -> set[int]:
        """The last token ids of all that was asked for."""
        return {ids[1][-1] for ids in self._made.values() if ids is not None}

    def _ids(self, key: tuple[str, str]) -> tuple[Ids, Ids] | None:
        if key not in self._made:
            program, form = self._programs[key[0]], key[1]
            problem = self._problems[program.task_id]
            prompt, completion = presented(program, problem.prompt, problem.entry_point, form, problem.language)
            encoded = self._encoder.encode_group(prompt, [completion])[0]
            fits = not isinstance(encoded, TooLong) and len(encoded.ids) <= self._longest
            cut = 0 if isinstance(encoded, TooLong) else encoded.prompt_tokens
            self._made[key] = (encoded.ids[:cut], encoded.ids[cut:]) if fits else None  # type: ignore[union-attr]
        return self._made[key]


def epoch_groups(preferences: Preferences, encodings: Encodings, recipe: Recipe, epoch: int) -> list[PairGroup]:
    """The groups of one epoch in their order: each problem's programs dealt into at most `max_groups` groups.

    A third of a group is chosen programs (fewer where there are fewer), and every group holds both kinds. Of the
    problems with a single group, an epoch visits the share `singles`: there are many, and several groups of one problem
    say more about what tells its samples apart.
    """
    settings = recipe.fit
    rng = random.Random(f"{recipe.seed}:{epoch}")
    groups = []
    for task_id in sorted(preferences):
        pairs = preferences[task_id]
        chosen = sorted({better for better, _ in pairs})
        rejected = sorted({worse for _, worse in pairs} - set(chosen))
        rng.shuffle(chosen)
        rng.shuffle(rejected)
        num_chosen = min(len(chosen), max(settings.group_size // 3, settings.group_size - len(rejected)))
        num_rejected = settings.group_size - num_chosen
        num_groups = min(settings.max_groups, -(-len(rejected) // num_rejected))
        if num_groups == 1 and settings.singles < 1.0 and rng.random() >= settings.singles:
            continue
        for number in range(num_groups):
            low = rejected[number::num_groups][:num_rejected]
            high = [chosen[(number * num_chosen + at) % len(chosen)] for at in range(num_chosen)]
            form = rng.choice(settings.forms) if rng.random() < settings.presentation else "body"
            names = tuple(name for name in dict.fromkeys([*high, *low]) if (name, form) in encodings)
            if any((better, worse) in pairs for better in names for worse in names):
                groups.append(PairGroup(task_id, names, form))
    rng.shuffle(groups)
    return groups


def ids_of(group: PairGroup, encodings: Encodings) -> tuple[Ids, list[Ids]]:
    """The ids of the group's prompt and of its completions, as `group_scores` takes them."""
    pairs = [encodings[name, group.form] for name in group.programs]
    return pairs[0][0], [completion for _, completion in pairs]


def packs(groups: Sequence[PairGroup], encodings: Encodings) -> list[list[PairGroup]]:
    """Runs of groups for one forward each: up to `PACK` tokens, counted with the attention's padding."""
    packed: list[list[PairGroup]] = [[]]
    num_rows = longest = 0
    for group in groups:
        prompt, completions = ids_of(group, encodings)
        length = len(prompt) + max(map(len, completions))
        if packed[-1] and max(longest, length) * (num_rows + len(completions)) > PACK:
            packed.append([])
            num_rows = longest = 0
        packed[-1].append(group)
        num_rows, longest = num_rows + len(completions), max(longest, length)
    return packed
