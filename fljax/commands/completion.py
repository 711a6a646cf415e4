"""Prints the completion of a shell: commands, their flags, configurations, keys and their values.

    eval "$(fljax completion bash)"                   in ~/.bashrc
    eval "$(fljax completion zsh)"                    in ~/.zshrc, behind compinit
    fljax completion fish | source                    in ~/.config/fish/config.fish

The shell then asks fljax what a word may become, each time that Tab is pressed.
"""

from __future__ import annotations

from absl import app

from fljax import commands

# A word that ends in = . or / goes on; where nothing is found, the shell completes files. Bash
# divides words at = and :, and replaces the last part alone.
SCRIPTS = {
    "bash": r"""_fljax() {
    local line="${COMP_LINE:0:COMP_POINT}" words=() found=() word kept="" mark
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    word="${words[${#words[@]}-1]}"
    while IFS=$'\t' read -r mark _; do
        [[ -n $mark ]] && found+=("$mark")
    done < <("${words[0]}" __complete "${words[@]:1}" 2>/dev/null)
    for mark in = :; do
        if [[ $COMP_WORDBREAKS == *$mark* && $word == *$mark* ]]; then
            mark="${word%"${word##*$mark}"}"
            (( ${#mark} > ${#kept} )) && kept="$mark"
        fi
    done
    COMPREPLY=("${found[@]#"$kept"}")
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=./] ]] && compopt -o nospace
    return 0
}
complete -o default -F _fljax fljax
""",
    "zsh": r"""_fljax() {
    local -a whole begun shown_whole shown_begun
    local line word meaning
    for line in "${(@f)$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        word="${line%%$'\t'*}" meaning="${line#*$'\t'}"
        [[ -z $word ]] && continue
        if [[ $word == *[=./] ]]; then
            begun+=("$word") shown_begun+=("$word${meaning:+  -- $meaning}")
        else
            whole+=("$word") shown_whole+=("$word${meaning:+  -- $meaning}")
        fi
    done
    if (( ${#whole} + ${#begun} == 0 )); then
        compset -P '*='
        _files
        return
    fi
    (( ${#whole} )) && compadd -l -d shown_whole -a whole
    (( ${#begun} )) && compadd -l -S '' -d shown_begun -a begun
}
compdef _fljax fljax
""",
    "fish": r"""function __fljax_complete
    set -l words (commandline -pco) (commandline -ct)
    set -l found (command $words[1] __complete $words[2..-1] 2>/dev/null)
    if test (count $found) -gt 0; and test -n "$found[1]"
        printf '%s\n' $found
    else if string match -q -- '*=*' $words[-1]
        set -l parts (string split -m 1 = -- $words[-1])
        for path in (__fish_complete_path $parts[2])
            echo "$parts[1]=$path"
        end
    else
        __fish_complete_path $words[-1]
    end
end
complete -c fljax -f -a '(__fljax_complete)'
""",
}


def define() -> None:
    """Defines no flag."""


def main(argv: list[str]) -> int:
    """Prints the script of the shell that is named."""
    shells = argv[1:]
    if len(shells) != 1 or shells[0] not in SCRIPTS:
        raise app.UsageError(f"Name one shell of {', '.join(SCRIPTS)}, not {shells}.")
    commands.show(SCRIPTS[shells[0]].rstrip("\n"))
    return 0
