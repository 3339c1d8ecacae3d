"""What Ollama's own client relies on, with the real small model."""

import asyncio
import json
import os

import ollama
import pytest

HOST = os.environ["BASE_URL"].removesuffix("/v1")
FIXED = {"temperature": 0, "num_predict": 24}
HELLO = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


@pytest.fixture
def client():
    return ollama.Client(host=HOST, timeout=60)


def test_a_chat_is_answered_with_its_counts_and_times(client, model):
    answer = client.chat(model, HELLO, options=FIXED)
    assert answer.message.role == "assistant"
    assert answer.message.content
    assert answer.done and answer.done_reason in ("stop", "length")
    assert answer.prompt_eval_count > 5 and 0 < answer.eval_count <= 24
    assert answer.total_duration >= answer.prompt_eval_duration + answer.eval_duration > 0


def test_the_pieces_of_a_stream_are_the_whole(client, model):
    whole = client.chat(model + ":latest", HELLO, options=FIXED).message.content
    pieces = list(client.chat(model, HELLO, options=FIXED, stream=True))
    assert len(pieces) > 3
    assert "".join(piece.message.content for piece in pieces) == whole
    assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]


def test_many_at_once_get_their_own_answers(model):
    async def ask(word):
        client = ollama.AsyncClient(host=HOST, timeout=60)
        answer = await client.generate(model, word, raw=True, options=FIXED)
        return answer.response

    async def ask_all(words):
        return await asyncio.gather(*map(ask, words))

    words = ["One, two, three,", "Red, green,", "Monday, Tuesday,"]
    together = asyncio.run(ask_all(words))
    assert together == [asyncio.run(ask(word)) for word in words]


def test_a_format_is_kept(client, model):
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}, "big": {"type": "boolean"}},
        "required": ["city", "big"],
        "additionalProperties": False,
    }
    options = {"temperature": 0, "num_predict": 200}
    answer = client.chat(model, HELLO, format=schema, options=options)
    assert set(json.loads(answer.message.content)) == {"city", "big"}
    raw = client.generate(model, "A city as JSON: ", raw=True, format=schema, options=options)
    assert set(json.loads(raw.response)) == {"city", "big"}


def test_tools_are_offered_and_their_results_taken(client, model):
    answer = client.chat(model, HELLO, tools=[WEATHER], options=FIXED)
    for call in answer.message.tool_calls or []:
        assert call.function.name == "weather"
    # The conversation after a call, as this client writes it.
    call = {"function": {"name": "weather", "arguments": {"city": "Paris"}}}
    messages = [
        *HELLO,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_name": "weather", "content": "Sunny, 21 degrees"},
    ]
    answer = client.chat(model, messages, tools=[WEATHER], options=FIXED)
    assert answer.message.content or answer.message.tool_calls


def test_generate_answers_continues_and_tells_probabilities(client, model):
    answer = client.generate(model, HELLO[0]["content"], options=FIXED)
    assert answer.response == client.chat(model, HELLO, options=FIXED).message.content
    options = {"temperature": 0, "num_predict": 2}
    raw = client.generate(model, "The capital of France is", raw=True, options=options, logprobs=True, top_logprobs=2)
    assert raw.response.startswith(" Paris") and raw.done_reason == "length"
    assert [token.token for token in raw.logprobs][0] == " Paris"
    assert len(raw.logprobs[0].top_logprobs) == 2
    with pytest.raises(ollama.ResponseError, match="cannot fill a gap") as refused:
        client.generate(model, "def f(", suffix="return x")
    assert refused.value.status_code == 400


def test_seeds_repeat_and_stop_strings_stop(client, model):
    options = {"temperature": 1.5, "seed": 7, "num_predict": 24}
    tell = lambda: client.generate(model, "Once upon a time", raw=True, options=options).response
    assert tell() == tell()
    options = {"temperature": 0, "stop": ["Paris"], "num_predict": 24}
    stopped = client.generate(model, "The capital of France is", raw=True, options=options)
    assert "Paris" not in stopped.response and stopped.done_reason == "stop"


def test_the_model_is_listed_shown_and_running(client, model):
    [listed] = client.list().models
    assert listed.model == model + ":latest"
    assert len(listed.digest) == 64 and listed.size > 50_000_000
    assert listed.details.parameter_size == "134.52M" and listed.details.family == "llama"
    shown = client.show(listed.model)
    assert shown.modelinfo["llama.context_length"] == 1024
    assert shown.modelinfo["general.parameter_count"] == 134_515_008
    assert "completion" in shown.capabilities and "im_start" in shown.template
    [running] = client.ps().models
    assert running.context_length == 1024 and running.digest == listed.digest


def test_an_empty_request_finds_the_model_loaded(client, model):
    assert client.generate(model).done_reason == "load"
    assert client.chat(model, [], keep_alive="1h").done_reason == "load"


def test_failures_are_told_in_words(client, model):
    with pytest.raises(ollama.ResponseError) as missing:
        client.chat("nonsense", HELLO)
    assert (missing.value.status_code, missing.value.error) == (404, "model 'nonsense' not found")
    with pytest.raises(ollama.ResponseError, match="options.num_ctx: expected at most 1024"):
        client.chat(model, HELLO, options={"num_ctx": 8192})
    with pytest.raises(ollama.ResponseError, match="maximum context length is 1024"):
        list(client.chat(model, [{"role": "user", "content": "word " * 2000}], stream=True))
    with pytest.raises(ollama.ResponseError, match="models.lock"):
        client.pull("nonsense")
    assert client.pull(model).status == "success"
    with pytest.raises(ollama.ResponseError, match="cannot embed"):
        client.embed(model, "text")
    with pytest.raises(ollama.ResponseError, match="images\\[0\\]: this model takes no images"):
        client.generate(model, "What is this?", images=["aGVsbG8="])
