# Where the sounds are. To be sourced.
# shellcheck shell=bash disable=SC2034

# ESC-50 or its ESC-10 part: the folder with meta/esc50.csv, audio/ and the licence file. Paths may be relative to the
# project's top folder.
ESC50=${ESC50:-}

# Where the Debian packages are installed, or unpacked by dpkg -x.
PACKAGES=${PACKAGES:-/}
