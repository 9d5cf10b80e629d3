"""The full-size recipes, configs/fast_*.yaml, for the benchmarks of a GPU; or tiny ones for a test."""

from dataclasses import dataclass, field
from pathlib import Path

import yaml

from iodine_pl import IODINE, datamodules

ROOT = Path(__file__).resolve().parents[1]
NETWORKS = ("tetrominoes", "multi_dsprites", "clevr6")
SCORED = 128  # CLEVR scenes for validation and for test; eight are rendered for each, since some do not pass
RENDERING = 150  # seconds of rendering CLEVR scenes, if a machine has none
TINY_NETWORK = {"num_slots": 2, "num_iterations": 1, "latent_size": 4, "decoder_channels": [4], "encoder_channels": [4]}
TINY_NETWORK |= {"mlp_sizes": [8], "evaluation_iterations": 1}
TINY_DATA = {"num_train": 8, "num_val": 2, "num_test": 2, "batch_size": 2}
TINY_TRAINER = {"max_steps": 6, "val_check_interval": 2, "log_every_n_steps": 1}


@dataclass(frozen=True)
class Settings:
    """Holds folders, device and size.

    Args:
        out: folder with everything that the next slice needs.
        work: folder of data and logs, which can be made again.
        device: ``cuda`` or ``cpu``.
        tiny: use the smallest sizes.
        flags: further flags of the training.
    """

    out: Path
    work: Path
    device: str = "cuda"
    tiny: bool = False
    flags: tuple[str, ...] = field(default=())

    def config(self, network: str) -> Path:
        return ROOT / "configs" / f"fast_{network}.yaml"

    def _of_file(self, network: str, part: str) -> tuple[str, dict]:
        given = yaml.safe_load(self.config(network).read_text())[part]
        return given["class_path"].rsplit(".", 1)[-1], given["init_args"]

    def data(self, network: str, results: dict) -> dict:
        """Returns the arguments of the datamodule that differ from the configuration's."""
        arguments = {"data_dir": str(self.work / "data")}
        if network == "clevr6":
            arguments |= {"num_train": results["data/choices"]["clevr scenes"], "num_val": SCORED, "num_test": SCORED}
        if self.tiny:
            small = {"max_objects": 10, "size": 8} if network == "clevr6" else {"pixel_stride": 4}
            arguments |= TINY_DATA | small
        return arguments

    def datamodule(self, network: str, results: dict) -> datamodules.SceneDataModule:
        """Returns the recipe's data, ready to be read."""
        name, arguments = self._of_file(network, "data")
        made = getattr(datamodules, name)(**arguments | self.data(network, results))
        made.prepare_data()
        made.setup("fit")
        return made

    def model(self, network: str, **changed) -> IODINE:
        """Returns the recipe's model."""
        _, arguments = self._of_file(network, "model")
        return IODINE(**arguments | (TINY_NETWORK if self.tiny else {}) | changed)

    def updates(self, network: str) -> int:
        """Returns the number of updates of the recipe."""
        of_file = yaml.safe_load(self.config(network).read_text())["trainer"]["max_steps"]
        return TINY_TRAINER["max_steps"] if self.tiny else of_file

    def images_of_update(self, network: str) -> int:
        """Returns the number of images in an update of the recipe."""
        return TINY_DATA["batch_size"] if self.tiny else self._of_file(network, "data")[1]["batch_size"]
