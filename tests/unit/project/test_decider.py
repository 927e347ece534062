"""What can be asked of a project, and what follows."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import pytest

from eventstore.events import Record
from runtime.aggregate import Refused
from runtime.project import commands as c
from runtime.project import events as e
from runtime.project.aggregate import ACTIVE, ARCHIVED, HAS_KEYS, PROJECT
from runtime.project.decider import KEYS_MAX, decide
from runtime.project.errors import DefaultProject, TooManyKeys, UnknownKey, UnknownProject
from runtime.project.state import DEFAULT_PROJECT, ENDED_KEPT, INITIAL, ProjectState

ID = "proj_" + "a" * 24
WHO: dict[str, Any] = {"at": 100, "by": "admin"}
CREATED = c.CreateProject(ID, "Search", **WHO)


def key(number: int = 1) -> c.NewKey:
    return c.NewKey(f"key_{number}", f"ci {number}", f"{number:064x}", "wxyz")


def after(*commands: c.Command, state: ProjectState = INITIAL) -> ProjectState:
    for command in commands:
        state = PROJECT.fold(decide(command, state), state)
    return state


SEARCH = after(CREATED)
KEYED = after(CREATED, c.CreateKey(ID, key(), **WHO))


@pytest.mark.parametrize(
    "command",
    [
        c.CreateKey(ID, key(), **WHO),
        c.RenameProject(ID, "x", **WHO),
        c.SetQuota(ID, {"open_streams": 1}, **WHO),
        c.RevokeKey(ID, "key_1", 100, **WHO),
        c.ArchiveProject(ID, **WHO),
    ],
)
def test_what_does_not_exist_is_refused(command: c.Command) -> None:
    with pytest.raises(UnknownProject, match=ID):
        decide(command, INITIAL)


@pytest.mark.parametrize(
    "command",
    [
        CREATED,
        c.CreateKey(ID, key(), **WHO),
        c.RenameProject(ID, "Search", **WHO),
        c.SetQuota(ID, {"open_streams": None}, **WHO),
        c.RotateKey(ID, "key_7", key(), 200, **WHO),
    ],
    ids=lambda command: type(command).__name__,
)
def test_what_is_so_already_records_nothing(command: c.Command) -> None:
    assert decide(command, KEYED) == []


def test_who_did_what_is_on_record() -> None:
    (created,) = decide(c.CreateKey(ID, key(), at=7, by="key_9"), SEARCH)
    assert created == e.KeyCreated("key_1", "ci 1", f"{1:064x}", "wxyz", 7, "key_9")


def test_a_revoked_key_is_worth_nothing_from_then_on_and_once_is_enough() -> None:
    revoke = c.RevokeKey(ID, "key_1", 150, **WHO)
    state = after(revoke, state=KEYED)
    assert state.keys["key_1"].works_at(149.9)
    assert not state.keys["key_1"].works_at(150)
    assert decide(revoke, state) == []
    assert decide(replace(revoke, ends_at=200), state) == []
    assert after(replace(revoke, ends_at=120), state=state).keys["key_1"].ends_at == 120
    with pytest.raises(UnknownKey, match="key_2"):
        decide(replace(revoke, key_id="key_2"), state)


def test_a_rotated_key_and_the_new_one_work_side_by_side_for_a_while() -> None:
    state = after(c.RotateKey(ID, "key_1", key(2), 500, **WHO), state=KEYED)
    assert [id for id, one in state.keys.items() if one.works_at(499)] == ["key_1", "key_2"]
    assert [id for id, one in state.keys.items() if one.works_at(500)] == ["key_2"]


def test_a_key_that_ended_is_not_rotated() -> None:
    ended = after(c.RevokeKey(ID, "key_1", 100, **WHO), state=KEYED)
    with pytest.raises(UnknownKey):
        decide(c.RotateKey(ID, "key_1", key(2), 500, **WHO), ended)


def test_years_of_rotation_do_not_make_the_state_grow() -> None:
    state = KEYED
    for number in range(2, 3 * ENDED_KEPT):
        at = 100 + number
        state = after(c.RotateKey(ID, f"key_{number - 1}", key(number), at, at=at, by="admin"), state=state)
    assert len(state.keys) <= ENDED_KEPT + 2
    assert state.keys[f"key_{3 * ENDED_KEPT - 1}"].works_at(10**9)


def test_a_rotated_key_works_until_its_end_however_many_are_rotated_after_it() -> None:
    state = KEYED
    for number in range(2, 2 * ENDED_KEPT):
        state = after(c.RotateKey(ID, f"key_{number - 1}", key(number), 500, **WHO), state=state)
    assert state.keys["key_1"].works_at(499)


def test_keys_have_a_bound() -> None:
    one = KEYED.keys["key_1"]
    full = replace(SEARCH, keys={f"key_{n}": replace(one, id=f"key_{n}") for n in range(KEYS_MAX)})
    with pytest.raises(TooManyKeys, match=str(KEYS_MAX)):
        decide(c.CreateKey(ID, key(KEYS_MAX), **WHO), full)


def test_a_quota_changes_what_it_names_and_nothing_else() -> None:
    state = after(
        c.SetQuota(ID, {"open_streams": 5, "stored_bytes": 1}, **WHO),
        c.SetQuota(ID, {"stored_bytes": None}, **WHO),
        state=SEARCH,
    )
    assert (state.quotas.open_streams, state.quotas.stored_bytes) == (5, None)


def test_an_archived_project_serves_nobody_and_cannot_be_changed() -> None:
    state = after(c.ArchiveProject(ID, **WHO), state=KEYED)
    assert not state.serves
    assert decide(c.ArchiveProject(ID, **WHO), state) == []
    with pytest.raises(UnknownProject):
        decide(c.CreateKey(ID, key(2), **WHO), state)


def test_the_default_project_is_there_without_being_made() -> None:
    first, second = decide(c.CreateKey(DEFAULT_PROJECT, key(), **WHO), INITIAL)
    assert isinstance(first, e.ProjectCreated)
    assert isinstance(second, e.KeyCreated)
    for state in (INITIAL, PROJECT.fold([first, second], INITIAL)):
        with pytest.raises(DefaultProject):
            decide(c.ArchiveProject(DEFAULT_PROJECT, **WHO), state)


def test_the_head_tells_what_lists_need() -> None:
    assert PROJECT.label(SEARCH).attributes == {"name": "Search", "created_at": "100"}
    assert PROJECT.label(SEARCH).state == ACTIVE
    revoked = after(c.RevokeKey(ID, "key_1", 100, **WHO), c.ArchiveProject(ID, **WHO), state=KEYED)
    label = PROJECT.label(revoked)
    assert (label.tenant, label.state, label.attributes["archived_at"]) == (ID, ARCHIVED, "100")
    assert HAS_KEYS in label.attributes, "a server that once had a key is never open again"


def test_every_event_reads_back_and_no_key_is_in_it() -> None:
    events: list[e.Event] = [
        e.ProjectCreated(ID, "Search", 1, "admin"),
        e.ProjectRenamed("Find", 2, "admin"),
        e.KeyCreated("key_1", "ci", "0" * 64, "wxyz", 3, "admin", replaces="key_0"),
        e.KeyRevoked("key_1", 9, 4, "admin"),
        e.QuotaSet({"open_streams": 3, "stored_bytes": None}, 5, "admin"),
        e.ProjectArchived(6, "key_1"),
    ]
    encoded = [PROJECT.codec.encode(event) for event in events]
    record = Record(
        1, ID, 0, tuple(one.type for one in encoded), 1, 1, 0, b"", b"", tuple(one.data for one in encoded)
    )
    assert PROJECT.codec.decode(record) == events


def test_refusals_survive_pickling() -> None:
    for refusal in (UnknownProject("p"), UnknownKey("k"), TooManyKeys(3), DefaultProject()):
        again = pickle.loads(pickle.dumps(refusal))
        assert isinstance(again, Refused)
        assert (type(again), str(again)) == (type(refusal), str(refusal))
