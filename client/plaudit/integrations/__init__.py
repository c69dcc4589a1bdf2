"""Reward functions for trainers, on top of the client. None of the trainers is imported here.

Each module has what one trainer asks for, under that trainer's own name for it; `docs/trainers/` has lines to paste.
Trainers differ in what they take for a number, so the functions differ in what they do where there is no reward:

    module      makes                              where there is no reward
    trl         reward_function                    `None` for those rows: masked, their advantage is 0
    verl        compute_score, …_blocking, …_batch raises, which ends the step; with `fallback` that number goes out
                                                   beside `reward_ok` 0
    openrlhf    reward_func, agent_step            the same; OpenRLHF needs a number, so set `fallback` for long runs
    slime       custom_rm                          raises, which fails the rollout; with `fallback` the sample is also
                                                   taken out of the loss
    areal       reward_fn                          raises before the 15 s after which AReaL would say 0 by itself, so
                                                   that AReaL tries again
    skyrl       env_mixin                          raises out of `step`
    verifiers   task_reward, reward_func           raises; `reward_func`, for the `Rubric` of older versions, that makes
                                                   every exception 0: NaN and `state["error"]`

Two modules are for evaluations, and raise: `inspect_ai` makes a scorer of Inspect (`code_scorer`, the one function that
imports its package), and `code_eval` has the interface of the metric that evaluation harnesses load.

Promises of all of them:

- No number is made up.
- A wrong configuration is raised at once, with or without a `fallback`: an option that does not exist, a value out of
  its range, a row whose tests cannot be read.
- Without a URL a function asks `ray://plaudit`, the deployment in the Ray cluster of its process (docs/ray.md).
- All options of `plaudit.integrations.config.BatcherOptions` are taken: reward, spec, language, extract, limits, …
- By default the tests come first, and the reward model, where there is one, breaks ties: 1.0 and a little for a program
  that passes everything, less than 1.0 for every other one. `reward="tests"` is the pass rate and nothing else,
  `reward="model"` the model's raw score.
"""
