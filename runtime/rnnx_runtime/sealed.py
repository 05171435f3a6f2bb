"""Records as portable bytes, checked by length and hash: no pickle, little-endian.

Layout: eight bytes that name the kind, the header's length (uint32), the header (JSON, with the
`version` of the kind), the payload, and a SHA-256 over all of it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

_LENGTH = struct.Struct("<I")
_HASH_BYTES = 32

# What reading a header that somebody made up may raise.
ERRORS = (KeyError, TypeError, ValueError, RecursionError, OverflowError, struct.error)


def seal(kind: bytes, version: int, header: Mapping[str, Any], payload: bytes) -> bytes:
    """The record as bytes; `kind` is eight of them."""
    import json

    text = json.dumps({"version": version, **header}).encode()
    body = b"".join([kind, _LENGTH.pack(len(text)), text, payload])
    return body + _digest(body)


def is_whole(kind: bytes, data: bytes) -> bool:
    """Whether no bytes are missing or changed."""
    body, digest = data[:-_HASH_BYTES], data[-_HASH_BYTES:]
    return len(body) >= len(kind) + _LENGTH.size and _digest(body) == digest


def unseal(kind: bytes, version: int, data: bytes) -> tuple[dict[str, Any], memoryview]:
    """The header, without its version, and the payload of a record that is whole.

    Raises:
        One of `ERRORS`: somebody made it up, or the version is another.
    """
    import json

    start = len(kind) + _LENGTH.size
    end = start + _LENGTH.unpack_from(data, len(kind))[0]
    header = json.loads(data[start:end])
    if header["version"] != version:
        raise ValueError(f"version {header['version']!r} is not {version}")
    del header["version"]
    return header, memoryview(data)[end:-_HASH_BYTES]


def _digest(body: bytes) -> bytes:
    import hashlib  # takes as long to load as half of the runtime, and few streams need it

    return hashlib.sha256(body).digest()
