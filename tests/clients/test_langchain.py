"""LangChain's classes for OpenAI's and for Anthropic's API."""

import os

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI

OPENAI = os.environ["BASE_URL"]
ANTHROPIC = OPENAI.removesuffix("/v1")
FRANCE = "What is the capital of France? Answer in one word."


@pytest.fixture(params=["openai", "anthropic"])
def chat(request, model):
    shared = {"model": model, "api_key": "none", "temperature": 0, "max_tokens": 32, "max_retries": 0}
    if request.param == "openai":
        return ChatOpenAI(base_url=OPENAI, **shared)
    return ChatAnthropic(base_url=ANTHROPIC, **shared)


def test_the_capital_of_france_is_paris(chat):
    answer = chat.invoke(FRANCE)
    assert "Paris" in answer.text
    assert answer.usage_metadata["output_tokens"] > 0
    assert answer.usage_metadata["input_tokens"] > 0


def test_a_stream_adds_up_to_the_answer(chat):
    pieces = list(chat.stream(FRANCE))
    assert len(pieces) > 2
    whole = pieces[0]
    for piece in pieces[1:]:
        whole += piece
    assert whole.text == chat.invoke(FRANCE).text


def test_a_conversation_is_understood(chat):
    answer = chat.invoke(
        [
            SystemMessage("You are helpful."),
            HumanMessage("My name is Ann."),
            AIMessage("Hello Ann."),
            HumanMessage(FRANCE),
        ]
    )
    assert answer.text


def test_an_error_is_the_clients(chat):
    with pytest.raises(Exception, match="does not exist"):
        chat.model_copy(update={"model": "none", "model_name": "none"}).invoke(FRANCE)
