#!/usr/bin/env python3
"""Whether a sound means the same to both servers: the next token's log-probabilities, ours and llama-server's.

Exit status 1 if the prompts differ in length, or an alternative that both name by more than `--tolerance`. The sounds have
16,000 samples a second: at other rates the two resample in different ways.
"""

import base64
import io
import math
import struct
import wave

from vision import compare


def wav(hertz, seconds, channels=1, rate=16000):
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(rate)
        tone = (int(12000 * math.sin(math.tau * hertz * (1 + at / rate) * at / rate)) for at in range(int(rate * seconds)))
        out.writeframes(b"".join(struct.pack("<h", sample) * channels for sample in tone))
    return file.getvalue()


def question(*sounds):
    parts = [{"type": "text", "text": "Listen to this:"}]
    for file in sounds:
        data = base64.b64encode(file).decode()
        parts.append({"type": "input_audio", "input_audio": {"data": data, "format": "wav"}})
    parts.append({"type": "text", "text": "What is it?"})
    messages = [{"role": "user", "content": parts}]
    return {"messages": messages, "temperature": 0, "max_tokens": 1, "logprobs": True, "top_logprobs": 10}


def main():
    low, high, long = wav(220, 1), wav(880, 2.5, channels=2), wav(440, 40)
    questions = {
        "no sound": question(),
        "one": question(low),
        "another, in stereo": question(high),
        "both": question(low, high),
        "both, swapped": question(high, low),
        "of 40 seconds": question(long),
    }
    compare(__doc__, questions)


if __name__ == "__main__":
    main()
