# What a walk prints and checks. Sourced by the walks, after machine.sh.

# show COMMAND... : prints the command as the reader would type it, and runs it.
show() {
    local words=("$@")
    [ "$1" != sh ] || words=("${@:3}")
    printf '  %s%s %s%s\n' "$cyan" "$(is_root && echo '#' || echo '$')" "${words[*]}" "$plain"
    "$@" | sed 's/^/  /'
}

# claim WHAT COMMAND... : the walk ends with an error unless the command succeeds.
claim() {
    local what=$1
    shift
    "$@" || die "this does not hold: $what"
    printf '  %sok%s  %s\n' "$green" "$plain" "$what"
}

absent() {
    local path
    for path in "$@"; do
        [ ! -e "$path" ] && [ ! -L "$path" ] || return 1
    done
}
