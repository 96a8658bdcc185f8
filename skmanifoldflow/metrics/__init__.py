"""Figures of merit that scikit-learn lacks."""

from ._cells import bits_per_dim, log_mass
from ._embeddings import continuity
from ._near_copies import NearCopies, near_copy_share
from ._two_samples import TwoSampleScore, classifier_two_sample_score, frechet_distance

__all__ = [
    "NearCopies",
    "TwoSampleScore",
    "bits_per_dim",
    "classifier_two_sample_score",
    "continuity",
    "frechet_distance",
    "log_mass",
    "near_copy_share",
]
