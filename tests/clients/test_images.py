"""Images through OpenAI's own client, against the small model with a synthetic projector: it sees noise, and different
noise for different images."""

import base64
import struct
import zlib

import pytest
from openai import BadRequestError


def png(colour, side=40):
    """A picture whose colour runs from `colour` to black."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(
        b"\0" + bytes(shade * (side - y) // side for _ in range(side) for shade in colour) for y in range(side)
    )
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


RED, BLUE = png((250, 10, 10)), png((10, 10, 250))


def picture(file):
    url = "data:image/png;base64," + base64.b64encode(file).decode()
    return {"type": "image_url", "image_url": {"url": url}}


def words(text):
    return {"type": "text", "text": text}


def ask(client, model, *parts, **more):
    options = {"temperature": 0, "max_tokens": 12, "logprobs": True, "top_logprobs": 5, **more}
    messages = [{"role": "user", "content": list(parts)}]
    return client.chat.completions.create(model=model, messages=messages, **options)


def first_logprobs(answer):
    return [(top.token, top.logprob) for top in answer.choices[0].logprobs.content[0].top_logprobs]


def close(one, other):
    """The same alternatives, up to the rounding of batches of other shapes."""
    one, other = dict(one), dict(other)
    return one.keys() == other.keys() and all(abs(one[token] - other[token]) < 0.05 for token in one)


def test_the_same_image_gives_the_same_answer_fresh_and_from_the_cache(client, model):
    first = ask(client, model, words("Describe this:"), picture(RED), extra_body={"cache_prompt": False})
    second = ask(client, model, words("Describe this:"), picture(RED))
    third = ask(client, model, words("Describe this:"), picture(RED))
    assert third.usage.prompt_tokens_details.cached_tokens > 64
    assert first.choices[0].message.content == second.choices[0].message.content
    assert close(first_logprobs(first), first_logprobs(second))
    assert close(first_logprobs(second), first_logprobs(third))


def test_images_are_told_apart_and_so_is_their_order(client, model):
    def seen(*parts):
        return first_logprobs(ask(client, model, *parts, words("Describe this.")))

    red, blue = picture(RED), picture(BLUE)
    assert not close(seen(red), seen(blue))
    assert not close(seen(red, blue), seen(blue, red))
    assert not close(seen(red), seen(red, red))


def test_image_tokens_are_counted(client, model):
    def tokens(*parts):
        return ask(client, model, *parts, max_tokens=1).usage.prompt_tokens

    text = tokens(words("Describe this."))
    assert tokens(words("Describe this."), picture(RED)) - text == 64
    assert tokens(words("Describe this."), picture(RED), picture(BLUE)) - text == 128


def test_a_conversation_goes_on_from_what_is_cached(client, model):
    messages = [{"role": "user", "content": [picture(RED), words("What is it?")]}]
    options = {"model": model, "temperature": 0, "max_tokens": 8}
    answer = client.chat.completions.create(messages=messages, **options)
    messages.append({"role": "assistant", "content": answer.choices[0].message.content})
    messages.append({"role": "user", "content": [words("And this?"), picture(BLUE)]})
    usage = client.chat.completions.create(messages=messages, **options).usage
    assert usage.prompt_tokens_details.cached_tokens > 64
    assert usage.prompt_tokens > 128


def test_a_stream_with_an_image(client, model):
    options = {"stream": True, "temperature": 0, "max_tokens": 12, "stream_options": {"include_usage": True}}
    messages = [{"role": "user", "content": [words("Describe this:"), picture(RED)]}]
    text, usage = "", None
    for chunk in client.chat.completions.create(model=model, messages=messages, **options):
        usage = chunk.usage or usage
        text += chunk.choices[0].delta.content or "" if chunk.choices else ""
    whole = ask(client, model, words("Describe this:"), picture(RED))
    assert text == whole.choices[0].message.content
    assert usage.prompt_tokens == whole.usage.prompt_tokens


@pytest.mark.parametrize("file", [b"", b"not an image", RED[:200], b"\xff\xd8\xff\xe0" + bytes(64)])
def test_a_broken_image_is_refused_and_the_server_lives(client, model, file):
    with pytest.raises(BadRequestError) as refused:
        ask(client, model, picture(file))
    assert refused.value.param == "messages[0].content[0].image_url.url"
    assert ask(client, model, words("Hello")).choices


def test_a_picture_that_is_small_as_a_file_and_huge_as_pixels_is_refused(client, model):
    bomb = bytearray(png((1, 1, 1), 4))
    bomb[16:24] = struct.pack(">II", 30000, 30000)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bomb[12:29]))
    with pytest.raises(BadRequestError, match="900000000|30000 × 30000"):
        ask(client, model, picture(bytes(bomb)))
    assert ask(client, model, words("Hello")).choices
