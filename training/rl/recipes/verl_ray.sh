#!/bin/sh
# REINFORCE++ of a 7B coder with verl 0.9.1 on a Ray cluster of two nodes with eight GPUs each; the service judges.
#   PLAUDIT_URL=http://plaudit:8000 MODEL=Qwen/Qwen2.5-Coder-7B-Instruct TRAIN=train.parquet VAL=val.parquet sh verl_ray.sh
# Columns of the data: prompt (chat messages), data_source, reward_model.ground_truth (the tests), extra_info.prompt.
# LOGGER=[console,wandb] needs a key of its own. Prompts, samples, lengths, batch, learning rate and KL are AceCoder's
# (arXiv 2502.01718); the rest is chosen. ALGORITHM=ppo REWARD=rm is PPO with a critic against the served reranker, as in
# RewardRanker's loop (arXiv 2504.09643). Every key is checked against verl's own configuration by the tests; no GPU has
# run it.
set -eu
estimator=reinforce_plus_plus
if [ "${ALGORITHM:-reinforce}" = ppo ]; then
    estimator=gae
    set -- algorithm.lam=0.95 critic.model.path="${MODEL:?a model}" critic.optim.lr=1e-5 "$@"
fi
exec python -m verl.trainer.main_ppo \
    algorithm.adv_estimator="$estimator" \
    algorithm.use_kl_in_reward=True \
    algorithm.kl_ctrl.kl_coef=0.01 \
    data.train_files="${TRAIN:?a parquet file}" \
    data.val_files="${VAL:?a parquet file}" \
    data.filter_overlong_prompts=True \
    data.train_batch_size=256 \
    data.max_prompt_length=2048 \
    data.max_response_length=2048 \
    actor_rollout_ref.model.path="${MODEL:?a model}" \
    actor_rollout_ref.actor.optim.lr=5e-7 \
    actor_rollout_ref.actor.ppo_mini_batch_size=128 \
    actor_rollout_ref.actor.use_dynamic_bsz=True \
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=16384 \
    actor_rollout_ref.rollout.name=vllm \
    actor_rollout_ref.rollout.n=8 \
    actor_rollout_ref.rollout.temperature=1.0 \
    actor_rollout_ref.rollout.tensor_model_parallel_size=2 \
    actor_rollout_ref.rollout.gpu_memory_utilization=0.6 \
    reward.custom_reward_function.path="${REWARD_FILE:-training/rl/recipes/reward_func.py}" \
    reward.custom_reward_function.name=compute_score \
    trainer.nnodes=2 \
    trainer.n_gpus_per_node=8 \
    trainer.total_epochs=1 \
    trainer.save_freq=50 \
    trainer.test_freq=25 \
    trainer.logger="${LOGGER:-[console,tensorboard]}" \
    trainer.project_name=plaudit \
    trainer.experiment_name=reinforce_pp \
    "$@"
