"""Draws a training that was continued with other settings as one curve, from the rows of its parts.

python benchmarks/chain.py docs/results/learning_gpu.csv --plot FILE \
    --title "Tetrominoes" --part "Tetrominoes, network of the paper, decay 0.1" \
    --part "Tetrominoes, network of the paper, then mixture"

Each --title begins a column of the figure, and each --part after it continues the curve: the name of a run in the CSV
file, whose images are counted on from the part before. A dashed line shows where a part begins.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

from curves import line_style, read, save, subplots

SCORES = {
    "ari_fg": "foreground, by masks",
    "ari_fg_responsibilities": "foreground, by responsibilities",
    "ari": "all pixels, by masks",
}


class Chain(NamedTuple):
    """Holds the parts of a training, one after the other."""

    title: str
    parts: list[str]


class NextColumn(argparse.Action):
    """Begins a column."""

    def __call__(self, parser, namespace, title, option=None):
        namespace.columns = [*(namespace.columns or []), Chain(title, [])]


class NextPart(argparse.Action):
    """Adds a part to the last column."""

    def __call__(self, parser, namespace, part, option=None):
        if not namespace.columns:
            parser.error("--part: give --title first")
        namespace.columns[-1].parts.append(part)


def curve(rows: list[dict], chain: Chain) -> tuple[list[dict], list[int]]:
    """Returns the rows of all parts, with the images counted on, and the number of images at which each part begins."""
    joined: list[dict] = []
    begins = []
    for part in chain.parts:
        found = [row for row in rows if row["run"] == part]
        if not found:
            sys.exit(f"error: there is no run {part!r} in the file")
        begins.append(joined[-1]["images"] if joined else 0)
        joined += [row | {"images": begins[-1] + int(row["images"])} for row in found]
    return joined, begins


def draw(rows: list[dict], chains: list[Chain], file: Path) -> None:
    """Draws the scores above, and the MSE below."""
    figure, axes = subplots(2, len(chains), figsize=(5 * len(chains) + 1, 5.5), sharex="col", squeeze=False)
    styles = [line_style(number) for number in range(len(SCORES) + 1)]
    for column, chain in zip(axes.T, chains, strict=True):
        joined, begins = curve(rows, chain)
        images = [row["images"] / 1000 for row in joined]
        for name, style in zip(SCORES, styles, strict=False):
            column[0].plot(images, [float(row[name]) for row in joined], label=SCORES[name], **style)
        column[1].plot(images, [float(row["mse"]) for row in joined], **styles[-1])
        column[0].set(title=chain.title, ylabel="ARI", ylim=(-0.05, 1.02))
        column[1].set(xlabel="images, in thousands", ylabel="MSE", yscale="log")
        for axis in column:
            for begin in begins[1:]:
                axis.axvline(begin / 1000, color="black", lw=1, ls="--")
    save(figure, axes, file, loc="outside lower center", ncols=3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--plot", type=Path, required=True)
    parser.add_argument("--title", action=NextColumn, dest="columns", required=True, help="of a column")
    parser.add_argument("--part", action=NextPart, dest="columns", help="run that continues the column's curve")
    given = parser.parse_args()
    draw(read(given.csv), given.columns, given.plot)


if __name__ == "__main__":
    main()
