"""Arguments out of their range are refused when a model is made."""

import pytest
from helpers import small

from iodine_pl.baselines import VAE

NAN = float("nan")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("gradient_clip_norm", 0.0, "must be positive, got 0.0"),
        ("gradient_clip_norm", -1.0, "must be positive, got -1.0"),
        ("gradient_clip_norm", NAN, "must be positive, got nan"),
        ("decay_steps", 0, "must be at least 1, got 0"),
        ("decay_factor", 0.0, "must be positive, got 0.0"),
        ("batch_size", 0, "must be at least 1, got 0"),
        ("reference_batch_size", -3, "must be at least 1, got -3"),
        ("betas", (0.9, 1.0), r"must be at least 0 and below 1, got \(0.9, 1.0\)"),
        ("learning_rate", -1e-3, "must not be negative, got -0.001"),
        ("learning_rate", NAN, "must not be negative, got nan"),
        ("adam_epsilon", -1.0, "must not be negative, got -1.0"),
        ("seed", -1, "must not be negative, got -1"),
        ("decoder_channels", (), "must not be empty"),
        ("encoder_channels", (8, 0), r"must be at least 1, got \(8, 0\)"),
        ("decoder_kernel", 0, "must be at least 1, got 0"),
        ("encoder_kernel", -3, "must be at least 1, got -3"),
        ("mlp_sizes", (), "must not be empty"),
        ("lstm_size", -1, "must not be negative, got -1"),
        ("latent_size", 0, "must be at least 1, got 0"),
        ("image_channels", 0, "must be at least 1, got 0"),
        ("evaluation_iterations", 0, "must be at least 1, got 0"),
        ("prior_scale", NAN, "must be positive, got nan"),
    ],
)
def test_an_argument_out_of_its_range_is_named(name, value, words):
    with pytest.raises(ValueError, match=f"^{name} {words}$"):
        small(**{name: value})


@pytest.mark.parametrize("name", ["image_size", "latent_size", "encoder_kernel", "decoder_channels", "batch_size"])
def test_a_baseline_too(name):
    with pytest.raises(ValueError, match=f"^{name} must be at least 1, got "):
        VAE(**{name: (0,) if name == "decoder_channels" else 0})


def test_an_argument_at_the_limit_is_accepted():
    small(gradient_clip_norm=None, learning_rate=0.0, betas=(0.0, 0.999), lstm_size=0, seed=0, batch_size=None)
