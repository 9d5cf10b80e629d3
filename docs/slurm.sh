#!/bin/bash
# Trains on two nodes of 8 GPUs each under SLURM, and puts itself back into the queue until training is done:
#   sbatch --export=ALL,RUN=clevr6 docs/slurm.sh --config configs/clevr6.yaml --data.path data/clevr_128px.h5
# RUN names the run. All nodes must share the folder in which this is started. See docs/scaling.md.
#SBATCH --job-name=iodine
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
# The tasks receive SIGTERM three minutes before the end, and at a preemption. Training then saves, and exits with 143.
set -u

run=${RUN:?give the run a name, with --export=ALL,RUN=NAME}
go_on=()
if compgen -G "runs/$run/version_*/checkpoints/last.ckpt" > /dev/null; then
    go_on=(--ckpt_path last)
fi

# Lightning's own requeueing is off: it would continue in a new folder of the run.
srun iodine fit "$@" --name "$run" --trainer.num_nodes "$SLURM_NNODES" --trainer.devices "$SLURM_NTASKS_PER_NODE" \
    --trainer.plugins '{"class_path": "pytorch_lightning.plugins.environments.SLURMEnvironment", "init_args": {"auto_requeue": false}}' \
    "${go_on[@]}"
ended=$?

if [ "$ended" -eq 143 ]; then
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$ended"
