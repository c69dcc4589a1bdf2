"""A judge as an `Engine`: the same jobs, answers and failures as a model of this process.

- A score comes from the server's answer and from nothing else. An answer that cannot be read is `judge_unreadable`:
  that completion has no score, and the others of its group have theirs. There is no default number.
- A server that is down, overloaded or does not let us in fails the job as a server error.
- Nothing is cut: how long a text is in the server's tokens is not known here.
- A pairwise score depends on the rest of its group, so it is never cached by completion (`depends_on_group`).
- What is asked is counted in `plaudit_judge_requests_total` and `plaudit_judge_tokens_total`, and `tokens` of a score
  is what the server counted for it.
- The revision is the digest of `reward_model.json`. That the server exchanges the weights behind a name is not noticed.
"""

from __future__ import annotations

import concurrent.futures
import json
import logging
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from plaudit.errors import HostLacks, Invalid, TooLong
from service.jobs import Completion, TokenIds, Truncation, Turns
from service.scoring import checkpoint
from service.scoring.conversation import ChatMessage, with_arguments
from service.scoring.encoder import Encoded, Overflow, Prompt
from service.scoring.judge.client import JudgeAnswer, JudgeClient, JudgeFailure, Messages
from service.scoring.judge.spec import CHARS_PER_TOKEN, JudgeSpec, PairwiseVerdict, ParsedNumber, TokenProbability
from service.scoring.parity import Parity
from service.scoring.prefix_cache import PromptCache
from service.scoring.scheduler import Score, ScoreFailure
from service.scoring.spec import RewardModelSpec

log = logging.getLogger(__name__)

START_S, POLL_S = 60.0, 1.0
BATCH_S = 480.0  # less than `ScoreRunner.stuck_after_s`


class JudgedScore(float):
    """A score with the tokens that it cost."""

    tokens: int

    def __new__(cls, score: float, tokens: int) -> JudgedScore:
        made = super().__new__(cls, score)
        made.tokens = tokens
        return made


@dataclass(frozen=True, slots=True)
class Question(Encoded):
    """A completion to be judged. `ids` stand for its estimated tokens.

    Attributes:
        asked: what the judge is asked; for `pairwise` about each other completion twice, this one first and second.
    """

    asked: tuple[Messages, ...] = ()


class JudgeEngine:
    """One judge."""

    prefix_sharing_disabled_reason: str | None = "a judge: another server computes"
    is_remote = True
    tokenizer_digest: str | None = None
    own_class_error: float | None = None
    good_label: int | None = None
    quantization: str | None = None
    dtype = "remote"
    parameters = 0
    num_shared = 0

    def __init__(self, name: str, spec: JudgeSpec, revision: str) -> None:
        self.judge = spec
        self.revision = revision
        self.architecture = f"judge {spec.model}"
        self.engine = f"judge at {spec.url}"
        self.max_length = spec.max_length
        self.spec = RewardModelSpec("{prompt}{completion}", spec.max_length, self.architecture)
        self.depends_on_group = isinstance(spec.method, PairwiseVerdict)
        self.num_computed = 0
        self.prompts = PromptCache()  # unused
        self._client = JudgeClient(name, spec)

    @classmethod
    def open(cls, name: str, folder: Path) -> JudgeEngine:
        """The judge of a folder, once it has judged an example; its server has `START_S` to come up.

        Raises `HostLacks` or `UsageError` if it cannot.
        """
        engine = cls(name, JudgeSpec.read(folder), checkpoint.revision_of(folder))
        example = [one for one in engine.encode_group("Is 1 + 1 = 2?", ["Yes.", "No."]) if isinstance(one, Question)]
        until = time.monotonic() + START_S
        (score,) = engine.score(example[:1])
        while isinstance(score, ScoreFailure) and score.code == "judge_unavailable" and time.monotonic() < until:
            time.sleep(POLL_S)
            (score,) = engine.score(example[:1])
        if isinstance(score, ScoreFailure):
            if score.is_server_error:
                engine.close()
                raise HostLacks(f"model {name!r}: {score.code}: {score.detail}")
            log.warning("model %r: the judge's answer to an example has no score: %s", name, score.detail)
        return engine

    def encode_group(
        self, prompt: Prompt | None, completions: Sequence[Completion], on_overflow: Overflow = "error"
    ) -> list[Encoded | TooLong]:
        """What the judge is asked about each completion.

        Raises:
            Invalid: there is no prompt, or the group cannot be compared.
        """
        if prompt is None:
            raise Invalid("a judge takes a prompt and its completions; a whole text or token ids it cannot tell apart")
        if isinstance(on_overflow, Truncation) and (on_overflow.max_prompt_tokens or on_overflow.max_completion_tokens):
            raise Invalid("a judge's texts are not cut: max_tokens_per_doc and max_tokens_per_query are not supported")
        texts = [_completion_text(completion) for completion in completions]
        question = prompt if isinstance(prompt, str) else transcript(prompt)
        if isinstance(self.judge.method, PairwiseVerdict):
            return self._compared(question, texts, self.judge.method.max_completions)
        return [self._question([{"prompt": question, "completion": text}]) for text in texts]

    def _compared(self, prompt: str, texts: Sequence[str], most: int) -> list[Encoded | TooLong]:
        if not 2 <= len(texts) <= most:
            raise Invalid(f"{len(texts)} different completions: this judge compares 2 to {most} of one prompt")
        return [
            self._question(
                [
                    {"prompt": prompt, "first": first, "second": second}
                    for index, other in enumerate(texts)
                    if index != own
                    for first, second in ((text, other), (other, text))
                ]
            )
            for own, text in enumerate(texts)
        ]

    def _question(self, texts: Sequence[dict[str, str]]) -> Question | TooLong:
        asked = tuple(self.judge.asked(places) for places in texts)
        lengths = [sum(len(turn["content"]) for turn in messages) // CHARS_PER_TOKEN + 1 for messages in asked]
        if max(lengths) > self.max_length:
            return TooLong(tokens=max(lengths), limit=self.max_length, at_least=True)
        return Question((0,) * sum(lengths), 0, False, (), asked)

    def score(self, batch: Sequence[Encoded]) -> list[Score]:
        """A score or its failure for each completion, in the order of `batch`. All are asked at once."""
        questions = [encoded for encoded in batch if isinstance(encoded, Question)]
        asked = [[self._client.ask(messages) for messages in question.asked] for question in questions]
        concurrent.futures.wait([answer for answers in asked for answer in answers], BATCH_S)
        return [self._score(answers) for answers in asked]

    def _score(self, asked: Sequence[concurrent.futures.Future[JudgeAnswer]]) -> Score:
        try:
            answers = [_result(answer) for answer in asked]
            value = self._value(answers)
        except JudgeFailure as failure:
            return ScoreFailure(failure.code, failure.detail, is_server_error=failure.is_server_error)
        tokens = sum(answer.tokens for answer in answers)
        self.num_computed += tokens
        return JudgedScore(value, tokens)

    def _value(self, answers: Sequence[JudgeAnswer]) -> float:
        """The score that the answers say. Raises JudgeFailure."""
        method = self.judge.method
        if isinstance(method, TokenProbability):
            return log_odds(answers[0].logprobs or [], method)
        if isinstance(method, ParsedNumber):
            return number(answers[0], method)
        halves = [verdict(answer, method) for answer in answers]
        pairs = zip(halves[::2], (1 - half for half in halves[1::2]), strict=True)
        return math.fsum(own if own == swapped else 0.5 for own, swapped in pairs) / (len(halves) // 2)

    def check_golden(self) -> Parity:
        """Nothing to compare: a judge has no golden set."""
        return Parity(0.0, 0, 0.0, ok=True, max_batch_error=0.0)

    def pass_probability(self, score: float) -> float | None:
        """None: a judge has no calibration."""
        return None

    def close(self) -> None:
        """Close the connections. It scores nothing afterwards."""
        self._client.close()


def _result(answer: concurrent.futures.Future[JudgeAnswer]) -> JudgeAnswer:
    if not answer.done():
        raise JudgeFailure("judge_unavailable", f"no answer within {BATCH_S:g} s", is_server_error=True)
    return answer.result()


def log_odds(logprobs: Sequence[tuple[str, float]], method: TokenProbability) -> float:
    """log P(good) - log P(bad) of the first token. Raises JudgeFailure where one of the two is not known.

    A token that is not among those that the server lists has an unknown probability, and not probability 0.
    """

    def log_sum(tokens: Sequence[str], name: str) -> float:
        found = [value for token, value in logprobs if token.strip() in tokens and math.isfinite(value)]
        if not found:
            raise _unreadable(
                f"none of the {name} tokens {', '.join(map(repr, tokens))} is among", [token for token, _ in logprobs]
            )
        largest = max(found)
        return largest + math.log(math.fsum(math.exp(value - largest) for value in found))

    return log_sum(method.good, "good") - log_sum(method.bad, "bad")


def number(answer: JudgeAnswer, method: ParsedNumber) -> float:
    """The last number that the pattern finds. Raises JudgeFailure if there is none, or one out of range."""
    text = _last_match(answer, method.pattern)
    try:
        value = float(text)
    except ValueError:
        raise _unreadable(
            f"{text[:40]!r} is not a number; it is the last match of the pattern in", answer.text
        ) from None
    if not method.min <= value <= method.max:
        raise _unreadable(f"{value:g} is not between {method.min:g} and {method.max:g}; it is the last in", answer.text)
    return value


def verdict(answer: JudgeAnswer, method: PairwiseVerdict) -> float:
    """1 for the first completion, 0 for the second, 0.5 for a tie. Raises JudgeFailure for anything else."""
    text = _last_match(answer, method.pattern)
    values = {method.first: 1.0, method.second: 0.0} | ({} if method.tie is None else {method.tie: 0.5})
    if text not in values:
        raise _unreadable(f"{text[:40]!r} is not a verdict ({', '.join(values)}); it is the last in", answer.text)
    return values[text]


def _last_match(answer: JudgeAnswer, pattern: str) -> str:
    if answer.was_cut:  # what it would have come to is not known: "Score: 1" may begin "Score: 10"
        raise _unreadable("the answer was cut at max_answer_tokens, or by the server's filter", answer.text)
    found: list[str] = re.findall(pattern, answer.text)
    if not found:
        raise _unreadable("the pattern does not match in the answer", answer.text)
    return found[-1]


def _unreadable(what: str, said: object) -> JudgeFailure:
    return JudgeFailure("judge_unreadable", f"{what}: {str(said)[-200:]}", is_server_error=False)


def _completion_text(completion: Completion) -> str:
    if isinstance(completion, TokenIds):
        raise Invalid("a judge takes texts, not token ids")
    if isinstance(completion, Turns):
        return transcript(json.loads(completion.messages))
    return completion


def transcript(messages: Sequence[ChatMessage]) -> str:
    """A conversation as text: the role, a colon and the content of each turn, with its tool calls as JSON."""
    return "\n\n".join(_turn(with_arguments(message)) for message in messages)


def _turn(message: ChatMessage) -> str:
    content = message.get("content") or ""
    text = content if isinstance(content, str) else "\n".join(part["text"] for part in content)
    lines = [text] if text else []
    lines += [json.dumps(call["function"], ensure_ascii=False) for call in message.get("tool_calls") or []]
    return f"{message['role']}: " + "\n".join(lines)
