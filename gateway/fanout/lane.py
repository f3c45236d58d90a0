"""Lanes: sockets that receive the same bytes at the same time. Pure."""

from collections.abc import Sequence
from typing import Protocol

from gateway.fanout.batch import Batch, Item

REPLAY_PIECE_BYTES = 128 * 1024


class Sink(Protocol):
    """A socket as seen by the fan-out. No method raises or calls back into the fan-out."""

    user_id: str
    session_id: str
    opened_ms: int

    def write(self, batch: Batch) -> None:
        """Send a batch; a slow socket queues the items that must not be dropped."""

    def unsubscribed(self, channel: str) -> None:
        """Record that the server has ended the socket's subscription."""

    def close_for_resume(self) -> None:
        """Close a socket that cannot be brought up to date, so that its client resumes."""


class Written:
    """Counts of writes since the last `measure`. `sample` is the first buffer of a flush."""

    __slots__ = ("frames", "sample", "size_bytes", "writes")

    def __init__(self, sample: bytes | None = None) -> None:
        self.writes = 0
        self.frames = 0
        self.size_bytes = 0
        self.sample = sample

    def add(self, sockets: int, frames: int, size_bytes: int) -> None:
        """Count `frames` of `size_bytes` in total, written to each of `sockets`."""
        self.writes += sockets
        self.frames += sockets * frames
        self.size_bytes += sockets * size_bytes


class Lane:
    """A set of sockets and the items buffered for their next common write."""

    __slots__ = ("due", "flushed_at_s", "items", "sinks")

    is_sampled = True  # whether a buffer of this lane may become `Written.sample`

    def __init__(self) -> None:
        self.sinks: set[Sink] = set()
        self.items: list[Item] = []
        self.flushed_at_s = 0.0
        self.due = False

    def due_at_s(self, now_s: float, gather_s: float) -> float:
        """Return the time to flush the lane: at once if it was idle, otherwise `gather_s` after the last flush."""
        return max(self.flushed_at_s + gather_s, now_s)

    def flush(self, now_s: float, written: Written) -> None:
        """Write the buffered items. HOT: one call per socket."""
        items, self.items = self.items, []
        self.flushed_at_s = now_s
        if not items:
            return
        batch = Batch(items)
        for sink in self.sinks:
            sink.write(batch)
        written.add(len(self.sinks), len(items), len(batch.data))
        if self.is_sampled and written.sample is None and self.sinks:
            written.sample = batch.data


def replay(sink: Sink, frames: Sequence[bytes]) -> None:
    """Write complete frames of any total size to one socket, in order, about 128 KB at a time.

    Frames that the transport does not accept wait in the send queue by reference: the frames of a replay are the same
    objects for all its readers.
    """
    piece: list[bytes] = []
    size_bytes = 0
    for frame in frames:
        if piece and size_bytes + len(frame) > REPLAY_PIECE_BYTES:
            sink.write(Batch.replay(piece))
            piece, size_bytes = [], 0
        piece.append(frame)
        size_bytes += len(frame)
    if piece:
        sink.write(Batch.replay(piece))


def send(sink: Sink, frames: Sequence[bytes]) -> None:
    """Write complete frames to one socket, lossless and in order."""
    if frames:
        sink.write(Batch.lossless(frames))
