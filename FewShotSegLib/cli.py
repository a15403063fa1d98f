"""The command `fewshotseg`. Each command has a file in `commands/`; what is heavy is imported when a command runs."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

import typer

from FewShotSegLib.allocator import reuse_large_blocks
from FewShotSegLib.commands.app import app as serve_app
from FewShotSegLib.commands.checkpoints import checkpoints
from FewShotSegLib.commands.cohort import cohort
from FewShotSegLib.commands.compare import compare
from FewShotSegLib.commands.console import show_error
from FewShotSegLib.commands.demo import demo
from FewShotSegLib.commands.evaluate import evaluate
from FewShotSegLib.commands.info import info
from FewShotSegLib.commands.methods import methods
from FewShotSegLib.commands.segment import segment
from FewShotSegLib.errors import Cancelled, FewShotSegError
from FewShotSegLib.interrupts import INTERRUPTED, Interrupted, raise_on_interrupt

REFUSED = 2
"""Exit code when the input, an option or the place for the output cannot be used."""
DEBUG = "--debug"

app = typer.Typer(
    help="Draw an organ once, on one slice or one volume; it is segmented through the rest of that scan and through new scans.",
    epilog=f"With {DEBUG} anywhere on the line, an error also shows where in the program it arose.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (segment, evaluate, compare, methods, checkpoints, demo, info, serve_app):
    app.command()(command)
app.add_typer(cohort, name="cohort")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    0: done. 1: some of several scans failed. 2: nothing could be done; what was found, what was expected and what to do
    stands on stderr. 130: stopped by Ctrl-C.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    reuse_large_blocks()
    try:
        with raise_on_interrupt():
            app([argument for argument in given if argument != DEBUG], prog_name="fewshotseg")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0
    except (Cancelled, Interrupted):
        show_error(Cancelled())
        return INTERRUPTED
    except FewShotSegError as error:
        if DEBUG in given:
            traceback.print_exc()
        show_error(error)
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
