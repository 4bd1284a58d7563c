#!/usr/bin/env bash
# Make the folder of a new recipe, with its links:  egs2/TEMPLATE/qsep1/setup.sh egs2/NAME  (or weak1)
# Then write its run.sh, db.sh and local/data.sh, after those of egs2/own_qsep (egs2/urbansound8k_weak).
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: $0 egs2/NAME" >&2; exit 1; }
template=$(cd "$(dirname "$0")" && pwd -P)
mkdir -p "$1/local"
recipe=$(cd "$1" && pwd -P)
[ "${recipe%/*}" = "${template%/*/*}" ] || { echo "error: $1 is not a folder directly in egs2/" >&2; exit 1; }
for name in "${template}"/*.sh launch; do
    name=${name##*/}
    [ "${name}" = setup.sh ] || ln -sfn "../TEMPLATE/${template##*/}/${name}" "${recipe}/${name}"
done
ln -sfn ../../conf "${recipe}/conf"
