"""A sweep as one more W&B run of its group: the grid as a table, the figures, the best cell."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dq_lightning.artifacts.artifact import Artifact
from dq_lightning.reporting.collect import Row, columns
from dq_lightning.reporting.costs import ON_DISK, main_size
from dq_lightning.reporting.pareto import best_row

_FIGURES = ("grid", "size", "time")


def log_sweep(project: str, sweep_dir: Path, rows: Sequence[Row]) -> None:
    """Log the sweep's report; the same sweep goes on with the same run.

    Its exit code is 1 where a cell is not finished. `wandb_report.md` says what to put in a W&B
    report, which W&B makes from runs that are online alone.
    """
    import wandb  # slow to import

    from dq_lightning.training.loggers import has_wandb_key

    mode: Any = os.environ.get("WANDB_MODE") or ("online" if has_wandb_key() else "offline")
    name = sweep_dir.name
    run = wandb.init(
        project=project,
        dir=str(sweep_dir),
        id=f"sweep-{hashlib.sha256(name.encode()).hexdigest()[:12]}",
        resume="allow",
        name=f"sweep {name}",
        group=name,
        job_type="sweep",
        mode=mode,
        settings=wandb.Settings(silent=True),
    )
    names: list[Any] = columns(rows)  # a list of keys, in W&B's own type
    table = wandb.Table(columns=names, data=[[row.get(column) for column in names] for row in rows])
    pictures = {figure: sweep_dir / f"{figure}.png" for figure in _FIGURES}
    found = {key: wandb.Image(str(file)) for key, file in pictures.items() if file.is_file()}
    run.log({"grid_table": table, **found})
    run.summary.update(_summary(rows))
    run.finish(exit_code=int(any(row["status"] != "finished" for row in rows)))
    Artifact(sweep_dir).write_text("wandb_report.md", _report(project, name, rows))


def _summary(rows: Sequence[Row]) -> dict[str, Any]:
    counts = {f"cells/{state}": 0 for state in ("finished", "failed", "interrupted", "queued")}
    for row in rows:
        key = f"cells/{row['status']}"
        counts[key] = counts.get(key, 0) + 1
    primary = _primary(rows)
    best = best_row(rows, primary)
    if best is None or primary is None:
        return counts
    sizes = ("stored_bytes", "stored_ratio", "packed_identical", f"packed_{primary}")
    known = {f"best/{name}": best[name] for name in sizes if best.get(name) is not None}
    return counts | {"best/cell": best["cell"], f"best/{primary}": best[primary], **known}


def _primary(rows: Sequence[Row]) -> str | None:
    return next((row["primary_metric"] for row in rows if row["primary_metric"]), None)


def _report(project: str, name: str, rows: Sequence[Row]) -> str:
    """What a W&B report of this sweep shows, panel by panel."""
    metric = _primary(rows) or "the primary metric"
    size = "stored" if main_size(rows) is ON_DISK else "student_nominal"
    return "\n".join(
        [
            f"# {name}",
            "",
            f"Project `{project}`, run set: group `{name}`. Offline runs come first:",
            "`wandb sync <run directory>/wandb/offline-run-*` for each cell and for this folder.",
            "",
            "| panel | runs | shows |",
            "| --- | --- | --- |",
            "| table | job type `sweep` | `grid_table` |",
            "| images | job type `sweep` | `grid`, `size`, `time` |",
            f"| scatter | cells | x `bytes/{size}` (log), y `drop/{metric}` |",
            f"| scatter | cells | x `items_per_second/packed`, y `drop/{metric}` |",
            "| lines | cells | `train/*` and `validation/*` over `trainer/global_step` |",
            "| table | cells | `predictions` |",
            "",
        ]
    )
