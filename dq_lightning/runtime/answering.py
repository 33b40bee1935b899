"""Documents to lines of generated text: batches by length, lines in the documents' order."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from dq_lightning.runtime.documents import Document, LineFormat
from dq_lightning.runtime.loading import Runtime


@dataclass
class Answering:
    """Generates for windows of documents and counts what was wrong.

    settings: as of `Runtime.generate`. batch_size: documents that are generated together.
    tell: takes sentences about single lines; done: takes each document once its line is out.
    """

    runtime: Runtime
    form: LineFormat
    batch_size: int
    tell: Callable[[str], None]
    done: Callable[[Document], None]
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    num_wrong: int = 0
    num_cut: int = 0

    def lines(self, windows: Iterable[list[Document]]) -> Iterator[str]:
        """One line a document, in order, as soon as it and all before it are generated."""
        for window in windows:
            answers: dict[int, list[str]] = {p: [] for p, d in enumerate(window) if d.text is None}
            batches = self._batches(window)
            following = 0
            while following < len(window):
                if following not in answers:
                    answers |= self._generated(next(batches))
                    continue
                document = window[following]
                if document.error is not None:
                    self.num_wrong += 1
                    self.tell(f"line {document.number}: {document.error}")
                yield self.form.write(document, answers.pop(following))
                self.done(document)
                following += 1

    def _batches(self, window: list[Document]) -> Iterator[dict[int, list[int]]]:
        """Sources by their place in the window, those of like length together, earliest first."""
        places = [place for place, document in enumerate(window) if document.text is not None]
        sources: dict[int, list[int]] = {}
        encoded = self.runtime.texts.encode([window[place].text or "" for place in places])
        for place, source in zip(places, encoded, strict=True):
            sources[place] = source.token_ids
            if source.cut:
                self._note_cut(window[place], len(source.token_ids))
        by_length = sorted(places, key=lambda place: len(sources[place]))
        size = self.batch_size
        batches = [by_length[start : start + size] for start in range(0, len(places), size)]
        for batch in sorted(batches, key=min):
            yield {place: sources[place] for place in batch}

    def _generated(self, batch: dict[int, list[int]]) -> dict[int, list[str]]:
        sources = list(batch.values())
        generations = self.runtime.generate_ids(sources, scores=False, **self.settings)
        texts = self.runtime.texts.decode([generation.token_ids for generation in generations])
        each = len(texts) // len(batch)
        return {p: texts[row * each : (row + 1) * each] for row, p in enumerate(batch)}

    def _note_cut(self, document: Document, length: int) -> None:
        self.num_cut += 1
        if self.num_cut == 1:
            self.tell(f"line {document.number} is longer than {length} tokens: its end is left out")
