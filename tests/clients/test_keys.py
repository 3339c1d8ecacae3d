"""A server with `auth.key_files`: which keys open it, seen through OpenAI's client."""

import os

import openai
import pytest
from conftest import BASE_URL


def client(key):
    return openai.OpenAI(base_url=BASE_URL, api_key=key, max_retries=0, timeout=60)


def test_the_configured_key_opens(model):
    assert client(os.environ["KEY"]).models.list().data[0].id == model


@pytest.mark.parametrize("key", ["wrong", os.environ["KEY"] + "x", os.environ["KEY"][:-1]])
def test_another_key_is_an_authentication_error(key, model):
    with pytest.raises(openai.AuthenticationError) as error:
        client(key).chat.completions.create(
            model=model, messages=[{"role": "user", "content": "Hi"}], max_tokens=1
        )
    assert error.value.code == "invalid_api_key"
    assert error.value.response.headers["www-authenticate"].startswith("Bearer")
    assert key not in str(error.value.body)
