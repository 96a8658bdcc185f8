"""Probabilistic PCA and factor analysis of rows: axes, variances, and how many are supported."""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning

__all__ = ["factor_analysis", "principal_axes", "supported_components"]

# Least variance of a column in a factor analysis, which divides by it. In standardised units it is
# negligible beside the variance of columns that vary.
_LEAST_VARIANCE = 1e-9


def supported_components(eigenvalues, n):
    """Return the number of principal components that n rows support, less than all of them.

    The number is the one whose probabilistic PCA has the best Bayesian information criterion
    (Schwarz, 1978), given the variances (..., D) of the rows along their principal axes,
    descending. D - 1 components already allow any covariance.
    """
    n_features = eigenvalues.shape[-1]
    n = np.asarray(n)[..., None]
    if n_features == 1:
        return np.ones(eigenvalues.shape[:-1], dtype=int)
    # The log of a variance of zero would decide alone.
    largest = eigenvalues.max(axis=-1, keepdims=True)
    eigenvalues = np.maximum(eigenvalues, 1e-6 * largest + np.finfo(float).tiny)
    d = np.arange(1, n_features)
    noise = eigenvalues[..., ::-1].cumsum(axis=-1)[..., ::-1][..., 1:] / (n_features - d)
    log_det = np.log(eigenvalues).cumsum(axis=-1)[..., :-1] + (n_features - d) * np.log(noise)
    n_parameters = n_features * d - d * (d - 1) / 2
    criterion = -0.5 * n * log_det - 0.5 * n_parameters * np.log(np.maximum(n, 1.0))
    return d[np.argmax(criterion, axis=-1)]


def factor_analysis(centred, start, floor):
    """Return the better of two linear models with diagonal noise: `start`, or a factor analysis.

    A model is directions (D, d), variances (d,) along them, and noise variances (D,) of at least
    `floor`. The better model is the one under which the centred rows have the higher likelihood.
    """
    # This import is slow, and no default needs it.
    from sklearn.decomposition import FactorAnalysis

    n, n_features = centred.shape
    # Added rows along the axes give every column a variance, constant and repeated columns too.
    added = np.sqrt(0.5 * n * _LEAST_VARIANCE) * np.eye(n_features)
    scale = np.sqrt((n + 2 * n_features) / n)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = FactorAnalysis(start[0].shape[1], tol=1e-8, max_iter=1000, svd_method="lapack")
        model.fit(scale * np.concatenate([centred, added, -added]))
    loadings = model.components_.T
    variances = (loadings**2).sum(axis=0)
    # A factor that explains far less than the noise of any column is rounding. It gets a direction
    # orthogonal to those of the other factors, and variance 0.
    explains = variances > 1e-3 * floor
    directions = np.zeros_like(loadings)
    directions[:, explains] = loadings[:, explains] / np.sqrt(variances[explains])
    n_explaining = np.count_nonzero(explains)
    completed = np.linalg.qr(np.concatenate([directions[:, explains], start[0]], axis=1))[0]
    directions[:, ~explains] = completed[:, n_explaining : len(variances)]
    variances = np.where(explains, variances, 0.0)
    refined = (directions, variances, np.maximum(model.noise_variance_, floor))
    covariance = centred.T @ centred / n + floor * np.eye(n_features)
    return max(start, refined, key=lambda model: _log_likelihood(model, covariance))


def _log_likelihood(model, covariance):
    """Return the mean log-likelihood of rows with a covariance, up to a constant.

    It is -inf where the model is not finite.
    """
    directions, variances, noise = model
    fitted = (directions * variances) @ directions.T + np.diag(noise)
    if not np.isfinite(fitted).all():
        return -np.inf
    log_det = np.linalg.slogdet(fitted)[1]
    return -0.5 * (log_det + np.trace(np.linalg.solve(fitted, covariance)))


def principal_axes(y):
    """Return the mean, the principal axes (D, D) and the variances (D,) of rows, as PCA does.

    The largest entry of each axis is positive.
    """
    mean = y.mean(0)
    eigenvalues, eigenvectors = np.linalg.eigh(np.atleast_2d(np.cov(y.T)))
    largest = np.take_along_axis(
        eigenvectors, np.abs(eigenvectors).argmax(axis=0, keepdims=True), axis=0
    )
    eigenvectors = eigenvectors * np.where(largest < 0, -1.0, 1.0)
    return mean, eigenvectors[:, ::-1].copy(), eigenvalues[::-1].copy()
