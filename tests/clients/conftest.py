"""The client under test. tests/clients.rs starts the server and says where it is."""

import os

import pytest
from openai import OpenAI

BASE_URL = os.environ["BASE_URL"]
MODEL = os.environ["MODEL"]


@pytest.fixture
def model():
    return MODEL


@pytest.fixture
def client():
    # No retries: a failure must be seen, not repeated. The SDK insists on some key.
    with OpenAI(base_url=BASE_URL, api_key="none", max_retries=0, timeout=60) as client:
        yield client
