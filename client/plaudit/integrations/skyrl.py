"""An environment for SkyRL-gym: one turn of a model, then its reward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from plaudit.integrations.batcher import LONG_TIMEOUT_S, batcher_for
from plaudit.integrations.config import BatcherOptions
from plaudit.integrations.rows import TrainerRow, prompt_messages
from plaudit.ray_address import RAY_URL


def env_mixin(url: str = RAY_URL, api_key: str | None = None, **options: Unpack[BatcherOptions]) -> type[Any]:
    """A class to inherit from beside `BaseTextEnv`; the tests are in `extras["reward_spec"]["ground_truth"]`.

    Args:
        url: Where the service listens; by default `ray://plaudit`, in the Ray cluster of this process.
        api_key: Key of the service, where it asks for one.
        **options: `BatcherOptions`: reward, spec, language, … `timeout_s` is 600 by default.

    Returns:
        The class. Its `step` raises where there is no reward.

    Raises:
        TypeError: An option that does not exist.
        Misconfigured: A wrong value; or, in `step`, a row without tests that can be read.

    Example:
        >>> from plaudit.integrations import skyrl
        >>> class CodeEnv(skyrl.env_mixin("http://127.0.0.1:8000"), BaseTextEnv): ...
    """
    options.setdefault("timeout_s", LONG_TIMEOUT_S)
    batcher = batcher_for("skyrl.env_mixin", url, api_key, options)

    class SingleTurnEnv:
        """One turn of a model, rewarded."""

        def __init__(self, env_config: Any = None, extras: Mapping[str, Any] | None = None) -> None:
            super().__init__()
            self.label = ((extras or {}).get("reward_spec") or {}).get("ground_truth")
            self.prompt: Any = (extras or {}).get("prompt") or ""
            self.metrics: dict[str, Any] = {}

        def init(self, prompt: Any) -> tuple[Any, dict[str, Any]]:
            self.prompt = prompt
            return prompt, {}

        def step(self, action: str) -> dict[str, Any]:
            row = TrainerRow(prompt_messages(self.prompt), action, self.label, "reward_spec.ground_truth")
            reward = batcher.reward(row)
            self.metrics = reward.metrics()
            return {"observations": [], "reward": reward.value(), "done": True, "metadata": dict(self.metrics)}

        def get_metrics(self) -> dict[str, Any]:
            return dict(self.metrics)

    return SingleTurnEnv
