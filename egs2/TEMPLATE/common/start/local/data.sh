#!/usr/bin/env bash
# Stage 1: the lists of NAME: labels.tsv, and clips.tsv of each set, in the folder of --datadir.
#   CORPUS=/path local/data.sh --datadir DIR [--local_data_opts of run.sh]
set -euo pipefail
. ./path.sh

# Write a reader, espnet2_ext/data/corpora/MY.py, and its command; here: a subfolder of sounds for each class.
"${python:-python}" -m espnet2_ext prepare-own "${CORPUS:?is not set: the folder}" --data_dir "$2" "${@:3}"
