# bash completion for terokctl; source it, or put it into bash-completion's directory as `terokctl`.
_terokctl() {
    COMPREPLY=()
    local line
    local -a lines=()
    while IFS= read -r line; do
        lines+=("$line")
    done < <("${COMP_WORDS[0]}" __complete "$COMP_CWORD" "${COMP_WORDS[@]}" 2>/dev/null)
    case "${lines[0]-}" in
        :files) compopt -o default 2>/dev/null; return ;;
        :dirs) compopt -o dirnames 2>/dev/null; return ;;
    esac
    for line in ${lines[@]+"${lines[@]}"}; do
        line=${line%%$'\t'*}
        case "$line" in
            *=|*,) compopt -o nospace 2>/dev/null ;;
        esac
        COMPREPLY+=("$line")
    done
}
complete -F _terokctl terokctl
