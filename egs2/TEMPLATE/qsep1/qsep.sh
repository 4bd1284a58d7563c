#!/usr/bin/env bash
# The driver of query-based separation, espnet2_ext/recipe/qsep.py: ESPnet's stages and option names. Called by run.sh.
set -euo pipefail
. "$(dirname "$0")/utils.sh"
drive qsep "$@"
