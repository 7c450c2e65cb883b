#!/usr/bin/env bash
# A recipe on SLURM: one process for every GPU, one SGLang server on every node, requeued until it is done.
#
#   sbatch configs/cluster/slurm.sh configs/qwen2.5-math-7b runs/7b 4-nodes --set.model=DIR --set.data=DIR
#
# Submit it from the project's folder, which all nodes have to see under the same path, as the models and the data.
# Nodes and time below are for --overlay 4-nodes; give others to sbatch: sbatch --nodes 8 configs/cluster/slurm.sh ...
#SBATCH --job-name=psr
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
# Five minutes ahead of the time limit: psr stops after the next optimizer step or searched problem, and exits with 75.
#SBATCH --signal=USR1@300
set -uo pipefail

recipe=${1:?recipe folder}
run_dir=${2:?run directory}
overlay=${3:?overlay, or none}
shift 3

export OMP_NUM_THREADS=8 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
# The interface that ranks wait on while others search, where the first one found is not the right one:
# export GLOO_SOCKET_IFNAME=eth0 NCCL_SOCKET_IFNAME=eth0

options=()
[[ $overlay != none ]] && options+=(--overlay "$overlay")
source .venv/bin/activate
# A task that fails ends the others, so that the job ends. psr ends with 75 where they stopped as told, whatever srun says.
# --wait: a requeued job may begin while the last processes of the one before still hold the run directory.
psr run "$recipe" --run-dir "$run_dir" --wait true --launch "srun --wait=120 --kill-on-bad-exit=1" "${options[@]}" "$@"
code=$?
if [[ $code == 75 ]]; then
    echo "stopped as told: requeued"
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$code"
