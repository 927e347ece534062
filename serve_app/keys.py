"""API keys: how their texts are made, recognised and hashed.

    rs_<project>_<key>_<secret>

A key's text names its project and itself, so that one read tells whether it is good.  The secret holds 128
random bits and a mark under the server's own secret: who makes keys up is refused without a look into the
log.  Only a keyed hash of the text is kept anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable
from typing import Final, NamedTuple

from runtime.project.commands import NewKey
from runtime.project.state import DEFAULT_PROJECT

PROJECT_PREFIX: Final = "proj_"
KEY_PREFIX: Final = "key_"
SECRET_BYTES: Final = 16
MARK_BYTES: Final = 8
_PROJECT_ID: Final = re.compile(r"default|proj_[0-9a-f]{24}")
_TEXT: Final = re.compile(r"rs_(default|[0-9a-f]{24})_([0-9a-f]{16})_([A-Za-z0-9_-]{32})")


class Shown(NamedTuple):
    """What a key's text says of itself."""

    project: str
    key_id: str


def is_project_id(text: str) -> bool:
    """Whether this can be the id of a project; what cannot is unknown, without a look into the log."""
    return _PROJECT_ID.fullmatch(text) is not None


def new_project_id(random_bytes: Callable[[int], bytes]) -> str:
    """An id of 96 random bits."""
    return PROJECT_PREFIX + random_bytes(12).hex()


class KeyHashes:
    """Hashes keys with the server's own secret: whoever reads the log cannot even check a guess."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def make(self, project: str, name: str, random_bytes: Callable[[int], bytes]) -> tuple[str, NewKey]:
        """A new key's text, to be shown once, and what is recorded of it."""
        key_id = KEY_PREFIX + random_bytes(8).hex()
        secret = random_bytes(SECRET_BYTES)
        named = f"rs_{project.removeprefix(PROJECT_PREFIX)}_{key_id.removeprefix(KEY_PREFIX)}_"
        text = named + base64.urlsafe_b64encode(secret + self._mark(named, secret)).decode()
        return text, NewKey(key_id, name, self.digest(text), text[-4:])

    def parse(self, text: str) -> Shown | None:
        """The project and the key that a text names, or None for what was not made here."""
        found = _TEXT.fullmatch(text)
        if found is None:
            return None
        held = base64.urlsafe_b64decode(found[3])
        mark = self._mark(text[: found.start(3)], held[:SECRET_BYTES])
        if not hmac.compare_digest(held[SECRET_BYTES:], mark):
            return None
        project = found[1] if found[1] == DEFAULT_PROJECT else PROJECT_PREFIX + found[1]
        return Shown(project, KEY_PREFIX + found[2])

    def digest(self, text: str) -> str:
        """What is recorded of a key's text, hex."""
        return hmac.digest(self._secret, b"key\0" + text.encode(), hashlib.sha256).hex()

    def matches(self, text: str, digest: str) -> bool:
        """Whether a text is the one that was recorded, in constant time."""
        return hmac.compare_digest(self.digest(text), digest)

    def _mark(self, named: str, secret: bytes) -> bytes:
        return hmac.digest(self._secret, b"key mark\0" + named.encode() + secret, hashlib.sha256)[:MARK_BYTES]

    def local_admin_key(self) -> str:
        """The admin key of whoever can read the server's secret: it is derived, and nowhere written."""
        return "rs_admin_" + hmac.digest(self._secret, b"local admin key", hashlib.sha256).hex()
