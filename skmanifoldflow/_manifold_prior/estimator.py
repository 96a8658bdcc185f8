"""The estimator ManifoldPriorFlow. Half of the module documents its parameters and attributes."""

from numbers import Real
from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions

from .._base import BaseManifoldFlow
from .._checks import check_image_shape
from .._dimension import (
    LocalMixture,
    check_scale,
    dimension_at_scale,
    read_spectra,
    read_spectrum,
)
from .._geometry import in_float64_on_cpu, varying_columns
from .._manifold_density import ManifoldDensityMixin
from .._table import rows_to_tensor
from ..backend.device import standard_context
from .build import ManifoldPriorConfig, build_flow
from .dimension import better_mixture
from .geodesics import geodesic_distances, unrolled
from .geometry import DataUnits, elements_per_row, local_spectra, spectra_and_lengths
from .objective import SpreadLikelihood

__all__ = ["ManifoldPriorFlow"]

# Rows at which the local covariance is computed, for the dimension of all rows.
_MAX_SPECTRUM_ROWS = 256
# Rows that give image flows their principal axes.
_MAX_INITIAL_ROWS = 10_000
_IMAGE_BATCH_SIZE = 128
# Arguments of the objective, by the recipe.
_RECIPES = {
    "default": {"spread": "data", "prior_update": "closed_form"},
    "paper": {"spread": "latent", "prior_update": "gradient"},
}


class ManifoldPriorFlow(ManifoldDensityMixin, BaseManifoldFlow):
    """Embedding that keeps distances, with a density, samples, and the dimension of the rows.

    Rows x are standardised, inflated by a little noise, and mapped by a volume-preserving bijection
    g to z with distribution N(m, C). The covariance C is learned: the eigenvectors of its large
    eigenvalues span the manifold, and the small eigenvalues are the noise around it. The number of
    large eigenvalues is the dimension, the projection of z on their eigenvectors embeds the rows,
    and N(m, C) gives a normalised density, which stays bounded on data that lie exactly on a
    manifold.

    The dimension is read from the rows themselves, by nearest neighbours and a mixture of
    probabilistic PCAs; see `intrinsic_dimension` and the user guide.

    A penalty on the departure from isometry makes the embedding keep distances along the data. The
    penalty, noise on the rows instead of on z, and splines as marginals are additions to [1]_.

    Parameters
    ----------
    n_components : int or None, default=None
        Number of coordinates d. None takes `intrinsic_dimension_`, and C is a full covariance. An
        int fits a model of exactly d dimensions, so that GridSearchCV over d compares like with
        like: C has d free eigenvalues and a common one for the rest, as in probabilistic PCA. A
        closed shape can be rebuilt only from more coordinates than it has dimensions.
    flow : {"affine", "additive"}, default="affine"
        Kind of volume-preserving coupling layer. Affine layers are more flexible than additive
        ones; with two columns both kinds are the same.
    n_layers : int, default=8
        Number of coupling layers, each after a fixed random rotation of the columns. Four layers
        leave an S-curve folded, eight unroll it. With `image_shape` this is the number of fully
        connected layers, which a quarter as many convolutional layers precede. With eleven the
        first and the last layer see 64 principal axes.
    hidden_layer_sizes : int or tuple of int, default=(64, 64)
        Hidden layers of the network of each coupling. With `image_shape` the first entry is the
        number of hidden channels of the convolutional layers, the others are the hidden layers of
        the fully connected ones; a single entry is both.
    image_shape : tuple of int or None, default=None
        (C, H, W) of rows that are flattened images, channel by channel. The flow then has
        convolutional layers on squeezed images, followed by fully connected layers in the principal
        axes of the rows, and all pixels of a channel are standardised by the same mean and scale.
    recipe : {"default", "paper"}, default="default"
        How the flow and the prior are trained. "default" adds noise to x, which makes the loss the
        exact negative log-likelihood of the inflated rows, and takes the moments of z, which are
        optimal for a given g, as m and C. "paper" is the loss of [1]_: the noise is added to z, the
        entropy of the noisy z is ignored, and m and A of C = A A' + s^2 I are trained by gradient.
        The scale of z is then not identified and collapses slowly, and the small eigenvalues take
        more epochs.
    marginals : {"spline", "normal"}, default="spline"
        Distribution of each coordinate of z along the eigenvectors of C. "spline" gives a
        coordinate a distribution of its own after the training, a spline through 13 quantiles,
        where the Bayesian information criterion says that the rows support it: an isometric map
        cannot gather rows where they are dense. "normal" is N(m, C) of [1]_. Coordinates,
        eigenvalues and dimension are those of N(m, C) in both cases. The `temperature` of `sample`
        refers to the normal variables that the splines transform.
    isometry : float, default=0.1
        Weight of the penalty on the departure from isometry: of local lengths, and of latent
        distances from those along the nearest-neighbour graph of the rows, or, where these are
        those of a flat sheet, of rows from their places on it. 0 maximises the likelihood alone,
        which leaves the embedding arbitrary; a weight above 0.5 costs likelihood.
    noise_start : float, default=0.3
        Standard deviation of the noise at the start of the training, in standardised units. It
        falls to `noise_floor` over the first two thirds of the training, so that coarse structure
        is learned before fine structure, and must not be below `noise_floor`. Use about 1 for
        images, which have many columns.
    noise_floor : float, default=0.02
        Standard deviation of the noise at the end of the training, in standardised units.
        `score_samples` is the density of rows inflated by it, which bounds the likelihood on exact
        manifolds. If it equals the standard deviation of the noise of the data, the inflation costs
        0.1 nats per direction normal to the manifold. It is also the scale at which the dimension
        is read. Nothing can be learned at scales below the spacing of the rows; with hundreds of
        columns 0.25 shows the manifold in far fewer epochs.
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
    max_iter : int, default=50
        Largest number of epochs. The training also ends after 20 000 gradient steps.
    max_time : float or None, default=None
        Seconds of wall time for the fit; None sets no limit. The schedule of the learning rate
        then ends with the time, if not before with `max_iter`, and the best weights are kept. What
        comes before and after the training is not cut short. How far a fit comes in its time
        depends on the machine, whatever `random_state` is.
    batch_size : int or "auto", default="auto"
        Number of rows in a gradient step. "auto" takes 64 to 128 rows, up to 512 where there are
        many columns, and 128 images.
    learning_rate_init : float, default=1.2e-2
        Peak of the one-cycle learning rate. Networks of more than 64 hidden units need a smaller
        one.
    weight_decay : float, default=0.0
        Decoupled weight decay of the networks; the prior is exempt.
    early_stopping : bool or "auto", default="auto"
        Whether rows are set aside to choose the best weights and to end the training. "auto" does
        so if there are at least 40 rows; with fewer rows it does not train the networks at all, and
        the model is a normal distribution.
    validation_fraction : float, default=0.1
        Share of the rows that is set aside, but at least 10 rows.
    n_iter_no_change : int, default=20
        Number of epochs without an improvement by `tol` that ends the training, from a quarter of
        it on and once the noise has reached its floor.
    tol : float, default=1e-4
        Smallest improvement, in nats per row.
    n_init : int, default=1
        Number of fits from different random rotations and weights, of which the one with the best
        validation score is kept.
    warm_start : bool, default=False
        Whether to start from the weights of the previous fit, which is possible if `flow`,
        `n_layers`, `hidden_layer_sizes`, `image_shape`, `n_components`, `bounded`, the number of
        columns and, with `image_shape`, `noise_floor` are the same. `n_init` is then ignored.
    device : str or torch.device, default="auto"
        "auto" (CUDA if present, else CPU), "cpu", "cuda", "cuda:<index>" or "mps". MPS has no
        float64, so results there have float32 accuracy.
    random_state : int, RandomState instance or None, default=None
        Source of rotations, initial weights, noise and validation rows. Pass an int for the same
        model in every fit.
    verbose : int, default=0
        If positive, a line is printed after every epoch, with the number of epochs, the score, the
        time elapsed and the longest time left. The model does not depend on it.

    Attributes
    ----------
    n_components_ : int
        Number of coordinates.
    intrinsic_dimension_ : int
        Dimension of the rows, ``dimension_report_.dimension``: the number that
        :func:`intrinsic_dimension` reads from them, the same for every estimator.
    dimension_report_ : DimensionReport
        The readings behind it. Its `spectral_dimension` is the number of eigenvalues of
        `local_spectrum_` before its widest gap on a log scale.
    local_spectrum_ : ndarray of shape (`n_features_in_`,)
        Eigenvalues of the model's local covariance J C J', with J the Jacobian of g^-1, in
        descending order: geometric mean over up to 256 training rows. They are in standardised
        units, or in squared units of the data over the mean variance of a column, whichever show
        the wider gap. With more than 256 columns only the first 64 are computed, at 64 rows and in
        standardised units; the rest are eigenvalues of C, scaled so that the product of all is that
        of C.
    prior_eigenvalues_ : ndarray of shape (`n_features_in_`,)
        Variances of the latent coordinates in squared data units, those of the manifold first.
    n_iter_ : int
        Number of epochs that were run.
    tail_weight_ : float
        Weight of the background of heavy tails, a multivariate t distribution with 3 degrees of
        freedom that is part of the density and of draws; learned from the rows set aside, and
        1 / (n + 1) at least, where n is the number of training rows.
    kept_start_ : bool
        Whether the model is still the normal distribution that the training started from, as no
        epoch was clearly better on the rows set aside, or none was run.
    loss_curve_ : list of float
        Mean training loss of each epoch with its penalties, in nats per standardised row.
    validation_scores_ : list of float
        Mean log-likelihood of the validation rows after each epoch, in nats per standardised row;
        empty if no rows were set aside.
    device_ : str
        Device on which the model computes.
    columns_ : Columns
        What each column holds, as read from the training rows: kind, step, atoms, bounds, scale and
        dummies. It prints as a table and is a sequence of `Column`; with `image_shape` the pixels
        are one kind of column.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if the columns of X had names.

    See Also
    --------
    sklearn.decomposition.PCA : Linear embedding with a density.
    sklearn.manifold.Isomap : Embedding by distances along the data, without density or inverse.

    Notes
    -----
    Coordinates have the units of the data, as those of PCA: a step of one along a coordinate moves
    a row by one unit, root mean square over the training rows. Columns in large units dominate
    them, so scale columns in different units first; the dimension does not depend on it. After a
    scaler, scores are densities in its units: after ``StandardScaler`` subtract
    ``np.log(scaler.scale_).sum()``.

    With one column the only volume-preserving maps are shifts and reflections, and the model is a
    normal distribution, or the spline of one.

    Of fewer than ten rows per column the covariance is shrunk, in the start and in what is trained
    on: rows are drawn to their mean and get normal noise, and the scales of columns are drawn to
    each other, each as far as rows left out favour it. A training must then better its start by a
    t-test of level .001 on the rows set aside; `kept_start_` tells whether it has.

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
        "recipe": [StrOptions(set(_RECIPES))],
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
        recipe="default",
        marginals="spline",
        isometry=0.1,
        noise_start=0.3,
        noise_floor=0.02,
        bounded=None,
        dequantize=False,
        discrete_features="auto",
        max_iter=50,
        max_time=None,
        batch_size="auto",
        learning_rate_init=1.2e-2,
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
        self.recipe = recipe
        self.marginals = marginals
        self.isometry = isometry
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
    _config_type = ManifoldPriorConfig
    _mixture: LocalMixture | None
    _mixture_dimensions: Any
    # The predictions of a fitted model depend on none of these.
    _obsolete_parameters = {
        "spread": ("recipe", {"data": "default", "latent": "paper"}),
        "prior_update": None,
        "entropy": None,
    }

    def _check_method_parameters(self, n_features):
        if self.image_shape is not None:
            check_image_shape(self, n_features)
            if len(self._layer_sizes()) == 0:
                raise ValueError("image_shape needs hidden_layer_sizes to hold at least one size.")

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

    def _make_objective(self, flow, rows, n_rows, generator, is_warm):
        device = flow.latent.mean.device
        if self.image_shape is not None and not is_warm:
            with in_float64_on_cpu(flow):
                flow.bijection.initialize(rows[:_MAX_INITIAL_ROWS])
        rows = rows.to(device, torch.float32)
        # The first rows that stand for few ones are one draw of each.
        landmarks = rows[:n_rows]
        geodesics = geodesic_distances(landmarks, generator) if self.isometry else None
        if geodesics is not None:
            with torch.no_grad():
                latents = flow.bijection.forward_and_log_det(geodesics.rows)[0]
            geodesics = unrolled(geodesics, latents)
        objective = SpreadLikelihood(
            flow,
            **_RECIPES[self.recipe],
            isometry=self.isometry,
            noise_start=self.noise_start,
            noise_floor=self.noise_floor,
            geodesics=geodesics,
            generator=generator,
        )
        objective.initialize_prior(rows)
        return objective

    def _refitted_start(self, plan, restart, report):
        # In the end the moments of all rows make the prior of a start.
        return restart

    def _finish(self, restart, fitted):
        rows = fitted.rows
        objective, flow, latent = restart.job.objective, self._flow, self._flow.latent
        # The prior still has the moments of the training rows alone.
        held_out, score = restart.job.validation_rows, np.nan
        if fitted.split.n_validation:
            # The rows that another model is scored on too.
            held_out = rows[fitted.split.validation.to(rows.device)]
        if held_out is not None:
            score = float(objective.log_likelihood(held_out.to(rows)).mean())
        objective.update_closed_form(fitted.sample)
        x = self._from_flow(rows)
        varies = varying_columns(rows).cpu()
        mean_variance = float(x.var(dim=0, correction=0)[varies].mean())
        units = DataUnits(self._standardizer, varies, mean_variance)
        shuffled = torch.randperm(len(rows), generator=objective.generator)
        picked = rows[shuffled[:_MAX_SPECTRUM_ROWS].to(rows.device)]
        with torch.no_grad():
            spectra, lengths = spectra_and_lengths(flow, picked, units, self.n_components)
            reading = read_spectra(spectra, self.noise_floor**2)
            if self.n_components is None and reading.units == "data":
                latent.order_by_variance(lengths)
                lengths = latent.component_scale
            order, all_rows, n_held_out = fitted.split.order, rows, fitted.split.n_validation
            if held_out is not None and not n_held_out:
                # They are no rows of the table.
                all_rows, n_held_out = torch.cat([held_out.to(rows), rows]), len(held_out)
                order = torch.arange(len(all_rows))
            better = better_mixture(objective, all_rows, units, score, order, n_held_out)
            # The marginals are those of the coordinates in their final order.
            latent.set_components(self.n_components or self.intrinsic_dimension_, lengths)
            if self.marginals == "spline":
                # As many rows as there are, one drawn for each of few ones.
                objective.fit_marginals(fitted.sample[: len(rows)])
        variance = latent.eigenvalues * latent.component_scale.square()
        self.n_components_ = latent.n_components
        self.local_spectrum_ = reading.spectrum
        self.prior_eigenvalues_ = variance.cpu().numpy()
        # What `local_dimension` needs.
        self._noise_variance = self.noise_floor**2
        self._units, self._mean_variance = reading.units, mean_variance
        self._varies = varies.to(torch.float64).numpy()
        self._mixture, self._mixture_dimensions = better or (None, None)
        self._set_spectral_dimension(reading.dimension)

    @standard_context()
    def local_dimension(self, X, *, scale=None):
        """Dimension of the model around each row.

        The dimension is the number of eigenvalues of a local covariance before the widest gap on a
        log scale. That is J C J', with J the Jacobian of the latent -> data map at the row and C
        the covariance of the prior, or, where a mixture of probabilistic PCAs scores better on the
        rows set aside, the covariance of the part that is most probable at the row.

        With a scale s it is the number of eigenvalues in units of the data that are above s^2: the
        derivative of the log-density by the log of added noise (LIDL [1]_) where they are far above
        and below. Near s^2 that derivative counts parts of them, which in many columns of noise add
        up to dimensions.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        scale : float, default=None
            Standard deviation, in units of the data, up to which a direction counts as noise: at
            least twice that of the noise of the rows, and below that of the shapes. None takes the
            widest gap, which needs no scale but may lie within a manifold that is thin in some
            directions. With more than 256 columns at most 20 dimensions are told apart.

        Returns
        -------
        dimension : ndarray of int of shape (n_samples,)
            Between 1 and `n_features_in_`.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the model is not fitted.
        ValueError
            If X is not finite or has other columns than in `fit`, or if the flow is the better
            model and overflows at a row, which is then far from the training rows. If `scale` is
            not positive and finite.

        References
        ----------
        .. [1] Tempczyk, P. et al. "LIDL: Local Intrinsic Dimension Estimation Using Approximate
           Likelihood". ICML 2022.

        Examples
        --------
        A segment and a disc:

        >>> import numpy as np
        >>> from skmanifoldflow import ManifoldPriorFlow
        >>> rng = np.random.RandomState(0)
        >>> t, angle = rng.uniform(size=200), rng.uniform(0, 2 * np.pi, size=400)
        >>> segment = np.column_stack([3 + t, 0 * t, 0 * t])
        >>> radius = np.sqrt(rng.uniform(size=400))
        >>> disc = np.column_stack([radius * np.cos(angle), radius * np.sin(angle), 0 * radius])
        >>> model = ManifoldPriorFlow(max_iter=2, tol=1.0, random_state=0)
        >>> model.fit(np.concatenate([segment, disc])).local_dimension([[3.5, 0, 0], [0, 0, 0]])
        array([1, 2])
        """
        X = self._check_rows(X)
        if self._mixture is not None:
            z = self._standardizer.forward_and_log_det(rows_to_tensor(X))[0]
            if scale is not None:
                dimensions = self._mixture_dimensions_at(check_scale(scale))
            else:
                dimensions = self._mixture_dimensions
            return dimensions[self._mixture.log_joint(z.numpy()).argmax(axis=1)]
        if scale is not None:
            return self._dimension_at_scale(X, check_scale(scale))
        return read_spectrum(self._local_spectra(X, np.dtype(np.float64)), self._noise_variance)

    def _mixture_dimensions_at(self, scale):
        """Return the dimensions (K,) of the parts of the mixture at a scale in data units."""
        assert self._mixture is not None
        # Without the noise that was added to the rows.
        variances = np.maximum(self._mixture.variances - self._noise_variance, 0.0)
        slope = self._standardizer.inverse_slope(torch.tensor(self._mixture.means)).numpy()
        return dimension_at_scale(self._mixture._replace(variances=variances).spectra(slope), scale)

    def _local_spectra(self, X, dtype):
        """Return the eigenvalues (n, D) of the local covariance of the flow, descending."""
        units = None
        if self._units == "data":
            varies = torch.tensor(self._varies)
            units = DataUnits(self._standardizer, varies, self._mean_variance)

        def spectra(flow, rows):
            return local_spectra(flow, self._to_flow(flow, rows)[0], units)

        return self._per_chunk(X, spectra, dtype, elements_per_row(X.shape[1]))
