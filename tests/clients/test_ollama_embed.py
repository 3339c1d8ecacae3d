"""Ollama's own client with a real embedding model."""

import os

import numpy
import ollama
import pytest

HOST = os.environ["BASE_URL"].removesuffix("/v1")


@pytest.fixture
def client():
    return ollama.Client(host=HOST, timeout=60)


def test_near_texts_have_near_vectors_of_length_one(client, model):
    texts = ["a cat sleeps", "a kitten is napping", "the interest rate of the bank"]
    answer = client.embed(model, texts)
    cat, kitten, bank = numpy.array(answer.embeddings)
    assert abs(numpy.linalg.norm(cat) - 1) < 1e-5
    assert cat @ kitten > cat @ bank + 0.2
    assert answer.prompt_eval_count > 10 and answer.total_duration > 0


def test_the_older_endpoint_gives_the_same_vector(client, model):
    new = client.embed(model, "a cat sleeps").embeddings[0]
    old = client.embeddings(model, "a cat sleeps").embedding
    assert numpy.allclose(new, old, atol=1e-6)


def test_what_is_too_long_is_cut_unless_that_is_forbidden(client, model):
    long = "word " * 3000
    assert len(client.embed(model, long).embeddings[0]) == 384
    with pytest.raises(ollama.ResponseError, match="tokens are more than"):
        client.embed(model, long, truncate=False)


def test_the_model_says_that_it_embeds_and_cannot_chat(client, model):
    assert client.show(model).capabilities == ["embedding"]
    with pytest.raises(ollama.ResponseError, match="cannot generate text"):
        client.chat(model, [{"role": "user", "content": "Hi"}])
