"""What embeddings keep of neighbourhoods."""

from sklearn.manifold import trustworthiness

__all__ = ["continuity"]


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
