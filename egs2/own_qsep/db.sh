# Where the corpora are. To be sourced.
# shellcheck shell=bash disable=SC2034

# A folder with a subfolder of sounds for each class, or a .csv or .tsv with the columns path and labels.
# Paths may be relative to the project's top folder.
SOUNDS=${SOUNDS:-}
