"""How the offline commands speak to people: one console, lines that can be copied, next steps."""

import os

from rich.console import Console

console = Console()


def suggest(next_step: str) -> None:
    """Name the next command, unless a script already runs it (PENCHANT_SUGGEST=no)."""
    if os.environ.get("PENCHANT_SUGGEST") != "no":
        say(f"Next: {next_step}")


def say(what: object, style: str | None = None) -> None:
    """Print for people; a command stays on one line, so that it can be copied."""
    console.print(what, style=style, highlight=False, soft_wrap=isinstance(what, str))
