#!/usr/bin/env bash
# A recipe on one node with torchrun, started again for as long as it is stopped by a signal.
#
#   configs/cluster/torchrun.sh configs/qwen2.5-math-7b runs/7b --set.model=DIR --set.data=DIR
#
# On several nodes torchrun has to be started on each of them, stage by stage: configs/cluster/kubernetes.yaml shows how.
set -uo pipefail

recipe=${1:?recipe folder}
run_dir=${2:?run directory}
shift 2
exec psr run "$recipe" --run-dir "$run_dir" --launch "torchrun --standalone --nproc-per-node ${GPUS:-8} --no-python" "$@"
