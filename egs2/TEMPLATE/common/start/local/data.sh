#!/usr/bin/env bash
# Stage 1: the lists of NAME: labels.tsv, and clips.tsv of each set, in the folder of --datadir.
#   CORPUS=/path local/data.sh --datadir DIR [--local_data_opts of run.sh]
set -euo pipefail
. ./path.sh

# Here: a subfolder of sounds for each class. A corpus with its own layout: one file in espnet2_ext/data/corpora
# (CONTRIBUTING.md), and its command, espnet2-ext prepare CORPUS, in this place.
"${python:-python}" -m espnet2_ext prepare-own "${CORPUS:?is not set: the folder}" --data_dir "$2" "${@:3}"
