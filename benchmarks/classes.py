"""DensityClassifier beside other classifiers by densities: accuracy, log-loss and calibration.

    python benchmarks/classes.py wine breast_cancer digits penbased --data-dir DIR

    python benchmarks/classes.py wine digits --left-out    # do p-values tell rows of no class?

Stratified folds, shuffled; columns are standardised by the training part. Seeds of 100 and above
are for choices, those from 0 on are reported. The table penbased needs a file, see `_data.py`.
With ``--left-out`` the last class is not trained on, and its test rows are told from the others.
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
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skmanifoldflow
from skmanifoldflow import DensityClassifier

TABLES = ("wine", "breast_cancer", "digits", "penbased")


def load(name, data_dir, n_rows):
    if name == "penbased":
        X, y = load_keel(name, data_dir, with_class=True)
    else:
        X, y = getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)
    kept = np.sort(np.random.RandomState(0).permutation(len(X))[:n_rows])
    return X[kept], y[kept]


class MixtureClassifier(DensityClassifier):
    """The best of some Gaussian mixtures per class by BIC, with T = 1."""

    def fit(self, X, y):
        self.classes_, counts = np.unique(y, return_counts=True)
        self.class_prior_ = counts / counts.sum()
        self.temperature_, self.prior_weight_ = 1.0, 0.0
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
    found = {"DensityClassifier": DensityClassifier(random_state=seed)}
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


def folds_of(args, X, y):
    """Training and test rows of each fold that is scored, and the seed."""
    for seed in range(args.seeds_from, args.seeds_from + args.repeats):
        folds = StratifiedKFold(5, shuffle=True, random_state=seed).split(X, y)
        for train, test in list(folds)[: args.folds]:
            yield train, test, seed


def accuracies(args, table, X, y):
    """Accuracy, log-loss, calibration error and CPU seconds of each classifier."""
    results = {}
    for train, test, seed in folds_of(args, X, y):
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
                getattr(model[-1], "prior_weight_", np.nan),
                seconds,
            )
            results.setdefault(name, []).append(figures)
    for name, figures in results.items():
        print(
            f"{table:14} {name:22} "
            "{:6.4f} {:6.3f} {:6.3f} {:6.2f} {:5.3f} {:6.1f}".format(*np.mean(figures, axis=0)),
            flush=True,
        )


def left_out(args, table, X, y):
    """AUC of rows of a class that is not trained on, by the largest p-value or probability.

    The last two figures are shares of the rows of the other classes, and of this one, that are of
    no class at a level of .05.
    """
    figures = []
    for train, test, seed in folds_of(args, X, y):
        last = y.max()
        train = train[y[train] != last]
        scaler, is_strange = StandardScaler().fit(X[train]), y[test] == last
        rows, new = scaler.transform(X[train]), scaler.transform(X[test])
        model = DensityClassifier(random_state=seed).fit(rows, y[train])
        p = model.p_value(new).max(axis=1)
        other = LogisticRegression(max_iter=2000).fit(rows, y[train])
        figures.append(
            (
                roc_auc_score(is_strange, -p),
                roc_auc_score(is_strange, -model.predict_proba(new).max(axis=1)),
                roc_auc_score(is_strange, -other.predict_proba(new).max(axis=1)),
                (p[~is_strange] <= 0.05).mean(),
                (p[is_strange] <= 0.05).mean(),
            )
        )
    names = "AUC p-value", "probability", "logistic regression", "alarms", "found"
    values = np.mean(figures, axis=0)
    shown = (f"{name} {value:.3f}" for name, value in zip(names, values, strict=True))
    print(f"{table:14} " + ", ".join(shown), flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="+", choices=TABLES)
    parser.add_argument("--repeats", type=int, default=5, help="times that five folds are drawn")
    parser.add_argument("--folds", type=int, default=5, help="folds that are scored each time")
    parser.add_argument("--densities", nargs="*", default=[], help="of classes, besides")
    parser.add_argument("--rows", type=int, help="random rows that are kept; default: all")
    parser.add_argument("--left-out", action="store_true", help="leave a class out of the training")
    parser.add_argument("--seeds-from", type=int, default=0)
    parser.add_argument("--data-dir")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if not args.left_out:
        print(
            f"{'table':14} {'classifier':22} {'acc.':>6} {'loss':>6} {'ECE':>6}  {'T':>5} {'w':>5} "
            f"{'CPU s':>6}"
        )
    for table in args.tables:
        part = left_out if args.left_out else accuracies
        part(args, table, *load(table, args.data_dir, args.rows))


if __name__ == "__main__":
    main()
