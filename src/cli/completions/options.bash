
# Mount options stand in one word, with commas, behind the -o of a mount. Readline has cut that word at each = and :.
_plyfs_options() {
    local before=${COMP_LINE:0:COMP_POINT} current=${COMP_WORDS[COMP_CWORD]} list item candidate
    list=${before##*[[:space:]]}
    before=${before%"$list"}
    local command='(^|[[:space:]])(COMMANDS)[[:space:]]' flag='[[:space:]]-[a-z]*o[[:space:]]+$'
    if [[ $before =~ $command ]] || ! { [[ $before =~ $flag ]] || [[ $list == -o?* ]]; }; then
        _plyfs "$@"
        return
    fi
    item=${list##*,}
    [ "$item" != "$list" ] || item=${item#-o}
    [[ $current != [=:] ]] || current=
    compopt -o nospace
    COMPREPLY=()
    while IFS= read -r candidate; do
        # Readline puts the answer in the place of $current, which may begin before the item or within it.
        case $current in
            *"$item") COMPREPLY+=("${current%"$item"}$candidate") ;;
            *) COMPREPLY+=("${candidate#"${item%"$current"}"}") ;;
        esac
    done < <(_plyfs_candidates "$item")
}

# Every way to go on from $1.
_plyfs_candidates() {
    local last=${1##*[=:]}
    case $1 in
        DIRECTORIES=*) compgen -d -P "${1%"$last"}" -S / -- "$last" ;;
        *) compgen -W 'SPELLINGS' -- "$1" ;;
    esac
}
complete -F _plyfs_options -o bashdefault -o default plyfs
