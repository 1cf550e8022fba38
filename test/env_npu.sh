# shellcheck shell=bash
# Ascend's environment for the scripts of this folder:  source test/env_npu.sh
#
# Where CANN is not installed it says so and changes nothing. It can be sourced anywhere, also
# twice, and never ends the caller's shell.

_env_npu_setup() {
    local info=/etc/Ascend/ascend_cann_install.info install=/usr/local/Ascend set_env='' had_nounset=''
    if [ -f "$info" ]; then
        install=$(sed -n 's/^Install_Path=//p' "$info" 2>/dev/null | head -n 1) || install=
        install=${install:-/usr/local/Ascend}
    fi
    if [ -d "$install/ascend-toolkit/latest" ] && [ -f "$install/ascend-toolkit/set_env.sh" ]; then
        set_env=$install/ascend-toolkit/set_env.sh
    elif [ -f "$install/nnae/set_env.sh" ]; then
        set_env=$install/nnae/set_env.sh
    else
        echo "env_npu.sh: no CANN in $install, nothing set (not needed on CUDA or a CPU)" || true
        return 0
    fi
    # CANN's script reads variables that may not be set.
    case $- in *u*) had_nounset=1; set +u ;; esac
    # shellcheck disable=SC1090
    . "$set_env" || echo "env_npu.sh: $set_env reported an error" || true
    if [ -n "$had_nounset" ]; then set -u; fi

    export ASCEND_SLOG_PRINT_TO_STDOUT=0 # host log to the terminal: 0 off
    export ASCEND_GLOBAL_LOG_LEVEL=3     # 0 debug, 1 info, 2 warning, 3 error
    export ASCEND_GLOBAL_EVENT_ENABLE=0  # event log: 0 off
    export TASK_QUEUE_ENABLE=1           # operators are handed out asynchronously
    export COMBINED_ENABLE=1             # joins operators on non-contiguous tensors
    export INF_NAN_MODE_ENABLE=1         # overflow becomes inf or nan, which the loop checks for
    export HCCL_WHITELIST_DISABLE=1      # no list of permitted peers
    export HCCL_CONNECT_TIMEOUT=1800     # seconds; a rank may first have to read the corpus. Both as
    export HCCL_EXEC_TIMEOUT=1800        # TIMEOUT in common/distributed.py, which sets them without this file

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
