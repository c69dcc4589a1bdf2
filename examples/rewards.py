"""The reward of a large run, in one file for verl, OpenRLHF and slime: tests first, and the reward model breaks ties.

verl         reward.custom_reward_function.path=examples/rewards.py reward.custom_reward_function.name=compute_score
OpenRLHF     --reward.remote_url examples/rewards.py
slime        --custom-rm-path rewards.custom_rm

`training/rl/recipes` has whole launch files; `REWARD_FILE=examples/rewards.py sh training/rl/recipes/verl_ray.sh` uses
this one. On every node: `pip install` of the client, and PLAUDIT_URL and API_KEY set before Ray starts.
"""

from __future__ import annotations

import os

from plaudit.integrations import openrlhf, slime, verl

URL = os.environ.get("PLAUDIT_URL", "http://127.0.0.1:8000")
KEY = os.environ.get("API_KEY")

compute_score = verl.compute_score(URL, KEY)
reward_func = openrlhf.reward_func(URL, KEY, fallback=0.0)
custom_rm = slime.custom_rm(URL, KEY)
