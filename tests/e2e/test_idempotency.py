"""`Idempotency-Key` as clients send it, against two replicas of a running server."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import openai
import pytest

from tests.e2e.upstream import Upstream, own


async def test_64_requests_with_one_key_make_one_response(
    async_client: openai.AsyncOpenAI, upstream: Upstream
) -> None:
    """Those that come too early are told which response to wait for; afterwards all get its answer."""
    model, headers = own("deltas=5&interval_ms=20"), {"Idempotency-Key": str(uuid4())}

    async def ask() -> str:
        try:
            return (await async_client.responses.create(model=model, extra_headers=headers)).id
        except openai.ConflictError as early:
            return str(early.body["response_id"]) if isinstance(early.body, dict) else "none"

    assert len(set(await asyncio.gather(*(ask() for _ in range(64))))) == 1
    patient = async_client.with_options(max_retries=10)
    answers = [await patient.responses.create(model=model, extra_headers=headers) for _ in range(4)]
    assert len({answer.to_json() for answer in answers}) == 1
    assert len(upstream.calls(model)) == 1


def test_a_client_that_retries_gets_the_answer_to_its_first_try(
    client: openai.OpenAI, upstream: Upstream
) -> None:
    """It obeys what a 409 says: it asks again while the request runs, and not where that is of no use."""
    model, headers = own("deltas=20&interval_ms=50"), {"Idempotency-Key": f'"{uuid4()}"'}
    with client.responses.create(model=model, stream=True, extra_headers=headers) as stream:
        first = next(iter(stream))
        assert first.type == "response.created"
        patient = client.with_options(max_retries=20)
        again = [*patient.responses.create(model=model, stream=True, extra_headers=headers)]
    assert [event.sequence_number for event in again] == list(range(len(again)))
    assert again[0] == first
    assert again[-1].type == "response.completed"
    with pytest.raises(openai.ConflictError) as refused:
        patient.responses.create(model=model, input="Another question", extra_headers=headers)
    assert refused.value.code == "idempotency_key_conflict"
    client.responses.delete(first.response.id)
    with pytest.raises(openai.ConflictError) as gone:
        patient.responses.create(model=model, stream=True, extra_headers=headers)
    assert gone.value.code == "idempotency_response_erased"
    assert len(upstream.calls(model)) == 1
