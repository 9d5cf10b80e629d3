"""What the callbacks need of a LightningModule: a forward that is annotated to return a decomposition."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException

__all__ = ["decompose", "decomposed_mean", "decomposition_of", "require_fields"]


def require_fields(callback: pl.Callback, module: pl.LightningModule, *fields: str) -> None:
    """Checks that the module's ``forward`` is annotated with a return type that has these fields.

    Raises:
        MisconfigurationException: if not, before anything is run.
    """
    try:
        returned = get_type_hints(type(module).forward).get("return")
    except (NameError, TypeError):
        returned = None
    kinds = getattr(returned, "__mro__", ())
    declared = {name for kind in kinds for name in (*vars(kind), *inspect.get_annotations(kind))}
    missing = [name for name in fields if name not in declared]
    if missing:
        raise MisconfigurationException(
            f"{type(callback).__name__} needs a LightningModule whose forward(batch) is annotated to return an object "
            f"with the fields {', '.join(fields)}, like iodine_pl.Decomposition; {type(module).__name__}.forward is "
            f"annotated to return {returned!r}, without {', '.join(missing)}. Annotate it, or leave the callback out."
        )


def decomposition_of(module: pl.LightningModule, batch: Any, outputs: Any) -> Any:
    """Returns the step's decomposition; calls ``forward`` if the step did not return one."""
    return outputs if hasattr(outputs, "masks") else module(batch)


def decompose(module: pl.LightningModule, batch: Any, batch_idx: int, **options: Any) -> Any:
    """Decomposes a batch again, with options such as ``return_steps``, ``num_slots``, ``num_iterations`` and ``run``.

    A :class:`iodine_pl.SceneModel` keys its noise by the images' index. Without ``num_slots``, ``num_iterations`` and
    ``run`` the result is therefore the one that its validation, test or prediction step returned for this batch. For
    any other module, ``forward`` is called; ``return_steps`` is dropped if unsupported, other options raise.

    Args:
        module: the model.
        batch: the whole batch of the step.
        batch_idx: its position, which keys the noise where the batch has no ``index``.
        options: of the module's ``decompose``, or of its ``forward``.

    Raises:
        MisconfigurationException: if the module's ``forward`` takes no such option.
    """
    own = getattr(module, "decompose", None)
    if own is not None:
        return own(batch, batch_idx, **options)
    known = inspect.signature(module.forward).parameters
    given = {name: value for name, value in options.items() if name in known or name != "return_steps"}
    unknown = [name for name in given if name not in known]
    if unknown:
        raise MisconfigurationException(
            f"{type(module).__name__}.forward takes no {', '.join(unknown)}, which this experiment varies. Derive the "
            "module from iodine_pl.SceneModel, or leave the experiment out"
        )
    return module(batch, **given)


def decomposed_mean(module: pl.LightningModule, result: Any) -> Any:
    """Decodes the posterior's mean instead of the sample, which changes masks, means and reconstruction.

    Args:
        module: the model.
        result: its decomposition of a batch.

    Returns:
        ``result`` with these fields replaced; None if the module has no ``decode(latents, height, width)``.
    """
    decode = getattr(module, "decode", None)
    if decode is None:
        return None
    with torch.no_grad():
        masks, means = decode(result.mean, *result.reconstruction.shape[-2:])
    reconstruction = torch.einsum("bkhw,bkchw->bchw", masks, means)
    return result._replace(masks=masks, means=means, reconstruction=reconstruction)
