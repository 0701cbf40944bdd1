"""Scorers over real sockets, well and badly behaved."""

import math
import time

import pytest
import torch
from fastapi import FastAPI, HTTPException, Request, Response

from rewards import create
from rewards.endpoints.client import RefusedError
from rewards.endpoints.server import make_app
from rewards.registry import RewardError, check
from rewards.scoring import score

from .tiny.servers import chat, serve


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr("rewards.endpoints.client._FIRST_WAIT", 0.01)


@pytest.fixture
def images():
    return torch.rand(5, 3, 8, 12, generator=torch.Generator().manual_seed(0))


def scorer(answer):
    """An application whose scores are `answer(number of the request, images)`."""
    app, state = FastAPI(), {"asked": 0}

    @app.post("/score")
    async def score_batch(request: Request):
        state["asked"] += 1
        return answer(state["asked"], (await request.json())["images"])

    return serve(app) + "/score", state


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_the_reference_server_says_what_the_reward_says(batch_size, images):
    reward = create("brightness")
    remote = create("http_scorer", url=serve(make_app(reward)) + "/score", batch_size=batch_size)
    found = score(remote, images, [""] * 5)
    torch.testing.assert_close(found, score(reward, images, [""] * 5), rtol=0, atol=0.005)


def test_images_of_several_sizes_and_files_that_are_none():
    from rewards.endpoints.client import Endpoint, as_png

    url = serve(make_app(create("brightness"))) + "/score"
    sizes = [as_png(torch.ones(3, 4, 4)), as_png(torch.zeros(3, 6, 9))]
    read = lambda answer: answer["scores"]  # noqa: E731
    assert Endpoint(url, 5, 0).ask({"images": sizes, "prompts": ["", ""]}, read) == pytest.approx([1, 0])
    assert Endpoint(url, 5, 0).ask({"images": [], "prompts": []}, read) == []
    for bad in (["bm8="], ["?"]):
        with pytest.raises(RefusedError, match=r"answers 422.*an image cannot be read"):
            Endpoint(url, 5, 0).ask({"images": bad, "prompts": [""]}, read)


def test_a_key_is_asked_for(images, monkeypatch):
    url = serve(make_app(create("brightness"), key="secret")) + "/score"
    with pytest.raises(RefusedError, match="answers 401"):
        score(create("http_scorer", url=url), images, [""] * 5)
    with pytest.raises(RefusedError, match="variable 'SCORER_KEY' with the key is not set"):
        score(create("http_scorer", url=url, key_variable="SCORER_KEY"), images, [""] * 5)
    monkeypatch.setenv("SCORER_KEY", "secret")
    assert score(create("http_scorer", url=url, key_variable="SCORER_KEY"), images, [""] * 5).isfinite().all()


def test_what_fails_once_is_asked_again(images):
    def answer(asked, files):
        if asked == 1:
            raise HTTPException(503)
        return Response("no JSON") if asked == 2 else {"scores": [asked] * len(files)}

    url, state = scorer(answer)
    assert score(create("http_scorer", url=url), images, [""] * 5).tolist() == [3] * 5
    assert state["asked"] == 3


def late(answer):
    time.sleep(1.0)
    return answer


@pytest.mark.parametrize(
    "answer",
    [
        lambda asked, files: {"scores": [0.0]},
        lambda asked, files: {"scores": ["0"] * len(files)},
        lambda asked, files: {"scores": [True] * len(files)},
        lambda asked, files: [0.0] * len(files),
        lambda asked, files: Response("", 500),
        lambda asked, files: late({"scores": [0.0] * len(files)}),
    ],
    ids=["too few", "texts", "booleans", "no object", "500", "too late"],
)
def test_no_sensible_answer_is_a_missing_score(answer, images, caplog):
    url, state = scorer(answer)
    found = score(create("http_scorer", url=url, retries=1, timeout=0.3), images, [""] * 5)
    assert found.isnan().all()
    assert "no answer from" in caplog.text
    assert state["asked"] >= 1


def test_a_server_that_is_not_there_is_a_missing_score(images):
    assert score(create("http_scorer", url="http://127.0.0.1:9/score", retries=0), images, [""] * 5).isnan().all()


def test_null_is_a_missing_score_of_that_image_alone(images):
    url, _ = scorer(lambda asked, files: {"scores": [1.5, None, 2.5, 3, 4]})
    found = score(create("http_scorer", url=url), images, [""] * 5)
    assert found[1].isnan()
    assert found[[0, 2, 3, 4]].tolist() == [1.5, 2.5, 3, 4]


def test_broken_images_are_not_sent(images):
    sent = []

    def answer(asked, files):
        sent.extend(files)
        return {"scores": [1.0] * len(files)}

    url, _ = scorer(answer)
    images[2, 0, 0, 0] = math.nan
    found = score(create("http_scorer", url=url), images, [""] * 5)
    assert len(sent) == 4
    assert found[2].isnan()
    assert found[[0, 1, 3, 4]].tolist() == [1.0] * 4


def test_a_redirect_is_refused_as_it_would_take_the_key_along(images):
    url, _ = scorer(lambda asked, files: Response("", 307, {"Location": "http://127.0.0.1:9/"}))
    with pytest.raises(RefusedError, match="answers 307"):
        score(create("http_scorer", url=url), images, [""] * 5)


ASK = "How well does it show {prompt}? End with 'Score: x', 1 to 5."


def test_a_vision_model_is_asked_for_each_image(images):
    asked = []

    def answer(text, image):
        asked.append((text, image))
        return "Score: 1 at first.\nFinal Score: 4.5"

    app = chat(answer)
    reward = create("vision_endpoint", url=f"{serve(app)}/v1/chat/completions", model="m", template=ASK)
    assert score(reward, images[:2], ["cats", "{model}"]).tolist() == [4.5, 4.5]
    assert {text for text, _ in asked} == {ASK.replace("{prompt}", word) for word in ("cats", "{model}")}
    assert len({image for _, image in asked}) == 2


@pytest.mark.parametrize("said", ["I cannot say.", "Score: none", "Score: 7", "Score: 0", "", None])
def test_an_answer_without_a_score_is_a_missing_one(said, images):
    url = f"{serve(chat(lambda text, image: said))}/v1/chat/completions"
    reward = create("vision_endpoint", url=url, model="m", template=ASK, retries=0)
    assert score(reward, images[:1], [""]).isnan().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "ftp://host/x"}, "http or https"),
        ({"url": "http://user:password@host/x"}, "must not have a user or password"),
        ({"template": "How good is it?"}, r"must have \{prompt\}"),
        ({"pattern": "("}, "no regular expression"),
        ({"pattern": r"\d+"}, "one group"),
        ({"low": 5, "high": 5}, "'low' must be below"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(RewardError, match=message) as refused:
        check("vision_endpoint", {"url": "http://host/x", "model": "m", "template": ASK} | options)
    assert "password@" not in str(refused.value)
