#!/usr/bin/env bash
# Stage 1: the lists of your own recordings (from the environment, as run.sh sets them).
#   RECORDINGS=a.csv (several: one a line) allow_unlabelled=false classes=dog,siren valid_share=0.1 test_share=0.1 \
#       local/data.sh --datadir DIR
set -euo pipefail
. ./path.sh

datadir=data
[ "${1:-}" != --datadir ] || datadir=$2
tables=()
while IFS= read -r table; do tables+=("${table}"); done <<<"${RECORDINGS:?is not set: the tables}"
more=()
[ "${allow_unlabelled:-false}" != true ] || more=(--allow_unlabelled)
IFS=, read -ra names <<<"${classes:-}"
[ ${#names[@]} -eq 0 ] || more+=(--classes "${names[@]# }")

"${python:-python}" -m espnet2_ext prepare-own-weak lists "${tables[@]}" --data_dir "${datadir}" \
    --valid_share "${valid_share:-0.1}" --test_share "${test_share:-0.1}" ${more[@]+"${more[@]}"}
