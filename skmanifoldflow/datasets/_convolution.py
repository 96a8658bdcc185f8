"""Log-densities of normal noise around simple sets: closed forms and one-dimensional quadrature."""

import numpy as np
from scipy import special

# Gauss-Legendre on a panel as wide as the noise: 6 nodes leave a relative error of about 1e-11,
# and one halving settles it.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(6)
_MAX_ELEMENTS = 2_000_000
_MAX_HALVINGS = 30


def log_normal(squared_distance, n_features, noise):
    """Log-density of N(0, noise^2 I) in R^n_features at a given squared norm."""
    return -0.5 * (squared_distance / noise**2 + n_features * np.log(2 * np.pi * noise**2))


def log_noisy_interval(x, low, high, noise):
    """Log-density of U[low, high] + N(0, noise^2) at x."""
    below, above = (low - x) / noise, (high - x) / noise
    # Both limits are reflected into the lower tail, where log_ndtr keeps all digits.
    flip = below > 0
    below, above = np.where(flip, -above, below), np.where(flip, -below, above)
    log_above = special.log_ndtr(above)
    log_mass = log_above + np.log(-np.expm1(special.log_ndtr(below) - log_above))
    return log_mass - np.log(high - low)


def log_noisy_sphere(distance, radius, n_features, noise):
    """Log-density of N(0, noise^2 I) around the uniform distribution on the sphere of R^n_features.

    ``distance`` is that of the rows to the centre; it and ``radius`` broadcast. The uniform
    average of exp(kappa cos) over the sphere is Gamma(nu + 1) (2 / kappa)^nu I_nu(kappa) with
    nu = n_features / 2 - 1 and kappa = distance * radius / noise^2.
    """
    mean = _log_mean_exp_cosine(distance * radius / noise**2, n_features / 2 - 1)
    return log_normal((distance - radius) ** 2, n_features, noise) + mean


def _log_mean_exp_cosine(kappa, nu):
    """Log of [Gamma(nu + 1) (2 / kappa)^nu I_nu(kappa) exp(-kappa)], free of overflow."""
    if nu >= 40:
        return _debye(kappa, nu)
    # Circles and spheres fill the inner loop of the integrals: forms that are ten times faster.
    if nu == 0:
        return np.log(special.i0e(kappa))
    if nu == 0.5:
        kappa = np.maximum(kappa, 1e-300)
        return np.log(-np.expm1(-2 * kappa) / (2 * kappa))
    small = np.log(special.hyp0f1(nu + 1, np.minimum(kappa, 1) ** 2 / 4)) - np.minimum(kappa, 1)
    # ive loses its argument range near 1e9; beyond 1e7 three terms of Hankel's expansion are exact.
    middle = np.log(special.ive(nu, np.clip(kappa, 1, 1e7)))
    large = np.maximum(kappa, 1e7)
    a1, a2 = (4 * nu**2 - 1) / 8, (4 * nu**2 - 1) * (4 * nu**2 - 9) / 128
    hankel = np.log1p(-a1 / large + a2 / large**2) - 0.5 * np.log(2 * np.pi * large)
    log_ive = np.where(kappa > 1e7, hankel, middle)
    scale = special.gammaln(nu + 1) - nu * np.log(np.maximum(kappa, 1) / 2)
    return np.where(kappa < 1, small, scale + log_ive)


def _debye(kappa, nu):
    """Evaluate the same by Debye's expansion (DLMF 10.41.3): error nu^-4 for any kappa."""
    z = kappa / nu
    root = np.sqrt(1 + z**2)
    p = 1 / root
    u1 = (3 * p - 5 * p**3) / 24
    u2 = (81 * p**2 - 462 * p**4 + 385 * p**6) / 1152
    u3 = (30375 * p**3 - 369603 * p**5 + 765765 * p**7 - 425425 * p**9) / 414720
    # (2 / kappa)^nu cancels against the leading power of I_nu, so kappa = 0 is no special case.
    return (
        special.gammaln(nu + 1)
        + nu * (np.log(2 / nu) - np.log1p(root) + 1 / (root + z))
        - 0.5 * np.log(2 * np.pi * nu * root)
        + np.log1p(u1 / nu + u2 / nu**2 + u3 / nu**3)
    )


def uniform_panels(low, high, width):
    """Edges of equal panels at most `width` wide; an even number keeps the middle an edge."""
    n_panels = 2 * max(8, int(np.ceil((high - low) / width / 2)))
    return np.linspace(low, high, n_panels + 1)


def log_integral(log_integrand, n_rows, edges):
    """Log of the integral of exp(log_integrand(row, t)) over t, for every row.

    ``log_integrand(rows, t)`` takes row numbers (m, 1) and parameters (m or 1, k) and returns
    (m, k). A row's panels that cannot matter are dropped by their midpoints, the others are
    integrated by Gauss-Legendre and halved until the row's value stands still.
    """
    result = np.empty(n_rows)
    step = max(1, _MAX_ELEMENTS // len(edges))
    for start in range(0, n_rows, step):
        rows = np.arange(start, min(start + step, n_rows))
        result[rows] = _log_integral_chunk(log_integrand, rows, edges)
    return result


def _log_integral_chunk(log_integrand, rows, edges):
    """`log_integral` for consecutive row numbers."""
    middle = (edges[1:] + edges[:-1]) / 2
    log_values = log_integrand(rows[:, None], middle[None, :])
    best = log_values.max(axis=1, keepdims=True)
    # Far from the manifold the integrand narrows and falls more between its peak and the nearest
    # midpoint; the root of the exponent covers that fall.
    keep, panel = np.nonzero(log_values >= best - 50 - np.sqrt(np.abs(best)))
    row, left, width = rows[keep], edges[panel], np.diff(edges)[panel]

    result = np.full(len(rows), -np.inf)
    for _ in range(_MAX_HALVINGS):
        t = left[:, None] + width[:, None] * (_NODES + 1) / 2
        log_mass = special.logsumexp(
            log_integrand(row[:, None], t) + np.log(width[:, None] * _WEIGHTS / 2), axis=1
        )
        first = np.flatnonzero(np.diff(row, prepend=-1))
        segment = np.cumsum(np.diff(row, prepend=row[0]) > 0)
        peak = np.maximum.reduceat(log_mass, first)
        total = peak + np.log(np.add.reduceat(np.exp(log_mass - peak[segment]), first))

        where = row[first] - rows[0]
        change = np.abs(total - result[where])
        result[where] = total
        moving = change > 1e-10 + 1e-13 * np.abs(total)
        keep = moving[segment] & (log_mass > total[segment] - 45)
        if not keep.any():
            break
        row, width = np.repeat(row[keep], 2), np.repeat(width[keep] / 2, 2)
        left = np.repeat(left[keep], 2)
        left[1::2] += width[1::2]
    return result
