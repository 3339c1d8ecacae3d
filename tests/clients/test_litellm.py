"""LiteLLM's two ways to a server of one's own: as OpenAI's and as Anthropic's."""

import os

import litellm
import pytest

OPENAI = os.environ["BASE_URL"]
ANTHROPIC = OPENAI.removesuffix("/v1")
FRANCE = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]


@pytest.fixture(params=["openai", "anthropic"])
def ask(request, model):
    base = OPENAI if request.param == "openai" else ANTHROPIC

    def ask(**more):
        body = {"messages": FRANCE, "temperature": 0, "max_tokens": 32, **more}
        name = body.pop("model", model)
        return litellm.completion(
            model=f"{request.param}/{name}", api_base=base, api_key="none", num_retries=0, **body
        )

    return ask


def test_the_capital_of_france_is_paris(ask):
    answer = ask()
    assert "Paris" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_stream_adds_up_to_the_answer(ask):
    text = "".join(chunk.choices[0].delta.content or "" for chunk in ask(stream=True))
    assert text == ask().choices[0].message.content


def test_errors_are_litellms_classes(ask):
    with pytest.raises(litellm.NotFoundError):
        ask(model="none")
    with pytest.raises(litellm.ContextWindowExceededError):
        ask(messages=[{"role": "user", "content": "word " * 4000}])
