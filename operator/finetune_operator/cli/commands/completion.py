"""`finetune completion`: a script that makes the shell complete words, options and names of jobs."""

from enum import StrEnum
from typing import Annotated

import typer

from finetune_operator.cli.completer import completions, names_of_jobs

_SCRIPT = """\
_finetune() {
  local line
  COMPREPLY=()
  while IFS= read -r line; do
    case "$line" in
      :0) compopt -o default 2>/dev/null ;;
      :*) ;;
      *) COMPREPLY+=("$line") ;;
    esac
  done < <(finetune __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _finetune finetune
"""
_ZSH = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"


class Shell(StrEnum):
    """Shells for which there is a script."""

    BASH = "bash"
    ZSH = "zsh"


def completion(shell: Annotated[Shell, typer.Argument(help="The shell.", show_default=False)]) -> int:
    """Print the completion of a shell: source <(finetune completion bash). kubectl 1.26 and later needs none."""
    print((_ZSH if shell is Shell.ZSH else "") + _SCRIPT, end="")
    return 0


def complete(context: typer.Context, words: Annotated[list[str] | None, typer.Argument()] = None) -> int:
    """Answers a shell that asks what may come next."""
    print("\n".join(completions(context.find_root().command, words or [""], names_of_jobs)))
    return 0
