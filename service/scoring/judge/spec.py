"""`reward_model.json` of kind "generative": which server judges, what it is asked, and how its answer becomes a score.

| `method.type` | score |
|---|---|
| `token_probability` | log P(good) - log P(bad) of the answer's first token; its sigmoid is the probability of good |
| `number` | the number that `pattern` finds last in the answer, between `min` and `max` |
| `pairwise` | the share of a group's other completions that it is better than, by `pattern`'s verdict; both orders are asked, and where they disagree the pair is a tie |
"""  # noqa: E501

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

import msgspec

from plaudit.errors import UsageError
from service.scoring.spec import SPEC_FILE

KIND = "generative"
PLACES = re.compile(r"\{(prompt|completion|first|second)\}")
CHARS_PER_TOKEN = 4  # an estimate: the server counts
OWN_FIELDS = frozenset({"model", "messages", "n", "stream", "logprobs", "top_logprobs", "max_tokens"})


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class TokenProbability(_Strict, frozen=True, tag_field="type", tag="token_probability"):
    """Attributes:
    good: tokens that stand for a good completion, without surrounding blanks; their probabilities are added.
    bad: the same for a bad one.
    """

    good: list[str]
    bad: list[str]


class ParsedNumber(_Strict, frozen=True, tag_field="type", tag="number"):
    """Attributes:
    pattern: a regular expression whose only group is the number; the last match counts.
    min: smallest number that is an answer.
    max: largest one.
    """

    pattern: str
    min: float
    max: float


class PairwiseVerdict(_Strict, frozen=True, tag_field="type", tag="pairwise"):
    """Attributes:
    pattern: a regular expression whose only group is the verdict; the last match counts.
    first: the verdict for the first completion.
    second: the verdict for the second one.
    tie: the verdict that none is better; None: there is none.
    max_completions: of a group, each of which is compared with every other one, twice.
    """

    pattern: str
    first: str
    second: str
    tie: str | None = None
    max_completions: int = 16


Method = TokenProbability | ParsedNumber | PairwiseVerdict


class Turn(_Strict, frozen=True):
    role: Literal["system", "user", "assistant"]
    content: str


class JudgeSpec(_Strict, frozen=True):
    """One judge.

    Attributes:
        url: of the OpenAI-compatible API, with its `/v1`.
        model: its name there.
        messages: what is asked. `{prompt}` and `{completion}` stand for the texts; for `pairwise` `{first}` and
            `{second}` stand for the two completions.
        method: how the answer becomes a score.
        api_key_env: the environment variable with the server's key; None: it asks for none. The key itself is never
            in the file.
        max_answer_tokens: longest answer.
        max_length: longest prompt with its completions, in tokens as they are estimated.
        concurrency: how many requests are open at once.
        timeout_s: how long one request may take, in seconds.
        request: further fields of each request, such as `{"seed": 0}`. `temperature` is 0 unless it is here; a server
            that wants `max_completion_tokens` in place of `max_tokens` gets it where that is here.
    """

    kind: Literal["generative"]
    url: str
    model: str
    messages: list[Turn]
    method: Method
    api_key_env: str | None = None
    max_answer_tokens: int = 512
    max_length: int = 32_768
    concurrency: int = 16
    timeout_s: float = 60.0
    request: dict[str, Any] = {}
    license: str | None = None
    provenance: str | None = None

    def __post_init__(self) -> None:
        if not re.match(r"https?://[^\s?#@]+$", self.url):
            raise ValueError("url: expected http:// or https://, without a key, a query or a fragment")
        if not self.model:
            raise ValueError("model: the name that the server knows it by is missing")
        wanted = {"first", "second"} if isinstance(self.method, PairwiseVerdict) else {"completion"}
        named = {place for turn in self.messages for place in PLACES.findall(turn.content)}
        if missing := sorted(wanted - named):
            raise ValueError(f"messages: {{{missing[0]}}} is missing, so the judge would not see it")
        if others := sorted(named - wanted - {"prompt"}):
            raise ValueError(f"messages: {{{others[0]}}} has no meaning for a method of type {_name(self.method)!r}")
        for name, least in (("max_answer_tokens", 1), ("max_length", 1), ("concurrency", 1), ("timeout_s", 0.1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, not {getattr(self, name)}")
        if self.api_key_env is not None and not re.match(r"[A-Za-z_][A-Za-z0-9_]*$", self.api_key_env):
            raise ValueError("api_key_env: expected the name of an environment variable, not the key itself")
        if taken := sorted(OWN_FIELDS & self.request.keys()):
            raise ValueError(f"request: {taken[0]!r} is decided by plaudit; leave it out")
        _check(self.method)

    @classmethod
    def read(cls, folder: Path) -> JudgeSpec:
        """The judge of this folder. Raises `UsageError`, which names the field, for a spec that is not one."""
        path = folder / SPEC_FILE
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except (OSError, msgspec.MsgspecError, ValueError) as error:
            raise UsageError(f"{path}: {error}") from error

    def asked(self, texts: dict[str, str]) -> list[dict[str, str]]:
        """The messages with the texts in their places. Places within the texts themselves stay as they are."""
        return [
            {"role": turn.role, "content": PLACES.sub(lambda place: texts[place[1]], turn.content)}
            for turn in self.messages
        ]


def is_judge(folder: Path) -> bool:
    """Whether the `reward_model.json` of a folder is of this kind. What else it is, its own reader says."""
    try:
        spec = json.loads((folder / SPEC_FILE).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(spec, dict) and spec.get("kind") == KIND


def _name(method: Method) -> str:
    return str(msgspec.to_builtins(method)["type"])


def _check(method: Method) -> None:
    """Raises ValueError for a method that cannot give a score."""
    if isinstance(method, TokenProbability):
        for name, tokens in (("good", method.good), ("bad", method.bad)):
            if not tokens or any(token != token.strip() or not token for token in tokens):
                raise ValueError(f"method.{name}: expected tokens without surrounding blanks, at least one")
        if both := set(method.good) & set(method.bad):
            raise ValueError(f"method.bad: {min(both)!r} is among the good ones, too")
        return
    try:
        groups = re.compile(method.pattern).groups
    except re.error as error:
        raise ValueError(f"method.pattern: not a regular expression: {error}") from error
    if groups != 1:
        raise ValueError(f"method.pattern: expected one group, around what is read, and there are {groups}")
    if isinstance(method, ParsedNumber):
        if not method.min < method.max:
            raise ValueError(f"method.min: expected less than max, and {method.min:g} is not less than {method.max:g}")
    elif len({method.first, method.second, method.tie}) < 3:
        raise ValueError("method: first, second and tie are three different verdicts")
    elif method.max_completions < 2:
        raise ValueError("method.max_completions: expected at least 2")
