"""Talk to a model from the terminal; each answer continues the one before it.

`python examples/conversation.py [model]`, then one line a turn; an empty line ends it.
"""

import os
import sys

from openai import OpenAI

client = OpenAI(base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8088/v1"), api_key="unused")
model = sys.argv[1] if len(sys.argv) > 1 else "simulated"

previous = None
for line in sys.stdin:
    if not line.strip():
        break
    response = client.responses.create(model=model, input=line.strip(), previous_response_id=previous)
    print(response.output_text or response.error, flush=True)
    # What failed or was not stored cannot be continued: go on from the last answer that can.
    if response.status == "completed":
        previous = response.id
