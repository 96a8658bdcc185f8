"""
Unrolling an S-curve
====================

An S-curve is a flat sheet bent into three dimensions. :class:`~skmanifoldflow.ManifoldPriorFlow` is
given noisy points near the sheet and nothing else: it finds that the sheet has two dimensions,
unrolls it, gives a log-density for every point of the space, and draws new points.
"""

# %%
# Data
# ----
# The rows lie near the sheet, at a distance of the order of the noise. The true coordinates, arc
# length along the S and position across it, are kept for judging the embedding; the fit does not
# see them.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import LinearRegression

from skmanifoldflow import ManifoldPriorFlow
from skmanifoldflow.datasets import SCurve
from skmanifoldflow.plotting import SpectrumDisplay

NOISE = 0.05
curve = SCurve(noise=NOISE)
X, _ = curve.sample(2000, random_state=0)
X_test, coordinates = curve.sample(2000, random_state=1)

# %%
# Fit
# ---
# With ``n_components=None``, the default, the number of components is read from the learned prior.
flow = ManifoldPriorFlow(random_state=0).fit(X)
print(f"dimension: {flow.intrinsic_dimension_}")

# %%
# Data, embedding and samples
# ---------------------------
# Colour is the position along the S. On an embedding that unrolls the sheet it changes steadily
# from one side to the other, as it does not on a linear projection. Samples of the flow have no
# true coordinates; their colour is their height.
#
# The sheet has edges, beyond which the flow has seen no rows. A normal prior would have tails
# there; the coordinates of this one have distributions of their own, which end where the rows do.
Z = flow.transform(X_test)
X_new = flow.sample(2000, random_state=0)
print(f"{np.mean(curve.distance(X_new) > 1):.1%} of the samples farther than 1 from the sheet")

fig = plt.figure(figsize=(11, 3.6), layout="constrained")
ax = fig.add_subplot(1, 3, 1, projection="3d", title="data")
ax.scatter(*X_test.T, c=coordinates[:, 0], s=3)
ax = fig.add_subplot(1, 3, 2, title="embedding", xlabel="component 1", ylabel="component 2")
ax.scatter(Z[:, 0], Z[:, 1], c=coordinates[:, 0], s=3)
ax = fig.add_subplot(1, 3, 3, projection="3d", title="samples")
ax.scatter(*X_new.T, c=X_new[:, 2], s=3)
plt.show()

# %%
# If the embedding is the sheet up to a rotation and a change of scale, a linear regression predicts
# the true coordinates from it.
r2 = LinearRegression().fit(Z, coordinates).score(Z, coordinates)
print(f"R^2 of the true coordinates: {r2:.3f}")

# %%
# Spectrum and noise floor
# ------------------------
# The eigenvalues of the local covariance of the model, in standardised units. Those of the sheet
# stand high. The last is its thickness: the noise of the data and the inflation by ``noise_floor``,
# below which no eigenvalue is meaningful. The widest gap is the dimension.
SpectrumDisplay.from_estimator(flow)
plt.show()

# %%
# Density
# -------
# The density of this data set is known, so the log-density of the flow can be compared with it on
# rows that the fit has not seen. The difference of the means estimates the Kullback-Leibler
# divergence from the truth to the model, in nats: 0 is a perfect fit.
gap = np.mean(curve.log_density(X_test) - flow.score_samples(X_test))
print(f"nats below the true density: {gap:.3f}")
