"""The dashboard against Grafana's own types of dashboards, panels and queries: no field that it does not know, no value of
another type, no word that it does not have."""

import enum
import json
import pathlib
import types
import typing

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

FILE = pathlib.Path(__file__).parents[2] / "contrib/grafana/llm-server.json"
# Grafana's frontend writes and reads it, and its types have forgotten it.
FORGOTTEN = "/definition"


@pytest.fixture
def written():
    return json.loads(FILE.read_text())


@pytest.fixture(autouse=True)
def types_of_panels():
    register_default_plugins()


def leaves(value, path=""):
    """Each plain value with the way to it."""
    if isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, f"{path}/{name}")
    elif value is not None:
        yield path, value


def misfits(value, kind, path=""):
    """What of a typed value is not what its type says."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        each = [list(misfits(value, part, path)) for part in parts]
        yield from min(each, key=len)
    elif origin is typing.Literal:
        if value not in parts:
            yield path, value, kind
    elif origin is list or origin is dict:
        if not isinstance(value, origin):
            yield path, value, kind
        else:
            for name, inner in value.items() if origin is dict else enumerate(value):
                yield from misfits(inner, parts[-1], f"{path}/{name}")
    elif kind in (object, typing.Any):
        if hasattr(value, "to_json"):
            yield from misfits(value, type(value), path)
    elif isinstance(kind, type) and issubclass(kind, enum.Enum):
        if value not in [word.value for word in kind]:
            yield path, value, kind
    elif kind is float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield path, value, kind
    elif not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        yield path, value, kind
    elif hasattr(value, "to_json"):
        for name, part in typing.get_type_hints(type(value)).items():
            yield from misfits(getattr(value, name), part, f"{path}/{name}")


def faults(written):
    dashboard = Dashboard.from_json(written)
    # What its types do not know is gone after a round trip.
    kept = set(leaves(json.loads(JSONEncoder().encode(dashboard))))
    unknown = [(path, value) for path, value in leaves(written) if (path, value) not in kept and not path.endswith(FORGOTTEN)]
    return unknown + list(misfits(dashboard, Dashboard))


def test_grafana_knows_all_of_it(written):
    assert faults(written) == []
    assert len(written["panels"]) > 30


def panel(written, kind):
    return next(one for one in written["panels"] if one["type"] == kind)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda it: it.update(refersh="15s"),
        lambda it: it.update(editable="yes"),
        lambda it: panel(it, "timeseries")["options"]["legend"].update(displayMode="tabel"),
        lambda it: panel(it, "timeseries")["fieldConfig"]["defaults"]["custom"].update(linewidth=1),
        lambda it: panel(it, "stat")["targets"][0].update(legend="x"),
    ],
)
def test_and_would_notice(written, spoil):
    spoil(written)
    assert faults(written) != []
