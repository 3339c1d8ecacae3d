"""Tools through Anthropic's Python client, with a chat template that has them and shows examples of calls."""

import json
import os

import anthropic
import pytest
from anthropic import Anthropic

BASE_URL = os.environ["BASE_URL"].removesuffix("/v1")
WEATHER = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"enum": ["Rome", "Oslo"]}, "unit": {"enum": ["celsius", "kelvin"]}},
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
}
TIME = {"name": "get_time", "input_schema": {"type": "object", "properties": {}}}
# The template's examples were for tools one, two and three.
QUESTION = {"role": "user", "content": "Use tool four for the weather in Rome."}
ONE = {"type": "any", "disable_parallel_tool_use": True}


@pytest.fixture
def client():
    with Anthropic(base_url=BASE_URL, api_key="none", max_retries=0, timeout=60) as client:
        yield client


def ask(client, model, **more):
    more.setdefault("messages", [QUESTION])
    more.setdefault("max_tokens", 200)
    more.setdefault("extra_body", {"temperature": 0})
    return client.messages.create(model=model, **more)


def prompt_tokens(usage):
    return usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}])
def test_a_forced_call_has_an_input_of_its_schema(client, model, choice):
    answer = ask(
        client,
        model,
        tools=[WEATHER],
        tool_choice={**choice, "disable_parallel_tool_use": True},
    )
    assert answer.stop_reason == "tool_use"
    (call,) = [block for block in answer.content if block.type == "tool_use"]
    assert call.id.startswith("toolu_") and call.name == "get_weather"
    assert set(call.input) == {"city", "unit"}
    assert call.input["city"] in ("Rome", "Oslo")


def test_a_streamed_call_joins_to_its_input(client, model):
    with client.messages.stream(
        model=model,
        messages=[QUESTION],
        tools=[WEATHER],
        tool_choice=ONE,
        max_tokens=200,
    ) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        call = stream.get_final_message().content[-1]
    assert json.loads("".join(pieces)) == call.input
    assert len(pieces) > 2


def test_the_result_of_a_call_goes_back(client, model):
    first = ask(client, model, tools=[WEATHER, TIME], tool_choice=ONE)
    (call,) = [block for block in first.content if block.type == "tool_use"]
    result = {
        "type": "tool_result",
        "tool_use_id": call.id,
        "content": [{"type": "text", "text": "Sunny, 25 degrees."}],
    }
    history = [
        QUESTION,
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [result]},
    ]
    second = ask(
        client,
        model,
        messages=history,
        tools=[WEATHER, TIME],
        tool_choice={"type": "none"},
        max_tokens=16,
    )
    assert second.stop_reason in ("end_turn", "max_tokens")
    assert second.content[0].type == "text"
    failed = {**result, "is_error": True, "content": "no such city"}
    history[-1] = {"role": "user", "content": [failed]}
    assert ask(client, model, messages=history, tools=[WEATHER, TIME], max_tokens=16).content


def test_the_beta_runner_runs_a_tool_and_sends_its_result(client, model):
    ran = []

    @anthropic.beta_tool
    def set_switch(on: bool) -> str:
        """Sets the switch."""
        ran.append(on)
        return "Done."

    runner = client.beta.messages.tool_runner(
        model=model,
        max_tokens=100,
        tools=[set_switch],
        tool_choice=ONE,
        messages=[{"role": "user", "content": "Use tool four."}],
        max_iterations=2,
    )
    messages = list(runner)
    assert len(messages) == 2 and messages[0].stop_reason == "tool_use"
    assert ran and all(isinstance(on, bool) for on in ran)
    # The second request brought the result of the first one's call.
    assert prompt_tokens(messages[1].usage) > prompt_tokens(messages[0].usage)


