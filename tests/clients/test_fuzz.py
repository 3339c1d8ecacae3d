"""Requests made from the server's own description, right ones and wrong ones: every answer is a documented one."""

import os

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

ROOT = os.environ["BASE_URL"].removesuffix("/v1")
# Each is run by the server: a bounded number, the same ones each time.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "15"))

schema = schemathesis.openapi.from_url(f"{ROOT}/openapi.json")


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_documented(case):
    response = case.call(base_url=ROOT, timeout=60)
    # A restart, an overload or a limit is no answer to a request that comes alone.
    assert response.status_code < 500, response.text
    case.validate_response(response, checks=[status_code_conformance, response_schema_conformance])


def test_an_ordinary_request_works_afterwards():
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    answer = httpx.post(f"{ROOT}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
