"""A reward server as OpenRLHF's documentation describes `serve_rm`: `POST /get_reward` with `{"query": [...]}`.

Written from that description, not taken from it: one request at a time, inside the event loop; the request's texts in
batches of a fixed size, padded; the model's forward as it is. Arguments: checkpoint folder, port, batch size.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder, port, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
app = FastAPI()


@app.get("/health")
async def health() -> dict[str, str]:
    return {}


@app.post("/get_reward")
async def get_reward(body: dict[str, Any]) -> dict[str, list[float]]:
    rewards: list[float] = []
    for at in range(0, len(body["query"]), size):
        batch = tokenizer(body["query"][at : at + size], return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        rewards += logits[:, 0].tolist()
    return {"rewards": rewards}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")
