#!/usr/bin/env bash
# The driver of separation from weak labels, espnet2_ext/recipe/weak.py: ESPnet's stages and option names. Called by run.sh.
set -euo pipefail
. "$(dirname "$0")/utils.sh"
drive weak "$@"
