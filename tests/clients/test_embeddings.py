"""Embeddings through OpenAI's client, with a real embedding model."""

import base64
import struct

import openai
import pytest

TEXTS = ["A cat sits on the mat.", "A kitten rests on a rug.", "The stock market fell sharply on Monday."]


def dot(one, other):
    return sum(a * b for a, b in zip(one, other))


def test_vectors_have_length_one_and_lie_near_when_texts_mean_the_same(client, model):
    answer = client.embeddings.create(model=model, input=TEXTS)
    assert [one.index for one in answer.data] == [0, 1, 2]
    cat, kitten, market = (one.embedding for one in answer.data)
    assert len(cat) == 384
    assert abs(dot(cat, cat) - 1) < 1e-4
    assert dot(cat, kitten) > 0.5 > 0.2 > dot(cat, market)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 20


def test_float_and_base64_are_the_same_numbers(client, model):
    # The client asks for base64 by itself and decodes it; what is asked for by name it leaves alone.
    numbers = client.embeddings.create(model=model, input="hello", encoding_format="float").data[0].embedding
    text = client.embeddings.create(model=model, input="hello", encoding_format="base64").data[0].embedding
    assert list(struct.unpack(f"<{len(numbers)}f", base64.b64decode(text))) == pytest.approx(numbers, abs=1e-6)
    assert client.embeddings.create(model=model, input="hello").data[0].embedding == pytest.approx(numbers, abs=1e-6)


def test_tokens_are_taken_as_langchain_sends_them(client, model):
    answer = client.embeddings.create(model=model, input=[[101, 7592, 102], [101, 2088, 102]])
    hello = client.embeddings.create(model=model, input="hello").data[0].embedding
    assert dot(answer.data[0].embedding, hello) > 0.9999
    assert answer.usage.prompt_tokens == 6


def test_a_text_that_is_too_long_is_named(client, model):
    with pytest.raises(openai.BadRequestError) as error:
        client.embeddings.create(model=model, input=["short", "word " * 600])
    assert error.value.code == "context_length_exceeded"
    assert error.value.param == "input[1]"
    assert "512" in error.value.body["message"]


def test_dimensions_other_than_the_models_are_refused(client, model):
    assert len(client.embeddings.create(model=model, input="a", dimensions=384).data[0].embedding) == 384
    with pytest.raises(openai.BadRequestError) as error:
        client.embeddings.create(model=model, input="a", dimensions=128)
    assert error.value.param == "dimensions"


def test_a_model_that_embeds_does_not_chat(client, model):
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi"}])
    assert error.value.code == "unsupported_by_model"
