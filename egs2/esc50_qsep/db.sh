# Where the corpora are. To be sourced.
# shellcheck shell=bash disable=SC2034

# ESC-50: the folder with meta/esc50.csv and audio/. Paths may be relative to the project's top folder.
ESC50=${ESC50:-}
