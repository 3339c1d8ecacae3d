#!/usr/bin/env python3
"""LoRA adapters for the tests, as GGUF files for SmolLM2-135M: random, small, and with an effect that can be seen.
Needs only Python >= 3.9 and NumPy.

    adapters.py KIND FOLDER

    one, two     change queries and values of all layers, each in its own way
    waiting      the same as `one`, but only from the tokens of " Paris" on (aLoRA)
    deep         changes feed-forward parts and the output of attention
    tied         changes the embeddings, which the model uses for its output as well
    foreign      says that it is for another architecture
    misshapen    is for a wider model
    lonely       lacks one of its matrices
    strange      has a tensor that is no part of an adapter
    plain        is no adapter but says that it is a model

Prints the path of the file, which is written once. Each is a pure function of its kind.
"""
import os
import sys

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "benches"))
from encoders import gguf  # noqa: E402
from gen_moe import ARR, F32T, STR, U32  # noqa: E402

LAYERS, WIDTH, VALUES, INNER, VOCABULARY = 30, 576, 192, 1536, 49152
RANK, ALPHA = 4, 8.0
PARIS = 7042  # the token " Paris"


def pair(random, name, inner, outer, strength):
    a = random.standard_normal((RANK, inner), dtype=np.float32) / np.float32(np.sqrt(inner))
    b = random.standard_normal((outer, RANK), dtype=np.float32) * np.float32(strength)
    return [(f"{name}.lora_a", a), (f"{name}.lora_b", b)]


def attention(seed, width=WIDTH):
    random = np.random.default_rng(seed)
    tensors = []
    for layer in range(LAYERS):
        tensors += pair(random, f"blk.{layer}.attn_q.weight", width, WIDTH, 0.2)
        tensors += pair(random, f"blk.{layer}.attn_v.weight", width, VALUES, 0.2)
    return tensors


def tied():
    random = np.random.default_rng(8)
    # Of embeddings the first matrix is looked up by token.
    return [
        ("token_embd.weight.lora_a", random.standard_normal((VOCABULARY, RANK), dtype=np.float32).astype(np.float16)),
        ("token_embd.weight.lora_b", random.standard_normal((WIDTH, RANK), dtype=np.float32)),
    ]


def deep():
    random = np.random.default_rng(9)
    tensors = []
    for layer in range(LAYERS):
        tensors += pair(random, f"blk.{layer}.attn_output.weight", WIDTH, WIDTH, 0.05)
        tensors += pair(random, f"blk.{layer}.ffn_up.weight", WIDTH, INNER, 0.05)
        tensors += pair(random, f"blk.{layer}.ffn_down.weight", INNER, WIDTH, 0.05)
    return tensors


def made(kind):
    says = {
        "general.type": (STR, "adapter"),
        "general.architecture": (STR, "llama"),
        "adapter.type": (STR, "lora"),
        "adapter.lora.alpha": (F32T, ALPHA),
        "adapter.lora.task_name": (STR, f"task of {kind}"),
    }
    tensors = attention(2 if kind == "two" else 1)
    if kind == "waiting":
        says["adapter.alora.invocation_tokens"] = (ARR, (U32, [PARIS]))
    elif kind == "deep":
        tensors = deep()
    elif kind == "tied":
        tensors = tied()
    elif kind == "foreign":
        says["general.architecture"] = (STR, "qwen2")
    elif kind == "misshapen":
        tensors = attention(1, 640)
    elif kind == "lonely":
        tensors = tensors[1:]
    elif kind == "strange":
        tensors.append(("blk.0.attn_q.weight", np.zeros((2, 2), np.float32)))
    elif kind == "plain":
        says["general.type"] = (STR, "model")
    elif kind not in ("one", "two"):
        raise SystemExit(f"unknown kind {kind}")
    return gguf(says, tensors)


def main():
    kind, folder = sys.argv[1:]
    path = os.path.join(folder, f"adapter-{kind}.gguf")
    if not os.path.exists(path):
        with open(path + ".part", "wb") as file:
            file.write(made(kind))
        os.rename(path + ".part", path)
    print(path)


if __name__ == "__main__":
    main()
