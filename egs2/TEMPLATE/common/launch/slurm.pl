#!/usr/bin/env bash
# A Slurm allocation for espnet2.bin.launch, which wants this name (the one of Kaldi's script).
# Called as: slurm.pl [--time T] [--partition P] --gpu G --num_threads C --num_nodes N LOG srun ARGS...
set -euo pipefail
options=(--ntasks-per-node=1)
while [ $# -ge 2 ]; do
    case $1 in
        --gpu) [ "$2" = 0 ] || options+=("--gres=gpu:$2") ;;
        --num_threads) options+=("--cpus-per-task=$(($2 * 4))") ;; # loader workers beside each GPU
        --num_nodes) options+=("--nodes=$2") ;;
        --*) options+=("$1=$2") ;;
        *) break ;;
    esac
    shift 2
done
log=$1
shift
mkdir -p "$(dirname "${log}")"
exec salloc "${options[@]}" "$@" >"${log}" 2>&1
