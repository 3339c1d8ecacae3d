"""The `llm` tool, set up as its users do: a file that names the server."""

import os
import subprocess
import sys

import pytest

FILE = """
- model_id: here
  model_name: {model}
  api_base: {base}
  api_key_name: here
  supports_schema: true
"""


@pytest.fixture
def llm(tmp_path, model):
    (tmp_path / "extra-openai-models.yaml").write_text(
        FILE.format(model=model, base=os.environ["BASE_URL"])
    )
    (tmp_path / "keys.json").write_text('{"here": "none"}')

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "llm", *arguments],
            env={**os.environ, "LLM_USER_PATH": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.parametrize("stream", [(), ("--no-stream",)])
def test_the_capital_of_france_is_paris(llm, stream):
    answer = llm("-m", "here", *stream, "-o", "temperature", "0", "-o", "max_tokens", "32",
                 "What is the capital of France? Answer in one word.")
    assert "Paris" in answer


def test_an_answer_follows_a_schema(llm):
    answer = llm("-m", "here", "--schema", "tame bool", "-o", "max_tokens", "60", "Describe a cat.")
    assert '"tame"' in answer
