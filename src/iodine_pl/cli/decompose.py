"""The command ``decompose``, which shows the slots of pictures."""

from __future__ import annotations

from pathlib import Path

from iodine_pl.files.atomic import written_beside
from iodine_pl.showing import show

__all__ = ["decompose"]


def decompose(
    images: list[Path],
    weights: str = "clevr6_32px",
    out: Path = Path("slots.png"),
    size: int | None = None,
    crop: tuple[int, int, int] | None = None,
    num_slots: int | None = None,
    num_iterations: int | None = None,
) -> Path:
    """Draws the slots of your own pictures; labels are not needed.

    The output has a row for each image: input, reconstruction, masks with a color for each slot, then every slot on
    white.

    Args:
        images: PNG, JPEG, BMP or WebP files of any size.
        weights: name of weights that come with the package; path of a checkpoint; ``last`` or ``best`` of the newest
            run; or an address, ``https://...#sha256=HEX`` or ``hf://OWNER/REPOSITORY/FILE@REVISION``.
        out: the PNG file to write.
        size: side in pixels to which the middle square of each image is resized; by default the size that the weights
            were trained on.
        crop: first row, first column and side in pixels of the square to use instead of the middle one;
            ``[29,64,192]`` for CLEVR's own images.
        num_slots: number of slots; by default the model's.
        num_iterations: number of refinement steps; by default the model's.

    Returns:
        ``out``.

    Raises:
        FileNotFoundError: if there are no such weights.
        ValueError: if an image cannot be read, ``out`` is one of the images or no PNG file, or a number does not fit.
    """
    if out.suffix.lower() != ".png":
        raise ValueError(f"{out} is not the name of a PNG file: let it end in .png")
    if out.resolve() in [image.resolve() for image in images]:
        raise ValueError(f"{out} is one of the images: name another file by --out")
    panel = show(weights, images, size, crop, num_slots, num_iterations)
    with written_beside(out) as partial:
        panel.save(partial, format="PNG")
    print(f"slots: {out}")
    return out
