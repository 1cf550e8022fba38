# shellcheck shell=bash
# Ascend's environment for the scripts of this folder:  source test/env_npu.sh
#
# Where CANN is not installed it says so and changes nothing. It can be sourced anywhere, even
# twice, and never ends the caller's shell.

_env_npu_setup() {
    local set_env='' had_nounset='' folders folder note
    # The folder that CANN itself has named, a user's own, those that its installers noted, and the usual one.
    folders=${ASCEND_HOME_PATH:-}${HOME:+$'\n'$HOME/Ascend}
    # compgen, since the caller may have turned globs off, or made one without a match an error.
    while IFS= read -r note; do
        [ -f "$note" ] && folders+=$'\n'$(sed -En 's/^(\w+_)?Install_?Path[ \t]*=[ \t]*//p' "$note" 2>/dev/null | tr -d '\r')
    done < <(compgen -G '/etc/Ascend/ascend_*_install.info' || true)
    folders+=$'\n'/usr/local/Ascend
    while IFS= read -r folder; do
        [ -n "$folder" ] || continue
        # CANN from 8.5 on, older ones, and the part of them that only runs networks; CANN itself names the folder
        # `latest` of the two, beside which the script is.
        for set_env in "$folder"/{cann/,ascend-toolkit/,nnae/,,../}set_env.sh; do
            # What an uninstalled toolkit leaves behind has no version.
            [[ $set_env == */ascend-toolkit/set_env.sh && ! -d $folder/ascend-toolkit/latest ]] && continue
            [ -f "$set_env" ] && break 2
        done
        set_env=
    done <<<"$folders"
    if [ -z "$set_env" ]; then
        folders=${folders#$'\n'}
        echo "env_npu.sh: no CANN in ${folders//$'\n'/ }, nothing set (not needed on CUDA or a CPU)" || true
        return 0
    fi
    # CANN's script reads variables that may not be set.
    case $- in *u*) had_nounset=1; set +u ;; esac
    # shellcheck disable=SC1090
    . "$set_env" || echo "env_npu.sh: $set_env reported an error" || true
    if [ -n "$had_nounset" ]; then set -u; fi

    # What is set already stays: the user knows better.
    export ASCEND_SLOG_PRINT_TO_STDOUT="${ASCEND_SLOG_PRINT_TO_STDOUT:-0}" # host log to the terminal: 0 off
    export ASCEND_GLOBAL_LOG_LEVEL="${ASCEND_GLOBAL_LOG_LEVEL:-3}"         # 0 debug, 1 info, 2 warning, 3 error
    export ASCEND_GLOBAL_EVENT_ENABLE="${ASCEND_GLOBAL_EVENT_ENABLE:-0}"   # event log: 0 off
    export TASK_QUEUE_ENABLE="${TASK_QUEUE_ENABLE:-1}"                     # operators are handed out asynchronously
    export COMBINED_ENABLE="${COMBINED_ENABLE:-1}"                         # joins operators on non-contiguous tensors
    export INF_NAN_MODE_ENABLE="${INF_NAN_MODE_ENABLE:-1}"                 # overflow becomes inf or nan, as the loop checks
    export HCCL_WHITELIST_DISABLE="${HCCL_WHITELIST_DISABLE:-1}"           # no list of permitted peers
    # HCCL's time limits: common/distributed.py sets them, from --hang_limit.

    if command -v msnpureport >/dev/null 2>&1; then
        local card
        for card in 0 1 2 3 4 5 6 7; do
            msnpureport -g error -d "$card" >/dev/null 2>&1 || true
        done
        msnpureport -e disable >/dev/null 2>&1 || true
    fi
    ulimit -SHn 512000 2>/dev/null || true
    return 0
}

_env_npu_setup
unset -f _env_npu_setup
