"""Evaluation generates only the shards that it needs, with the same scenes."""

import numpy as np
import pytest
import torch
from pytorch_lightning.trainer.states import TrainerFn

from iodine_pl.datamodules import SceneDataModule, SceneFileError
from iodine_pl.datamodules.synthetic.generator import Generator


class Gray(Generator):
    """Every second scene has one object; the others have two."""

    name, shard, parallel = "gray", 64, False

    def scenes(self, start, stop):
        number = np.arange(start, stop)
        image = np.broadcast_to(number[:, None, None, None], (stop - start, 8, 8, 3)).astype(np.uint8)
        label = np.zeros(image.shape[:3], np.uint8)
        label[:, 0, 0], label[::2, 1, 1] = 1, 2
        yield image, label, {"number": np.repeat(number[:, None], 3, axis=1).astype(np.float32)}


class GrayDataModule(SceneDataModule):
    generator, spare = Gray(), 3


class Stage:
    """What a datamodule asks of a Trainer."""

    def __init__(self, fn):
        self.state = type("State", (), {"fn": fn})()
        self.lightning_module, self.global_rank, self.world_size = None, 0, 1


@pytest.mark.parametrize("selection", [{}, {"max_objects": 1}])
def test_the_same_scenes_from_fewer_files(tmp_path, selection):
    scenes = []
    for fn, name in ((None, "all"), (TrainerFn.TESTING, "some"), (TrainerFn.VALIDATING, "some")):
        data = GrayDataModule(
            data_dir=tmp_path / name, num_train=150, num_val=9, num_test=11, batch_size=4, **selection
        )
        data.trainer = Stage(fn) if fn else None
        data.prepare_data()
        data.setup("test")
        loaders = (data.val_dataloader(), data.test_dataloader())
        scenes.append(
            [torch.cat([batch[key] for batch in it]) for it in loaders for key in ("index", "image", "label")]
        )
        factors = [torch.cat([batch["factors"]["number"] for batch in it])[:, 0] for it in loaders]
        assert torch.equal(torch.cat(factors).long(), torch.cat([scenes[-1][0], scenes[-1][3]]))
    for others in scenes[1:]:
        assert all(torch.equal(one, other) for one, other in zip(scenes[0], others, strict=True))
    assert sorted(file.name for file in (tmp_path / "some" / "gray").iterdir()) == [
        "0000128-0000191.h5",
        "0000192-0000209.h5",
    ]


def test_an_error_in_a_generated_file_says_to_delete_it(tmp_path):
    data = GrayDataModule(data_dir=tmp_path, num_train=8, num_val=1, num_test=1)
    data.prepare_data()
    data.files[0].write_bytes(b"damaged")
    with pytest.raises(SceneFileError, match="It was made here: delete it"):
        data.setup("test")
