"""The experiments: as users type them, and against a model that knows the truth."""

import csv
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from command import BAR, ROOT, TINY, run
from helpers import Images, Other, counted_masks, small, working_in
from PIL import Image
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F
from torch.utils.data import DataLoader

from iodine_pl import Decomposition, Trace
from iodine_pl.baselines import VAE
from iodine_pl.callbacks import AdjustedRandIndex
from iodine_pl.callbacks.experiments import (
    Disentanglement,
    FactorProbe,
    Generalization,
    HeldOut,
    MultiModality,
    Segmentation,
)
from iodine_pl.callbacks.experiments.common.objects import scenes_of
from iodine_pl.callbacks.experiments.multi_modality import distinct_segmentations
from iodine_pl.checkpoints.loading import load_model
from iodine_pl.cli import run_command
from iodine_pl.cli import run_command as main
from iodine_pl.datamodules import MultiDSpritesDataModule, TetrominoesDataModule
from iodine_pl.evaluation.panels import refinement_panel, slot_panel
from iodine_pl.evaluation.traversal import kl_of_latents, traverse


def weights(arguments):
    run_command(["export", *map(str, arguments)])


EXPERIMENTS = ROOT / "configs" / "experiments"
SIZES = {"num_train": 40, "num_val": 4, "num_test": 7, "batch_size": 4}


class Oracle(pl.LightningModule):
    """Knows the labels: it has a slot for each entity, and each latent holds all factors of its entity."""

    def forward(self, batch) -> Decomposition:
        return self.decompose(batch, 0)

    def decompose(self, batch, batch_idx, **options):
        self.asked = options
        masks = F.one_hot(batch["label"].long(), 4).permute(0, 3, 1, 2).float()
        order = [2, 0, 3, 1]
        factors = batch["factors"]
        shape = F.one_hot(factors["shape"].long(), 20).float()
        latents = torch.cat([factors["x"][..., None], factors["y"][..., None], factors["color"], 5 * shape], dim=2)
        masks, latents = masks[:, order], latents[:, order].float()
        images = batch["image"]
        means = images.unsqueeze(1).expand(-1, 4, -1, -1, -1)
        count = len(images)
        trace = Trace(torch.zeros(1, count), torch.ones(1, count, 4), torch.zeros(1, count))
        std = torch.ones_like(latents)
        result = Decomposition(latents, std, latents, masks, means, images, trace.nll[0], trace.kl[0], trace)
        return result._replace(steps=(result,))

    def test_step(self, batch, batch_idx):
        return None


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    TetrominoesDataModule(data_dir=folder, **SIZES).prepare_data()
    return folder


def experiment(callback, folder, model=None, **data):
    """Runs an experiment and returns what its JSON file says."""
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, callbacks=[callback], enable_progress_bar=False, default_root_dir=folder
    )
    trainer.test(model or Oracle(), TetrominoesDataModule(**(SIZES | data)), verbose=False)
    return json.loads((folder / "experiments" / f"{callback.name}.json").read_text())


def test_segmentation_of_the_oracle(tmp_path, data_dir):
    found = experiment(Segmentation(), tmp_path, data_dir=data_dir)
    assert found["images"] == 7
    assert [row["score"] for row in found["table"]][:4] == [
        *("foreground ARI", "ARI of all pixels", "mean IoU", "mean best overlap")
    ]
    for row in found["table"][:4]:
        assert row["mean"] == row["lower quartile"] == row["median"] == 1.0
    assert found["steps"]["elbo"]["mean"] == [-4.0]
    assert [(picture["name"], picture["file"]) for picture in found["pictures"]] == [
        ("segmentation", "segmentation.png")  # without refinement there is nothing over the steps
    ]
    with (tmp_path / "experiments" / "segmentation.csv").open() as lines:
        assert next(iter(csv.DictReader(lines)))["median"] == "1.0"
    with Image.open(tmp_path / "experiments" / "segmentation.png") as picture:
        assert picture.size[1] // (35 * 3 + 6) == 4  # the first batch, and the heads of the columns
    assert not list((tmp_path / "experiments").glob(".*"))


def test_the_pictures_of_a_segmentation_are_what_the_index_counted(tmp_path, monkeypatch):
    scored, drawn = counted_masks(monkeypatch), []

    def panel(images, result, label):
        drawn.append(result.masks)
        return slot_panel(images, result, label)

    def over_steps(images, steps, label, mean):
        drawn.append(steps[-1].masks)
        return refinement_panel(images, steps, label, mean)

    monkeypatch.setattr("iodine_pl.callbacks.experiments.segmentation.slot_panel", panel)
    monkeypatch.setattr("iodine_pl.callbacks.experiments.segmentation.refinement_panel", over_steps)
    callbacks = [AdjustedRandIndex(), Segmentation(num_images=3, folder=tmp_path)]
    trainer = pl.Trainer(accelerator="cpu", logger=False, callbacks=callbacks, enable_progress_bar=False)
    trainer.test(small(), DataLoader(Images(), batch_size=4), verbose=False)
    assert [len(masks) for masks in drawn] == [3, 4]
    assert torch.equal(drawn[0], scored[0][:3])
    assert torch.equal(drawn[1], scored[0])


def test_probe_of_the_oracle(tmp_path, data_dir):
    found = experiment(FactorProbe(num_scenes=40), tmp_path, data_dir=data_dir)
    scores = {row["factor"]: row["score"] for row in found["table"]}
    assert found["train_objects"] == 120
    assert found["test_objects"] == 21
    assert min(scores["x"], scores["y"], scores["color"]) > 1 - 1e-6
    assert scores["shape"] > 0.9  # some shapes never occur in forty scenes
    assert found["table"][-1]["without latents"] < 0.5


def test_probe_of_other_factors(tmp_path, data_dir):
    found = experiment(FactorProbe(num_scenes=9, factors={"y": "scalar"}), tmp_path, data_dir=data_dir)
    assert found["train_objects"] == 27
    assert [row["factor"] for row in found["table"]] == ["y"]
    with pytest.raises(MisconfigurationException, match="no factor size, but"):
        experiment(FactorProbe(factors={"size": "scalar"}), tmp_path, data_dir=data_dir)


def test_a_factor_that_never_varies_is_left_out(tmp_path):

    # Binary sprites are all white.
    sizes = SIZES | {"num_train": 32, "pixel_stride": 4}
    for callback in (FactorProbe(num_scenes=32), Disentanglement(num_scenes=32)):
        trainer = pl.Trainer(
            accelerator="cpu", logger=False, callbacks=[callback], enable_progress_bar=False, default_root_dir=tmp_path
        )
        data = MultiDSpritesDataModule(variant="binarized", data_dir=tmp_path, **sizes)
        trainer.test(small(image_channels=1, pixel_distribution="bernoulli"), data, verbose=False)
    found, spread = (
        json.loads((tmp_path / "experiments" / f"{name}.json").read_text())
        for name in ("factor_probe", "disentanglement")
    )
    assert [row["factor"] for row in found["table"]] == ["x", "y", "shape", "scale", "orientation"]
    assert all(math.isfinite(row["score"]) for row in found["table"])
    assert math.isfinite(spread["table"][0]["informativeness"])
    trainer = pl.Trainer(accelerator="cpu", logger=False, callbacks=[FactorProbe(9, {"color": "scalar"})])
    with pytest.raises(MisconfigurationException, match="FactorProbe: of color nothing varies in these"):
        trainer.test(small(image_channels=1, pixel_distribution="bernoulli"), data, verbose=False)


def test_held_out_of_the_oracle(tmp_path):
    # The expected count is from the factors of the test scenes.
    options = {"exclude": {"color": [1, 0, 0]}, "test_split": "excluded", "num_train": 40, "num_test": 7}
    data = TetrominoesDataModule(data_dir=tmp_path, **(SIZES | options | {"num_val": 1}))
    data.spare = 16  # 4 of 10 scenes have a red piece
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, callbacks=[HeldOut()], enable_progress_bar=False, default_root_dir=tmp_path
    )
    trainer.test(Oracle(), data, verbose=False)
    found = json.loads((tmp_path / "experiments" / "held_out.json").read_text())
    red = [batch["factors"]["color"][:, 1:] for batch in data.test_dataloader()]
    count = int((torch.cat(red) == torch.tensor([1.0, 0.0, 0.0])).all(dim=-1).sum())
    assert count >= 7
    assert [row["objects"] for row in found["table"]] == ["held out", "others"]
    assert [row["count"] for row in found["table"]] == [count, 21 - count]
    assert all(row["IoU"] == 1.0 and row["MSE"] == 0.0 for row in found["table"])
    with pytest.raises(MisconfigurationException, match="test_split: excluded"):
        experiment(HeldOut(), tmp_path, data_dir=tmp_path)


def test_multi_modality_of_the_oracle(tmp_path, data_dir):
    model = Oracle()
    found = experiment(MultiModality(num_runs=3), tmp_path, model, data_dir=data_dir)
    assert model.asked == {"return_steps": True, "run": 2}
    assert [row["share"] for row in found["table"]] == [1.0] * 7
    assert [row["ARI with the truth"] for row in found["table"]] == [1.0] * 7
    assert found["found"][0]["groups"] == [[0, 1, 2]]


def test_distinct_segmentations():
    label = torch.tensor([[0, 0, 1, 1], [2, 2, 2, 2]])
    same = torch.tensor([[2, 2, 0, 0], [1, 1, 1, 1]])  # other slots, the same parts
    other = torch.tensor([[0, 1, 1, 1], [2, 2, 2, 2]])
    everywhere = torch.ones(2, 4, dtype=torch.bool)
    runs = torch.stack([other, label, same, other, label])
    assert distinct_segmentations(runs, everywhere, same=1.0) == [[1, 2, 4], [0, 3]]
    assert distinct_segmentations(runs, everywhere, same=0.3) == [[0, 1, 2, 3, 4]]
    without_the_odd_pixel = everywhere.clone()
    without_the_odd_pixel[0, 1] = False
    assert len(distinct_segmentations(runs, without_the_odd_pixel, same=1.0)) == 1


def test_generalization_asks_for_each_number_of_slots(tmp_path, data_dir):

    torch.manual_seed(0)
    model = small()
    callback = Generalization(num_slots=[2, 5], num_iterations=[1, 3])
    found = experiment(callback, tmp_path, model, data_dir=data_dir)
    assert [(row["K"], row["T"]) for row in found["table"]] == [(2, 1), (2, 3), (5, 1), (5, 3)]
    assert len(found["steps"]["K = 5"]["mse"]["median"]) == 4
    data = TetrominoesDataModule(data_dir=data_dir, **SIZES)
    data.setup("test")
    mse = []
    for batch in data.test_dataloader():
        batch["image"] = batch["image"].float() / 255
        result = model.eval().decompose(batch, num_slots=5, num_iterations=3)
        mse += (result.reconstruction - batch["image"]).square().mean(dim=(1, 2, 3)).tolist()
    assert found["table"][-1]["MSE"] == pytest.approx(np.mean(mse), rel=1e-5)
    with pytest.raises(ValueError, match="increasing"):
        Generalization(num_slots=[2], num_iterations=[5, 3])


def test_the_kl_of_latents_is_that_of_normal_distributions():
    scale = 0.8
    mean, std = torch.tensor([0.0, 2.0, 0.0, -0.5]), torch.tensor([scale, scale, 0.05, scale])
    expected = kl_divergence(Normal(mean, std), Normal(torch.tensor(0.0), torch.tensor(scale)))
    torch.testing.assert_close(kl_of_latents(mean, std, scale), expected)


def test_a_traversal_changes_one_slot():

    model = small().eval()
    latents = torch.randn(3, model.latent_size)
    values = torch.tensor([-1.0, float(latents[1, 2]), 1.0])
    with torch.no_grad():
        pictures = traverse(model, latents, 1, 2, values, (8, 8))
        masks, means = model.decode(latents[None], 8, 8)
    torch.testing.assert_close(pictures[1], torch.einsum("kij,kcij->cij", masks[0], means[0]))
    assert not torch.allclose(pictures[0], pictures[1])


def test_scenes_have_their_objects_from_left_to_right():
    rows = {
        "latents": np.arange(8.0).reshape(2, 4, 1, 1),
        "visible": np.array([[True, True, True, True], [True, True, False, True]]),
        "column": np.array([[9.0, 5.0, 3.0, 4.0], [0.0, 8.0, 1.0, 2.0]]),
        "factor/size": np.array([[0, 1, 2, 3], [0, 1, 2, 3]]),
    }
    scenes = scenes_of(rows, 2)
    assert scenes.latents[:, 0, 0].tolist() == [0.0, 4.0]
    assert {name: x.tolist() for name, x in scenes.factors.items()} == {"1 size": [2, 3], "2 size": [3, 1]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Trains IODINE and a VAE for two updates, as a user does."""
    folder = tmp_path_factory.mktemp("experiments")
    with working_in(folder):
        data = [option for option in TINY if option.startswith(("--data", "--trainer"))]
        vae = [f"--config={ROOT}/configs/tetrominoes_vae.yaml", "--model.latent_size=6", "--model.mlp_sizes=[8]"]
        small = ["--model.image_size=12", "--model.decoder_channels=[4]", "--model.encoder_channels=[4,4,4]"]
        steps = [BAR, "--trainer.max_steps=2", "--trainer.val_check_interval=2"]
        main([*vae, *small, *data, *steps])
        main([*TINY, *steps, "--name=mine"])
    return folder


@pytest.fixture
def inside(trained, monkeypatch):
    monkeypatch.chdir(trained)
    return trained


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("segmentation", []),
        ("factor_probe", ["--trainer.callbacks.num_scenes=20"]),
        ("multi_modality", ["--trainer.callbacks.num_runs=2", "--data.num_test=2"]),
        (
            "disentanglement",
            [
                "--trainer.callbacks.num_scenes=40",
                "--trainer.callbacks.beside=runs/tetrominoes_vae/version_0/checkpoints/best.ckpt",
            ],
        ),
    ],
)
def test_as_a_user_types_it(name, options, capsys):
    main(["test", "--ckpt_path=best", "--name=mine", f"--config={EXPERIMENTS}/{name}.yaml", *options, BAR])
    folder = Path("runs/mine/version_0/experiments")
    printed = capsys.readouterr().out
    found = json.loads((folder / f"{name}.json").read_text())
    assert found["checkpoint"].endswith("best.ckpt")
    assert found["model"] == "IODINE"
    assert found["pictures"][0]["file"] == f"{name}.png"
    for picture in found["pictures"]:
        assert (folder / picture["file"]).is_file()
        assert picture["file"] == f"{picture['name']}.png"
        assert re.fullmatch(r"[A-Z][^\n]{20,250}\.", picture["caption"])
    assert all(f"wrote runs/mine/version_0/experiments/{name}.{kind}" in printed for kind in ("json", "csv", "png"))
    assert "| " + next(iter(found["table"][0])) in printed
    events = EventAccumulator("runs/mine/version_0")
    events.Reload()
    assert f"experiments/{name}" in events.Tags()["images"]
    assert f"experiments/{name}/text_summary" in events.Tags()["tensors"]


@pytest.mark.usefixtures("inside")
def test_the_segmentation_is_that_of_the_test():
    cli = main(["test", "--ckpt_path=best", "--name=mine", f"--config={EXPERIMENTS}/segmentation.yaml", BAR])
    found = json.loads(Path("runs/mine/version_0/experiments/segmentation.json").read_text())
    logged = cli.trainer.callback_metrics
    means = {row["score"]: row["mean"] for row in found["table"]}
    assert means["foreground ARI"] == pytest.approx(float(logged["test/ari_fg"]), rel=1e-5)
    assert means["ARI of all pixels"] == pytest.approx(float(logged["test/ari"]), rel=1e-5)
    assert means["mean IoU"] == pytest.approx(float(logged["test/miou"]), rel=1e-5)
    assert means["mean best overlap"] == pytest.approx(float(logged["test/mbo"]), rel=1e-5)
    assert means["ELBO (nats)"] == pytest.approx(float(logged["test/elbo"]), rel=1e-5)
    for t, value in enumerate(found["steps"]["mse"]["mean"]):
        assert value == pytest.approx(float(logged[f"test_steps/mse_{t}"]), rel=1e-5)


def test_two_processes_give_the_result_of_one(inside, tmp_path):
    """The two processes share 11 images, so their last batches differ in length."""
    found = []
    for devices in (1, 2):
        folder = tmp_path / str(devices)
        callback = {"class_path": f"{Segmentation.__module__}.Segmentation", "init_args": {"folder": str(folder)}}
        arguments = ["test", "--ckpt_path=best", "--name=mine", f"--trainer.callbacks={json.dumps([callback])}", BAR]
        if devices == 1:
            main(arguments)
        else:
            run(*arguments, "--trainer.devices=2", folder=inside)
        found.append(json.loads((folder / "segmentation.json").read_text()))
    assert found[0]["images"] == found[1]["images"] == 11
    for one, two in zip(found[0]["table"], found[1]["table"], strict=True):
        for column in ("mean", "lower quartile", "median", "upper quartile"):
            assert two[column] == pytest.approx(one[column], rel=1e-5)


@pytest.mark.usefixtures("inside")
def test_a_missing_model_to_compare_with_is_an_error_of_one_line():
    options = [f"--config={EXPERIMENTS}/disentanglement.yaml", "--trainer.callbacks.beside=gone.ckpt", BAR]
    with pytest.raises(SystemExit, match=r"^error: .* has no model beside this one: there is no checkpoint gone\.ckpt"):
        main(["test", "--ckpt_path=best", "--name=mine", *options])


@pytest.mark.usefixtures("inside")
def test_a_checkpoint_is_loaded_as_its_own_class(tmp_path):
    model = load_model("runs/tetrominoes_vae/version_0/checkpoints/best.ckpt")
    assert isinstance(model, VAE)
    assert not model.training
    weights(["runs/tetrominoes_vae/version_0/checkpoints/best.ckpt", "--out", str(tmp_path / "vae.ckpt")])
    alone = load_model(tmp_path / "vae.ckpt")
    assert isinstance(alone, VAE)
    for ours, theirs in zip(alone.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert isinstance(VAE.load_from_checkpoint(tmp_path / "vae.ckpt"), VAE)
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        load_model(tmp_path / "none.ckpt")
    torch.save({"state_dict": {}, "hyper_parameters": {"_class_path": "torch.nn.Linear"}}, tmp_path / "odd.ckpt")
    with pytest.raises(TypeError, match="which is not derived from SceneModel"):
        load_model(tmp_path / "odd.ckpt")


def other_test(callback, **images):
    trainer = pl.Trainer(accelerator="cpu", logger=False, callbacks=[callback], enable_progress_bar=False)
    trainer.test(Other(), DataLoader(Images(**images), batch_size=4), verbose=False)


def test_an_error_names_what_an_experiment_misses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MisconfigurationException, match="these have no label"):
        other_test(Segmentation(), labeled=False)
    with pytest.raises(MisconfigurationException, match=r"Other\.forward takes no num_slots, num_iterations"):
        other_test(Generalization(num_slots=[3]))
    with pytest.raises(MisconfigurationException, match="does not know the factors"):
        other_test(FactorProbe())
    with pytest.raises(MisconfigurationException, match=r"give trainer\.test a datamodule"):
        other_test(FactorProbe(factors={"x": "scalar"}))
    with pytest.raises(MisconfigurationException, match="has no decode"):
        other_test(Disentanglement())
