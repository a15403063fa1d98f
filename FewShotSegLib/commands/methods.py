"""`fewshotseg methods`: what can be chosen with --method, and its options."""

from __future__ import annotations

from FewShotSegLib.commands.console import stdout


def methods() -> None:
    """List the methods, their options and defaults."""
    from dataclasses import fields

    from rich.table import Table

    from FewShotSegLib.methods import create_method, list_methods

    table = Table("method", "what it is", "options (--option key=value)", show_lines=True)
    for name in list_methods():
        method = create_method(name)
        options = [f"{f.name}={getattr(method.config, f.name)}" for f in fields(method.config) if f.type in SIMPLE]
        table.add_row(name, (type(method).__doc__ or "").strip().splitlines()[0], "\n".join(options))
    stdout().print(table)


SIMPLE = ("int", "float", "bool", "str")
