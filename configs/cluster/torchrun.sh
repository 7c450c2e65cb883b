#!/usr/bin/env bash
# A recipe on one node with torchrun.
#
#   configs/cluster/torchrun.sh configs/qwen2.5-math-7b runs/7b --set.model=DIR --set.data=DIR
#
# Ends with 75 where SIGTERM stopped it; the same command goes on from there. On several nodes torchrun has to be started on
# each of them, stage by stage: configs/cluster/kubernetes.yaml shows how.
set -uo pipefail

recipe=${1:?recipe folder}
run_dir=${2:?run directory}
shift 2
# torchrun would kill after half a minute what is told to stop; a step, or a problem that is searched, may take longer.
exec psr run "$recipe" --run-dir "$run_dir" \
    --launch "torchrun --standalone --nproc-per-node ${GPUS:-8} --shutdown-timeout 600 --no-python" "$@"
