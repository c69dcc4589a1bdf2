"""Small random language models as checkpoint folders, as a hub has them, and the pairs to fit them on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.checkpoints import write_tokenizer
from support.decoders import causal
from training.data.programs import program_of
from training.pipeline.files import write_jsonl
from training.pipeline.records import Problem, as_row

LICENSE = "Apache-2.0"
BODIES = {"    return {k} * x\n": 1.0, "    return x\n": 0.25, "    raise ValueError(x)\n": 0.5}
RECIPE = """
name = "toy"
seed = 3
stages = ["fit"]
[fit]
base = "{base}"
max_length = 256
precision = "float32"
lr = 3e-3
epochs = {epochs}
batch = 8
micro_batch = 4
log_steps = 2
eval_steps = 4
save_steps = 4
"""


def write_base(folder: Path, family: str = "llama", *, pad: str = "<|pad|>", chat: bool = True) -> Path:
    """A language model of this family, and its tokenizer."""
    write_tokenizer(folder, pad=pad, chat=chat)
    causal(family, vocab_size=400, max_position_embeddings=256, initializer_range=0.1).save_pretrained(folder)
    return folder


def write_pairs(folder: Path) -> None:
    """The files of a run up to `pair`: 12 training problems and 4 for validation, two pairs each, by pass rates."""
    problems, programs, pairs = [], [], []
    for k in range(16):
        fold: Any = "validation" if k % 4 == 0 else "train"
        problem = Problem(
            task_id=f"T/{k}",
            base_id=f"T/{k}",
            prompt=f'def f{k}(x):\n    """Multiply by {k}."""\n',
            entry_point=f"f{k}",
            canonical=None,
            test_setup="",
            tests=("assert True",),
            source="own",
            license=LICENSE,
            fold=fold,
        )
        made = [
            program_of(
                problem,
                problem.prompt + body.format(k=k),
                "sample",
                "own",
                LICENSE,
                sample_id=f"codet/{k}#{at}",
                pass_rate=rate,
            )
            for at, (body, rate) in enumerate(BODIES.items())
        ]
        problems.append(as_row(problem))
        programs += [as_row(program) for program in made]
        pairs += [
            {
                "fold": fold,
                "task_id": problem.task_id,
                "chosen": made[0].program_id,
                "rejected": worse.program_id,
                "weight": 0.5,
            }
            for worse in made[1:]
        ]
    for name, rows in (("problems", problems), ("verified", programs), ("pairs", pairs)):
        write_jsonl(folder / f"{name}.jsonl", rows)


def write_run(folder: Path, base: Path, epochs: int = 2) -> tuple[Path, Path]:
    """A recipe of a fit from this base, and a run folder where it can run; (recipe, run)."""
    run = folder / "run"
    run.mkdir(parents=True)
    write_pairs(run)
    recipe = folder / "toy.toml"
    recipe.write_text(RECIPE.format(base=base, epochs=epochs))
    return recipe, run


def write_encoder(folder: Path) -> Path:
    """A small BERT without a head, as embedding models have it, and its word pieces."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import BertConfig, BertModel, BertTokenizerFast

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(
        [Path(__file__).read_text(encoding="utf-8")],
        trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False),
    )
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    BertTokenizerFast(tokenizer_object=tokenizer, model_max_length=256).save_pretrained(folder)
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(tokenizer.get_vocab()),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
    )
    BertModel(config).save_pretrained(folder)
    return folder
