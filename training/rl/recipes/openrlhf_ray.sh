#!/bin/sh
# The same with OpenRLHF 0.11.2: actor, reference and vLLM share eight GPUs of one node; the service judges.
#   PLAUDIT_URL=http://plaudit:8000 MODEL=Qwen/Qwen2.5-Coder-7B-Instruct TRAIN=train.jsonl sh openrlhf_ray.sh
# The data's `prompt` column holds the question, `tests` the tests. Every flag is checked by the tests against OpenRLHF's
# own argument parser; no GPU has run it.
# REWARD=rm sets --reward.normalize_enable as AceCoder's run did. OpenRLHF normalises a reward model that it loads itself,
# and passes remote rewards through: of a service's scores the sigmoid bounds the scale (reward_func.py), and REINFORCE
# whitens the advantages of a batch.
# ALGORITHM=ppo REWARD=rm is PPO with a critic against the served reranker, as in RewardRanker's loop.
set -eu
estimator=reinforce
if [ "${ALGORITHM:-reinforce}" = ppo ]; then
    estimator=gae
    set -- --algo.advantage.lambd 0.95 --critic.model_name_or_path "${MODEL:?a model}" --critic.num_nodes 1 \
        --critic.num_gpus_per_node 8 "$@"
fi
[ "${REWARD:-combined}" = rm ] && set -- --reward.normalize_enable "$@"
exec python -m openrlhf.cli.train_ppo_ray \
    --actor.model_name_or_path "${MODEL:?a model}" \
    --reward.remote_url "${REWARD_FILE:-training/rl/recipes/reward_func.py}" \
    --data.prompt_dataset "${TRAIN:?a JSONL file}" \
    --data.input_key prompt \
    --data.label_key tests \
    --data.apply_chat_template \
    --data.max_len 4096 \
    --algo.advantage.estimator "$estimator" \
    --algo.kl.init_coef 0.01 \
    --actor.adam.lr 5e-7 \
    --actor.num_nodes 1 \
    --actor.num_gpus_per_node 8 \
    --ref.num_nodes 1 \
    --ref.num_gpus_per_node 8 \
    --vllm.num_engines 4 \
    --vllm.tensor_parallel_size 2 \
    --vllm.gpu_memory_utilization 0.6 \
    --vllm.enable_sleep \
    --train.colocate_all \
    --ds.enable_sleep \
    --ds.zero_stage 3 \
    --rollout.batch_size 256 \
    --rollout.n_samples_per_prompt 8 \
    --rollout.temperature 1.0 \
    --rollout.max_new_tokens 2048 \
    --train.batch_size 128 \
    --train.max_epochs 1 \
    --train.num_episodes 1 \
    --ckpt.output_dir "${OUTPUT:-runs/openrlhf}" \
    --ckpt.save_steps 50 \
    --actor.gradient_checkpointing_enable \
    "$@"
