"""Fields of other servers' scoring requests: how texts are cut, what is applied to a score, and what cannot be done.

- A field that changes a score and is not supported is rejected by name, unless its value changes nothing.
- `truncate_prompt_tokens: k` is vLLM's: it keeps the last k tokens of a text. A query with its document is cut to k
  tokens at the document's end, and the query is never cut (Hugging Face's `only_second`). -1 is the model's own limit,
  and more than that is rejected.
- `truncation_side` (vLLM) and `truncation_direction` (text-embeddings-inference) name the end that is lost.
- `max_tokens_per_doc` and `max_tokens_per_query` keep the first tokens of each; 0 is no limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BeforeValidator, Field, model_validator

from plaudit.errors import Invalid
from service.api.compat.base import CompatCall, CompatRequest
from service.jobs import OnOverflow, Truncation

Value = TypeVar("Value")
NOTHING: tuple[Any, ...] = ()
# The values of each field that change nothing; None never does.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "chat_template": ("",),
    "chat_template_kwargs": ({},),
    "add_generation_prompt": (False,),
    "continue_final_message": (False,),
    "instruction": ("",),
    "tools": ([],),
    "normalize": (False,),
    "padding": (False, "do_not_pad"),
    "dimensions": NOTHING,
    "prompt_name": ("",),
    "label_token_ids": NOTHING,
    "apply_softmax": (False,),
    "item_first": (False,),
    "max_chunks_per_doc": (1,),
    "overlap_tokens": (0,),
    "overlap": (0,),
    "max_query_tokens": NOTHING,
    "max_pair_tokens": NOTHING,
    "max_length": NOTHING,
    "mm_processor_kwargs": ({},),
    "lora_path": NOTHING,
}


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


Side = Annotated[Literal["left", "right"], BeforeValidator(_lower)]
AtLeastZero = Annotated[int, Field(ge=0)]


class ScoringRequest(CompatRequest):
    """A request for scores. Fields in `unsupported` are errors; what else is unknown is ignored."""

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = UNSUPPORTED

    @model_validator(mode="before")
    @classmethod
    def _nothing_unsupported(cls, given: Any) -> Any:
        if isinstance(given, dict):
            for name in cls.unsupported.keys() & given.keys():
                value = given[name]
                if value is not None and not any(
                    value == ok and type(value) is type(ok) for ok in cls.unsupported[name]
                ):
                    raise ValueError(f"{name}: would change the scores and is not supported; leave it out")
        return given


class TruncatedRequest(ScoringRequest):
    """A request that may say how its texts are cut."""

    truncate_prompt_tokens: Annotated[int, Field(ge=-1, strict=True)] | None = None
    truncation_side: Side | None = None

    def _max_tokens(self, call: CompatCall, model: str) -> int | None:
        """How many tokens `truncate_prompt_tokens` leaves; None for the model's own limit. Raises Invalid."""
        k = self.truncate_prompt_tokens
        if k is None or k == -1:
            return None
        served = call.app_state.fleet.models.get(model)
        if k == 0:
            raise Invalid("truncate_prompt_tokens: 0 would leave nothing; takes -1 (the model's limit) or at least 1")
        if served is not None and k > served.max_length:
            raise Invalid(
                f"truncate_prompt_tokens: {k} is more than the {served.max_length} tokens that model {model!r} takes; "
                "send at most that, or -1"
            )
        return k

    def text_overflow(self, call: CompatCall, model: str) -> OnOverflow:
        """Of whole texts, conversations and token ids: what happens to those that are too long. Raises Invalid."""
        if self.truncate_prompt_tokens is None:
            return "error"
        return Truncation("text", self.truncation_side or "left", self._max_tokens(call, model))


class PairRequest(TruncatedRequest):
    """A request with queries and documents."""

    truncation_direction: Side | None = None
    max_tokens_per_doc: AtLeastZero | None = None
    max_tokens_per_query: AtLeastZero | None = None

    @property
    def document_side(self) -> Literal["left", "right"]:
        """The end that a document loses."""
        return self.truncation_side or self.truncation_direction or "right"

    def pair_overflow(self, call: CompatCall, model: str, *, cuts: bool) -> OnOverflow:
        """What happens to pairs that are too long. `cuts`: whether documents are cut unasked. Raises Invalid."""
        max_tokens = self._max_tokens(call, model)
        cuts = cuts or self.truncate_prompt_tokens is not None
        if not (cuts or self.max_tokens_per_doc or self.max_tokens_per_query):
            return "error"
        return Truncation(
            "completion" if cuts else "nothing",
            self.document_side,
            max_tokens,
            self.max_tokens_per_query or None,
            self.max_tokens_per_doc or None,
        )


def first_given(*values: Value | None, default: Value) -> Value:
    """The first of several names of a field that is given."""
    return next((value for value in values if value is not None), default)


def cut_mark(*, truncated: bool) -> dict[str, bool]:
    """What a result says if its text was cut: a field that the dialect's clients ignore if they do not know it."""
    return {"truncated": True} if truncated else {}
