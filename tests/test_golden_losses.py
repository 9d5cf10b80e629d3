"""Training does not change unnoticed: the losses of every shipped configuration equal the recorded ones."""

import json

import pytest
from golden import CONFIGS, FILE, losses


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stem)
def test_the_losses_of_twenty_updates(config):
    assert losses(config) == pytest.approx(json.loads(FILE.read_text())[config.stem], rel=1e-6)
