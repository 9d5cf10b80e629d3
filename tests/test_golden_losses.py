"""What is trained does not change unseen: the losses of every shipped configuration are those that are on record."""

import json

import pytest
from golden import CONFIGS, FILE, losses


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stem)
def test_the_losses_of_twenty_updates(config):
    assert losses(config) == pytest.approx(json.loads(FILE.read_text())[config.stem], rel=1e-6)
