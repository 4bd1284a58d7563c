# How training is started on several machines (--num_nodes, --host). To be sourced.
# One machine needs nothing of this. With --host h1,h2 ssh is used, and this file not at all.
# shellcheck shell=bash
# espnet2.bin.launch recognises the scheduler by the script's name: slurm.pl for Slurm; another name: mpirun.
# shellcheck disable=SC2034
cuda_cmd="./launch/slurm.pl --time 3-00:00:00"
