"""``dq-generate model.dq < documents.txt > texts.txt``: one generated text a line."""

import argparse
import contextlib
import os
import stat
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from dq_lightning.runtime.documents import Document, LineFormat, windows
from dq_lightning.runtime.settings import SETTINGS

BATCH = 16
_WINDOW = 8  # batches whose documents are sorted by length together
_INTERRUPTED, _BROKEN_PIPE = 130, 141  # as a shell reports SIGINT and SIGPIPE


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0; 1: lines were wrong; 2: nothing could be generated."""
    given = _parser().parse_args(arguments)
    try:
        return _generate(given)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # What is still in the buffer would fail once more when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _failed(f"{place}{error.strerror}")
    except ValueError as error:
        return _failed(str(error))


def _failed(reason: str) -> int:
    print(f"dq-generate: {reason}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("dq-generate", description=__doc__)
    parser.add_argument("model", type=Path, help="the packed student, a file such as model.dq")
    parser.add_argument("--jsonl", action="store_true", help="read and write JSON Lines")
    parser.add_argument("--field", default="text", help="field of a JSON object with the text")
    parser.add_argument("--output", type=Path, metavar="FILE", help="written whole or not at all")
    parser.add_argument("--engine", default="auto", choices=("auto", "native", "torch"))
    parser.add_argument("--device", default="cpu", help="of the torch engine, such as cuda")
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--batch-size", type=int, help="documents that are generated together")
    group = parser.add_argument_group(
        "generation", "as in transformers' GenerationConfig; default: what the student stores"
    )
    for name, setting in SETTINGS.items():
        option = f"--{name.replace('_', '-')}"
        if setting.kind is bool:
            group.add_argument(option, action=argparse.BooleanOptionalAction)
        else:
            group.add_argument(option, type=setting.kind, metavar=setting.kind.__name__.upper())
    group.add_argument("--early-stopping", choices=("true", "false", "never"))
    group.add_argument("--eos-token-id", type=int, nargs="+", metavar="INT")
    group.add_argument("--bad-words-ids", type=int, nargs="+", metavar="INT", help="single tokens")
    return parser


def _settings(given: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given, in the types of GenerationConfig."""
    names = (*SETTINGS, "early_stopping", "eos_token_id", "bad_words_ids")
    chosen = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    if "early_stopping" in chosen:
        word = chosen["early_stopping"]
        chosen["early_stopping"] = {"true": True, "false": False}.get(word, word)
    if "bad_words_ids" in chosen:
        chosen["bad_words_ids"] = [[token] for token in chosen["bad_words_ids"]]
    return chosen


def _generate(given: argparse.Namespace) -> int:
    if given.batch_size is not None and given.batch_size < 1:
        raise ValueError(f"--batch-size {given.batch_size} cannot be; write 1 or more.")
    # Not before the options are known to be right: torch takes a second.
    from dq_lightning.runtime.answering import Answering
    from dq_lightning.runtime.loading import load

    engine = {"engine": given.engine, "threads": given.threads, "device": given.device}
    runtime = load(given.model, **engine, batch_size=given.batch_size or BATCH)
    settings = _settings(given)
    if runtime.settings(**settings).num_return_sequences > 1 and not given.jsonl:
        raise ValueError("Several texts a document do not fit into one line; write --jsonl too.")
    batch_size = given.batch_size or max(BATCH, 4 * (given.threads or os.cpu_count() or 1))
    form = LineFormat(given.jsonl, given.field)
    # Not sys.stdin, which Python could not close at its end while the reading thread waits in it.
    stream = open(0, "rb", closefd=False)  # noqa: SIM115
    with _progress(stream) as (tell, done):
        answering = Answering(runtime, form, batch_size, tell, done, settings)
        lines = answering.lines(windows(stream, form, _WINDOW * batch_size))
        _write((line.encode() for line in lines), given.output)
        if answering.num_cut > 1:
            tell(f"{answering.num_cut} documents were too long and lost their end")
    return 1 if answering.num_wrong else 0


def _write(lines: Iterator[bytes], output: Path | None) -> None:
    if output is None:
        for line in lines:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
    else:
        from dq_lightning.artifacts.atomic import write_file

        write_file(output, lines)


@contextlib.contextmanager
def _progress(
    stream: IO[bytes],
) -> Generator[tuple[Callable[[str], None], Callable[[Document], None]], None, None]:
    """A bar on stderr, over the bytes of a file or without an end; nothing off a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    status = os.fstat(stream.fileno())
    total = status.st_size if stat.S_ISREG(status.st_mode) else None
    columns = (BarColumn(), TextColumn("{task.fields[count]} texts"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total, count=0)

        def tell(sentence: str) -> None:
            console.print(sentence, markup=False, highlight=False, soft_wrap=True)

        def done(document: Document) -> None:
            progress.update(task, advance=document.size, count=document.number)

        yield tell, done


if __name__ == "__main__":
    sys.exit(main())
