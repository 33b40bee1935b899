"""Every file of a sweep's report, from its run folders alone."""

from pathlib import Path

from dq_lightning.artifacts.artifact import Artifact
from dq_lightning.reporting.collect import Row, collect
from dq_lightning.reporting.dashboard import dashboard
from dq_lightning.reporting.latex import to_latex
from dq_lightning.reporting.run_folders import read_json
from dq_lightning.reporting.tables import sweep_name, to_csv, to_markdown
from dq_lightning.reporting.timing import timing_csv

_UNFINISHED = {"queued", "running"}


def write_report(sweep_dir: Path | str, figures: bool | None = None) -> list[Row]:
    """Writes tables, times, dashboard and figures into the sweep's folder, each in one step.

    ``figures`` None: only once no cell runs or waits, since they take longer than all the rest.
    """
    rows = collect(sweep_dir)
    folder = Artifact(sweep_dir)
    manifest, _ = read_json(folder.run_dir / "sweep.json")
    name = str(manifest.get("name") or sweep_name(folder.run_dir))
    folder.write_text("report.csv", to_csv(rows))
    folder.write_text("timing.csv", timing_csv(rows))
    folder.write_text("report.md", to_markdown(rows, name, manifest.get("command")))
    folder.write_text("report.tex", to_latex(rows, name))
    folder.write_text("dashboard.html", dashboard(rows, name, manifest))
    if figures is None:
        figures = not any(row["status"] in _UNFINISHED for row in rows)
    if figures:
        from dq_lightning.reporting.sweep_figures import write_figures  # matplotlib loads slowly

        write_figures(rows, folder.run_dir)
    return rows
