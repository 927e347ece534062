"""Which mechanisms there are, how each one is removed, and which tests must notice."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tests.mutations.mutation import Mutation
from tests.mutations.postgres import POSTGRES

_CONTRACT: Final = ("tests/contract/test_store.py", "tests/contract/test_store_beside.py")
_SQL_WRITER: Final = ("tests/unit/eventstore/test_sql_writer.py",)
_SQL_SCHEMA: Final = ("tests/unit/eventstore/test_sql_schema.py",)
_LEASES: Final = ("tests/unit/eventstore/test_leases.py", "tests/contract/test_store_beside.py")
_SEALING: Final = ("tests/contract/test_sealing.py",)
_VERIFY: Final = ("tests/unit/eventstore/test_verify.py",)
_FOLLOW: Final = ("tests/unit/eventstore/test_follow.py",)
_ACTOR: Final = ("tests/unit/actors/test_response_actor.py",)
_ENDS: Final = ("tests/unit/actors/test_response_ends.py",)
_CRASHES: Final = ("tests/property/test_actor_crashes.py",)
_SEAM: Final = ("tests/property/test_actor_seam.py",)
_TOOLS: Final = ("tests/property/test_actor_tools.py",)
_HOSTS: Final = ("tests/unit/actors/test_supervisor.py", "tests/unit/actors/test_fleet.py")
_LOST_WORK: Final = ("tests/unit/actors/test_lost_work.py",)
_DECIDER: Final = ("tests/unit/response/test_decider.py",)
_RELAY: Final = ("tests/unit/eventstore/test_relay_order.py",)
_CONVERSATIONS: Final = ("tests/unit/conversation/test_decider.py",)

UNIT: Final = "eventstore/unit.py"
MEMORY: Final = "eventstore/memory.py"
COMMIT: Final = "eventstore/sql/sqlite_commit.py"
CONNECTION: Final = "eventstore/sql/sqlite_connection.py"
LEASES: Final = "eventstore/sql/leases.py"
VERIFY: Final = "eventstore/verify.py"
FOLLOW: Final = "eventstore/follow.py"
JOURNAL: Final = "actors/journal.py"
DECIDER: Final = "runtime/response/decider.py"

_TABLE: Final = (
    # One writer.
    Mutation(
        "an append names its epoch",
        UNIT,
        "    elif append.epoch != head.epoch:\n",
        "    elif False:\n",
        _CONTRACT,
    ),
    Mutation(
        "an append names the version before it",
        UNIT,
        "    elif append.expected != head.version:\n"
        "        raise WrongExpectedVersion(append.stream, append.expected, head.version)\n",
        "",
        _CONTRACT,
    ),
    Mutation("a take names the epoch (memory)", MEMORY, "if head.epoch != epoch:", "if False:", _CONTRACT),
    Mutation(
        "a take names the epoch (SQLite)", COMMIT, "if head.epoch != take.epoch:", "if False:", _CONTRACT
    ),
    Mutation(
        "the database guards its heads",
        COMMIT,
        "if updated != len(moved) + len(changed):",
        "if False:",
        _SQL_WRITER,
    ),
    Mutation(
        "an order to resume names the epoch",
        "actors/host.py",
        "if head.epoch != epoch:",
        "if False:",
        _LOST_WORK,
    ),
    Mutation(
        "one process owns the file",
        "eventstore/sql/owner_lock.py",
        "fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "pass",
        ("tests/unit/eventstore/test_owner_lock.py",),
    ),
    # All of a unit or nothing, and its neighbours unharmed.
    Mutation(
        "winners first: a guilty unit harms nobody else",
        COMMIT,
        "        except EventStoreError as error:\n            return error\n",
        "        except EventStoreError as error:\n            raise\n",
        _SQL_WRITER,
    ),
    Mutation(
        "a key is claimed once (memory)",
        MEMORY,
        "if (taken := self._valid_claim(claim.scope, claim.key)) is not None:",
        "if (taken := self._valid_claim(claim.scope, claim.key)) is not None and False:",
        _CONTRACT,
    ),
    Mutation(
        "a key is claimed once (SQLite)",
        COMMIT,
        "if taken is not None and (taken.expires_at is None or taken.expires_at > now):",
        "if False:",
        _CONTRACT,
    ),
    Mutation(
        "a key is claimed once within a commit",
        COMMIT,
        "taken = batch.claims.get((claim.scope, claim.key))",
        "taken = None",
        (*_CONTRACT, *_SQL_WRITER),
    ),
    # Who lives.
    Mutation(
        "a lease runs out (memory)",
        MEMORY,
        "(owner in self._leases and self._leases[owner] <= now)",
        "False",
        _CONTRACT,
    ),
    Mutation(
        "a lease runs out (SQLite)",
        LEASES,
        "(owner in self._deadlines and self._deadlines[owner] <= now)",
        "False",
        _LEASES,
    ),
    Mutation(
        "whoever was buried stays dead (memory)", MEMORY, "if holder in self._buried:", "if False:", _CONTRACT
    ),
    Mutation(
        "whoever was buried stays dead (SQLite)",
        LEASES,
        "return holder in self._buried",
        "return False",
        _LEASES,
    ),
    Mutation(
        "a host without a lease ends",
        "actors/lease.py",
        "            self._lost()\n            return False\n",
        "            return False\n",
        ("tests/unit/actors/test_lease.py",),
    ),
    Mutation(
        "the streams of a dead host get another",
        "actors/supervisor.py",
        "            await self._rehome(name)\n",
        "            pass\n",
        _HOSTS,
    ),
    Mutation(
        "a host hands back what it owns and does not run",
        "actors/host.py",
        "            if head.stream not in self._actors:\n",
        "            if False:\n",
        _LOST_WORK,
    ),
    Mutation(
        "what began and belongs to nobody is ended",
        "actors/supervisor.py",
        "        await self._place(await self._backlog.unowned())\n",
        "",
        _LOST_WORK,
    ),
    Mutation(
        "a response that kills its hosts is ended",
        "actors/response_actor.py",
        "head.epoch >= ACTIVATIONS_MAX",
        "False",
        _CRASHES,
    ),
    # On the disk.
    Mutation(
        "a commit is on the disk (synchronous=FULL)",
        CONNECTION,
        '"synchronous": "2"',
        '"synchronous": "1"',
        _SQL_SCHEMA,
    ),
    Mutation("settings are read back", CONNECTION, "if str(found) != value:", "if False:", _SQL_SCHEMA),
    Mutation(
        "what is erased is overwritten",
        CONNECTION,
        '"secure_delete": "1"',
        '"secure_delete": "0"',
        _SQL_SCHEMA,
    ),
    Mutation(
        "the database refuses to rewrite the log",
        "eventstore/sql/migrations/versions/0001_log.py",
        "        for trigger in _SQLITE_TRIGGERS:\n",
        "        for trigger in ():\n",
        _SQL_SCHEMA,
    ),
    # What is recorded can be proven.
    Mutation(
        "an erasure is its tombstone",
        UNIT,
        "    if append.erase and types != [ERASED]:\n",
        "    if False:\n",
        _CONTRACT,
    ),
    Mutation(
        "bytes without a tombstone are missed",
        VERIFY,
        "            if self.bare is None:\n",
        "            if False:\n",
        _VERIFY,
    ),
    Mutation(
        "bytes are compared with their digest",
        VERIFY,
        "if chain.digest(salt, record.first_version, chain.frame(record.payload)) != record.digest:",
        "if False:",
        _VERIFY,
    ),
    Mutation(
        "records are chained", VERIFY, "        if link != record.chain:\n", "        if False:\n", _VERIFY
    ),
    Mutation(
        "blocks lead to the head's chain",
        "eventstore/unit.py",
        "if seal.blocks[-1].chain != head.chain:",
        "if False:",
        _SEALING,
    ),
    Mutation(
        "a block holds its records and nothing else",
        "eventstore/block.py",
        "if orjson.dumps([*_fields(records), *rest]) != body[_U32:at]:",
        "if False:",
        _SEALING,
    ),
    Mutation(
        "a sealed stream takes nothing but an erasure",
        "eventstore/unit.py",
        "elif head.sealed and not append.erase:",
        "elif False:",
        _SEALING,
    ),
    Mutation(
        "what lies beside a sealed stream changes with an erasure only",
        "eventstore/unit.py",
        "        if head.sealed:\n",
        "        if False:\n",
        ("tests/contract/test_sealed_documents.py",),
    ),
    Mutation(
        "sealing fences who read before",
        "eventstore/unit.py",
        "replace(head, epoch=head.epoch + 1, sealed=True)",
        "replace(head, sealed=True)",
        _SEALING,
    ),
    Mutation(
        "erasing takes the bytes out of blocks",
        "eventstore/sql/sqlite_commit.py",
        "for row in connection.execute(sql.BLOCKS_OF, (found.id,)) if found.head.sealed else ():",
        "for row in ():",
        _SEALING,
    ),
    Mutation("positions leave no hole", VERIFY, "if record.position != position + 1:", "if False:", _VERIFY),
    # Nothing is shown that is not recorded, and nothing twice.
    Mutation(
        "what is shown was committed",
        JOURNAL,
        "            recorded, *beside = await self._commit(unit, draft, patience)\n",
        "            self._bus.publish(draft.batch(Recorded(self.stream, 0, 0, 0, 0)))\n"
        "            recorded, *beside = await self._commit(unit, draft, patience)\n",
        _ACTOR,
    ),
    Mutation(
        "a commit outlives whoever asked for it",
        JOURNAL,
        "await asyncio.shield(commit)",
        "await commit",
        (*_ENDS, *_CRASHES),
    ),
    Mutation(
        "a commit of which nobody heard is looked for",
        JOURNAL,
        "landed = await self._landed(append) if unsure else None",
        "landed = None",
        _ACTOR,
    ),
    Mutation(
        "a follower drops what it has seen",
        FOLLOW,
        "    past = min(seen + 1 - batch.first, batch.count)\n",
        "    past = 0\n",
        _FOLLOW,
    ),
    Mutation(
        "a follower notices a gap",
        FOLLOW,
        "look = lost = heard.first > seen + 1 or",
        "look = lost =",
        _FOLLOW,
    ),
    Mutation(
        "a follower that hears nothing looks where the log stands",
        FOLLOW,
        "stands is None or (stands != version and (live.lost or not patient))",
        "stands is None",
        _FOLLOW,
    ),
    Mutation(
        "a follower waits for a bus that is late",
        FOLLOW,
        "stands != version and (live.lost or not patient)",
        "stands != version",
        _FOLLOW,
    ),
    Mutation(
        "a follower is told what its buffer dropped",
        "eventstore/subscription.py",
        "        self._dropped = True\n",
        "",
        ("tests/contract/test_live_bus.py",),
    ),
    Mutation(
        "the relay remembers only what it has told",
        "eventstore/relay.py",
        "            await self._store.save_cursor(self._name, captured)\n",
        "            await self._store.save_cursor(self._name, self._newest)\n",
        _RELAY,
    ),
    Mutation(
        "what was damaged keeps nobody else waiting",
        "eventstore/relay.py",
        "            if await self.damaged.explains(record):\n",
        "            if False:\n",
        ("tests/unit/eventstore/test_relay_damaged.py",),
    ),
    Mutation(
        "the answer to a window's last message stands for all",
        "eventstore/nats_public.py",
        "asked = captured[-1:]",
        "asked = captured[:1]",
        ("tests/integration/test_public_bus.py",),
    ),
    # One end, and an answer that reads as one.
    Mutation(
        "whoever ends it first wins",
        DECIDER,
        "def _cancel(command: c.Cancel, state: ResponseState) -> list[e.Event]:\n    if state.is_over:\n",
        "def _cancel(command: c.Cancel, state: ResponseState) -> list[e.Event]:\n    if False:\n",
        _DECIDER,
    ),
    Mutation(
        "an end closes what is open", DECIDER, "    closing = _close(state)\n", "    closing = []\n", _DECIDER
    ),
    Mutation(
        "what is repeated is held back",
        "runtime/seam.py",
        "        if recorded.startswith(delta.text, at):\n",
        "        if False:\n",
        _SEAM,
    ),
    Mutation(
        "an echo of the half message is held back",
        "runtime/seam.py",
        "        if len(text) < len(echo) and echo.startswith(text):\n            return []\n",
        "        if len(text) < len(echo):\n            return self._all_heard()\n",
        _SEAM,
    ),
    Mutation(
        "white space at the seam is not doubled",
        "runtime/seam.py",
        "        new = _without(delta, same)\n",
        "        new = delta\n",
        _SEAM,
    ),
    # Nothing done twice.
    Mutation(
        "a tool that is not idempotent runs once",
        "runtime/tool_calls.py",
        "            if call_id in self._journal.state.tools and not tool.idempotent:\n",
        "            if False:\n",
        _TOOLS,
    ),
    Mutation(
        "a tool that runs again has the key that it had",
        DECIDER,
        "        return replace(before, attempt=before.attempt + 1)\n",
        '        return replace(before, attempt=before.attempt + 1, key=f"{before.key}-again")\n',
        _TOOLS,
    ),
    Mutation(
        "a call that has its output is not made again",
        DECIDER,
        "    return state.status == Status.IN_PROGRESS and ended and call_id in waiting\n",
        "    return state.status == Status.IN_PROGRESS and ended\n",
        _DECIDER,
    ),
    # Who may see what, and when.
    Mutation(
        "a parent is its own project's",
        "runtime/response/history.py",
        "lineage[-1][0].tenant != project",
        "False",
        (*_ENDS, "tests/unit/response/test_history.py"),
    ),
    Mutation(
        "a conversation is one response's at a time",
        "runtime/conversation/decider.py",
        "        return []\n    _refuse_if_locked(state)\n    if len(state.items) >= ITEMS_MAX:\n",
        "        return []\n    if len(state.items) >= ITEMS_MAX:\n",
        _CONVERSATIONS,
    ),
    *POSTGRES,
)

_FOUND_BY_SEEDS: Final = (
    "an append names its epoch",
    "an append names the version before it",
    "a take names the epoch (memory)",
    "a key is claimed once (memory)",
    "a host without a lease ends",
    "the streams of a dead host get another",
    "what is shown was committed",
    "a follower drops what it has seen",
    "a follower notices a gap",
    "the relay remembers only what it has told",
    "whoever ends it first wins",
    "a tool that is not idempotent runs once",
    "a tool that runs again has the key that it had",
)
"""Mechanisms that the simulator must miss too, within the seeds of `make test`."""

TABLE: Final = (
    *_TABLE,
    *(
        replace(row, mechanism=f"{row.mechanism} (simulated)", tests=("tests/simulator/test_simulator.py",))
        for row in _TABLE
        if row.mechanism in _FOUND_BY_SEEDS
    ),
)
