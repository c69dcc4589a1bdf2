"""Writes a tiny checkpoint of a kind into a folder, and answers how the class that wrote it scores.

A class of transformers scores wherever there is one. Others (remote code, other trainers) are written out here, after
their own code.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from support.checkpoints import TEMPLATE, write_tokenizer
from support.decoders import causal, classifier

HIDDEN, OBJECTIVES = 32, 5
PROMPT = "Add two numbers, and say how.\n"
COMPLETIONS = ["Take a.\n\nTake b.\n\nreturn a + b", "return a - b\n", "", "x"]
CLOSED = (  # a template that ends in the closing token itself
    "{{ '<s>' }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
SHAPE: dict[str, Any] = {"vocab_size": 400, "max_position_embeddings": 256}

Scores = Callable[[str, str], Any]  # of a prompt and a completion: a number, or one per step


def write_spec(folder: Path, **values: Any) -> None:
    """A `reward_model.json` as somebody would write it."""
    usual = {"template": TEMPLATE, "max_length": 256, "architecture": "tiny"}
    (folder / "reward_model.json").write_text(json.dumps(usual | values))


def change(folder: Path, file: str, **changes: Any) -> None:
    """Other values in a JSON file."""
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def weights(folder: Path, add: dict[str, torch.Tensor], *, without: str = "score") -> None:
    """Other tensors in a checkpoint of one file."""
    kept = {name: one for name, one in load_file(folder / "model.safetensors").items() if without not in name}
    save_file(kept | add, folder / "model.safetensors", metadata={"format": "pt"})


def drawn(*shape: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def chat_ids(folder: Path) -> Callable[[str, str], torch.Tensor]:
    """Token ids of a conversation, as transformers makes them: (1, T)."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)

    def ids(prompt: str, completion: str) -> torch.Tensor:
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
        return tokenizer.apply_chat_template(messages, return_tensors="pt")["input_ids"]

    return ids


def text_ids(folder: Path, template: str = TEMPLATE) -> Callable[[str, str], torch.Tensor]:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)

    def ids(prompt: str, completion: str) -> torch.Tensor:
        text = template.replace("{completion}", completion).replace("{prompt}", prompt)
        return torch.tensor([tokenizer.encode(text, add_special_tokens=False)])

    return ids


def states(folder: Path, ids: Callable[[str, str], torch.Tensor]) -> Callable[[str, str], torch.Tensor]:
    """The last hidden states of the backbone: (T, H)."""
    backbone = AutoModel.from_pretrained(folder).eval()
    return lambda prompt, completion: backbone(ids(prompt, completion)).last_hidden_state[0]


# --- classifiers of transformers -------------------------------------------------------------------------------------


def decoder(family: str, *, closed: bool = False, **config: Any) -> Callable[[Path], Scores]:
    """A sequence classifier of this family under a chat template."""

    def make(folder: Path) -> Scores:
        write_tokenizer(folder)
        if closed:
            (folder / "chat_template.jinja").write_text(CLOSED)
        classifier(family, **SHAPE | config).save_pretrained(folder)
        return own_logits(folder)

    return make


def own_logits(folder: Path, combine: Callable[[torch.Tensor], torch.Tensor] | None = None) -> Scores:
    own, ids = AutoModelForSequenceClassification.from_pretrained(folder).eval(), chat_ids(folder)

    def score(prompt: str, completion: str) -> float:
        logits = own(ids(prompt, completion)).logits[0]
        return (logits[0] if combine is None else combine(logits)).item()

    return score


def two_labels(folder: Path) -> Scores:
    decoder("qwen3", num_labels=2)(folder)
    return own_logits(folder, lambda logits: torch.logit(logits.double().softmax(0)[1]))


def two_labels_by_name(folder: Path) -> Scores:
    """The good label is the first one here."""
    decoder("llama", num_labels=2, id2label={0: "chosen", 1: "rejected"}, label2id={"chosen": 0, "rejected": 1})(folder)
    return own_logits(folder, lambda logits: logits[0] - logits[1])


def attributes(folder: Path) -> Scores:
    decoder("llama", num_labels=OBJECTIVES)(folder)
    write_spec(
        folder, template="chat_template", weights=[0.3, 0.0, -0.5, 1.0, 0.2], pooled="last_non_pad", pad="<|pad|>"
    )
    return own_logits(folder, lambda logits: logits @ torch.tensor([0.3, 0.0, -0.5, 1.0, 0.2]))


def own_head(folder: Path) -> Scores:
    """A decoder whose head is more than linear layers."""
    write_tokenizer(folder)
    torch.manual_seed(7)
    config = transformers.ModernBertDecoderConfig(
        **SHAPE,
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_labels=1,
        pad_token_id=2,
        bos_token_id=1,
        eos_token_id=2,
        cls_token_id=1,
        sep_token_id=2,
        initializer_range=0.3,
    )
    (folder / "chat_template.jinja").write_text(CLOSED)
    transformers.ModernBertDecoderForSequenceClassification(config).eval().save_pretrained(folder)
    return own_logits(folder)


def encoder(family: str, *, types: bool = False, **config: Any) -> Callable[[Path], Scores]:
    """A cross-encoder of this family: two texts, joined by its tokenizer."""

    def make(folder: Path) -> Scores:
        write_pair_tokenizer(folder, types=types)
        torch.manual_seed(7)
        shape = {
            "vocab_size": 400,
            "hidden_size": HIDDEN,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 300,
            "num_labels": 1,
            "pad_token_id": 0,
            "initializer_range": 0.3,
        }
        kind = getattr(transformers, f"{family}ForSequenceClassification")
        kind(getattr(transformers, f"{family}Config")(**shape | config)).eval().save_pretrained(folder)
        own = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)

        def score(prompt: str, completion: str) -> float:
            # A list of pairs, as sentence-transformers gives it: alone, transformers takes an empty text for no text.
            logits = own(**tokenizer([prompt], [completion], return_tensors="pt")).logits[0]
            return float(logits[0] if len(logits) == 1 else logits[1] - logits[0])

        return score

    return make


def write_pair_tokenizer(folder: Path, *, types: bool) -> None:
    """A byte-level tokenizer that joins two texts by special tokens, with token types or without."""
    from tokenizers import Tokenizer, processors

    write_tokenizer(folder, chat=False)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    one = ":1" if types else ""
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A <|end|>",
        pair=f"<s> $A <|end|> $B{one} <|end|>{one}",
        special_tokens=[("<s>", tokenizer.token_to_id("<s>")), ("<|end|>", tokenizer.token_to_id("<|end|>"))],
    )
    names = ["input_ids", "token_type_ids", "attention_mask"] if types else ["input_ids", "attention_mask"]
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="<|end|>",
        cls_token="<s>",
        sep_token="<|end|>",
        pad_token="<|pad|>",
        model_max_length=256,
        model_input_names=names,
    ).save_pretrained(folder)


# --- heads of other trainers -----------------------------------------------------------------------------------------


def value_head(name: str) -> Callable[[Path], Scores]:
    """TRL's and OpenRLHF's: a linear layer on the last token."""

    def make(folder: Path) -> Scores:
        decoder("qwen2")(folder)
        change(folder, "config.json", architectures=["Qwen2ForCausalRM"])
        weight, bias = drawn(1, HIDDEN), drawn(1, seed=4)
        weights(folder, {f"{name}.weight": weight, f"{name}.bias": bias})
        hidden = states(folder, chat_ids(folder))
        return lambda prompt, completion: (hidden(prompt, completion)[-1] @ weight[0] + bias[0]).item()

    return make


def value_head_file(folder: Path) -> Scores:
    decoder("llama")(folder)
    weight, bias = drawn(1, HIDDEN), drawn(1, seed=4)
    weights(folder, {})
    save_file({"v_head.summary.weight": weight, "v_head.summary.bias": bias}, folder / "value_head.safetensors")
    hidden = states(folder, chat_ids(folder))
    return lambda prompt, completion: (hidden(prompt, completion)[-1] @ weight[0] + bias[0]).item()


def normalised(folder: Path) -> Scores:
    """OpenRLHF: (reward - mean) / std in evaluation, if the config says `normalize_reward`."""
    decoder("llama")(folder)
    change(folder, "config.json", architectures=["LlamaForRewardModel"], normalize_reward=True)
    weight = drawn(1, HIDDEN)
    weights(folder, {"value_head.weight": weight, "mean": torch.tensor([0.7]), "std": torch.tensor([2.5])})
    hidden = states(folder, chat_ids(folder))
    return lambda prompt, completion: ((hidden(prompt, completion)[-1] @ weight[0] - 0.7) / 2.5).item()


def named_head(folder: Path) -> Scores:
    decoder("mistral")(folder)
    change(folder, "config.json", architectures=["MistralRewardModel"])
    weight = drawn(1, HIDDEN)
    weights(folder, {"regression_head.weight": weight})
    write_spec(folder, head="regression_head")
    hidden = states(folder, text_ids(folder))
    return lambda prompt, completion: (hidden(prompt, completion)[-1] @ weight[0]).item()


def two_layers(folder: Path) -> Scores:
    decoder("qwen2")(folder)
    change(folder, "config.json", architectures=["Qwen2ForRewardModel"])
    first, second = drawn(HIDDEN, HIDDEN) / 4, drawn(1, HIDDEN, seed=4)
    biases = drawn(HIDDEN, seed=5), drawn(1, seed=6)
    named = {"score.0.weight": first, "score.2.weight": second, "score.0.bias": biases[0], "score.2.bias": biases[1]}
    weights(folder, named)
    hidden = states(folder, chat_ids(folder))
    return lambda prompt, completion: (
        second @ torch.relu(first @ hidden(prompt, completion)[-1] + biases[0]) + biases[1]
    ).item()


def gated(folder: Path) -> Scores:
    """ArmoRM, after its `LlamaForRewardModelWithGating`."""
    decoder("llama", closed=True)(folder)
    change(folder, "config.json", architectures=["LlamaForRewardModelWithGating"], gating_temperature=4)
    network = {f"gating.layers.{at}.weight": drawn(HIDDEN, HIDDEN, seed=at) / 4 for at in range(3)}
    network |= {f"gating.layers.{at}.bias": drawn(HIDDEN, seed=10 + at) for at in range(3)}
    network |= {"gating.layers.3.weight": drawn(OBJECTIVES, HIDDEN, seed=8), "gating.layers.3.bias": drawn(OBJECTIVES)}
    regression, transform = drawn(OBJECTIVES, HIDDEN), drawn(OBJECTIVES, OBJECTIVES, seed=9)
    more = {"regression_layer.weight": regression, "reward_transform_matrix": transform}
    weights(folder, network | more | {"gating.logit_scale": torch.tensor([1.5])})
    ids, hidden = chat_ids(folder), states(folder, chat_ids(folder))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    pattern = tokenizer.encode("<|end|><|assistant|>\n", add_special_tokens=False)

    def score(prompt: str, completion: str) -> float:
        sequence = ids(prompt, completion)[0].tolist()
        found = [at for at in range(len(sequence)) if sequence[at : at + len(pattern)] == pattern][-1]
        tokens = hidden(prompt, completion)
        gate = tokens[found]
        for at in range(4):
            gate = network[f"gating.layers.{at}.weight"] @ gate + network[f"gating.layers.{at}.bias"]
            gate = torch.relu(gate) if at < 3 else gate
        gate = torch.softmax(gate / 4, dim=0) * 1.5
        return ((regression @ tokens[-1]) @ transform @ gate).item()

    return score


# --- logits of tokens ------------------------------------------------------------------------------------------------


def language_model(family: str, labels: list[str], **config: Any) -> Callable[[Path], Scores]:
    """The logit of one token behind the text, or the log-odds of two."""

    def make(folder: Path) -> Scores:
        write_tokenizer(folder)
        causal(family, **SHAPE | config).save_pretrained(folder)
        write_spec(folder, head="lm_head", labels=labels)
        own, ids = AutoModelForCausalLM.from_pretrained(folder).eval(), text_ids(folder)
        vocabulary = PreTrainedTokenizerFast.from_pretrained(folder).get_vocab()

        def score(prompt: str, completion: str) -> float:
            logits = own(ids(prompt, completion)).logits[0, -1]
            good = logits[vocabulary[labels[0]]]
            return (good if len(labels) == 1 else good - logits[vocabulary[labels[1]]]).item()

        return score

    return make


# --- steps -----------------------------------------------------------------------------------------------------------

STEP = "<|system|>"


def token_classifier(folder: Path) -> Scores:
    write_tokenizer(folder)
    token_model(folder)
    change_spec = {"token": STEP, "split": "\n\n"}
    template = "<|prompt|>{prompt}<|completion|>{completion}"
    write_spec(folder, template=template, pooled="steps", steps=change_spec)
    own, ids = transformers.AutoModelForTokenClassification.from_pretrained(folder).eval(), text_ids(folder, template)

    def score(prompt: str, completion: str) -> list[float]:
        marked = STEP.join([*completion.removesuffix("\n\n").split("\n\n"), ""])
        tokens = ids(prompt, marked)
        at = (tokens[0] == PreTrainedTokenizerFast.from_pretrained(folder).convert_tokens_to_ids(STEP)).nonzero()[:, 0]
        return own(tokens).logits[0, at].diff()[:, 0].tolist()

    return score


def token_model(folder: Path) -> None:
    torch.manual_seed(5)
    config = transformers.Qwen2Config(
        **SHAPE,
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
        initializer_range=0.3,
        num_labels=2,
    )
    transformers.Qwen2ForTokenClassification(config).eval().save_pretrained(folder)


def separated(folder: Path) -> Scores:
    """TRL's `PRMTrainer`: steps and separators are tokenised one by one, the separator's last token is the label's."""
    write_tokenizer(folder)
    token_model(folder)
    write_spec(folder, template="<s>{prompt}{completion}", pooled="steps", steps={"separator": "\n\n"})
    own = transformers.AutoModelForTokenClassification.from_pretrained(folder).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)

    def score(prompt: str, completion: str) -> list[float]:
        ids, at = tokenizer.encode(f"<s>{prompt}", add_special_tokens=False), []
        for step in completion.split("\n\n"):
            ids += tokenizer.encode(step, add_special_tokens=False) + tokenizer.encode("\n\n", add_special_tokens=False)
            at.append(len(ids) - 1)
        return own(torch.tensor([ids])).logits[0, at].diff()[:, 0].tolist()

    return score


def shepherd(folder: Path) -> Scores:
    write_tokenizer(folder)
    causal("llama", **SHAPE).save_pretrained(folder)
    template = "<|prompt|>{prompt}<|completion|>{completion}"
    steps = {"token": STEP, "split": "\n\n"}
    write_spec(folder, template=template, head="lm_head", labels=["+", "-"], pooled="steps", steps=steps)
    own, ids = AutoModelForCausalLM.from_pretrained(folder).eval(), text_ids(folder, template)
    vocabulary = PreTrainedTokenizerFast.from_pretrained(folder).get_vocab()

    def score(prompt: str, completion: str) -> list[float]:
        tokens = ids(prompt, STEP.join([*completion.removesuffix("\n\n").split("\n\n"), ""]))
        logits = own(tokens).logits[0, tokens[0] == vocabulary[STEP]]
        return (logits[:, vocabulary["+"]] - logits[:, vocabulary["-"]]).tolist()

    return score


# --- a base with an adapter ------------------------------------------------------------------------------------------


def adapter(task: str, **lora: Any) -> Callable[[Path], Scores]:
    """A LoRA adapter of a language model, with its head, in `adapter` beside `base`; answers how peft scores."""

    def make(folder: Path) -> Scores:
        import peft

        (folder / "base").mkdir()
        base, own = folder / "base", folder / "adapter"
        write_tokenizer(base)
        causal("llama", **SHAPE).save_pretrained(base)
        kind = AutoModelForSequenceClassification if task == "SEQ_CLS" else AutoModelForCausalLM
        torch.manual_seed(11)
        labels = {"num_labels": 1, "pad_token_id": 0} if task == "SEQ_CLS" else {}
        model = kind.from_pretrained(base, **labels)
        usual = {"r": 4, "lora_alpha": 16, "target_modules": "all-linear", "init_lora_weights": False}
        adapted = peft.get_peft_model(model, peft.LoraConfig(task_type=task, **usual | lora)).eval()
        adapted.save_pretrained(own)
        ids = chat_ids(base)
        if task == "SEQ_CLS":
            return lambda prompt, completion: adapted(input_ids=ids(prompt, completion)).logits[0, 0].item()
        weight, bias = drawn(1, HIDDEN), drawn(1, seed=4)
        save_file({"v_head.summary.weight": weight, "v_head.summary.bias": bias}, own / "value_head.safetensors")

        def score(prompt: str, completion: str) -> float:
            answer = adapted(input_ids=ids(prompt, completion), output_hidden_states=True)
            return (answer.hidden_states[-1][0, -1] @ weight[0] + bias[0]).item()

        return score

    return make
