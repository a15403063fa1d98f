"""`fewshotseg compare`: one table of many methods, data sets and protocols from one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from FewShotSegLib.commands.console import show_file, stdout


def compare(
    data_dirs: Annotated[list[Path], typer.Argument(help="Folders with dataset.json and <case>_image/_label.nii.gz.")],
    output: Annotated[Path, typer.Option(help="Folder for results, tables, figures and the page; finished cells are kept.")],
    method: Annotated[
        list[str], typer.Option(help="Method, baseline, or `untrained` (match with an untrained encoder); repeat for more.")
    ] = ["match", "alpnet", "paste"],  # noqa: B006
    protocol: Annotated[
        list[str], typer.Option(help="full-volume, oracle-z or same-scan, with :K for K drawn slices; repeat.")
    ] = ["full-volume"],  # noqa: B006
    checkpoint: Annotated[list[str] | None, typer.Option(help="METHOD=NAME or path; repeat.")] = None,
    untrained_weights: Annotated[
        Path | None, typer.Option(help="ImageNet weights of the untrained encoder.", show_default="random weights")
    ] = None,
    checkpoint_template: Annotated[
        str | None, typer.Option(help="Name or path with {fold} in it, for all other methods.")
    ] = None,
    folds: Annotated[bool, typer.Option("--folds", help="The papers' five folds.")] = False,
    fold: Annotated[list[int] | None, typer.Option(help="Only this fold, 0 to 4; repeat for more.")] = None,
    support: Annotated[str, typer.Option(help="last, all, or case ids such as 01,05.")] = "last",
    limit: Annotated[int | None, typer.Option(help="At most so many scans per support.", show_default="all")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    pictures: Annotated[int, typer.Option(help="So many worst cases of the first method are drawn, and the best one.")] = 3,
) -> None:
    """Measure many methods on many data sets under many protocols; a run that was stopped goes on where it was."""
    from FewShotSegLib.errors import ConfigError
    from FewShotSegLib.evaluation.comparison import Cell, CompareConfig
    from FewShotSegLib.evaluation.comparison import compare as run
    from FewShotSegLib.evaluation.comparison_report import markdown, write_comparison
    from FewShotSegLib.evaluation.figures import box_plots, picture_all
    from FewShotSegLib.evaluation.isolated import evaluate_apart

    pairs = [text.partition("=") for text in checkpoint or []]
    if any(not sign for _, sign, _ in pairs):
        raise ConfigError(f"The option --checkpoint {' '.join(checkpoint or [])}", "METHOD=NAME or METHOD=PATH")
    config = CompareConfig(
        data_dirs=tuple(data_dirs),
        methods=tuple(method),
        protocols=tuple(protocol),
        output=output,
        checkpoints=tuple((name, value) for name, _, value in pairs),
        untrained_weights=str(untrained_weights or ""),
        checkpoint_template=checkpoint_template,
        folds=tuple(fold) if fold else folds,
        support=support,
        limit=limit,
        device=device,
    )

    def tell(done: int, total: int, cell: Cell) -> None:
        stdout().print(f"{done + 1} of {total}: {cell.method} on {cell.dataset}, {cell.protocol}")

    outcomes = run(config, evaluate_apart, tell)
    stdout().print(markdown(outcomes), markup=False, soft_wrap=True)  # a wrapped row is no table
    page = write_comparison(output, outcomes, box_plots(outcomes), picture_all(outcomes, method[0], pictures))
    show_file("Comparison", page)
