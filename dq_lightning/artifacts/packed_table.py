"""What is in a packed file, as a table in the terminal."""

import sys
from collections import defaultdict

from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from dq_lightning.artifacts.packed_student import PackedStudent


def print_packed(
    student: PackedStudent, size: int, teacher_bytes: int | None, console: Console | None = None
) -> None:
    """One line a kind of content with its bytes before compression, then the file's bytes.

    teacher_bytes: those of the teacher in fp32, which the file is compared with.
    """
    table = Table(box=box.SIMPLE_HEAD, title="Packed student", title_justify="left")
    table.add_column("")
    table.add_column("values", justify="right", no_wrap=True)
    table.add_column("bytes", justify="right", no_wrap=True)
    for name, values, length in packed_rows(student):
        table.add_row(name, f"{values:,}" if values else "", f"{length:,}")
    table.add_section()
    table.add_row("file on disk, compressed", "", f"{size:,}", style="bold")
    if teacher_bytes:
        table.add_row("times smaller than the teacher in fp32", "", f"{teacher_bytes / size:.2f}x")
    (console or Console(file=sys.stdout)).print(table)


def packed_rows(student: PackedStudent) -> list[tuple[str, int, int]]:
    """Kind of content, how many numbers it has (0: no numbers), its bytes before compression."""
    codes: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    scales: list[Tensor] = []
    for name, matrix in student.matrices.items():
        kind = "positions" if "embed_positions" in name else "weights"
        found = codes[f"{kind} of {matrix.bits} bit{'s' * (matrix.bits > 1)}"]
        for place, number in enumerate((1, matrix.rows * matrix.columns, matrix.fields.numel())):
            found[place] += number
        parts = (matrix.scale, matrix.zero_point, matrix.zero_code)
        scales += [part for part in parts if part is not None]
    rows = [
        (f"{kind}, {number} {'matrices' if number > 1 else 'matrix'}", values, length)
        for kind, (number, values, length) in sorted(codes.items())
    ]
    floats = list(student.tensors.values())
    rows += [
        (name, sum(t.numel() for t in tensors), sum(t.numel() * t.element_size() for t in tensors))
        for name, tensors in (("their scales", scales), ("norms, biases and other floats", floats))
        if tensors
    ]
    if student.files:
        rows.append(("tokenizer and card", 0, sum(map(len, student.files.values()))))
    return rows
