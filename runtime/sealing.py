"""What clients keep for us and cannot read: encrypted reasoning, and the summaries of compactions.

AES-SIV: it needs no nonce, so nothing here is random, and whoever changes a byte is found out.  What was
sealed for one project opens for no other.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Any, Final

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

_PREFIX: Final = "rs1."  # The form; a later one has another prefix.


class Seal:
    """Seals under one key: any text that only this installation knows."""

    def __init__(self, key: str) -> None:
        self._siv = AESSIV(hashlib.sha512(b"rayspond sealed content\0" + key.encode()).digest())

    def close(self, project: str, value: Mapping[str, Any]) -> str:
        """`value` as a text that only `open` with the same key and project can read."""
        sealed = self._siv.encrypt(orjson.dumps(value), [project.encode()])
        return _PREFIX + base64.urlsafe_b64encode(sealed).decode()

    def open(self, project: str, text: str) -> dict[str, Any] | None:
        """What was sealed, or None for what was not sealed here or for another project."""
        if not text.startswith(_PREFIX):
            return None
        try:
            sealed = base64.urlsafe_b64decode(text[len(_PREFIX) :])
            value: dict[str, Any] = orjson.loads(self._siv.decrypt(sealed, [project.encode()]))
        except (binascii.Error, InvalidTag, ValueError):
            return None
        return value
