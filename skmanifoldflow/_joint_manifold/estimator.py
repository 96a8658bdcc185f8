"""JointManifoldFlow: a manifold and the density on it, learned in one step.

The module has more than 450 lines because of the documentation of the parameters.
"""

from dataclasses import replace
from functools import partial
from itertools import pairwise
from numbers import Integral, Real
from typing import cast

import numpy as np
import torch
from sklearn.base import _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions

from .._base import BaseManifoldFlow
from .._checks import check_image_shape, warn
from .._config import FROM_ROWS
from .._dimension import spectral_dimension
from .._few_rows import n_supported
from .._geometry import affordable_rows, mean_spectrum, noise_variance_read
from .._linear import principal_axes
from ..backend.bijections import squeezed_shapes
from ..backend.device import standard_context, to_host
from ..backend.flow import Outliers, chunks
from ..backend.serialization import load_arrays
from ..backend.training_job import SecondInterrupt
from .build import JointManifoldConfig, build_flow, initialize_flow
from .coordinates import set_coordinates
from .guides import GUIDES, MAX_TSNE_COMPONENTS, guide_rows, most_rows
from .inference import StagedFlow
from .objective import JointLikelihood
from .stages import train_stages

__all__ = ["JointManifoldFlow"]

# The manifold counts as not found if the reconstruction error exceeds that of PCA by this factor.
# PCA has the least squared error of all linear manifolds: if nothing is curved, the Huber penalty
# has an error that is some per cent larger.
_PCA_MARGIN = 1.1
# Least R^2 of the guide's coordinates of rows left out. Below it a part of the rows is elsewhere,
# as where a flow cannot reach a picture from its random weights.
_LEAST_GUIDE_SCORE = 0.9
# Share of the rows that are rebuilt better than the high quantile of their distances.
_HIGH_QUANTILE = 0.99


class JointManifoldFlow(StagedFlow, BaseManifoldFlow):
    r"""Flow whose latent space is split into a manifold and deviations from it, learned jointly.

    A bijection g maps standardised rows x to (u, v): d coordinates u on the manifold, where v = 0,
    and D - d deviations v from it. Each deviation has a narrow distribution with the density rho of
    a penalty,

    .. math:: \log p(x) = \log p_U(u) + \sum_j \log \rho(v_j) + \log |\det J_g(x)| .

    If rho has heavy tails, a learned share of the rows may follow a broad normal distribution
    instead; such outliers have little influence on the manifold.

    The training maximises the likelihood of noisy rows and, at the same time, reconstructs the
    clean rows from u alone, so that the density and the manifold come from the same fit. Further
    stages are trained afterwards. Each is a flow on the manifold coordinates of the stage before:
    it improves the density on the manifold, and it can have fewer coordinates, which gives nested
    manifolds.

    The method follows the abstract of [1]_: training in one step, a penalised split and several
    stages. The equations and the constants are choices of this package, and so is the
    reconstruction of clean rows, which comes from [2]_.

    Parameters
    ----------
    n_components : int or None, default=None
        Number of coordinates d of the manifold. None chooses the number of principal components,
        smaller than the number of columns, whose probabilistic PCA has the best Bayesian
        information criterion. PCA does not see curvature: give the dimension of a curved sheet if
        you know it, such as `intrinsic_dimension_` of a first fit. That is not taken by itself,
        because a closed surface is rebuilt only from more coordinates than it has dimensions.
        With as many coordinates as columns there are no deviations, and the model is a
        plain flow.
    n_stages : int, default=2
        Number of stages, each with d coordinates. With 1, u ~ N(0, I). Ignored if
        `stage_components` is given.
    stage_components : tuple of int or None, default=None
        Number of coordinates of each stage after the first, none larger than that of the stage
        before. With ``n_components=10, stage_components=(8, 2)`` the manifold of 10 dimensions
        contains one of 8 dimensions, which contains one of 2: see the argument `stage` of
        `transform`.
    flow : {"affine", "spline", "additive"}, default="affine"
        Kind of the couplings between coordinates and deviations. Stages that keep the number of
        coordinates always use spline couplings.
    n_layers : int, default=8
        Number of couplings. Couplings that map the coordinates given the deviations alternate with
        couplings that map the deviations given the coordinates.
    hidden_layer_sizes : int or tuple of int, default=(64, 64)
        Sizes of the hidden layers in the network of each coupling. With ``split="channel"`` the
        couplings of the first stage use the first entry only, as their number of hidden channels.
    image_shape : tuple of int or None, default=None
        Shape (C, H, W) of rows that are images, flattened channel by channel. All pixels of a
        channel are then standardised by one mean and one scale, so that errors count the same in
        each pixel.
    split : {"flat", "channel"}, default="flat"
        Initial coordinates. "flat" takes the leading principal components of the rows. "channel"
        takes the leading channels of a squeezed image, (C, H, W) -> (4C, H/2, W/2), rotated to
        principal axes at each of its pixels, and uses convolutional couplings. It needs
        `image_shape`, and `n_components` must be a multiple of the number of pixels that are left
        after one or more squeezes.
    penalty : {"huber", "laplace", "gaussian"}, default="huber"
        Distribution rho of a deviation in units of its scale; each deviation has its own scale.
        "huber" is a normal distribution with exponential tails beyond 1.345 scales, "laplace" a
        Laplace distribution and "gaussian" a normal distribution. The residuals of reconstructions
        have this distribution too. With "huber" and "laplace", which have heavy tails, a learned
        share of the rows may follow a broad normal distribution instead in the training: such
        outliers have little influence on the manifold. In the density the background of heavy tails
        takes their place.
    reconstruction : float, default=1.0
        Weight of the log-density of the residuals relative to the log-likelihood. The scale of the
        residuals is estimated from the rows in every step, so that the weight does not depend on
        units. With 0 the likelihood alone decides which part of a row is manifold, which rarely
        finds the manifold.
    guide : {"tsne", "isomap", "umap", "precomputed"}, estimator or None, default=None
        Method whose coordinates those of the first stage are drawn to: scikit-learn's t-SNE or
        Isomap at their defaults (10 neighbours), UMAP of umap-learn, any estimator with
        `fit_transform`, or coordinates that `fit` takes as `guide_coordinates`. The model then has
        the picture of that method, and a density, an inverse and coordinates of new rows beside
        it; see the Notes. An estimator is cloned, and a `random_state` of it that is None is given
        a seed; its parameters are set by names such as ``guide__perplexity``. t-SNE has at most 3
        components. None leaves the coordinates to the likelihood and the reconstruction.
    guide_weight : float, default=1.0
        Weight of the guide. 1 stands for 4 nats for each column and an error as large as the root
        mean square of the guide's coordinates; less gives a better density, more a picture that is
        closer to that of the guide. Ignored without a guide.
    noise_start : float, default=0.3
        Initial standard deviation of the noise that is added to training rows, in standardised
        units; at least `noise_floor`. It falls to `noise_floor` over the first half of the
        training, so that coarse structure is learned before fine structure.
    noise_floor : float, default=0.002
        Final standard deviation of the noise that is added to training rows, and smallest scale of
        a deviation, in standardised units. It bounds the likelihood of rows that lie exactly on a
        manifold.
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
    max_iter : int, default=200
        Largest number of epochs of the first stage; each further stage takes half as many. The
        first stage also ends after 8000 gradient steps, and each further stage after 4000; from
        some thousand rows on, these limits are reached before `max_iter`.
    max_time : float or None, default=None
        Seconds of wall time for the fit; None sets no limit. The schedule of the learning rate
        then ends with the time, if not before with `max_iter`, and the best weights are kept. What
        comes before and after the training is not cut short. How far a fit comes in its time
        depends on the machine, whatever `random_state` is.
    batch_size : int or "auto", default="auto"
        Number of rows of a gradient step. "auto" is an eightieth of the rows, at least 64 and at
        most 256.
    learning_rate_init : float, default=5e-3
        Peak of the one-cycle learning rate.
    weight_decay : float, default=0.0
        Decoupled weight decay of the networks.
    early_stopping : bool or "auto", default="auto"
        Whether rows are set aside to choose the best weights and to end the training early. "auto"
        does so if there are at least 40 rows; with fewer rows nothing is trained, and the model is
        its linear initialization.
    validation_fraction : float, default=0.1
        Share of the rows that are set aside; at least 10 rows are.
    n_iter_no_change : int, default=40
        Number of epochs without an improvement by `tol` after which the training ends. They count
        from a quarter of the training on, and only after the noise has reached its floor.
    tol : float, default=1e-4
        Smallest improvement of the score, in nats per row.
    n_init : int, default=3
        Largest number of fits from different random weights. Another fit is made only if the last
        one reconstructs rows worse than PCA with as many components, or if its `guide_score_` is
        below 0.9. Of the fits without such a fault (of all, if none is), the one with the best
        validation score is kept; with a guide, of those that are not worse than that by one
        standard error, the one with the best `guide_score_`.
    warm_start : bool, default=False
        Whether to start from the weights of the previous fit, if the number of columns and the
        parameters that shape the model are the same; `n_init` is then ignored. A Ctrl-C in a
        further stage leaves a model with fewer stages, whose weights the next fit does not use.
    device : str or torch.device, default="auto"
        "auto" (CUDA if present, else CPU), "cpu", "cuda", "cuda:<index>" or "mps". MPS has no
        float64, so results there have float32 accuracy.
    random_state : int, RandomState instance or None, default=None
        Source of initial weights, noise and validation rows.
    verbose : int, default=0
        If positive, print a line per epoch: the number of the epoch and of all epochs, the score,
        the elapsed time and the longest time that may be left. The model does not depend on it.

    Attributes
    ----------
    n_components_ : int
        Number of coordinates.
    stage_components_ : tuple of int
        Number of coordinates of each stage, including the first one.
    stage_scores_ : list of float
        Mean log-likelihood after each stage, in nats per standardised row, of the rows that were
        set aside, or of the training rows if none were.
    best_stage_ : int
        Stage with the best of these scores, from 1. `score_samples`, `score` and `sample` use the
        stages up to this one. A nested stage with fewer coordinates can fit the rows less well than
        the stage before, because the coordinates that it drops get the simple distribution of a
        deviation.
    reconstruction_error_ : float
        Mean squared error per entry, in standardised units, of the same rows reconstructed from
        their coordinates. Rows are weighted by their probability of not being outliers. It is 0
        with as many coordinates as columns.
    pca_reconstruction_error_ : float
        The same error of PCA with as many components, fitted to the training rows.
    reconstruction_distances_ : ndarray of shape (2,)
        Mean and 99 % quantile of the distances of the same rows from their reconstructions, in
        units of the data. Here rows count alike, so that outliers, which `reconstruction_error_`
        hardly counts, are seen.
    deviation_scale_ : ndarray of shape (`n_features_in_` - `n_components_`,)
        Scale of each deviation, in units of the latent space. The scales that were learned are
        multiplied by one common factor, its maximum likelihood estimate from the rows that were set
        aside.
    outlier_share_ : float
        Share of the rows that counted as outliers in the training. It is 0 with
        ``penalty="gaussian"``, or as many coordinates as columns, and 0.01 if nothing is trained.
    guide_score_ : float
        R^2 of the guide's coordinates, as the flow gives them to a tenth of the rows that the guide
        was fitted to and that were left out of the term. It is nan without a guide, with fewer
        than 15 rows, and where nothing is trained.
    intrinsic_dimension_ : int
        Dimension of the rows, ``dimension_report_.dimension``: the number that
        :func:`intrinsic_dimension` reads from them, the same for every estimator.
    dimension_report_ : DimensionReport
        The readings behind it. Its `spectral_dimension` is the number of eigenvalues of
        `local_spectrum_` before its widest gap on a log scale. Standard deviations below 0.02, in
        standardised units, count as noise.
    local_spectrum_ : ndarray of shape (`n_features_in_`,)
        Eigenvalues of the model's local covariance J C J', in standardised units, descending. J is
        the Jacobian of the inverse flow, and C the covariance of (u, v). Each is a geometric mean
        over at most 256 training rows, fewer if there are many columns.
    n_iter_ : int
        Number of epochs of the first stage.
    tail_weight_ : float
        Weight of the background of heavy tails, a multivariate t distribution with 3 degrees of
        freedom that is part of the density and of draws; learned from the rows set aside, and
        1 / (n + 1) at least, where n is the number of training rows.
    kept_start_ : bool
        Whether the first stage is still the probabilistic PCA that its training started from, as
        no epoch was clearly better on the rows set aside, or none was run.
    loss_curve_ : list of float
        Mean training loss of each epoch of the first stage, in nats per standardised row: negative
        log-likelihood of noisy rows plus negative log-density of the residuals.
    validation_scores_ : list of float
        Mean of log-likelihood plus log-density of the residuals of the validation rows, after each
        epoch of the first stage, in nats per standardised row; empty if no rows were set aside.
    stage_loss_curves_, stage_validation_scores_ : list of list of float
        `loss_curve_` and `validation_scores_` of each stage. A stage with as many coordinates as
        the one before rebuilds nothing: its loss is the negative log-likelihood alone.
    device_ : str
        Device on which the model computes.
    columns_ : Columns
        What each column holds, as read from the training rows: kind, step, atoms, bounds, scale and
        dummies. It prints as a table and is a sequence of `Column`; with `image_shape` the pixels
        are one kind of column.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if X had any.

    Warns
    -----
    ConvergenceWarning
        If no fit reconstructs the rows that were set aside as well as PCA.

    See Also
    --------
    ManifoldPriorFlow : Finds the dimension, keeps distances.
    NoisyInjectiveFlow : Density first, with a linear map in the latent space.
    sklearn.decomposition.PCA : Linear manifold, at which this model is initialized.

    Notes
    -----
    Coordinates have the units of the data, as those of PCA: a step of length one in a coordinate
    moves a row by one unit, root mean square over training rows, and different coordinates move it
    in directions that are orthogonal on average. Coordinates are in descending order of their
    variance over the training rows.

    With a guide, the first stage also minimises the mean absolute error between the coordinates of
    the guide and those that the flow gives to the same rows with noise, as long as rows are apart,
    after a scale and a shift that are learned. Such a regression is due to [4]_, there by a network
    without inverse and density. The guide is fitted to the standardised rows that are trained on,
    each once: of more than 10 000, or 4000 with Isomap, to a random part, which the term then
    uses. Neither the guide nor rows are kept. Coordinates of the first stage are then those of the
    guide but for a turn, a shift and one unit, chosen so that a step of length one moves a row by
    one unit in the mean over all directions.

    Of fewer than ten rows per column the covariance is shrunk, in the start and in what is trained
    on: rows are drawn to their mean and get normal noise, and the scales of columns are drawn to
    each other, each as far as rows left out favour it. A training must then better its start by a
    t-test of level .001 on the rows set aside; `kept_start_` tells whether it has.

    References
    ----------
    .. [1] "Joint Manifold Learning and Density Estimation Using Normalizing Flows". 2022.
       arXiv:2206.03293.
    .. [2] Horvat, C., Pfister, J.-P. "Denoising Normalizing Flow". NeurIPS 2021.
    .. [3] Brehmer, J., Cranmer, K. "Flows for simultaneous manifold learning and density
       estimation". NeurIPS 2020. arXiv:2003.13913.
    .. [4] Espadoto, M., Hirata, N. S. T., Telea, A. C. "Deep learning multidimensional
       projections". Information Visualization 19, 2020.

    Examples
    --------
    >>> from skmanifoldflow import JointManifoldFlow
    >>> from skmanifoldflow.datasets import SCurve
    >>> X, _ = SCurve(noise=0.05).sample(300, random_state=0)
    >>> model = JointManifoldFlow(2, n_layers=4, max_iter=30, random_state=0).fit(X)
    >>> model.transform(X).shape
    (300, 2)
    >>> model.reconstruction_error_ < model.pca_reconstruction_error_
    True
    >>> model.sample(3, manifold_deviation=0.0, random_state=0).shape
    (3, 3)
    >>> unrolled = JointManifoldFlow(2, n_layers=4, guide="isomap", max_iter=30, random_state=0)
    >>> bool(unrolled.fit(X).guide_score_ > 0.9)
    True
    """

    _parameter_constraints: dict = {
        **BaseManifoldFlow._parameter_constraints,
        "n_stages": [Interval(Integral, 1, None, closed="left")],
        "stage_components": [tuple, list, None],
        "flow": [StrOptions({"affine", "spline", "additive"})],
        "image_shape": [tuple, list, None],
        "split": [StrOptions({"flat", "channel"})],
        "penalty": [StrOptions({"huber", "laplace", "gaussian"})],
        "reconstruction": [Interval(Real, 0, None, closed="left")],
        "guide": [StrOptions(set(GUIDES)), HasMethods(["fit_transform"]), None],
        "guide_weight": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(
        self,
        n_components=None,
        *,
        n_stages=2,
        stage_components=None,
        flow="affine",
        n_layers=8,
        hidden_layer_sizes=(64, 64),
        image_shape=None,
        split="flat",
        penalty="huber",
        reconstruction=1.0,
        guide=None,
        guide_weight=1.0,
        noise_start=0.3,
        noise_floor=0.002,
        bounded=None,
        dequantize=False,
        discrete_features="auto",
        max_iter=200,
        max_time=None,
        batch_size="auto",
        learning_rate_init=5e-3,
        weight_decay=0.0,
        early_stopping="auto",
        validation_fraction=0.1,
        n_iter_no_change=40,
        tol=1e-4,
        n_init=3,
        warm_start=False,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.n_components = n_components
        self.n_stages = n_stages
        self.stage_components = stage_components
        self.flow = flow
        self.n_layers = n_layers
        self.hidden_layer_sizes = hidden_layer_sizes
        self.image_shape = image_shape
        self.split = split
        self.penalty = penalty
        self.reconstruction = reconstruction
        self.guide = guide
        self.guide_weight = guide_weight
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

    # ------------------------------------------------------------------ fit

    _config_type = JointManifoldConfig
    _max_steps = 8000

    @standard_context()
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self, X, y=None, sample_weight=None, *, groups=None, X_val=None, guide_coordinates=None
    ):
        """Fit the model to data.

        Parameters
        ----------
        X, y, sample_weight, groups, X_val
            As of the other flows: see :meth:`ManifoldPriorFlow.fit`.
        guide_coordinates : array-like of shape (n_samples, n_components), default=None
            Coordinates of the rows of X, in any units, with ``guide="precomputed"``.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            Where the other flows raise it; if `guide_coordinates` are given with another guide, or
            missing; if they, or the coordinates of the guide, are not finite, all equal, or not
            `n_components` for each row.
        ImportError
            If ``guide="umap"`` and umap-learn is not installed.
        FloatingPointError, KeyboardInterrupt
            As of the other flows.

        Warns
        -----
        ConvergenceWarning, UserWarning
            As of the other flows.
        ConvergenceWarning
            If no fit reconstructs the rows that were set aside as well as PCA.

        Examples
        --------
        >>> from skmanifoldflow import JointManifoldFlow
        >>> from skmanifoldflow.datasets import SwissRoll
        >>> X, u = SwissRoll(noise=0.05).sample(300, random_state=0)
        >>> flow = JointManifoldFlow(2, guide="precomputed", max_iter=20, random_state=0)
        >>> flow.fit(X, guide_coordinates=u).transform(X).shape
        (300, 2)
        """
        if (guide_coordinates is None) == (self._guide_name() == "precomputed"):
            raise ValueError("guide='precomputed' and guide_coordinates need each other.")
        if guide_coordinates is not None:
            guide_coordinates = check_array(
                guide_coordinates, dtype=np.float64, input_name="guide_coordinates"
            )
            check_consistent_length(X, guide_coordinates)
        return self._fit_or_restore(X, sample_weight, groups, X_val, guide_coordinates)

    def _guide_name(self):
        """Return the name of the guide, or None."""
        return self.guide if isinstance(self.guide, str) else None

    def _check_method_parameters(self, n_features):
        if self._guide_name() == "tsne" and (self.n_components or 0) > MAX_TSNE_COMPONENTS:
            raise ValueError(
                f"guide='tsne' has at most {MAX_TSNE_COMPONENTS} components, got n_components="
                f"{self.n_components}: the Barnes-Hut approximation of scikit-learn ends there."
            )
        if self.image_shape is not None:
            check_image_shape(self, n_features)
        if self.split == "channel":
            self._check_channels(n_features)
        if self.stage_components is not None:
            sizes = tuple(self.stage_components)
            if not sizes or any(not isinstance(k, Integral) or k < 1 for k in sizes):
                raise ValueError(
                    f"stage_components must hold integers >= 1, got {self.stage_components!r}."
                )
            first = n_features if self.n_components is None else self.n_components
            if any(after > before for before, after in pairwise((first, *sizes))):
                raise ValueError(
                    f"stage_components={sizes} must not rise, nor begin above n_components={first}."
                )

    def _check_channels(self, n_features):
        if self.image_shape is None:
            raise ValueError("split='channel' needs image_shape.")
        if len(self._layer_sizes()) == 0:
            raise ValueError("split='channel' needs hidden_layer_sizes to hold at least one size.")
        sizes = [h * w for _, h, w in squeezed_shapes(tuple(self.image_shape))]
        d = self.n_components
        if d is None or d >= n_features or not any(d % size == 0 for size in sizes):
            raise ValueError(
                f"split='channel' with image_shape={tuple(self.image_shape)} needs n_components "
                f"below {n_features} that is a multiple of one of {sizes}, got {d}."
            )

    def _auto_batch_size(self, n_samples, n_features):
        return max(64, min(256, n_samples // 80))

    def _choices(self, n_features):
        further = self.stage_components
        return JointManifoldConfig(
            n_features=n_features,
            n_layers=self.n_layers,
            hidden_layer_sizes=self._layer_sizes(),
            flow=self.flow,
            image_shape=self._image_shape(),
            bounded=self.bounded,
            n_components=FROM_ROWS if self.n_components is None else int(self.n_components),
            n_stages=self.n_stages,
            stage_components=None if further is None else tuple(map(int, further)),
            split=self.split,
            penalty=self.penalty,
            noise_floor=self.noise_floor,
        )

    def _read_rows(self, choices, n_rows, rows, shrinkage):
        if choices.n_components is not FROM_ROWS:
            return choices
        # Deviations have heavier tails than noise, which few rows do not show.
        d = n_supported(rows, None) if shrinkage is None else shrinkage.most_components
        # scikit-learn's t-SNE has no more coordinates.
        is_tsne = isinstance(self.guide, str) and self.guide == "tsne"
        return replace(choices, n_components=min(d, 3) if is_tsne else d)

    @staticmethod
    def _build_flow(config, generator):
        return build_flow(config, generator)

    def _make_objective(self, flow, rows, n_rows, generator, is_warm):
        if not is_warm:
            initialize_flow(flow, rows, self.noise_floor)
        mean, axes, _ = principal_axes(rows.numpy())
        d = flow.latent.n_components
        has_outliers = self.penalty != "gaussian" and d < rows.shape[1]
        return JointLikelihood(
            flow,
            pca=(mean, axes[:, :d]),
            reconstruction=self.reconstruction,
            noise_start=self.noise_start,
            noise_floor=self.noise_floor,
            generator=generator,
            outliers=Outliers() if has_outliers else None,
        )

    def _prepare_restart(self, plan, seed, first):
        restart = super()._prepare_restart(plan, seed, first)
        objective = cast(JointLikelihood, restart.job.objective)
        if self.guide is not None and any(p.requires_grad for p in objective.parameters()):
            # All starts have the coordinates of the first one.
            guided = first and first.job.objective.guide.guided
            guided = guided or self._guided_rows(plan, restart)
            objective.set_guide(guided, self.guide_weight)
        return restart

    def _guided_rows(self, plan, restart):
        """Return rows that are trained on with the coordinates of the guide."""
        table, split = plan.table, plan.split
        # Copies have one place, whose weight is theirs.
        index = split.distinct(split.training)[: most_rows(self.guide)]
        weights = table.weights
        if split.groups is not None or weights is not None:
            weights = torch.ones(len(table), dtype=torch.float64) if weights is None else weights
            weights = split.weights_of(index, weights)
        given = plan.guide_coordinates
        return guide_rows(
            self.guide,
            restart.prepare(table.take(index)),
            weights,
            plan.config.n_components,
            seed=restart.seed,
            coordinates=None if given is None else given[index.numpy()],
        )

    def _train_restarts(self, plan):
        """Train one restart after the other, until one has found the manifold."""
        trained: list = []
        is_interrupted = False
        try:
            for seed in plan.seeds:
                restart = self._prepare_restart(plan, seed, trained[0] if trained else None)
                stages = train_stages(restart.job, partial(self._stage_log, plan, len(trained)))
                trained.append(restart._replace(result=stages))
                is_interrupted = stages.is_interrupted
                if is_interrupted or self._is_settled(stages) or stages.report.is_out_of_time:
                    break
        except SecondInterrupt:
            raise
        except KeyboardInterrupt:
            if not trained:
                raise
            # A restart that was finished is a model.
            is_interrupted = True
        trained = self._closest_to_guide(trained)
        return trained, [restart.result.report for restart in trained], is_interrupted

    def _closest_to_guide(self, trained):
        """Return of trained restarts the one that is closest to its guide, or all without a guide.

        Only those are compared whose validation scores are within one standard error of the best.
        """
        if len(trained) == 1 or trained[0].job.objective.guide is None:
            return trained
        best = max(trained, key=lambda restart: self._rank(restart, restart.result.report))
        settled = self._is_settled(best.result)
        level = []
        for restart in trained:
            loss = best.result.row_scores - restart.result.row_scores
            is_level = loss.mean() <= loss.std() / np.sqrt(len(loss))
            if is_level and self._is_settled(restart.result) == settled:
                level.append(restart)
        return [max(level, key=lambda restart: restart.result.guide_score)]

    def _stage_log(self, plan, n_restarts, stage, n_later):
        """Return what reports the epochs of a stage, after `n_restarts` restarts, or None."""
        restart = f"start {n_restarts + 1}" if n_restarts else ""
        return self._log(plan, ", ".join(filter(None, (restart, stage))), n_later)

    def _rank(self, restart, report):
        stages = restart.result
        has_found = self._finds_manifold(stages), self._is_settled(stages)
        return *has_found, super()._rank(restart, report)

    def _is_settled(self, stages):
        """Tell whether a trained restart has found the manifold, and the picture of its guide."""
        # The score is no number without a guide.
        return self._finds_manifold(stages) and not stages.guide_score < _LEAST_GUIDE_SCORE

    def _finds_manifold(self, stages):
        """Tell whether the reconstructions of a trained restart are as good as those of PCA."""
        slack = self.noise_floor**2
        return stages.reconstruction_error <= _PCA_MARGIN * stages.pca_error + slack

    def _reached(self, plan, report):
        n_stages = len(plan.config.all_stages)
        if n_stages == 1:
            return super()._reached(plan, report)
        return f"{super()._reached(plan, report)} in stage {len(self.stage_scores_)} of {n_stages}"

    def _adopt(self, plan, restart):
        """Take the flow of a trained restart, which has fewer stages after Ctrl-C."""
        config, n_stages = plan.config, len(restart.job.objective.latent.stages)
        if n_stages < len(config.all_stages):
            further = config.stage_components and config.stage_components[: n_stages - 1]
            config = replace(config, n_stages=n_stages, stage_components=further)
        super()._adopt(plan._replace(config=config), restart)

    def _refitted_start(self, plan, restart, report):
        # Later stages are built on the first one.
        return restart

    @staticmethod
    def _load(flow, arrays):
        if "outliers.share" in arrays:
            # In models of earlier versions they are part of the density.
            flow.outliers = Outliers()
        load_arrays(flow, arrays)

    def _restore(self, flow):
        super()._restore(flow)
        # Models of the first version have no best stage: they use all stages.
        flow.latent.n_used = getattr(self, "best_stage_", None)

    def _finish(self, restart, fitted):
        rows = fitted.rows
        objective, stages = restart.job.objective, restart.result
        latent = self._flow.latent
        self.n_components_ = latent.n_components
        self.stage_components_ = tuple(stage.n_components for stage in latent.stages)
        self.stage_scores_ = list(stages.scores)
        self.stage_loss_curves_ = [list(losses) for losses, _ in stages.curves]
        self.stage_validation_scores_ = [list(scores) for _, scores in stages.curves]
        self.best_stage_ = latent.n_used = 1 + int(np.argmax(stages.scores))
        self.reconstruction_error_ = stages.reconstruction_error
        self.pca_reconstruction_error_ = stages.pca_error
        order = torch.randperm(len(rows), generator=objective.generator).to(rows.device)
        rows = rows[order]
        is_inlying = objective.inlying(rows) >= 0.5
        # Far from the other rows the map is arbitrary, so outliers do not count for the geometry.
        rows = rows[is_inlying] if is_inlying.sum() >= 2 else rows
        self.local_spectrum_ = mean_spectrum(
            self._flow, rows[: affordable_rows(rows.shape[1] ** 2)]
        )
        self._noise_variance = noise_variance_read(self.noise_floor)
        self._set_spectral_dimension(spectral_dimension(self.local_spectrum_, self._noise_variance))
        guide = objective.guide
        set_coordinates(self._flow, self._standardizer, rows, guide and guide.scale().detach())
        self.guide_score_ = stages.guide_score
        self.reconstruction_distances_ = self._reconstruction_distances(restart, fitted)
        self.deviation_scale_ = latent.scales().cpu().numpy()
        outliers = objective.outliers
        self.outlier_share_ = 0.0 if outliers is None else float(outliers.share)
        if not self._finds_manifold(stages):
            warn(
                f"The manifold was not found: rows set aside are reconstructed with a mean squared "
                f"error of {self.reconstruction_error_:.3g} per entry in standardised units, "
                f"by PCA with {self.n_components_} components with "
                f"{self.pca_reconstruction_error_:.3g}. Increase max_iter, n_layers, "
                "reconstruction or n_init.",
                ConvergenceWarning,
            )

    def _reconstruction_distances(self, restart, fitted):
        """Return the mean and a high quantile of the distances of rows from their reconstructions.

        They are those of the validation rows, or of the training rows where there are none.
        """
        rows = restart.job.validation_rows
        rows = fitted.rows if rows is None else rows.to(fitted.rows)
        flow, parts = self._flow, list(chunks(*rows.shape))
        with torch.no_grad():
            u = torch.cat([flow.project(rows[part]) for part in parts])
            points = torch.cat([flow.embed(u[part]) for part in parts])
            typical = float((points - rows).norm(dim=1).median())
            self._typical_distance = max(typical, self.noise_floor)
            self._mean_row = to_host(fitted.rows).mean(0).numpy()
            u = torch.cat([self._nearer(flow, rows[part], u[part]) for part in parts])
            rebuilt = torch.cat([self._embed(flow, u[part]) for part in parts])
        distances = (rebuilt - self._from_flow(rows)).norm(dim=1).numpy()
        return np.array([distances.mean(), np.quantile(distances, _HIGH_QUANTILE)])
