"""``python -m dq_lightning.benchmarks.latency <model.dq or run dir>``, or with ``--shape``.

Generation time of a packed student and of its opponents on this machine: all generate exactly as
many tokens from the same sources, in turns, and medians are compared. With --json every cell is
kept as soon as it is measured, and the same command goes on where an earlier one was stopped.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from dq_lightning.artifacts.export_command import packed_file_of
from dq_lightning.benchmarks import latency_subject
from dq_lightning.benchmarks.contender import Subject, loader_of, opponents
from dq_lightning.benchmarks.latency import HEADLINE, Cell, grid
from dq_lightning.benchmarks.latency_record import LatencyRecord, usable_threads
from dq_lightning.benchmarks.latency_run import run
from dq_lightning.benchmarks.latency_table import print_latency
from dq_lightning.errors import one_sentence_errors

SOURCE_LENGTH, TOKENS = 512, (60, 142)
BITS, LAYERS = "2-2-8", "6-1"
_OF_A_SHAPE, _OF_A_FILE = ("bits", "layers"), ("teacher", "sources")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, or one sentence on stderr and exit with 1."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if (given.model is None) == (given.shape is None):
        parser.error("give a packed file or --shape, one of them")
    _refuse_options_of_the_other_kind(parser, given)
    with one_sentence_errors(Path.cwd() / "conf", "train"):
        against = [name for name in given.against.split(",") if name]
        for name in against:
            loader_of(name)
        if given.model:
            given.model = packed_file_of(given.model)
        _fit_defaults(given)
        cells = _cells(given)
        record = LatencyRecord(given.json, _settings(given, against))
        if not all(record.has(cell) for cell in cells):
            with tempfile.TemporaryDirectory() as folder:
                subject = _subject(given, Path(folder))
                run(subject, _sources(given, subject), cells, against, given.repeats, record)
        print_latency(record.content, Console(file=sys.stdout))


def _refuse_options_of_the_other_kind(
    parser: argparse.ArgumentParser, given: argparse.Namespace
) -> None:
    kind, others = ("--shape", _OF_A_FILE) if given.shape else ("a packed file", _OF_A_SHAPE)
    wrong = [f"--{name}" for name in others if getattr(given, name) is not None]
    if wrong:
        parser.error(f"{kind} takes no {' and no '.join(wrong)}; leave that out")


def _fit_defaults(given: argparse.Namespace) -> None:
    """What was not given: a shape's bits and layers, and lengths as far as it has positions."""
    if given.shape:
        given.bits, given.layers = given.bits or BITS, given.layers or LAYERS
    if given.source_length and given.tokens:
        return
    if given.shape:
        positions = latency_subject.positions_of_shape(given.shape)
    else:
        positions = latency_subject.positions_of(given.model)
    longest = positions or max(SOURCE_LENGTH, *TOKENS)
    given.source_length = given.source_length or min(SOURCE_LENGTH, longest)
    given.tokens = given.tokens or sorted({min(number, longest) for number in TOKENS})


def _cells(given: argparse.Namespace) -> list[Cell]:
    if given.quick:
        return grid(given.threads, [HEADLINE["batch"]], [HEADLINE["beams"]], given.tokens[:1])
    return grid(given.threads, given.batch, given.beams, given.tokens)


def _settings(given: argparse.Namespace, against: Sequence[str]) -> dict[str, Any]:
    """What all cells of a record share; files and a teacher's folder by their content too."""
    names = ("shape", *_OF_A_SHAPE) if given.shape else _OF_A_FILE
    chosen = {name: getattr(given, name) for name in (*names, "source_length", "engine", "seed")}
    model: dict[str, str] = {}
    if given.model:
        model = {"model": str(given.model), "sha256": latency_subject.digest([given.model])}
    if given.sources:
        model["sources_sha256"] = latency_subject.digest([given.sources])
    if given.teacher and (files := latency_subject.teacher_files(given.teacher)):
        model["teacher_sha256"] = latency_subject.digest(files)
    return {**model, **chosen, "against": list(against), "repeats": given.repeats}


def _subject(given: argparse.Namespace, folder: Path) -> Subject:
    if given.shape:
        return latency_subject.of_shape(
            given.shape, given.bits, given.layers, given.seed, folder, given.engine
        )
    return latency_subject.of_file(given.model, given.teacher, folder, given.engine)


def _sources(given: argparse.Namespace, subject: Subject) -> list[list[int]]:
    number = max(given.batch)
    if given.sources is None:
        return latency_subject.random_sources(
            subject.student, number, given.source_length, given.seed
        )
    return latency_subject.text_sources(subject.student, given.sources, number, given.source_length)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m dq_lightning.benchmarks.latency",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("model", nargs="?", type=Path, help="a packed file, or a run directory with model.dq")
    add("--shape", help="instead of a model: random weights of this option of conf/teacher")
    add("--bits", help=f"of --shape (default: {BITS})")
    add("--layers", help=f"of --shape (default: {LAYERS})")
    add("--against", default="hf", metavar="NAMES", help=f"some of {','.join(opponents())}")
    add("--teacher", metavar="PATH", help="what Hugging Face runs beside a model")
    texts = "for a model: texts, one a line (default: random tokens)"
    add("--sources", type=Path, metavar="FILE", help=texts)
    add("--source-length", type=_at_least_one, help="tokens (default: 512, or as it has)")
    add("--batch", type=_numbers, default=[1, 8], help="sentences at once (default: 1,8)")
    add("--beams", type=_numbers, default=[1, 4], help="1 is greedy (default: 1,4)")
    add("--tokens", type=_numbers, help="to generate (default: 60,142, or as it has)")
    threads = [number for number in (1, 2) if number <= usable_threads()]
    add("--threads", type=_numbers, default=threads, help="(default: 1,2, as far as there are)")
    add("--repeats", type=_at_least_one, default=5, help="runs of a cell (default: %(default)s)")
    add("--quick", action="store_true", help="batch 1, beam 4, the first --tokens alone")
    add("--engine", default="auto", choices=("auto", "native", "torch"), help="of ours")
    add("--seed", type=int, default=0, help="of weights and sources (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="keep every cell there, and go on from there")
    return parser


def _numbers(text: str) -> list[int]:
    return list(dict.fromkeys(_at_least_one(part) for part in text.split(",")))


def _at_least_one(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1; write one: 60")
    return number
