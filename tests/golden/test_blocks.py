"""What was sealed by any release can be read: the bytes of ADR 17, never regenerated."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eventstore.block import unpack
from eventstore.dictionary import DICTIONARY
from eventstore.documents import unpack_documents
from eventstore.events import Block, Record

SEALED = json.loads(Path(__file__).with_name("blocks.json").read_text())
SALT = bytes.fromhex(SEALED["salt"])


def block(fields: dict[str, Any]) -> Block:
    return Block(**{**fields, "chain": bytes.fromhex(fields["chain"]), "data": bytes.fromhex(fields["data"])})


def record(fields: dict[str, Any]) -> Record:
    digest, chain = bytes.fromhex(fields["digest"]), bytes.fromhex(fields["chain"])
    payload = tuple(text.encode() for text in fields["payload"])
    return Record(
        **{**fields, "types": tuple(fields["types"]), "digest": digest, "chain": chain, "payload": payload}
    )


RECORDS = [record(fields) for fields in SEALED["records"]]


@pytest.mark.parametrize("sealed", SEALED["blocks"], ids=lambda sealed: sealed["name"])
def test_a_block_of_any_format_holds_its_records(sealed: dict[str, Any]) -> None:
    assert unpack(block(sealed["block"]), SALT) == RECORDS
    bare = [replace(record, payload=None) for record in RECORDS]
    assert unpack(block(sealed["erased"]), None) == bare


def test_a_block_behind_the_first_holds_its_records() -> None:
    assert unpack(block(SEALED["tail"]), SALT) == RECORDS[1:]


def test_packed_documents_can_be_read() -> None:
    beside = block(SEALED["blocks"][-1]["block"])
    documents = {kind: text.encode() for kind, text in SEALED["documents"].items()}
    assert unpack_documents(bytes.fromhex(SEALED["packed"]), beside) == documents


def test_the_dictionary_never_changes() -> None:
    assert hashlib.sha256(DICTIONARY).hexdigest() == SEALED["dictionary_sha256"]
