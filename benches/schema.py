"""Output by a JSON schema against free output: tokens per second at 1 and 16 streams, and every output is validated.

The same question is asked with and without `response_format`; the free answers are made as long as the others. The
schema is nested, with enums, patterns and arrays, and bounded: every output ends.
"""

import json
import random
import re

import sides
import wire


def record(**properties):
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def text(pattern):
    return {"type": "string", "pattern": f"^{pattern}$"}


def array(items, least, most):
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


LINE = record(
    sku=text("[A-Z]{2}[0-9]{3,5}"),
    quantity={"type": "integer", "minimum": 1, "maximum": 99},
    unit={"enum": ["piece", "box", "pallet", "metre", "litre"]},
    note={"type": "string", "maxLength": 24},
    tags=array({"enum": ["fragile", "cold", "heavy", "urgent", "bulk"]}, 1, 3),
)
SCHEMA = record(
    id=text("[A-Z]{3}-[0-9]{4}"),
    kind={"enum": ["order", "return", "quote"]},
    date=text("20[0-9]{2}-(0[1-9]|1[0-2])-[0-2][0-9]"),
    customer=record(
        name=text("[A-Z][a-z]{2,9} [A-Z][a-z]{2,9}"),
        country={"enum": ["DE", "FR", "IT", "PL", "ES"]},
        regular={"type": "boolean"},
    ),
    lines=array(LINE, 3, 4),
    comment={"type": "string", "maxLength": 60},
)
TYPES = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}


def faults(schema, value, path="$"):
    """What a value of the keywords above breaks, one line each."""
    kind = TYPES.get(schema.get("type"))
    if kind and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
        yield f"{path}: not {schema['type']}: {value!r}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: not in the enum: {value!r}"
    if kind is str:
        if not re.search(schema.get("pattern", ""), value) or len(value) > schema.get("maxLength", len(value)):
            yield f"{path}: not by pattern or length: {value!r}"
    if kind is int and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        yield f"{path}: out of range: {value}"
    if kind is dict:
        if wrong := set(value) ^ set(schema["required"]):
            yield f"{path}: missing or unknown: {', '.join(sorted(wrong))}"
        for name in value.keys() & schema["properties"].keys():
            yield from faults(schema["properties"][name], value[name], f"{path}.{name}")
    if kind is list:
        if not schema["minItems"] <= len(value) <= schema["maxItems"]:
            yield f"{path}: {len(value)} items"
        for place, item in enumerate(value):
            yield from faults(schema["items"], item, f"{path}[{place}]")


def fault(answer):
    """Why an answer is not valid output, or None."""
    if answer.error:
        return f"status {answer.status}: {answer.error}"
    try:
        return next(faults(SCHEMA, json.loads(answer.text)), None)
    except ValueError as error:
        return f"{error} in {answer.text[-80:]!r} (ended by {answer.reason})"


def ask(port, count, most, constrained, fresh):
    requests = []
    for _ in range(count):
        salt = random.randrange(10**9)
        task = "Invent a business record of a small warehouse: an order with a few lines. Answer in JSON only."
        body = {
            "messages": [{"role": "user", "content": f"Case {salt}. {task}"}],
            "max_tokens": most, "temperature": 0.8, "seed": salt % 2**31,
        }  # fmt: skip
        if constrained:
            schema = SCHEMA | ({"title": f"record {salt}"} if fresh else {})
            wanted = {"name": "record", "strict": True, "schema": schema}
            body["response_format"] = {"type": "json_schema", "json_schema": wanted}
        else:
            body["ignore_eos"] = True
        requests.append(wire.encode(body, "/v1/chat/completions"))
    return wire.ask(port, requests)


def figures(answers):
    span = max(answer.times[-1] for answer in answers) - min(answer.begun for answer in answers)
    return {
        "decode": wire.together(answers, wire.per_event(answers)),
        "whole": sum(answer.tokens for answer in answers) / span,
        "ttft": sides.median([answer.ttft for answer in answers]),
        "tokens": sides.median([answer.tokens for answer in answers]),
    }


def main():
    options = sides.parser(__doc__, context=1536)
    options.add_argument("--streams", default="1,16")
    options.add_argument("--most", type=int, default=1024, help="tokens by which every output must have ended")
    options.add_argument("--fresh", action="store_true", help="a schema that no cache of compiled ones has seen, each time")
    arguments = options.parse_args()
    counts = [int(count) for count in arguments.streams.split(",")]
    arguments.parallel = arguments.parallel or max(counts)

    servers = sides.both(arguments, "--cache-ram", "0")
    runs, broken, checked = {}, [], 0
    with sides.running(arguments, servers):
        # Also tells how long the free answers should be.
        lengths = []
        for server in servers:
            answers = ask(server.port, max(counts), arguments.most, True, False)
            lengths += [answer.tokens for answer in answers if not fault(answer)]
        length = int(sides.median(lengths) or 300)
        for _ in range(arguments.runs):
            for count in counts:
                for server in servers:
                    for way in ("schema", "free"):
                        constrained = way == "schema"
                        most = arguments.most if constrained else length
                        answers = ask(server.port, count, most, constrained, arguments.fresh)
                        if constrained:
                            checked += len(answers)
                            broken += [f"{server.label}: {why}" for answer in answers if (why := fault(answer))]
                        if not any(answer.error for answer in answers):
                            runs.setdefault((count, server.label, way), []).append(figures(answers))
    rows = []
    middle = {key: {name: sides.median([run[name] for run in found]) for name in found[0]} for key, found in runs.items()}
    for (count, label, way), found in middle.items():
        free = middle.get((count, label, "free"))
        peer = middle.get((count, "llama-server", way))
        rows.append([
            f"{count} × {label}, {way}", found["decode"], found["whole"], found["ttft"], found["tokens"],
            sides.ratio(found["decode"], free and free["decode"]),
            sides.ratio(found["decode"], peer and peer["decode"]),
            sides.ratio(found["whole"], peer and peer["whole"]),
        ])  # fmt: skip
    head = ["median", "decode tokens/s", "whole tokens/s", "first token, s", "tokens"]
    sides.table([*head, "decode/free", "decode/peer", "whole/peer"], rows)
    print(f"{checked - len(broken)} of {checked} outputs are valid")
    for why in broken[:10]:
        print(f"  {why}")
    sides.write(
        arguments,
        runs={f"{count} {label} {way}": found for (count, label, way), found in runs.items()},
        medians={f"{count} {label} {way}": found for (count, label, way), found in middle.items()},
        checked=checked,
        broken=broken,
    )


if __name__ == "__main__":
    main()
