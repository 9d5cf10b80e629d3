"""The comparisons with the reference code and with definitions notice mistakes: each below makes one of them fail."""

import importlib
import importlib.util
import shutil
import sys
from pathlib import Path

import pytest
from reference import TINY, Reference
from written_out import likelihood_failures, muon_failures

import iodine_pl
from iodine_pl import pretrained

SOURCE = Path(iodine_pl.__file__).parent

# name: (file, right, wrong)
OF_THE_REFERENCE = {
    "means not in the graph": ("engine.py", "means=mixture.means,", "means=mixture.means.detach(),"),
    "masks not in the graph": ("engine.py", "masks=mixture.masks,", "masks=mixture.masks.detach(),"),
    "mask posterior not in the graph": ("engine.py", "(self.networks.mask_posterior_epsilon)", "(self.networks.mask_posterior_epsilon).detach()"),
    "lambda detached between steps": ("engine.py", "State(state.parameters + update, lstm)", "State(state.parameters.detach() + update, lstm)"),
    "lambda not in the graph of its input": ("engine.py", "posterior=state.parameters,", "posterior=state.parameters.detach(),"),
    "posterior gradient without KL": ("engine.py", "(of_latents, torch.ones_like(kl))", "(of_latents, torch.zeros_like(kl))"),
    "no 1/B in the inner loss": ("iodine.py", "= self.inner_batch_size or self.batch_size or batch", "= 1"),
    "slots averaged, not summed, in the KL": ("iodine.py", "+ trace.kl.sum(dim=2)", "+ trace.kl.mean(dim=2)"),
    "equal loss weights": ("engine.py", "torch.linspace(1, 0, states", "torch.linspace(1, 1, states"),
    "std instead of variance": ("posterior.py", "self.variance = F.softplus(raw)", "self.variance = F.softplus(raw).square()"),
    "prior N(0, 1)": ("posterior.py", "math.sqrt(math.log(2.0))", "1.0"),
    "coordinates of the decoder swapped": ("decoder.py", "torch.meshgrid(rows, columns, indexing=\"ij\")", "torch.meshgrid(rows, columns, indexing=\"ij\")[::-1]"),
    "no constant channel": ("decoder.py", "width), constant, dtype", "width), 0.0, dtype"),
    "coordinates of the refinement swapped": ("layers.py", "torch.stack([x, y])", "torch.stack([y, x])"),
    "cosine frequencies swapped": ("layers.py", "fw,gh->fghw", "fw,gh->gfhw"),
    "symmetric padding": ("layers.py", "return total // 2, total - total // 2", "return (total + 1) // 2, total - (total + 1) // 2"),
    "mask posterior with the masks": ("mixture.py", "likelihood = self.slot_log_prob.exp()", "likelihood = self.joint.exp()"),
    "leave one out without renormalizing": ("mixture.py", "return joint - masks", "return joint"),
    "one density per channel": ("mixture.py", "self.image, self.parameters).sum(dim=2)", "self.image, self.parameters).mean(dim=2)"),
    "layer norm over pixels only": ("layers.py", "F.layer_norm(x, x.shape[1:]", "F.layer_norm(x, x.shape[2:] or x.shape[1:]"),
    "no forget bias": ("layers.py", "torch.sigmoid(f + self.forget_bias)", "torch.sigmoid(f)"),
    "LSTM gates in torch's order": ("layers.py", "i, j, f, o = self.gates", "i, f, j, o = self.gates"),
    "LSTM state not carried over": ("engine.py", "State(state.parameters + update, lstm)", "State(state.parameters + update, state.lstm)"),
    "ELU after the MLP": ("layers.py", "return nn.Sequential(*layers[:-1])", "return nn.Sequential(*layers)"),
    "another capacity": ("refinement.py", "constant = self.capacity if", "constant = 1.0 if"),
    "gradients added instead of subtracted": ("mixture.py", "self.masks - responsibility, -responsibility", "responsibility - self.masks, responsibility"),
}  # fmt: skip

OF_THE_MEAN = {
    "no slope of the sigmoid": ("mixture.py", "weighted * self.distribution.slope(self.means)", "weighted"),
    "another slope": ("distributions.py", "return mean * (1.0 - mean)", "return mean"),
    "masks pulled to the image, not to the mean": ("mixture.py", "(self.means - mean) * weighted", "(self.means - self.image) * weighted"),
    "masks' gradient not weighted": ("mixture.py", "weighted = self.masks.unsqueeze(2) * -", "weighted = -"),
    "masks' gradient added": ("mixture.py", "((self.means - mean) * weighted)", "((mean - self.means) * weighted)"),
    "no common part of the channels": ("distributions.py", "return (error - common) /", "return error /"),
    "the common part counted for all channels": ("distributions.py", "(r / (1.0 + (error.shape[-3] - 1) * r))", "r"),
    "determinant of the common part alone": ("distributions.py", "+ (channels - 1) * math.log1p(-r)", ""),
    "density of the parameter": ("distributions.py", "self.about.log_prob(x, torch.sigmoid(parameter))", "self.about.log_prob(x, parameter)"),
    "the rest not renormalized": ("mixture.py", "/ _sum_of_others(masks).clamp(min=tiny)", ""),
    "the rest of one slot more": ("mixture.py", "after[1:], strict=True", "after[:-1], strict=True"),
    "one responsibility for all channels": ("mixture.py", "responsibility = self.channel_joint.softmax(dim=1)", "responsibility = self.joint.softmax(dim=1).unsqueeze(2).expand_as(self.channel_joint)"),
    "channels averaged": ("mixture.py", "torch.logsumexp(self.channel_joint, dim=1).sum(dim=1)", "torch.logsumexp(self.channel_joint, dim=1).mean(dim=1)"),
    "Bernoulli's masks not counted for each channel": ("mixture.py", "(self.masks.unsqueeze(2) - responsibility).sum(dim=2)", "self.masks - responsibility.sum(dim=2)"),
    "the rest's masks counted once": ("mixture.py", "_logsumexp_of_others(self.log_masks).unsqueeze(2)", "_logsumexp_of_others(self.log_masks).unsqueeze(2) / 3"),
}  # fmt: skip

OF_MUON = {
    "no Nesterov": ("optim/muon.py", "torch._foreach_lerp(gradients, momenta, beta)", "momenta"),
    "rows counted, not the longer side": ("optim/muon.py", "math.sqrt(update.shape[1])", "math.sqrt(update.shape[0])"),
    "another norm": ("optim/muon.py", "x.norm(dim=(1, 2), keepdim=True)", "x.abs().sum(dim=(1, 2), keepdim=True)"),
    "X not multiplied": ("optim/muon.py", "product @ x", "product @ x.sign()"),
    "the small matrix not iterated": ("optim/muon.py", "gram = factor @ gram @ factor", "gram = gram"),
    "one batch of transposed and other matrices": ("optim/muon.py", "mixed.shape[0] <= mixed.shape[1] else mixed.T", "mixed.shape[0] <= mixed.shape[1] else mixed.reshape(mixed.shape[::-1])"),
    "Adam's rate is Muon's": ("optim/muon.py", "lr if adam_lr is None else adam_lr", "lr"),
    "weights decay without the rate": ("optim/muon.py", '1.0 - group["lr"] * group["weight_decay"]', '1.0 - group["weight_decay"]'),
    "weights do not decay": ("optim/muon.py", '"weight_decay": weight_decay}', '"weight_decay": 0.0}'),
    "convolutions left to Adam": ("optim/muon.py", "[p for p in params if p.ndim >= 2]", "[p for p in params if p.ndim == 2]"),
}  # fmt: skip

MISTAKES = OF_THE_REFERENCE | OF_THE_MEAN | OF_MUON


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """Copies the package under another name."""
    package = tmp_path_factory.mktemp("copy") / "mutant_pl"
    shutil.copytree(SOURCE, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "pretrained").mkdir()
    shutil.copy(Path(pretrained.__file__), package / "pretrained")
    for path in package.rglob("*.py"):
        path.write_text(path.read_text().replace("iodine_pl", "mutant_pl"))
    return package


@pytest.fixture
def mutant(copy, monkeypatch, request):
    """Imports the copy with one mistake in it."""
    file, right, wrong = MISTAKES[request.param]
    path = copy / file
    source = path.read_text()
    assert source.count(right) == 1, f"{file} no longer has this line once: {right}"
    compiled = Path(importlib.util.cache_from_source(path))  # is known by size and second, which may be the same
    compiled.unlink(missing_ok=True)
    path.write_text(source.replace(right, wrong))
    monkeypatch.syspath_prepend(copy.parent)
    importlib.invalidate_caches()
    yield importlib.import_module("mutant_pl")
    path.write_text(source)
    compiled.unlink(missing_ok=True)
    for name in [name for name in sys.modules if name.split(".")[0] == "mutant_pl"]:
        del sys.modules[name]


@pytest.mark.parametrize("mutant", OF_THE_REFERENCE, indirect=True)
def test_a_mistake_is_noticed(mutant):
    importlib.import_module("mutant_pl.official.variables")
    assert any(Reference(name, mutant).failures() for name in TINY)


@pytest.mark.parametrize("mutant", OF_THE_MEAN, indirect=True)
def test_is_noticed_in_the_likelihood_of_the_mean(mutant):
    assert likelihood_failures(mutant)


@pytest.mark.parametrize("mutant", OF_MUON, indirect=True)
def test_is_noticed_in_muon(mutant):
    assert muon_failures(mutant)
