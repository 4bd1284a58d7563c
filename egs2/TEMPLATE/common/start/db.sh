# Where the corpora are. To be sourced.
# shellcheck shell=bash disable=SC2034

# The corpus: its folder. Paths may be relative to the project's top folder.
CORPUS=${CORPUS:-}
