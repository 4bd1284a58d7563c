#!/usr/bin/env bash
# The driver of taggers, espnet2_ext/recipe/tag.py: ESPnet's stages and option names. Called by run.sh.
set -euo pipefail
. "$(dirname "$0")/utils.sh"
drive tag "$@"
