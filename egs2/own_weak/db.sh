# Where the corpora are. To be sourced.
# shellcheck shell=bash disable=SC2034

# A .csv or .tsv with the columns path and labels, or path, onset, offset and label (both: separated by a space).
# Paths may be relative to the project's top folder.
RECORDINGS=${RECORDINGS:-}
