"""Figures of merit that scikit-learn lacks."""

from numbers import Integral

import numpy as np
from sklearn.manifold import trustworthiness
from sklearn.pipeline import make_pipeline
from sklearn.utils import check_array, check_random_state

from ._densities import log_abs_det_jacobian
from ._unwrap import unwrap

__all__ = ["bits_per_dim", "continuity", "frechet_distance"]


def continuity(X, X_embedded, *, n_neighbors=10):
    r"""Tell to what extent neighbours stay neighbours in an embedding.

    The counterpart of :func:`sklearn.manifold.trustworthiness`, which asks whether neighbours in
    the embedding were neighbours before. Continuity [1]_ is

    .. math::

        1 - \frac{2}{nk(2n - 3k - 1)} \sum_{i=1}^n \sum_{j \in V_k(i)} (\hat r(i, j) - k)

    with :math:`\hat r(i, j)` the rank of row j among the neighbours of row i in the embedding, and
    :math:`V_k(i)` the rows that are among the k nearest of row i in X and not in the embedding.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Rows.
    X_embedded : array-like of shape (n_samples, n_components)
        Their embedding.
    n_neighbors : int, default=10
        Number k of neighbours, below n_samples / 2. The default is the one that embeddings are
        most often compared at; `trustworthiness` has 5.

    Returns
    -------
    continuity : float
        Between 0 and 1; 1 if every neighbour of a row is still one of its neighbours.

    Raises
    ------
    ValueError
        If `n_neighbors` is not below n_samples / 2.

    References
    ----------
    .. [1] Venna & Kaski, "Neighborhood preservation in nonlinear projection methods: an
           experimental study", ICANN 2001.

    Examples
    --------
    >>> import numpy as np
    >>> from skmanifoldflow.metrics import continuity
    >>> circle = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    >>> X = np.column_stack([np.cos(circle), np.sin(circle)])
    >>> f"{continuity(X, circle[:, None]):.3f}"  # cutting the circle tears neighbours apart
    '0.969'
    """
    # Trustworthiness is this sum with the two spaces in each other's place, and nothing else.
    return float(trustworthiness(X_embedded, X, n_neighbors=n_neighbors))


def bits_per_dim(model, X, *, n_levels=256, n_draws=1, random_state=None):
    r"""Return the bits per dimension that a density model needs for rows of integers.

    A density p on the cube of side `n_levels` gives integers x the probability
    :math:`P(x) = \int_{[0,1)^D} p(x + u)\,du`. By Jensen's inequality

    .. math::

        -\tfrac1D \log_2 P(x) \le -\tfrac1D \, E_{u \sim U[0,1)^D} \log_2 p(x + u),

    and the right side, averaged over rows and draws of u, is what is returned: an upper bound [1]_
    on the bits per dimension of the integers themselves. More draws make the estimate of the bound
    less noisy; they do not tighten it.

    Parameters
    ----------
    model : estimator instance
        Fitted model with `score_samples`, the log-density in nats of rows in the units of X plus
        uniform noise: fitted to ``X + u``, or to X with ``dequantize=True``. The density of a
        :class:`~sklearn.pipeline.Pipeline`, or of a search over one, is brought into the units of X
        by the log-Jacobian of its steps before the model
        (:func:`~skmanifoldflow.log_abs_det_jacobian`).
    X : array-like of shape (n_samples, n_features)
        Integers from 0 to ``n_levels - 1``.
    n_levels : int, default=256
        Number of values that a cell can take; the default is that of images of 8 bits. The uniform
        distribution needs ``log2(n_levels)`` bits per dimension.
    n_draws : int, default=1
        Number of draws of u for each row. The mean over many rows needs no more than one.
    random_state : int, RandomState instance or None, default=None
        Source of the draws.

    Returns
    -------
    bits : float
        Bits per dimension; lower is better. Infinite if a row has density 0.

    Raises
    ------
    ValueError
        If X holds anything but integers from 0 to ``n_levels - 1``, if `n_levels` or `n_draws` is
        not an integer of at least 2 or 1, or if the Jacobian of a step is not known.

    References
    ----------
    .. [1] Theis, van den Oord & Bethge, "A note on the evaluation of generative models",
           ICLR 2016, https://arxiv.org/abs/1511.01844.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from skmanifoldflow.metrics import bits_per_dim
    >>> rng = np.random.RandomState(0)
    >>> X = rng.binomial(15, 0.3, size=(1000, 2))  # entropy: 2.87 bits
    >>> model = GaussianMixture(random_state=0).fit(X + rng.random_sample(X.shape))
    >>> bits = bits_per_dim(model, X, n_levels=16, n_draws=10, random_state=1)
    >>> f"{bits:.2f}"
    '2.93'
    """
    for name, value, least in (("n_levels", n_levels, 2), ("n_draws", n_draws, 1)):
        if not isinstance(value, Integral) or value < least:
            raise ValueError(f"{name} must be an integer >= {least}, got {value!r}.")
    X = check_array(X, dtype=np.float64)
    if X.min() < 0 or X.max() > n_levels - 1 or not np.array_equal(X, np.round(X)):
        raise ValueError(
            f"X must hold integers from 0 to {n_levels - 1}, got values from {X.min():g} to "
            f"{X.max():g}."
        )
    rng, steps = check_random_state(random_state), make_pipeline(*unwrap(model)[1])
    nats = []
    for _ in range(n_draws):
        rows = X + rng.random_sample(X.shape)
        nats.append(np.mean(model.score_samples(rows) + log_abs_det_jacobian(steps, rows)))
    return float(-np.mean(nats) / (X.shape[1] * np.log(2)))


def frechet_distance(features_a, features_b):
    r"""Return the Frechet distance between the normal distributions of two sets of rows.

    With means :math:`\mu` and covariances :math:`\Sigma` of the rows [1]_,

    .. math::

        d^2 = \|\mu_a - \mu_b\|^2 + \operatorname{tr}\left(\Sigma_a + \Sigma_b
        - 2 (\Sigma_a^{1/2} \Sigma_b \Sigma_a^{1/2})^{1/2}\right),

    the square of the distance that the name promises, as the literature has it: with features of an
    Inception network it is the "FID" [2]_ by which images are judged. It is 0 for equal moments.

    Parameters
    ----------
    features_a, features_b : array-like of shape (n_samples, n_features)
        Rows, at least two each: features of images, or any others. The numbers of rows may differ.

    Returns
    -------
    distance : float
        At least 0, in squared units of the features.

    Raises
    ------
    ValueError
        If the two have different numbers of columns, fewer than two rows, or entries that are not
        finite.

    Notes
    -----
    With few rows the distance is biased upwards. Compare equal numbers of rows, and look at the
    distance between two halves of the same data first.

    References
    ----------
    .. [1] Dowson & Landau, "The Frechet distance between multivariate normal distributions",
           Journal of Multivariate Analysis 12, 1982.
    .. [2] Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash
           equilibrium", NeurIPS 2017, https://arxiv.org/abs/1706.08500.

    Examples
    --------
    >>> import numpy as np
    >>> from skmanifoldflow.metrics import frechet_distance
    >>> rng = np.random.RandomState(0)
    >>> a, b = rng.normal(0, 1, (5000, 4)), rng.normal(1, 2, (5000, 4))
    >>> f"{frechet_distance(a, b):.1f}"  # exactly 4 (0 - 1)^2 + 4 (1 - 2)^2 = 8
    '8.1'
    """
    a = check_array(features_a, dtype=np.float64, ensure_min_samples=2)
    b = check_array(features_b, dtype=np.float64, ensure_min_samples=2)
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"Both sets of rows must have as many columns, got {a.shape[1]} and {b.shape[1]}."
        )
    mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
    # With Sigma = R'R the trace of the root is the sum of the singular values of R_a R_b'. No
    # covariance is formed, so singular ones cost no digits.
    root_a = np.linalg.qr(a - mean_a, mode="r") / np.sqrt(len(a) - 1)
    root_b = np.linalg.qr(b - mean_b, mode="r") / np.sqrt(len(b) - 1)
    overlap = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    squared = ((mean_a - mean_b) ** 2).sum() + (root_a**2).sum() + (root_b**2).sum() - 2 * overlap
    return float(max(squared, 0.0))
