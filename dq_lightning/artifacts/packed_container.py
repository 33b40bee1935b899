"""The outer layer of a packed file: magic, version, lengths, checksums, one zstd frame."""

import hashlib
import struct
from pathlib import Path

import zstandard

MAGIC = b"\x89DQ\r\n\x1a\n\x00"
"""Not text, and spoilt by any transfer that changes line ends or drops the eighth bit."""
VERSION = 1
_HEADER = struct.Struct("<8sIQQ32s32s")
_COMPRESSION = zstandard.ZstdCompressionParameters(
    strategy=zstandard.STRATEGY_BTULTRA,
    window_log=22,
    hash_log=20,
    chain_log=20,
    search_log=3,
    min_match=6,
    target_length=64,
    write_content_size=True,
)
_LARGEST_WINDOW = 2**27
_SMALL = 2**26
_LARGEST_RATIO = 256


def enclose(raw: bytes) -> list[bytes]:
    """The header and the zstd frame of `raw`; the same bytes for the same content.

    Codes have hardly any repetitions; what is won is won by the entropy coder. So matches are
    priced before they are taken (which the quick levels do not do) and hardly searched for (which
    the slow levels spend their time on).
    """
    stored = zstandard.ZstdCompressor(compression_params=_COMPRESSION).compress(raw)
    if len(raw) > _most(len(stored)):
        raise ValueError(f"{len(raw):,} bytes shrink to {len(stored):,}: these are no weights.")
    header = _HEADER.pack(
        MAGIC, VERSION, len(stored), len(raw), _digest(stored), _digest(raw)
    )  # fmt: skip
    return [header, stored]


def opened(path: Path) -> bytes:
    """What `enclose` enclosed; ValueError with the reason where a byte of the file is wrong.

    Nothing larger is allocated than the file and the raw length that its header gives, which must
    be in proportion to the file's.
    """
    if not path.is_file():
        raise ValueError("there is no such file")
    with path.open("rb") as stream:
        stored, raw_length, of_stored, of_raw = _read(stream.read(_HEADER.size), path)
        content = stream.read(stored)
    if len(content) != stored or _digest(content) != of_stored:
        raise ValueError("its bytes do not have the checksum that it gives; copy it again")
    raw = _decompressed(content, raw_length)
    if _digest(raw) != of_raw:
        raise ValueError("its content does not have the checksum that it gives; copy it again")
    return raw


def _read(header: bytes, path: Path) -> tuple[int, int, bytes, bytes]:
    """Stored and raw length, and their checksums."""
    if header[: len(MAGIC)] != MAGIC:
        raise ValueError("it does not begin as a packed file does")
    if len(header) < _HEADER.size:
        raise ValueError("it ends within its header; copy it again")
    _, version, stored, raw, of_stored, of_raw = _HEADER.unpack(header)
    if version != VERSION:
        advice = "update dq_lightning" if version > VERSION else "pack the student again"
        raise ValueError(f"it has version {version}, and this reader knows {VERSION}; {advice}")
    size = path.stat().st_size
    if size != _HEADER.size + stored:
        raise ValueError(f"it has {size:,} bytes instead of {_HEADER.size + stored:,}")
    if raw > _most(stored):
        raise ValueError(f"its {stored:,} stored bytes claim to hold {raw:,}")
    return stored, raw, of_stored, of_raw


def _decompressed(stored: bytes, length: int) -> bytes:
    try:
        # zstd allocates what the frame says, so that is compared first
        said = zstandard.get_frame_parameters(stored)
        if said.content_size != length or said.window_size > max(_LARGEST_WINDOW, length):
            raise ValueError("its frame has another length than its header says")
        decompressor = zstandard.ZstdDecompressor()
        return decompressor.decompress(stored, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ValueError(f"it cannot be decompressed: {error}") from error


def _most(stored: int) -> int:
    """The longest content that so many stored bytes may hold."""
    return max(_SMALL, _LARGEST_RATIO * stored)


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
