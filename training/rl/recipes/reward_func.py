"""The reward of both launch files: `compute_score` for verl, `reward_func` for OpenRLHF; the service is at PLAUDIT_URL.

REWARD names one of the rewards of `training/rl/grpo.py`: by default `combined`, tests first, and the reward model
breaks ties; AceCoder's are `rule`, `pass_rate`, `bonus`, `plus_minus_one` and `rm`. On every node, `plaudit` is
installed and PLAUDIT_URL set, before Ray starts.
"""

import os

from plaudit.integrations import openrlhf, verl
from training.rl.grpo import REWARDS

URL = os.environ.get("PLAUDIT_URL", "http://127.0.0.1:8000")
SPEC = REWARDS[os.environ.get("REWARD", "combined")]
KEY = os.environ.get("API_KEY")

compute_score = verl.compute_score(URL, KEY, spec=SPEC)
reward_func = openrlhf.reward_func(URL, KEY, spec=SPEC)
