"""The README inside a packed file."""

from collections.abc import Mapping
from typing import Any

from dq_lightning.artifacts.packed_student import PackedStudent

CARD = "README.md"
_SITES = ("weight", "embedding", "activation")


def model_card(
    student: PackedStudent, config: Mapping[str, Any], metrics: Mapping[str, Any]
) -> str:
    """What the student is, how good, how large, and how to run it, as Markdown.

    config: of its run, as plain values. metrics: `cell`, `primary_metric`, `teacher` and
    `student` of its metrics.json, and `bytes`, where it is known.
    """
    cell = metrics["cell"]
    bits = ", ".join(f"{cell[f'{site}_bits']} bits for {site}s" for site in _SITES)
    teacher_bytes = (metrics.get("bytes") or {}).get("teacher")
    lines = [
        f"# {student.family} student {cell['name']}",
        "",
        "A sequence-to-sequence transformer, distilled and quantized by dq_lightning.",
        "",
        f"- Family: {student.family}",
        f"- Layers: {cell['encoder_layers']} encoder, {cell['decoder_layers']} decoder",
        f"- Quantized: {bits}",
        f"- Data: {_data(config)}",
        f"- Teacher: {_teacher(config)}",
        *_scores(metrics),
        f"- Weights: {student.nbytes:,} bytes packed in memory, fewer on disk"
        + (f"; the teacher's in fp32: {teacher_bytes:,}" if teacher_bytes else ""),
        "",
        "## Use",
        "",
        "    dq-generate model.dq < texts.txt",
        "",
        "or in Python:",
        "",
        "    from dq_lightning.runtime import load",
        '    print(load("model.dq").generate(["a text"]))',
        "",
        "## Licence",
        "",
        "The weights derive from the teacher's and from the data: their licences hold. Whoever",
        "passes this file on writes down here which these are.",
    ]
    return "\n".join(lines) + "\n"


def _scores(metrics: Mapping[str, Any]) -> list[str]:
    """The primary metric on the test set, the teacher's beside it where there is one."""
    name = metrics["primary_metric"]
    teacher = (metrics.get("teacher") or {}).get(name)
    beside = "" if teacher is None else f"; the teacher's: {teacher:.4g}"
    return [f"- {name} on the test set: {metrics['student'][name]:.4g}{beside}"]


def _data(config: Mapping[str, Any]) -> str:
    """The data set's name, or the class that read it; never a path of the machine."""
    data = config["data"]
    name = data.get("name")
    if isinstance(name, str) and "/" in name and not name.startswith(("/", ".", "~")):
        return name
    return str(data["reader"]["_target_"]).rpartition(".")[2]


def _teacher(config: Mapping[str, Any]) -> str:
    """The teacher's name on the hub or in a package; a folder is told by its last part."""
    path = config["teacher"].get("path")
    if path is None:
        return "none, trained from labels"
    local = path.startswith(("/", ".", "~", "pkg://")) or path.count("/") > 1
    return path.rstrip("/").rpartition("/")[2] if local else path
