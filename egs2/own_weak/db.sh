# Where the corpora are. To be sourced.
# shellcheck shell=bash disable=SC2034

# A .csv or .tsv with the columns path and labels, or path, onset, offset and label (both: with a blank between).
# Relative paths count from the project's top folder.
RECORDINGS=${RECORDINGS:-}
