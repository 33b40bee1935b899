"""``python -m dq_lightning.reporting <sweep dir>``: rebuilds the report and prints its table.

``python -m dq_lightning.reporting ledger`` prints published numbers beside measured ones; a sweep's
folder of that name is ``./ledger``.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dq_lightning.reporting import ledger_tables
from dq_lightning.reporting.report import write_report
from dq_lightning.reporting.terminal import print_sweep_table


def main(arguments: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["ledger"]:
        return ledger_tables.main(words[1:])
    parser = argparse.ArgumentParser("python -m dq_lightning.reporting", description=__doc__)
    parser.add_argument("sweep_dir", type=Path, help="the folder that holds the runs of a sweep")
    sweep_dir: Path = parser.parse_args(words).sweep_dir
    if not sweep_dir.is_dir():
        print(
            f"No such sweep folder: {sweep_dir}; give the folder that the sweep named at its end.",
            file=sys.stderr,
        )
        return 2
    print_sweep_table(write_report(sweep_dir, figures=True))
    print(f"Report: {sweep_dir / 'report.md'}\nDashboard: {sweep_dir / 'dashboard.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
