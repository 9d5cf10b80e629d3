"""A user's own parts: another input, another decoder, another pixel distribution."""

import pytest
import torch
from helpers import SMALL
from torch import nn
from train_in_double import MODES

from iodine_pl import IODINE
from iodine_pl.decoder import Decoded
from iodine_pl.refinement import INPUTS, VECTORS, Input, RefinementInputs, RefinementNetwork


class SeesItsResidual(RefinementNetwork):
    inputs = (*INPUTS, Input("residual", "C"))

    def value(self, name, inputs):
        return inputs.image.unsqueeze(1) - inputs.means if name == "residual" else super().value(name, inputs)


class WithResidual(IODINE):
    def make_refinement(self, **arguments):
        return SeesItsResidual(**arguments)


class Planes(nn.Module):
    """Draws every slot as planes over the image."""

    def __init__(self, latent_size, image_channels):
        super().__init__()
        self.planes = nn.Linear(latent_size, 3 * (1 + image_channels))

    def forward(self, latents, height, width):
        y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        base = torch.stack([torch.ones_like(x), y, x]).to(latents)
        maps = torch.einsum("bkcp,phw->bkchw", self.planes(latents).unflatten(-1, (-1, 3)), base)
        return Decoded(maps[:, :, 0], maps[:, :, 1:])


class WithPlanes(IODINE):
    def make_decoder(self, latent_size, image_channels, **arguments):
        return Planes(latent_size, image_channels)


class Laplace:
    """A user's distribution, centered at its parameter."""

    @property
    def about(self):
        return self

    def log_prob(self, x, parameter):
        return -(x - parameter).abs()

    def score(self, x, parameter):
        return (x - parameter).sign()

    def mean(self, parameter):
        return parameter

    def slope(self, mean):
        return 1.0


def update(model):
    """Trains a step; returns the loss before it, and the names of parameters that did not move."""
    optimizer = model.configure_optimizers()["optimizer"]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    loss, _ = model.loss(torch.rand(2, 3, 11, 9))
    loss.backward()
    optimizer.step()
    return loss.item(), [name for name, p in model.named_parameters() if torch.equal(p, before[name])]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", [WithResidual, WithPlanes])
def test_another_input_or_decoder_is_trained_in_every_mode(kind, mode):
    loss, still = update(kind(**SMALL | MODES[mode], learning_rate=0.01, lstm_size=5))
    assert loss == loss
    assert not still


def test_another_input_comes_after_those_of_the_reference_code_and_counts():
    model = WithResidual(**SMALL)
    ours, theirs = model.refinement, IODINE(**SMALL).refinement
    assert list(ours.channels) == [*theirs.channels, "residual"]
    assert ours.convolutions[0].in_channels == theirs.convolutions[0].in_channels + 3
    images, noise = torch.rand(1, 3, 8, 8), torch.randn(model.noise_shape(1))
    without = WithResidual(**SMALL, leave_out=["residual"])
    without.load_state_dict(model.state_dict())
    assert not torch.allclose(model(images, noise=noise).masks, without(images, noise=noise).masks)


def test_every_input_has_its_row_and_stands_where_the_reference_code_has_it():
    assert {row.name for row in (*INPUTS, *VECTORS)} == {
        *RefinementInputs._fields,
        "coordinates",
        "capacity",
        "flat_capacity",
    }
    network = IODINE(**SMALL).refinement
    of_gradients = ("leave_one_out", "mean_gradient", "mask_gradient")
    of_masks = ("mask_logits", "mask_posterior", "masks")
    before, after = ("capacity", "means", "coordinates"), ("image", "log_likelihood")
    assert tuple(network.channels) == (*before, *of_gradients, *after, *of_masks)
    assert tuple(network.vector_channels) == ("posterior_gradient", "flat_capacity", "posterior")


@pytest.mark.parametrize("likelihood", ["mixture", "mean"])
@pytest.mark.parametrize("bounded", [False, True])
def test_another_distribution_is_trained(likelihood, bounded):
    arguments = SMALL | {"pixel_likelihood": likelihood, "bounded_means": bounded, "learning_rate": 0.01}
    model = IODINE(**arguments, pixel_distribution=Laplace())
    assert not update(model)[1]
    assert model.hparams["pixel_distribution"] == "Laplace"  # a checkpoint cannot hold it, and says so when it is read
    with pytest.raises(ValueError, match="must be 'logistic', 'gaussian' or 'bernoulli', got 'Laplace'"):
        IODINE(**model.hparams)
    assert IODINE(**model.hparams | {"pixel_distribution": Laplace()}).likelihood is model.likelihood


class Poisson:
    """Has no density about its mean."""

    log_prob = score = mean = None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"pixel_distribution": Laplace(), "pixel_scale": 0.1}, "has a scale of its own: leave pixel_scale"),
        ({"pixel_distribution": Poisson(), "bounded_means": True}, r"bounded_means needs .* has no \.about"),
        ({"pixel_distribution": Poisson(), "pixel_likelihood": "mean"}, r"pixel_likelihood='mean' needs .* no \.about"),
        ({"pixel_distribution": "gaussian", "channel_correlation": 1.0}, "channel_correlation must be at least 0 and"),
        ({"channel_correlation": 0.5}, "channel_correlation is for pixel_distribution='gaussian'; 'logistic' has none"),
        ({"network": "mnist"}, "network must be one of tetrominoes, multi_dsprites, clevr6, got 'mnist'"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        IODINE(**SMALL | arguments)


def test_a_network_sets_the_arguments_that_are_not_given():
    model = IODINE(network="clevr6", num_slots=5, mlp_sizes=(9,), lstm_size=0)
    assert (model.num_slots, model.num_iterations, model.latent_size) == (5, 5, 64)
    assert model.refinement.lstm is None
    assert model.refinement.mlp[0].out_features == 9
    assert (model.learning_rate, model.reference_batch_size) == (1e-3, 32)
    same = IODINE(**model.hparams)
    assert [p.shape for p in same.parameters()] == [p.shape for p in model.parameters()]
    assert model.hparams["latent_size"] == 64


def test_a_model_says_what_it_is():
    said = repr(IODINE(**SMALL, pixel_likelihood="mean", bounded_means=True, recompute=True)).splitlines()[1].strip()
    assert said == (
        "K=3, T=2, D=4, likelihood=MeanImage of Bounded(about=Logistic(scale=0.03)), input_gradients=full, recomputed"
    )
