"""
A manifold and the density on it, in one step
=============================================

:class:`~skmanifoldflow.JointManifoldFlow` learns a manifold of given dimension together with the
density on it. It is compared here with PCA on a curved surface, then given rows that lie nowhere
near the data, then asked for a two-dimensional picture of digits with an inverse.
"""

# %%
# A curved surface
# ----------------
# The rows lie exactly on a surface in three dimensions, bent so that no plane comes near. Fits on
# this page are shorter than the default, which comes nearer still.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from skmanifoldflow import JointManifoldFlow
from skmanifoldflow.datasets import PolynomialSurface, SinCurve
from skmanifoldflow.plotting import EmbeddingDisplay, LossCurveDisplay

surface = PolynomialSurface(noise=0.0)
X, coordinates = surface.sample(2500, random_state=0)
X_test, _ = surface.sample(1000, random_state=1)
flow = JointManifoldFlow(2, max_iter=40, tol=0.1, random_state=0).fit(X)
pca = PCA(2).fit(X)
samples = flow.sample(1000, random_state=0)
print(f"mean distance of samples to the surface: {surface.distance(samples).mean():.4f}")
for name, model in (("flow", flow), ("PCA", pca)):
    rebuilt = model.inverse_transform(model.transform(X_test))
    error = np.linalg.norm(rebuilt - X_test, axis=1).mean()
    print(f"mean error of rows rebuilt, {name}: {error:.4f}")

# %%
fig = plt.figure(figsize=(9, 3.2), layout="constrained")
panels = {"rows": X_test, "samples of the flow": samples, "rows rebuilt by PCA": rebuilt}
for i, (title, rows) in enumerate(panels.items()):
    ax = fig.add_subplot(1, 3, i + 1, projection="3d", elev=30, azim=-75)
    distance = surface.distance(rows)
    points = ax.scatter(*rows.T, c=distance, s=4, vmin=0, vmax=1)
    ax.set(title=title, xlim=(-1, 6), ylim=(-3, 3), zlim=(-1, 6))
    ax.set_box_aspect((7, 6, 7), zoom=1.3)
    ax.set_axis_off()
fig.colorbar(points, ax=fig.axes, shrink=0.7, label="distance to the surface")
plt.show()

# %%
# Learning
# --------
# The loss of the first stage is minus the log-likelihood and the log-density of the residuals. It
# falls as long as the noise that is added to the rows falls, and then settles. The second stage,
# which rebuilds nothing, has a loss of its own: it fits the density on the manifold that the first
# one has found.
LossCurveDisplay.from_estimator(flow)
plt.show()
print("log-likelihood of rows set aside, by stage:", np.round(flow.stage_scores_, 2))

# %%
# Outliers
# --------
# One row in twenty is spoilt. Under the Huber penalty such rows have a distribution of their own,
# and hardly count for the manifold.
curve = SinCurve(noise=0.02)
X, _ = curve.sample(1000, random_state=0)
X[:50] = 4 * np.random.RandomState(0).randn(50, 2)
fig, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharex=True, sharey=True, layout="constrained")
for ax, penalty in zip(axes, ("huber", "gaussian"), strict=True):
    model = JointManifoldFlow(1, penalty=penalty, max_iter=60, tol=0.05, random_state=0).fit(X)
    on_manifold = model.sample(1000, manifold_deviation=0.0, random_state=0)
    ax.scatter(*X.T, s=3, color="0.75", label="rows")
    ax.scatter(*on_manifold.T, s=3, color="C0", label="samples on the manifold")
    ax.set(title=penalty, xlim=(-4, 4), ylim=(-3, 3))
axes[0].legend(loc="lower right")
plt.show()

# %%
# Digits in two dimensions
# ------------------------
# Test digits, placed by a model that has not seen them. Unlike most embeddings this one has an
# inverse: a grid of coordinates, and the image that each of them stands for.
images, labels = load_digits(return_X_y=True)
train, test = images[:1400], images[1400:] + 0.5
model = JointManifoldFlow(
    2, image_shape=(1, 8, 8), dequantize=True, max_iter=50, tol=1.0, random_state=0
).fit(train)
EmbeddingDisplay.from_estimator(model, test, labels[1400:], y_name="digit", grid=14)
plt.show()
# sphinx_gallery_thumbnail_number = 4
