"""
Density, and samples on and off the manifold
============================================

:class:`~skmanifoldflow.NoisyInjectiveFlow` is a density model first: where a Gaussian mixture or a
kernel estimate would do, it is usually nearer to the truth. Below the density lies a manifold, and
two numbers tell how far from its middle and how far off it samples may go.
"""

# %%
# A curve in the plane
# --------------------
# The density of this data set is known, so the log-density of each model can be compared with it on
# rows that no fit has seen. The sizes of the other models are chosen by cross-validation.
#
# The likelihood alone leaves open which part of a row is manifold and which is noise;
# ``reconstruction`` settles it in favour of the manifold.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity

from skmanifoldflow import NoisyInjectiveFlow
from skmanifoldflow.datasets import SinCurve
from skmanifoldflow.plotting import (
    CalibrationDisplay,
    DensityDisplay,
    EmbeddingDisplay,
    LossCurveDisplay,
    SampleDisplay,
)

curve = SinCurve(noise=0.05)
X, _ = curve.sample(2000, random_state=0)
X_test, _ = curve.sample(3000, random_state=1)
exact = curve.log_density(X_test)

flow = NoisyInjectiveFlow(1, reconstruction=0.1, max_iter=40, tol=0.1, random_state=0).fit(X)
mixture = GridSearchCV(GaussianMixture(random_state=0), {"n_components": [5, 10, 20, 30]}, cv=3)
kernels = GridSearchCV(KernelDensity(), {"bandwidth": [0.02, 0.03, 0.05, 0.1]}, cv=3)
models = {
    "flow": flow,
    "Gaussian mixture": mixture.fit(X).best_estimator_,
    "kernel density": kernels.fit(X).best_estimator_,
}
for name, model in models.items():
    print(f"{name}: {np.mean(exact - model.score_samples(X_test)):.3f} nats below the truth")

# %%
# Learning
# --------
# The star marks the epoch whose weights are kept: the best one on the rows that were set aside.
LossCurveDisplay.from_estimator(flow)
plt.show()

# %%
# Density
# -------
# ``score_samples`` is the logarithm of a density on the whole plane. The regions hold 95, 75, 50
# and 25 % of its probability.
fig, axes = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained")
for ax, name in zip(axes, ("flow", "Gaussian mixture"), strict=True):
    DensityDisplay.from_estimator(models[name], X_test, ax=ax, scatter_kw={"s": 1})
    ax.set(title=name, xlabel="$x_1$", ylabel="$x_2$")
plt.show()

# %%
# Rows that no fit has seen have low densities as often as samples of a model have them, if the
# model is right.
fig, axes = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
for ax, name in zip(axes, ("flow", "kernel density"), strict=True):
    CalibrationDisplay.from_estimator(models[name], X_test, ax=ax)
    ax.set(title=name)
plt.show()

# %%
# Temperature and distance from the manifold
# ------------------------------------------
# All panels of a row start from the same random numbers. The temperature t multiplies the variance
# of the coordinate along the manifold, the manifold deviation s that of the noise. The noise has a
# part along the manifold too: at t = 0 rows still spread, by that part. At s = 0 they lie on the
# manifold.
SampleDisplay.from_estimator(
    flow, X_test, temperatures=(0.0, 0.25, 1.0, 4.0), n_samples=500, random_state=0
)
SampleDisplay.from_estimator(
    flow, X_test, manifold_deviations=(0.0, 0.25, 0.5, 1.0), n_samples=500, random_state=0
)
plt.show()

# %%
# Images
# ------
# With ``image_shape`` the layers are convolutional. Digits are integers, so ``dequantize`` spreads
# each grey value over its step.
images, labels = load_digits(return_X_y=True)
train, test = images[:1500], images[1500:] + 0.5
flow = NoisyInjectiveFlow(
    16,
    image_shape=(1, 8, 8),
    dequantize=True,
    n_layers=4,
    hidden_layer_sizes=(32,),
    reconstruction=0.1,
    max_iter=12,
    tol=1.0,
    random_state=0,
).fit(train)

# %%
# Each column of the strips is one digit. With growing t it takes shape: at t = 0 there is noise
# around the middle of the manifold and nothing else. With growing s it goes from the manifold to
# the fitted distribution at s = 1, where fine detail and noise come in.
SampleDisplay.from_estimator(flow, train, temperatures=(0.0, 0.25, 1.0, 2.0), random_state=0)
SampleDisplay.from_estimator(flow, train, manifold_deviations=(0.0, 0.25, 0.5, 1.0), random_state=0)
plt.show()

# %%
# The coordinates of digits that the fit has not seen, the first two of sixteen.
EmbeddingDisplay.from_estimator(flow, test, labels[1500:], y_name="digit")
plt.show()
# sphinx_gallery_thumbnail_number = 2
