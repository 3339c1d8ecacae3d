"""Sounds through OpenAI's own client, against the small model with a synthetic encoder: it hears noise, and different
noise for different sounds."""

import base64
import io
import math
import struct
import wave

import pytest
from openai import BadRequestError, NotFoundError


def wav(hertz, seconds=0.5, rate=16000):
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        tone = (int(12000 * math.sin(math.tau * hertz * at / rate)) for at in range(int(rate * seconds)))
        out.writeframes(b"".join(struct.pack("<h", sample) for sample in tone))
    return file.getvalue()


LOW, HIGH = wav(220), wav(1760)


def sound(file):
    data = base64.b64encode(file).decode()
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


def ask(client, model, *parts):
    messages = [{"role": "user", "content": [*parts, {"type": "text", "text": "What is this?"}]}]
    return client.chat.completions.create(
        model=model, messages=messages, temperature=0, max_tokens=8, logprobs=True, top_logprobs=5
    )


def write_down(client, model, file=LOW, name="tone.wav", **more):
    return client.audio.transcriptions.create(model=model, file=(name, file), **{"extra_body": {"max_tokens": 8}, **more})


def first_logprobs(answer):
    return {top.token: top.logprob for top in answer.choices[0].logprobs.content[0].top_logprobs}


def test_chat_hears_sounds_and_tells_them_apart(client, model):
    low, again, high = (ask(client, model, sound(file)) for file in (LOW, LOW, HIGH))
    assert low.usage.prompt_tokens == high.usage.prompt_tokens
    one, other = first_logprobs(low), first_logprobs(high)
    assert one.keys() != other.keys() or any(abs(one[token] - other[token]) > 0.05 for token in one)
    assert again.choices[0].message.content == low.choices[0].message.content
    assert again.usage.prompt_tokens_details.cached_tokens > 25


def test_a_file_is_written_down(client, model):
    answer = write_down(client, model)
    assert answer.text
    assert answer.usage.type == "tokens"
    assert answer.usage.input_token_details.audio_tokens == 25
    assert answer.usage.output_tokens <= 8
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    assert write_down(client, model).text == answer.text


def test_it_is_what_a_chat_with_the_same_words_answers(client, model):
    told = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": [{"type": "text", "text": "Transcribe audio to text"}, sound(LOW)]}],
        temperature=0,
        max_tokens=8,
    )
    assert write_down(client, model).text == told.choices[0].message.content


def test_rates_and_formats_are_those_of_the_file(client, model):
    assert write_down(client, model, file=wav(220, rate=44100)).usage.input_token_details.audio_tokens == 25


def test_text_is_plain(client, model):
    assert write_down(client, model, response_format="text").strip() == write_down(client, model).text.strip()


def test_a_stream_has_deltas_and_an_end(client, model):
    deltas, done = [], None
    for event in write_down(client, model, stream=True, include=["logprobs"]):
        if event.type == "transcript.text.delta":
            deltas.append(event.delta)
            assert event.logprobs and all(one.logprob <= 0 for one in event.logprobs)
        else:
            assert event.type == "transcript.text.done" and done is None
            done = event
    assert "".join(deltas) == done.text == write_down(client, model).text
    assert done.usage.input_token_details.audio_tokens == 25


def test_language_and_prompt_reach_the_model(client, model):
    tokens = [
        write_down(client, model, **more).usage.input_token_details.text_tokens
        for more in ({}, {"language": "en"}, {"prompt": "Write down every word that you hear in this recording, please:"})
    ]
    assert len(set(tokens)) == 3


@pytest.mark.parametrize("file", [b"RIFF", b"not a sound", LOW[:5000], b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f"])
def test_a_broken_file_is_refused_and_the_server_lives(client, model, file):
    with pytest.raises(BadRequestError) as refused:
        write_down(client, model, file=file)
    assert refused.value.param == "file"
    with pytest.raises(BadRequestError) as refused:
        ask(client, model, sound(file))
    assert refused.value.param == "messages[0].content[0].input_audio.data"
    assert write_down(client, model).text


def test_what_cannot_be_true_is_refused(client, model):
    for more in ({"response_format": "srt"}, {"response_format": "verbose_json"}, {"timestamp_granularities": ["word"]}):
        with pytest.raises(BadRequestError) as refused:
            write_down(client, model, **more)
        assert refused.value.param == next(iter(more))


def test_other_ways_of_sound_are_not_here(client, model):
    with pytest.raises(NotFoundError):
        client.audio.translations.create(model=model, file=("tone.wav", LOW))
    with pytest.raises(NotFoundError):
        client.audio.speech.create(model=model, voice="alloy", input="Hello")
    with pytest.raises(BadRequestError) as refused:
        client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "Hello"}],
            modalities=["text", "audio"],
            audio={"voice": "alloy", "format": "wav"},
        )
    assert refused.value.param in ("modalities", "audio")
