"""Measures the engine on a device: time, memory, operations, the largest batch, and numerical errors.

An update of each official network is measured in each arithmetic (see measured.Way) with the published gradient, with
the stopped one, and by plain autograd. Compiling takes long, so only the stopped one is compiled.

The rule for errors is that of flash-attention: compared with float64, the error of the fast code may be at most twice
that of the plain code in the same precision. Errors are relative norms, of the likelihoods of all steps and images and
of the gradient of all parameters, each as one vector.
"""

import statistics
import time

import torch
from gpu_recipes import TINY_NETWORK
from measured import SIZES, Measured, Way, rates_of_the_machine, synchronize

WAYS = {
    "fp32": Way(),
    "TF32": Way("TF32"),
    "bf16": Way("bf16"),
    "TF32, graphs": Way("TF32", graphs=True),
    "bf16, graphs": Way("bf16", graphs=True),
    "bf16, compiled": Way("bf16", compiled=True),
    "bf16, compiled, graphs": Way("bf16", compiled=True, graphs=True),
}
TINY_WAYS = ("fp32", "bf16, graphs")
MODES = ("plain", "full", "stopped")
BATCH = 32
LARGEST = 4096  # images in the largest batch to try
PATIENCE = 4.0  # seconds of an update at which no larger batch is tried
TOLERANCE = 2.0
COMPARED_PIXELS = 4 * 64 * 64  # of the images whose errors are compared; on one small image chance decides the ratio


def ways(device: str, tiny: bool) -> list[str]:
    """Returns the names of the ways to measure on a device; a CPU has no TF32."""
    return [name for name in (TINY_WAYS if tiny else WAYS) if device == "cuda" or WAYS[name].precision != "TF32"]


def engine(network: str, way: str, device: str, tiny: bool) -> dict:
    """Returns the rows of one network in one way, by mode, and the ceilings of the device."""
    size, batch = (9, 2) if tiny else (SIZES[network], BATCH)
    ceilings = rates_of_the_machine(network, batch, size, device, WAYS[way], 64 if tiny else None)
    rows = {}
    for mode in ("stopped",) if WAYS[way].transformed else MODES:
        rows[mode] = _row(network, WAYS[way], mode, size, batch, device, tiny)
        share = rows[mode]["operations"] / rows[mode]["seconds"] if rows[mode]["seconds"] else None
        rows[mode] |= {f"of the {name}": share and share / rate for name, rate in ceilings.items()}
    return {"batch": batch, "size": size, "ceilings": ceilings, "rows": rows}


def _row(network: str, way: Way, mode: str, size: int, batch: int, device: str, tiny: bool) -> dict:
    small = TINY_NETWORK if tiny else {}
    errors = {} if mode == "plain" else agreement(network, way, mode, size, device, **small)
    measured = Measured(network, batch, size, device, way, mode, **small)
    how = ("train", measured.model.num_iterations, measured.model.num_slots)
    try:
        times = [second for _ in range(1 if tiny else 5) for second in measured.seconds(*how)]
        peak = measured.peak_bytes(*how)
    except torch.cuda.OutOfMemoryError:
        return {"seconds": None, "operations": None, "peak_bytes": None, "largest_batch": ""} | errors
    counted = Measured(
        network, batch, size, device, Way(way.precision), mode, **small
    )  # the compiler's products have no names
    return {
        "seconds": statistics.median(times),
        "images_per_second": batch / statistics.median(times),
        "peak_bytes": peak,
        "operations": counted.operations(*how),
        "largest_batch": "" if way.transformed else _largest_batch(measured, how, 2 * batch if tiny else LARGEST),
    } | errors


def _largest_batch(measured: Measured, how: tuple, most: int) -> str:
    """Returns the largest batch whose update fits into memory, by doubling the measured one.

    If none failed before updates became long, the result says that more may fit.
    """
    fits, took = len(measured.images), 0.0
    try:
        while fits < most and took < PATIENCE:
            measured.images = torch.rand(2 * fits, *measured.images.shape[1:], device=measured.device)
            start = time.perf_counter()
            measured.run(*how)
            took, fits = time.perf_counter() - start, 2 * fits
    except torch.cuda.OutOfMemoryError:
        return str(fits)
    finally:
        measured.release()
    return f"{fits} or more"


def agreement(network: str, way: Way, mode: str, size: int, device: str, **small: object) -> dict:
    """Returns the errors of a mode and of plain autograd in this way, both compared with float64 on the CPU."""
    batch = min(BATCH, max(1, COMPARED_PIXELS // size**2))
    plainly = small | ({"input_gradients": "stopped"} if mode == "stopped" else {})
    measure = _numbers(Measured(network, batch, size, "cpu", Way(), "plain", **plainly), torch.float64)
    plain = _numbers(Measured(network, batch, size, device, Way(way.precision), "plain", **plainly))
    fast = _numbers(Measured(network, batch, size, device, way, mode, **small))
    errors = {}
    for name, exact in measure.items():
        of_plain, of_fast = (float((each[name] - exact).norm() / exact.norm()) for each in (plain, fast))
        errors[f"error of the {name}"] = {"fast": of_fast, "plain": of_plain, "holds": of_fast <= TOLERANCE * of_plain}
    return errors


def _numbers(measured: Measured, dtype: torch.dtype = torch.float32) -> dict:
    """Returns likelihoods and gradient of a model's first update, in float64 on the CPU."""
    model = measured.model.to(dtype)
    torch.manual_seed(1)  # drawn on the CPU for every device
    batch, *shape = measured.images.shape
    images = torch.rand(batch, *shape).to(measured.device, dtype)
    noise = torch.randn(model.noise_shape(batch)).to(measured.device, dtype)
    with measured.way.chosen():
        with measured.way.autocast(measured.device):
            loss, result = model.loss(images, noise=noise)
        loss.backward()
        synchronize(measured.device)
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    return {"likelihood": result.trace.nll.detach().cpu().double(), "gradient": gradient.cpu().double()}
