"""ChartAtlasFlow: an atlas of local flows over a vector-quantised embedding."""

from dataclasses import replace
from numbers import Integral, Real

import numpy as np
import torch
from scipy.special import softmax
from sklearn.utils import check_array, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from .._base import BaseManifoldFlow
from .._checks import DTYPES, as_array, check_image_shape
from .._columns import dequantization_step
from .._dimension import spectral_dimension
from .._geometry import affordable_rows, noise_variance_read
from .._linear import principal_axes
from .._mixture_of_pca import (
    MAX_COMPLETE_FEATURES,
    best_number_of_charts,
    fit_mixture,
    partition,
    spread_rows,
)
from ..backend.device import make_generator, move, standard_context, to_host
from ..backend.flow import chunks
from ..backend.geometry import jacobian_columns
from ..backend.training import TrainingSettings, train
from .build import ChartAtlasConfig, build_flow
from .objective import AtlasLikelihood
from .quantization import Quantization
from .quantizer import k_means_plus_plus

__all__ = ["ChartAtlasFlow"]

# Numbers of charts that are tried beside the one of the mixture.
_FEW_CHARTS = (8, 12, 16)
# Rows of a cell when the dimension of the rows is estimated before there are charts.
_ROWS_PER_CELL = 50
# Rows of a chart, and matrix entries, that reading its geometry may cost.
_MAX_GEOMETRY_ROWS = 32
_MAX_GEOMETRY_ENTRIES = 2**18
_MAX_INITIAL_ROWS = 20_000
# Training of the quantiser.
_QUANTIZER_EPOCHS = 30
_QUANTIZER_RATE = 3e-3
_QUANTIZER_STEPS = 2000
# Of images, whose steps cost much more: the codes start as principal components in any case.
_QUANTIZER_IMAGE_STEPS = 600
# Rows that show which chart is where.
_MAX_COMPARED_ROWS = 4096
# Charts and length of the code of images; how many of them layers and charts start from.
_N_IMAGE_CHARTS = 32
_N_IMAGE_COMPONENTS = 16
_MAX_INITIAL_IMAGES = 512
_MAX_CHART_IMAGES = 4096


class ChartAtlasFlow(BaseManifoldFlow):
    r"""Atlas of local flows above a vector-quantised embedding, for data of any topology.

    One flow cannot map a ball onto two spheres, a torus or linked circles. An atlas covers the rows
    with charts, each of which has a bijection f_k to a standard normal distribution q [1]_. The
    density is the sum over all of them,

    .. math:: p(x) = \sum_k p_k p(x | k), \quad p(x | k) = |\det J_{f_k}(x)| \, q(f_k(x)).

    The charts are found by a vector-quantised autoencoder, whose code is the embedding of all rows:
    `transform` encodes, `inverse_transform` decodes. Each chart has a frame, the mean and principal
    axes of its rows, in which one conditional flow, told which chart it is, serves all charts. At
    the start that flow is the identity, and the model is a mixture of probabilistic PCAs.

    Parameters
    ----------
    n_components : int or None, default=None
        Length of a code. None takes 2 d + 1, at most the number of columns, with d the dimension
        that small cells of the rows show: any manifold of dimension d embeds in so many dimensions
        (Whitney), closed ones in no fewer than d + 1. 16 for images.
    n_charts : int or None, default=None
        Number of charts K. None fits several partitions of the rows into charts, each with a flow
        of its own: one with as many charts as the normal mixture of the best Bayesian information
        criterion has components, and others with 8, 12 and 16. Their densities are averaged with
        the weights that are best on validation rows; their errors are independent, so the average
        is better than the best of them. For clusters, give their number. None is 32 for images.
    flow : {"autoregressive", "spline", "affine", "additive"}, default="autoregressive"
        Kind of layer. In the frame of a chart the rows are the graph of a function of the leading
        coordinates, with normal noise: an affine autoregressive layer is of that form. Images take
        affine couplings whatever is asked for.
    n_layers : int, default=4
        Number of layers; with `image_shape`, steps of GLOW per scale.
    hidden_layer_sizes : int or tuple of int, default=(64, 64)
        Hidden layers of the network of each layer, and of encoder and decoder. With `image_shape`
        the first entry is the number of hidden channels.
    image_shape : tuple of int or None, default=None
        (C, H, W) of rows that are flattened images, channel by channel. Autoencoder and layers are
        then convolutional, and pixels of a channel are standardised alike. The frames stand between
        the flow and the normal distribution.
    chart_map : {"ambient", "conformal"}, default="ambient"
        "ambient" flows have as many coordinates as there are columns. "conformal" charts are planes
        or spheres, bent flat by a Moebius map of the whole space, with a flow of the coordinates
        along them and normal noise across ([1]_, [2]_): fewer parameters and an exact noise, but
        many small charts are needed.
    quantizer : {"vq-ae", "kmeans"}, default="vq-ae"
        "vq-ae" trains encoder, decoder and codebook; "kmeans" takes principal axes and cells of
        k-means.
    n_neighbors_charts : int or None, default=None
        Row x lies in chart k if its code is nearer to the centre of k than 1 + `overlap` times its
        distance from the centre this many places from the nearest ([1]_, m). None is 2 for
        curves and images and 3 for all else: where cells of dimension d meet, d + 1 of them do.
    overlap : float, default=0.1
        How far charts reach beyond that ([1]_, epsilon).
    objective : {"sum", "sampled"}, default="sum"
        What is maximised in training: the sum over the charts that a row lies in, or the density of
        one of these, drawn by their weights, as [1]_ has it; that is a lower bound and faster.
    noise_start : float or None, default=None
        Standard deviation of the noise added to training rows at first, in standardised units. It
        falls to `noise_floor` over the first half of the training. None is `noise_floor`.
    noise_floor : float, default=0.001
        Standard deviation of the noise that is added to training rows in the end, and the least one
        of a chart at the start, in standardised units. It bounds the likelihood on exact manifolds.
    bounded : tuple of two floats or None, default=None
        Interval (low, high) that contains every value of X; the density is zero outside. With
        `dequantize` it must reach to the largest value plus its step.
    dequantize : bool, default=False
        Add U[0, step) to the training rows, anew in every epoch, step being the spacing of the
        values of each column, or of all pixels. For integers and other data with ties. The model is
        then one of X + U: rows that are scored are taken as they are given, so score X + step / 2,
        or X + U, and round samples down.
    max_iter : int, default=60
        Largest number of epochs. Whatever it is, training ends after 20 000 gradient steps.
    batch_size : int or "auto", default="auto"
        Rows of a gradient step; by default a twentieth of them, between 64 and 512, or 32 images.
    learning_rate_init : float, default=5e-3
        Peak of the one-cycle learning rate.
    weight_decay : float, default=0.1
        Decoupled weight decay of the networks.
    early_stopping : bool or "auto", default="auto"
        Whether rows are set aside to choose the best weights, to weigh partitions and to stop.
        "auto" does so from 40 rows on; with fewer nothing is trained and a table has its start.
    validation_fraction : float, default=0.1
        Share of the rows set aside, at least 10 rows.
    n_iter_no_change : int, default=20
        Epochs without an improvement by `tol` that end the training.
    tol : float, default=1e-4
        Smallest improvement, in nats per row.
    n_init : int, default=1
        Number of fits from different partitions and weights; the one with the best validation score
        is kept.
    warm_start : bool, default=False
        Start from the weights of the previous fit if the parameters that shape the model and the
        number of columns are the same; `n_init` is then ignored.
    device : str or torch.device, default="auto"
        "auto" (CUDA if present, else CPU), "cpu", "cuda", "cuda:<index>" or "mps". MPS has no
        float64, so results there have float32 accuracy.
    random_state : int, RandomState instance or None, default=None
        Source of partitions, initial weights, noise and validation rows.
    verbose : int, default=0
        If positive, print a line per epoch: epoch of how many, score, and the time elapsed and at
        most left. The model does not depend on it.

    Attributes
    ----------
    n_components_ : int
        Length of a code.
    n_charts_ : int
        Number of charts of all partitions.
    chart_weights_ : ndarray of shape (`n_charts_`,)
        p_k, which sum to 1.
    chart_centers_ : ndarray of shape (`n_charts_`, `n_features_in_`)
        Means of the frames in data units; for images those of the rows of each chart.
    codebook_ : ndarray of shape (`n_charts_`, `n_components_`)
        Centres of the charts in the embedding ([1]_, v_k).
    chart_dimensions_ : ndarray of int of shape (`n_charts_`,)
        Dimension of each chart: the number of eigenvalues of J J', J the Jacobian of the inverse of
        f_k, before their widest gap on a log scale, as geometric means over some rows of the chart.
        Beyond 64 columns that of its frame at the start.
    intrinsic_dimension_ : int
        Dimension of the charts with the largest total weight.
    n_iter_ : int
        Epochs run.
    loss_curve_ : list of float
        Mean training loss of each epoch, averaged over partitions, in nats per standardised row.
    validation_scores_ : list of float
        Mean log-likelihood of the validation rows after each epoch, in nats per standardised row;
        empty where none were set aside.
    device_ : str
        Where the model computes.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if X had any.

    See Also
    --------
    NoisyInjectiveFlow : One flow for all rows; the better choice for sheets without holes.
    sklearn.mixture.GaussianMixture : Charts that do not bend.

    Notes
    -----
    `score_samples` sums over all charts, since flows that were trained on the rows of a chart reach
    beyond it; in training the sum runs over the charts that contain a row, and over the one that
    accounts for it at the start. Charts are weighted by expectation maximisation.

    The principal axes of a frame have signs such that the third moment along each is positive: all
    bent charts then bend to the same side, and what the flow learns of one holds for the others.

    The volume term of conformal charts has exponent d, not 1 as in eq. 5 of [1]_. Several special
    conformal maps in a row are one, so each chart has one.

    References
    ----------
    .. [1] Sidheekh, S., Dock, C. B., Jain, T., Balan, R., Singh, M. K. "VQ-Flows: Vector Quantized
       Local Normalizing Flows". UAI 2022. arXiv:2203.11556.
    .. [2] Ross, B. L., Cresswell, J. C. "Tractable Density Estimation on Learned Manifolds with
       Conformal Embedding Flows". NeurIPS 2021. arXiv:2106.05275.
    .. [3] Papamakarios, G., Pavlakou, T., Murray, I. "Masked Autoregressive Flow for Density
       Estimation". NeurIPS 2017. arXiv:1705.07057.

    Examples
    --------
    >>> from skmanifoldflow import ChartAtlasFlow
    >>> from skmanifoldflow.datasets import LinkedCircles
    >>> X, _ = LinkedCircles(noise=0.05).sample(500, random_state=0)
    >>> model = ChartAtlasFlow(n_charts=8, max_iter=5, random_state=0).fit(X)
    >>> model.predict_proba(X).shape
    (500, 8)
    >>> Z, charts = model.chart_transform(X)
    >>> model.chart_inverse_transform(Z, charts).shape
    (500, 3)
    """

    _parameter_constraints: dict = {
        **BaseManifoldFlow._parameter_constraints,
        "n_charts": [Interval(Integral, 1, None, closed="left"), None],
        "flow": [StrOptions({"spline", "affine", "additive", "autoregressive"})],
        "image_shape": [tuple, list, None],
        "chart_map": [StrOptions({"ambient", "conformal"})],
        "quantizer": [StrOptions({"vq-ae", "kmeans"})],
        "n_neighbors_charts": [Interval(Integral, 1, None, closed="left"), None],
        "overlap": [Interval(Real, 0, None, closed="left")],
        "objective": [StrOptions({"sum", "sampled"})],
        "noise_start": [Interval(Real, 0, None, closed="neither"), None],
    }

    def __init__(
        self,
        n_components=None,
        *,
        n_charts=None,
        flow="autoregressive",
        n_layers=4,
        hidden_layer_sizes=(64, 64),
        image_shape=None,
        chart_map="ambient",
        quantizer="vq-ae",
        n_neighbors_charts=None,
        overlap=0.1,
        objective="sum",
        noise_start=None,
        noise_floor=0.001,
        bounded=None,
        dequantize=False,
        max_iter=60,
        batch_size="auto",
        learning_rate_init=5e-3,
        weight_decay=0.1,
        early_stopping="auto",
        validation_fraction=0.1,
        n_iter_no_change=20,
        tol=1e-4,
        n_init=1,
        warm_start=False,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.n_components = n_components
        self.n_charts = n_charts
        self.flow = flow
        self.n_layers = n_layers
        self.hidden_layer_sizes = hidden_layer_sizes
        self.image_shape = image_shape
        self.chart_map = chart_map
        self.quantizer = quantizer
        self.n_neighbors_charts = n_neighbors_charts
        self.overlap = overlap
        self.objective = objective
        self.noise_start = noise_start
        self.noise_floor = noise_floor
        self.bounded = bounded
        self.dequantize = dequantize
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.weight_decay = weight_decay
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.n_init = n_init
        self.warm_start = warm_start
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    _config_type = ChartAtlasConfig

    def _check_method_parameters(self, n_features):
        if self.image_shape is not None:
            check_image_shape(self, n_features)
            if len(self._layer_sizes()) == 0:
                raise ValueError("image_shape needs hidden_layer_sizes to hold at least one size.")
            if self.chart_map == "conformal":
                raise ValueError("chart_map='conformal' has no image_shape: use 'ambient'.")
        if self.chart_map == "conformal" and not 2 <= n_features <= MAX_COMPLETE_FEATURES:
            raise ValueError(
                f"chart_map='conformal' needs 2 to {MAX_COMPLETE_FEATURES} features, got "
                f"n_features={n_features}."
            )

    def _auto_batch_size(self, n_samples, n_features):
        if self.image_shape is not None:
            return 32
        return max(64, min(512, n_samples // 20))

    def _choices(self, n_features):
        n_components = self.n_components
        if n_components is None and self.image_shape is not None:
            n_components = min(_N_IMAGE_COMPONENTS, n_features)
        n_neighbors = self.n_neighbors_charts
        if n_neighbors is None and self.image_shape is not None:
            # Each further chart of an image costs as much as the first one.
            n_neighbors = 2
        return ChartAtlasConfig(
            n_features=n_features,
            n_layers=self.n_layers,
            hidden_layer_sizes=self._layer_sizes(),
            flow=None if self.image_shape is not None else self.flow,
            image_shape=self._image_shape(),
            bounded=self.bounded,
            n_components=n_components,
            n_charts=None if self.n_charts is None else (int(self.n_charts),),
            n_neighbors=n_neighbors,
            chart_map=self.chart_map,
            quantizer=self.quantizer,
            overlap=self.overlap,
        )

    def _read_rows(self, choices, raw):
        n_trained = len(raw) - self._n_validation(len(raw))
        if self.n_charts is not None:
            self._check_number_of_charts(self.n_charts, n_trained)
        if choices.image_shape is not None:
            n_charts = max(1, min(_N_IMAGE_CHARTS, n_trained // _ROWS_PER_CELL))
            return replace(choices, n_charts=choices.n_charts or (n_charts,))
        if self.dequantize:
            # Values that are repeated would look like charts.
            step = dequantization_step(self, raw, False, np.finfo(self._dtype).eps)
            raw = raw + step * torch.rand(raw.shape, dtype=raw.dtype, generator=make_generator(0))
        rows = self._new_standardizer(choices).fit(raw).forward_and_log_det(raw)[0].numpy()
        d, n_features = self._rough_dimension(rows), choices.n_features
        return replace(
            choices,
            n_charts=choices.n_charts or self._numbers_of_charts(rows, n_trained),
            n_flat=min(d, n_features - 1),
            # Whitney: any manifold of dimension d embeds in 2 d + 1 dimensions.
            n_components=choices.n_components or min(n_features, 2 * d + 1),
            # Where cells of dimension d meet, d + 1 of them do; few of these hold much of a row.
            n_neighbors=choices.n_neighbors or min(d, 2) + 1,
        )

    @staticmethod
    def _check_number_of_charts(n_charts, n_rows):
        if n_charts > n_rows:
            raise ValueError(
                f"n_charts={n_charts} must be at most the number of rows that are trained on, "
                f"{n_rows}."
            )

    def _numbers_of_charts(self, rows, n_trained):
        """Return the number of charts of each partition."""
        numbers = {best_number_of_charts(rows, self.noise_floor)}
        numbers |= {k for k in _FEW_CHARTS if k * (rows.shape[1] + 1) <= n_trained / 2}
        return tuple(sorted(numbers))

    def _rough_dimension(self, rows):
        """Return the dimension of rows before there are charts, from the spectra of small cells."""
        rows = spread_rows(rows, _MAX_INITIAL_ROWS)
        n_cells = max(1, min(64, len(rows) // max(_ROWS_PER_CELL, 2 * rows.shape[1])))
        cells, _ = partition(rows, n_cells)
        mixture, _ = fit_mixture(rows, cells, n_cells, self.noise_floor)
        spectrum = np.exp(2 * (mixture.weights @ np.log(mixture.scales)) / mixture.weights.sum())
        return int(spectral_dimension(spectrum, noise_variance_read(self.noise_floor)))

    @staticmethod
    def _build_flow(config, generator):
        return build_flow(config, generator)

    def _make_objective(self, flow, rows, generator, is_warm):
        is_trained = any(p.requires_grad for p in flow.parameters())
        if not is_warm:
            self._initialize_quantizer(flow.quantizer, rows, is_trained, generator)
            self._initialize_charts(flow, rows, generator)
        flow.quantizer.requires_grad_(False)
        return AtlasLikelihood(
            flow,
            objective=self.objective,
            noise_start=self.noise_floor if self.noise_start is None else self.noise_start,
            noise_floor=self.noise_floor,
            n_batches=max(1, len(rows) // self._batch_size(len(rows), rows.shape[1])),
            generator=generator,
        )

    def _initialize_quantizer(self, quantizer, rows, is_trained, generator):
        """Train the autoencoder and its codebook, or take principal axes alone."""
        mean, axes, _ = principal_axes(rows.numpy())
        axes = axes[:, : quantizer.codebook.shape[1]].copy()
        quantizer.autoencoder.initialize(torch.tensor(mean), torch.tensor(axes))
        x = rows.to(quantizer.codebook)
        n_codes = len(quantizer.codebook)
        with torch.no_grad():
            quantizer.codebook.copy_(k_means_plus_plus(quantizer.encode(x), n_codes, generator))
        if is_trained and self.quantizer == "vq-ae" and n_codes > 1:
            settings = TrainingSettings(
                max_iter=_QUANTIZER_EPOCHS,
                max_steps=_QUANTIZER_STEPS if self.image_shape is None else _QUANTIZER_IMAGE_STEPS,
                batch_size=self._batch_size(len(rows), rows.shape[1]),
                learning_rate=_QUANTIZER_RATE,
                weight_decay=0.0,
                n_iter_no_change=_QUANTIZER_EPOCHS,
                tol=0.0,
            )
            train(Quantization(quantizer), lambda: x, None, settings, generator)
        with torch.no_grad():
            codes = to_host(quantizer.encode(x)).numpy()
        quantizer.turn(torch.tensor(principal_axes(codes)[1]))

    def _initialize_charts(self, flow, rows, generator):
        """Start the charts at mixtures of probabilistic PCAs, from the cells of codebooks."""
        quantizer = flow.quantizer
        x = rows[: _MAX_INITIAL_ROWS if self.image_shape is None else _MAX_CHART_IMAGES]
        with torch.no_grad():
            codes = quantizer.encode(x.to(quantizer.codebook))
        if self.image_shape is not None:
            x = self._initialize_image_flow(flow.partitions[0], x)
        code_mean, code_scale = codes.mean(0), codes.std(0).clamp_min(1e-6)
        for part, own in zip(flow.partitions, flow.slices, strict=True):
            # The codebook is that of all partitions: of several each needs one of its own.
            is_only = len(flow.partitions) == 1
            seed = int(torch.randint(2**31, (), generator=generator))
            init = quantizer.codebook.cpu().numpy() if is_only else "k-means++"
            cells, entries = partition(codes.cpu().numpy(), part.n_charts, seed, init)
            entries = torch.tensor(entries).to(codes)
            if part.chart_map.frames_last:
                shares = np.eye(part.n_charts)[cells]
                part.chart_map.frames.fit(x, torch.tensor(cells).long(), self.noise_floor)
                weights = torch.tensor((shares.sum(0) + 0.5) / (len(x) + 0.5 * part.n_charts))
            else:
                mixture, shares = fit_mixture(x.numpy(), cells, part.n_charts, self.noise_floor)
                weights, *frame = map(torch.tensor, mixture)
                part.chart_map.frames.set(*frame)
            flow.weights[own] = weights.to(flow.weights) / len(flow.partitions)
            # The charts have moved, and so have their centres.
            shares = torch.tensor(shares).to(codes)
            total = shares.sum(0)[:, None]
            entries = torch.where(total > 0, shares.T @ codes / total.clamp_min(1e-12), entries)
            quantizer.codebook[own] = entries
            quantizer.occupancy[own] = shares.mean(0) / len(flow.partitions)
            log_scale = part.chart_map.frames.scale.log()
            known = [(entries - code_mean) / code_scale, log_scale - log_scale.mean(0)]
            part.descriptors.copy_(torch.cat(known, dim=1))

    @staticmethod
    @torch.no_grad()
    def _initialize_image_flow(part, rows):
        """Start the layers from images; return these mapped, which is the same in all charts."""
        bijection, like = part.chart_map.bijection, part.embedding
        # On the CPU, where there is float64 in any case.
        move(bijection, torch.device("cpu"), torch.float64)
        bijection.initialize(rows[:_MAX_INITIAL_IMAGES])
        bijection.to(like)
        charts = torch.zeros(_MAX_INITIAL_IMAGES, dtype=torch.long, device=like.device)
        mapped = [
            part.to_latent(images.to(like), charts[: len(images)])[0].cpu()
            for images in rows.split(_MAX_INITIAL_IMAGES)
        ]
        return torch.cat(mapped).double()

    def _finish(self, restart, rows):
        flow = self._flow
        means = torch.cat([part.chart_map.frames.mean for part in flow.partitions])
        if self.image_shape is not None:
            # There the frames are beyond the flow.
            charts = torch.arange(flow.n_charts, device=means.device)
            with torch.no_grad():
                means = flow.from_latent(torch.zeros_like(means), charts)
        self.n_components_ = flow.n_components
        self.n_charts_ = flow.n_charts
        flow.weights /= flow.weights.sum()
        self.chart_weights_ = to_host(flow.weights).numpy()
        self.chart_weights_ /= self.chart_weights_.sum()
        self.codebook_ = to_host(flow.quantizer.codebook).numpy()
        self.chart_centers_ = self._from_flow(means).numpy()
        self.chart_dimensions_ = self._read_dimensions(flow, rows)
        flow.dimensions.copy_(torch.tensor(self.chart_dimensions_))
        shares = np.bincount(self.chart_dimensions_, weights=self.chart_weights_)
        self.intrinsic_dimension_ = int(shares.argmax())

    def _read_dimensions(self, flow, rows):
        """Return the dimension of each chart, from the spectra of its map at some of its rows."""
        if self.chart_map == "conformal":
            return np.full(flow.n_charts, self._config.n_flat)
        if self.image_shape is not None:
            # Jacobians of images cost too much: axes of the latents that stand out from the rest.
            frames = flow.partitions[0].chart_map.frames
            squares = to_host(torch.cat([frames.scale, frames.rest], dim=1)).square().numpy()
            return np.array([spectral_dimension(s[:-1], s[-1] / 2) for s in squares])
        n_features = rows.shape[1]
        scales = torch.cat([part.chart_map.frames.scale for part in flow.partitions])
        spectra = to_host(scales).square().numpy()
        if n_features <= MAX_COMPLETE_FEATURES:
            n_rows = affordable_rows(n_features**2, _MAX_GEOMETRY_ROWS, _MAX_GEOMETRY_ENTRIES)
            x = spread_rows(rows, _MAX_COMPARED_ROWS)
            with torch.no_grad():
                charts = torch.cat(
                    [flow.log_joint_of_all(x[chunk]).argmax(1) for chunk in chunks(len(x), 64)]
                )
            directions = torch.eye(n_features, **flow.tensor_options)
            for k in charts.unique().tolist():
                mine = x[charts == k][:n_rows]
                chart = torch.full((len(mine),), k, device=mine.device)
                _, jacobian = jacobian_columns(
                    lambda x, chart=chart: flow.to_latent(x, chart), mine, directions
                )
                # Of the map to the normal distribution: the covariance is that of its inverse.
                stretch = torch.linalg.svdvals(to_host(jacobian))
                spectra[k] = stretch.flip(1).square().log().mean(0).neg().exp().numpy()
        return spectral_dimension(spectra, noise_variance_read(self.noise_floor))

    # ------------------------------------------------------------------ inference

    def _log_joint(self, X):
        """Return the logarithm of p_k p(x|k) of standardised rows, shape (n, K)."""

        def log_joint(flow, rows):
            return flow.log_joint_of_all(self._to_flow(flow, rows)[0])

        return self._per_chunk(X, log_joint, X.dtype, max(X.shape[1], self.n_charts_))

    @standard_context()
    def predict_proba(self, X):
        """Probability of each chart given rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, `n_charts_`)
            p(k|x), proportional to p_k p(x|k); rows sum to 1.
        """
        return self._predict_proba(self._check_rows(X))

    def _predict_proba(self, X):
        log_joint = self._log_joint(X).astype(np.float64)
        # Where no chart has any density left the weights alone decide.
        is_lost = ~np.isfinite(log_joint).any(axis=1)
        log_joint[is_lost] = np.log(self.chart_weights_)
        return softmax(np.nan_to_num(log_joint, nan=-np.inf, posinf=np.inf), axis=1)

    def predict(self, X):
        """Most probable chart of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        charts : ndarray of int of shape (n_samples,)
            Index of the chart, from 0 to `n_charts_` - 1.
        """
        return self.predict_proba(X).argmax(axis=1)

    @standard_context()
    def chart_transform(self, X, charts=None):
        """Coordinates of rows in the base space of charts.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        charts : array-like of int of shape (n_samples,), default=None
            Chart of each row; None takes the most probable one.

        Returns
        -------
        Z : ndarray of shape (n_samples, `n_features_in_`)
            f_k(x), standard normal under the model. The coordinates along the chart come first,
            as many as `chart_dimensions_` says, except for images.
        charts : ndarray of int of shape (n_samples,)
            Chart of each row.
        """
        X = self._check_rows(X)
        if charts is None:
            charts = self._predict_proba(X).argmax(axis=1)
        else:
            charts = self._check_charts(charts, len(X))
        return self._chart_transform(X, charts), charts

    def _chart_transform(self, X, charts):
        def to_latent(flow, rows):
            x, of_rows = self._to_flow(flow, rows[:, :-1])[0], rows[:, -1].long()
            return flow.to_latent(x, of_rows.to(x.device))

        # float64 holds every index of a chart that there can be.
        pairs = np.column_stack([X.astype(np.float64), charts])
        return self._per_chunk(pairs, to_latent, X.dtype, X.shape[1])

    @standard_context()
    def chart_inverse_transform(self, Z, charts):
        """Rows that have given coordinates in given charts: the inverse of `chart_transform`.

        Parameters
        ----------
        Z : array-like of shape (n_samples, `n_features_in_`)
            Coordinates in the base space.
        charts : array-like of int of shape (n_samples,)
            Chart of each row.

        Returns
        -------
        X : ndarray of shape (n_samples, `n_features_in_`)
            Rows in data units.
        """
        check_is_fitted(self)
        Z = check_array(as_array(Z), dtype=DTYPES)
        if Z.shape[1] != self.n_features_in_:
            raise ValueError(
                f"Z has {Z.shape[1]} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input of chart_inverse_transform."
            )
        charts = self._check_charts(charts, len(Z))

        def from_latent(flow, rows):
            of_rows = rows[:, -1].long().to(flow.weights.device)
            return self._from_flow(flow.from_latent(rows[:, :-1], of_rows))

        pairs = np.column_stack([Z.astype(np.float64), charts])
        return self._per_chunk(pairs, from_latent, Z.dtype, Z.shape[1])

    def _check_charts(self, charts, n_rows):
        charts = check_array(charts, ensure_2d=False, dtype=None)
        if charts.shape != (n_rows,) or not np.issubdtype(charts.dtype, np.integer):
            raise ValueError(
                f"charts must hold an integer for each of {n_rows} rows, got an array of shape "
                f"{charts.shape} and dtype {charts.dtype}."
            )
        if charts.min() < 0 or charts.max() >= self.n_charts_:
            raise ValueError(
                f"charts must lie between 0 and n_charts_ - 1 = {self.n_charts_ - 1}, got values "
                f"between {charts.min()} and {charts.max()}."
            )
        return charts

    @standard_context()
    def latent_samples(self, X, *, random_state=None):
        """Base coordinates of rows in charts that are drawn, k ~ p(k|x).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        random_state : int, RandomState instance or None, default=None
            Source of the draw; pass an int for the same charts at every call.

        Returns
        -------
        Z : ndarray of shape (n_samples, `n_features_in_`)
            f_k(x), the stochastic inference of Sidheekh et al. (2022).
        """
        X = self._check_rows(X)
        edges = self._predict_proba(X).cumsum(axis=1)
        uniform = check_random_state(random_state).uniform(size=(len(X), 1))
        charts = np.minimum((edges < uniform * edges[:, -1:]).sum(axis=1), self.n_charts_ - 1)
        return self._chart_transform(X, charts)

    @standard_context()
    def expected_latent(self, X):
        """Mean of the base coordinates of rows over their charts.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        Z : ndarray of shape (n_samples, `n_features_in_`)
            The sum over all charts of p(k|x) f_k(x), their deterministic inference.
        """
        X = self._check_rows(X)
        probabilities = self._predict_proba(X)
        Z = np.zeros(X.shape, dtype=X.dtype)
        for k in range(self.n_charts_):
            # The share of all others is lost in rounding.
            rows = np.flatnonzero(probabilities[:, k] > np.finfo(np.float64).eps)
            if len(rows):
                z = self._chart_transform(X[rows], np.full(len(rows), k))
                Z[rows] += (probabilities[rows, k, None] * z).astype(X.dtype)
        return Z

    @standard_context()
    def sample(
        self,
        n_samples=1,
        *,
        random_state=None,
        temperature=1.0,
        manifold_deviation=1.0,
        return_charts=False,
    ):
        """Draw rows from the model.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        random_state : int, RandomState instance or None, default=None
            Source of the draw; pass an int for the same rows at every call.
        temperature : float, default=1.0
            Factor of the variance of the base coordinates along the chart; 1 is the fitted model.
        manifold_deviation : float, default=1.0
            Factor of the variance of the other base coordinates; 1 is the fitted model, 0 draws
            rows on the charts.
        return_charts : bool, default=False
            Whether to return the chart of each row too.

        Returns
        -------
        X : ndarray of shape (n_samples, `n_features_in_`)
            Rows in data units; a frame with the names of the columns where
            `set_output`, of the model or global, asks for frames.
        charts : ndarray of int of shape (n_samples,)
            Chart that each row was drawn from. Only with ``return_charts=True``.
        """
        drawn = []

        def draw(n, generator, **options):
            charts = self._flow.sample_chart_indices(n, generator)
            drawn.append(charts.cpu().numpy())
            return self._flow.sample_charts(charts, generator, **options)

        X = self._sample(draw, n_samples, random_state, temperature, manifold_deviation)
        return (X, np.concatenate(drawn)) if return_charts else X

    def local_dimension(self, X):
        """Dimension of the chart of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        dimension : ndarray of int of shape (n_samples,)
            The entry of `chart_dimensions_` of the most probable chart.
        """
        charts = self.predict(X)
        return self.chart_dimensions_[charts]
