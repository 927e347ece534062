"""What a program does with openai-agents: tools, streams, handoffs, sessions.  Prints what came of it.

It runs on its own because the library changes process-wide settings.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from agents import (
    Agent,
    Model,
    ModelSettings,
    OpenAIConversationsSession,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    handoff,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel


class City(BaseModel):
    """A structured answer."""

    name: str
    inhabitants: int


@function_tool
def get_weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"Sunny in {city}."


async def main(url: str) -> None:
    """Do all of it."""
    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=url, api_key="sk-any", max_retries=0)

    def model(name: str = "simulated") -> Model:
        return OpenAIResponsesModel(model=name, openai_client=client)

    told: dict[str, Any] = {}
    weather = Agent(name="Weather", instructions="Tell the weather.", model=model(), tools=[get_weather])
    told["tool"] = (await Runner.run(weather, "How is it?")).final_output

    streamed = Runner.run_streamed(weather, "How is it?")
    kinds = [event.type async for event in streamed.stream_events()]
    told["streamed"] = [streamed.final_output, "raw_response_event" in kinds]

    specialist = Agent(name="Specialist", instructions="You know it.", model=model("simulated?tool=0"))
    triage = Agent(name="Triage", model=model(), handoffs=[handoff(specialist)])
    handed = await Runner.run(triage, "Who knows?")
    told["handoff"] = [handed.last_agent.name, handed.final_output]

    typed = Agent(name="Typed", model=model(), output_type=City)
    told["typed"] = (await Runner.run(typed, "A city.")).final_output.model_dump()

    stateless = ModelSettings(store=False, response_include=["reasoning.encrypted_content"])
    thinking = Agent(
        name="Thinker", model=model("simulated?reasoning=3"), tools=[get_weather], model_settings=stateless
    )
    told["stateless"] = (await Runner.run(thinking, "How is it?")).final_output

    chained = await Runner.run(weather, "How is it?", auto_previous_response_id=True)
    told["chained"] = chained.final_output

    session = OpenAIConversationsSession(openai_client=client)
    await Runner.run(specialist, "I am Ada.", session=session)
    await Runner.run(specialist, "Who am I?", session=session)
    items = await session.get_items()
    told["session"] = [item.get("role") for item in items]
    await session.clear_session()
    print(json.dumps(told))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
