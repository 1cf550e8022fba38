# shellcheck shell=bash
# What the scripts of this folder share. Sourced, never run.
#
# A script sets its defaults in OPTIONS (name -> value), calls parse_options "$@" and then
# train or evaluate. Options are --name=value; those of LAUNCHER_OPTIONS are used here, the others
# go to the Python program of the same names.

test_path_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$test_path_dir")
start_time=$(date +%s)

LAUNCHER_OPTIONS=(nproc nnodes node_rank master_addr master_port)
TRAIN_OPTIONS=(data_path output_directory checkpoint_path device device_id config batch_size epochs max_steps
    learning_rate amp loss_scale workers resume profile debug)
EVAL_OPTIONS=(data_path output_directory pth_path device device_id batch_size amp sigma denoiser_strength seed
    chunk_frames debug)

declare -A OPTIONS=()

fail() { # fail CODE MESSAGE
    echo "error: $2" >&2
    exit "$1"
}

# The comment at the head of the calling script is its help.
show_help() {
    sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
    exit 0
}

parse_options() { # parse_options "KNOWN OPTIONS" ARGUMENT...
    local known=" $1 ${LAUNCHER_OPTIONS[*]} " argument name
    shift
    for argument in "$@"; do
        name=${argument#--}
        name=${name%%=*}
        case $argument in
            -h | --help) show_help ;;
            --debug) OPTIONS[debug]=1 ;;
            --*=*)
                [[ $known == *" $name "* ]] || fail 2 "unknown option --$name (--help lists the options)"
                OPTIONS[$name]=${argument#*=}
                ;;
            *) fail 2 "options are written --name=value, not $argument (--help lists the options)" ;;
        esac
    done
}

require() { # require NAME...: the seed's message, spelled right
    local name
    for name in "$@"; do
        if [[ -z ${OPTIONS[$name]:-} ]]; then
            echo "[Error] para \"$name\" must be configured: --$name=..." >&2
            exit 1
        fi
    done
}

# A path given relative to where the user stands must mean the same after cd to the root.
make_absolute() { # make_absolute NAME...
    local name
    for name in "$@"; do
        if [[ -n ${OPTIONS[$name]:-} && ${OPTIONS[$name]} != /* ]]; then
            OPTIONS[$name]=$PWD/${OPTIONS[$name]}
        fi
    done
}

find_python() {
    if [[ -n ${VIRTUAL_ENV:-}${CONDA_PREFIX:-} ]]; then
        python=python
    elif [[ -x $root/.venv/bin/python ]]; then
        python=$root/.venv/bin/python
    else
        python=python3
    fi
    "$python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)' ||
        fail 1 "$python has no torch: pip install -r requirement.txt, or bash test/demo.sh, which installs into .venv"
}

keep_earlier_logs() { # keep_earlier_logs NUMBER...
    local number folder dated
    for number in "$@"; do
        folder=$test_path_dir/output/$number
        [[ -e $folder ]] || continue
        dated=${folder}_$(date -r "$folder" +%Y-%m-%d_%H-%M-%S)
        while [[ -e $dated ]]; do dated=${dated}_; done
        mv "$folder" "$dated"
    done
}

# SIGTERM, Ctrl-C and a closed terminal end a run the same way: every rank writes its checkpoint and ends by itself.
# The ranks are the launcher's children; signalled itself, torchrun would kill them after 30 s.
stop_ranks() {
    interrupted=$1
    [[ -n $program ]] || return 0
    local targets=$program
    if ((nproc * nnodes > 1)); then
        targets=$(cat "/proc/$program/task/$program/children" 2>/dev/null || pgrep -P "$program" || true)
    fi
    # Before there are ranks there is nothing to save.
    # shellcheck disable=SC2086  # a list of numbers
    kill -TERM ${targets:-$program} 2>/dev/null || true
}

run_program() { # run_program CASE MODULE OPTION...: one process, or several through torchrun
    local case=$1 module=$2 name arguments=() launcher=()
    shift 2
    nproc=${OPTIONS[nproc]:-1}
    nnodes=${OPTIONS[nnodes]:-1}
    local node_rank=${OPTIONS[node_rank]:-0} device_id=${OPTIONS[device_id]:-0} code=0
    for name in nproc nnodes node_rank device_id; do
        [[ ${!name} =~ ^(0|[1-9][0-9]{0,3})$ ]] || fail 2 "--$name must be a number up to 9999, not ${!name}"
    done
    ((nproc > 0 && nnodes > 0)) || fail 2 "--nproc and --nnodes must be at least 1"
    ((node_rank < nnodes)) || fail 2 "--node_rank is $node_rank, must be below --nnodes, $nnodes"
    local port=${OPTIONS[master_port]:-29500}
    if [[ ! $port =~ ^[1-9][0-9]{0,4}$ ]] || ((port > 65535)); then
        fail 2 "--master_port must be 1 to 65535, not $port"
    fi
    ((nproc * nnodes == 1 || device_id == 0)) || fail 2 "--device_id is for one process; $nproc processes take cards 0 to $((nproc - 1))"

    if [[ ${etp_running_flag:-} != true ]]; then
        # shellcheck source=test/env_npu.sh
        source "$test_path_dir/env_npu.sh"
    fi
    find_python
    arguments=("--case=$case" "--log_directory=$test_path_dir/output" "--started=$start_time")
    for name in "$@"; do
        [[ -n ${OPTIONS[$name]:-} ]] || continue
        if [[ $name == debug ]]; then arguments+=(--debug); else arguments+=("--$name=${OPTIONS[$name]}"); fi
    done
    cd "$root" || exit
    if ((nproc * nnodes > 1)); then
        # shellcheck disable=SC2046  # a list of numbers
        keep_earlier_logs $(seq $((node_rank * nproc)) $((node_rank * nproc + nproc - 1)))
        launcher=(-m common.launch "--nproc_per_node=$nproc" "--nnodes=$nnodes" "--node_rank=$node_rank")
        [[ -n ${OPTIONS[master_addr]:-} ]] && launcher+=("--master_addr=${OPTIONS[master_addr]}")
        [[ -n ${OPTIONS[master_port]:-} ]] && launcher+=("--master_port=${OPTIONS[master_port]}")
    else
        keep_earlier_logs "$device_id"
    fi
    # A process group of its own keeps the terminal's Ctrl-C away from it: stop_ranks passes it on.
    interrupted=0 program=
    trap 'stop_ranks 143' TERM
    trap 'stop_ranks 130' INT
    trap 'stop_ranks 129' HUP
    trap 'stop_ranks 131' QUIT
    set -m
    "$python" ${launcher[@]+"${launcher[@]}"} -m "$module" "${arguments[@]}" &
    program=$!
    set +m
    # A signal that came before there was a program to pass it on to.
    ((interrupted == 0)) || stop_ranks "$interrupted"
    # A signal ends wait early; what counts is how the program ends, which the last wait tells.
    while kill -0 "$program" 2>/dev/null; do wait "$program" 2>/dev/null || true; done
    wait "$program" 2>/dev/null || code=$?
    trap - TERM INT HUP QUIT
    ((interrupted == 0 || interrupted == 143)) || exit "$interrupted"
    ((code <= 128 || nproc * nnodes > 1)) || echo "error: the process was ended by signal $((code - 128))" >&2
    return "$code"
}

train() { # train CASE
    make_absolute data_path output_directory checkpoint_path config
    case ${OPTIONS[resume]:-auto} in auto | no) ;; *) make_absolute resume ;; esac
    require data_path output_directory
    run_program "$1" waveglow.train "${TRAIN_OPTIONS[@]}"
}

evaluate() {
    make_absolute data_path output_directory pth_path
    require data_path pth_path output_directory
    OPTIONS[output_directory]+=/eval_$(basename "${OPTIONS[pth_path]}")
    run_program acc waveglow.infer "${EVAL_OPTIONS[@]}"
}
