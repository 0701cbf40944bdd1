"""Serve a reward over HTTP, in a process or on a machine of its own, for `http_scorer`.

python -m rewards.endpoints.server NAME [--options JSON] [--host 127.0.0.1] [--port 8080] [--key-variable VARIABLE]

Needs the extra `scorer`. A scorer in another language answers the same request; see `rewards/http_scorer.py`.
"""

import argparse
import base64
import binascii
import hmac
import json
import os
from io import BytesIO
from threading import Lock
from typing import Annotated

import numpy as np
import torch
from fastapi import FastAPI, Header, HTTPException
from PIL import Image
from pydantic import BaseModel, Field

from rewards.registry import Reward, create
from rewards.scoring import score


class Batch(BaseModel):
    """A request."""

    images: list[str] = Field(max_length=256)
    """Image files in base64."""

    prompts: list[str] = Field(max_length=256)
    """As many prompts."""


class Scores(BaseModel):
    """An answer."""

    scores: list[float | None]
    """One for each image; null: there is none."""


def make_app(reward: Reward, key: str | None = None) -> FastAPI:
    """An application that scores by a reward, one request at a time: `POST /score`, and `GET /health`.

    Args:
        reward: any.
        key: what a request's bearer token has to be; None: anyone may ask.
    """
    app = FastAPI(title="sdo-ray scorer")
    one_at_a_time = Lock()

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"reward": type(reward).__name__}

    @app.post("/score")
    def score_batch(batch: Batch, authorization: Annotated[str, Header()] = "") -> Scores:
        if key is not None and not hmac.compare_digest(authorization.encode(), f"Bearer {key}".encode()):
            raise HTTPException(401, "wrong or missing key")
        if len(batch.images) != len(batch.prompts):
            raise HTTPException(422, f"{len(batch.images)} images and {len(batch.prompts)} prompts")
        images = [_decoded(text) for text in batch.images]
        with one_at_a_time:
            return Scores(scores=_scores(reward, images, batch.prompts))

    return app


def _scores(reward: Reward, images: list[torch.Tensor], prompts: list[str]) -> list[float | None]:
    """Together where all have one size, else one after the other."""
    if len({image.shape for image in images}) > 1:
        pairs = zip(images, prompts, strict=True)
        return [found for image, prompt in pairs for found in _scores(reward, [image], [prompt])]
    if not images:
        return []
    found = score(reward, torch.stack(images), prompts).tolist()
    return [value if np.isfinite(value) else None for value in found]


def _decoded(text: str) -> torch.Tensor:
    """An image, float32 [3, H, W] in [0, 1]."""
    try:
        with Image.open(BytesIO(base64.b64decode(text, validate=True))) as file:
            pixels = np.array(file.convert("RGB"))
    except (binascii.Error, OSError, ValueError, Image.DecompressionBombError) as error:
        raise HTTPException(422, f"an image cannot be read: {error}") from None
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def main() -> None:
    """Serve until stopped."""
    import uvicorn

    parser = argparse.ArgumentParser(description="Serve a reward over HTTP.")
    parser.add_argument("name", help="a reward's name, or package.module:Class")
    parser.add_argument("--options", type=json.loads, default={}, help="its options, as JSON")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--key-variable", help="environment variable with the key that requests must have")
    given = parser.parse_args()
    key = None if given.key_variable is None else os.environ[given.key_variable]
    uvicorn.run(make_app(create(given.name, **given.options), key), host=given.host, port=given.port)


if __name__ == "__main__":
    main()
