# shellcheck shell=bash
# What the scripts of this folder share. Sourced, never run.
#
# A script calls parse_options "NAME..." --its=defaults "$@" and then train or evaluate. Options are --name=value; those
# named are used here, all others go to the Python program as they are, which refuses and explains them.

test_path_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$test_path_dir")
start_time=$(date +%s)
# shellcheck source=test/find_python.sh
source "$test_path_dir/find_python.sh" # fail, find_python

LAUNCHER_OPTIONS="network nproc nnodes node_rank master_addr master_port max_restarts"
PATH_OPTIONS="data_path training_files mels_path output_directory checkpoint_path pth_path config symbols log_directory"
# shellcheck disable=SC2034  # the scripts use it
RUN_OPTIONS="$LAUNCHER_OPTIONS $PATH_OPTIONS device_id resume earlier"

LAUNCHER_HELP="\
  --network=WaveGlow|Tacotron2   default WaveGlow
  --nproc=N               processes on this machine
  --nnodes=N --node_rank=I --master_addr=HOST --master_port=PORT    several machines
  --max_restarts=N        start the processes again when one dies, up to N times, default 0
  ASCEND_DEVICE_ID        a variable: the card of one process; it overrides --device_id

Logs: test/output/<rank>/train_<rank>.log, with one process the card's number in place of the rank.
Result: test/output/0/<CaseName>.log. --log_directory=DIR takes the place of test/output.

The other options are those of the Python program, --name=value:
"

declare -A OPTIONS=()
arguments=()
wants_help=0

show_head() { # the comment at the head of the calling script
    sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
}

parse_options() { # parse_options "NAME..." ARGUMENT...: into OPTIONS what is named, the rest into arguments
    local argument name
    for argument in "${@:2}"; do
        name=${argument#--}
        name=${name%%=*}
        case $argument in
            -h | --help) wants_help=1 ;;
            --*)
                if [[ " $1 " != *" $name "* ]]; then
                    arguments+=("$argument")
                elif [[ $argument == *=* ]]; then
                    OPTIONS[$name]=${argument#*=}
                else
                    fail 2 "options are written --name=value, not $argument (--help lists the options)"
                fi
                ;;
            *) fail 2 "options are written --name=value, not $argument (--help lists the options)" ;;
        esac
    done
}

answer_help() { # answer_help MODULE: show the help and end, if it was asked for
    ((wants_help)) || return 0
    show_head
    printf '%s' "$LAUNCHER_HELP"
    python=$(find_python "$root") || exit
    cd "$root" || exit
    exec "$python" -m "$1" --help
}

require() { # require NAME...: the Ascend port's message, spelled right
    local name
    for name in "$@"; do
        if [[ -z ${OPTIONS[$name]:-} ]]; then
            echo "[Error] para \"$name\" must be configured: --$name=..." >&2
            exit 1
        fi
    done
}

# A path given relative to where the user stands must mean the same after cd to the root.
make_paths_absolute() {
    local name
    for name in $PATH_OPTIONS; do
        if [[ -n ${OPTIONS[$name]:-} && ${OPTIONS[$name]} != /* ]]; then
            OPTIONS[$name]=$PWD/${OPTIONS[$name]}
        fi
    done
}

# SIGTERM, Ctrl-C and a closed terminal end a run the same way: every rank writes its checkpoint and ends by itself.
# The ranks are the launcher's children; signalled itself, torchrun would kill them after 30 s.
stop_ranks() {
    interrupted=$1
    [[ -n $program ]] || return 0
    local targets=$program
    if ((uses_torchrun)); then
        targets=$(cat "/proc/$program/task/$program/children" 2>/dev/null || pgrep -P "$program" || true)
    fi
    # Before there are ranks there is nothing to save.
    # shellcheck disable=SC2086  # a list of numbers
    kill -TERM ${targets:-$program} 2>/dev/null || true
}

run_program() { # run_program CASE MODULE: one process, or several through torchrun
    local module=$2 name launcher=() own=("--case=$1" "--started=$start_time")
    nproc=${OPTIONS[nproc]:-1}
    nnodes=${OPTIONS[nnodes]:-1}
    max_restarts=${OPTIONS[max_restarts]:-0}
    local node_rank=${OPTIONS[node_rank]:-0} device_id=${OPTIONS[device_id]:-0} code=0
    for name in nproc nnodes node_rank device_id max_restarts; do
        [[ ${!name} =~ ^(0|[1-9][0-9]{0,3})$ ]] || fail 2 "--$name must be a number up to 9999, not ${!name}"
    done
    ((nproc > 0 && nnodes > 0)) || fail 2 "--nproc and --nnodes must be at least 1"
    ((node_rank < nnodes)) || fail 2 "--node_rank is $node_rank, must be below --nnodes, $nnodes"
    local port=${OPTIONS[master_port]:-29500}
    if [[ ! $port =~ ^[1-9][0-9]{0,4}$ ]] || ((port > 65535)); then
        fail 2 "--master_port must be 1 to 65535, not $port"
    fi
    # As in the Ascend port: the variable overrides the option.
    if ((nproc * nnodes == 1)) && [[ -n ${ASCEND_DEVICE_ID:-} ]]; then
        device_id=$ASCEND_DEVICE_ID
        [[ $device_id =~ ^(0|[1-9][0-9]{0,3})$ ]] || fail 2 "ASCEND_DEVICE_ID must be a number up to 9999, not $device_id"
        OPTIONS[device_id]=$device_id
        echo "device id is $device_id, as ASCEND_DEVICE_ID says"
    fi
    # The port's ranks each had a share of the cores; torch_npu gives it to them. What is set already stays.
    ((nproc == 1)) || export CPU_AFFINITY_CONF="${CPU_AFFINITY_CONF:-1}"
    uses_torchrun=$((nproc * nnodes > 1 || max_restarts > 0))
    ((nproc * nnodes == 1 || device_id == 0)) || fail 2 "--device_id is for one process; $nproc processes take cards 0 to $((nproc - 1))"

    if [[ ${etp_running_flag:-} != true ]]; then
        # shellcheck source=test/env_npu.sh
        source "$test_path_dir/env_npu.sh"
    fi
    python=$(find_python "$root") || exit
    OPTIONS[log_directory]=${OPTIONS[log_directory]:-$test_path_dir/output}
    for name in "${!OPTIONS[@]}"; do
        [[ " $LAUNCHER_OPTIONS " == *" $name "* || -z ${OPTIONS[$name]} ]] || own+=("--$name=${OPTIONS[$name]}")
    done
    # Left by an earlier launch: a single process would wait for others; torchrun sets them anew.
    unset RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE GROUP_RANK MASTER_ADDR MASTER_PORT "${!TORCHELASTIC_@}"
    cd "$root" || exit
    if ((uses_torchrun)); then
        launcher=(-m common.launch "--nproc_per_node=$nproc" "--nnodes=$nnodes" "--node_rank=$node_rank"
            "--max_restarts=$max_restarts")
        [[ -n ${OPTIONS[master_addr]:-} ]] && launcher+=("--master_addr=${OPTIONS[master_addr]}")
        [[ -n ${OPTIONS[master_port]:-} ]] && launcher+=("--master_port=${OPTIONS[master_port]}")
    fi
    # A process group of its own keeps the terminal's Ctrl-C away from it: stop_ranks passes it on.
    interrupted=0 program=
    trap 'stop_ranks 143' TERM
    trap 'stop_ranks 130' INT
    trap 'stop_ranks 129' HUP
    trap 'stop_ranks 131' QUIT
    set -m
    "$python" ${launcher[@]+"${launcher[@]}"} -m "$module" "${own[@]}" ${arguments[@]+"${arguments[@]}"} &
    program=$!
    set +m
    # A signal that came before there was a program to pass it on to.
    ((interrupted == 0)) || stop_ranks "$interrupted"
    # A signal ends wait early; what counts is how the program ends, which the last wait tells.
    while kill -0 "$program" 2>/dev/null; do wait "$program" 2>/dev/null || true; done
    wait "$program" 2>/dev/null || code=$?
    trap - TERM INT HUP QUIT
    ((interrupted == 0 || interrupted == 143)) || exit "$interrupted"
    ((code <= 128 || uses_torchrun)) || echo "error: the process was ended by signal $((code - 128))" >&2
    return "$code"
}

package() { # the network's Python package
    case ${OPTIONS[network]:-WaveGlow} in
        WaveGlow) echo waveglow ;;
        Tacotron2) echo tacotron2 ;;
        *) fail 2 "--network is ${OPTIONS[network]}, must be WaveGlow or Tacotron2" ;;
    esac
}

train() { # train CASE [NAME...]: the named options are required, beside those that every training needs
    local package
    package=$(package) || exit
    answer_help "$package.train"
    make_paths_absolute
    case ${OPTIONS[resume]:=auto} in auto | no | /*) ;; *) OPTIONS[resume]=$PWD/${OPTIONS[resume]} ;; esac
    [[ -n ${OPTIONS[training_files]:-} ]] || require data_path
    require "${@:2}" output_directory
    run_program "$1" "$package.train"
}

evaluate() {
    local package folder folders=()
    package=$(package) || exit
    answer_help "$package.infer"
    make_paths_absolute
    require data_path pth_path output_directory
    OPTIONS[output_directory]+=/eval_$(basename "${OPTIONS[pth_path]}")
    IFS=, read -ra folders <<<"${OPTIONS[earlier]:-}"
    OPTIONS[earlier]=
    for folder in ${folders[@]+"${folders[@]}"}; do
        [[ $folder == /* ]] || folder=$PWD/$folder
        OPTIONS[earlier]+=${OPTIONS[earlier]:+,}$folder
    done
    run_program acc "$package.infer"
}
