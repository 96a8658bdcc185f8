"""The report of the intrinsic dimension."""

from dataclasses import dataclass

__all__ = ["DimensionReport"]


@dataclass(frozen=True)
class DimensionReport:
    """The intrinsic dimension of rows, and the readings that it is based on.

    What `intrinsic_dimension` returns, and `dimension_report_` of the estimators. ``print(report)``
    says it in words; the user guide explains the readings.

    Attributes
    ----------
    dimension : int
        The dimension of the rows.
    neighbors : tuple of int
        Scales: the larger one of the two orders of neighbours, k and 2k, whose distances are
        compared. Empty with fewer than 16 different rows.
    rows_by_scale : tuple of float
        Nearest-neighbour estimates of the rows at these scales, which high dimension biases
        downwards and noise upwards.
    calibrated_by_scale : tuple of float
        The same, calibrated by samples of the reference with `dimension` dimensions: near
        `dimension` at all scales where all is well, above it at small scales where there is noise,
        and at large ones where the manifold bends.
    estimate : float
        What nearest neighbours say in all; NaN where there are no scales.
    spectrum : tuple of float
        Variances along the axes of the parts of the reference, a mixture of normal distributions,
        as far as they are no quadratic functions of the axes before them, relative to the first:
        geometric means over the parts.
    n_parts : int
        Number of these parts.
    gap : int
        Number of variances before the widest gap of `spectrum`.
    noise : float
        Standard deviation of the noise that all columns have in common, in units of the data; 0
        where none was found.
    n_rows : int
        Number of different rows that were read, at most 2500.
    other_units : int or None
        The dimension in units of the data, or, with ``scale=False``, after standardisation; None
        where columns have equal spread.
    scale : bool
        Whether columns were standardised.
    spectral_dimension : int or None
        What an estimator reads from its own `local_spectrum_`; None without estimator.

    Examples
    --------
    >>> from skmanifoldflow import intrinsic_dimension
    >>> from skmanifoldflow.datasets import SCurve
    >>> X, _ = SCurve(noise=0.02).sample(1000, random_state=0)
    >>> report = intrinsic_dimension(X)
    >>> report.dimension, report.agreement
    (2, 'good')
    """

    dimension: int
    neighbors: tuple = ()
    rows_by_scale: tuple = ()
    calibrated_by_scale: tuple = ()
    estimate: float = float("nan")
    spectrum: tuple = ()
    n_parts: int = 1
    gap: int = 1
    noise: float = 0.0
    n_rows: int = 0
    other_units: int | None = None
    scale: bool = True
    spectral_dimension: int | None = None

    @property
    def agreement(self):
        """How well the readings agree: "good", "fair" or "poor".

        A reading is near if it differs from `dimension` by at most half a dimension or a tenth of
        it, and not far if by at most one or a quarter. "good" if `estimate` and at least half of
        `calibrated_by_scale` are near, "poor" if `estimate` or all of `calibrated_by_scale` are
        far, or there are no scales, and "fair" otherwise.
        """
        if not self.neighbors:
            return "poor"
        near, not_far = self._near, max(1.0, 0.25 * self.dimension)
        estimate = abs(self.estimate - self.dimension)
        scales = sorted(abs(one - self.dimension) for one in self.calibrated_by_scale)
        if max(estimate, scales[(len(scales) - 1) // 2]) <= near:
            return "good"
        return "fair" if max(estimate, scales[0]) <= not_far else "poor"

    @property
    def _near(self):
        """Distance from `dimension` of readings that agree with it."""
        return max(0.5, 0.1 * self.dimension)

    def __str__(self):
        """Return the report in words."""
        sentences = [f"The {self.n_rows} different rows have {_count(self.dimension)}."]
        if self.neighbors:
            sentences.append(
                f"Nearest neighbours say {self.estimate:.1f}, and the widest gap in the spectrum "
                f"of {self.n_parts} local part{'s' * (self.n_parts > 1)} comes after {self.gap}: "
                f"the agreement is {self.agreement}."
            )
            sentences += self._by_scale()
        else:
            sentences.append("They are too few for nearest neighbours.")
        if self.noise:
            sentences.append(f"The columns share noise of standard deviation {self.noise:.2g}.")
        if self.other_units is not None and self.other_units != self.dimension:
            units = "in units of the data" if self.scale else "after standardisation"
            sentences.append(
                f"Their dimension {units} is {self.other_units}: the sizes of the columns matter."
            )
        return " ".join(sentences)

    def _by_scale(self):
        """Return a sentence on readings by scale that are not all near the dimension."""
        readings = self.calibrated_by_scale
        if max(abs(one - self.dimension) for one in readings) <= self._near:
            return []
        first, last = readings[0], readings[-1]
        if abs(first - last) <= self._near:
            return [f"Scale by scale they say {min(readings):.1f} to {max(readings):.1f}."]
        change, cause = ("fall", "with noise") if first > last else ("rise", "where rows bend")
        return [
            f"Scale by scale they {change} from {first:.1f} at {self.neighbors[0]} neighbours to "
            f"{last:.1f} at {self.neighbors[-1]}, as {cause}."
        ]


def _count(dimension):
    """Return a number of dimensions as text."""
    return f"{dimension} dimension{'s' * (dimension != 1)}"
