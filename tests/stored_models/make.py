"""Writes the models that later versions have to load, with their predictions.

`python tests/stored_models/make.py NAME...` fits the named kinds, or all that have no file yet. A
file is never rewritten to make a test pass: what was fitted once keeps its behaviour.
"""

import lzma
import pickle
import sys
import warnings
from pathlib import Path

import numpy as np
import torch

from skmanifoldflow import ChartAtlasFlow, JointManifoldFlow, ManifoldPriorFlow, NoisyInjectiveFlow

FOLDER = Path(__file__).parent
METHODS = ("score_samples", "transform", "inverse_transform", "reconstruct")

SMALL = {"n_layers": 2, "hidden_layer_sizes": (8,), "max_iter": 6, "random_state": 0}
IMAGES = {"image_shape": (1, 4, 4)}

#: Estimator and parameters of each kind; every one is fitted to float64 and to float32 rows.
KINDS = {
    "prior": (ManifoldPriorFlow, {}),
    "prior_fixed_dimension": (ManifoldPriorFlow, {"n_components": 2}),
    # Stored with spread="latent", entropy="taylor" and prior_update="gradient", which were
    # parameters.
    "prior_latent_spread": (ManifoldPriorFlow, {"recipe": "paper", "n_components": 2}),
    "prior_additive_normal": (ManifoldPriorFlow, {"flow": "additive", "marginals": "normal"}),
    "prior_bounded": (ManifoldPriorFlow, {"bounded": (-8.0, 8.0)}),
    "prior_images": (ManifoldPriorFlow, {**IMAGES, "n_components": 3}),
    "injective": (NoisyInjectiveFlow, {"n_components": 2}),
    "injective_stretched": (NoisyInjectiveFlow, {"n_components": 3}),
    "injective_all_columns": (NoisyInjectiveFlow, {"n_components": 4}),
    "injective_affine_reconstruction": (
        NoisyInjectiveFlow,
        {"flow": "affine", "n_components": 2, "reconstruction": 1.0},
    ),
    "injective_autoregressive_diag": (
        NoisyInjectiveFlow,
        {"flow": "autoregressive", "n_components": 2, "noise_covariance": "diag"},
    ),
    "injective_elbo": (NoisyInjectiveFlow, {"n_components": 2, "objective": "elbo"}),
    "injective_latent_layers": (
        NoisyInjectiveFlow,
        {"n_components": 2, "objective": "elbo", "n_latent_layers": 2},
    ),
    "injective_coupling": (
        NoisyInjectiveFlow,
        {"n_components": 2, "objective": "elbo", "injection": "coupling"},
    ),
    "injective_three_starts": (NoisyInjectiveFlow, {"n_components": 2, "n_init": 3}),
    "injective_dequantized": (NoisyInjectiveFlow, {"n_components": 2, "dequantize": True}),
    "injective_images": (NoisyInjectiveFlow, {**IMAGES, "n_components": 3}),
    "injective_upsampled_images": (NoisyInjectiveFlow, {**IMAGES, "injection": "upsampling"}),
    "atlas": (ChartAtlasFlow, {"n_charts": 3, "n_components": 2}),
    "atlas_averaged": (ChartAtlasFlow, {"n_components": 2}),
    "atlas_kmeans_spline": (
        ChartAtlasFlow,
        {"n_charts": 3, "n_components": 2, "quantizer": "kmeans", "flow": "spline"},
    ),
    "atlas_conformal": (
        ChartAtlasFlow,
        {"n_charts": 3, "n_components": 2, "chart_map": "conformal"},
    ),
    "atlas_images": (ChartAtlasFlow, {**IMAGES, "n_charts": 3, "n_components": 2}),
    "joint": (JointManifoldFlow, {"n_components": 2}),
    "joint_one_stage_gaussian": (
        JointManifoldFlow,
        {"n_components": 2, "n_stages": 1, "penalty": "gaussian"},
    ),
    "joint_nested_stages": (JointManifoldFlow, {"n_components": 3, "stage_components": (2, 1)}),
    "joint_spline_laplace": (
        JointManifoldFlow,
        {"n_components": 2, "flow": "spline", "penalty": "laplace"},
    ),
    "joint_images": (JointManifoldFlow, {**IMAGES, "n_components": 2}),
    "joint_channel_split": (
        JointManifoldFlow,
        {**IMAGES, "n_components": 4, "split": "channel"},
    ),
}
DTYPES = ("float64", "float32")


def make_rows(n_features, seed=0):
    """Return training rows near a surface, and others within their range."""
    rng = np.random.RandomState(seed)
    mixing = rng.randn(2, n_features)

    def draw(n):
        return np.sin(rng.uniform(-2, 2, (n, 2)) @ mixing) + 0.05 * rng.randn(n, n_features)

    X = draw(150)
    return X, np.clip(draw(10), X.min(axis=0), X.max(axis=0))


def predict(model, X):
    """Return what is stored of a model: its answers to rows, and to coordinates of these."""
    Z = model.transform(X)
    return {
        "score_samples": model.score_samples(X),
        "transform": Z,
        "inverse_transform": model.inverse_transform(Z),
        "reconstruct": model.reconstruct(X),
    }


def make(kind, dtype):
    """Fit one model; write it and its predictions."""
    Estimator, parameters = KINDS[kind]
    n_features = int(np.prod(parameters.get("image_shape", (4,))))
    X, fresh = make_rows(n_features)
    if parameters.get("dequantize"):
        X, fresh = np.round(4 * X), np.round(4 * fresh)
    if kind == "injective_stretched":
        # A direction is narrow.
        for part in (X, fresh):
            part[:, 3] = part[:, 0] + 0.1 * part[:, 3]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = Estimator(**SMALL | parameters).fit(X.astype(dtype))
    rows = np.concatenate([X[:10], fresh])
    stored = {"X": rows, **predict(model, rows.astype(dtype))}
    if dtype == "float32":
        # The same weights in float64, whose answers are the same on every machine.
        stored |= {f"float64_{name}": values for name, values in predict(model, rows).items()}
    path = FOLDER / f"{kind}_{dtype}"
    path.with_suffix(".pkl.xz").write_bytes(lzma.compress(pickle.dumps(model, protocol=4)))
    np.savez_compressed(path.with_suffix(".npz"), **stored)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for kind in sys.argv[1:] or KINDS:
        for dtype in DTYPES:
            if sys.argv[1:] or not (FOLDER / f"{kind}_{dtype}.npz").exists():
                make(kind, dtype)
                print(kind, dtype, flush=True)
