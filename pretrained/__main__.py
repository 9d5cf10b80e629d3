"""Makes weights to pass on from a checkpoint of a run: the model alone, no optimiser, no loops, no callbacks.

python -m iodine_pl.pretrained runs/quickstart/version_0/checkpoints/best.ckpt --out mine.ckpt
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from iodine_pl.checkpoints.loading import DEFAULT_CLASS
from iodine_pl.checkpoints.writing import AtomicCheckpointIO
from iodine_pl.distributions import ScaleSchedule

_KEPT = ("state_dict", "hyper_parameters", "hparams_name", "pytorch-lightning_version", "global_step", "epoch")


def main(args: Sequence[str] | None = None) -> None:
    """Writes the weights, and says how large they are."""
    parser = argparse.ArgumentParser(
        prog="python -m iodine_pl.pretrained",
        description="Keeps of a checkpoint what a trained model needs: IODINE.from_pretrained and train.py take it.",
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="the file to write, such as mine.ckpt")
    given = parser.parse_args(args)
    try:
        if given.out.exists():
            raise FileExistsError(f"{given.out} is there already: delete it, or name another file by --out")
        content = torch.load(given.checkpoint, map_location="cpu", weights_only=True)
        if missing := [name for name in ("state_dict", "hyper_parameters") if name not in content]:
            raise ValueError(f"{given.checkpoint} is no checkpoint of a model: it has no {' and no '.join(missing)}")
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    kept = {name: content[name] for name in _KEPT if name in content}
    # Left by the command line: a class with **arguments would take them for its own.
    kept["hyper_parameters"].pop("_instantiator", None)
    kept["class_path"] = kept["hyper_parameters"].pop("_class_path", DEFAULT_CLASS)
    scale = kept["hyper_parameters"].get("pixel_scale")
    if isinstance(scale, Mapping):  # what is trained on begins where this training ended
        kept["hyper_parameters"]["pixel_scale"] = ScaleSchedule(scale).last
    AtomicCheckpointIO().save_checkpoint(kept, given.out)
    print(f"Wrote {given.out}: {given.out.stat().st_size / 1e6:.1f} MB, after {kept.get('global_step', 0):,} updates")


if __name__ == "__main__":
    main()
