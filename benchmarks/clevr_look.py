"""Draws generated CLEVR scenes next to two real ones, with histograms and channel means.

python benchmarks/clevr_look.py docs/clevr.png
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from iodine_pl.datamodules.deepmind.resizing import crop_and_resize
from iodine_pl.datamodules.synthetic.clevr import ClevrGenerator

REAL = Path(__file__).parents[1] / "tests" / "data" / "clevr_two_scenes.npz"
SCENES = 64
GAP = 8


def histogram(real, generated, width, height):
    """Draws histograms of brightness, a row per channel: real scenes as a line, generated ones as an area."""
    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    for channel, (name, color) in enumerate((("red", "#d66"), ("green", "#6b6"), ("blue", "#66d"))):
        counts = [np.histogram(x[..., channel], 64, (0, 256))[0] / x[..., channel].size for x in (real, generated)]
        bottom, scale = (channel + 1) * height // 3 - 18, (height // 3 - 30) / max(c.max() for c in counts)
        x = np.arange(64) * (width - 120) / 63 + 4
        area = list(zip(x, bottom - counts[1] * scale, strict=True))
        draw.polygon([(x[0], bottom), *area, (x[-1], bottom)], fill=color)
        draw.line(list(zip(x, bottom - counts[0] * scale, strict=True)), fill="black", width=2)
        draw.text((width - 110, bottom - 40), f"{name}\nreal {real[..., channel].mean():.1f}", fill="black")
        draw.text((width - 110, bottom - 14), f"generated {generated[..., channel].mean():.1f}", fill="black")
    return canvas


def main():
    with np.load(REAL) as file:
        real, _ = crop_and_resize(file["image"], file["label"], 128)
    generated = np.concatenate([image for image, _, _ in ClevrGenerator(seed=0).scenes(0, SCENES)])
    rows = [
        np.concatenate([*real, *generated[:4]], axis=1),
        *(np.concatenate(generated[i : i + 6], 1) for i in (4, 10)),
    ]
    pictures = Image.fromarray(np.concatenate(rows)).resize((6 * 192, 3 * 192), Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", (pictures.width, pictures.height + GAP + 330), "white")
    canvas.paste(pictures, (0, 0))
    ImageDraw.Draw(canvas).rectangle((0, 0, 2 * 192 - 1, 191), outline="red", width=3)  # the real ones
    canvas.paste(histogram(real, generated, canvas.width, 330), (0, pictures.height + GAP))
    canvas.save(sys.argv[1], optimize=True)
    for name, images in (("real", real), ("generated", generated)):
        print(f"{name:10} {len(images):3} scenes, mean of red, green, blue:", images.mean((0, 1, 2)).round(1))


if __name__ == "__main__":
    main()
