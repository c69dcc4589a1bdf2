"""Pair sets: a better and a worse answer to one prompt, with a difficulty each, in prose and in several languages.

- `rm-bench`: RM-Bench (Liu et al. 2024, arXiv 2410.16184): `id, prompt, chosen, rejected, domain`, three styles of each
  side from concise to Markdown. Of its nine pairs those are hard in which the worse answer has the richer style, normal
  those of one style, and easy the rest. Rows of other domains than code are left out.
- `reward-bench`: RewardBench (Lambert et al. 2024, arXiv 2403.13787): `prompt, chosen, rejected, subset, id`. Its code
  subsets are `hep-python`, `hep-cpp` and so on; other rows are left out.
- `pairs`: `prompt, chosen, rejected`, and where it is known `id, difficulty, language`.
- In the last two a side may have several answers, each compared with each of the other side, and all texts may be chat
  messages.
- An answer's code is scored, as the model was trained on programs; an answer without fenced code is scored whole.
- `python -m training.evaluation.pair_sets MODEL SET=FILE` prints the accuracies by themselves.
- Intervals are a bootstrap over prompts, whose pairs are alike. A tie counts half.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plaudit.errors import UsageError
from plaudit.extract import blocks, code_of
from plaudit.languages import UnsupportedLanguage, resolve
from training.data import adapters
from training.evaluation.scorers import ProgramScorer, scorer_of
from training.pipeline import config
from training.pipeline.files import read_jsonl
from training.pipeline.metrics import bootstrap, mean

STYLES = ("concise", "detailed", "markdown")  # of RM-Bench, in its order
SUBSET = "hep-"  # of RewardBench, before a language
LANGUAGES = {"js": "javascript"}
OTHER = "other"


@dataclass(frozen=True, slots=True)
class AnswerPair:
    """Two answers of which the first is better.

    Args:
        group: pairs of one group have one prompt.
        prompt: as it was asked.
        chosen: the better answer.
        rejected: the worse one.
        difficulty: as the set has it: `easy`, `normal`, `hard`, or a word of its own; empty where it says none.
        language: of the code: its name here, or `other`.
    """

    group: str
    prompt: str
    chosen: str
    rejected: str
    difficulty: str = ""
    language: str = "python"


def read_pairs(entry: str) -> list[AnswerPair]:
    """The pairs of `set=FILE`, a JSON list or JSON lines, or of `set=NAME` or `set=NAME:SPLIT` at the hub.

    Raises:
        UsageError: for an unknown set, a row without what its set has, or a file without a pair of code.
        HostLacks: for a name that the hub does not give.
    """
    form, _, place = entry.partition("=")
    if form not in FORMS or not place:
        raise UsageError(f"evaluate.pairs: {entry!r} must be SET=FILE, SET one of {', '.join(FORMS)}")
    pairs = []
    for number, row in enumerate(_rows(place), start=1):
        try:
            pairs += list(FORMS[form](row))
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"evaluate.pairs: row {number} of {place} is not of the form {form}: {type(error).__name__}: {error}"
            ) from error
    if not pairs:
        raise UsageError(f"evaluate.pairs: {place} has no pair of code in the form {form}")
    return pairs


def _rows(place: str) -> Iterable[dict[str, Any]]:
    path = Path(place)
    if path.suffix == ".json" and path.is_file():
        parsed = json.loads(path.read_text("utf-8"))
        return parsed if isinstance(parsed, list) else [parsed]
    if path.is_file() and path.suffix != ".parquet":
        return read_jsonl(path)
    name, _, split = place.partition(":")
    return adapters.rows(config.HubConfig(path=name, split=split or "train"))


def _rm_bench(row: dict[str, Any]) -> Iterator[AnswerPair]:
    if not str(row["domain"]).startswith("code"):
        return
    chosen, rejected = row["chosen"], row["rejected"]
    if not isinstance(chosen, list) or len(chosen) != len(STYLES) or len(rejected) != len(STYLES):
        raise ValueError(f"`chosen` and `rejected` need {len(STYLES)} answers each")
    language = _language_of([*chosen, *rejected])
    for style, better in enumerate(chosen):
        for other, worse in enumerate(rejected):
            difficulty = "normal" if style == other else "hard" if other > style else "easy"
            yield AnswerPair(str(row["id"]), _prompt(row["prompt"]), str(better), str(worse), difficulty, language)


def _reward_bench(row: dict[str, Any]) -> Iterator[AnswerPair]:
    subset = str(row["subset"])
    if not subset.startswith(SUBSET):
        return
    name = subset.removeprefix(SUBSET)
    language = _canonical(LANGUAGES.get(name, name))
    for better, worse in itertools.product(_answers(row["chosen"]), _answers(row["rejected"])):
        yield AnswerPair(str(row["id"]), _prompt(row["prompt"]), better, worse, "", language)


def _plain(row: dict[str, Any]) -> Iterator[AnswerPair]:
    prompt, chosen, rejected = _prompt(row["prompt"]), _answers(row["chosen"]), _answers(row["rejected"])
    language = _canonical(str(row["language"])) if row.get("language") else _language_of([*chosen, *rejected])
    group = str(row.get("id", prompt))
    for better, worse in itertools.product(chosen, rejected):
        yield AnswerPair(group, prompt, better, worse, str(row.get("difficulty", "")), language)


def _prompt(value: Any) -> str:
    """A prompt: a text, or chat messages, joined as the service joins them."""
    if isinstance(value, list):
        return "\n\n".join(str(message["content"]) for message in value)
    if not isinstance(value, str):
        raise TypeError(f"a prompt is a text or messages, not {type(value).__name__}")
    return value


def _answers(value: Any) -> list[str]:
    """The answers of one side: a text, several texts, or chat messages of which the last is the answer."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return [str(item) for item in value]
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return [str(value[-1]["content"])]
    raise TypeError("an answer is a text, a list of texts, or messages")


FORMS = {"rm-bench": _rm_bench, "reward-bench": _reward_bench, "pairs": _plain}


def _language_of(answers: Sequence[str]) -> str:
    """The language that most fences of the answers name; Python where none does."""
    tags = [block.tag for text in answers for block in blocks(text) if block.tag]
    known = [language for tag in tags if (language := _canonical(tag)) != OTHER]
    if known:
        return max(sorted(set(known)), key=known.count)
    return OTHER if tags else "python"


def _canonical(name: str) -> str:
    try:
        return resolve(name)
    except UnsupportedLanguage:
        return OTHER


def code_text(answer: str, language: str) -> str:
    """The code of an answer; an answer without fenced code as it is."""
    code = code_of(answer, language)
    return answer if code is None else code.text


def pair_set_report(
    model: ProgramScorer, entry: str, settings: config.EvaluateConfig, seed: int, *, whole: bool = False
) -> dict[str, Any]:
    """Pair accuracy on one set: of all pairs, and by difficulty and language where there are several.

    Args:
        model: scores both sides.
        entry: as in `read_pairs`.
        settings: how often the bootstrap resamples.
        seed: of the bootstrap.
        whole: score whole answers, not their code.

    Returns:
        `set`, and `slices`: each with `slice`, `value`, `low`, `high`, `pairs` and `prompts`. A prompt that is longer
        than the model takes is cut on the left.

    Raises:
        UsageError, HostLacks: as `read_pairs`.
    """
    pairs = read_pairs(entry)
    groups = [
        (pair.prompt, [text if whole else code_text(text, pair.language) for text in (pair.chosen, pair.rejected)])
        for pair in pairs
    ]
    wins = [0.5 if better == worse else float(better > worse) for better, worse in model.score_answers(groups)]
    slices = [("all", list(range(len(pairs))))]
    for field in ("difficulty", "language"):
        names = [getattr(pair, field) for pair in pairs]
        if len(set(names)) > 1:
            slices += [(name, [at for at, own in enumerate(names) if own == name]) for name in sorted({*names} - {""})]
    form, _, place = entry.partition("=")
    name = Path(place).name if Path(place).exists() else place
    return {
        "set": f"{form}={name}",
        "slices": [_slice(name, pairs, wins, places, settings, seed) for name, places in slices],
    }


def _slice(
    name: str,
    pairs: Sequence[AnswerPair],
    wins: Sequence[float],
    places: Sequence[int],
    settings: config.EvaluateConfig,
    seed: int,
) -> dict[str, Any]:
    groups: dict[str, list[float]] = {}
    for at in places:
        groups.setdefault(pairs[at].group, []).append(wins[at])
    low, high = bootstrap(list(groups.values()), resamples=settings.resamples, seed=seed, statistic=_mean_of_all)
    value = mean([wins[at] for at in places])
    return {"slice": name, "value": value, "low": low, "high": high, "pairs": len(places), "prompts": len(groups)}


def _mean_of_all(groups: Sequence[Sequence[float]]) -> float:
    return mean([win for group in groups for win in group])


def main() -> int:
    """Print the accuracies of a checkpoint, or of a service's model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder or hub id of a checkpoint, or the URL of a running service")
    parser.add_argument("sets", nargs="+", metavar="SET=FILE", help=f"SET is one of {', '.join(FORMS)}")
    parser.add_argument("--whole", action="store_true", help="score whole answers, not their code")
    arguments = parser.parse_args()
    is_service = arguments.model.startswith(("http://", "https://"))
    settings = config.EvaluateConfig(**{"service" if is_service else "checkpoint": arguments.model})
    model = scorer_of(settings)
    for entry in arguments.sets:
        report = pair_set_report(model, entry, settings, seed=1, whole=arguments.whole)
        for part in report["slices"]:
            estimate = f"{part['value']:.3f} ({part['low']:.3f} to {part['high']:.3f})"
            print(
                f"{report['set']:40} {part['slice']:12} {estimate}  {part['pairs']} pairs of {part['prompts']} prompts"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
