"""A `Batch` as one bus message: a small header, the frames' lengths, then the frames' bytes.

Only the live bus's processes read it, all of one version; what does not decode counts as lost,
never as an error.
"""

from __future__ import annotations

import struct
from typing import Final

from eventstore.events import Batch

FRAME_BYTES_MAX: Final = 512 * 1024
"""Above this the numbers travel alone: NATS takes 1 MiB a message, and readers have the log."""

_FORMAT: Final = 1
_LAST: Final = 1
_TRANSIENT: Final = 2
_WITH_FRAMES: Final = 4
# format, flags, first, count, version, position, length of the tenant; big-endian without padding.
_HEADER = struct.Struct(">BBQIqQH")


def encode(batch: Batch, frame_bytes_max: int = FRAME_BYTES_MAX) -> tuple[bytes, ...]:
    """The message's parts, to be joined; without the frames where they are longer than `frame_bytes_max`."""
    frames = batch.frames
    if frames is not None and sum(map(len, frames)) > frame_bytes_max:
        frames = None
    tenant = batch.tenant.encode()
    flags = (
        (_LAST if batch.last else 0)
        | (_TRANSIENT if batch.transient else 0)
        | (_WITH_FRAMES if frames is not None else 0)
    )
    header = _HEADER.pack(
        _FORMAT, flags, batch.first, batch.count, batch.version, batch.position, len(tenant)
    )
    if frames is None:
        return header, tenant
    return header, tenant, struct.pack(f">{len(frames)}I", *map(len, frames)), *frames


def decode(channel: str, message: bytes) -> Batch | None:
    """The batch, or None where the message is not one."""
    try:
        kind, flags, first, count, version, position, tenant_size = _HEADER.unpack_from(message)
        if kind != _FORMAT:
            return None
        start = _HEADER.size + tenant_size
        tenant = message[_HEADER.size : start].decode()
        frames = _frames(message, start, count) if flags & _WITH_FRAMES else None
    except (struct.error, ValueError):
        return None
    return Batch(
        channel=channel,
        first=first,
        count=count,
        frames=frames,
        version=version,
        position=position,
        tenant=tenant,
        last=bool(flags & _LAST),
        transient=bool(flags & _TRANSIENT),
    )


def _frames(message: bytes, start: int, count: int) -> tuple[bytes, ...]:
    sizes = struct.unpack_from(f">{count}I", message, start)
    start += 4 * count
    if start + sum(sizes) != len(message):
        raise ValueError("a frame is cut")
    frames = []
    for size in sizes:
        end = start + size
        frames.append(message[start:end])
        start = end
    return tuple(frames)
