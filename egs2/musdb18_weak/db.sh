# Where the corpora are. To be sourced.
# shellcheck shell=bash disable=SC2034

# MUSDB18: the folder with train/ and test/, of SONG.stem.mp4 files or of HQ's folders SONG/bass.wav ...
# Paths may be relative to the project's top folder. Empty: the embedded corpus is made and used.
MUSDB18=${MUSDB18:-}
