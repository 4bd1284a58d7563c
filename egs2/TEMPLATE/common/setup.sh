#!/usr/bin/env bash
# Make the folder of a new recipe:  egs2/TEMPLATE/qsep1/setup.sh egs2/NAME  (or weak1, tag1)
# It gets links to the driver and conf, and run.sh, db.sh and local/data.sh to start from.
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
kind=${template##*/}
kind=${kind%1}
case ${kind} in qsep) config=conf/train_qsep_care_sep_small.yaml ;; weak) config=conf/train_weak_small.yaml ;;
    *) config=conf/mini/tag_care_cls.yaml ;; esac
for file in run.sh db.sh local/data.sh; do
    [ ! -e "${recipe}/${file}" ] || continue # the user's
    sed -e "s|NAME|${recipe##*/}|g; s|KIND|${kind}|g; s|CONFIG|${config}|g" "${template}/../common/start/${file}" \
        >"${recipe}/${file}"
    chmod +x "${recipe}/${file}"
done
