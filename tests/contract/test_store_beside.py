"""The contract of what an `EventStore` keeps beside its records: claims, documents, leases, cursors, heads.

The same for every adapter.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from eventstore.errors import ClaimTaken, LeaseLost, StreamNotFound, WrongExpectedVersion
from eventstore.events import Claim, Document, HeadChange, NewStream
from eventstore.ports import EventStore
from tests.contract.store_contract import Clock, create, erase, more, unit, whole_log


async def test_a_claim_is_taken_once(store: EventStore) -> None:
    """The second is told who has it, and with which fingerprint; another scope or key is free."""
    first = Claim("p1", "key", b"\x00\xff", "a")
    await store.append(unit(create("a"), claims=(first,)))
    with pytest.raises(ClaimTaken) as raised:
        await store.append(unit(create("b"), claims=(Claim("p1", "key", b"other", "b"),)))
    error = raised.value
    assert (error.scope, error.key, error.fingerprint, error.stream) == ("p1", "key", b"\x00\xff", "a")
    await store.append(unit(create("c"), claims=(Claim("p2", "key", b"", "c"), Claim("p1", "kez", b"", "c"))))
    assert await store.claim("p1", "key") == first
    assert await store.claim("p2", "key") == Claim("p2", "key", b"", "c")


async def test_an_expired_claim_may_be_taken_anew(store: EventStore, clock: Clock) -> None:
    await store.append(unit(create("a"), claims=(Claim("s", "k", b"1", "a", expires_at=clock.ms + 2000),)))
    clock.advance(1.999)
    assert await store.claim("s", "k") is not None
    with pytest.raises(ClaimTaken):
        await store.append(unit(create("b"), claims=(Claim("s", "k", b"2", "b"),)))
    clock.advance(0.001)
    assert await store.claim("s", "k") is None
    await store.append(unit(create("b"), claims=(Claim("s", "k", b"2", "b"),)))
    clock.advance(1e9)
    assert await store.claim("s", "k") == Claim("s", "k", b"2", "b")


async def test_who_makes_a_stream_again_with_its_claim_is_told_of_the_stream(store: EventStore) -> None:
    """So that a create that was made already meets itself, and not its own claim as somebody else's."""
    again = unit(create("a"), claims=(Claim("s", "k", b"f", "a"),))
    await store.append(again)
    with pytest.raises(WrongExpectedVersion):
        await store.append(again)


async def test_a_claim_outlives_the_words_of_its_stream(store: EventStore) -> None:
    await store.append(unit(create("a"), claims=(Claim("s", "k", b"f", "a"),)))
    await store.append(unit(erase("a", 0)))
    assert await store.claim("s", "k") == Claim("s", "k", b"f", "a")


async def test_of_many_who_claim_at_once_one_succeeds(store: EventStore) -> None:
    outcomes = await asyncio.gather(
        *(
            store.append(unit(create(f"s{index}"), claims=(Claim("s", "k", b"%d" % index, f"s{index}"),)))
            for index in range(20)
        ),
        return_exceptions=True,
    )
    [winner] = [index for index, outcome in enumerate(outcomes) if not isinstance(outcome, BaseException)]
    assert all(isinstance(outcome, ClaimTaken) for index, outcome in enumerate(outcomes) if index != winner)
    assert await store.claim("s", "k") == Claim("s", "k", b"%d" % winner, f"s{winner}")
    assert [record.stream for record in await whole_log(store)] == [f"s{winner}"]


async def test_a_later_document_replaces_the_earlier_one(store: EventStore) -> None:
    """One of each kind a stream; empty bytes delete it; a unit may hold nothing else."""
    await store.append(
        unit(create("a"), documents=(Document("a", "note", b"1"), Document("a", "seal", b"s")))
    )
    assert await store.append(unit(documents=(Document("a", "note", b"\x002"),))) == []
    assert await store.document("a", "note") == b"\x002"
    await store.append(unit(documents=(Document("a", "note", b""), Document("a", "none", b""))))
    assert await store.document("a", "note") is None
    assert await store.document("a", "seal") == b"s"
    with pytest.raises(StreamNotFound):
        await store.append(unit(documents=(Document("none", "note", b"1"),)))


async def time_passes(store: EventStore, clock: Clock, seconds: float) -> None:
    """As it does for a store that is asked now and then: a writer that hears nobody lets no term pass."""
    while seconds > 0:
        clock.advance(min(seconds, 1.0))
        seconds -= 1.0
        await store.expired()


async def test_a_lease_runs_out_by_the_stores_clock(store: EventStore, clock: Clock) -> None:
    """Its holder is listed while it owns streams, and may renew late: nobody has buried it."""
    await store.append(unit(create("a", new=NewStream("c", "p", "s", owner="h1"))))
    await store.renew("h1", 3.0)
    await store.renew("idle", 1.0)
    await time_passes(store, clock, 2.9)
    clock.ms -= 3_600_000
    assert list(await store.expired()) == []
    await store.renew("h1", 3.0)
    await time_passes(store, clock, 2.9)
    assert list(await store.expired()) == []
    await time_passes(store, clock, 0.2)
    assert list(await store.expired()) == ["h1"]
    await store.renew("h1", 3.0)
    assert list(await store.expired()) == []


async def test_the_buried_never_renew(store: EventStore, clock: Clock) -> None:
    """They are listed at once, until somebody else owns what they owned."""
    await store.append(unit(create("a", new=NewStream("c", "p", "s", owner="h1"))))
    await store.append(unit(create("b", new=NewStream("c", "p", "s", owner="h1"))))
    await store.renew("h1", 3.0)
    await store.renew("h2", 1000.0)
    await store.bury("h1")
    await store.bury("h1")
    await store.bury("never seen")
    with pytest.raises(LeaseLost, match="h1"):
        await store.renew("h1", 3.0)
    with pytest.raises(LeaseLost):
        await store.renew("never seen", 3.0)
    assert list(await store.expired()) == ["h1"]
    await store.take("a", epoch=1, owner="h2")
    assert list(await store.expired()) == ["h1"]
    await store.append(unit(more("b", 0, change=HeadChange(release=True))))
    assert list(await store.expired()) == []


async def test_a_cursor_never_moves_backwards(store: EventStore) -> None:
    assert await store.cursor("relay") == 0
    await store.save_cursor("relay", 7)
    await store.save_cursor("relay", 5)
    await store.save_cursor("other", 1)
    assert (await store.cursor("relay"), await store.cursor("other")) == (7, 1)


async def some_heads(store: EventStore) -> None:
    """Six streams; the third one's position of creation is 4, for `b` was appended to before."""
    for name, category, tenant, state, owner in (
        ("a", "response", "p1", "queued", None),
        ("b", "response", "p1", "in_progress", "h1"),
        ("c", "response", "p2", "queued", "h1"),
        ("d", "relay", "p1", "queued", "h2"),
        ("e", "response", "p1", "completed", None),
        ("f", "response", "p1", "queued", "h1"),
    ):
        await store.append(unit(create(name, new=NewStream(category, tenant, state, owner))))
        if name == "b":
            await store.append(unit(more("b", 0)))


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ({}, "abcdef"),
        ({"category": "response"}, "abcef"),
        ({"tenant": "p2"}, "c"),
        ({"states": ["queued"]}, "acdf"),
        ({"states": ["in_progress", "completed"]}, "be"),
        ({"states": []}, ""),
        ({"owner": "h1"}, "bcf"),
        ({"owner": "nobody"}, ""),
        ({"category": "response", "tenant": "p1", "states": ["queued"]}, "af"),
        ({"category": "response", "states": ["queued", "in_progress"], "owner": "h1"}, "bcf"),
        ({"newest_first": True}, "fedcba"),
        ({"limit": 2}, "ab"),
        ({"limit": 2, "newest_first": True}, "fe"),
        ({"after": 2}, "cdef"),
        ({"after": 4, "limit": 2}, "de"),
        ({"after": 4, "newest_first": True}, "ba"),
        ({"after": 5, "newest_first": True, "states": ["queued"], "limit": 1}, "c"),
        ({"after": 99}, ""),
    ],
)
async def test_heads_are_found_by_all_that_is_asked(
    store: EventStore, question: dict[str, Any], answer: str
) -> None:
    await some_heads(store)
    found = await store.heads(**question)
    assert "".join(head.stream for head in found) == answer
    assert [head for head in found if await store.head(head.stream) != head] == []


async def test_heads_page_by_page_are_all_heads(store: EventStore) -> None:
    await some_heads(store)
    for newest_first in (False, True):
        seen: list[str] = []
        after: int | None = None
        while page := await store.heads(after=after, newest_first=newest_first, limit=2):
            seen += [head.stream for head in page]
            after = page[-1].created
        assert "".join(seen) == ("fedcba" if newest_first else "abcdef")


async def test_documents_of_many_streams_are_read_at_once(store: EventStore) -> None:
    """Those of one tenant, and of one kind; what is not there is left out."""
    for name, tenant in (("a", "p1"), ("b", "p1"), ("c", "p2"), ("d", "p1")):
        documents = (Document(name, "note", name.encode()), Document(name, "other", b"-"))
        new = NewStream("response", tenant, "completed")
        await store.append(unit(create(name, new=new), documents=documents))
    await store.append(unit(erase("b", 0)))
    asked = ["d", "a", "b", "c", "none", "a"]
    assert await store.documents("p1", asked, "note") == {"a": b"a", "d": b"d"}
    assert await store.documents("p1", asked, "none") == {}
    assert await store.documents("p1", [], "note") == {}


async def test_a_line_of_ancestors_comes_oldest_first_with_its_documents(store: EventStore) -> None:
    """A fork shares its ancestors; an erased one has no document left but is still there."""
    parent: str | None = None
    for name in ("a", "b", "c", "d"):
        new = NewStream("response", "p", "completed", parent=parent)
        documents = (Document(name, "snap", name.encode()), Document(name, "other", b"-"))
        await store.append(unit(create(name, new=new), documents=documents))
        parent = name
    await store.append(unit(create("fork", new=NewStream("response", "p", "queued", parent="b"))))
    await store.append(unit(erase("a", 0)))

    async def line(stream: str) -> list[tuple[str, bytes | None]]:
        found = await store.lineage(stream, "snap")
        assert [head for head, _ in found] == [await store.head(head.stream) for head, _ in found]
        return [(head.stream, document) for head, document in found]

    assert await line("d") == [("a", None), ("b", b"b"), ("c", b"c"), ("d", b"d")]
    assert await line("fork") == [("a", None), ("b", b"b"), ("fork", None)]
    assert await line("a") == [("a", None)]


async def test_a_line_of_ancestors_ends_where_a_parent_is_missing(store: EventStore) -> None:
    await store.append(unit(create("a", new=NewStream("c", "p", "s", parent="none"))))
    assert [head.stream for head, _ in await store.lineage("a", "snap")] == ["a"]


async def test_a_very_long_line_of_ancestors_is_read_whole(store: EventStore) -> None:
    names = [f"s{index}" for index in range(1500)]
    for start in range(0, len(names), 500):
        await store.append(
            unit(
                *(
                    create(names[i], new=NewStream("c", "p", "s", parent=names[i - 1] if i else None))
                    for i in range(start, start + 500)
                )
            )
        )
    assert [head.stream for head, _ in await store.lineage(names[-1], "snap")] == names


async def test_streams_are_counted_by_tenant(store: EventStore) -> None:
    await some_heads(store)
    everything = await store.heads(limit=100)
    for categories, states in (
        ({"response"}, {"queued"}),
        ({"response", "relay"}, {"queued", "completed"}),
        ((), ()),
    ):
        counted = await store.tally(categories=sorted(categories), states=sorted(states))
        found = [head for head in everything if head.category in categories and head.state in states]
        assert counted == {
            tenant: sum(head.tenant == tenant for head in found) for tenant in {head.tenant for head in found}
        }
        for tenant in {"p1", "nobody"}:
            one = await store.tally(categories=sorted(categories), states=sorted(states), tenant=tenant)
            assert one == {name: count for name, count in counted.items() if name == tenant}


async def test_what_a_tenant_keeps_is_counted_page_by_page_and_goes_when_it_is_erased(
    store: EventStore,
) -> None:
    async def all_of(tenant: str, limit: int) -> int:
        total, after = 0, 0
        while True:
            size, next = await store.stored(tenant, after=after, limit=limit)
            total += size
            if next is None:
                return total
            assert next > after
            after = next

    one = NewStream("response", "t1", "new")
    await store.append(unit(create("a", new=one), documents=(Document("a", "snapshot", b"x" * 1000),)))
    first = await all_of("t1", 500)
    assert 1000 < first < 2000
    for name in "bc":
        await store.append(unit(create(name, new=one)))
    await store.append(unit(create("d")))
    assert await all_of("t1", 1) == await all_of("t1", 2) == await all_of("t1", 500) > first
    assert await all_of("nobody", 500) == 0
    await store.append(unit(erase("a", 0)))
    assert await all_of("t1", 500) < first
