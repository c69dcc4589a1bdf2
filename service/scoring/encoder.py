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
from service.scoring import chat_template
from service.scoring.conversation import ChatForm, ChatMessage
from service.scoring.packing import num_common
from service.scoring.spec import CHAT_TEMPLATE, SPEC_FILE, RewardModelSpec
from service.scoring.surface import SurfaceHead
from service.scoring.tokenizer import load_tokenizer, longest_token, seams, token_id
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
        steps: positions that are read: those at which a process reward model scores it, or for a gated head the one of
            the network and the last; empty for others, which read the last token.
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
        self._seams = seams(tokenizer)
        longest = longest_token(tokenizer)
        self._max_bytes = None if longest is None else longest * spec.max_length  # a longer text has too many tokens
        self._last_head: tuple[str | None, tuple[int, list[int], bool]] = (None, (0, [], False))
        steps = spec.steps
        self._step_id = token_id(tokenizer, steps.token) if steps is not None and steps.token is not None else None
        self._separator_ids = self._text_ids("steps.separator", None if steps is None else steps.separator)
        self._gating_ids = self._text_ids("gating.at", None if spec.gating is None else spec.gating.at)
        self._pad_id = None if spec.pad is None else token_id(tokenizer, spec.pad)
        self._form = ChatForm(self._chat)
        self._chat_template: str | None = None  # where it is not the tokenizer's as it is
        if spec.template == CHAT_TEMPLATE:
            self._chat_template = chat_template.pinned(tokenizer, spec)
            self._before, self._between, self._after = "", "", ""
        else:
            self._before, rest = spec.template.split("{prompt}")
            self._between, self._after = rest.split("{completion}")
        self._surface = None if spec.surface is None else SurfaceHead(tokenizer, spec.template, spec.surface)

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
            "the token of its own class" if encoder.spec.head == CLASSIFIER else pooled,
        )
        return encoder

    def surface_score(self, encoded: Encoded) -> float:
        """What the text's surface adds to the score of the model's own head; 0 if the spec has no `surface`."""
        return 0.0 if self._surface is None else self._surface(encoded.ids)

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

        The prompt is tokenised once if a special token separates it from what follows (see `seams`). Otherwise every
        full text is tokenised on its own, because merges may cross the seam. Both give the same ids.

        Args:
            prompt: text or chat messages; None: the completions are whole texts, and the template adds nothing.
            completions: texts, messages that follow the prompt, or without a prompt token ids.
            on_overflow: "error", "truncate_left" to cut the prompt on the left, or a `Truncation`.

        Raises:
            Invalid: the text is empty, has no step, or the chat template rejects the conversation.
        """
        if prompt is None:
            if self._separator_ids:
                raise Invalid("a whole text does not say where its steps begin; send prompt and completion")
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
            if self._separator_ids:
                group.append(self._in_steps(text, completion, on_overflow))
                continue
            if proven and text.startswith(head[:seam]):
                ids, prompt_tokens = head_ids + self._ids(text[seam:]), len(head_ids)
            else:
                ids = self._ids(text)
                prompt_tokens = num_common(tuple(head_ids), tuple(ids))
            frame = functools.partial(self._frame, prompt, ids)
            group.append(self._fit(ids, prompt_tokens, on_overflow, frame=frame, truncated=cut_prompt))
        return group

    def _in_steps(self, text: str, completion: Completion, on_overflow: Overflow) -> Encoded | TooLong:
        """A text whose steps and separators are tokenised one by one; the last token of each separator is read."""
        assert self.spec.steps is not None
        if not isinstance(completion, str):
            raise Invalid("the steps of this model are looked for in a completion that is a text, not in messages")
        marked = self.spec.steps.marked(completion)
        at = text.rfind(marked)
        if at < 0:
            raise Invalid("the model's chat template changes the completion, so its steps cannot be found in the text")
        ids, places = self._ids(text[:at]), []
        prompt_tokens = len(ids)
        for part in self.spec.steps.parts(completion):
            ids += self._ids(part) + self._separator_ids
            places.append(len(ids) - 1)
        return self._fit(ids + self._ids(text[at + len(marked) :]), prompt_tokens, on_overflow, places)

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
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    messages,
                    chat_template=self._chat_template,
                    tokenize=False,
                    add_generation_prompt=opens_answer,
                )
            )
        except chat_template.template_errors() as error:
            said = f"{error}" if type(error).__module__.startswith("jinja2") else f"{type(error).__name__}: {error}"
            raise Invalid(f"the model's chat template rejects this conversation: {said}") from error

    def _opened(self, text: str) -> str:
        """A whole text with the BOS that clients remove for inference servers, if the template begins with it.

        A cross-encoder's is closed by special tokens, too, as its tokenizer encodes one text.
        """
        if self.spec.head == ENCODERS and text and self._is_special(self._before) and self._is_special(self._after):
            return text if self._before and text.startswith(self._before) else f"{self._before}{text}{self._after}"
        bos = getattr(self.tokenizer, "bos_token", None)
        if not (bos and text) or text.startswith(bos) or not self.head_text("x").startswith(bos):
            return text
        return f"{bos}{text}"

    def _is_special(self, text: str) -> bool:
        return set(self._ids(text)) <= set(self.tokenizer.all_special_ids)

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False, verbose=False))

    def _text_ids(self, field: str, text: str | None) -> list[int]:
        """The ids of a text that the spec names; empty if it names none."""
        ids = [] if text is None else self._ids(text)
        if text is not None and not ids:
            raise UsageError(f"{SPEC_FILE}: {field} {text!r} has no tokens")
        return ids

    def _fit(
        self,
        ids: list[int],
        prompt_tokens: int,
        on_overflow: Overflow,
        places: Sequence[int] | None = None,
        *,
        frame: Callable[[], Frame] = lambda: (0, 0),
        truncated: bool = False,
    ) -> Encoded | TooLong:
        """Ids within the limit, cut if that is asked for.

        Args:
            ids: of the whole text.
            prompt_tokens: as in `Encoded`.
            on_overflow: what happens to a text that is too long.
            places: of steps, where they are known already; such a text is cut on its left alone.
            frame: tells how many of the ids stand before the completion, and how many behind it.
            truncated: whether the text was cut before.
        """
        limit = self.spec.max_length
        if not ids:
            raise Invalid("nothing to score: prompt and completion are empty, and the template adds no token")
        if isinstance(on_overflow, Truncation):
            if places is None:
                return self._cut(ids, prompt_tokens, on_overflow, frame, truncated=truncated)
            limit = min(limit, on_overflow.max_tokens or limit)
            return self._encoded(ids, prompt_tokens, False, places) if len(ids) <= limit else TooLong(len(ids), limit)
        if len(ids) <= limit:
            return self._encoded(ids, prompt_tokens, False, places)
        if on_overflow == "error":
            return TooLong(tokens=len(ids), limit=limit)
        # The leading BOS or CLS (where there is one) and everything from the right stay: the prompt loses its left
        # first, and the closing token, which is the one that is pooled, is always there.
        opening = {getattr(self.tokenizer, name, None) for name in ("bos_token_id", "cls_token_id")}
        kept = 1 if limit > 1 and ids[0] in opening else 0
        cut = len(ids) - limit
        left, prompt_tokens = [*ids[:kept], *ids[kept + cut :]], max(kept, prompt_tokens - cut)
        return self._encoded(left, prompt_tokens, True, None if places is None else [place - cut for place in places])

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
        return self._encoded(left, prompt_tokens, truncated or len(left) < len(ids))

    def _encoded(
        self, ids: list[int], prompt_tokens: int, truncated: bool, places: Sequence[int] | None = None
    ) -> Encoded:
        """Ids that fit, without the padding at their end, and the positions that are read (`places`: of steps)."""
        ids = self._without_padding(ids)
        prompt_tokens = min(prompt_tokens, len(ids))
        return Encoded(tuple(ids), prompt_tokens, truncated, self._places(ids, prompt_tokens, places))

    def _without_padding(self, ids: list[int]) -> list[int]:
        """Without the padding tokens at the end: no decoder's state depends on what follows it."""
        end = len(ids)
        while end > 1 and ids[end - 1] == self._pad_id:
            end -= 1
        return ids[:end]

    def _places(self, ids: list[int], prompt_tokens: int, places: Sequence[int] | None) -> tuple[int, ...]:
        """The positions that are read; empty: the last alone."""
        if self.spec.gating is not None:
            size = len(self._gating_ids)
            starts = range(len(ids) - size, -1, -1)
            found = next((at for at in starts if ids[at : at + size] == self._gating_ids), None)
            if found is None:
                raise Invalid(f"the text has no {self.spec.gating.at!r}, at which the model weighs its outputs")
            return (found, len(ids) - 1)
        if self.spec.steps is None:
            return ()
        if places is None:
            places = [position for position in range(len(ids)) if ids[position] == self._step_id]
        places = [place for place in places if place >= prompt_tokens]
        if not places:
            raise Invalid(f"no step to score: the text has no {self.spec.steps.behind!r} behind its prompt")
        return tuple(places)

    def own_inputs(self, prompt: str, completion: str) -> dict[str, list[int]]:
        """What the checkpoint's own class is given for a text: all its ids, and where its tokenizer joins two texts to
        just these ids, what else that adds."""
        encoded = self.encode(prompt, completion)
        ids = list(encoded.ids) if self._separator_ids else self._ids(self.full_text(prompt, completion))
        if not self.gives_token_types:
            return {"input_ids": ids}
        pair = {name: values[0] for name, values in self.tokenizer([prompt], [completion]).items()}
        return (
            pair if pair["input_ids"] == ids else {"input_ids": ids, "token_type_ids": self.token_types(encoded) or []}
        )

    @functools.cached_property
    def gives_token_types(self) -> bool:
        """Whether the tokenizer tells two texts apart by token types: 0 for the first, 1 for the second."""
        return self.spec.head == "classifier" and 1 in self.tokenizer("a", "b").get("token_type_ids", ())

    def token_types(self, encoded: Encoded) -> list[int] | None:
        """The type of every token as its tokenizer gives it for two texts; None: it gives none."""
        if not self.gives_token_types:
            return None
        return [int(position >= encoded.prompt_tokens) for position in range(len(encoded.ids))]


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
