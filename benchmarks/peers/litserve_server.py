"""LitServe with a classifier: one text a request, batches of what waits. Arguments: folder, port, batch size."""

from __future__ import annotations

import sys
from typing import Any

import litserve
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer


class Reward(litserve.LitAPI):  # type: ignore[misc] # LitServe is in an environment of its own
    def __init__(self, folder: str, size: int) -> None:
        super().__init__(max_batch_size=size, batch_timeout=0.002)
        self.folder = folder

    def setup(self, device: str) -> None:
        torch.set_num_threads(1)
        self.tokenizer = AutoTokenizer.from_pretrained(self.folder)
        self.model = AutoModelForSequenceClassification.from_pretrained(self.folder, dtype=torch.float32).eval()

    def decode_request(self, request: dict[str, str]) -> str:
        return request["text"]

    def predict(self, given: Any) -> Any:
        texts = given if isinstance(given, list) else [given]
        batch = self.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            logits = self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        scores = logits[:, 0].tolist()
        return scores if isinstance(given, list) else scores[0]

    def encode_response(self, score: float) -> dict[str, float]:
        return {"score": score}


if __name__ == "__main__":
    server = litserve.LitServer(
        Reward(sys.argv[1], int(sys.argv[3])), accelerator="cpu", workers_per_device=1, timeout=600
    )
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning")
