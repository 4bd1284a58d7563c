# Where the corpora are. To be sourced.
# shellcheck shell=bash disable=SC2034

# UrbanSound8K: the folder with metadata/UrbanSound8K.csv and audio/fold1 ... fold10.
# Paths may be relative to the project's top folder. Empty: the embedded corpus is made and used.
URBANSOUND8K=${URBANSOUND8K:-}
