"""The reference code's checkpoints give what the reference code computes with them."""

import json
import zipfile
from pathlib import Path

import bundles
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from helpers import small
from reference import DATA, SHARED, as_tensor, channels_first, in_our_layout, relative_error
from torch.utils.data import DataLoader

from iodine_pl import IODINE
from iodine_pl.checkpoints.writing import write_checkpoint
from iodine_pl.cli import run_command
from iodine_pl.cli import run_command as train
from iodine_pl.files.tensorflow.checkpoints import read_checkpoint
from iodine_pl.official.reading import read_official
from iodine_pl.official.variables import in_our_layout as parameters_of
from iodine_pl.official.variables import variables_of


def main(arguments):
    run_command(["convert", *map(str, arguments)])


TINY = DATA / "checkpoint"
NETWORKS = {"tetrominoes": 31, "multi_dsprites": 33, "clevr6": 37}
LOST = "refinement_head/residual_head/linear/b"
PROBE = "factor_evaluator/repres_content/predict_latents/w"

CASES = ["checkpoint", "tetrominoes"]


def case(name):
    """Returns the checkpoint's folder, and what the reference code computed with it, now and after an update."""
    if name == "checkpoint":
        return TINY, DATA / "checkpoint_oracle.npz", DATA / "checkpoint_resume.npz"
    folder = SHARED / "checkpoints" / name
    if not folder.is_dir():
        pytest.skip("the full-size checkpoint is too large to ship")
    return folder, folder / "oracle.npz", folder / "resume.npz"


def load(path):
    with np.load(path) as file:
        return dict(file)


def written(model):
    """Writes a model's parameters as the reference code would."""
    parameters = dict(model.named_parameters())
    arrays = {}
    for variable, (name, _) in variables_of(model.hparams).items():
        value = parameters[name].detach()
        value = value.permute(2, 3, 1, 0) if value.ndim == 4 else value.T if value.ndim == 2 else value
        arrays[variable] = value.contiguous().numpy()
    return arrays


def made(official, **arguments):
    """Makes the model of a checkpoint that was read."""
    model = IODINE(**official.arguments | arguments)
    model.load_state_dict(official.parameters)
    return model


def tiny_variables():
    return dict(read_checkpoint(TINY)[1].arrays)


@pytest.mark.parametrize("network", NETWORKS)
def test_every_parameter_has_one_variable(network):
    model = IODINE(network=network)
    expected = variables_of(model.hparams)
    assert dict(expected.values()) == {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert len(expected) == NETWORKS[network]
    values = parameters_of(written(model), model.hparams)
    for name, parameter in model.named_parameters():
        assert torch.equal(values[name], parameter)


@pytest.mark.parametrize("network", NETWORKS)
def test_an_official_network_is_made_from_the_list_of_its_variables(network):
    shapes = json.loads((DATA / "variables.json").read_text())[network]
    variables = {name: np.random.default_rng(0).normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    model = IODINE.from_official(variables)
    assert model.hparams["network"] == network
    assert sum(p.numel() for p in model.parameters()) == sum(x.size for x in variables.values())
    again = written(model)
    assert again.keys() == variables.keys()
    for name, value in variables.items():
        np.testing.assert_array_equal(again[name], value)


class Derived(IODINE):
    pass


def test_a_subclass_can_be_made():
    assert type(Derived.from_official(tiny_variables())) is Derived


@pytest.mark.parametrize("network", NETWORKS)
def test_a_released_network_is_known_by_its_shapes(network):
    model = getattr(IODINE, network)()
    official = read_official(written(model))
    assert official.network == network
    assert dict(IODINE(**official.arguments).hparams) == dict(model.hparams)
    assert (official.step, official.moments, official.unused) == (0, {}, ())
    assert f"the released network {network}" in official.describe()


@pytest.mark.parametrize(
    "arguments",
    [
        {"lstm_size": 9, "coordinates": "linear", "mlp_sizes": (8, 5)},
        {"image_channels": 1, "coordinate_frequencies": 2, "decoder_channels": (5,)},
        {"decoder_kernel": 3, "encoder_kernel": 7, "coordinate_frequencies": 4, "encoder_channels": (6, 5, 4)},
    ],
)
def test_other_architectures_are_read_off_the_shapes(arguments):
    model = small(**arguments)
    made = IODINE.from_official(written(model), num_slots=3, num_iterations=2)
    for name in ("decoder_channels", "encoder_channels", "mlp_sizes"):
        model.hparams[name] = tuple(model.hparams[name])
    assert dict(made.hparams) == dict(model.hparams) | (
        {"coordinate_frequencies": 3} if model.hparams.coordinates == "linear" else {}
    )
    for ours, theirs in zip(made.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", CASES)
def test_a_checkpoint_computes_what_the_reference_code_computes_with_it(name):
    folder, oracle, _ = case(name)
    numbers = load(oracle)
    model = IODINE.from_official(folder, num_slots=json.loads(str(numbers["meta_json"]))["K"])
    images = channels_first(numbers["image"][:, 0])
    noise = torch.stack([as_tensor(numbers[f"t{t}/eps"]) for t in range(6)])
    result = model(images, noise=noise, return_steps=True)
    for t, step in enumerate(result.steps):
        for ours, key in (
            (step.mean, "z_mean"),
            (step.std, "z_std"),
            (result.trace.nll[t], "re"),
            (result.trace.kl[t], "kl"),
        ):
            assert relative_error(ours, as_tensor(numbers[f"t{t}/{key}"])) < 1e-4, (t, key)
    assert relative_error(result.means, channels_first(numbers["t5/dec_pixel"])) < 1e-4
    assert relative_error(result.masks, channels_first(numbers["t5/dec_pred_mask"])) < 1e-4
    assert relative_error(model.loss(images, noise=noise)[0], as_tensor(numbers["total_loss"])) < 1e-5


class OnGivenNoise(IODINE):
    """Trains on the noise that the reference code had."""

    noise = torch.empty(0)

    def training_step(self, batch, batch_idx):
        return self.loss(batch, noise=self.noise)[0]


def go_on(model, images, checkpoint, max_steps):
    """Trains from a checkpoint on one batch, and returns the Trainer."""
    trainer = pl.Trainer(
        max_steps=max_steps,
        accelerator="cpu",
        logger=False,
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=checkpoint.parent,
    )
    loader = DataLoader(images, batch_size=len(images))
    trainer.fit(model, loader, loader, ckpt_path=checkpoint)
    return trainer


@pytest.mark.parametrize("name", CASES)
def test_training_goes_on_as_in_the_reference_code(name, tmp_path):
    """A Trainer that starts from the converted file continues weights, Adam's moments, step and schedule."""
    folder, oracle, resume = case(name)
    before, after = load(oracle), load(resume)
    meta = json.loads(str(before["meta_json"]))
    official = read_official(folder, num_slots=meta["K"], learning_rate=meta["learn_rate"])  # scaled already
    assert official.step == meta["steps"]
    # In the reference code the clipped norm includes the probe's gradient.
    squares = {name[2:]: float(np.square(g.astype(np.float64)).sum()) for name, g in after.items() if name[:2] == "g/"}
    whole = sum(squares.values()) ** 0.5
    assert whole == pytest.approx(float(after["global_norm"]), rel=1e-5)
    own = sum(square for name, square in squares.items() if "factor_evaluator" not in name) ** 0.5
    assert whole > 5.0
    write_checkpoint(made(official, gradient_clip_norm=5.0 * own / whole), tmp_path / "a.ckpt", *official[3:5])

    model = OnGivenNoise.load_from_checkpoint(tmp_path / "a.ckpt")
    OnGivenNoise.noise = torch.stack([as_tensor(before[f"t{t}/eps"]) for t in range(6)])
    images = channels_first(before["image"][:, 0])
    trainer = go_on(model, images, tmp_path / "a.ckpt", meta["steps"] + 1)
    assert trainer.global_step == int(after["after/global_step"])
    parameters = dict(model.named_parameters())
    for variable, (parameter, _) in variables_of(model.hparams).items():
        start, end = (in_our_layout(x) for x in (before[f"var/{variable}"], after[f"after/{variable}"]))
        # Updates are near 1e-5 of weights near 1, which float32 tells apart to 1e-7 only. Behind the scalars of layer
        # norms stand sums over all pixels, which round to 2.3e-4 on some processors.
        rounding = 1.2e-7 * float(end.norm() / (end - start).norm())
        assert relative_error(parameters[parameter] - start, end - start) < 3e-4 + rounding, variable


def test_a_new_learning_rate_is_used_when_training_continues(tmp_path):
    official = read_official(TINY, num_slots=3)
    write_checkpoint(made(official), tmp_path / "a.ckpt", 500_000, official.moments)
    model = IODINE.load_from_checkpoint(tmp_path / "a.ckpt", batch_size=64, learning_rate=0.008)
    trainer = go_on(model, torch.rand(1, 3, 9, 9), tmp_path / "a.ckpt", 500_001)
    rate = 0.008 * (64 / 256) ** 0.5 * 0.1 ** (500_001 / 1e6)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(rate, rel=1e-12)


def test_weights_alone_are_enough_and_training_starts_from_them(tmp_path):
    variables = {name: a for name, a in tiny_variables().items() if "Adam" not in name and "power" not in name}
    official = read_official(variables, num_slots=3)
    assert official.moments == {}
    assert official.step == 5
    write_checkpoint(made(official), tmp_path / "a.ckpt", official.step, official.moments)
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert content["optimizer_states"][0]["state"] == {}
    assert content["global_step"] == 5
    assert content["lr_schedulers"][0]["last_epoch"] == 5


def test_incomplete_moments_are_an_error():
    for lost in (f"{LOST}/Adam", f"{LOST}/Adam_1", "beta2_power", "global_step"):
        variables = tiny_variables()
        del variables[lost]
        with pytest.raises(ValueError, match=f"missing {lost}|but not {lost}"):
            read_official(variables)
    with pytest.raises(ValueError, match=r"beta1_power is 0\.735092, but 0\.5 to the power of global_step \+ 1 = 6"):
        read_official(tiny_variables(), betas=(0.5, 0.999))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("anything/w", np.zeros(3, np.float32), "unknown anything/w"),
        (LOST, None, f"missing {LOST}"),
        (LOST, np.zeros(9, np.float32), rf"misshapen {LOST}: \(9,\) in PyTorch's order, the model has \(8,\)"),
        (LOST, np.full(8, np.nan, np.float32), f"{LOST} is not finite"),
        (LOST, np.zeros(8, np.int64), f"{LOST} is of type int64"),
        (f"{LOST}/Adam", np.zeros(9, np.float32), f"misshapen {LOST}/Adam"),
        ("model/iodine/initial_sample_distribution", None, "missing model/iodine/initial_sample_distribution: this is"),
        ("pixel_decoder/broadcast_conv/conv_net_2d/conv_2d_1/w", None, "decoder has two convolutions at least"),
        (
            "encoder_net/cnn/conv_net_2d/conv_2d_0/w",
            np.zeros((5, 5, 23, 6), np.float32),
            "leaves 7 for the coordinates",
        ),
        ("encoder_net/cnn/mlp/linear_0/w", np.zeros((0, 9), np.float32), "misshapen .*none of them empty"),
        ("encoder_net/cnn/mlp/linear_0/w", np.zeros((7, 1 << 20), np.float32), "misshapen refinement_head"),
        ("encoder_net/cnn/mlp/linear_2/w", np.zeros((9, 9), np.float32), "unknown encoder_net/cnn/mlp/linear_2/w"),
        ("global_step", np.float32(5), "must be one number of updates, not float32"),
        ("global_step", np.int64(-1), "must be one number of updates"),
    ],
)
def test_what_is_missing_unknown_or_misshapen_is_named(name, value, words):
    variables = tiny_variables()
    variables.pop(name, None)
    if value is not None:
        variables[name] = value
    with pytest.raises(ValueError, match=words):
        read_official(variables)


def test_a_variable_that_does_not_fit_is_named():
    arguments = small().hparams
    variables = written(small())
    del variables[LOST]
    variables["global_step"] = np.int64(3)
    bent = "encoder_net/cnn/mlp/linear_0/w"
    variables[bent] = variables[bent].T
    with pytest.raises(ValueError, match="do not fit") as caught:
        parameters_of(variables, arguments)
    for words in (
        f"missing {LOST}",
        "unknown global_step",
        f"misshapen {bent}: (6, 8) in PyTorch's order, the model has (8, 6)",
    ):
        assert words in str(caught.value)


def test_a_variable_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"part/model\.ckpt: no variables of IODINE: p/w is a partitioned variable"):
        read_official(DATA / "checkpoint_edge" / "part")
    bundles.write(tmp_path, {"v": np.float32([1])})
    with pytest.raises(
        ValueError, match=f"{tmp_path}/model.ckpt: missing pixel_decoder.*: this is not a checkpoint of"
    ):
        read_official(tmp_path)


def test_the_command_converts_and_says_what_was_in_it(tmp_path, capsys):
    out = tmp_path / "a.ckpt"
    main([str(TINY), "--out", str(out), "--num_slots", "3"])
    said = capsys.readouterr().out
    for words in (
        "architecture: that of no released network, 7,804 parameters",
        "variables used: 25",
        "slots: 3",
        "updates done: 5",
        "moments of Adam: of 25 variables",
        f"{PROBE}, {PROBE}/Adam, {PROBE}/Adam_1",
        f"Wrote {out}",
    ):
        assert words in said
    model = IODINE.load_from_checkpoint(out)
    for ours, theirs in zip(model.parameters(), IODINE.from_official(TINY).parameters(), strict=True):
        assert torch.equal(ours, theirs)
    written = out.read_bytes()
    with pytest.raises(SystemExit, match=f"error: {out} is there already: delete it"):
        main([str(TINY), "--out", str(out)])
    assert out.read_bytes() == written


def test_a_failed_conversion_leaves_nothing(tmp_path):
    with pytest.raises(SystemExit, match=r"error: .*no checkpoint"):
        main([str(tmp_path / "nowhere"), "--out", str(tmp_path / "a.ckpt")])
    assert list(tmp_path.iterdir()) == []


def test_every_variable_of_the_official_graphs_is_recognized():
    """Names and shapes of all three official training graphs, probe, slots and statistics included."""
    folder = SHARED / "checkpoints"
    if not folder.is_dir():
        pytest.skip("the lists are too large to ship")
    for network, count in NETWORKS.items():
        listed = json.loads((folder / f"names_{network}.json").read_text())
        variables = {v["name"]: np.zeros(v["shape"], v["dtype"]) for v in listed if v["saved"]}
        variables |= {"beta1_power": np.float32(0.95), "beta2_power": np.float32(0.999)}
        official = read_official(variables)
        assert official.network == network
        assert len(official.moments) == count
        assert 3 * count + 3 + len(official.unused) == len(variables)


def test_an_address_is_downloaded_once_and_continued(server, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "original.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for child in TINY.iterdir():
            file.write(child, f"iodine_checkpoints/tiny/{child.name}")
            file.writestr(f"iodine_checkpoints/other/{child.name}", b"nonsense")
    server.content, server.longest = path.read_bytes(), 50_000
    path.unlink()
    main([server.url, "--folder", "tiny", "--out", "a.ckpt"])
    assert sorted(child.name for child in tmp_path.iterdir()) == ["a.ckpt", "released"]
    assert (tmp_path / "released").read_bytes() == server.content
    asked = len(server.asked)
    assert asked > 1  # it was interrupted and continued
    main([server.url, "--folder=tiny", "--out", "b.ckpt"])
    assert len(server.asked) == asked
    assert "released is there already" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"other/model\.ckpt-5: this is not the index of a TensorFlow checkpoint"):
        main(["released", "--folder=other", "--out", "c.ckpt"])
    assert not (tmp_path / "c.ckpt").exists()


def test_a_page_in_place_of_the_file_is_refused(server, tmp_path):
    server.content, server.kind = b"<html>no such file</html>", "text/html"
    with pytest.raises(SystemExit, match=r"sent text/html that begins with '<html>.*give a file that you have"):
        main([server.url, "--out", str(tmp_path / "a.ckpt")])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("end", ["", "folder/..", "?file=a.zip"])
def test_an_address_without_the_name_of_a_file_is_refused(end, server, tmp_path):
    with pytest.raises(SystemExit, match="names no file"):
        main([server.url.rsplit("/", 1)[0] + "/" + end, "--out", str(tmp_path / "a.ckpt")])
    assert server.asked == []


def test_the_command_line_takes_the_converted_checkpoint(tmp_path, monkeypatch, capsys):
    """Convert, test, predict, train on, resume: as a user types it."""
    monkeypatch.chdir(tmp_path)
    main([str(TINY), "--out", "a.ckpt", "--num_slots=3"])
    data = ["--data.num_train=12", "--data.num_val=3", "--data.num_test=4", "--data.batch_size=3"]
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
    tested = train(["test", "--ckpt_path=a.ckpt", *data, *quiet, "--model.num_slots=4"])
    assert tested.model.num_slots == 4
    assert tested.model.batch_size == 3
    assert "test/ari_fg" in tested.trainer.callback_metrics
    train(["predict", "--ckpt_path=a.ckpt", *data, *quiet])
    said = capsys.readouterr().out
    assert "slots: runs/tetrominoes/version_1/panels/predict_slots_0000000.png" in said
    assert Path("runs/tetrominoes/version_1/panels/predict_slots_0000000.png").is_file()
    fitted = train(
        ["fit", "--ckpt_path=a.ckpt", *data, *quiet, "--trainer.max_steps=7", "--trainer.log_every_n_steps=1"]
    )
    assert fitted.trainer.global_step == 7
    states = fitted.trainer.optimizers[0].state.values()
    assert {float(state["step"]) for state in states} == {7.0}
    again = train(["fit", "--ckpt_path=last", *quiet, "--trainer.max_steps=9"])
    assert again.trainer.global_step == 9
