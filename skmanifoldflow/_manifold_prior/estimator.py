"""ManifoldPriorFlow: a volume-preserving flow with a learned, degenerate normal prior."""

from numbers import Real

import numpy as np
import torch
from scipy.sparse.csgraph import shortest_path
from sklearn.utils._param_validation import Interval, StrOptions

from .._base import BaseManifoldFlow
from .._checks import check_image_shape, warn
from .._chunked import rows_to_tensor
from .._dimension import Candidate, fit_local_mixture, read_dimension, read_spectra, read_spectrum
from .._geometry import in_float64_on_cpu
from .._manifold_density import ManifoldDensityMixin
from .._mixture_of_pca import MAX_COMPLETE_FEATURES
from ..backend.device import randn, standard_context, to_host
from ..backend.flow import chunks
from ..backend.geometry import jacobian_columns, leading_singular_values, squared_singular_values
from .build import ManifoldPriorConfig, build_flow
from .objective import Geodesics, SpreadLikelihood

__all__ = ["ManifoldPriorFlow"]

# Rows whose neighbourhood graph gives geodesic distances, the rows between which they are taken,
# and the neighbours of each.
_MAX_GRAPH_ROWS = 4000
_MAX_LANDMARKS = 500
_N_NEIGHBORS = 10
# Below this many rows a neighbourhood graph says nothing about a shape.
_MIN_GRAPH_ROWS = 100
# Rows at which the local covariance is looked at for the global answer.
_MAX_SPECTRUM_ROWS = 256
# Rows whose nearest neighbours calibrate it.
_MAX_NEIGHBOR_ROWS = 5000
# Rows whose coordinates give the prior its quantiles.
_MAX_QUANTILE_ROWS = 10_000
# Rows that give image flows their principal axes.
_MAX_INITIAL_ROWS = 10_000
# Beyond so many columns Jacobians are not computed in full, but at fewer rows along so many
# leading axes.
_MAX_FULL_FEATURES = 256
_N_LEADING = 64
_MAX_LEADING_ROWS = 64
_IMAGE_BATCH_SIZE = 128


class ManifoldPriorFlow(ManifoldDensityMixin, BaseManifoldFlow):
    """Volume-preserving flow with a learned, nearly degenerate normal prior.

    The rows x, standardised and inflated by a little noise, are mapped by a volume-preserving
    bijection g to z, whose distribution is N(m, C). C is learned: the eigenvectors of its large
    eigenvalues span the manifold and the small ones are the noise around it. So the spectrum tells
    the dimension, the projection of z on the leading eigenvectors embeds the rows, and N(m, C)
    gives a normalised density that stays bounded on data that lie exactly on a manifold. After the
    fit `marginals` lets the coordinates of z have distributions that are not normal.

    The dimension is that of the better of two models, this flow and a mixture of probabilistic
    PCAs, calibrated by the nearest neighbours of its samples; see `DimensionReport` and the user
    guide.

    Departure from isometry is penalised, which keeps the embedding faithful to distances along the
    data; both the penalty and the inflation of rows instead of latents are additions to the source.

    Parameters
    ----------
    n_components : int or None, default=None
        Number of coordinates d. With None it is `intrinsic_dimension_` and C is a full covariance.
        A closed shape needs more coordinates than it has dimensions to be rebuilt from them.
        With an int C has d free eigenvalues and one for the rest, as in probabilistic PCA, so that
        the likelihood depends on d and a grid search over it means something.
    flow : {"affine", "additive"}, default="affine"
        Kind of volume-preserving coupling. Affine layers are the more flexible; with two columns
        both are additive.
    n_layers : int, default=8
        Number of coupling layers, each after a fixed random rotation of the columns. Four leave an
        S-curve folded, eight unroll it. With `image_shape`, number of fully connected layers; a
        quarter as many convolutional ones come before them. With eleven the first and the last
        are given 64 principal axes.
    hidden_layer_sizes : int or tuple of int, default=(64, 64)
        Hidden layers of the network of each coupling. With `image_shape` the first entry is the
        number of hidden channels of the convolutional layers, the others are the hidden layers of
        the fully connected ones; a single entry is both.
    image_shape : tuple of int or None, default=None
        (C, H, W) of rows that are flattened images, channel by channel. Convolutional layers on
        squeezed images are then followed by fully connected ones in the principal axes of the rows,
        and pixels of a channel are standardised alike.
    spread : {"data", "latent"}, default="data"
        Where noise is added: to x, which makes the loss the exact likelihood of inflated data, or
        to z as in [1]_, under which the scale of z is not identified and collapses slowly.
    prior_update : {"closed_form", "gradient"}, default="closed_form"
        Whether m and C are the moments of z, the optimum for given g, or C = A A' + s^2 I with A
        trained by gradient as in [1]_, which is slower to find the small eigenvalues. In both cases
        the eigenvalues of an int `n_components` are taken from C after each epoch.
    entropy : {"ignore", "taylor"}, default="ignore"
        Whether the entropy of the noisy z is dropped from the loss or estimated on each batch
        ([1]_, appendix B.4). Only with ``spread="latent"``: otherwise it is constant.
    marginals : {"spline", "normal"}, default="spline"
        Distribution of each coordinate along the eigenvectors of C. "normal" is N(m, C) of [1]_. An
        isometric map cannot move mass along the manifold, so with "spline" the prior does: after
        the training a coordinate gets the monotone spline that maps its quantiles, in twelfths, to
        normal ones, if the Bayesian information criterion is in favour. Coordinates, eigenvalues
        and dimension are those of N(m, C); the `temperature` of `sample` is then that of the normal
        variables behind the splines.
    isometry : float, default=0.1
        Weight of the departure from isometry, of g itself and against distances along the
        nearest-neighbour graph of the rows. 0 gives the likelihood alone, which leaves the
        embedding arbitrary; much more than 0.5 costs likelihood.
    noise_start : float, default=0.3
        Standard deviation of the noise at the start of the training, in standardised units. It
        falls to `noise_floor` over the first two thirds, from coarse structure to fine; it must not
        be below `noise_floor`. Images, whose columns are many, want about 1.
    noise_floor : float, default=0.02
        Standard deviation of the final noise, in standardised units, and of the inflation that
        `score_samples` describes. It bounds the likelihood on exact manifolds. Inflating by the
        standard deviation of the data's own noise costs 0.1 nats per normal direction. It is also
        the scale at which a dimension is read: finer than the spacing of the rows there is nothing
        to learn, and with hundreds of columns 0.25 shows the manifold much sooner.
    bounded : tuple of two floats or None, default=None
        Interval (low, high) that contains every value of X; the density is zero outside. With
        `dequantize` it must reach to the largest value plus its step.
    dequantize : bool, default=False
        Add U[0, step) to the training rows, step being the spacing of the values of each column.
        For integers and other data with ties. The model is then one of X + U: rows that are scored
        are taken as they are given, so score X + step / 2, or X + U, and round samples down.
    max_iter : int, default=80
        Largest number of epochs. Whatever it is, training ends after 20 000 gradient steps.
    batch_size : int or "auto", default="auto"
        Rows of a gradient step; by default 64 to 128, up to 512 for many columns; 128 images.
    learning_rate_init : float, default=8e-3
        Peak of the one-cycle learning rate. Networks of more than 64 hidden units want less of it.
    weight_decay : float, default=0.0
        Decoupled weight decay; the prior is exempt.
    early_stopping : bool or "auto", default="auto"
        Whether rows are set aside to choose the best weights and to stop. "auto" does so from 40
        rows on; with fewer the networks are not trained at all and the model is a normal
        distribution.
    validation_fraction : float, default=0.1
        Share of the rows set aside, at least 10 rows.
    n_iter_no_change : int, default=20
        Epochs without an improvement by `tol`, after the noise has reached its floor, that end the
        training.
    tol : float, default=1e-4
        Smallest improvement, in nats per row.
    n_init : int, default=1
        Number of fits from different random rotations and weights; the one with the best
        validation score is kept.
    warm_start : bool, default=False
        Start from the weights of the previous fit if `flow`, `n_layers`, `hidden_layer_sizes`,
        `image_shape`, `n_components`, `bounded` and the number of columns are the same (and
        `noise_floor`, with `image_shape`); `n_init` is then ignored.
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
    intrinsic_dimension_ : int
        Dimension of the data, ``dimension_report_.dimension``.
    dimension_report_ : DimensionReport
        What it was read from: the spectra of the flow and of the mixture, the log-likelihoods that
        choose between them, and the calibration by nearest neighbours.
    local_spectrum_ : ndarray of shape (`n_features_in_`,)
        Geometric mean over training rows of the eigenvalues of the model's local covariance
        J C J', J the Jacobian of g^-1, descending; in standardised units, or in units of the data
        over the mean variance of a column, whichever show the wider gap. With more than
        256 columns only the first 64 are computed, at 64 rows, in standardised units; the others
        are those of C times what makes the product of all of them right, which J leaves as it is.
    prior_eigenvalues_ : ndarray of shape (`n_features_in_`,)
        Variance of the latent coordinates in squared data units, those of the manifold first.
    n_iter_ : int
        Epochs run.
    loss_curve_ : list of float
        Mean training loss of each epoch, in nats per standardised row, penalty included.
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
    sklearn.decomposition.PCA : Linear embedding with a density.
    sklearn.manifold.Isomap : Embedding by distances along the data, without density or inverse.

    Notes
    -----
    Coordinates have the units of the data, as those of PCA: each is scaled so that moving it by one
    moves a row by one unit, root mean square over the training rows. Columns in different units
    should therefore be scaled first, which changes the reported density by the scaler's Jacobian.

    With one column the only volume-preserving maps are shifts and reflections, and the model is the
    normal distribution of the rows, or the distribution of its one marginal.

    With ``n_components=None``, a UserWarning says so where nearest neighbours contradict the model.

    References
    ----------
    .. [1] Zhang, M., Sun, Y., Zhang, C., McDonagh, S. "Spread Flows for Manifold Modelling".
       AISTATS 2023. arXiv:2109.14216. First circulated as "On the latent space of flow-based
       models".

    Examples
    --------
    >>> from skmanifoldflow import ManifoldPriorFlow
    >>> from skmanifoldflow.datasets import SinCurve
    >>> X, _ = SinCurve(noise=0.05).sample(500, random_state=0)
    >>> model = ManifoldPriorFlow(n_layers=4, hidden_layer_sizes=(32,), random_state=0).fit(X)
    >>> model.transform(X).shape
    (500, 1)
    >>> model.score_samples(X).shape
    (500,)
    >>> model.sample(3, random_state=0).shape
    (3, 2)
    """

    _parameter_constraints: dict = {
        **BaseManifoldFlow._parameter_constraints,
        "flow": [StrOptions({"affine", "additive"})],
        "image_shape": [tuple, list, None],
        "spread": [StrOptions({"data", "latent"})],
        "prior_update": [StrOptions({"closed_form", "gradient"})],
        "entropy": [StrOptions({"ignore", "taylor"})],
        "marginals": [StrOptions({"spline", "normal"})],
        "isometry": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        n_components=None,
        *,
        flow="affine",
        n_layers=8,
        hidden_layer_sizes=(64, 64),
        image_shape=None,
        spread="data",
        prior_update="closed_form",
        entropy="ignore",
        marginals="spline",
        isometry=0.1,
        noise_start=0.3,
        noise_floor=0.02,
        bounded=None,
        dequantize=False,
        max_iter=80,
        batch_size="auto",
        learning_rate_init=8e-3,
        weight_decay=0.0,
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
        self.flow = flow
        self.n_layers = n_layers
        self.hidden_layer_sizes = hidden_layer_sizes
        self.image_shape = image_shape
        self.spread = spread
        self.prior_update = prior_update
        self.entropy = entropy
        self.marginals = marginals
        self.isometry = isometry
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

    _config_type = ManifoldPriorConfig

    def _check_method_parameters(self, n_features):
        if self.image_shape is not None:
            check_image_shape(self, n_features)
            if len(self._layer_sizes()) == 0:
                raise ValueError("image_shape needs hidden_layer_sizes to hold at least one size.")
        if self.entropy == "taylor" and self.spread == "data":
            raise ValueError(
                "entropy='taylor' needs spread='latent': with spread='data' the entropy does not "
                "depend on the flow."
            )

    def _choices(self, n_features):
        return ManifoldPriorConfig(
            n_features=n_features,
            n_layers=self.n_layers,
            hidden_layer_sizes=self._layer_sizes(),
            flow=self.flow,
            image_shape=self._image_shape(),
            bounded=self.bounded,
            n_free=self.n_components,
            scale_floor=None if self.image_shape is None else self.noise_floor,
        )

    def _auto_batch_size(self, n_samples, n_features):
        if self.image_shape is not None:
            # A step costs rows, not calls, and a covariance is pooled over many batches anyway.
            return _IMAGE_BATCH_SIZE
        return super()._auto_batch_size(n_samples, n_features)

    @staticmethod
    def _build_flow(config, generator):
        return build_flow(config, generator)

    def _make_objective(self, flow, rows, generator, is_warm):
        device = flow.latent.mean.device
        if self.image_shape is not None and not is_warm:
            with in_float64_on_cpu(flow):
                flow.bijection.initialize(rows[:_MAX_INITIAL_ROWS])
        rows = rows.to(device, torch.float32)
        geodesics = None
        if self.isometry and len(rows) >= _MIN_GRAPH_ROWS and rows.shape[1] > 1:
            geodesics = _geodesics(rows, generator)
        objective = SpreadLikelihood(
            flow,
            spread=self.spread,
            prior_update=self.prior_update,
            entropy=self.entropy,
            isometry=self.isometry,
            noise_start=self.noise_start,
            noise_floor=self.noise_floor,
            geodesics=geodesics,
            generator=generator,
        )
        objective.initialize_prior(rows)
        return objective

    def _finish(self, restart, rows):
        objective, latent = restart.job.objective, self._flow.latent
        # The prior still has the moments of the training rows alone.
        held_out, score = restart.job.validation_rows, np.nan
        if held_out is not None:
            score = float(objective.log_likelihood(held_out.to(rows)).mean())
        objective.update_closed_form(rows)
        self._noise_variance = self.noise_floor**2
        x = self._from_flow(rows)
        # A constant column has a scale by convention only, which nothing should depend on.
        varies = (rows != 0).any(dim=0).cpu()
        varies = varies if bool(varies.any()) else torch.ones_like(varies)
        self._varies = varies.to(x).numpy()
        # Rows that are all alike have none.
        self._mean_variance = float(x.var(dim=0, correction=0)[varies].mean())
        order = torch.randperm(len(rows), generator=objective.generator)
        picked = rows[order[:_MAX_SPECTRUM_ROWS].to(rows.device)]
        with torch.no_grad():
            spectra, component_scale = self._geometry(picked)
            reading = read_spectra(spectra, self._noise_variance)
            self.local_spectrum_, self._units = reading.spectrum, reading.units
            if self.n_components is None and reading.units == "data":
                latent.order_by_variance(component_scale)
                component_scale = latent.component_scale
            self.dimension_report_ = self._read_dimension(
                restart, score, rows, x[order].numpy(), reading, component_scale
            )
            self.intrinsic_dimension_ = self.dimension_report_.dimension
            self.n_components_ = self.n_components or self.intrinsic_dimension_
            latent.set_components(self.n_components_, component_scale)
            if self.marginals == "spline":
                self._fit_marginals(objective, rows)
        variance = latent.eigenvalues * latent.component_scale.square()
        self.prior_eigenvalues_ = variance.cpu().numpy()
        message = self.dimension_report_.disagreement()
        if message and self.n_components is None:
            warn(message)

    def _geometry(self, rows):
        """Return spectra of the local covariance at rows, by their units, and lengths (D,).

        These are, for each axis of the prior, the root mean square length of J times it, in units
        of the data.
        """
        latent, n_features = self._flow.latent, rows.shape[1]
        if n_features > _MAX_FULL_FEATURES:
            rows = rows[:_MAX_LEADING_ROWS]
            z = self._flow.bijection.forward_and_log_det(rows)[0]
            spectra = {"standardised": _wide_spectra(self._flow, z, latent.spectrum).cpu().numpy()}
            columns, slope = self._local_columns(
                self._flow, rows, max(_N_LEADING, self.n_components or 0)
            )
            lengths = (slope[:, :, None] * columns).square().sum(1).mean(0).sqrt()
            # Along the other axes the flow is taken to be an isometry.
            rest = slope.square().mean().sqrt().expand(n_features - len(lengths))
            return spectra, torch.cat([lengths, rest])
        parts, squares = {"standardised": []}, []
        if self._mean_variance > 0:
            parts["data"] = []
        for chunk in chunks(len(rows), n_features**2):
            columns, slope = self._local_columns(self._flow, rows[chunk])
            squares.append((slope[:, :, None] * columns).square().sum(1))
            for units, values in parts.items():
                values.append(self._eigenvalues(columns, slope, units).numpy())
        spectra = {units: np.concatenate(values) for units, values in parts.items()}
        return spectra, torch.cat(squares).mean(0).sqrt()

    def _fit_marginals(self, objective, rows):
        """Give the coordinates of the prior distributions of their own."""
        picked = torch.randperm(len(rows), generator=objective.generator)[:_MAX_QUANTILE_ROWS]
        rows = rows[picked.to(rows.device)]
        noise = self.noise_floor * randn(rows.shape, rows, objective.generator)
        inflated = rows + noise if self.spread == "data" else rows
        parts = [
            self._flow.bijection.forward_and_log_det(inflated[chunk])[0]
            for chunk in chunks(len(rows), rows.shape[1])
        ]
        z = torch.cat(parts)
        self._flow.latent.fit_marginals(z if self.spread == "data" else z + noise)

    def _local_columns(self, flow, standardized, n_columns=None):
        """Return J (n, D, k) along the first k axes of C at rows, and the slopes (n, D)."""
        z = flow.bijection.forward_and_log_det(standardized)[0]
        directions = flow.latent.eigenvectors.T[:n_columns]
        x, columns = jacobian_columns(flow.decode, z, directions.to(z))
        slope = self._standardizer.inverse_slope(to_host(x))
        return to_host(columns), slope * torch.tensor(self._varies)

    def _eigenvalues(self, columns, slope, units):
        """Return the eigenvalues (n, D) of J C J', descending, in standardised or data units."""
        factor = columns * to_host(self._flow.latent.spectrum.sqrt())
        if units == "data":
            factor = slope[:, :, None] * factor / self._mean_variance**0.5
        return squared_singular_values(factor)

    def _read_dimension(self, restart, score, rows, x, reading, component_scale):
        """Return the report of the dimension.

        It takes the log-likelihood of rows set aside, the standardised rows, the same in data units
        in random order, the reading of the local covariance, and the lengths of the axes of the
        prior in units of the data.
        """
        latent, flow, noise = self._flow.latent, self._flow, self.noise_floor
        generator = restart.job.objective.generator
        n_rows = min(len(x), _MAX_NEIGHBOR_ROWS)
        lengths = latent.spectrum.cpu()
        if reading.units == "data":
            lengths = lengths * component_scale.to(lengths).square() / self._mean_variance
        lengths, leading = lengths.sort(descending=True, stable=True)
        prior = int(read_spectrum(lengths.numpy(), self._noise_variance))
        leading = leading.to(latent.spectrum.device)

        def sample_flow(n_components):
            variances = (latent.spectrum - noise**2).clamp_min(0.0)
            if n_components is not None:
                variances[leading[n_components:]] = 0.0
            normal = randn((n_rows, len(variances)), variances, generator)
            z = latent.mean + normal * variances.sqrt() @ latent.eigenvectors.T
            parts = [self._from_flow(flow.decode(z[c])) for c in chunks(n_rows, z.shape[1])]
            return torch.cat(parts).numpy()

        candidates = [Candidate("flow", reading, sample_flow, score)]
        n_held_out = self._n_validation(len(rows))
        self._mixture = None
        if n_held_out and rows.shape[1] <= MAX_COMPLETE_FEATURES:
            noisy = rows + noise * randn(rows.shape, rows, generator)
            z = to_host(noisy[restart.order.to(rows.device)]).numpy()
            mixture, score = fit_local_mixture(z[n_held_out:], z[:n_held_out], noise)
            if mixture is not None:
                rng = np.random.RandomState(int(torch.randint(2**31, (1,), generator=generator)))
                spectra, slope = {"standardised": mixture.variances}, None
                if self._mean_variance > 0:
                    slope = self._standardizer.inverse_slope(torch.tensor(mixture.means)).numpy()
                    slope = slope * self._varies / self._mean_variance**0.5
                    spectra["data"] = mixture.spectra(slope)
                read = read_spectra(spectra, self._noise_variance, mixture.weights)

                def sample_mixture(n_components):
                    scaled = slope if read.units == "data" else None
                    drawn = mixture.sample(n_rows, rng, noise, n_components, scaled)
                    return self._from_flow(torch.tensor(drawn)).numpy()

                candidates.append(Candidate("mixture", read, sample_mixture, score))
                if score > candidates[0].score:
                    self._mixture = mixture
                    self._mixture_dimensions = read_spectrum(spectra[read.units], noise**2)
        n_varying = int(self._varies.sum())
        return read_dimension(x[:n_rows], candidates, prior, n_varying, noise**2)

    @standard_context()
    def local_dimension(self, X):
        """Dimension of the model around each row.

        The number of eigenvalues before the widest gap, on a log scale, of a local covariance, in
        ``dimension_report_.units``. Where the flow is the better model,
        ``dimension_report_.model == "flow"``, that is J C J', with J the Jacobian of the latent ->
        data map at the row and C the covariance of the prior; where the mixture of probabilistic
        PCAs is, the covariance of its part most probable at the row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        dimension : ndarray of int of shape (n_samples,)
            Between 1 and `n_features_in_`.
        """
        X = self._check_rows(X)
        if self._mixture is not None:
            z = self._standardizer.forward_and_log_det(rows_to_tensor(X))[0]
            return self._mixture_dimensions[self._mixture.log_joint(z.numpy()).argmax(axis=1)]
        return read_spectrum(self._local_spectra(X, np.dtype(np.float64)), self._noise_variance)

    def _local_spectra(self, X, dtype):
        """Return the eigenvalues (n, D) of the local covariance of the flow, descending."""
        is_wide = X.shape[1] > _MAX_FULL_FEATURES

        def spectrum(flow, rows):
            standardized, _ = self._to_flow(flow, rows)
            if is_wide:
                z = flow.bijection.forward_and_log_det(standardized)[0]
                return _wide_spectra(flow, z, flow.latent.spectrum)
            columns, slope = self._local_columns(flow, standardized)
            return self._eigenvalues(columns, slope, self._units)

        n_entries = X.shape[1] * min(X.shape[1], _MAX_FULL_FEATURES)
        return self._per_chunk(X, spectrum, dtype, n_entries)


def _wide_spectra(flow, z, spectrum):
    """Return eigenvalues (n, D) of the local covariance J C J' at latent rows, descending.

    The leading ones are computed. The others are those of C times what makes the log-determinant
    right, which is that of C since J has unit volume.
    """
    factor = flow.latent.eigenvectors * spectrum.sqrt()
    order = torch.argsort(spectrum, descending=True, stable=True)
    leading = leading_singular_values(flow.decode, z, factor[:, order].to(z), _N_LEADING)
    log_leading = 2 * leading.to(spectrum).log()
    log_rest = spectrum[order[_N_LEADING:]].log()
    missing = spectrum.log().sum() - log_leading.sum(1) - log_rest.sum()
    log_rest = log_rest + missing[:, None] / len(log_rest)
    return torch.cat([log_leading, log_rest], dim=1).exp().sort(dim=1, descending=True).values


def _geodesics(rows, generator):
    """Return rows and their distances along the nearest-neighbour graph (as Isomap measures them).

    Tenenbaum, de Silva & Langford, Science 290 (2000); computed on a random part of many rows.
    """
    # Half of the time of `import skmanifoldflow`, if it were there.
    from sklearn.neighbors import kneighbors_graph

    n = len(rows)
    picked = torch.randperm(n, generator=generator)[:_MAX_GRAPH_ROWS].to(rows.device)
    graph_rows = rows[picked]
    graph = kneighbors_graph(graph_rows.cpu().numpy(), _N_NEIGHBORS, mode="distance")
    n_landmarks = min(len(picked), _MAX_LANDMARKS)
    distances = shortest_path(graph, directed=False, indices=np.arange(n_landmarks))
    distances = torch.tensor(distances[:, :n_landmarks], dtype=rows.dtype)
    mean_square = float(distances[torch.isfinite(distances)].square().mean())
    if mean_square == 0.0:
        return None
    return Geodesics(graph_rows[:n_landmarks], distances.to(rows.device), mean_square)
