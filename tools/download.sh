# shellcheck shell=bash
# A download that continues where it broke off; what the scripts of tools/ share. Sourced, after find_python.sh.

download() { # download URL FILE HINT: goes on where FILE ends; HINT says what to do where there is no network
    local code=0 curl=(curl --fail --location --show-error --retry 2 --output "$2")
    command -v curl >/dev/null || fail 1 "curl is needed to download"
    curl+=(--connect-timeout 20 --speed-limit 1 --speed-time 60)
    if [[ -t 2 ]]; then curl+=(--progress-bar); else curl+=(--silent); fi
    "${curl[@]}" --continue-at - "$1" || code=$?
    # 22 and 33: FILE is all there is, or the server gives whole files only.
    if [[ $code == 22 || $code == 33 ]] && [[ -s $2 ]]; then
        code=0
        "${curl[@]}" "$1" || code=$?
    fi
    ((code == 0)) || fail 1 "cannot download $1 (curl ends with $code, see above).
$3"
}
