"""ChartAtlasFlow: an atlas of local flows (Sidheekh et al., 2022)."""

from .estimator import ChartAtlasFlow

__all__ = ["ChartAtlasFlow"]
