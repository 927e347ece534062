"""Lose the connection again and again, and miss nothing: `python examples/resume.py [model] [question]`.

After every eighth event the connection is closed and the stream asked for again, after the last number seen.
"""

import os
import sys

from openai import OpenAI

EVENTS_A_CONNECTION = 8

client = OpenAI(base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8088/v1"), api_key="unused")
model, question = (*sys.argv[1:], *("simulated?deltas=30&interval_ms=20", "Hello!")[len(sys.argv) - 1 :])[:2]

response = client.responses.create(model=model, input=question, background=True)
words, number, connections, over = "", None, 0, False
while not over:
    connections += 1
    after = {} if number is None else {"starting_after": number}
    with client.responses.retrieve(response.id, stream=True, **after) as stream:
        for _, event in zip(range(EVENTS_A_CONNECTION), stream, strict=False):
            number = event.sequence_number
            if event.type == "response.output_text.delta":
                words += event.delta
            over = event.type in ("response.completed", "response.failed", "response.incomplete")

whole = client.responses.retrieve(response.id).output_text
print(f"{number + 1} events over {connections} connections; every word there once: {words == whole}")
