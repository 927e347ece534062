"""What `store: false` asked for is there for its client alone, and not for long."""

from __future__ import annotations

from tests.unit.serve_app.served import served


async def test_a_foreground_one_is_not_found_after_its_end() -> None:
    async with served() as api:
        ended = await api.create(model="simulated", input="hi", store=False)
        assert ended.json()["status"] == "completed"
        response_id = ended.json()["id"]
        assert (await api.client.get(f"/v1/responses/{response_id}")).status_code == 404
        again = await api.create(model="simulated", input="hi", previous_response_id=response_id)
        assert again.json()["error"]["code"] == "previous_response_not_found"


async def test_one_in_the_background_waits_for_its_client() -> None:
    async with served() as api:
        begun = await api.create(model="simulated", input="hi", store=False, background=True)
        assert (await api.ended(begun.json()["id"]))["status"] == "completed"
        listed = (await api.client.get("/v1/responses")).json()["data"]
        assert listed == []


async def test_a_running_one_can_be_cancelled() -> None:
    async with served() as api:
        slow = "simulated?deltas=1000&interval_ms=50"
        begun = await api.create(model=slow, input="hi", store=False, background=True)
        ended = await api.client.post(f"/v1/responses/{begun.json()['id']}/cancel")
        assert ended.json()["status"] == "cancelled"
