"""The corpus as WebSocket frames in a file, so that it is made once and sent by the hundred thousand a second.

Files stand below ``build/benchmarks/corpus`` and are named by what made them. Times in them are shifted to now when
they are loaded, by whole minutes so that candles stay where they are.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
import time
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.corpus import Corpus

if TYPE_CHECKING:
    from collections.abc import Iterator

START_MS = 1_760_000_040_000
"""Event time of the first message in a file: a whole minute."""
_MINUTE_MS = 60_000
_TIME = re.compile(rb'(?<="[EtTOC]":)1[67]\d{11}(?=[,}])')
_TEXT = 0x81
_SHORT, _MEDIUM = 126, 1 << 16


def framed(payload: bytes, opcode: int = _TEXT) -> bytes:
    """Return one frame of a server: whole, unmasked."""
    size = len(payload)
    if size < _SHORT:
        return bytes((opcode, size)) + payload
    if size < _MEDIUM:
        return struct.pack(">BBH", opcode, 126, size) + payload
    return struct.pack(">BBQ", opcode, 127, size) + payload


def unframed(frame: bytes) -> bytes:
    """Return the payload of what :func:`framed` gave."""
    return frame[{126: 4, 127: 10}.get(frame[1], 2) :]


def unwrapped(frame: bytes) -> bytes:
    """Return the frame of a message without the combined streams' wrapper."""
    return framed(frame[frame.index(b'"data":') + 7 : -1])


@dataclass(frozen=True, slots=True)
class Frames:
    """Messages in order.

    Attributes:
        names: the streams' names.
        streams: of each message the index of its stream.
        ends: of each message where its frame ends in ``blob``.
        blob: all frames.
    """

    names: list[str]
    streams: array[int]
    ends: array[int]
    blob: bytes

    def __len__(self) -> int:
        return len(self.streams)

    def each(self) -> Iterator[tuple[int, bytes]]:
        """Yield of each message its stream's index and its frame."""
        blob, began = self.blob, 0
        for stream, end in zip(self.streams, self.ends, strict=True):
            yield stream, blob[began:end]
            began = end


def prepared(directory: Path, *, symbols: int, count: int, seed: int = 1) -> Path:
    """Return the file of so many messages, made now (20 µs a message) where it is not there."""
    source = Path(__file__).with_name("corpus.py").read_bytes() + Path(__file__).read_bytes()
    version = hashlib.sha256(source).hexdigest()[:8]
    path = directory / f"{symbols}-symbols-{count}-messages-seed-{seed}-{version}.frames"
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        _write(path, Corpus(symbols=symbols, seed=seed, start_ms=START_MS), count)
    return path


def _write(path: Path, corpus: Corpus, count: int) -> None:
    known: dict[str, int] = {}
    streams, ends, frames, at = array("I"), array("Q"), [], 0
    for message in corpus.messages(count):
        frame = framed(message.payload)
        at += len(frame)
        streams.append(known.setdefault(message.stream, len(known)))
        ends.append(at)
        frames.append(frame)
    head = json.dumps({"names": list(known), "count": count}).encode()
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        for part in (len(head).to_bytes(8, "big"), head, streams.tobytes(), ends.tobytes(), *frames):
            file.write(part)
    partial.replace(path)


def loaded(path: Path, now_ms: int | None = None) -> Frames:
    """Return the messages of a file, with the first one's event time in the minute of ``now_ms``."""
    with path.open("rb") as file:
        head = json.loads(file.read(int.from_bytes(file.read(8), "big")))
        streams, ends = array("I"), array("Q")
        streams.frombytes(file.read(head["count"] * streams.itemsize))
        ends.frombytes(file.read(head["count"] * ends.itemsize))
        blob = file.read()
    now = int(time.time() * 1000) if now_ms is None else now_ms
    shift = (now - START_MS) // _MINUTE_MS * _MINUTE_MS
    times: dict[bytes, bytes] = {}

    def shifted(found: re.Match[bytes]) -> bytes:
        text = found[0]
        moved = times.get(text)
        if moved is None:
            moved = times[text] = b"%d" % (int(text) + shift)
        return moved

    return Frames(head["names"], streams, ends, _TIME.sub(shifted, blob))
