"""Measure codecs on this machine's device: images per second of the encoder alone, and of lediflow.encode.

    python tools/bench/encode.py                                              random weights, images on the device
    python tools/bench/encode.py --codecs taesd --taesd FOLDER --size 128 --batch 8 32 --precision float32
    python tools/bench/encode.py --source SHARDS --compile --output results/bench_encode.json

Speed does not depend on the weights: without a folder they are random, with the shapes of Stable Diffusion 2 or TAESD,
and the table says so. "device" is the encoder alone; "files" is `lediflow.encode` on the shards of --source, from the
end of its first shard on: image decoding, encoding, packing and writing. If both are equal, the encoder is the
bottleneck.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from common import Row, command_line, machine, measure, table, write_json
from safetensors.torch import save_file
from torch import Tensor

from lediflow.codecs import PRECISIONS, Codec, CodecConfig, build_codec
from lediflow.codecs.taesd import decoder, encoder
from lediflow.compat import fix_torchvision
from lediflow.data.encode import EncodeConfig, encode

SD2 = {  # the config.json of Stable Diffusion 2's autoencoder, as far as it differs from diffusers' defaults
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 768,
}


def main(arguments: list[str] | None = None) -> None:
    chosen = options(arguments)
    with TemporaryDirectory() as scratch:
        rows = [
            timed(chosen, name, precision, is_compiled, batch, Path(scratch))
            for name, precision, is_compiled, batch in itertools.product(
                chosen.codecs, chosen.precision, [False, True] if chosen.compile else [False], chosen.batch
            )
        ]
    print(f"{machine()}\nimages of {chosen.size} x {chosen.size}; images per second\n\n{table(rows)}")
    if chosen.output:
        print(f"\nwritten to {write_json(chosen.output, rows)}")


def options(arguments: list[str] | None) -> argparse.Namespace:
    has_gpu = torch.cuda.is_available()
    parser = command_line(__doc__)
    parser.add_argument("--codecs", nargs="+", choices=RANDOM, default=list(RANDOM))
    parser.add_argument("--sd2_vae", help="folder of its weights, in diffusers' layout; default: random ones")
    parser.add_argument("--taesd", help="folder of its weights; default: random ones")
    parser.add_argument("--size", type=int, default=256, help="side of the images on the device")
    parser.add_argument("--batch", type=int, nargs="+", default=[16, 64, 128] if has_gpu else [8])
    default_precisions = ["float32", "bfloat16"] if has_gpu else ["float32"]
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=default_precisions)
    parser.add_argument("--compile", action="store_true", help="also compiled")
    parser.add_argument("--source", help="image shards to encode from file to file")
    parser.add_argument("--seconds", type=float, default=3.0, help="measuring time per number")
    parser.add_argument("--device", default="cuda" if has_gpu else "cpu")
    parser.add_argument("--output", help="JSON file for the rows and their provenance")
    return parser.parse_args(arguments)


def timed(
    chosen: argparse.Namespace, name: str, precision: str, is_compiled: bool, batch: int, scratch: Path
) -> Row:
    """One line of the table."""
    given = getattr(chosen, name)
    config = CodecConfig(name=name, path=given or str(random_weights(name, scratch)), precision=precision)
    row: Row = {"codec": name, "weights": "given" if given else "random", "precision": precision}
    row |= {"compiled": "yes" if is_compiled else "no", "batch": batch}
    row["device"] = on_device(build_codec(config, chosen.device), chosen, is_compiled, batch)
    if chosen.source:
        row["files"] = from_files(config, chosen, is_compiled, batch)
    return row


def on_device(codec: Codec, chosen: argparse.Namespace, is_compiled: bool, batch: int) -> float:
    """Images per second of the encoder alone."""
    function = torch.compile(codec.encode, dynamic=False) if is_compiled else codec.encode
    images = torch.rand(batch, 3, chosen.size, chosen.size, device=chosen.device) * 2 - 1
    with torch.inference_mode():
        milliseconds = measure(lambda: function(images), device=chosen.device, seconds=chosen.seconds)
    return 1000 * batch / milliseconds


def from_files(config: CodecConfig, chosen: argparse.Namespace, is_compiled: bool, batch: int) -> float:
    """Images per second of the whole command, once its first shard is done."""
    laps: list[tuple[float, int]] = []
    with TemporaryDirectory() as folder:
        started = time.perf_counter()
        encode(
            EncodeConfig(
                source=chosen.source,
                output=folder,
                codec=config,
                batch_size=batch,
                compile=is_compiled,
                device=chosen.device,
            ),
            lambda done, total: laps.append((time.perf_counter(), done)),
        )
    done_laps = [lap for lap in laps if lap[1]]
    (first, before), (last, after) = done_laps[0], done_laps[-1]
    if after == before:  # a single shard
        first, before = started, 0
    return (after - before) / (last - first)


def random_weights(name: str, scratch: Path) -> Path:
    """A folder of random weights, always the same, with the file names of the published ones."""
    folder = scratch / name
    if not folder.exists():
        folder.mkdir()
        torch.manual_seed(0)
        RANDOM[name](folder)
    return folder


def random_sd2_vae(folder: Path) -> None:
    fix_torchvision()
    from diffusers import AutoencoderKL

    model: Any = AutoencoderKL(**SD2)  # diffusers' decorator hides the type of the class
    model.save_pretrained(folder)


def random_taesd(folder: Path) -> None:
    for half, module in (("encoder", encoder()), ("decoder", decoder())):
        weights: dict[str, Tensor] = dict(module.state_dict())
        save_file(weights, folder / f"taesd_{half}.safetensors")


RANDOM: dict[str, Callable[[Path], None]] = {"sd2_vae": random_sd2_vae, "taesd": random_taesd}


if __name__ == "__main__":
    main()
