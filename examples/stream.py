"""Show an answer as it is said: `python examples/stream.py [model] [question]`."""

import os
import sys

from openai import OpenAI

client = OpenAI(base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8088/v1"), api_key="unused")
model, question = (*sys.argv[1:], *("simulated", "Hello!")[len(sys.argv) - 1 :])[:2]

with client.responses.stream(model=model, input=question) as stream:
    for event in stream:
        if event.type == "response.output_text.delta":
            print(event.delta, end="", flush=True)
    final = stream.get_final_response()
print(f"\n-- {final.id}: {final.status}, {final.usage.output_tokens} tokens")
