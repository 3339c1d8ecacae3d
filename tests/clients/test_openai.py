"""What users of OpenAI's Python client rely on, sync and async, streamed and not."""

import asyncio
import json
import os
import threading
import time

import openai
import pytest
from conftest import BASE_URL
from openai import AsyncOpenAI

SEQUENCES = int(os.environ["SEQUENCES"])
FRANCE = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]


def chat(client, model, **more):
    more.setdefault("max_tokens", 32)
    return client.chat.completions.create(
        model=model, messages=more.pop("messages", FRANCE), temperature=0, **more
    )


# --- models


def test_the_list_of_models_names_the_served_one(client, model):
    listed = client.models.list().data
    assert [entry.id for entry in listed] == [model]
    assert listed[0].object == "model"
    assert 1_600_000_000 < listed[0].created < time.time() + 60


def test_a_model_is_found_by_its_id_and_no_other(client, model):
    assert client.models.retrieve(model).id == model
    with pytest.raises(openai.NotFoundError) as error:
        client.models.retrieve("somebody/else")
    assert error.value.code == "model_not_found"


# --- chat


def test_the_capital_of_france_is_paris(client, model):
    answer = chat(client, model)
    choice = answer.choices[0]
    assert "Paris" in choice.message.content
    assert choice.message.role == "assistant"
    assert choice.finish_reason == "stop"
    assert answer.object == "chat.completion"
    assert answer.model == model
    assert answer.system_fingerprint


def test_a_streamed_answer_is_the_same_answer(client, model):
    chunks = list(chat(client, model, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == chat(client, model).choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(chunk.choices[0].delta.role is None for chunk in chunks[1:])
    assert [c.choices[0].finish_reason for c in chunks].count("stop") == 1
    assert chunks[-1].choices[0].finish_reason == "stop"
    for one in ("id", "created", "model", "object", "system_fingerprint"):
        assert len({getattr(chunk, one) for chunk in chunks}) == 1, one


def test_streamed_text_comes_in_many_pieces(client, model):
    texts = [c.choices[0].delta.content for c in chat(client, model, stream=True)]
    assert len([text for text in texts if text]) > 4


def test_the_async_client_gets_the_same_answers(client, model):
    async def ask():
        async with AsyncOpenAI(base_url=BASE_URL, api_key="none", max_retries=0) as client:
            whole = await chat(client, model)
            text = ""
            async for chunk in await chat(client, model, stream=True):
                text += chunk.choices[0].delta.content or ""
            together = await asyncio.gather(*(chat(client, model) for _ in range(6)))
            return whole, text, together

    whole, text, together = asyncio.run(ask())
    expected = chat(client, model).choices[0].message.content
    assert whole.choices[0].message.content == expected
    assert text == expected
    assert len({answer.id for answer in together}) == 6
    assert all("Paris" in answer.choices[0].message.content for answer in together)


def test_a_conversation_with_system_and_assistant_is_accepted(client, model):
    answer = chat(
        client,
        model,
        messages=[
            {"role": "system", "content": "You answer in one word."},
            {"role": "user", "content": [{"type": "text", "text": "The capital of Spain?"}]},
            {"role": "assistant", "content": "Madrid"},
            {"role": "user", "content": "And of France?"},
        ],
    )
    assert "Paris" in answer.choices[0].message.content


# --- usage


def test_usage_adds_up(client, model):
    usage = chat(client, model, max_tokens=5).usage
    assert usage.completion_tokens == 5
    assert usage.prompt_tokens > 5
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert 0 <= usage.prompt_tokens_details.cached_tokens <= usage.prompt_tokens


def test_a_stream_tells_its_usage_only_when_asked(client, model):
    plain = list(chat(client, model, max_tokens=5, stream=True))
    assert all(chunk.choices and chunk.usage is None for chunk in plain)
    asked = list(
        chat(client, model, max_tokens=5, stream=True, stream_options={"include_usage": True})
    )
    assert asked[-1].choices == []
    assert asked[-1].usage.completion_tokens == 5
    assert all(chunk.usage is None for chunk in asked[:-1])
    assert asked[-1].usage.prompt_tokens == chat(client, model, max_tokens=1).usage.prompt_tokens


# --- what ends an answer


def test_max_tokens_ends_with_length(client, model):
    answer = chat(client, model, max_tokens=2)
    assert answer.choices[0].finish_reason == "length"
    newer = client.chat.completions.create(
        model=model, messages=FRANCE, temperature=0, max_completion_tokens=2
    )
    assert newer.choices[0].message.content == answer.choices[0].message.content


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_is_cut_off_with_all_that_follows(client, model, stream):
    whole = chat(client, model).choices[0].message.content
    assert "of France" in whole
    # It begins and ends inside tokens.
    answer = chat(client, model, stop=["nowhere", "f Fran"], stream=stream)
    if stream:
        chunks = list(answer)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        reason = chunks[-1].choices[0].finish_reason
    else:
        text, reason = answer.choices[0].message.content, answer.choices[0].finish_reason
    assert text == whole[: whole.index("f Fran")]
    assert reason == "stop"


# --- reproducibility


def test_equal_seeds_give_equal_answers_and_others_differ(client, model):
    def story(seed):
        answer = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "Write a story about a fox."}],
            temperature=1.5,
            seed=seed,
            max_tokens=24,
        )
        return answer.choices[0].message.content

    assert story(7) == story(7)
    assert len({story(seed) for seed in (1, 2, 3)}) > 1


def test_temperature_zero_needs_no_seed(client, model):
    answers = {chat(client, model).choices[0].message.content for _ in range(3)}
    assert len(answers) == 1


# --- log-probabilities


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_spell_the_answer(client, model, stream):
    answer = chat(client, model, max_tokens=6, logprobs=True, top_logprobs=3, stream=stream)
    if stream:
        chunks = list(answer)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        found = [c.choices[0].logprobs for c in chunks if c.choices[0].logprobs]
        tokens = [token for one in found for token in one.content]
    else:
        text = answer.choices[0].message.content
        tokens = answer.choices[0].logprobs.content
    spelled = b"".join(bytes(token.bytes) for token in tokens).decode()
    assert spelled == text
    assert len(tokens) == 6
    for token in tokens:
        assert token.logprob <= 0
        assert len(token.top_logprobs) == 3
        best = [alternative.logprob for alternative in token.top_logprobs]
        assert best == sorted(best, reverse=True)
        # Greedy: the chosen token is the most likely one.
        assert token.top_logprobs[0].token == token.token


def test_no_logprobs_unless_asked_for(client, model):
    assert chat(client, model).choices[0].logprobs is None
    with pytest.raises(openai.BadRequestError):
        chat(client, model, top_logprobs=3)


# --- completions


def test_a_plain_completion_goes_on_with_the_text(client, model):
    answer = client.completions.create(
        model=model, prompt="One, two, three, four,", temperature=0, max_tokens=8
    )
    assert "five" in answer.choices[0].text
    assert answer.object == "text_completion"
    assert answer.usage.completion_tokens == 8
    assert answer.choices[0].finish_reason == "length"


def test_a_streamed_completion_is_the_same_completion(client, model):
    ask = dict(model=model, prompt="The sea is", temperature=0, max_tokens=12)
    text = "".join(c.choices[0].text for c in client.completions.create(**ask, stream=True))
    assert text == client.completions.create(**ask).choices[0].text


# --- errors


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as error:
        chat(client, "gpt-unknown")
    assert error.value.code == "model_not_found"
    assert error.value.param == "model"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", "hot"),
        ("temperature", -1),
        ("top_p", 1.5),
        ("max_tokens", 0),
        ("max_tokens", "many"),
        ("stop", {"a": 1}),
        ("logit_bias", {"not a token": 1}),
        ("seed", "lucky"),
        ("messages", "hello"),
        ("stream_options", {"include_usage": "perhaps"}),
    ],
)
def test_a_bad_value_is_a_bad_request_that_names_the_field(client, model, field, value):
    body = {"model": model, "messages": FRANCE, "max_tokens": 1, "stream": True, field: value}
    with pytest.raises(openai.BadRequestError) as error:
        client.post("/chat/completions", body=body, cast_to=object)
    assert error.value.param.startswith(field)
    assert error.value.type == "invalid_request_error"
    assert error.value.request_id


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_over_the_context_is_refused_in_the_words_clients_match(client, model, stream):
    long = [{"role": "user", "content": "word " * 3000}]
    with pytest.raises(openai.BadRequestError) as error:
        chat(client, model, messages=long, stream=stream)
    assert error.value.code == "context_length_exceeded"
    assert "This model's maximum context length is 1024 tokens" in str(error.value)


def test_n_is_honoured_or_refused_but_never_dropped(client, model):
    try:
        answer = chat(client, model, n=2, max_tokens=4)
    except openai.BadRequestError as error:
        assert error.param == "n"
    else:
        assert [choice.index for choice in answer.choices] == [0, 1]


def test_an_unknown_path_is_not_found(client):
    with pytest.raises(openai.NotFoundError):
        client.post("/no/such/path", body={}, cast_to=object)


def test_fields_nobody_knows_are_ignored(client, model):
    assert chat(client, model, extra_body={"x_unknown": {"a": [1]}}, max_tokens=1).choices


# --- clients that go away


def endless(client, model, **more):
    return chat(client, model, max_tokens=900, extra_body={"ignore_eos": True}, **more)


def test_closing_a_stream_frees_its_sequence(client, model):
    # Three times as many as fit, each closed after its first text; every one would run for seconds.
    for _ in range(3 * SEQUENCES):
        stream = endless(client, model, stream=True)
        for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        stream.close()
    # Now all sequences must be free: as many streams as there are sequences begin at once.
    streams = [endless(client, model, stream=True) for _ in range(SEQUENCES)]
    begun = threading.Barrier(SEQUENCES + 1, timeout=20)

    def read(stream):
        for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        begun.wait()
        stream.close()

    readers = [threading.Thread(target=read, args=(stream,)) for stream in streams]
    for reader in readers:
        reader.start()
    # A leaked sequence would keep one stream in the queue, and the barrier would break.
    begun.wait()
    for reader in readers:
        reader.join()


def test_a_client_that_times_out_frees_its_sequence(client, model):
    for _ in range(SEQUENCES):
        with pytest.raises(openai.APITimeoutError):
            endless(client.with_options(timeout=0.2), model)
    begun = time.monotonic()
    assert chat(client, model, max_tokens=1).usage.completion_tokens == 1
    # 900 tokens of each of the others would have to be waited for.
    assert time.monotonic() - begun < 5


# --- the wire under the client


def test_a_stream_ends_with_done_and_is_not_to_be_cached(client, model):
    with client.chat.completions.with_streaming_response.create(
        model=model, messages=FRANCE, max_tokens=3, stream=True
    ) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert "no-cache" in response.headers["cache-control"]
        assert response.headers["x-request-id"]
        lines = [line for line in response.iter_lines() if line and not line.startswith(":")]
    assert lines[-1] == "data: [DONE]"
    assert all(json.loads(line.removeprefix("data: "))["choices"] for line in lines[:-1])


# --- log-probabilities of prompts, and what else only the older endpoint has


def test_an_echo_tells_of_a_text_what_generating_it_told(client, model):
    prompt = "The capital of France is"
    said = client.completions.create(
        model=model, prompt=prompt, max_tokens=40, temperature=0, logprobs=3
    ).choices[0]
    whole = client.completions.create(
        model=model, prompt=prompt + said.text, max_tokens=0, temperature=0, logprobs=3, echo=True
    )
    echoed = whole.choices[0]
    assert echoed.text == prompt + said.text
    assert whole.usage.completion_tokens == 0
    scores = echoed.logprobs
    assert scores.token_logprobs[0] is None and scores.top_logprobs[0] is None
    assert "".join(scores.tokens) == echoed.text
    count = len(said.logprobs.tokens)
    assert scores.tokens[-count:] == said.logprobs.tokens
    # Rows computed together have other last bits than rows computed one by one.
    for one, other in zip(scores.token_logprobs[-count:], said.logprobs.token_logprobs):
        assert abs(one - other) < 0.1
    # Greedy was each of them.
    for one, top in zip(scores.token_logprobs[-count:], scores.top_logprobs[-count:]):
        assert one >= max(top.values()) - 0.1


def test_the_likelihood_of_a_choice_is_read_as_evaluation_harnesses_do(client, model):
    """EleutherAI's harness: prompts of tokens, echo, one token generated and left out of the sum."""

    base = str(client.base_url).removesuffix("v1/")
    tokenizing = client.with_options(base_url=base)

    def ids(text):
        return tokenizing.post("/tokenize", body={"content": text}, cast_to=object)["tokens"]

    context = ids("The capital of France is")
    choices = [ids(" Paris"), ids(" Berlin"), ids(" a small dog")]
    answer = client.completions.create(
        model=model,
        prompt=[context + choice for choice in choices],
        temperature=0,
        max_tokens=1,
        logprobs=1,
        seed=1234,
        echo=True,
    )
    sums = []
    for choice, wanted in zip(sorted(answer.choices, key=lambda choice: choice.index), choices):
        scores = choice.logprobs.token_logprobs[len(context) : -1]
        assert len(scores) == len(wanted)
        sums.append(sum(scores))
    assert max(sums) == sums[0], sums


def test_long_prompts_are_scored_beside_a_stream(client, model):
    text = "one two three four five six seven eight nine ten " * 30
    stream = client.completions.create(model=model, prompt="Once", max_tokens=64, stream=True)
    next(iter(stream))
    scores = client.completions.create(
        model=model, prompt=text, max_tokens=0, logprobs=0, echo=True
    ).choices[0].logprobs
    assert "".join(scores.tokens) == text
    # What repeats itself is foreseen.
    tail = scores.token_logprobs[-50:]
    assert sum(tail) / len(tail) > -0.5
    assert sum(1 for _ in stream) > 0


def test_the_best_of_several_is_the_likeliest(client, model):
    request = {"model": model, "prompt": "My favourite colour is", "max_tokens": 8, "seed": 7}
    several = client.completions.create(**request, n=4, logprobs=0)
    means = [
        sum(choice.logprobs.token_logprobs) / len(choice.logprobs.token_logprobs)
        for choice in several.choices
    ]
    best = client.completions.create(**request, best_of=4)
    assert best.usage.completion_tokens == several.usage.completion_tokens
    assert best.choices[0].logprobs is None
    # Close ones may change places: what shares a batch has other last bits.
    likely = [c.text for c, mean in zip(several.choices, means) if mean > max(means) - 0.05]
    assert best.choices[0].text in likely


@pytest.mark.parametrize("stop", [[], ["."]])
def test_an_answer_has_the_least_number_of_tokens(client, model, stop):
    def ask(least):
        return chat(client, model, max_tokens=64, stop=stop, extra_body={"min_tokens": least})

    short = ask(0)
    assert short.usage.completion_tokens < 40
    long = ask(40)
    assert long.usage.completion_tokens >= 40
    assert long.choices[0].message.content.startswith(short.choices[0].message.content)


# --- tools, though the small model's own template knows none


WEATHER = {
    "name": "weather",
    "description": "The weather in a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


@pytest.mark.parametrize("named", [False, True])
def test_a_demanded_call_is_made(client, model, named):
    choice = {"type": "function", "function": {"name": "weather"}} if named else "required"
    answer = chat(
        client,
        model,
        messages=[{"role": "user", "content": "How is the weather in Rome?"}],
        tools=[{"type": "function", "function": WEATHER}],
        tool_choice=choice,
        parallel_tool_calls=False,
        max_tokens=200,
    ).choices[0]
    assert answer.finish_reason == "tool_calls"
    [call] = answer.message.tool_calls
    assert call.function.name == "weather"
    assert set(json.loads(call.function.arguments)) == {"city"}


def test_a_demanded_function_is_called_in_the_old_way(client, model):
    request = {
        "messages": [{"role": "user", "content": "How is the weather in Rome?"}],
        "functions": [WEATHER],
        "function_call": {"name": "weather"},
        "max_tokens": 200,
    }
    answer = chat(client, model, **request).choices[0]
    assert answer.finish_reason == "function_call"
    assert answer.message.function_call.name == "weather"
    assert set(json.loads(answer.message.function_call.arguments)) == {"city"}
    chunks = [c.choices[0] for c in chat(client, model, stream=True, **request)]
    calls = [c.delta.function_call for c in chunks if c.delta.function_call]
    assert calls[0].name == "weather"
    assert "".join(c.arguments or "" for c in calls) == answer.message.function_call.arguments
    assert chunks[-1].finish_reason == "function_call"
