"""Print what makes a shell complete `sdo`: `sdo completion bash|zsh|fish`.

    eval "$(sdo completion bash)"        in ~/.bashrc
    eval "$(sdo completion zsh)"         in ~/.zshrc
    sdo completion fish | source         in ~/.config/fish/config.fish

Flags are taken from a command's help when they are asked for, so that they are those of the version that runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pipelines.commands import COMMANDS

_BASH = """
_sdo_flags() {{ sdo "$1" --help 2>/dev/null | grep -oE -- '--[a-z][a-z-]*' | sort -u; }}
_sdo() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}"
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{names} --help --version" -- "$word"))
  elif [ "${{word:0:1}}" = "-" ]; then
    COMPREPLY=($(compgen -W "$(_sdo_flags "${{COMP_WORDS[1]}}")" -- "$word"))
  elif [ "$COMP_CWORD" -eq 2 ] && [ "${{COMP_WORDS[1]}}" = submit ]; then
    COMPREPLY=($(compgen -W "{submitted}" -- "$word"))
  else
    COMPREPLY=($(compgen -f -- "$word"))
  fi
}}
complete -o filenames -F _sdo sdo
"""
_ZSH = "autoload -U +X bashcompinit && bashcompinit\n"
_FISH = """
function _sdo_flags
  string match -q -- "-*" (commandline -ct); and sdo (commandline -opc)[2] --help | string match -ra -- "--[a-z][a-z-]*"
end
complete -c sdo -n __fish_use_subcommand -f -a "{names}"
complete -c sdo -n "__fish_seen_subcommand_from submit" -a "{submitted}"
complete -c sdo -n "not __fish_use_subcommand" -a "(_sdo_flags)"
"""


def script(shell: str) -> str:
    """What `bash`, `zsh` or `fish` is to evaluate."""
    names = {
        "names": " ".join(COMMANDS),
        "submitted": " ".join(name for name, command in COMMANDS.items() if command.settings),
    }
    text = _FISH if shell == "fish" else _BASH
    return (_ZSH if shell == "zsh" else "") + text.lstrip().format(**names)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="sdo completion", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))
    print(script(parser.parse_args(arguments).shell), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
