# bash completion for terokctl; source it, or put it into bash-completion's directory as `terokctl`.
_terokctl() {
    COMPREPLY=()
    local i line word index=0 glue='' prefix=''
    local -a lines=() words=()
    # bash takes words apart at colons, which names of images have.
    for ((i = 0; i < ${#COMP_WORDS[@]}; i++)); do
        word=${COMP_WORDS[i]}
        if [[ ${#words[@]} -gt 0 && ( $glue || $word == : ) ]]; then
            words[${#words[@]} - 1]+=$word
        else
            words+=("$word")
        fi
        [[ $word == : ]] && glue=yes || glue=''
        ((i == COMP_CWORD)) && index=$((${#words[@]} - 1))
    done
    word=${words[index]}
    [[ $COMP_WORDBREAKS == *:* && $word == *:* ]] && prefix=${word%:*}:
    while IFS= read -r line; do
        lines+=("$line")
    done < <("${words[0]}" __complete "$index" "${words[@]}" 2>/dev/null)
    case "${lines[0]-}" in
        :files) compopt -o default 2>/dev/null; return ;;
        :dirs) compopt -o dirnames 2>/dev/null; return ;;
    esac
    for line in ${lines[@]+"${lines[@]}"}; do
        line=${line%%$'\t'*}
        case "$line" in
            *=|*,) compopt -o nospace 2>/dev/null ;;
        esac
        COMPREPLY+=("${line#"$prefix"}")
    done
}
complete -F _terokctl terokctl
