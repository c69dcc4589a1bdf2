"""The text of this recipe's own checkpoints: special tokens, template, spec, and the forms that programs are shown in.

The spec is the contract between training and serving: ids are made by the service's own `Encoder` under it. Clients
send completions as bodies, as whole functions and in Markdown fences, so training shows some programs in these forms.
"""

from __future__ import annotations

import random
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
FORMS = ("program", "fenced", "chat")  # beside "body", the form that the data has
NAMES = {"cpp": "C++", "java": "Java", "javascript": "JavaScript", "python": "Python"}
# What people and assistants write around code. They are drawn without a look at the program, so they say nothing of it.
REQUESTS = (
    "Complete this {language} function:\n\n```{fence}\n{prompt}\n```",
    "Write the following function in {language}.\n\n{prompt}",
    "Please finish the code below.\n\n```\n{prompt}\n```\n\nAnswer with the whole function.",
    "{prompt}",
)
OPENINGS = (
    "",
    "Here is the function:\n\n",
    "Sure! Here's one way to do it in {language}:\n\n",
    "The task can be solved like this.\n\n",
    "To solve this, we go through the input step by step:\n\n",
)
CLOSINGS = (
    "",
    "\nThis returns the expected result for the examples.\n",
    "\nExplanation: the function follows the description above.\n",
    "\nLet me know if you have any questions!\n",
)


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


def presented(
    program: ProgramRecord, prompt: str, entry_point: str, form: str, language: str = "python"
) -> tuple[str, str]:
    """The same program as other clients would send it.

    Args:
        program: its completion continues `prompt`.
        prompt: imports, signature and docstring of the problem.
        entry_point: the function's name, whose stub in the prompt is moved into the completion.
        form: `body` (as it is), `program` (the whole function, without its docstring), `fenced` (that in Markdown), or
            `chat` (that in an assistant's answer to a request in words).
        language: of the program; of another than Python the prompt is moved as a whole.

    Returns:
        prompt and completion.
    """
    if form == "body":
        return prompt, program.completion
    if language == "python":
        start = prompt.rfind(f"def {entry_point}")
        stub = prompt[start if start >= 0 else 0 :]
        header_end = next((at for at in (stub.find('"""'), stub.find("'''")) if at >= 0), len(stub))
        header = prompt[: max(start, 0)] + stub[:header_end].rstrip()
        whole = header + "\n" + program.completion.strip("\n") + "\n"
    else:
        whole = prompt.rstrip("\n") + "\n" + program.completion.strip("\n") + "\n"
    if form == "program":
        return prompt, whole
    fenced = f"```{language}\n{whole.strip()}\n```\n"
    if form == "fenced":
        return prompt, fenced
    words = {"language": NAMES.get(language, language), "fence": language}
    request = random.Random(program.task_id).choice(REQUESTS)  # one for all programs of a problem
    draw = random.Random(program.program_id)
    opening, closing = draw.choice(OPENINGS).format(**words), draw.choice(CLOSINGS)
    return request.format(prompt=prompt.rstrip(), **words), opening + fenced + closing
