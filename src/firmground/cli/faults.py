"""What goes wrong, in one sentence and with the right exit code.

0 clean; 1 a finding at or above --fail-on; 2 error or inconclusive; 4 wrong usage. Click would exit 2 for usage and 1
for an interrupt, so its codes are mapped here, in one place.
"""

from __future__ import annotations

import errno
import sys
import traceback
import warnings
from typing import TYPE_CHECKING, Any, NoReturn

import typer
import typer.core

from firmground.errors import FirmgroundError

if TYPE_CHECKING:
    from collections.abc import Sequence

ERROR, USAGE = 2, 4


class Commands(typer.core.TyperGroup):
    """The root command: every error ends here."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> NoReturn:
        """Runs a command and exits with its code."""
        given = list(sys.argv[1:] if args is None else args)
        before = given[: given.index("--")] if "--" in given else given
        debug = "--debug" in before
        kept = [word for word in before if word != "--debug"] + given[len(before) :]
        try:
            with warnings.catch_warnings():
                if not debug:
                    warnings.simplefilter("ignore")  # what libraries tell their callers is not for users
                code = super().main(kept, *rest, **{**extra, "standalone_mode": False})
        except Exception as error:
            if debug:
                traceback.print_exc()
            code = report(error)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; an interrupt ends it in one line."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            say("interrupted; nothing half-written is left")
            raise typer.Exit(ERROR) from None


def report(error: Exception) -> int:
    """Says what went wrong and returns the exit code for it."""
    if hasattr(error, "format_message"):
        return report_usage(error)
    if isinstance(error, BrokenPipeError):
        return ERROR
    say(sentence(error))
    return error.exit_code if isinstance(error, FirmgroundError) else ERROR


def report_usage(error: Any) -> int:
    """Says what is wrong with the command line; a bare command name has already shown its help."""
    context = getattr(error, "ctx", None)
    message = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(message, err=True)
        return USAGE
    path = context.command_path if context is not None else "firmground"
    say(f"{message.rstrip('.')}; see '{path} --help'")
    return USAGE


def sentence(error: Exception) -> str:
    """One sentence about any error."""
    if isinstance(error, FirmgroundError):
        return str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out of memory; use a smaller batch_size, or a machine with more"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "the disk is full; nothing half-written was left, make room and run again"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    reason = " ".join(str(error).split())[:300]
    return f"unexpected {type(error).__name__}: {reason or 'no reason given'} (run again with --debug to see where)"


def say(message: str) -> None:
    """A line on stderr, in which nothing of a hostile model can steer the terminal."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in message)
    typer.echo(f"firmground: {shown}", err=True)
