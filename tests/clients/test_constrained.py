"""Answers of a given form, as users of OpenAI's and vLLM's clients ask for them."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from typing import Literal

import openai
import pytest
from pydantic import BaseModel

ASK = [{"role": "user", "content": "Invent a small animal."}]


class Kind(str, Enum):
    cat = "cat"
    dog = "dog"


class Legs(BaseModel):
    count: Literal[2, 4]
    long: bool


class Animal(BaseModel):
    kind: Kind
    legs: Legs
    tame: bool | None


def chat(client, model, **more):
    return client.chat.completions.create(
        model=model, messages=ASK, temperature=0, max_tokens=200, **more
    )


def wrapped(schema, **more):
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, **more}}


def test_the_client_parses_a_pydantic_model(client, model):
    answer = client.chat.completions.parse(
        model=model, messages=ASK, response_format=Animal, temperature=0, max_tokens=200
    )
    assert answer.choices[0].finish_reason == "stop"
    assert isinstance(answer.choices[0].message.parsed, Animal)


def test_sixteen_answers_at_once_all_parse(client, model):
    def ask(seed):
        return client.chat.completions.parse(
            model=model, messages=ASK, response_format=Animal, temperature=1, seed=seed, max_tokens=200
        )

    with ThreadPoolExecutor(16) as pool:
        for answer in pool.map(ask, range(16)):
            assert isinstance(answer.choices[0].message.parsed, Animal)


def test_a_streamed_answer_of_a_form_is_the_same_answer(client, model):
    form = wrapped(Animal.model_json_schema())
    whole = chat(client, model, response_format=form).choices[0].message.content
    chunks = chat(client, model, response_format=form, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == whole
    Animal.model_validate_json(whole)


def test_a_json_object_is_an_object(client, model):
    answer = chat(client, model, response_format={"type": "json_object"})
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(answer.choices[0].message.content), dict)
    else:
        assert answer.choices[0].message.content.startswith("{")


@pytest.mark.parametrize(
    ("field", "value", "pattern"),
    [
        ("regex", "[a-z]{3,9}, [0-9]{4}", r"[a-z]{3,9}, [0-9]{4}"),
        ("lark", 'start: "<" NAME ">"\nNAME: /[A-Z][a-z]{2,6}/', r"<[A-Z][a-z]{2,6}>"),
        ("grammar", '%llguidance {}\nstart: "yes" | "no"', r"yes|no"),
        ("grammar", 'root ::= "yes" | "no"', r"yes|no"),
        ("guided_regex", r"^\d{1,3} legs$", r"\d{1,3} legs"),
        ("guided_choice", ["cat", "dog"], r"cat|dog"),
        ("guided_json", {"enum": ["cat", "dog"]}, r'"cat"|"dog"'),
        ("json_schema", {"enum": [1, 2]}, r"1|2"),
        ("structured_outputs", {"choice": ["cat", "dog"]}, r"cat|dog"),
    ],
)
@pytest.mark.parametrize("kind", ["chat", "completion"])
def test_every_form_is_followed(client, model, kind, field, value, pattern):
    more = {"extra_body": {field: value}}
    if kind == "chat":
        text = chat(client, model, **more).choices[0].message.content
    else:
        text = client.completions.create(
            model=model, prompt="An animal:", temperature=0, max_tokens=200, **more
        ).choices[0].text
    assert re.fullmatch(pattern, text), text


def test_what_strict_cannot_promise_is_refused_with_its_place(client, model):
    schema = {"type": "object", "properties": {"a": {"type": "string", "not": {"const": "x"}}}}
    with pytest.raises(openai.BadRequestError) as error:
        chat(client, model, response_format=wrapped(schema, strict=True))
    assert error.value.param == "response_format.json_schema.schema#/properties/a/not"


def test_what_is_not_strict_is_relaxed_and_says_so(client, model):
    schema = {
        "type": "object",
        "properties": {"a": {"type": "boolean", "not": {"const": True}}},
        "required": ["a"],
        "additionalProperties": False,
    }
    response = client.chat.completions.with_raw_response.create(
        model=model, messages=ASK, response_format=wrapped(schema), temperature=0, max_tokens=50
    )
    assert "#/properties/a/not" in response.headers["x-warning"]
    assert isinstance(json.loads(response.parse().choices[0].message.content)["a"], bool)


def test_a_schema_too_large_is_refused_and_the_next_answer_comes(client, model):
    deep = {"type": "string"}
    for _ in range(200):
        deep = {"type": "array", "items": deep}
    for schema in (deep, {"enum": [str(n) for n in range(25_000)]}):
        with pytest.raises(openai.BadRequestError):
            chat(client, model, response_format=wrapped({"properties": {"a": schema}}))
    assert chat(client, model, extra_body={"guided_choice": ["a"]}).choices
