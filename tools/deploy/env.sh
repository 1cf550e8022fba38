# shellcheck shell=bash
# Where things are, for the scripts of this folder:  source tools/deploy/env.sh
#
#   PROJ_ROOT_PATH   this folder
#   MODEL_PATH       checkpoints, graphs and engines; keeps its value if it has one, else models/ in here; it is made
#   NEUWARE_HOME     Cambricon's software, where it is installed
#
# It can be sourced anywhere, even twice. The scripts do not need it: they use the same values.

PROJ_ROOT_PATH=$(cd "$(dirname "${BASH_SOURCE[0]:-$0}")" && pwd)
export PROJ_ROOT_PATH
export MODEL_PATH=${MODEL_PATH:-$PROJ_ROOT_PATH/models}
mkdir -p "$MODEL_PATH" || true
if [ -d "${NEUWARE_HOME:-/usr/local/neuware}" ]; then
    export NEUWARE_HOME=${NEUWARE_HOME:-/usr/local/neuware}
    case ":${LD_LIBRARY_PATH:-}:" in
        *":$NEUWARE_HOME/lib64:"*) ;;
        *)
            export PATH=$NEUWARE_HOME/bin:$PATH
            export LD_LIBRARY_PATH=$NEUWARE_HOME/lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
            ;;
    esac
fi
