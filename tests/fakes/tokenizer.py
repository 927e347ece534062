"""How servers of models count tokens, each in its own way; here a word is a token."""

from __future__ import annotations

from typing import Any


def counted(server: str, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
    """What `server` (`vllm`, `llama`, `responses`) answers at `path`; None where it has no such path."""
    match server, path:
        case "vllm", "/tokenize":
            return {"count": _words(body["messages"]), "max_model_len": 4096, "tokens": []}
        case "llama", "/tokenize":
            return {"tokens": str(body.get("content", "")).split()}
        case "llama", "/apply-template":
            return {"prompt": " ".join(message["content"] for message in body["messages"])}
        case "responses", "/responses/input_tokens":
            count = _words([{"content": part["text"]} for item in body["input"] for part in item["content"]])
            return {"object": "response.input_tokens", "input_tokens": count}
        case _:
            return None


def _words(messages: list[dict[str, Any]]) -> int:
    return sum(len(message["content"].split()) for message in messages)
