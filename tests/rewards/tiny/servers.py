"""Servers on real sockets, in threads of the test process that end with it."""

import time
from threading import Thread
from typing import Any

import uvicorn
from fastapi import FastAPI


def serve(app: FastAPI) -> str:
    """Start an application on a free port; returns its address."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    Thread(target=server.run, daemon=True).start()
    until = time.monotonic() + 30
    while not server.started:
        assert time.monotonic() < until, "the server did not start"
        time.sleep(0.01)
    return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"


def chat(answer: Any) -> FastAPI:
    """An endpoint as OpenAI has it that answers with `answer(question, image in base64)`."""
    app = FastAPI()

    @app.post("/v1/chat/completions")
    def complete(body: dict[str, Any]) -> dict[str, Any]:
        text, image = body["messages"][0]["content"]
        said = answer(text["text"], image["image_url"]["url"].partition("base64,")[2])
        return {"choices": [{"message": {"role": "assistant", "content": said}}]}

    return app
