# Shell functions of run.sh; to be sourced. Sourcing it goes to the recipe's folder.
# shellcheck shell=bash

caller=${PWD}  # where the user stands: relative paths on the command line are meant from here
cd "$(dirname "$0")" || exit 1
python=${python:-python}

die() {
    echo "error: $*" >&2
    exit 1
}

# find_path WHAT PATH: the full path of a corpus. A relative PATH is taken from where the user stands or
# else, as written in db.sh or the environment, from the top of the project.
find_path() {
    local path from_caller=$2
    [ "${2#/}" != "$2" ] || from_caller=${caller}/$2
    for path in "${from_caller}" "../../$2"; do
        if [ -e "${path}" ]; then
            echo "$(cd "$(dirname "${path}")" && pwd -P)/$(basename "${path}")"
            return
        fi
    done
    die "$1: there is no $2 (looked in ${caller} and in the project's top folder)"
}

# find_paths WHAT NAMES: the full paths of one or several files, one a line. Several are separated by blanks; a name
# with blanks is one if it is there as it stands, or stands in quotes: "'my clips.csv' times.csv".
find_paths() {
    local name names
    if (find_path "$1" "$2") >/dev/null 2>&1; then
        find_path "$1" "$2"
        return
    fi
    names=$(xargs -n 1 printf '%s\n' 2>/dev/null <<<"$2") || die "$1: a quotation mark without its other half: $2"
    while IFS= read -r name; do
        (find_path "$1" "${name}") 2>/dev/null && continue
        [ "${name}" != "$2" ] || find_path "$1" "$2"
        die "$1: there is no ${name}; a name with blanks stands in quotes of its own, as in \"'my clips.csv' times.csv\""
    done <<<"${names}"
}

# column FILE.csv NAME: the values of a column, each once, in one line
column() {
    [ -f "$1" ] || die "$1 is not there; is this the corpus's folder?"
    awk -F, -v name="$2" 'NR == 1 { while ($++at != name && at < NF) continue; next } { print $at }' "$1" |
        sort -u | xargs
}

# split_options "NAMES" ARGS...: options of the recipe itself (`--name VALUE`, name in NAMES) set the
# variable of that name; all others go into the array `rest`, after `--caller`, which the driver takes.
split_options() {
    local names=" $1 " name
    shift
    rest=(--caller "${caller}")
    while [ $# -gt 0 ]; do
        case $1 in
            --help | -h) own_help "${names}" ;;
            --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
        esac
        name=${1#--}
        name=${name//-/_}
        if [ "${1#--}" != "$1" ] && [ "${names/ ${name} /}" != "${names}" ]; then
            [ $# -ge 2 ] || die "option $1 needs a value"
            case ${!name}/$2 in
                true/true | true/false | false/true | false/false) ;;
                true/* | false/*) die "option $1 takes true or false, not '$2'" ;;
            esac
            printf -v "${name}" '%s' "$2"
            shift 2
        elif [ $# -lt 2 ] || [ "$1" = --help ] || [ "$1" = -h ]; then
            rest+=("$1")
            shift
        else # with its value, which may look like an option: --weak_args "--optim_conf lr=1e-3"
            rest+=("$1" "$2")
            shift 2
        fi
    done
}

# wants_help: whether --help is among the options that split_options left
wants_help() { case " ${rest[*]-} " in *" --help "* | *" -h "*) ;; *) return 1 ;; esac; }

# own_help "NAMES": what the head of run.sh says, and its own options with their values
own_help() {
    local name
    sed -n '2,/^set /s/^# \{0,1\}//p' "$(basename "$0")"
    echo "Options of this recipe"
    for name in $1; do printf '  --%-20s %s\n' "${name}" "(${!name})"; done
    echo
}

# drive NAME ARGS...: the driver espnet2-ext recipe-NAME, run by the Python of --python or that of path.sh
drive() {
    local word before='' help=''
    for word in "$@"; do
        [ "${before}" != --python ] || python=${word}
        case ${word} in --python=*) python=${word#*=} ;; --help | -h) help=true ;; esac
        before=${word}
    done
    if [ "${python}${help}" = pythontrue ] && # any Python can help, and nothing is installed for it
        python3 -c 'import sys, yaml; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=python3
    fi
    . ./path.sh
    . ./cmd.sh
    export cuda_cmd
    exec "${python}" -m espnet2_ext "recipe-$1" "${@:2}"
}
