"""The official networks: what the released code sets for each dataset."""

from __future__ import annotations

from typing import Any, Literal

__all__ = ["NETWORKS", "Network"]

Network = Literal["tetrominoes", "multi_dsprites", "clevr6"]

NETWORKS: dict[Network, dict[str, Any]] = {
    "tetrominoes": {  # 35x35 pixels, 199,568 parameters
        "num_slots": 4,
        "num_iterations": 5,
        "latent_size": 32,
        "decoder_channels": (32, 32, 32, 32),
        "decoder_kernel": 5,
        "encoder_channels": (32, 32, 32),
        "encoder_kernel": 5,
        "mlp_sizes": (128,),
        "lstm_size": 0,
        "coordinates": "cosine",
        "learning_rate": 3e-4,
        "reference_batch_size": 256,
    },
    "multi_dsprites": {  # 64x64 pixels, 339,152 parameters
        "num_slots": 6,
        "num_iterations": 5,
        "latent_size": 16,
        "decoder_channels": (32, 32, 32, 32),
        "decoder_kernel": 5,
        "encoder_channels": (32, 32, 32),
        "encoder_kernel": 5,
        "mlp_sizes": (128,),
        "lstm_size": 128,
        "coordinates": "cosine",
        "learning_rate": 3e-4,
        "reference_batch_size": 128,
    },
    "clevr6": {  # 128x128 pixels, 1,177,168 parameters
        "num_slots": 7,
        "num_iterations": 5,
        "latent_size": 64,
        "decoder_channels": (64, 64, 64, 64),
        "decoder_kernel": 3,
        "encoder_channels": (64, 64, 64, 64),
        "encoder_kernel": 3,
        "mlp_sizes": (256, 256),
        "lstm_size": 256,
        "coordinates": "linear",
        "learning_rate": 1e-3,
        "reference_batch_size": 32,
    },
}
"""Name -> the arguments of :class:`iodine_pl.IODINE` that differ among the three."""
