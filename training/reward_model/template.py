"""The text of this recipe's own checkpoints: special tokens, template, spec, and the forms that programs are shown in.

The spec is the contract between training and serving: ids are made by the service's own `Encoder` under it. Clients
send completions as bodies, as whole functions and in Markdown fences, so training shows some programs in these forms.
"""

from __future__ import annotations

from pathlib import Path

from service.scoring.reward_model import Encoder, RewardModelSpec
from training.pipeline.config import Recipe
from training.pipeline.records import ProgramRecord

ARCHITECTURE = "Qwen2ForSequenceClassification"
PAD, PROMPT, COMPLETION, END = "<|pad|>", "<|prompt|>", "<|completion|>", "<|end|>"
TEMPLATE = f"{PROMPT}{{prompt}}{COMPLETION}{{completion}}{END}"
# The same text for tools that only know chat templates; a test holds the two together.
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}"
    + COMPLETION
    + "{{ message['content'] }}"
    + END
    + "{% else %}{% if loop.first %}"
    + PROMPT
    + "{% else %}{{ '\\n\\n' }}{% endif %}{{ message['content'] }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}" + COMPLETION + "{% endif %}"
)
FORMS = ("program", "fenced")  # beside "body", the form that the data has


def spec(recipe: Recipe) -> RewardModelSpec:
    """The spec of this recipe's own checkpoint, not yet calibrated; `fit` adds calibration and golden set."""
    return RewardModelSpec(
        template=TEMPLATE,
        max_length=recipe.fit.max_length,
        architecture=ARCHITECTURE,
        golden="golden.jsonl",
        license="Apache-2.0",
        provenance="README.md",
    )


def load_encoder(recipe: Recipe, folder: Path) -> Encoder:
    """The encoder that training uses, which is the one that serving uses.

    Args:
        recipe: sets the length limit, `fit.max_length` tokens.
        folder: the tokenizer's files.
    """
    return Encoder.load(folder, spec(recipe))


def presented(program: ProgramRecord, prompt: str, entry_point: str, form: str) -> tuple[str, str]:
    """The same program as other clients would send it.

    Args:
        program: its completion continues `prompt`.
        prompt: imports, signature and docstring of the problem.
        entry_point: the function's name, whose stub in the prompt is moved into the completion.
        form: `body` (as it is), `program` (the whole function, without its docstring) or `fenced` (that in Markdown).

    Returns:
        prompt and completion.
    """
    if form == "body":
        return prompt, program.completion
    start = prompt.rfind(f"def {entry_point}")
    stub = prompt[start if start >= 0 else 0 :]
    header_end = next((at for at in (stub.find('"""'), stub.find("'''")) if at >= 0), len(stub))
    whole = prompt[: max(start, 0)] + stub[:header_end].rstrip() + "\n" + program.completion.strip("\n") + "\n"
    return prompt, f"```python\n{whole.strip()}\n```\n" if form == "fenced" else whole
