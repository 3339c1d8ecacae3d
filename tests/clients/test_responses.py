"""The Responses API as users of OpenAI's Python client rely on it; each event is held to the published types."""

import asyncio
import json
import os
import time
from typing import Literal

import httpx2 as httpx
import openai
import pytest
from conftest import BASE_URL
from openai import AsyncOpenAI
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

SEQUENCES = int(os.environ["SEQUENCES"])
FRANCE = "What is the capital of France? Answer in one word."
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


def respond(client, model, **more):
    more.setdefault("max_output_tokens", 32)
    return client.responses.create(
        model=model, input=more.pop("input", FRANCE), temperature=more.pop("temperature", 0), **more
    )


def raw_events(**body):
    """The events as they come over the wire."""
    frames = []
    with httpx.stream("POST", f"{BASE_URL}/responses", json={**body, "stream": True}, timeout=60) as answer:
        assert answer.status_code == 200
        text = "".join(answer.iter_text())
    for frame in text.removesuffix("\n\n").split("\n\n"):
        event, data = frame.split("\n")
        frames.append((event.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return frames


def test_the_capital_of_france_is_paris(client, model):
    answer = respond(client, model)
    assert "Paris" in answer.output_text
    assert answer.status == "completed" and answer.error is None
    assert answer.object == "response" and answer.id.startswith("resp_")
    assert answer.output[0].id.startswith("msg_")
    assert answer.model == model
    usage = answer.usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert 0 <= usage.input_tokens_details.cached_tokens <= usage.input_tokens
    assert usage.output_tokens_details.reasoning_tokens == 0


def test_a_whole_answer_is_of_the_published_type(client, model):
    raw = client.responses.with_raw_response.create(model=model, input=FRANCE, max_output_tokens=4)
    Response.model_validate_json(raw.http_response.content)


def test_every_event_is_of_the_published_type_and_in_its_place(model):
    events = raw_events(
        model=model, input=FRANCE, max_output_tokens=8, temperature=0, include=["message.output_text.logprobs"]
    )
    validated(events)
    names = [name for name, _ in events]
    once = [name for at, name in enumerate(names) if at == 0 or names[at - 1] != name]
    assert once == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        names[-1],
    ]
    assert names[-1] in ("response.completed", "response.incomplete")
    deltas = [event for name, event in events if name == "response.output_text.delta"]
    item = events[-1][1]["response"]["output"][0]
    assert all(
        (event["item_id"], event["output_index"], event["content_index"]) == (item["id"], 0, 0) for event in deltas
    )
    assert "".join(event["delta"] for event in deltas) == item["content"][0]["text"]
    tokens = [token for event in deltas for token in event["logprobs"]]
    assert tokens == item["content"][0]["logprobs"]
    assert b"".join(bytes(token["bytes"]) for token in tokens).decode() == item["content"][0]["text"]


def test_a_streamed_answer_is_the_whole_answer_with_the_same_seed(client, model):
    ask = {"input": "Tell me a story.", "temperature": 1, "extra_body": {"seed": 7}}
    whole = respond(client, model, **ask).output_text
    streamed = "".join(
        event.delta
        for event in respond(client, model, stream=True, **ask)
        if event.type == "response.output_text.delta"
    )
    assert streamed == whole
    assert respond(client, model, **{**ask, "extra_body": {"seed": 8}}).output_text != whole


def test_the_stream_helper_follows_and_gives_the_final_response(client, model):
    with client.responses.stream(model=model, input=FRANCE, temperature=0, max_output_tokens=32) as stream:
        snapshots = [event.snapshot for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert snapshots[-1] == final.output_text
    assert "Paris" in final.output_text


def test_the_async_client_gets_the_same_answers(client, model):
    async def ask():
        async with AsyncOpenAI(base_url=BASE_URL, api_key="none", max_retries=0) as client:
            whole = await respond(client, model)
            text = ""
            async for event in await respond(client, model, stream=True):
                text += event.delta if event.type == "response.output_text.delta" else ""
            return whole.output_text, text

    whole, text = asyncio.run(ask())
    assert whole == text == respond(client, model).output_text


def test_an_answer_that_is_cut_off_is_incomplete(client, model):
    answer = respond(client, model, input="Tell me a long story.", max_output_tokens=16)
    assert answer.status == "incomplete"
    assert answer.incomplete_details.reason == "max_output_tokens"
    last = list(respond(client, model, input="Tell me a long story.", max_output_tokens=16, stream=True))[-1]
    assert last.type == "response.incomplete"
    assert last.response.output_text == answer.output_text


def test_a_parsed_answer_is_of_the_type_asked_for(client, model):
    class City(BaseModel):
        country: Literal["France", "Spain"]
        is_large: bool

    answer = client.responses.parse(
        model=model,
        input="Tell me about Paris.",
        text_format=City,
        temperature=0,
        max_output_tokens=200,
        reasoning={"effort": "none"},
    )
    assert isinstance(answer.output_parsed, City)


def test_json_is_an_object_and_a_strict_schema_that_cannot_be_enforced_is_refused(client, model):
    answer = respond(client, model, text={"format": {"type": "json_object"}}, max_output_tokens=64)
    if answer.status == "completed":
        assert isinstance(json.loads(answer.output_text), dict)
    schema = {"type": "object", "properties": {"a": {"type": "strange"}}}
    with pytest.raises(openai.BadRequestError) as error:
        respond(
            client, model, text={"format": {"type": "json_schema", "name": "x", "strict": True, "schema": schema}}
        )
    assert error.value.param.startswith("text.format.schema")


def test_a_conversation_goes_on_by_the_last_answers_id(client, model):
    first = respond(client, model, instructions="You answer in one word.", input="The capital of Spain?")
    second = respond(client, model, input="And of France?", previous_response_id=first.id)
    alone = respond(client, model, input="And of France?")
    assert second.usage.input_tokens > alone.usage.input_tokens
    assert second.previous_response_id == first.id
    by_hand = respond(
        client,
        model,
        input=[
            {"role": "user", "content": "The capital of Spain?"},
            *[item.model_dump() for item in first.output],
            {"role": "user", "content": "And of France?"},
        ],
    )
    assert by_hand.usage.input_tokens == second.usage.input_tokens
    assert by_hand.output_text == second.output_text


def test_a_kept_answer_is_retrieved_listed_and_deleted(client, model):
    answer = respond(client, model)
    assert client.responses.retrieve(answer.id).output_text == answer.output_text
    items = client.responses.input_items.list(answer.id)
    assert [item.content[0].text for item in items] == [FRANCE]
    with pytest.raises(openai.BadRequestError):
        client.responses.cancel(answer.id)
    client.responses.delete(answer.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(answer.id)
    with pytest.raises(openai.BadRequestError) as error:
        respond(client, model, previous_response_id=answer.id)
    assert error.value.code == "previous_response_not_found"


def test_an_answer_that_is_not_stored_is_not_found(client, model):
    answer = respond(client, model, store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(answer.id)


def test_counted_tokens_are_those_that_are_read(client, model):
    ask = {"input": [{"role": "user", "content": FRANCE}], "instructions": "Be brief."}
    counted = client.responses.input_tokens.count(model=model, **ask)
    assert counted.input_tokens == respond(client, model, **ask).usage.input_tokens


def validated(events):
    published = TypeAdapter(ResponseStreamEvent)
    for number, (name, event) in enumerate(events):
        assert name == event["type"] and event["sequence_number"] == number
        assert type(published.validate_python(event)).model_fields["type"].annotation.__args__ == (name,)
    return [event for _, event in events]


def habit():
    """A conversation after which even a small model goes on with a call."""
    for number, city in enumerate(["Berlin", "Madrid", "Rome"]):
        yield {"role": "user", "content": f"The weather in {city}?"}
        arguments = json.dumps({"city": city})
        yield {"type": "function_call", "call_id": f"call_{number}", "name": "get_weather", "arguments": arguments}
    yield {"role": "user", "content": "The weather in Paris?"}


def test_a_call_that_is_demanded_is_made_and_its_result_is_read(client, model):
    ask = {"input": list(habit()), "tools": [WEATHER], "tool_choice": "required", "max_output_tokens": 200}
    answer = respond(client, model, **ask)
    call = answer.output[-1]
    assert call.type == "function_call" and call.id.startswith("fc_") and call.status == "completed"
    assert call.name == "get_weather" and isinstance(json.loads(call.arguments)["city"], str)
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    then = respond(client, model, input=[output], previous_response_id=answer.id, tools=[WEATHER])
    assert then.usage.input_tokens > answer.usage.input_tokens


def test_the_events_of_a_call_are_of_the_published_types(model):
    events = validated(
        raw_events(
            model=model,
            input=list(habit()),
            tools=[WEATHER],
            tool_choice={"type": "function", "name": "get_weather"},
            temperature=0,
            max_output_tokens=200,
        )
    )
    item = events[-1]["response"]["output"][-1]
    of_call = [event for event in events if event.get("output_index") == events[-2]["output_index"]]
    assert list(dict.fromkeys(event["type"] for event in of_call)) == [
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
    ]
    deltas = [event["delta"] for event in of_call if "delta" in event]
    assert len(deltas) > 1 and "".join(deltas) == item["arguments"]
    assert json.loads(item["arguments"]).keys() == {"city"}


def test_reasoning_is_an_item_of_its_own_whose_events_are_of_the_published_types(model):
    events = validated(
        raw_events(
            model=model, input="Hi", grammar='root ::= "<think>\\nLet me see.\\n</think>\\n\\nHello" [a-z ]{1,20}'
        )
    )
    reasoning, message = events[-1]["response"]["output"]
    assert reasoning["id"].startswith("rs_") and reasoning["summary"] == []
    assert reasoning["content"][0]["text"].strip() == "Let me see."
    assert message["content"][0]["text"].startswith("Hello")
    deltas = [event["delta"] for event in events if event["type"] == "response.reasoning_text.delta"]
    assert "".join(deltas) == reasoning["content"][0]["text"]
    assert events[-1]["response"]["usage"]["output_tokens_details"]["reasoning_tokens"] > 0


def test_the_history_of_a_tool_call_is_accepted(client, model):
    call = {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": '{"city": "Paris"}'}
    answer = respond(
        client,
        model,
        tools=[WEATHER],
        input=[
            {"role": "user", "content": "The weather in Paris?"},
            {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "I look it up."}]},
            call,
            {"type": "function_call_output", "call_id": "call_1", "output": "sunny"},
        ],
    )
    assert answer.status in ("completed", "incomplete")
    assert answer.tools[0].name == "get_weather"
    with pytest.raises(openai.BadRequestError) as error:
        respond(client, model, input=[{"type": "function_call_output", "call_id": "call_2", "output": "sunny"}])
    assert error.value.param == "input[0].call_id"


def test_tools_the_model_cannot_have_are_left_out_unless_one_is_demanded(client, model):
    answer = client.responses.with_raw_response.create(
        model=model, input=FRANCE, max_output_tokens=4, tools=[{"type": "web_search"}]
    )
    assert "web_search" in answer.headers["x-warning"]
    with pytest.raises(openai.BadRequestError) as error:
        respond(client, model, tools=[{"type": "web_search"}], tool_choice={"type": "web_search"})
    assert error.value.param == "tool_choice.type"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("background", True),
        ("conversation", "conv_1"),
        ("truncation", "auto"),
        ("max_output_tokens", -1),
        ("input", [{"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]}]),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(client, model, field, value):
    with pytest.raises(openai.BadRequestError) as error:
        respond(client, model, **{field: value})
    assert error.value.param.startswith(field)


def test_whoever_hangs_up_frees_the_sequence_within_two_seconds(client, model):
    streams = [respond(client, model, input="Count to 1000.", max_output_tokens=900, stream=True) for _ in range(SEQUENCES)]
    for stream in streams:
        while next(stream).type != "response.output_text.delta":
            pass
    for stream in streams:
        stream.close()
    began = time.monotonic()
    respond(client, model, max_output_tokens=1)
    assert time.monotonic() - began < 2
