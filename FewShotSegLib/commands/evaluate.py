"""`fewshotseg evaluate`: measure a method on labelled scans."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from FewShotSegLib.commands.console import progress_bars, show_file, stdout
from FewShotSegLib.commands.options import method_options

if TYPE_CHECKING:
    from FewShotSegLib.evaluation.config import EvaluateConfig
    from FewShotSegLib.evaluation.result import EvaluationResult


def evaluate(
    data_dir: Annotated[Path, typer.Argument(help="Folder with dataset.json, <case>_image.nii.gz and <case>_label.nii.gz.")],
    method: Annotated[
        str, typer.Option(help="A method (`fewshotseg methods`) or a baseline: elastix, fill-between, grow-from-seeds, paste.")
    ] = "match",
    strategy: Annotated[str, typer.Option(help="auto, direct or propagate; for the published methods.")] = "auto",
    option: Annotated[list[str] | None, typer.Option(help="Option of the method, key=value; repeat for more.")] = None,
    protocol: Annotated[str, typer.Option(help="full-volume, oracle-z or same-scan.")] = "full-volume",
    slices_drawn: Annotated[int | None, typer.Option(help="Drawn slices of each organ.", show_default="all")] = None,
    slice_rule: Annotated[str, typer.Option(help="Which slices are drawn: spread or ends.")] = "spread",
    support: Annotated[str, typer.Option(help="last, all, or case ids such as 01,05.")] = "last",
    shots: Annotated[int, typer.Option(help="So many support scans teach together, from the last one on.")] = 1,
    support_data: Annotated[
        Path | None, typer.Option(help="Another data set whose scans teach; organs of the same names.", show_default="the same")
    ] = None,
    lay: Annotated[str, typer.Option(help="Lay queries left-right, front-back, half-turn or quarter-turn.")] = "as-it-is",
    place: Annotated[bool, typer.Option(help="Prototype heads look only around what `match` sees, even where told.")] = True,
    turns: Annotated[bool, typer.Option(help="Let the method find out that a scan lies differently.")] = True,
    together: Annotated[
        bool, typer.Option("--together", help="Queries are one list: its surest results teach its unsure scans as well.")
    ] = False,
    folds: Annotated[bool, typer.Option("--folds", help="The papers' five folds.")] = False,
    fold: Annotated[list[int] | None, typer.Option(help="Only this fold, 0 to 4; repeat for more.")] = None,
    organ: Annotated[list[str] | None, typer.Option(help="Organ to score, by name or number; repeat for more.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Name or path, for all folds.", show_default="built in")] = None,
    checkpoint_template: Annotated[str | None, typer.Option(help="Name or path with {fold} in it, one for each fold.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many scans per support.", show_default="all")] = None,
    seed: Annotated[int, typer.Option(help="Of baselines that sample at random.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    json: Annotated[Path | None, typer.Option(help="Where to write what was measured; a stopped run goes on there.")] = None,
) -> None:
    """Measure a method on a folder of labelled scans: Dice, surface Dice, HD95 and time, with confidence intervals."""
    from FewShotSegLib.evaluation.config import EvaluateConfig
    from FewShotSegLib.evaluation.tables import rich_table

    config = EvaluateConfig(
        data_dir=data_dir,
        method=method,
        strategy=strategy,
        protocol=protocol,  # type: ignore[arg-type]  # checked by the configuration
        slices_drawn=slices_drawn,
        slice_rule=slice_rule,  # type: ignore[arg-type]
        support=support,
        shots=shots,
        support_data=support_data,
        lay=lay,
        place=place,
        turns=turns,
        together=together,
        folds=tuple(fold) if fold else folds,
        organs=tuple(organ) if organ else None,
        checkpoint=checkpoint,
        checkpoint_template=checkpoint_template,
        limit=limit,
        seed=seed,
        device=device,
        json=json,
        options=method_options(option),
    )
    result = _run(config)
    stdout().print(rich_table(result))
    if json is not None:
        show_file("Measurements", json)


def _run(config: EvaluateConfig) -> EvaluationResult:
    from FewShotSegLib.evaluation.run import evaluate as measure
    from FewShotSegLib.progress import Reporter

    with progress_bars() as bars:
        bar = bars.start(Path(config.data_dir).name)
        reporter = Reporter({"measuring": 1.0}, lambda moment: bars.move(bar, moment))
        return measure(config, on_scan=lambda done, total, records: reporter.step("measuring", done / total))
