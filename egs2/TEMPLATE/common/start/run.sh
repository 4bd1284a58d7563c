#!/usr/bin/env bash
# NAME.
#   ./run.sh --corpus /path/to/corpus
#   ./run.sh --help                           all options
set -euo pipefail
. "$(dirname "$0")/utils.sh"
. ./db.sh

corpus=${CORPUS}
split_options "corpus" "$@" # options of this recipe; "${rest[@]}" holds the driver's

if ! wants_help; then
    [ -n "${corpus}" ] || die "where is the corpus? ./run.sh --corpus FOLDER (or write it into db.sh)"
    CORPUS=$(find_path "the corpus (--corpus or db.sh)" "${corpus}")
    export CORPUS
fi

exec ./KIND.sh \
    --train_set train --valid_set valid --test_sets test --KIND_config CONFIG "${rest[@]}"
