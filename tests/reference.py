"""Holds an IODINE against the numbers that the reference code wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

DATA = Path(__file__).parent / "data"
SHARED = Path(__file__).parents[2] / "shared" / "official"  # full-size networks, too large to ship

TINY = {
    "tiny_linear_lstm": (
        "clevr6",
        {
            "latent_size": 5,
            "decoder_channels": (6, 7),
            "encoder_channels": (6, 7),
            "mlp_sizes": (9, 8),
            "lstm_size": 10,
        },
    ),
    "tiny_cos_nolstm": (
        "tetrominoes",
        {"latent_size": 4, "decoder_channels": (6, 7), "encoder_channels": (6, 7), "mlp_sizes": (9,)},
    ),
}
FULL = {"tetrominoes": ("tetrominoes", {}), "clevr6": ("clevr6", {})}

ACTIVATION_TOLERANCE = 1e-4  # relative L2; the largest seen is 1.3e-5
LOSS_TOLERANCE = 1e-6
GRADIENT_TOLERANCE = 3e-4  # rounding alone moves some gradients by 1.3e-4, seeded mistakes move some by 4e-3 and more


def as_tensor(x: Any) -> Tensor:
    return torch.from_numpy(np.array(x))


def channels_first(x: Any) -> Tensor:
    """Moves the last axis before the two of the image; drops an axis of one channel."""
    tensor = as_tensor(x).movedim(-1, -3)
    return tensor.squeeze(-3) if tensor.shape[-3] == 1 else tensor


def in_our_layout(x: Any) -> Tensor:
    """Turns a variable of the reference code into PyTorch's order of axes."""
    tensor = as_tensor(x)
    return tensor.permute(3, 2, 0, 1) if tensor.ndim == 4 else tensor.T if tensor.ndim == 2 else tensor


def relative_error(ours: Tensor, reference: Tensor) -> float:
    """L2 distance by the L2 norm of the reference; 1e9 where the shapes differ or ours is not finite."""
    ours, reference = ours.detach().double(), reference.double()
    if ours.shape != reference.shape or not torch.isfinite(ours).all():
        return 1e9
    return float((ours - reference).norm() / reference.norm().clamp(min=1e-12))


class Reference:
    """Loads a fixture and makes the model it was written with, from ``package`` (iodine_pl, or a mutant of it)."""

    def __init__(self, name: str, package: ModuleType) -> None:
        path = (DATA if name in TINY else SHARED) / f"{name}.npz"
        with np.load(path) as file:
            self.arrays: dict[str, Any] = dict(file)
        self.meta = json.loads(str(self.arrays["meta_json"]))
        self.steps = self.meta["T"] + 1
        self.checked: set[str] = set()
        network, arguments = (TINY | FULL)[name]
        self.model = getattr(package.IODINE, network)(**({"num_slots": self.meta["K"]} | arguments))
        variables = {key[2:]: value for key, value in self.arrays.items() if key.startswith("w/")}
        official, arguments = package.official.variables, self.model.hparams
        self.model.load_state_dict(official.in_our_layout(variables, arguments))
        self.parameter_names = {name: x.parameter for name, x in official.variables_of(arguments).items()}
        self.image = as_tensor(self.arrays["image"][:, 0]).permute(0, 3, 1, 2)
        self.noise = torch.stack([as_tensor(self.arrays[f"t{t}/eps"]) for t in range(self.steps)])

    def failures(self) -> list[str]:
        """Runs forward and backward; returns the values that are off by more than their tolerance, with the error."""
        seen = _Recorder(self.model)
        result = self.model(self.image, noise=self.noise, return_steps=True)
        seen.remove()
        loss, _ = self.model.loss(self.image, noise=self.noise)
        self.model.zero_grad()
        loss.backward()
        checks = [*self._losses(loss, result), *self._activations(result, seen), *self._gradients()]
        return [f"{name}: {error:.1e} > {limit:.1e}" for name, error, limit in checks if not error <= limit]

    def _losses(self, loss: Tensor, result: Any) -> Iterator[tuple[str, float, float]]:
        yield "total_loss", relative_error(loss, as_tensor(self.arrays["total_loss"])), LOSS_TOLERANCE
        yield "mse", relative_error(result.trace.mse[-1].mean(), as_tensor(self.arrays["mse"])), 1e-5
        for t in range(self.steps):
            for ours, key in ((result.trace.nll[t], "re"), (result.trace.kl[t], "kl")):
                yield f"t{t}/{key}", relative_error(ours, as_tensor(self.arrays[f"t{t}/{key}"])), 1e-5

    def _activations(self, result: Any, seen: _Recorder) -> Iterator[tuple[str, float, float]]:
        def check(key: str, ours: Tensor, reference: Tensor) -> tuple[str, float, float]:
            self.checked.add(key)
            return key, relative_error(ours, reference), ACTIVATION_TOLERANCE

        for t, step in enumerate(result.steps):
            for key, ours in (("z_mean", step.mean), ("z_std", step.std), ("z", step.latents)):
                yield check(f"t{t}/{key}", ours, as_tensor(self.arrays[f"t{t}/{key}"]))
            for key, ours in (
                ("dec_pixel", step.means),
                ("dec_pred_mask", step.masks),
                ("dec_mask_logits", seen.decoded[t].mask_logits),
            ):
                yield check(f"t{t}/{key}", ours, channels_first(self.arrays[f"t{t}/{key}"]))
        for t in range(self.steps - 1):
            for key, ours in seen.at_step(t).items():
                name = f"t{t}/{key}"
                if name not in self.arrays:
                    continue  # the full-size files hold fewer values
                array = self.arrays[name]
                reference = channels_first(array) if key.startswith("in/spatial") else as_tensor(array)
                yield check(name, ours.reshape(reference.shape), reference)
        grid = channels_first(self.arrays["const/coordinates"])[0, 0]
        yield check("const/coordinates", seen.grid(self.image), grid)

    def _gradients(self) -> Iterator[tuple[str, float, float]]:
        parameters = dict(self.model.named_parameters())
        for name in self.meta["var_names"]:
            ours = parameters[self.parameter_names[name]].grad
            assert ours is not None
            yield f"g/{name}", relative_error(ours, in_our_layout(self.arrays[f"g/{name}"])), GRADIENT_TOLERANCE

    def unchecked(self) -> set[str]:
        """Returns the activations of the fixture that the last :meth:`failures` did not look at."""
        kinds = {key.split("/", 1)[1] for key in self.arrays if key[0] == "t" and key[1].isdigit()}
        return kinds - {key.split("/", 1)[1] for key in self.checked}

    def failures_of_updates(self) -> list[str]:
        """Takes the four official optimizer steps on the fixture's image and noise."""
        model, (optimizer, schedule) = self.model, self._optimizer()
        problems = []
        for step in range(4):
            optimizer.zero_grad()
            loss, _ = model.loss(self.image, noise=self.noise)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), model.gradient_clip_norm)
            for key, ours in (("loss", loss), ("global_norm", norm)):
                error = relative_error(ours, as_tensor(self.arrays[f"adam/{key}_before_step"][step]))
                if not error <= 1e-4:
                    problems.append(f"{key} before step {step}: {error:.1e}")
            optimizer.step()
            schedule.step()
        parameters = dict(model.named_parameters())
        for name in self.meta["var_names"]:
            before = in_our_layout(self.arrays[f"w/{name}"])
            official = in_our_layout(self.arrays[f"adam/w_after_4_steps/{name}"]) - before
            error = relative_error(parameters[self.parameter_names[name]] - before, official)
            # A gain whose gradient nearly cancels moves by its rounding; torch's Adam is off by 2e-4 in the median.
            limit = 1e-4 + 10 * float(self.arrays["sens_grad_rel"][self.meta["var_names"].index(name)])
            if not error <= limit:
                problems.append(f"update of {name}: {error:.1e} > {limit:.1e}")
        return problems

    def _optimizer(self) -> tuple[Any, Any]:
        self.model.learning_rate = self.meta["learn_rate"]  # already scaled for the batch
        made = self.model.configure_optimizers()
        return made["optimizer"], made["lr_scheduler"]["scheduler"]


class _Recorder:
    """Watches the parts of a model during one forward pass."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.decoded: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: dict[str, list[Any]] = {}
        self._handles = [
            model.decoder.register_forward_hook(lambda _m, _i, out: self.decoded.append(out)),
            model.refinement.register_forward_pre_hook(lambda _m, args: self.inputs.append(args[0])),
            model.refinement.register_forward_hook(lambda _m, _i, out: self._note("update", out[0])),
        ]
        named = {"enc_out": model.refinement.mlp, "lstm": model.refinement.lstm}
        for key, module in named.items():
            if module is not None:
                hook = lambda _m, _i, out, key=key: self._note(key, out)  # noqa: E731
                self._handles.append(module.register_forward_hook(hook))

    def _note(self, key: str, out: Any) -> None:
        self.outputs.setdefault(key, []).append(out)

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def grid(self, image: Tensor) -> Tensor:
        from importlib import import_module

        module = import_module(type(self.model.refinement).__module__)
        kind, frequencies = self.model.refinement.coordinates, self.model.refinement.coordinate_frequencies
        return module.coordinate_grid(kind, frequencies, *image.shape[-2:])

    def at_step(self, t: int) -> dict[str, Tensor]:
        """Returns our values at one step under the fixture's names, reshaped by the caller."""
        inputs = self.inputs[t]

        def pixels_last(x: Tensor) -> Tensor:  # (B, K, C, H, W) to (BK, HW, C)
            return x.movedim(2, -1).flatten(0, 1).flatten(1, 2)

        values = {
            "zp": inputs.posterior,
            "raw/dzp": inputs.posterior_gradient,
            "raw/log_prob": inputs.log_likelihood.flatten(1).unsqueeze(-1),
            "raw/dmask": pixels_last(inputs.mask_gradient.unsqueeze(2)),
            "raw/dcomponents": pixels_last(inputs.mean_gradient),
            "raw/counterfactual": pixels_last(inputs.leave_one_out.unsqueeze(2)),
            "in/spatial/posterior": inputs.mask_posterior,
            "enc_out": self.outputs["enc_out"][t],
            "zp_update": self.outputs["update"][t],
        }
        network = self.model.refinement
        values |= {
            "in/spatial/dcomponents": network.norm_mean_gradient(inputs.mean_gradient.flatten(0, 1)),
            "in/spatial/dmask": network.norm_mask_gradient(inputs.mask_gradient.flatten(0, 1).unsqueeze(1)),
            "in/spatial/log_prob": network.norm_log_likelihood(inputs.log_likelihood.unsqueeze(1)),
            "in/spatial/counterfactual": network.norm_leave_one_out(inputs.leave_one_out.flatten(0, 1).unsqueeze(1)),
            "in/flat/dzp": network.norm_posterior_gradient(inputs.posterior_gradient.flatten(0, 1)),
        }
        if "lstm" in self.outputs:
            values["lstm_h"], values["lstm_c"] = self.outputs["lstm"][t]
        return values
