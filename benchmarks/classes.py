"""DensityClassifier beside other classifiers by densities: accuracy, log-loss and calibration.

    python benchmarks/classes.py wine breast_cancer digits penbased --data-dir DIR

Stratified folds, shuffled; columns are standardised by the training part. Seeds of 100 and above
are for choices, those from 0 on are reported. The table penbased needs a file, see `_data.py`.
"""

import argparse
import warnings

import numpy as np
import sklearn.datasets
import torch
from _data import load_keel
from _peers import timed
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skmanifoldflow
from skmanifoldflow import DensityClassifier

TABLES = ("wine", "breast_cancer", "digits", "penbased")


def load(name, data_dir):
    if name == "penbased":
        return load_keel(name, data_dir, with_class=True)
    return getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)


class MixtureClassifier(DensityClassifier):
    """The best of some Gaussian mixtures per class by BIC, with T = 1."""

    def fit(self, X, y):
        self.classes_, counts = np.unique(y, return_counts=True)
        self.class_prior_, self.temperature_ = counts / counts.sum(), 1.0
        self.densities_ = []
        for label in self.classes_:
            rows = X[y == label]
            fitted = [
                GaussianMixture(size, reg_covar=1e-2, random_state=0).fit(rows)
                for size in (1, 2, 4)
            ]
            self.densities_.append(min(fitted, key=lambda model: model.bic(rows)))
        self.n_features_in_ = X.shape[1]
        return self


def classifiers(seed, densities):
    found = {}
    for name in densities:
        density = getattr(skmanifoldflow, name)()
        found[name] = DensityClassifier(density, random_state=seed)
    found["GMM per class"] = MixtureClassifier()
    found["QDA"] = QuadraticDiscriminantAnalysis(reg_param=0.01)
    found["logistic regression"] = LogisticRegression(max_iter=2000)
    return found


def expected_calibration_error(proba, is_right, n_bins=15):
    """Mean distance of confidence and accuracy over bins of the confidence (Guo et al., 2017)."""
    confidence = proba.max(axis=1)
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    gaps = [abs((confidence - is_right)[bins == b].sum()) for b in range(n_bins)]
    return sum(gaps) / len(proba)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "tables", nargs="+", choices=["wine", "breast_cancer", "digits", "penbased"]
    )
    parser.add_argument("--repeats", type=int, default=5, help="times that five folds are drawn")
    parser.add_argument("--folds", type=int, default=5, help="folds that are scored each time")
    parser.add_argument("--densities", nargs="*", default=["NoisyInjectiveFlow"])
    parser.add_argument("--seeds-from", type=int, default=0)
    parser.add_argument("--data-dir")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print(
        f"{'table':14} {'classifier':22} {'acc.':>6} {'loss':>6} {'ECE':>6}  {'T':>5} {'CPU s':>6}"
    )
    for table in args.tables:
        X, y = load(table, args.data_dir)
        results = {}
        for seed in range(args.seeds_from, args.seeds_from + args.repeats):
            folds = list(StratifiedKFold(5, shuffle=True, random_state=seed).split(X, y))
            for train, test in folds[: args.folds]:
                for name, classifier in classifiers(seed, args.densities).items():
                    model = make_pipeline(StandardScaler(), classifier)
                    _, seconds = timed(model.fit, X[train], y[train])
                    proba = model.predict_proba(X[test])
                    is_right = model.classes_[proba.argmax(axis=1)] == y[test]
                    figures = (
                        is_right.mean(),
                        log_loss(y[test], np.clip(proba, 1e-15, 1), labels=model.classes_),
                        expected_calibration_error(proba, is_right),
                        getattr(model[-1], "temperature_", np.nan),
                        seconds,
                    )
                    results.setdefault(name, []).append(figures)
        for name, figures in results.items():
            means = np.mean(figures, axis=0)
            print(
                f"{table:14} {name:22} {{:6.4f}} {{:6.3f}} {{:6.3f}} {{:6.2f}} {{:6.1f}}".format(
                    *means
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
