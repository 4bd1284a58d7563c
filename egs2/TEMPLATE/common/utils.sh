# Shell functions of run.sh and the drivers; to be sourced. Sourcing it goes to the recipe's folder.
# shellcheck shell=bash

caller=${PWD}  # where the user stands: relative paths on the command line are meant from here
cd "$(dirname "$0")" || exit 1
recipe=${PWD}

log() { echo "$(date '+%Y-%m-%dT%H:%M:%S') (${BASH_SOURCE[1]##*/}:${BASH_LINENO[0]}) $*"; }

die() {
    echo "error: $*" >&2
    exit 1
}

# from_caller PATH: PATH as seen from the recipe's folder, where PATH was written by the user.
from_caller() {
    case $1 in
        "" | /*) echo "$1" ;;
        *) if [ "${caller}" = "${recipe}" ]; then echo "$1"; else echo "${caller}/$1"; fi ;;
    esac
}

# find_path WHAT PATH: the full path of a corpus. A relative PATH is taken from where the user stands or
# else, as written in db.sh or the environment, from the top of the project.
find_path() {
    local path
    for path in "$(from_caller "$2")" "../../$2" "$2"; do
        if [ -e "${path}" ]; then
            echo "$(cd "$(dirname "${path}")" && pwd -P)/$(basename "${path}")"
            return
        fi
    done
    die "$1: there is no $2 (looked in ${caller} and in the project's top folder)"
}

# column FILE.csv NAME: the values of a column, each once, in one line
column() {
    [ -f "$1" ] || die "$1 is not there; is this the corpus's folder?"
    awk -F, -v name="$2" 'NR == 1 { while ($++at != name && at < NF) continue; next } { print $at }' "$1" |
        sort -u | xargs
}

# is_path_option NAME: options of the driver whose value is a path
is_path_option() {
    case $1 in
        --config | --qsep_config | --qsep-config | --weak_config | --weak-config | --tag_config | --tag-config) true ;;
        --expdir | --dumpdir | --datadir | --init_param | --bundle | --list_anchors | --list-anchors) true ;;
        *) false ;;
    esac
}

# split_options "NAMES" ARGS...: options of the recipe itself (`--name VALUE`, name in NAMES) set the
# variable of that name; all others go into the array `rest`, their paths seen from the recipe.
split_options() {
    local names=" $1 " name
    shift
    rest=()
    while [ $# -gt 0 ]; do
        case $1 in
            --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
        esac
        name=${1#--}
        name=${name//-/_}
        if [ "${1#--}" != "$1" ] && [ "${names/ ${name} /}" != "${names}" ]; then
            [ $# -ge 2 ] || die "option $1 needs a value"
            set_option "${name}" "$2" "$1"
            shift 2
        elif is_path_option "$1" && [ $# -ge 2 ]; then
            rest+=("$1" "$(from_caller "$2")")
            shift 2
        elif [ "$1" = --help ] || [ "$1" = -h ]; then
            own_help "${names}"
            rest+=(--help)
            shift
        elif [ $# -lt 2 ]; then
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

# parse_options ARGS...: `--name VALUE` sets the variable `name`. An option is what the function usage lists in
# a line of its own that begins with `  --name `; one whose default is true or false takes only these. `--config`
# is short for the option that the variable config_option names.
parse_options() {
    local names name
    names=$(usage)
    while [ $# -gt 0 ]; do
        case $1 in
            --help | -h) usage; exit 0 ;; # with what the options before it set
            --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
            --*) ;;
            *) die "what is '$1'? Options are written --name value; see --help" ;;
        esac
        name=${1#--}
        name=${name//-/_}
        [ "${name}" != config ] || name=${config_option:-config}
        grep -q "^  --${name} " <<<"${names}" || die "unknown option $1; --help lists those there are"
        [ $# -ge 2 ] || die "option $1 needs a value"
        set_option "${name}" "$2" "$1"
        shift 2
    done
    for name in stage stop_stage; do
        [[ ${!name} =~ ^[0-9]+$ ]] || die "option --${name} takes a number, not '${!name}'"
    done
}

# set_option NAME VALUE OPTION: set the variable NAME, as asked by OPTION; one that is true or false takes only these
set_option() {
    case ${!1}/$2 in
        true/true | true/false | false/true | false/false) ;;
        true/* | false/*) die "option $3 takes true or false, not '$2'" ;;
    esac
    printf -v "$1" '%s' "$2"
}

# --- steps that end with everything they started -------------------------------------------------

child=
follower=

# The step runs in a process group of its own, so that all its workers hear the signal.
stop_all() {
    trap '' INT TERM HUP
    [ -z "${follower}" ] || kill -TERM -- "-${follower}" 2>/dev/null || true
    if [ -n "${child}" ]; then
        kill "-$1" -- "-${child}" 2>/dev/null || true
        for _ in $(seq 50); do
            kill -0 -- "-${child}" 2>/dev/null || break
            sleep 0.2
        done
        kill -KILL -- "-${child}" 2>/dev/null || true
    fi
    log "stopped; start the same command again to go on"
    exit "$2"
}
trap 'stop_all INT 130' INT
trap 'stop_all TERM 143' TERM
trap 'stop_all TERM 129' HUP

# On Linux a step also ends when this shell is killed without a chance to say so.
with_parent() {
    if setpriv --pdeathsig TERM true 2>/dev/null; then
        exec setpriv --pdeathsig TERM "$@"
    fi
    exec "$@"
}

# run CMD...: run a step; a failure ends the recipe with the step's own status.
run() {
    local status=0
    set -m
    with_parent "$@" </dev/null &
    child=$!
    set +m
    wait "${child}" || status=$?
    child=
    if [ "${status}" -ne 0 ]; then
        echo "error: status ${status} from: $*" >&2
        exit "${status}"
    fi
}

# run_logged LOG PATTERN CMD...: the same with all output in LOG; lines with PATTERN are shown as they come.
run_logged() {
    local log_file=$1 pattern=$2 status=0
    shift 2
    mkdir -p "$(dirname "${log_file}")"
    rotate "${log_file}"
    : >"${log_file}"
    set -m
    follow "${log_file}" "${pattern}" 9>&- &
    follower=$!
    with_parent "$@" </dev/null >>"${log_file}" 2>&1 &
    child=$!
    set +m
    wait "${child}" || status=$?
    child=
    sleep 0.3  # lets the follower show the last lines
    { kill -TERM -- "-${follower}" && wait "${follower}"; } 2>/dev/null || true
    follower=
    if [ "${status}" -ne 0 ]; then
        echo "error: status ${status} from: $*" >&2
        echo "The last lines of ${log_file}:" >&2
        tail -n 20 "${log_file}" >&2
        exit "${status}"
    fi
}

# follow FILE PATTERN: show lines with PATTERN as they come, until killed or, with GNU's tail, this shell is.
follow() {
    local until=()
    ! tail --version >/dev/null 2>&1 || until=("--pid=$$")
    tail -n +1 -f ${until[@]+"${until[@]}"} "$1" 2>/dev/null | grep --line-buffered -E "$2"
}

# rotate FILE.log: keep the log of the run before as FILE.1.log, that as FILE.2.log and so on.
rotate() {
    local i
    for i in 8 7 6 5 4 3 2 1; do
        [ ! -e "${1%.log}.${i}.log" ] || mv -f "${1%.log}.${i}.log" "${1%.log}.$((i + 1)).log"
    done
    [ ! -e "$1" ] || mv -f "$1" "${1%.log}.1.log"
}

# hold FOLDER: refuse to work in a folder where another run (or what is left of a killed one) still works.
hold() {
    mkdir -p "$1"
    command -v flock >/dev/null || return 0
    exec 9>"$1/.lock"
    flock -n 9 || flock -w 15 9 || die "another run is still working in ${PWD}/$1; wait for it or end it first"
}

# --- what the drivers share: their variables are used ---------------------------------------------
# shellcheck disable=SC2154

# common_defaults RATE: the options that all drivers have, RATE being that of the sound
common_defaults() {
    # General
    stage=1
    stop_stage=100
    skip_data_prep=false
    skip_train=false
    skip_eval=false
    ngpu=auto
    num_nodes=1
    host=
    nj=$(getconf _NPROCESSORS_ONLN)
    inference_nj=1
    gpu_inference=auto
    scheduler=
    python=python
    # Folders
    datadir=data
    dumpdir=dump
    expdir=exp
    # Data
    local_data_opts=
    fs=$1
    audio_format=flac
    max_bad_share=0.1
    train_set=train
    valid_set=valid
    test_sets="test"
    # Models
    inference_model=valid.loss.best.pth
    inference_args=
}

# common_help: their part of a driver's help
common_help() {
    echo "General
  --stage            first stage (${stage})
  --stop_stage       last stage (${stop_stage})
  --skip_data_prep   skip the data stages (${skip_data_prep})
  --skip_train       skip the training stages (${skip_train})
  --skip_eval        skip everything after training (${skip_eval})
  --ngpu             GPUs per node for training; 0: CPU; auto: one if available (${ngpu})
  --num_nodes        machines for training, started through cmd.sh (${num_nodes})
  --host             machines by name, reached by ssh: host1,host2 (${host})
  --nj               processes of data preparation and scoring (${nj})
  --inference_nj     inference processes; each loads the model (${inference_nj})
  --gpu_inference    inference on a GPU: true, false, or auto: if available (${gpu_inference})
  --scheduler        address of a Dask scheduler: data, inference and scoring run on its cluster (${scheduler})
  --python           the Python to use (${python})
Folders
  --datadir          lists, manifests and tables (${datadir})
  --dumpdir          archives of sound (${dumpdir})
  --expdir           models, outputs, results (${expdir})
Data
  --local_data_opts  options of local/data.sh (${local_data_opts})
  --fs               sample rate (${fs})
  --audio_format     archive format: flac, or the faster pcm16 (${audio_format})
  --max_bad_share    stop when more than this share of a set's clips cannot be used (${max_bad_share})
  --train_set        name of the training set (${train_set})
  --valid_set        name of the validation set; may be the training set (${valid_set})
  --test_sets        names of the test sets (${test_sets})
Use of the model
  --inference_model  which checkpoint to use (${inference_model})
  --inference_args   more options for inference (${inference_args})"
}

# py MODULE ARGS...: one of the package's steps
py() {
    local module=$1
    shift
    case ${module} in
        scan | archive | draw_* | render_* | prepare_*) run "${python}" -m espnet2_ext "${module}" "$@" ;;
        *) run "${python}" -m "espnet2_ext.bin.${module}" "$@" ;;
    esac
}

# name_sets_and_jobs: `sets`, each set once, and `jobs`, how steps of many processes are run
name_sets_and_jobs() {
    sets=$(echo "${train_set} ${valid_set} ${test_sets}" | tr ' ' '\n' | awk 'NF && !seen[$0]++')
    jobs=(--num_workers "${nj}")
    [ -z "${scheduler}" ] || jobs+=(--scheduler "${scheduler}")
}

# inference_options: `options`, with what and how a step that uses a model is run
inference_options() {
    local device
    case ${gpu_inference} in true) device=cuda ;; false) device=cpu ;; *) device=auto ;; esac
    read -ra options <<<"--device ${device} --num_workers ${inference_nj} ${inference_args}"
    [ -z "${scheduler}" ] || options+=(--scheduler "${scheduler}")
}

stage_1() {
    local options
    read -ra options <<<"${local_data_opts}"
    run env OMP_NUM_THREADS=1 local/data.sh --datadir "${datadir}" ${options[@]+"${options[@]}"}
}

stage_2() {
    local set
    for set in ${sets}; do
        need "${datadir}/${set}/clips.tsv" 1
        OMP_NUM_THREADS=1 py scan "${datadir}/${set}" --max_bad_share "${max_bad_share}" "${jobs[@]}"
    done
}

stage_3() {
    local set
    for set in ${sets}; do
        need "${datadir}/${set}/manifest.tsv" 2
        OMP_NUM_THREADS=1 py archive "${datadir}/${set}" "${dumpdir}/${set}" \
            --labels "${datadir}/labels.tsv" --fs "${fs}" --format "${audio_format}" "${jobs[@]}"
    done
}

# of FILE.json KEY: the value of a key of text in one of the small JSON files beside the data
of() { sed -n "s/.*\"$2\": \"\([^\"]*\)\".*/\1/p" "$1"; }

need() { [ -e "$1" ] || die "$1 is not there; run stage $2 first"; }

# rendered FOLDER LIST HASH: FOLDER holds mixtures, those of the file LIST where that is kept; HASH names their checksum
rendered() {
    need "$1/list.json" 4
    [ ! -e "$2" ] || [ "$(of "$1/list.json" "$3")" = "$(of "$2" "$3")" ] ||
        die "$1 holds other mixtures than $2 tells of; run stage 4 again"
}

# Checks and training leave a mark of what they were made of, as their own programs do not.
is_marked() { [ "$(cat "$1" 2>/dev/null)" = "$2" ]; }
mark() { echo "$2" >"$1.tmp" && mv "$1.tmp" "$1"; }

# GPUs per node for training: the option --ngpu, where auto is one if there is one
gpus() {
    local found=${ngpu}
    if [ "${found}" = auto ]; then
        found=0
        ! command -v nvidia-smi >/dev/null ||
            found=$("${python}" -c 'import torch; print(int(torch.cuda.is_available()))')
    fi
    echo "${found}"
}

# given_files OPTIONS: checksums of the weights, anchors and further YAMLs that a training's options name
given_files() {
    local word names=false
    for word in $1; do
        case ${word} in
            --init_param=* | --classifier_file=* | --anchor_file=* | --config=*) names=true word=${word#*=} ;;
            --init_param | --classifier_file | --anchor_file | --config) names=true ;;
            --*) names=false ;;
        esac
        if ${names} && [ -f "${word%%:*}" ]; then cksum <"${word%%:*}"; fi
    done
}

# lasting CONFIG OPTIONS: what of a YAML and of further options stays the same as long as a training goes on
lasting() {
    local free='patience|keep_nbest_models|num_workers|num_att_plot|log_level|log_interval|use_[a-z]+'
    grep -q onecyclelr "$1" || free+='|max_epoch' # that schedule is as long as the training
    sed -E -e 's/(^| )#.*//' -e "/^(${free}):/d" -e 's/ +$//' -e '/^$/d' "$1"
    sed -E -e "s/--(${free})[= ]+[^ ]+//g" <<<"$2" | tr -s ' ' '\n'
}

# begun_with WHAT HASH CONFIG OPTIONS: what a training begins with and keeps, lines of `what: checksum`
begun_with() {
    echo "$1: $2"
    echo "files: $(given_files "$4" | xargs)"
    echo "options: $(lasting "$3" "$4" | cksum)"
}

# name_training CONFIG OPTIONS VALID: of a training on ${train_set}'s clips, `with`, what it begins with and keeps, and
# `id`, all that it is made of, in short; VALID is the hash of what it is validated on
name_training() {
    with=$(begun_with "clips in ${dumpdir}/${train_set}" "$(of "${dumpdir}/${train_set}/bank.json" manifest_hash)" \
        "$1" "$2")
    id=$({ cat "$1"; printf '%s\n' "$2" "${with}" "$3"; } | cksum | tr ' ' '-')
}

# train_once EXP ID WITH COMMAND...: run COMMAND, which trains in the folder EXP, unless that was done (ID tells).
# WITH is of begun_with; a training that was begun with something else does not go on.
train_once() {
    local exp=$1 id=$2 with=$3 other
    shift 3
    if is_marked "${exp}/.done" "${id}"; then
        log "${exp}: trained already"
        return
    fi
    if [ -e "${exp}/checkpoint.pth" ] || [ -e "${exp}/lightning/last.ckpt" ]; then
        touch "${exp}/.begun_with"
        other=$(grep -vxFf "${exp}/.begun_with" <<<"${with}" | sed 's/: [^:]*$//' | paste -sd, -) || true # all are there
        [ -z "${other}" ] || die "${exp} was begun with other ${other//,/, }: give another" \
            "--${config_option%_config}_tag, or remove that folder"
        log "going on from the last checkpoint"
    fi
    mkdir -p "${exp}"
    mark "${exp}/.begun_with" "${with}"
    rm -f "${exp}/.done"
    "$@"
    [ -e "${exp}/${inference_model}" ] || die "training ended, but there is no ${exp}/${inference_model}" \
        "(--inference_model); see ${exp}/train.log"
    mark "${exp}/.done" "${id}"
}

# train_espnet EXP MODULE ARGS...: train with ESPnet's trainer, here or, with --num_nodes or --host, elsewhere.
train_espnet() {
    local exp=$1 module=$2 launch command
    shift 2
    command=("${python}" -m "espnet2_ext.bin.${module}" "$@")
    log "all it says: ${exp}/train.log; curves: tensorboard --logdir ${exp}/tensorboard"
    if [ -z "${host}" ] && [ "${num_nodes}" -le 1 ]; then
        command+=(--ngpu "$(gpus)" --multiprocessing_distributed true)
        run_logged "${exp}/train.log" 'epoch (started|results)|WARNING|ERROR|^error:|Traceback' "${command[@]}"
        return
    fi
    launch=("${python}" -m espnet2.bin.launch --cmd "${cuda_cmd}" --log "${exp}/train.log")
    launch+=(--ngpu "$(gpus)" --multiprocessing_distributed true --init_file_prefix "${exp}/.dist_init_")
    if [ -n "${host}" ]; then launch+=(--host "${host}"); else launch+=(--num_nodes "${num_nodes}"); fi
    run "${launch[@]}" -- "${command[@]}"
}

# run_stages DATA TRAIN: run stage_1, stage_2 ... as the options say. titles[n] names stage n (empty: there is
# none of that number), kinds[n] says what it is: data (works in the folder DATA), train or eval (in TRAIN).
run_stages() {
    local number skip work begin=${SECONDS} from
    for number in "${!titles[@]}"; do
        [ "${number}" -ge "${stage}" ] && [ "${number}" -le "${stop_stage}" ] || continue
        [ -n "${titles[number]}" ] || continue
        case ${kinds[number]} in
            data) skip=${skip_data_prep} work=$1 ;;
            train) skip=${skip_train} work=$2 ;;
            *) skip=${skip_eval} work=$2 ;;
        esac
        if ${skip}; then continue; fi
        hold "${work}"
        from=${SECONDS}
        log "Stage ${number}: ${titles[number]}"
        "stage_${number}"
        log "Stage ${number}: done in $((SECONDS - from)) s"
    done
    log "finished in $((SECONDS - begin)) s"
}
