#compdef terokctl
# zsh completion for terokctl; put it into a directory of $fpath as `_terokctl`, or source it after compinit.
_terokctl() {
    local line word
    local -a words_ descriptions lines
    lines=("${(@f)$("${words[1]}" __complete $((CURRENT - 1)) "${(@)words}" 2>/dev/null)}")
    case "${lines[1]}" in
        :files) _files; return ;;
        :dirs) _files -/; return ;;
    esac
    for line in "${lines[@]}"; do
        [[ -n "$line" ]] || continue
        word="${line%%$'\t'*}"
        words_+=("$word")
        if [[ "$line" == *$'\t'* ]]; then
            descriptions+=("$word -- ${line#*$'\t'}")
        else
            descriptions+=("$word")
        fi
    done
    (( ${#words_} )) && compadd -l -d descriptions -- "${words_[@]}"
}
if [[ "${funcstack[1]}" == _terokctl ]]; then
    _terokctl "$@"
else
    compdef _terokctl terokctl
fi
