"""IODINE (Greff et al. 2019, arXiv:1903.00450): multi-object representation learning with iterative inference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_utilities.core.rank_zero import rank_zero_info
from numpy.typing import ArrayLike
from torch import Tensor, nn

from iodine_pl.autograd import differentiation_allowed, refuse_tracing, usable_in_graph
from iodine_pl.checkpoints.finding import find_weights
from iodine_pl.checkpoints.loading import model_in
from iodine_pl.decoder import SpatialBroadcastDecoder
from iodine_pl.distributions import Bernoulli, PixelDistribution, ScaleSchedule, make_distribution
from iodine_pl.engine import (
    Engine,
    Evaluation,
    Full,
    Networks,
    Recompute,
    State,
    Stopped,
    StoppedRecompute,
    step_weights,
)
from iodine_pl.errors import ImageError, require
from iodine_pl.graphs import Recordings
from iodine_pl.mixture import likelihood_of
from iodine_pl.networks import NETWORKS, Network
from iodine_pl.official.reading import read_official
from iodine_pl.posterior import PRIOR_SCALE, noise_for
from iodine_pl.refinement import RefinementNetwork
from iodine_pl.result import Decomposition, Trace
from iodine_pl.scene_model import Batch, SceneModel

__all__ = ["IODINE"]

_NO_GRAPH = (
    "a loss reached a field of the decomposition that has no graph under input_gradients='stopped' or recompute: "
    "call the model with graph=True, or take nll from its trace"
)


class IODINE(SceneModel):
    """Splits images into K slots, each described by a latent vector, by refining a posterior over T steps.

    The defaults are those of the released Tetrominoes network. :meth:`tetrominoes`, :meth:`multi_dsprites` and
    :meth:`clevr6` make the three official networks. Where the paper and the released code differ, the default follows
    the code (google-deepmind/deepmind-research, folder ``iodine``) and the argument's text says what the paper does.

    Args:
        network: official network that sets the arguments that are None: architecture, K, T, and the learning rate with
            its reference batch size (listed in :data:`iodine_pl.networks.NETWORKS`).
        num_slots: K in training; each call can take another.
        num_iterations: T, refinement steps; T + 1 states are decoded. Each call can take another.
        evaluation_iterations: T in evaluation mode (validation, test, prediction, after ``eval()``); None: as in
            training. A model that was trained with few steps keeps improving over more.
        latent_size: D, length of a slot's latent.
        image_channels: C.
        decoder_channels, decoder_kernel: hidden convolutions of the decoder.
        encoder_channels, encoder_kernel: stride-2 convolutions of the refinement network.
        mlp_sizes: MLP after their pooling over pixels.
        lstm_size: width of the LSTM, or 0 for none (Tetrominoes in the code; the paper always has one).
        head: ``residual``: the update is a linear function of the LSTM's output; ``predictor_corrector``: for sequences
            (see :class:`iodine_pl.layers.PredictorCorrectorHead`).
        coordinates, coordinate_frequencies: coordinate channels of the refinement network.
        pooling: of the convolutions' output: ``mean`` (paper, code) or ``cosine``, which keeps more of the positions
            (see :class:`iodine_pl.refinement.RefinementNetwork`).
        pixel_distribution: ``logistic`` (released code), ``gaussian`` (paper), ``bernoulli`` (binary images in {0, 1}),
            or a :class:`iodine_pl.distributions.PixelDistribution` of your own, which is not stored in checkpoints.
        pixel_scale: its scale; None means 0.03 for ``logistic`` (code) and sigma 0.1 for ``gaussian`` (paper). A dict
            from updates to scales, such as ``{0: 0.3, 1000: 0.5}``, is interpolated linearly in training; outside of
            training its last scale is used.
        pixel_likelihood: ``mixture`` (paper, code): p(x|z) mixes the slots' distributions at every pixel. ``mean``: one
            distribution about the mixed mean, sum_k m_k mu_k (see :class:`iodine_pl.mixture.MeanImage`).
        bounded_means: pass the slots' means through a sigmoid, so that they are in (0, 1); not in paper or code.
        channel_correlation: of the noise of any two channels with ``gaussian``, 0 <= r < 1. Above 0, color counts
            for more than brightness (see :class:`iodine_pl.distributions.CorrelatedGaussian`); 0 in paper and code.
        prior_scale: standard deviation of the prior; sqrt(ln 2) in the code, 1.0 in the paper.
        input_gradients: ``full``: the loss is differentiated through means, masks, mask logits and mask posterior where
            they are inputs of the refinement network (code). ``stopped``: not through these. The backward pass through
            the decoder is then done within each step, which takes less time and memory but is a different gradient.
        recompute: free the image-sized activations of each step and decode again in the backward pass: the same
            gradient in the memory of one step, for one more decoding per step (see docs/engine.md).
        compile_networks: run decoder and refinement network through ``torch.compile``; off by default (see
            docs/engine.md). ``torch.compile`` of the whole model has no effect.
        cuda_graphs: record the training loss with its gradients as one CUDA graph; off by default (see
            docs/engine.md). It has no effect on evaluation or on other devices.
        inner_batch_size: B in the 1/B of the loss inside the refinement loop. None: ``batch_size``; if that is None
            too, the number of images in the batch, as in the code. With a fixed number, an image is refined alike in
            any batch, on any number of devices.
        learning_rate: at the reference batch size; the paper has 3e-4.
        reference_batch_size: of the square-root rule.
        latent_constant: constant channel appended to each latent (code; not in the paper).
        capacity: constant input of the refinement network (code; not in the paper).
        mask_posterior_epsilon: added to the denominator of the mask posterior (code).
        norm_epsilon: of the layer norms.
        layer_norm, leave_out: for ablations of the refinement network's inputs (see
            :class:`iodine_pl.refinement.RefinementNetwork`).
        training: further arguments, of :class:`iodine_pl.SceneModel`.

    Raises:
        ValueError: for an unknown name or a number out of its range.
    """

    def __init__(
        self,
        # The networks
        network: Network = "tetrominoes",
        num_slots: int | None = None,
        num_iterations: int | None = None,
        evaluation_iterations: int | None = None,
        latent_size: int | None = None,
        image_channels: int = 3,
        decoder_channels: Sequence[int] | None = None,
        decoder_kernel: int | None = None,
        encoder_channels: Sequence[int] | None = None,
        encoder_kernel: int | None = None,
        mlp_sizes: Sequence[int] | None = None,
        lstm_size: int | None = None,
        head: Literal["residual", "predictor_corrector"] = "residual",
        coordinates: Literal["linear", "cosine"] | None = None,
        coordinate_frequencies: int = 3,
        pooling: Literal["mean", "cosine"] = "mean",
        # Likelihood and prior
        pixel_distribution: Literal["logistic", "gaussian", "bernoulli"] | PixelDistribution = "logistic",
        pixel_scale: float | dict[int, float] | None = None,
        pixel_likelihood: Literal["mixture", "mean"] = "mixture",
        bounded_means: bool = False,
        channel_correlation: float = 0.0,
        prior_scale: float = PRIOR_SCALE,
        # Computation and training
        input_gradients: Literal["full", "stopped"] = "full",
        recompute: bool = False,
        compile_networks: bool = False,
        cuda_graphs: bool = False,
        inner_batch_size: int | None = None,
        learning_rate: float | None = None,
        reference_batch_size: int | None = None,
        # Constants of the released code, and ablations
        latent_constant: float = 5.0,
        capacity: float = 0.5,
        mask_posterior_epsilon: float = 1e-6,
        norm_epsilon: float = 1e-5,
        layer_norm: bool = True,
        leave_out: Sequence[str] = (),
        **training: Any,
    ) -> None:
        if network not in NETWORKS:
            raise ValueError(f"network must be one of {', '.join(NETWORKS)}, got {network!r}")
        given = {
            "num_slots": num_slots,
            "num_iterations": num_iterations,
            "latent_size": latent_size,
            "decoder_channels": decoder_channels,
            "decoder_kernel": decoder_kernel,
            "encoder_channels": encoder_channels,
            "encoder_kernel": encoder_kernel,
            "mlp_sizes": mlp_sizes,
            "lstm_size": lstm_size,
            "coordinates": coordinates,
            "learning_rate": learning_rate,
            "reference_batch_size": reference_batch_size,
        }
        chosen = NETWORKS[network] | {name: value for name, value in given.items() if value is not None}
        rate, reference_batch = chosen["learning_rate"], chosen["reference_batch_size"]
        super().__init__(learning_rate=rate, reference_batch_size=reference_batch, **training)
        self.save_hyperparameters()
        self.hparams.update(chosen)  # a checkpoint holds the numbers themselves
        if not isinstance(pixel_distribution, str):
            self.hparams["pixel_distribution"] = type(pixel_distribution).__name__  # not stored: give it again
        counts = {name: chosen[name] for name in chosen if name not in ("lstm_size", "coordinates", "learning_rate")}
        require("at least 1", evaluation_iterations=evaluation_iterations, inner_batch_size=inner_batch_size, **counts)
        require("at least 1", image_channels=image_channels, coordinate_frequencies=coordinate_frequencies)
        require("not negative", lstm_size=chosen["lstm_size"], mask_posterior_epsilon=mask_posterior_epsilon)
        require("positive", prior_scale=prior_scale, norm_epsilon=norm_epsilon)
        if input_gradients not in ("full", "stopped"):
            raise ValueError(f"input_gradients must be 'full' or 'stopped', got {input_gradients!r}")
        if cuda_graphs and isinstance(pixel_scale, Mapping):
            raise ValueError(
                "cuda_graphs records one pixel scale: give pixel_scale as a number, or leave cuda_graphs out"
            )
        self.num_slots: int = chosen["num_slots"]
        self.num_iterations = chosen["num_iterations"]
        self.evaluation_iterations = evaluation_iterations
        self.inner_batch_size = inner_batch_size
        self.latent_size: int = chosen["latent_size"]
        self.image_channels = image_channels
        self.takes_sequences = True
        self.prior_scale = prior_scale
        self.mask_posterior_epsilon = mask_posterior_epsilon
        self.input_gradients = input_gradients
        self.recompute = recompute
        self.cuda_graphs = cuda_graphs
        self._recordings = Recordings()
        self.scale_schedule: ScaleSchedule | None = None
        if isinstance(pixel_scale, Mapping):
            self.scale_schedule = ScaleSchedule(pixel_scale)
            pixel_scale = self.scale_schedule.last
        self._make_distribution = partial(
            make_distribution, pixel_distribution, bounded=bounded_means, correlation=channel_correlation
        )
        self.distribution = self._make_distribution(pixel_scale)
        self.takes_gray = not isinstance(self.distribution, Bernoulli)
        self.likelihood = likelihood_of(pixel_likelihood, self.distribution)
        self.decoder = self.make_decoder(
            latent_size=self.latent_size,
            image_channels=image_channels,
            channels=chosen["decoder_channels"],
            kernel_size=chosen["decoder_kernel"],
            latent_constant=latent_constant,
        )
        self.refinement = self.make_refinement(
            latent_size=self.latent_size,
            image_channels=image_channels,
            channels=chosen["encoder_channels"],
            kernel_size=chosen["encoder_kernel"],
            mlp_sizes=chosen["mlp_sizes"],
            lstm_size=chosen["lstm_size"] or None,
            coordinates=chosen["coordinates"],
            coordinate_frequencies=coordinate_frequencies,
            pooling=pooling,
            capacity=capacity,
            norm_epsilon=norm_epsilon,
            layer_norm=layer_norm,
            leave_out=leave_out,
            head=head,
        )
        # One vector for all slots, which differ only by their samples. The range is Glorot's for a vector of 2D.
        limit = math.sqrt(3.0 / (2.0 * self.latent_size))
        self.initial_posterior = nn.Parameter(torch.empty(2 * self.latent_size).uniform_(-limit, limit))
        if compile_networks:
            self.decoder.compile()
            self.refinement.compile()
        self.to(memory_format=torch.channels_last)  # a third faster on CPU

    def make_decoder(self, **arguments: Any) -> nn.Module:
        """Makes the decoder; override it to use one of your own.

        Args:
            arguments: of :class:`iodine_pl.decoder.SpatialBroadcastDecoder`.

        Returns:
            A module that is a :class:`iodine_pl.decoder.Decoder`.
        """
        return SpatialBroadcastDecoder(**arguments)

    def make_refinement(self, **arguments: Any) -> RefinementNetwork:
        """Makes the refinement network from its ``arguments``; override it to use one of your own."""
        return RefinementNetwork(**arguments)

    def extra_repr(self) -> str:
        gradients = f"{self.input_gradients}{', recomputed' if self.recompute else ''}"
        return (
            f"K={self.num_slots}, T={self.num_iterations}, D={self.latent_size}, "
            f"likelihood={self.likelihood.__name__} of {self.distribution}, input_gradients={gradients}"
        )

    @classmethod
    def tetrominoes(cls, **arguments: Any) -> IODINE:
        """Makes the released Tetrominoes network (35x35, 199,568 parameters); ``arguments`` replace its own."""
        return cls(network="tetrominoes", **arguments)

    @classmethod
    def multi_dsprites(cls, **arguments: Any) -> IODINE:
        """Makes the released Multi-dSprites network (64x64, 339,152 parameters); ``arguments`` replace its own."""
        return cls(network="multi_dsprites", **arguments)

    @classmethod
    def clevr6(cls, **arguments: Any) -> IODINE:
        """Makes the released CLEVR6 network (128x128, 1,177,168 parameters); ``arguments`` replace its own."""
        return cls(network="clevr6", **arguments)

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, **arguments: Any) -> IODINE:
        """Loads a trained model, on the CPU, in evaluation mode.

        Args:
            name_or_path: weights that come with the package, such as ``tetrominoes`` (see
                :func:`iodine_pl.pretrained.available`); or any checkpoint of this model: its path, ``last`` or ``best``
                of the newest run, or an address ``https://...#sha256=HEX`` or ``hf://OWNER/REPOSITORY/FILE@REVISION``,
                which is downloaded once. No code in a checkpoint is run.
            arguments: replace those of the training, such as ``num_slots``.

        Raises:
            FileNotFoundError: if there are no such weights.
            ValueError: if an address has no digest, or the file is damaged or is not a checkpoint of a model.
            DownloadError: if the server does not send the file that has this digest, or the hub has no such file.
            ImportError: if an address of the hub needs the extra ``hub``.
            TypeError: if it is a checkpoint of another model.
            MisfitError: if the weights do not fit the arguments.
        """
        return model_in(find_weights(name_or_path), cls, **arguments)

    @classmethod
    def from_official(
        cls, source: str | Path | Mapping[str, ArrayLike], folder: str | None = None, **arguments: Any
    ) -> IODINE:
        """Loads a checkpoint of the reference code and prints what it contains.

        Args:
            source, folder: see :func:`iodine_pl.official.read_official`.
            arguments: replace those found in the checkpoint.

        Raises:
            FileNotFoundError, ValueError: as :func:`iodine_pl.official.read_official`.
        """
        official = read_official(source, folder, **arguments)
        model = cls(**official.arguments)
        model.load_state_dict(official.parameters)
        rank_zero_info(official.describe())
        return model

    def forward(
        self,
        batch: Batch | Tensor,
        num_slots: int | None = None,
        num_iterations: int | None = None,
        noise: Tensor | None = None,
        return_steps: bool = False,
        graph: bool = False,
    ) -> Decomposition:
        """Decomposes images by iterative inference (Algorithm 1 of the paper).

        Args:
            batch: images ``(B, C, H, W)``, uint8 or float in [0, 1], or a dict with them under ``image``. Or sequences
                ``(B, T+1, C, H, W)``: step t looks at frame t, and the decomposition is that of the last frame.
            num_slots: K, if not that of training.
            num_iterations: T >= 0, if not that of the mode, training or evaluation.
            noise: standard-normal numbers ``(T+1, B, K, D)`` for the samples of z; None: drawn here.
            return_steps: also return the decomposition at every refinement step.
            graph: give every returned field a graph to the parameters, where gradients are enabled. This is always so
                with ``input_gradients="full"`` and no ``recompute``. In the other modes only ``mean``, ``std``,
                ``latents``, ``kl`` and the trace's ``nll`` and ``kl`` have one; for the others each returned state is
                decoded again.

        Returns:
            The decomposition after the last step. In training mode a loss that reaches a field without a graph raises
            a RuntimeError in the backward pass.

        Raises:
            TypeError: if the images are not a uint8 or float tensor.
            ValueError: if a shape does not fit.
            RuntimeError: if the model is being exported or traced.
        """
        refuse_tracing(type(self).__name__, "Export the decoder alone: docs/use_it_elsewhere.md")
        images = self.images(batch)
        shape = self.noise_shape(len(images), num_slots, num_iterations)
        if images.ndim == 5 and images.shape[1] != shape[0]:
            raise ImageError(
                f"a sequence needs a frame for each of the T+1 = {shape[0]} states, got {images.shape[1]} frames: give "
                f"num_iterations={images.shape[1] - 1}"
            )
        if shape[0] < 1 or shape[2] < 1:
            raise ValueError(
                f"num_slots must be at least 1 and num_iterations at least 0, got {shape[2]} and {shape[0] - 1}"
            )
        noise = noise_for(images, shape, noise)
        result: Decomposition = self._infer(images, noise, return_steps, torch.is_grad_enabled(), graph)
        return result

    def loss(self, batch: Batch | Tensor, noise: Tensor | None = None) -> tuple[Tensor, Decomposition]:
        """Returns the training loss with its graph, and the decomposition after the last step without one.

        The loss is ``sum_t t/T (NLL_t + KL_t)`` over t = 0 .. T, averaged over the batch (equation 5, with the code's
        weights).
        """
        if not (self.cuda_graphs and torch.is_grad_enabled() and self._recordings.possible_on(self.device)):
            return self._loss(batch, noise)
        images = self.images(batch)
        noise = noise_for(images, self.noise_shape(len(images)), noise)
        return self._recordings.play(self._loss, self.parameters(), images, noise)

    def _loss(self, batch: Batch | Tensor, noise: Tensor | None) -> tuple[Tensor, Decomposition]:
        result = self(batch, noise=noise)
        return self.objective(result.trace), result.detach()

    def objective(self, trace: Trace) -> Tensor:
        """Returns the training loss from a trace, with its graph: see :meth:`loss`."""
        terms = (trace.nll + trace.kl.sum(dim=2)).mean(dim=1)  # (T+1,)
        return (step_weights(len(terms), like=terms) * terms).sum()

    def decode(self, latents: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Returns masks ``(B, K, H, W)`` and means ``(B, K, C, H, W)`` of latents ``(B, K, D)``."""
        decoded = self.decoder(latents, height, width)
        return decoded.mask_logits.softmax(dim=1), self.distribution.mean(decoded.parameters)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if self.scale_schedule is not None:
            scale = self.scale_schedule(self.global_step)
            self.distribution = self._make_distribution(scale)
            self.log("train/pixel_scale", scale)

    def noise_shape(
        self, batch_size: int, num_slots: int | None = None, num_iterations: int | None = None
    ) -> tuple[int, ...]:
        slots = self.num_slots if num_slots is None else num_slots
        iterations = self.iterations if num_iterations is None else num_iterations
        return (iterations + 1, batch_size, slots, self.latent_size)

    # torch.compile of the whole model cannot trace a gradient inside of it: see compile_networks.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _infer(
        self, images: Tensor, noise: Tensor, return_steps: bool, differentiable: bool, graph: bool
    ) -> Decomposition:
        """Runs Algorithm 1: T times decode a sample, differentiate the loss, refine; then decode once more."""
        steps: list[Decomposition] = []
        traces: list[Trace] = []
        with differentiation_allowed():
            images, noise = usable_in_graph(images), usable_in_graph(noise)
            states, batch, slots = noise.shape[:3]
            inner_batch = self.inner_batch_size or self.batch_size or batch
            engine = self._engine(differentiable)(self._networks(), images, noise, inner_batch)
            initial = self.initial_posterior.expand(batch, slots, -1)  # lambda, (B, K, 2D)
            state = State(initial.contiguous())  # for other strides the networks would be compiled again
            for t in range(states):
                view, state = engine.step(t, state)
                returned = return_steps or t == states - 1
                if graph and differentiable and returned and not engine.images_in_graph:
                    view = engine.decoded_again(t, view)
                step = view.decomposition() if returned else None
                trace = view.trace() if step is None else step.trace
                traces.append(trace if differentiable else trace.detach())  # else it would keep each step's activations
                if step is not None:
                    steps.append(step if differentiable else step.detach())
            trace = Trace(*(torch.cat(terms) for terms in zip(*traces, strict=True)))
            trace = trace._replace(nll=engine.enter_graph(trace.nll))
        last = steps[-1]._replace(nll=trace.nll[-1], trace=trace)
        result = last._replace(steps=tuple(steps)) if return_steps else last
        if differentiable and self.training:
            result = result.refusing_gradients(_NO_GRAPH)
        return result

    def _engine(self, differentiable: bool) -> type[Engine]:
        if not differentiable:
            return Evaluation
        if self.input_gradients == "stopped":
            return StoppedRecompute if self.recompute else Stopped
        return Recompute if self.recompute else Full

    def _networks(self) -> Networks:
        likelihood = partial(self.likelihood, distribution=self.distribution)
        return Networks(self.decoder, self.refinement, likelihood, self.prior_scale, self.mask_posterior_epsilon)
