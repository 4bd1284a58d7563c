#!/usr/bin/env bash
# Stage 1: makes the sounds, and their lists; sources.json beside the lists names sources and licences.
#   ESC50=/path PACKAGES=/ local/data.sh --datadir DIR [options of `espnet2-ext prepare starter`]
set -euo pipefail
. ./path.sh

"${python:-python}" -m espnet2_ext prepare starter --data_dir "$2" ${ESC50:+--esc50 "${ESC50}"} \
    --packages "${PACKAGES:-/}" "${@:3}"
