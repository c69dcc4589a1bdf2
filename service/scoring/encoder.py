"""Text to token ids under one template. Training and serving both use it, so they see the same text."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plaudit.errors import Invalid, TooLong, UsageError
from service.jobs import Completion, OnOverflow, TokenIds, Truncation, Turns
from service.scoring.conversation import ChatForm, ChatMessage
from service.scoring.packing import num_common
from service.scoring.spec import CHAT_TEMPLATE, SPEC_FILE, RewardModelSpec
from service.scoring.truncation import Frame, cut_completion, cut_text, first_tokens, frame_of

Overflow = OnOverflow
MARK = "COMPLETION"
ENCODERS = "classifier"  # the head of cross-encoders (`heads.py`, which imports torch)
log = logging.getLogger("plaudit.score")


Prompt = str | list[ChatMessage]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A prompt with its completion as token ids.

    Attributes:
        ids: of the whole text.
        prompt_tokens: how many leading ids depend on the prompt alone, so that all completions of a group share them.
        truncated: whether tokens of the text were cut.
        steps: positions at which a process reward model scores it; empty for others, which score its last token.
    """

    ids: tuple[int, ...]
    prompt_tokens: int
    truncated: bool
    steps: tuple[int, ...] = ()


class Encoder:
    """Text to token ids under one spec."""

    def __init__(self, tokenizer: Any, spec: RewardModelSpec) -> None:
        self.spec = spec
        self.tokenizer = tokenizer
        self._seams = _seams(tokenizer)
        longest = longest_token(tokenizer)
        self._max_bytes = None if longest is None else longest * spec.max_length  # a longer text has too many tokens
        self._last_head: tuple[str | None, tuple[int, list[int], bool]] = (None, (0, [], False))
        self._form = ChatForm(self._chat)
        self._step_id: int | None = None if spec.steps is None else token_id(tokenizer, spec.steps.token)
        if spec.template == CHAT_TEMPLATE:
            if not getattr(tokenizer, "chat_template", None):
                raise UsageError(f"{SPEC_FILE} names the chat template, and the tokenizer has none")
            self._before, self._between, self._after = "", "", ""
        else:
            self._before, rest = spec.template.split("{prompt}")
            self._between, self._after = rest.split("{completion}")

    @classmethod
    def load(cls, folder: Path, spec: RewardModelSpec | None = None) -> Encoder:
        """The encoder of a checkpoint folder, without its weights.

        Args:
            folder: of the checkpoint.
            spec: None: that of `reward_model.json`, or if there is none a spec derived from the other files. A derived
                spec is logged as that file would hold it, with an example text, to be checked.

        Raises:
            UsageError: the tokenizer or the spec cannot be read.
        """
        tokenizer = load_tokenizer(folder)
        if spec is not None or (folder / SPEC_FILE).is_file():
            return cls(tokenizer, spec or RewardModelSpec.read(folder / SPEC_FILE))
        from service.scoring.derive_spec import derive  # reads tensors, so it imports torch
        from service.scoring.heads import CLASSIFIER

        encoder = cls(tokenizer, derive(folder, tokenizer))

        example = encoder.encode("PROMPT", "COMPLETION")
        pooled = tokenizer.convert_ids_to_tokens([example.ids[at] for at in example.steps or (-1,)])
        log.warning(
            "%s has no %s; derived from its other files: %s; an example text is %r, of which %s is pooled",
            folder,
            SPEC_FILE,
            encoder.spec.as_json(),
            encoder.full_text("PROMPT", "COMPLETION"),
            "the token of its own classifier" if encoder.spec.head == CLASSIFIER else pooled,
        )
        return encoder

    def encode(self, prompt: Prompt, completion: Completion, on_overflow: Overflow = "error") -> Encoded:
        """`encode_group` for one completion; raises `TooLong`."""
        encoded = self.encode_group(prompt, [completion], on_overflow)[0]
        if isinstance(encoded, TooLong):
            raise encoded
        return encoded

    def encode_group(
        self, prompt: Prompt | None, completions: Sequence[Completion], on_overflow: Overflow = "error"
    ) -> list[Encoded | TooLong]:
        """Every completion of one prompt as token ids; for one that is too long its `TooLong`, as a value.

        The prompt is tokenised once if a special token separates it from what follows (see `_seams`). Otherwise every
        full text is tokenised on its own, because merges may cross the seam. Both give the same ids.

        Args:
            prompt: text or chat messages; None: the completions are whole texts, and the template adds nothing.
            completions: texts, messages that follow the prompt, or without a prompt token ids.
            on_overflow: "error", "truncate_left" to cut the prompt on the left, or a `Truncation`.

        Raises:
            Invalid: the text is empty, has no step, or the chat template rejects the conversation.
        """
        if prompt is None:
            return [self._whole(completion, on_overflow) for completion in completions]
        cut_prompt = False
        if isinstance(on_overflow, Truncation) and on_overflow.max_prompt_tokens and isinstance(prompt, str):
            whole, prompt = prompt, first_tokens(self.tokenizer, prompt, on_overflow.max_prompt_tokens)
            cut_prompt = prompt != whole
        head = self.head_text(prompt)
        if on_overflow == "error" and self._is_too_long(head):
            return [self._too_long(self.full_text(prompt, completion)) for completion in completions]
        seam, head_ids, proven = self._head(head)
        group: list[Encoded | TooLong] = []
        for completion in completions:
            text = self.full_text(prompt, completion)
            if on_overflow == "error" and self._is_too_long(text):
                group.append(self._too_long(text))
                continue
            if proven and text.startswith(head[:seam]):
                ids, prompt_tokens = head_ids + self._ids(text[seam:]), len(head_ids)
            else:
                ids = self._ids(text)
                prompt_tokens = num_common(tuple(head_ids), tuple(ids))
            frame = functools.partial(self._frame, prompt, ids)
            group.append(self._fit(ids, prompt_tokens, on_overflow, frame, truncated=cut_prompt))
        return group

    def _whole(self, completion: Completion, on_overflow: Overflow) -> Encoded | TooLong:
        if isinstance(completion, TokenIds):
            ids = self._known(completion.ids)
        else:
            assert isinstance(completion, str)
            text = self._opened(completion)
            if on_overflow == "error" and self._is_too_long(text):
                return self._too_long(text)
            ids = self._ids(text)
        # One text has no second part: to a cross-encoder, which tells two apart by token types, all of it is the first.
        return self._fit(ids, len(ids) if self.spec.head == ENCODERS else 0, on_overflow)

    def _known(self, ids: Sequence[int]) -> list[int]:
        """Ids that a client made. Raises Invalid for one that is not in the vocabulary."""
        if unknown := next((at for at in ids if not 0 <= at < self._num_ids), None):
            raise Invalid(f"token id {unknown} is not in the model's vocabulary, whose ids are below {self._num_ids}")
        return list(ids)

    @functools.cached_property
    def _num_ids(self) -> int:
        largest: int = max(self.tokenizer.get_vocab().values())
        return largest + 1

    @functools.cached_property
    def tokenizer_digest(self) -> str:
        """Of what token ids mean: SHA-256 of the vocabulary's sorted [token, id] pairs as compact ASCII JSON."""
        pairs = json.dumps(sorted(self.tokenizer.get_vocab().items()), separators=(",", ":"))
        return f"sha256:{hashlib.sha256(pairs.encode()).hexdigest()}"

    def _is_too_long(self, text: str) -> bool:
        """Whether a text has too many tokens, by its size alone. Most that have are found so; none that has not."""
        if self._max_bytes is None or len(text.encode()) <= self._max_bytes:
            return False
        return self._num_bytes(text) > self._max_bytes

    @staticmethod
    def _num_bytes(text: str) -> int:
        return len(unicodedata.normalize("NFC", text).encode())

    def _too_long(self, text: str) -> TooLong:
        assert self._max_bytes is not None
        fewest = -(-self._num_bytes(text) * self.spec.max_length // self._max_bytes)
        return TooLong(tokens=fewest, limit=self.spec.max_length, at_least=True)

    def _head(self, head: str) -> tuple[int, list[int], bool]:
        """Where the common part of the completions ends, its ids, and whether a special token makes that an exact seam.

        The last result is cached: single completions of one prompt come one after the other.
        """
        known, answer = self._last_head
        if known == head:
            return answer
        at = {token: head.rfind(token) + len(token) for token in self._seams if token in head}
        seam_token = max(at, key=lambda token: at[token], default=None)
        seam = at[seam_token] if seam_token is not None else len(head)
        head_ids = self._ids(head[:seam])
        # An added token that begins earlier may contain the start of the seam token; then the cut is not exact.
        proven = seam_token is not None and head_ids[-1:] == [self.tokenizer.convert_tokens_to_ids(seam_token)]
        answer = seam, head_ids, proven
        self._last_head = head, answer  # in one assignment: two threads encode
        return answer

    def full_text(self, prompt: Prompt, completion: Completion) -> str:
        """The whole text that is tokenised, with the closing and the marks of steps."""
        if isinstance(completion, TokenIds):
            raise Invalid("token ids are whole sequences; they have no prompt")
        if isinstance(completion, Turns):
            turns: list[ChatMessage] = json.loads(completion.messages)
        else:
            turns = [{"role": "assistant", "content": completion}]
        if self.spec.steps is not None and isinstance(turns[-1].get("content"), str):
            turns[-1]["content"] = self.spec.steps.marked(turns[-1]["content"])
        if self.spec.template == CHAT_TEMPLATE:
            return self._chat(self._form.messages([*self._messages(prompt), *turns]))
        return f"{self.head_text(prompt)}{_joined(turns)}{self._after}"

    def head_text(self, prompt: Prompt) -> str:
        """The text before the completion. A text template joins the messages of a conversation by blank lines."""
        if self.spec.template == CHAT_TEMPLATE:
            return self._chat(self._form.messages(self._messages(prompt)), opens_answer=True)
        return f"{self._before}{prompt if isinstance(prompt, str) else _joined(prompt)}{self._between}"

    def _frame(self, prompt: Prompt, ids: Sequence[int]) -> Frame:
        """How many of the ids of a text stand before its completion, and how many behind it."""
        if self.spec.template == CHAT_TEMPLATE:
            before, _, behind = self.full_text(prompt, MARK).rpartition(MARK)
        else:
            before, behind = self.head_text(prompt), self._after
        return frame_of(ids, self._ids(before), self._ids(behind))

    def _messages(self, prompt: Prompt) -> list[ChatMessage]:
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        if self.spec.system is not None and not (messages and messages[0]["role"] in ("system", "developer")):
            messages.insert(0, {"role": "system", "content": self.spec.system})
        return messages

    def _chat(self, messages: Sequence[ChatMessage], *, opens_answer: bool = False) -> str:
        from jinja2 import TemplateError

        try:
            return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=opens_answer))
        except (TemplateError, TypeError) as error:  # a filter that is given another type than it takes
            raise Invalid(f"the model's chat template rejects this conversation: {error}") from error

    def _opened(self, text: str) -> str:
        """A whole text with the BOS that clients remove for inference servers, if the template begins with it."""
        bos = getattr(self.tokenizer, "bos_token", None)
        if not (bos and text) or text.startswith(bos) or not self.head_text("x").startswith(bos):
            return text
        return f"{bos}{text}"

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False, verbose=False))

    def _fit(
        self,
        ids: list[int],
        prompt_tokens: int,
        on_overflow: Overflow,
        frame: Callable[[], Frame] = lambda: (0, 0),
        *,
        truncated: bool = False,
    ) -> Encoded | TooLong:
        """Ids within the limit, cut if that is asked for. `frame`: which of the ids are not the completion's."""
        limit = self.spec.max_length
        if not ids:
            raise Invalid("nothing to score: prompt and completion are empty, and the template adds no token")
        if isinstance(on_overflow, Truncation):
            return self._cut(ids, prompt_tokens, on_overflow, frame, truncated=truncated)
        if len(ids) <= limit:
            return Encoded(tuple(ids), prompt_tokens, False, self._steps(ids, prompt_tokens))
        if on_overflow == "error":
            return TooLong(tokens=len(ids), limit=limit)
        # The leading BOS or CLS (where there is one) and everything from the right stay: the prompt loses its left
        # first, and the closing token, which is the one that is pooled, is always there.
        opening = {getattr(self.tokenizer, name, None) for name in ("bos_token_id", "cls_token_id")}
        kept = 1 if limit > 1 and ids[0] in opening else 0
        cut = len(ids) - limit
        left, prompt_tokens = [*ids[:kept], *ids[kept + cut :]], max(kept, prompt_tokens - cut)
        return Encoded(tuple(left), prompt_tokens, True, self._steps(left, prompt_tokens))

    def _cut(
        self, ids: list[int], prompt_tokens: int, truncation: Truncation, frame: Callable[[], Frame], *, truncated: bool
    ) -> Encoded | TooLong:
        limit, removed = min(self.spec.max_length, truncation.max_tokens or self.spec.max_length), 0
        if truncation.cut == "text":
            left, removed = cut_text(ids, truncation, limit)
        else:
            try:
                left = cut_completion(ids, truncation, limit, frame)
            except TooLong as error:
                return error
        prompt_tokens = max(0, min(prompt_tokens - removed, len(left)))
        return Encoded(tuple(left), prompt_tokens, truncated or len(left) < len(ids), self._steps(left, prompt_tokens))

    def _steps(self, ids: list[int], prompt_tokens: int) -> tuple[int, ...]:
        if self._step_id is None:
            return ()
        steps = tuple(position for position in range(prompt_tokens, len(ids)) if ids[position] == self._step_id)
        if not steps:
            raise Invalid(f"no step to score: the text has no token {self.spec.steps and self.spec.steps.token!r}")
        return steps


def _joined(messages: Sequence[ChatMessage]) -> str:
    """The texts of messages, joined by blank lines, for a template that has no turns. Raises Invalid for tool calls."""
    texts = []
    for message in messages:
        if message.get("tool_calls"):
            raise Invalid(
                "the model's template is plain text, which has no tool calls; a conversation with them has no score"
            )
        content = message.get("content") or ""
        texts.append(content if isinstance(content, str) else "\n".join(part["text"] for part in content))
    return "\n\n".join(texts)


def token_id(tokenizer: Any, token: str) -> int:
    """The id of a vocabulary entry. Raises `UsageError` if there is no such entry."""
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    if token not in vocabulary:
        raise UsageError(f"{token!r} is not a token of this tokenizer")
    return vocabulary[token]


def longest_token(tokenizer: Any) -> int | None:
    """How many bytes of a text one token can stand for at most; None if that is not known for this tokenizer.

    It is known if every byte of the text, or of its NFC form, ends up in a token: byte-level tokens, and nothing before
    them that removes characters.
    """
    from tokenizers.pre_tokenizers import ByteLevel

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    pipeline = json.loads(backend.to_str())
    steps = pipeline["pre_tokenizer"] or {}
    kinds = [step["type"] for step in steps.get("pretokenizers") or [steps] if step]
    added = pipeline["added_tokens"]
    normalizer, model = pipeline["normalizer"], pipeline["model"]
    if normalizer is not None and normalizer["type"] != "NFC":
        return None
    if "ByteLevel" not in kinds or not set(kinds) <= {"ByteLevel", "Split", "Digits"}:
        return None
    if any(step.get("behavior") == "Removed" for step in steps.get("pretokenizers") or [steps]):
        return None
    if any(token["lstrip"] or token["rstrip"] for token in added):
        return None
    if model["type"] != "BPE" or not set(ByteLevel.alphabet()) <= model["vocab"].keys():
        return None
    # A character of the vocabulary stands for one byte.
    return max(*map(len, model["vocab"]), *(len(token["content"].encode()) for token in added))


def _seams(tokenizer: Any) -> tuple[str, ...]:
    """Special tokens at which a text may be cut so that ids(left) + ids(right) == ids(left + right), for any right.

    True for a token that the tokenizer splits off the raw text first (not normalised, without neighbouring blanks, not
    part of another added token), if every later step treats the pieces on their own: no step may add a prefix to the
    first piece of a text. Tokens for which that is not known are not used.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return ()
    pipeline = json.loads(backend.to_str())
    if not (_piecewise(pipeline["normalizer"]) and _piecewise(pipeline["pre_tokenizer"])):
        return ()
    added = pipeline["added_tokens"]
    plain = [
        token["content"]
        for token in added
        if token["special"] and not (token["normalized"] or token["lstrip"] or token["rstrip"] or token["single_word"])
    ]
    return tuple(token for token in plain if sum(token in other["content"] for other in added) == 1)


def _piecewise(step: dict[str, Any] | None) -> bool:
    if step is None:
        return True
    if step["type"] == "Sequence":
        return all(_piecewise(part) for part in step.get("normalizers") or step.get("pretokenizers") or [])
    if step["type"] == "ByteLevel":
        return not step.get("add_prefix_space")
    return step["type"] in {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Split", "Digits", "Punctuation"}


def load_tokenizer(folder: Path, **settings: Any) -> Any:
    """The tokenizer in this folder, by its `tokenizer.json` if it has one. Training and serving both load it here.

    For some model types (Qwen2 is one) transformers 5 takes only the vocabulary from that file, puts the family's own
    normaliser and pre-tokenizer around it, and adds the family's special tokens. A checkpoint whose tokenizer was made
    otherwise then silently gets other ids than it was trained on, or ids beyond its embeddings. If the two differ, the
    file is used.

    Args:
        folder: of the checkpoint.
        settings: passed to transformers.

    Raises:
        UsageError: the tokenizer cannot be read, or its vocabulary is empty.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    settings |= {"trust_remote_code": False, "local_files_only": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **settings)
    except (OSError, ValueError, StrictDataclassError) as error:
        raise UsageError(f"{folder}: no loadable tokenizer: {error}") from error
    if not set(tokenizer.get_vocab()) - set(tokenizer.get_added_vocab()):
        raise UsageError(f"{folder}: no loadable tokenizer: its vocabulary is empty")
    path = folder / "tokenizer.json"
    backend = getattr(tokenizer, "backend_tokenizer", None)  # a tokenizer in Python has none
    if backend is None or not path.is_file() or _shape(backend) == _shape(_without_vocabulary(path)):
        return tokenizer
    log.info("%s: the pipeline of tokenizer.json, not that of %s", folder.name, type(tokenizer).__name__)
    return PreTrainedTokenizerFast.from_pretrained(folder, **settings)


def _shape(backend: Any) -> tuple[Any, ...]:
    """What decides ids beside the vocabulary: the steps before it, and the tokens that are split off before them."""
    steps = (backend.normalizer, backend.pre_tokenizer)
    added = {token.content for token in backend.get_added_tokens_decoder().values()}
    return (*(b"" if step is None else step.__getstate__() for step in steps), added)


def _without_vocabulary(path: Path) -> Any:
    """A `tokenizer.json` with a minimal vocabulary: building the whole one takes long."""
    from tokenizers import Tokenizer

    whole: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    rest = dict.fromkeys(("truncation", "padding", "post_processor", "decoder"))
    added = [token | {"id": index} for index, token in enumerate(whole.get("added_tokens") or [])]
    minimal = {"type": "WordLevel", "vocab": {token["content"]: token["id"] for token in added}, "unk_token": ""}
    kept = {name: whole.get(name) for name in ("version", "normalizer", "pre_tokenizer")}
    return Tokenizer.from_str(json.dumps(kept | rest | {"added_tokens": added, "model": minimal}))
