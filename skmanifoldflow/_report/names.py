"""Names that the help of the command line lists; nothing is imported for them."""

__all__ = ["BUILT_IN", "ESTIMATORS", "FILES", "TEXT_FILES"]

#: Data sets that need no file.
BUILT_IN = ("digits", "iris", "wine", "breast_cancer", "s_curve", "swiss_roll", "sin_curve")
#: Estimators that are compared.
ESTIMATORS = (
    "ManifoldPriorFlow",
    "NoisyInjectiveFlow",
    "ChartAtlasFlow",
    "JointManifoldFlow",
    "StackingDensity",
    "PCA",
    "FactorAnalysis",
    "Isomap",
    "GaussianMixture",
)
#: Endings of files of text, and of others.
TEXT_FILES = (".csv", ".tsv", ".txt", ".dat", ".data")
FILES = (*TEXT_FILES, ".xlsx", ".json", ".parquet", ".feather", ".npy")
