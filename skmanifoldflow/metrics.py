"""Figures of merit that scikit-learn lacks."""

from numbers import Integral

import numpy as np
from sklearn.manifold import trustworthiness
from sklearn.utils import check_array, check_random_state

__all__ = ["bits_per_dim", "continuity"]


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
        uniform noise: fitted to ``X + u``, or to X with ``dequantize=True``. In a pipeline that
        rescales the rows the density is in other units and the result is wrong by the log of the
        scale.
    X : array-like of shape (n_samples, n_features)
        Integers from 0 to ``n_levels - 1``.
    n_levels : int, default=256
        Number of values that a cell can take; the default is that of images of 8 bits. The uniform
        law needs ``log2(n_levels)`` bits per dimension.
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
        If X holds anything but integers from 0 to ``n_levels - 1``, or if `n_levels` or `n_draws`
        is not an integer of at least 2 or 1.

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
    rng = check_random_state(random_state)
    nats = [np.mean(model.score_samples(X + rng.random_sample(X.shape))) for _ in range(n_draws)]
    return float(-np.mean(nats) / (X.shape[1] * np.log(2)))
