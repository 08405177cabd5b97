"""``postroom completion``: the script that makes a shell complete commands and options."""

import click
from click.shell_completion import get_completion_class

__all__ = ["completion"]


@click.command(
    epilog="""\b
Examples:
  postroom completion bash > ~/.local/share/bash-completion/completions/postroom
  eval "$(postroom completion zsh)"              in ~/.zshrc
  postroom completion fish > ~/.config/fish/completions/postroom.fish
"""
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script for a shell."""
    kind = get_completion_class(shell)
    if kind is None:  # pragma: no cover - click knows these three
        raise click.UsageError(f"{shell} is not supported by this version of click")
    root = context.find_root().command
    script = kind(root, {}, "postroom", "_POSTROOM_COMPLETE")
    # BashComplete.source() would first run bash to see its version, which need not be here.
    click.echo(script.source_template % script.source_vars())
