# shellcheck shell=bash
# What the scripts of this folder share. Sourced, never run.
#
# A script sets its defaults in OPTIONS (name -> value), calls parse_options HELP "$@" and then
# train or evaluate. Options are --name=value; those of LAUNCHER_OPTIONS are used here, the others
# go to the Python program of the same names.

test_path_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$test_path_dir")
start_time=$(date +%s)
# shellcheck source=test/find_python.sh
source "$test_path_dir/find_python.sh" # fail, find_python

LAUNCHER_OPTIONS=" network nproc nnodes node_rank master_addr master_port max_restarts "
FLAGS=" debug keep_optimizer int8 teacher_forced "

RUNNING_HELP="\
  --network=WaveGlow|Tacotron2   default WaveGlow
  --data_path=DIR         corpus in LJ Speech's layout: wavs/*.wav, metadata.csv
  --device=auto|cpu|cuda|npu     auto prefers npu, then cuda, then cpu
  --device_id=N           card to use with one process, default 0; logs are then in test/output/N
                          (the variable ASCEND_DEVICE_ID decides over it)
  --nproc=N               processes on this machine
  --nnodes=N --node_rank=I --master_addr=HOST --master_port=PORT    several machines
  --amp=O0|O1|O2          float32, autocast, half     --debug            tracebacks of errors in the input"

LOGS_HELP="
Logs: test/output/<rank>/train_<rank>.log; result: test/output/0/<CaseName>.log"

# shellcheck disable=SC2034  # the scripts use it
TRAINING_HELP="$RUNNING_HELP
  --output_directory=DIR  for checkpoints (waveglow_<iteration>) and TensorBoard logs
  --config=FILE           default configs/waveglow.json or configs/tacotron2.json
  --training_files=FILE   in place of --data_path: a list with a wav on each line, for Tacotron2 \`wav|text\`
  --mels_path=DIR         WaveGlow: learn from the mels that an evaluation with --teacher_forced wrote
  --batch_size=N          clips for each process      --epochs=N         passes over the corpus
  --max_steps=N           end after N steps           --learning_rate=X
  --loss_scale=N|dynamic  for float16                 --workers=N        loader processes
  --resume=auto|no|FILE   auto: where the latest run in the output directory was
  --checkpoint_path=FILE  finetune from these weights, of any form of checkpoint
  --keep_optimizer        finetune with Adam's state of that checkpoint
  --keep_checkpoints=N    how many stay beside the best, default 5; 0 = all
  --on_save_error=stop|continue  when a checkpoint cannot be written
  --on_bad_clip=stop|skip        what to do with clips that cannot be used
  --hang_limit=SECONDS    end a run that gets nowhere, default 1800
  --max_restarts=N        start the processes again when one dies, up to N times
  --profile=N             steps to profile
$LOGS_HELP"

# shellcheck disable=SC2034  # the scripts use it
EVALUATION_HELP="$RUNNING_HELP
  --pth_path=FILE         checkpoint, of any form
  --output_directory=DIR  wavs, evaluation.json and index.html go to DIR/eval_<checkpoint>
  --seed=N                of the random numbers
  --sigma=X               WaveGlow: scale of the noise, default 0.6
  --denoiser_strength=X   WaveGlow: 0 = off, the default; try 0.1
  --chunk_frames=N        WaveGlow: less takes less memory
  --mels_path=DIR         WaveGlow: mels of the clips to synthesize from, in place of the recordings' own
  --teacher_forced        Tacotron2: write the mels of all clips, in step with the recordings, for --mels_path
  --earlier=DIR,DIR       WaveGlow: earlier evaluations of these clips, for the page to play too
  --int8                  WaveGlow: convolutions in 8-bit integers, the fastest on CPUs with VNNI
  --on_bad_clip=stop|skip what to do with clips that cannot be used
  --batch_size=N          for the result's name only
$LOGS_HELP"

declare -A OPTIONS=()

# The comment at the head of the calling script, and the options it shares with others.
show_help() { # show_help HELP
    sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
    printf '%s\n' "$1"
}

parse_options() { # parse_options HELP ARGUMENT...: the known options are those of the help
    local help known argument name
    help=$(show_help "$1")
    known=" $(grep -oE -- '--[a-z_0-9]+' <<<"$help" | cut -c3- | tr '\n' ' ')"
    shift
    for argument in "$@"; do
        name=${argument#--}
        name=${name%%=*}
        case $argument in
            -h | --help) echo "$help" && exit 0 ;;
            --*=*)
                [[ $known == *" $name "* && $FLAGS != *" $name "* ]] ||
                    fail 2 "unknown option --$name (--help lists the options)"
                OPTIONS[$name]=${argument#*=}
                ;;
            --*)
                [[ $known == *" $name "* && $FLAGS == *" $name "* ]] ||
                    fail 2 "options are written --name=value, not $argument (--help lists the options)"
                OPTIONS[$name]=1
                ;;
            *) fail 2 "options are written --name=value, not $argument (--help lists the options)" ;;
        esac
    done
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
make_absolute() { # make_absolute NAME...
    local name
    for name in "$@"; do
        if [[ -n ${OPTIONS[$name]:-} && ${OPTIONS[$name]} != /* ]]; then
            OPTIONS[$name]=$PWD/${OPTIONS[$name]}
        fi
    done
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
    if ((uses_torchrun)); then
        targets=$(cat "/proc/$program/task/$program/children" 2>/dev/null || pgrep -P "$program" || true)
    fi
    # Before there are ranks there is nothing to save.
    # shellcheck disable=SC2086  # a list of numbers
    kill -TERM ${targets:-$program} 2>/dev/null || true
}

run_program() { # run_program CASE MODULE: one process, or several through torchrun
    local case=$1 module=$2 name arguments=() launcher=()
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
    # As in the Ascend port: the variable decides over the option.
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
    arguments=("--case=$case" "--log_directory=$test_path_dir/output" "--started=$start_time")
    for name in "${!OPTIONS[@]}"; do
        [[ $LAUNCHER_OPTIONS != *" $name "* && -n ${OPTIONS[$name]} ]] || continue
        if [[ $FLAGS == *" $name "* ]]; then arguments+=("--$name"); else arguments+=("--$name=${OPTIONS[$name]}"); fi
    done
    cd "$root" || exit
    if ((nproc * nnodes > 1)); then
        # shellcheck disable=SC2046  # a list of numbers
        keep_earlier_logs $(seq $((node_rank * nproc)) $((node_rank * nproc + nproc - 1)))
    else
        keep_earlier_logs "$device_id"
    fi
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

train() { # train CASE
    local package
    package=$(package) || exit
    make_absolute data_path training_files mels_path output_directory checkpoint_path config
    case ${OPTIONS[resume]:-auto} in auto | no) ;; *) make_absolute resume ;; esac
    [[ -n ${OPTIONS[training_files]:-} ]] || require data_path
    require output_directory
    run_program "$1" "$package.train"
}

evaluate() {
    local package
    package=$(package) || exit
    make_absolute data_path mels_path output_directory pth_path
    require data_path pth_path output_directory
    OPTIONS[output_directory]+=/eval_$(basename "${OPTIONS[pth_path]}")
    run_program acc "$package.infer"
}
