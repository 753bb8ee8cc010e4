"""Reads files up to a size: what is larger, or unpacks to more, is refused before it fills the memory."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from adaptive_ttc.errors import AdaptiveTTCError

# most bytes, far above what any such file needs and below what fills a machine's memory
SAMPLES = 2**30  # recorded samples, or the trace of a solution
CALIBRATION = 2**29  # a file of a calibration
PROBLEM = 2**24  # a line of a data set
RECIPE = 2**20

_GZIP = b"\x1f\x8b"
_PIECE = 2**20


def read_whole(
    path: str | Path, most: int, error: type[AdaptiveTTCError], remedy: str, *, packed: bool = False
) -> bytes:
    """The bytes of a file, at most ``most`` of them; ``packed``: unpacked where it is gzip.

    Raises:
        error: it holds more.
        OSError, EOFError, zlib.error: it cannot be read or unpacked.
    """
    pieces, size = [], 0
    with _opened(path, packed) as file:
        while piece := file.read(_PIECE):
            pieces.append(piece)
            size += len(piece)
            if size > most:
                raise error(f"{path} holds more than {most:,} bytes, the most that is read of such a file: {remedy}")
    return b"".join(pieces)


def read_lines(
    path: str | Path, most: int, error: type[AdaptiveTTCError], remedy: str, *, packed: bool = False
) -> Iterator[str]:
    """The lines of a file in UTF-8 (a byte order mark is left out), one by one, each of at most ``most`` bytes; as
    :func:`read_whole` for the rest, and UnicodeDecodeError.
    """
    number = 0
    with _opened(path, packed) as file:
        while line := file.readline(most + 1):
            number += 1
            if len(line) > most:
                raise error(f"{path}, line {number} holds more than {most:,} bytes, the most that is read: {remedy}")
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")


def _opened(path: str | Path, packed: bool) -> IO[bytes] | gzip.GzipFile:
    if packed:
        with Path(path).open("rb") as file:
            if file.read(len(_GZIP)) == _GZIP:
                return gzip.open(path)
    return Path(path).open("rb")
