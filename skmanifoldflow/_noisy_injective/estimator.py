"""NoisyInjectiveFlow: a flow above an injective linear map with normal noise.

Half of the module documents parameters and attributes.
"""

from dataclasses import replace
from numbers import Integral, Real

import torch
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from .._base import BaseManifoldFlow
from .._checks import check_image_shape
from .._config import FROM_ROWS
from .._dimension import spectral_dimension
from .._few_rows import n_supported
from .._geometry import (
    affordable_rows,
    columns_in_data_units,
    in_float64_on_cpu,
    mean_spectrum,
    noise_variance_read,
    timed_chunks,
    varying_columns,
)
from .._linear import principal_axes
from .._manifold_density import ManifoldDensityMixin
from ..backend.device import make_generator, standard_context
from ..backend.flow import chunks
from ..backend.geometry import jacobian_columns
from .build import NoisyInjectiveConfig, build_flow
from .initialization import initialize_injection
from .objective import InjectionLikelihood
from .upsampling import UpsamplingInjection

__all__ = ["NoisyInjectiveFlow"]

# Bins of the spline of a column, each with some training rows in it.
_MAX_MARGINAL_BINS = 64
_ROWS_PER_BIN = 28
# Length of the smallest column of A at the start, relative to the noise. The bound draws along it
# with the inverse as standard deviation.
_SMALLEST_COLUMNS = {"likelihood": 1e-3, "elbo": 0.1}
# Columns up to which narrow directions are stretched, which costs 4 D^2 operations per row.
_MAX_STRETCHED = 128
# Rows of a gradient step of a table, between which it is a fortieth of them, and of many rows a
# share up to a third number.
_MIN_BATCH_SIZE, _MAX_BATCH_SIZE, _LARGEST_BATCH_SIZE = 32, 256, 1024
_SHARE_OF_MANY = 2000
# Rows that have been trained on when a fit with such batches ends.
_MAX_ROWS_SEEN = 5_120_000
# Weight decay is inversely proportional to the rows, and 1 for this many or fewer.
_DECAYED_ROWS = 250
# Images from which layers start, and for each pixel from which the injection starts.
_MAX_INITIAL_IMAGES = 512
_INITIAL_IMAGES_PER_PIXEL = 4


class NoisyInjectiveFlow(ManifoldDensityMixin, BaseManifoldFlow):
    r"""Flow above an injective linear map with normal noise; exact likelihood, stochastic inverse.

    The rows x, standardised, are mapped by a flow g to y = A z + b + e with z ~ N(0, I) of d
    coordinates, A of shape (D, d) and noise e ~ N(0, Sigma) [1]_. The manifold is the image of z
    under the inverse of the flow; the noise accounts for what lies beside it. So

    .. math:: \log p(x) = \log N(g(x); b, A A^T + \Sigma) + \log |\det J_g(x)|

    is exact, a row has a pseudo-inverse :math:`z^+ = \Lambda^{-1} A^T \Sigma^{-1} (g(x) - b)` with
    :math:`\Lambda = A^T \Sigma^{-1} A`, and a stochastic one, :math:`N(z^+, \Lambda^{-1})`. At the
    start of a fit to a table the flow is the identity and the model is probabilistic PCA or factor
    analysis; it is only replaced by what is better on validation rows. The layers of a table act
    where principal directions of a variance below .1 are stretched to .1, and their results are
    drawn together again: a direction that is narrower than the others is then as easy to learn.

    Parameters
    ----------
    n_components : int or None, default=None
        Number of coordinates d. With None, the Bayesian information criterion of probabilistic PCA
        chooses d, smaller than the number of columns. PCA does not see curvature: for a bent sheet
        give d yourself. With as many coordinates as columns there is no noise, and the model is a
        plain flow (except with ``injection="coupling"``). That number is not
        `intrinsic_dimension_`, because coordinates have to hold the linear hull of a bent sheet if
        rows are to be rebuilt.
    flow : {"spline", "affine", "additive", "autoregressive"}, default="spline"
        Kind of layer. Rational-quadratic splines are the most exact for data of few columns, affine
        couplings the fastest. Autoregressive layers draw samples column by column. Images take
        affine couplings whatever is asked for.
    n_layers : int, default=8
        Number of layers; with `image_shape`, steps of GLOW per scale.
    hidden_layer_sizes : int or tuple of int, default=(64, 64)
        Hidden layers of the network of each layer. With `image_shape` the first entry is the number
        of hidden channels.
    image_shape : tuple of int or None, default=None
        (C, H, W) of rows that are flattened images, channel by channel. Layers are then
        convolutional, and pixels of a channel are standardised alike.
    injection : {"linear", "upsampling", "coupling"}, default="linear"
        What A is: a matrix; nearest-neighbour upsampling of a small image, which costs O(d)
        ([1]_, A.6) and needs `image_shape`; or two conditional injections, of half of the columns
        each, whose noise and offset depend on the other half ([1]_, A.7).
    noise_covariance : {"spherical", "diag"}, default="spherical"
        Shape of Sigma: as in probabilistic PCA or as in factor analysis.
    objective : {"likelihood", "elbo"}, default="likelihood"
        The closed form, or its lower bound by a draw of the stochastic inverse ([1]_, eq. 7), which
        `n_latent_layers` and ``injection="coupling"`` need.
    n_latent_layers : int, default=0
        Layers of a flow on z, which gives the manifold a density that is not normal (deep noisy
        injective flow). The log-density is then estimated with importance samples.
    n_importance_samples : int, default=32
        Importance samples of the stochastic inverse in `score_samples`, the same draws for every
        row; not used where there is a closed form. More of them make the estimate, a lower bound in
        expectation, tighter.
    reconstruction : float, default=0.0
        Weight of the squared error of rows that are reconstructed from their pseudo-inverse,
        relative to that of PCA with as many components. The likelihood leaves open which part of a
        row is manifold and which is noise; a weight of 0.1 settles it in favour of the manifold,
        for sharper samples on it and a more telling embedding of images, at little cost in
        likelihood and twice the time.
    noise_start : float or None, default=None
        Standard deviation of the noise added to training rows at first, in standardised units. It
        falls to `noise_floor` over the first half of the training; it must not be below
        `noise_floor`. None means constant noise: annealing did not help on the sets tried.
    noise_floor : float, default=0.001
        Standard deviation of the noise that is added to training rows in the end, and the least one
        of Sigma, in standardised units. It bounds the likelihood on exact manifolds. Where columns
        have a fine structure of their own, as dequantised integers do, more of it costs
        likelihood.
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
        Largest number of epochs, over which the learning rate falls to zero. Most fits to some
        hundred rows end by themselves before; where the score still rises at the end a warning says
        so, and `max_iter=100` gains a tenth to half a nat on tables of ten columns and more, and
        next to nothing on sheets. Whatever it is, training ends after 20 000 gradient steps, and
        with ``batch_size="auto"`` after five million rows.
    max_time : float or None, default=None
        Seconds of wall time for the fit; None sets no limit. The schedule of the learning rate
        then ends with the time, if not before with `max_iter`, and the best weights are kept. What
        comes before and after the training is not cut short. How far a fit comes in its time
        depends on the machine, whatever `random_state` is.
    batch_size : int or "auto", default="auto"
        Rows of a gradient step; by default a fortieth of them, between 32 and 256, and from half a
        million rows on a two-thousandth, up to 1024; or 32 images.
    learning_rate_init : float, default=1e-2
        Peak of the learning rate, which rises over the first tenth of the training and then falls
        along a straight line. From 1000 training rows on the networks of image flows,
        and from 100 rows per column on the last layers of those of a table's couplings, take steps
        along orthogonalised momentum (Muon [4]_) of 1.5 times the size, all else steps of Adam.
    weight_decay : float or "auto", default="auto"
        Decoupled weight decay of the networks. "auto" is 250 over the number of rows, at most 1:
        few rows are soon learnt by heart, and many want sharp densities.
    early_stopping : bool or "auto", default="auto"
        Whether rows are set aside to choose the best weights and to stop. "auto" does so from 40
        rows on; with fewer nothing is trained and a table has its linear start.
    validation_fraction : float, default=0.1
        Share of the rows set aside, at least 10 rows.
    n_iter_no_change : int, default=5
        Epochs without an improvement by `tol` that end the training, from a quarter of it on.
    tol : float, default=1e-4
        Smallest improvement, in nats per row.
    n_init : int, default=1
        Number of fits from different random rotations and weights; the one with the best
        validation score is kept.
    warm_start : bool, default=False
        Start from the weights of the previous fit if the parameters that shape the model and the
        number of columns are the same; `n_init` is then ignored.
    device : str or torch.device, default="auto"
        "auto" (CUDA if present, else CPU), "cpu", "cuda", "cuda:<index>" or "mps". MPS has no
        float64, so results there have float32 accuracy.
    random_state : int, RandomState instance or None, default=None
        Source of rotations, initial weights, noise and validation rows.
    verbose : int, default=0
        If positive, print a line per epoch: epoch of how many, score, and the time elapsed and at
        most left. The model does not depend on it.

    Attributes
    ----------
    n_components_ : int
        Number of coordinates.
    explained_variance_ : ndarray of shape (`n_components_`,)
        Variance of the coordinates under z ~ N(0, I), in squared data units; descending, but for
        ``injection="upsampling"``, whose coordinates are the pixels of the small image.
    noise_variance_ : ndarray of shape (`n_features_in_`,)
        Diagonal of Sigma, in squared units of y; 0 for a plain flow. With ``injection="coupling"``
        where the networks of the noise are at rest.
    intrinsic_dimension_ : int
        Dimension of the rows, ``dimension_report_.dimension``: the number that
        :func:`intrinsic_dimension` reads from them, the same for every estimator.
    dimension_report_ : DimensionReport
        The readings behind it. Its `spectral_dimension` is the number of eigenvalues of
        `local_spectrum_` before its widest gap on a log scale, a standard deviation of 0.02 in
        standardised units counting as noise.
    local_spectrum_ : ndarray of shape (`n_features_in_`,)
        Geometric mean over training rows, at most 256 and fewer for many columns, of the
        eigenvalues of the model's local covariance J C J', J the Jacobian of the inverse flow and C
        the covariance of y, in standardised units, descending.
    n_iter_ : int
        Epochs run.
    tail_weight_ : float
        Weight of the background of heavy tails, a multivariate t distribution with 3 degrees of
        freedom that is part of the density and of draws; learned from the rows set aside, and
        1 / (n + 1) at least, where n is the number of training rows.
    kept_start_ : bool
        Whether the model is still the factor model that the training started from, as no epoch was
        clearly better on the rows set aside, or none was run.
    loss_curve_ : list of float
        Mean training loss of each epoch, in nats per standardised row.
    validation_scores_ : list of float
        Mean log-likelihood of the validation rows after each epoch, in nats per standardised row;
        empty where none were set aside.
    device_ : str
        Where the model computes.
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
    ManifoldPriorFlow : Finds the dimension, keeps distances.
    sklearn.decomposition.PCA : The start of this model, with ``noise_covariance="spherical"``.
    sklearn.decomposition.FactorAnalysis : Its start with ``noise_covariance="diag"``.
    sklearn.mixture.GaussianMixture : Density without coordinates.

    Notes
    -----
    Coordinates have the units of the data, as those of PCA: each is scaled so that moving it by one
    moves a row by one unit, root mean square over the rows of `local_spectrum_`, or more of them
    where there are few coordinates. Divide by
    ``sqrt(explained_variance_)`` for coordinates of N(0, I).

    Eq. 41 of the source has a term (d/2) log 2 pi too much; its isotropic case exchanges the
    transposes of the projection A (A'A)^-1 A' and divides the volume term 1/2 logdet A'A by the
    variance of the noise. All are corrected here. The knobs of `sample` scale variances, as the
    text of the source has it.

    Of fewer than ten rows per column the covariance is shrunk, in the start and in what is trained
    on: rows are drawn to their mean and get normal noise, and the scales of columns are drawn to
    each other, each as far as rows left out favour it. A training must then better its start by a
    t-test of level .001 on the rows set aside; `kept_start_` tells whether it has.

    References
    ----------
    .. [1] Cunningham, E., Zabounidis, R., Agrawal, A., Fiterau, I., Sheldon, D. "Normalizing Flows
       Across Dimensions". 2020. arXiv:2006.13070.
    .. [2] Durkan, C., Bekasov, A., Murray, I., Papamakarios, G. "Neural Spline Flows". NeurIPS
       2019. arXiv:1906.04032.
    .. [3] Kingma, D. P., Dhariwal, P. "Glow: Generative Flow with Invertible 1x1 Convolutions".
       NeurIPS 2018. arXiv:1807.03039.
    .. [4] Jordan, K., Jin, Y., Boza, V., You, J., Cesista, F., Newhouse, L., Bernstein, J. "Muon:
       An optimizer for hidden layers in neural networks". 2024.

    Examples
    --------
    >>> from skmanifoldflow import NoisyInjectiveFlow
    >>> from skmanifoldflow.datasets import SinCurve
    >>> X, _ = SinCurve(noise=0.05).sample(500, random_state=0)
    >>> model = NoisyInjectiveFlow(1, n_layers=4, max_iter=10, random_state=0).fit(X)
    >>> model.transform(X).shape
    (500, 1)
    >>> model.score_samples(X).shape
    (500,)
    >>> model.sample(3, manifold_deviation=0.0, random_state=0).shape
    (3, 2)
    """

    _parameter_constraints: dict = {
        **BaseManifoldFlow._parameter_constraints,
        "flow": [StrOptions({"spline", "affine", "additive", "autoregressive"})],
        "image_shape": [tuple, list, None],
        "injection": [StrOptions({"linear", "upsampling", "coupling"})],
        "noise_covariance": [StrOptions({"diag", "spherical"})],
        "objective": [StrOptions({"likelihood", "elbo"})],
        "n_latent_layers": [Interval(Integral, 0, None, closed="left")],
        "n_importance_samples": [Interval(Integral, 1, None, closed="left")],
        "reconstruction": [Interval(Real, 0, None, closed="left")],
        "noise_start": [Interval(Real, 0, None, closed="neither"), None],
        "weight_decay": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
    }

    def __init__(
        self,
        n_components=None,
        *,
        flow="spline",
        n_layers=8,
        hidden_layer_sizes=(64, 64),
        image_shape=None,
        injection="linear",
        noise_covariance="spherical",
        objective="likelihood",
        n_latent_layers=0,
        n_importance_samples=32,
        reconstruction=0.0,
        noise_start=None,
        noise_floor=0.001,
        bounded=None,
        dequantize=False,
        discrete_features="auto",
        max_iter=30,
        max_time=None,
        batch_size="auto",
        learning_rate_init=1e-2,
        weight_decay="auto",
        early_stopping="auto",
        validation_fraction=0.1,
        n_iter_no_change=5,
        tol=1e-4,
        n_init=1,
        warm_start=False,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.n_components = n_components
        self.flow = flow
        self.n_layers = n_layers
        self.hidden_layer_sizes = hidden_layer_sizes
        self.image_shape = image_shape
        self.injection = injection
        self.noise_covariance = noise_covariance
        self.objective = objective
        self.n_latent_layers = n_latent_layers
        self.n_importance_samples = n_importance_samples
        self.reconstruction = reconstruction
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

    _config_type = NoisyInjectiveConfig

    def _check_method_parameters(self, n_features):
        if self.image_shape is not None:
            check_image_shape(self, n_features)
            if len(self._layer_sizes()) == 0:
                raise ValueError("image_shape needs hidden_layer_sizes to hold at least one size.")
        is_exact = self.injection != "coupling" and self.n_latent_layers == 0
        if self.objective == "likelihood" and not is_exact:
            raise ValueError(
                "objective='likelihood' has a closed form only with n_latent_layers=0 and without "
                "injection='coupling': use objective='elbo'."
            )
        if self.injection == "coupling" and (n_features < 2 or self.n_components == 1):
            raise ValueError(
                "injection='coupling' needs at least 2 features and 2 components, got "
                f"n_features={n_features}, n_components={self.n_components}."
            )
        if self.injection == "upsampling":
            self._upsampling_factor()

    def _upsampling_factor(self):
        """Return the side of the blocks that give n_components, 2 by default."""
        if self.image_shape is None:
            raise ValueError("injection='upsampling' needs image_shape.")
        c, h, w = self.image_shape
        factors = [k for k in range(2, min(h, w) + 1) if h % k == 0 and w % k == 0]
        sizes = {c * (h // k) * (w // k): k for k in factors}
        if h % 2 or w % 2:
            raise ValueError(
                f"injection='upsampling' needs an even height and width, got "
                f"image_shape={tuple(self.image_shape)}."
            )
        if self.n_components is None:
            return factors[0]
        if self.n_components not in sizes:
            raise ValueError(
                f"n_components={self.n_components} is no size of an image that is upsampled to "
                f"image_shape={tuple(self.image_shape)}: expected one of {sorted(sizes)}."
            )
        return sizes[self.n_components]

    def _auto_batch_size(self, n_samples, n_features):
        if self.image_shape is not None:
            return 32
        of_many = min(_LARGEST_BATCH_SIZE, n_samples // _SHARE_OF_MANY)
        return max(_MIN_BATCH_SIZE, min(_MAX_BATCH_SIZE, n_samples // 40), of_many)

    def _step_limit(self, batch_size):
        limit = super()._step_limit(batch_size)
        return min(limit, _MAX_ROWS_SEEN // batch_size) if self.batch_size == "auto" else limit

    def _weight_decay(self, n_samples):
        if self.weight_decay != "auto":
            return self.weight_decay
        return min(1.0, _DECAYED_ROWS / n_samples)

    def _choices(self, n_features):
        is_upsampled = self.injection == "upsampling"
        is_given = self.n_components is not None and not is_upsampled
        return NoisyInjectiveConfig(
            n_features=n_features,
            n_layers=self.n_layers,
            hidden_layer_sizes=self._layer_sizes(),
            flow=self.flow,
            image_shape=self._image_shape(),
            bounded=self.bounded,
            n_components=int(self.n_components) if is_given else FROM_ROWS,
            injection=self.injection,
            factor=self._upsampling_factor() if is_upsampled else 2,
            noise_covariance=self.noise_covariance,
            noise_floor=self.noise_floor,
            n_latent_layers=self.n_latent_layers,
            n_importance_samples=self.n_importance_samples,
            is_stretched=FROM_ROWS,
        )

    def _read_rows(self, choices, n_rows, rows, shrinkage):
        n_bins = max(2, min(_MAX_MARGINAL_BINS, n_rows // _ROWS_PER_BIN))
        is_table = self.image_shape is None and 1 < choices.n_features <= _MAX_STRETCHED
        # Under wide noise the narrow directions are not narrow yet.
        is_annealed = self.noise_start is not None and self.noise_start > self.noise_floor
        config = replace(choices, n_marginal_bins=n_bins, is_stretched=is_table and not is_annealed)
        if config.n_components is not FROM_ROWS or config.injection == "upsampling":
            return config
        least = 2 if config.injection == "coupling" else 1
        return replace(config, n_components=max(least, n_supported(rows, shrinkage)))

    @staticmethod
    def _build_flow(config, generator):
        return build_flow(config, generator)

    def _make_objective(self, flow, rows, n_rows, generator, is_warm):
        if not is_warm:
            self._initialize(flow, rows)
        return InjectionLikelihood(
            flow,
            objective=self.objective,
            noise_start=self.noise_floor if self.noise_start is None else self.noise_start,
            noise_floor=self.noise_floor,
            reconstruction=self.reconstruction,
            pca_error=self._pca_error(rows.numpy(), flow.latent.n_components),
            n_rows=n_rows,
            generator=generator,
        )

    def _initialize(self, flow, rows):
        """Start the layers, and the injection at its linear ancestor, from standardised rows."""
        layer_rows = initial_rows = rows
        if self.image_shape is not None:
            # A pass of all images in float64 may cost as much as an epoch.
            layer_rows = rows[:_MAX_INITIAL_IMAGES]
            initial_rows = rows[
                : max(_MAX_INITIAL_IMAGES, _INITIAL_IMAGES_PER_PIXEL * rows.shape[1])
            ]
        with torch.no_grad(), in_float64_on_cpu(flow):
            flow.bijection.initialize(layer_rows)
            parts = [
                flow.bijection.forward_and_log_det(initial_rows[chunk])[0]
                for chunk in chunks(len(initial_rows), rows.shape[1])
            ]
            y = torch.cat(parts)
            injection, prior = flow.latent.injection, flow.latent.prior
            smallest = _SMALLEST_COLUMNS[self.objective]
            initialize_injection(injection, y.numpy(), self.noise_covariance, smallest)
            if prior is not None:
                prior.initialize(injection.mode(y[:_MAX_INITIAL_IMAGES]))

    def _pca_error(self, rows, n_components):
        """Return the mean squared error per entry of PCA, at least that of the noise."""
        if not self.reconstruction:
            return 1.0
        _, _, eigenvalues = principal_axes(rows)
        return max(eigenvalues[n_components:].sum() / rows.shape[1], self.noise_floor**2)

    def _read_density(self, plan, restart):
        self.n_components_ = self._flow.latent.injection.n_components

    def _finish(self, restart, fitted):
        rows, deadline = fitted.rows, restart.job.settings.deadline
        latent, n_features = self._flow.latent, rows.shape[1]
        d = latent.injection.n_components
        order = torch.randperm(len(rows), generator=restart.job.objective.generator)
        order = order.to(rows.device)
        self.local_spectrum_ = mean_spectrum(
            self._flow, rows[order[: self._affordable_rows(n_features * n_features)]], deadline
        )
        self._noise_variance = noise_variance_read(self.noise_floor)
        self._set_spectral_dimension(spectral_dimension(self.local_spectrum_, self._noise_variance))
        self.n_components_ = d
        picked = rows[order[: self._affordable_rows(n_features * d)]]
        rotation = latent.injection.principal_rotation()
        scale = self._lengths(picked, rotation, varying_columns(rows), deadline).to(rotation)
        # Where a coordinate moves nothing its unit is that of the latent variable.
        scale = torch.where(scale > 0, scale, 1.0)
        by_variance = torch.argsort(scale, descending=True, stable=True)
        if isinstance(latent.injection, UpsamplingInjection):
            # The coordinates are an image.
            by_variance = torch.arange(d)
        latent.set_components(rotation[:, by_variance], scale[by_variance])
        self.explained_variance_ = latent.component_scale.square().cpu().numpy()
        self.noise_variance_ = latent.injection.noise_variance().cpu().numpy().copy()

    def _affordable_rows(self, n_entries):
        if self.flow == "autoregressive" and self.image_shape is None:
            # The inverse takes as many passes as there are columns.
            n_entries *= self.n_features_in_
        return affordable_rows(n_entries)

    @torch.no_grad()
    def _lengths(self, rows, rotation, varies, deadline):
        """Return by how much each coordinate (d,) moves rows, root mean square, in data units."""
        flow, squares = self._flow, []
        for chunk in timed_chunks(len(rows), rows.shape[1] * len(rotation), deadline):
            y = flow.bijection.forward_and_log_det(rows[chunk])[0]
            z = flow.latent.injection.mode(y.to(flow.latent.mean))
            x, columns = jacobian_columns(self._decode_latent, z, rotation.T)
            columns = columns_in_data_units(self._standardizer, x, columns, varies)
            squares.append(columns.square().sum(1))
        return torch.cat(squares).mean(0).sqrt()

    def _decode_latent(self, z):
        noise = z.new_zeros(len(z), self._flow.latent.injection.n_features)
        return self._flow.decode(self._flow.latent.injection.generate(z, noise))

    # ------------------------------------------------------------------ inference

    @standard_context()
    def posterior_mean(self, X):
        """Return the mean of the manifold coordinates given rows.

        Unlike `transform` it takes the prior into account and is drawn towards the origin the more,
        the less a row tells about a coordinate.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        X_new : ndarray of shape (n_samples, `n_components_`)
            (I + Lam)^-1 A' Sigma^-1 (g(x) - b) in the units of `transform`; a weighted mean of the
            importance samples where there is no closed form.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If rows are not finite, or do not have `n_features_in_` columns.

        Examples
        --------
        >>> from skmanifoldflow import NoisyInjectiveFlow
        >>> from skmanifoldflow.datasets import SinCurve
        >>> X, _ = SinCurve(noise=0.05).sample(200, random_state=0)
        >>> model = NoisyInjectiveFlow(1, n_layers=2, max_iter=2, random_state=0).fit(X)
        >>> model.posterior_mean(X).shape
        (200, 1)
        """
        X = self._check_rows(X)

        def mean(flow, rows):
            y, _ = flow.bijection.forward_and_log_det(self._to_flow(flow, rows)[0])
            return flow.latent.posterior_mean(y)

        return self._per_chunk(X, mean, X.dtype, X.shape[1])

    @standard_context()
    def sample_latent(self, X, n_draws=1, *, random_state=None):
        """Draw manifold coordinates of rows from the stochastic inverse.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        n_draws : int, default=1
            Draws for each row.
        random_state : int, RandomState instance or None, default=None
            Source of the draws; pass an int for the same ones at every call.

        Returns
        -------
        coordinates : ndarray of shape (n_draws, n_samples, `n_components_`)
            Draws of N(z+, Lam^-1), in the units of `transform`, which is their mode.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If rows are not finite, or do not have `n_features_in_` columns.
            If `n_draws` is not an integer >= 1.

        Examples
        --------
        >>> from skmanifoldflow import NoisyInjectiveFlow
        >>> from skmanifoldflow.datasets import SinCurve
        >>> X, _ = SinCurve(noise=0.05).sample(200, random_state=0)
        >>> model = NoisyInjectiveFlow(1, n_layers=2, max_iter=2, random_state=0).fit(X)
        >>> model.sample_latent(X, n_draws=3, random_state=0).shape
        (3, 200, 1)
        """
        X = self._check_rows(X)
        if not isinstance(n_draws, Integral) or n_draws < 1:
            raise ValueError(f"n_draws must be an integer >= 1, got {n_draws!r}.")
        generator = make_generator(check_random_state(random_state).randint(2**31))

        def draw(flow, rows):
            y, _ = flow.bijection.forward_and_log_det(self._to_flow(flow, rows)[0])
            draws = [flow.latent.sample_inverse(y, generator) for _ in range(n_draws)]
            return torch.stack(draws, dim=1)

        drawn = self._per_chunk(X, draw, X.dtype, X.shape[1] + n_draws * self.n_components_)
        return drawn.swapaxes(0, 1)
