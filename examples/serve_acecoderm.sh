#!/bin/sh
# Serves AceCodeRM-7B of the hub as the model `acecoderm`, beside the shipped one: POST /score {"model": "acecoderm", ...}.
#   sh examples/serve_acecoderm.sh
# The checkpoint has TRL's value head (docs/scoring.md); its first examples are scored by its own class before it serves.
# It takes 15 GB of a disk and, in bfloat16, as much of a GPU's memory; scores in bfloat16 move by some tenths. AceCodeRM was
# trained under the system message "You are a helpful assistant.", which is not the template's default: put it into the
# prompt, as the first of its messages. No GPU has run this file; the tests check its flags.
set -eu
exec plaudit up \
    --model default=models/plaudit-mini acecoderm="${ACECODERM:-TIGER-Lab/AceCodeRM-7B}" \
    --dtype bfloat16 --device auto --max-batch-tokens 8192 "$@"
