"""ChartAtlasFlow: parameters and fit; half of the lines document parameters and attributes."""

from numbers import Integral, Real

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions

from .._base import BaseManifoldFlow
from .._checks import check_image_shape
from .._config import FROM_ROWS
from .._mixture_of_pca import MAX_COMPLETE_FEATURES
from ..backend.device import to_host
from .build import ChartAtlasConfig, build_flow
from .dimensions import chart_dimensions
from .inference import ChartInference
from .initialization import initialize_charts, initialize_quantizer
from .objective import AtlasLikelihood
from .selection import complete_image_config, complete_table_config

__all__ = ["ChartAtlasFlow"]

# Length of the code of images.
_N_IMAGE_COMPONENTS = 16


class ChartAtlasFlow(ChartInference, BaseManifoldFlow):
    r"""Atlas of local flows on a vector-quantised embedding, for data of any topology.

    One flow cannot map a ball onto two spheres, a torus or linked circles. An atlas covers the rows
    with charts, each of which has a bijection f_k to a standard normal distribution q [1]_. The
    density is the sum over all charts,

    .. math:: p(x) = \sum_k p_k p(x | k), \quad p(x | k) = |\det J_{f_k}(x)| \, q(f_k(x)).

    The embedding is that of a vector-quantised autoencoder: `transform` encodes rows,
    `inverse_transform` decodes codes, and the entries of the codebook are the centres of the
    charts. By default, ``n_charts=None``, there are several partitions of the rows into charts, and
    the codebook that was trained with the autoencoder is replaced: each partition gets entries of
    its own by k-means of the codes. If `n_charts` is given there is one partition, and its k-means
    starts at the trained codebook.

    Each chart has a frame, the mean and principal axes of its rows. In these frames one conditional
    flow, which is told the chart of each row, serves all charts of a partition. On tables the flow
    starts as the identity and the model as a mixture of probabilistic PCAs.

    Parameters
    ----------
    n_components : int or None, default=None
        Length of a code. None is 16 for images and 2 d + 1 for tables, at most the number of
        columns, with d the dimension that small cells of the rows show: any manifold of dimension d
        embeds in so many dimensions (Whitney), and closed ones need at least d + 1.
    n_charts : int or None, default=None
        Number of charts K. None fits several partitions of the rows, each with a flow of its own:
        one with as many charts as the Gaussian mixture with the best Bayesian information criterion
        has components, and others with 8, 12 and 16 charts where there are enough rows. Their
        densities are averaged, with the weights that maximise the likelihood of validation rows;
        the average usually scores better than the best partition. If the rows form clusters, give
        the number of clusters. For images None is one partition of 32 charts, or of fewer charts
        that have 50 rows each.
    flow : {"autoregressive", "spline", "affine", "additive"}, default="autoregressive"
        Kind of layer. In the frame of a chart the rows are the graph of a function of the leading
        coordinates, with normal noise: affine autoregressive layers have this form ([3]_). Images
        always take affine couplings.
    n_layers : int, default=4
        Number of layers; with `image_shape`, number of steps of GLOW per scale.
    hidden_layer_sizes : int or tuple of int, default=(64, 64)
        Hidden layers of the networks in each layer, in the encoder and in the decoder. With
        `image_shape` the first entry is the number of hidden channels of a layer.
    image_shape : tuple of int or None, default=None
        (C, H, W) of rows that are flattened images, channel by channel. Autoencoder and layers are
        then convolutional, all pixels of a channel are standardised by one mean and scale, and the
        frames stand between the flow and the normal distribution.
    chart_map : {"ambient", "conformal"}, default="ambient"
        "ambient" charts have flows of as many coordinates as there are columns. "conformal" charts
        are planes or spheres, flattened by a Moebius map of the whole space, with a flow of the
        coordinates along them and normal noise across ([1]_, [2]_): fewer parameters and an exact
        model of normal noise, but curved data need many small charts.
    quantizer : {"vq-ae", "kmeans"}, default="vq-ae"
        "vq-ae" trains encoder, decoder and codebook. "kmeans" trains nothing: codes are principal
        components, and charts start at cells of k-means.
    n_neighbors_charts : int or None, default=None
        A chart covers a row if the distance of the code of the row from the centre of the chart is
        at most 1 + `overlap` times that from the m-th nearest centre ([1]_); this is m. None is 2
        for curves and images and 3 for all else: d + 1 cells of dimension d meet in a corner.
    overlap : float, default=0.1
        How far charts reach beyond the m-th nearest centre, relative to its distance ([1]_,
        epsilon).
    objective : {"sum", "sampled"}, default="sum"
        What is maximised in training: the sum over the charts that cover a row, or the density of
        one of these charts, drawn by their weights, as in [1]_. "sampled" is faster and maximises a
        lower bound.
    noise_start : float or None, default=None
        Standard deviation of the noise added to training rows at first, in standardised units. It
        falls to `noise_floor` over the first half of the training. None is `noise_floor`.
    noise_floor : float, default=0.001
        Standard deviation of the noise added to training rows in the end, and least scale of a
        frame, in standardised units. It bounds the likelihood on exact manifolds.
    bounded : tuple, dict or None, default=None
        Interval (low, high) that contains every value of X, or one for each column: a pair or None
        for each, None for an open end, or a dict of pairs by name or index. The density is zero
        outside, and rows may lie on the ends. With `image_shape` or `dequantize` one pair, which
        for the latter must reach to the largest value plus its step.
    dequantize : bool, default=False
        Whether to add U[0, step) to the training rows, anew in every epoch, where step is the
        spacing of the values of a column, or of all pixels. For images of integers. The density is
        then that of X + U: score X + step / 2, or X + U, and round samples down.
    discrete_features : {"auto", "all"}, array-like or None, default="auto"
        Columns whose values are spread over an interval around each, so that they have a density:
        steps over the grid of `columns_`, atoms over a narrow interval, dummies together. "auto"
        takes what `columns_` says of each column of at least 40 rows; names, indices or a boolean
        mask select columns; None spreads none. "all" is ``dequantize=True``.
    max_iter : int, default=30
        Largest number of epochs. Training also ends after 20 000 gradient steps.
    max_time : float or None, default=None
        Seconds of wall time for the fit; None sets no limit. The schedule of the learning rate
        then ends with the time, if not before with `max_iter`, and the best weights are kept. What
        comes before and after the training is not cut short. How far a fit comes in its time
        depends on the machine, whatever `random_state` is.
    batch_size : int or "auto", default="auto"
        Rows of a gradient step. "auto" is 32 for images and a twentieth of the rows, between 64 and
        512, for tables.
    learning_rate_init : float, default=1e-2
        Peak of the learning rate, which rises over the first tenth of the training and then falls
        along a straight line. The networks of a table's couplings take steps along orthogonalised
        momentum (Muon), all else steps of Adam.
    weight_decay : float, default=0.1
        Decoupled weight decay of the networks.
    early_stopping : bool or "auto", default="auto"
        Whether to set rows aside, on which the best weights are chosen, partitions are weighted and
        the end of the training is decided. "auto" does so from 40 rows on. With fewer rows "auto"
        trains nothing, and the model of a table stays the mixture it starts as.
    validation_fraction : float, default=0.1
        Share of the rows set aside, at least 10 rows.
    n_iter_no_change : int, default=8
        Number of epochs without an improvement by `tol` after which the training ends, from a
        quarter of it on, and only after the noise has reached its floor.
    tol : float, default=1e-4
        Smallest improvement, in nats per row.
    n_init : int, default=1
        Number of fits from different partitions and weights; the one with the best validation score
        is kept.
    warm_start : bool, default=False
        Whether to start from the weights of the previous fit, if the parameters that shape the
        model and the number of columns are the same; `n_init` is then ignored.
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
        Means of the frames in data units; for images, the images at the origins of the base spaces.
    codebook_ : ndarray of shape (`n_charts_`, `n_components_`)
        Centres of the charts in the embedding ([1]_, v_k): weighted means of the codes of their
        rows, at the start of the training of the flows.
    chart_dimensions_ : ndarray of int of shape (`n_charts_`,)
        Dimension of each chart: the number of eigenvalues of J J' before their widest gap on a log
        scale, where J is the Jacobian of the inverse of f_k and eigenvalues are geometric means
        over some rows of the chart. For images, and for tables of more than 64 columns, they are
        the variances of the frame.
    intrinsic_dimension_ : int
        Dimension of the rows, ``dimension_report_.dimension``: the number that
        :func:`intrinsic_dimension` reads from them, the same for every estimator.
    dimension_report_ : DimensionReport
        The readings behind it. Its `spectral_dimension` is the dimension of the charts with
        the largest total weight.
    n_iter_ : int
        Number of epochs that were run.
    tail_weight_ : float
        Weight of the background of heavy tails, a multivariate t distribution with 3 degrees of
        freedom that is part of the density and of draws; learned from the rows set aside, and
        1 / (n + 1) at least, where n is the number of training rows.
    kept_start_ : bool
        Whether the charts are still those of the mixture of probabilistic PCAs that the training
        started from, as no epoch was clearly better on the rows set aside, or none was run.
    loss_curve_ : list of float
        Mean training loss of each epoch, averaged over partitions, in nats per standardised row.
    validation_scores_ : list of float
        Mean log-likelihood of the validation rows after each epoch, in nats per standardised row;
        empty where none were set aside.
    device_ : str
        Device of the model.
    columns_ : Columns
        What each column holds, as read from the training rows: kind, step, atoms, bounds, scale and
        dummies. It prints as a table and is a sequence of `Column`; with `image_shape` the pixels
        are one kind of column.
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
    `score_samples` sums over all charts: the flow of a chart has density beyond the rows that it
    was trained on. In training the sum runs over the charts that cover a row and, on tables, the
    chart in which the row is most probable at the start. The weights of charts are fitted by
    expectation maximisation.

    The sign of each principal axis of a frame is such that the third moment along it is positive.
    All bent charts then bend to the same side, and what the flow learns of one chart holds for the
    others.

    The volume term of conformal charts has exponent d, not 1 as in eq. 5 of [1]_. A product of
    special conformal maps is one special conformal map, so each chart has one.

    Of fewer than ten rows per column the covariance is shrunk, in the start and in what is trained
    on: rows are drawn to their mean and get normal noise, and the scales of columns are drawn to
    each other, each as far as rows left out favour it. A training must then better its start by a
    t-test of level .001 on the rows set aside; `kept_start_` tells whether it has.

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
        discrete_features="auto",
        max_iter=30,
        max_time=None,
        batch_size="auto",
        learning_rate_init=1e-2,
        weight_decay=0.1,
        early_stopping="auto",
        validation_fraction=0.1,
        n_iter_no_change=8,
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
        self.discrete_features = discrete_features
        self.max_iter = max_iter
        self.max_time = max_time
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

    _maps_hard_ends = True
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
        is_image = self.image_shape is not None
        n_components, n_neighbors = self.n_components, self.n_neighbors_charts
        if is_image:
            n_components = n_components or min(_N_IMAGE_COMPONENTS, n_features)
            # Every chart that covers an image costs one more pass through the flow.
            n_neighbors = n_neighbors or 2
        return ChartAtlasConfig(
            n_features=n_features,
            n_layers=self.n_layers,
            hidden_layer_sizes=self._layer_sizes(),
            flow="affine" if is_image else self.flow,
            image_shape=self._image_shape(),
            bounded=self.bounded,
            n_components=n_components,
            n_charts=FROM_ROWS if self.n_charts is None else (int(self.n_charts),),
            n_neighbors=n_neighbors,
            chart_map=self.chart_map,
            quantizer=self.quantizer,
            overlap=self.overlap,
        )

    def _read_rows(self, choices, n_rows, rows, shrinkage):
        if choices.image_shape is not None:
            return complete_image_config(choices, n_rows)
        return complete_table_config(choices, rows(), self.noise_floor)

    @staticmethod
    def _build_flow(config, generator):
        return build_flow(config, generator)

    def _make_objective(self, flow, rows, n_rows, generator, is_warm):
        if self.n_charts is not None and self.n_charts > min(n_rows, len(rows)):
            raise ValueError(
                f"n_charts={self.n_charts} must be at most the number of rows that are trained on, "
                f"{min(n_rows, len(rows))}."
            )
        batch_size = self._batch_size(n_rows, rows.shape[1])
        if not is_warm:
            # Few rows train nothing: then no parameter asks for a gradient.
            is_trained = any(p.requires_grad for p in flow.parameters())
            initialize_quantizer(
                flow.quantizer,
                # The first rows that stand for few ones are one draw of each.
                rows[:n_rows],
                is_trained=is_trained and self.quantizer == "vq-ae",
                batch_size=batch_size,
                generator=generator,
            )
            initialize_charts(flow, rows, self.noise_floor, generator)
        flow.quantizer.requires_grad_(False)
        return AtlasLikelihood(
            flow,
            objective=self.objective,
            noise_start=self.noise_floor if self.noise_start is None else self.noise_start,
            noise_floor=self.noise_floor,
            n_batches=max(1, n_rows // batch_size),
            generator=generator,
        )

    def _finish(self, restart, fitted):
        rows = fitted.rows
        flow = self._flow
        means = torch.cat([atlas.chart_map.frames.mean for atlas in flow.partitions])
        if self.image_shape is not None:
            # Frames come last: their means are latent rows, and latent zero is the mean of a frame.
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
        self.chart_dimensions_ = chart_dimensions(flow, rows, self.noise_floor)
        flow.dimensions.copy_(torch.tensor(self.chart_dimensions_))
        shares = np.bincount(self.chart_dimensions_, weights=self.chart_weights_)
        self._set_spectral_dimension(shares.argmax())
