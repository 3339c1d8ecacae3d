#!/usr/bin/env python3
"""Projectors for the tests of images and sounds, as GGUF files. Needs only Python >= 3.9 and NumPy.

    projectors.py line FOLDER WIDTH    a small vision tower with random weights whose images lie in line (Janus-Pro's shape)
    projectors.py whole FOLDER WIDTH   one whose images see all of themselves at once (Gemma 3's)
    projectors.py grid FOLDER WIDTH    one that places images in two dimensions (Qwen2-VL's), for models with M-RoPE
    projectors.py hears FOLDER WIDTH   an encoder of sounds with random weights (Whisper's shape behind Ultravox's)
    projectors.py both FOLDER WIDTH    `line` and `hears` in one file
    projectors.py short FOLDER WIDTH   `hears` with too few positions, on which llama.cpp asserts
    projectors.py deadly FOLDER WIDTH  one that llama.cpp reads beyond the end of, and aborts (LLaVA's)

WIDTH is the embedding width of the model that it is for. Prints the path of the file, which is written once. The model
sees and hears nothing but noise, yet different noise for different images and sounds.
"""
import hashlib
import os
import sys

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from encoders import ARR, BOOL, F32T, STR, U32, gguf  # noqa: E402

INNER, FEED_FORWARD, HEADS, LAYERS, PATCH, SIDE = 96, 384, 3, 2, 16, 128
GRID = SIDE // PATCH
# Encoders of this shape take sounds in parts of 30 seconds: so many positions each, so many of them to a row.
MELS, POSITIONS, STACKED = 80, 1500, 60


def noise(name, shape, sigma, kind=np.float32):
    """Near-normal numbers that the name alone decides, on every machine the same."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    sums = np.random.Generator(np.random.PCG64(seed)).integers(0, 1 << 16, (4, *shape)).sum(0)
    scaled = (sums - 2 * 65535) / (65536 / 3 ** 0.5)
    return (scaled * sigma).astype(kind)


def flat(value, length):
    return np.full(length, value, np.float32)


def linear(tensors, name, into, outof, sigma=1.0):
    tensors[name + ".weight"] = noise(name, (into, outof), sigma * outof ** -0.5, np.float16)
    tensors[name + ".bias"] = flat(0, into)


def common():
    """Metadata of every projector."""
    return {
        "general.architecture": (STR, "clip"),
        "general.type": (STR, "mmproj"),
        "general.name": (STR, "Synthetic projector"),
        "general.file_type": (U32, 1),
        "clip.use_gelu": (BOOL, True),
    }


def sizes(sense, width):
    """Metadata that encoders of images and sounds have in common."""
    return {
        f"clip.has_{sense}_encoder": (BOOL, True),
        f"clip.{sense}.embedding_length": (U32, INNER),
        f"clip.{sense}.feed_forward_length": (U32, FEED_FORWARD),
        f"clip.{sense}.block_count": (U32, LAYERS),
        f"clip.{sense}.attention.head_count": (U32, HEADS),
        f"clip.{sense}.projection_dim": (U32, width),
        f"clip.{sense}.attention.layer_norm_epsilon": (F32T, 1e-6),
    }


def blocks(prefix):
    """Tensors that they have in common."""
    tensors = {}
    for i in range(LAYERS):
        block = f"{prefix}.blk.{i}."
        for norm in ("ln1", "ln2"):
            tensors[f"{block}{norm}.weight"] = flat(1, INNER)
            tensors[f"{block}{norm}.bias"] = flat(0, INNER)
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            linear(tensors, block + name, INNER, INNER)
        linear(tensors, block + "ffn_up", FEED_FORWARD, INNER)
        linear(tensors, block + "ffn_down", INNER, FEED_FORWARD)
    tensors[f"{prefix}.post_ln.weight"], tensors[f"{prefix}.post_ln.bias"] = flat(1, INNER), flat(0, INNER)
    return tensors


def tower(kind, width):
    """Metadata and tensors that the projectors of images have in common."""
    kv = common() | sizes("vision", width) | {
        "clip.vision.projector_type": (STR, kind),
        "clip.vision.image_size": (U32, SIDE),
        "clip.vision.patch_size": (U32, PATCH),
        "clip.vision.image_mean": (ARR, (F32T, [0.5] * 3)),
        "clip.vision.image_std": (ARR, (F32T, [0.5] * 3)),
    }
    patches = {"v.patch_embd.weight": noise("patch", (INNER, 3, PATCH, PATCH), (3 * PATCH * PATCH) ** -0.5)}
    return kv, patches | blocks("v")


def positions(tensors):
    tensors["v.patch_embd.bias"] = flat(0, INNER)
    tensors["v.position_embd.weight"] = noise("position", (GRID * GRID, INNER), 0.3)


def line(width):
    kv, tensors = tower("janus_pro", width)
    positions(tensors)
    linear(tensors, "mm.0", width, INNER)
    linear(tensors, "mm.1", width, width, 0.05)
    return kv, tensors


def whole(width):
    kv, tensors = tower("gemma3", width)
    positions(tensors)
    kv["clip.vision.projector.scale_factor"] = (U32, 2)
    tensors["mm.input_projection.weight"] = noise("projection", (INNER, width), 0.05 * INNER ** -0.5)
    tensors["mm.soft_emb_norm.weight"] = flat(1, INNER)
    return kv, tensors


def grid(width):
    kv, tensors = tower("qwen2vl_merger", width)
    tensors["v.patch_embd.weight.1"] = noise("patch 1", (INNER, 3, PATCH, PATCH), (3 * PATCH * PATCH) ** -0.5)
    linear(tensors, "mm.0", 4 * INNER, 4 * INNER)
    linear(tensors, "mm.2", width, 4 * INNER, 0.05)
    return kv, tensors


def hears(width):
    kv = common() | sizes("audio", width) | {
        "clip.audio.projector_type": (STR, "ultravox"),
        "clip.audio.num_mel_bins": (U32, MELS),
        "clip.audio.projector.stack_factor": (U32, STACKED),
    }
    tensors = {"a.position_embd.weight": noise("a position", (POSITIONS, INNER), 0.3)}
    for i, into in ((1, MELS), (2, INNER)):
        name = f"a.conv1d.{i}"
        tensors[name + ".weight"] = noise(name, (INNER, into, 3), (3 * into) ** -0.5, np.float16)
        tensors[name + ".bias"] = np.zeros((INNER, 1), np.float32)
    tensors |= blocks("a")
    for i in range(LAYERS):
        del tensors[f"a.blk.{i}.attn_k.bias"]  # Whisper has none
    stacked = INNER * STACKED
    tensors["mm.a.norm_pre.weight"] = flat(1, stacked)
    tensors["mm.a.mlp.1.weight"] = noise("mm.a.mlp.1", (2 * INNER, stacked), stacked ** -0.5, np.float16)
    tensors["mm.a.norm_mid.weight"] = flat(1, INNER)
    tensors["mm.a.mlp.2.weight"] = noise("mm.a.mlp.2", (width, INNER), 0.05, np.float16)
    return kv, tensors


def short(width):
    kv, tensors = hears(width)
    tensors["a.position_embd.weight"] = tensors["a.position_embd.weight"][:3]
    return kv, tensors


def both(width):
    (kv, tensors), (more_kv, more_tensors) = line(width), hears(width)
    return kv | more_kv, tensors | more_tensors


def deadly(width):
    kv, tensors = tower("mlp", width)
    positions(tensors)
    tensors["v.position_embd.weight"] = tensors["v.position_embd.weight"][:3]
    linear(tensors, "mm.0", width, INNER)
    linear(tensors, "mm.2", width, width, 0.05)
    return kv, tensors


def main():
    kind, folder, width = sys.argv[1], sys.argv[2], int(sys.argv[3])
    kv, tensors = {
        "line": line, "whole": whole, "grid": grid, "hears": hears, "short": short, "both": both,
        "deadly": deadly,
    }[kind](width)
    content = gguf(kv, list(tensors.items()))
    path = os.path.join(folder, f"projector-{kind}-{width}.gguf")
    if not os.path.exists(path) or open(path, "rb").read() != content:
        with open(path + ".part", "wb") as file:
            file.write(content)
        os.replace(path + ".part", path)
    print(path)


if __name__ == "__main__":
    main()
