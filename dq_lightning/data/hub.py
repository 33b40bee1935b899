"""Data sets of the Hugging Face hub, or of a local folder that is laid out like one."""

import hashlib
from pathlib import Path

from datasets import Dataset, load_dataset
from datasets.exceptions import DatasetsError

from dq_lightning.data.columns import Columns, PlacedRows
from dq_lightning.data.source import DataSource, file_digest


class Hub(DataSource):
    """Named splits of one `datasets` repository.

    name: a hub name ("EdinburghNLP/xsum") or a local folder of parquet, JSON or CSV files.
    config, revision: as `datasets.load_dataset` takes them (None: the default).
    train, validation, test: split names; slices such as "train[:98%]" cut one split into several,
    and None leaves the split out.
    """

    def __init__(
        self,
        name: str,
        config: str | None = None,
        revision: str | None = None,
        train: str | None = "train",
        validation: str | None = "validation",
        test: str | None = "test",
        columns: Columns | None = None,
    ) -> None:
        given = {"train": train, "validation": validation, "test": test}
        self.names = {split: name for split, name in given.items() if name}
        if not name or not self.names:
            raise ValueError(
                "the hub data set needs data.name=<owner/name> and at least one split, such as "
                "data.train=train."
            )
        self.name, self.config, self.revision = name, config, revision
        self.columns = columns or Columns()
        folder = Path(name).expanduser()
        self.folder = folder if folder.is_dir() else None
        if self.folder is None and name.startswith(("/", "~", ".")):
            raise ValueError(
                f"data.name={name} is no folder; write the folder that holds the data files, or "
                "a hub name such as data.name=EdinburghNLP/xsum."
            )
        self._loaded: dict[str, Dataset] = {}

    def fingerprint(self) -> str:
        """Hash of the settings and of the content.

        The content of a local folder is its files' bytes. That of a hub repository is the commit
        it resolved to: `datasets` names the folder of the prepared files by it, which is how a
        moved branch is noticed and a run without network still finds the same fingerprint.
        """
        content = _folder_content(self.folder) if self.folder else self._resolved()
        settings = (self.name if not self.folder else "", self.config, self.revision)
        identity = repr((settings, self.names, self.columns.identity(), content))
        return f"hub-1-{hashlib.sha256(identity.encode()).hexdigest()}"

    def splits(self) -> dict[str, Dataset]:
        return self.columns.read(
            {
                split: (f"data.name={self.name} (split {self.names[split]})", _numbered(rows))
                for split, rows in self._load().items()
            }
        )

    def _resolved(self) -> list[tuple[str, int]]:
        return [
            (
                Path(rows.cache_files[0]["filename"]).parent.name if rows.cache_files else "",
                len(rows),
            )
            for rows in self._load().values()
        ]

    def _load(self) -> dict[str, Dataset]:
        if not self._loaded:
            try:
                loaded = load_dataset(
                    str(self.folder or self.name),
                    self.config,
                    revision=None if self.folder else self.revision,
                    split=list(self.names.values()),
                )
            except (OSError, ValueError, RuntimeError, DatasetsError) as error:
                raise ValueError(self._explain(error)) from error
            self._loaded = dict(zip(self.names, loaded, strict=True))  # pyright: ignore
        return self._loaded

    def _explain(self, error: Exception) -> str:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        named = f"data.name={self.name}"
        if "split" in reason:
            wanted = " ".join(f"data.{split}={name}" for split, name in self.names.items())
            return f"{named}, {wanted}: {reason}; name those there are, null for none."
        if "BuilderConfig" in reason or "Config name" in reason:
            return f"{named}, data.config={self.config}: {reason}; name one of those."
        return (
            f"{named} cannot be loaded: {reason}; check the name and the network, or use local "
            "files: data=jsonl data.train=<file> data.validation=<file> data.test=<file>."
        )


def _folder_content(folder: Path) -> list[tuple[str, str]]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    visible = ((path, path.relative_to(folder)) for path in files)
    return [
        (name.as_posix(), file_digest(path))
        for path, name in visible
        if not any(part.startswith(".") for part in name.parts)
    ]


def _numbered(rows: Dataset) -> PlacedRows:
    return ((f"row {number}", rows[number - 1]) for number in range(1, len(rows) + 1))
