"""What users of Anthropic's Python client rely on, sync and async, streamed and not."""

import asyncio
import os

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic
from pydantic import BaseModel

# Anthropic's clients add `/v1` themselves.
BASE_URL = os.environ["BASE_URL"].removesuffix("/v1")
CONTEXT = int(os.environ["CONTEXT"])
FRANCE = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]


@pytest.fixture
def client():
    # No retries: a failure must be seen, not repeated.
    with Anthropic(base_url=BASE_URL, api_key="none", max_retries=0, timeout=60) as client:
        yield client


def ask(client, model, **more):
    more.setdefault("max_tokens", 32)
    more.setdefault("extra_body", {"temperature": 0})
    return client.messages.create(model=model, messages=more.pop("messages", FRANCE), **more)


def prompt_tokens(usage):
    return usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens


# --- messages


def test_the_capital_of_france_is_paris(client, model):
    answer = ask(client, model, system="You are helpful.")
    assert answer.type == "message" and answer.role == "assistant"
    assert answer.id.startswith("msg_")
    assert answer.model == model
    assert answer.stop_reason == "end_turn" and answer.stop_sequence is None
    assert [block.type for block in answer.content] == ["text"]
    assert "Paris" in answer.content[0].text
    assert answer._request_id.startswith("req_")


def test_a_model_is_found_in_the_list(client, model):
    listed = list(client.models.list())
    assert [(entry.id, entry.type, entry.display_name) for entry in listed] == [(model, "model", model)]
    assert listed[0].created_at == client.models.retrieve(model).created_at


def test_a_streamed_message_is_the_same_message(client, model):
    whole = ask(client, model)
    with client.messages.stream(
        model=model, messages=FRANCE, max_tokens=32, extra_body={"temperature": 0}
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    assert final.content[0].text == whole.content[0].text
    assert final.stop_reason == whole.stop_reason
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert prompt_tokens(final.usage) == prompt_tokens(whole.usage)
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop"
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 1


def test_the_text_stream_comes_in_pieces(client, model):
    with client.messages.stream(model=model, messages=FRANCE, max_tokens=32) as stream:
        assert len(list(stream.text_stream)) > 2


def test_raw_events_come_in_order(client, model):
    events = [event.type for event in ask(client, model, stream=True)]
    deltas = events[2:-3]
    assert events[:2] == ["message_start", "content_block_start"]
    assert deltas and set(deltas) == {"content_block_delta"}
    assert events[-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_the_async_client_gets_the_same_answers(client, model):
    async def both():
        async with AsyncAnthropic(base_url=BASE_URL, api_key="none", max_retries=0) as client:
            whole = await ask(client, model)
            async with client.messages.stream(
                model=model,
                messages=FRANCE,
                max_tokens=32,
                        extra_body={"temperature": 0},
            ) as stream:
                text = "".join([piece async for piece in stream.text_stream])
            return whole.content[0].text, text

    expected = ask(client, model).content[0].text
    assert asyncio.run(both()) == (expected, expected)


def test_system_blocks_marks_for_the_cache_and_documents_are_read(client, model):
    mark = {"type": "ephemeral"}
    answer = ask(
        client,
        model,
        system=[{"type": "text", "text": "Answer in English.", "cache_control": mark}],
        messages=[
            {
                "role": "user",
                "content": [
                    {
                        "type": "document",
                        "title": "Letter",
                        "source": {"type": "text", "media_type": "text/plain", "data": "Dear Ann,"},
                    },
                    {"type": "text", "text": "Who gets the letter?", "cache_control": mark},
                ],
            }
        ],
    )
    assert answer.content[0].text


def test_a_beginning_of_the_answer_is_gone_on_from(client, model):
    answer = ask(
        client, model, messages=[*FRANCE, {"role": "assistant", "content": "The capital of France is"}]
    )
    assert "Paris" in answer.content[0].text
    assert "The capital" not in answer.content[0].text


def test_max_tokens_and_stop_sequences_are_told_apart(client, model):
    short = ask(client, model, max_tokens=2)
    assert short.stop_reason == "max_tokens" and short.usage.output_tokens == 2
    stopped = ask(client, model, stop_sequences=["aris"])
    assert stopped.stop_reason == "stop_sequence" and stopped.stop_sequence == "aris"
    assert "aris" not in stopped.content[0].text


def test_the_second_request_reads_the_cache(client, model):
    body = {"system": "You know all about the geography of Europe. " * 8}
    ask(client, model, **body)
    usage = ask(client, model, **body).usage
    assert usage.cache_read_input_tokens > usage.input_tokens
    assert usage.cache_creation_input_tokens == 0


# --- forms and counting


def test_a_parsed_answer_is_an_object_of_its_class(client, model):
    class Animal(BaseModel):
        legs: int
        tame: bool

    answer = client.messages.parse(
        model=model,
        messages=[{"role": "user", "content": "Describe a cat."}],
        output_format=Animal,
        max_tokens=100,
        extra_body={"temperature": 0},
    )
    assert isinstance(answer.parsed_output, Animal)


def test_counted_tokens_are_the_prompts(client, model):
    body = {"messages": FRANCE, "system": "You are helpful."}
    counted = client.messages.count_tokens(model=model, **body)
    answered = client.messages.create(model=model, max_tokens=1, **body)
    assert counted.input_tokens == prompt_tokens(answered.usage)
    beta = client.beta.messages.count_tokens(model=model, **body)
    assert beta.input_tokens == counted.input_tokens


# --- errors


def test_errors_are_of_the_clients_classes(client, model):
    with pytest.raises(anthropic.BadRequestError) as error:
        ask(client, model, extra_body={"temperature": 7})
    assert error.value.body["error"]["type"] == "invalid_request_error"
    assert error.value.body["request_id"] == error.value.request_id
    assert "temperature" in str(error.value)
    with pytest.raises(anthropic.NotFoundError) as error:
        ask(client, "claude-none")
    assert error.value.body["error"]["type"] == "not_found_error"
    with pytest.raises(anthropic.NotFoundError):
        client.messages.batches.retrieve("msgbatch_1")
    with pytest.raises(anthropic.BadRequestError) as error:
        ask(client, model, tools=[{"type": "web_search_20250305", "name": "web_search"}])
    assert "tools[0].type" in str(error.value)


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_is_too_long_says_so(client, model, stream):
    long = [{"role": "user", "content": "word " * 2 * CONTEXT}]
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long: [0-9]+ tokens > [0-9]+ maximum"):
        ask(client, model, messages=long, stream=stream)


def test_beta_headers_and_unknown_fields_are_let_pass(client, model):
    answer = client.beta.messages.create(
        model=model,
        messages=FRANCE,
        max_tokens=16,
        betas=["context-management-2025-06-27", "interleaved-thinking-2025-05-14"],
        metadata={"user_id": "u"},
        extra_body={"temperature": 0, "what_comes_next": True},
    )
    assert "Paris" in answer.content[0].text


def test_a_hang_up_leaves_a_server_that_answers(client, model):
    for _ in range(4):
        with client.messages.stream(model=model, messages=FRANCE, max_tokens=400) as stream:
            next(iter(stream))
    assert "Paris" in ask(client, model).content[0].text
