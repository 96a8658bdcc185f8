"""
Linked circles, and an atlas of charts
======================================

A flow is a continuous map with a continuous inverse. It can bend and stretch the one lump of its
normal distribution, but not tear it: where the data have holes or fall into parts, something is
left between them. :class:`~skmanifoldflow.ChartAtlasFlow` covers the data with charts, each with a
flow of its own.
"""

# %%
# Two linked circles
# ------------------
# With a single chart the estimator is a plain flow; in all else the two models are alike. The
# density of the data is known.
import matplotlib.pyplot as plt
import numpy as np

from skmanifoldflow import ChartAtlasFlow
from skmanifoldflow.datasets import LinkedCircles
from skmanifoldflow.plotting import AtlasDisplay, SampleDisplay

circles = LinkedCircles(noise=0.05)
X, coordinates = circles.sample(2000, random_state=0)
X_test, _ = circles.sample(2000, random_state=1)

plain = ChartAtlasFlow(n_charts=1, tol=0.01, random_state=0).fit(X)
atlas = ChartAtlasFlow(n_charts=12, tol=0.01, random_state=0).fit(X)
samples = [model.sample(1000, random_state=0) for model in (plain, atlas)]
for name, model, rows in zip(["plain flow", "atlas"], (plain, atlas), samples, strict=True):
    gap = np.mean(circles.log_density(X_test) - model.score_samples(X_test))
    astray = np.mean(circles.distance(rows) > 4 * circles.noise)
    print(f"{name}: {gap:.2f} nats below the truth, {astray:.1%} of the samples off the circles")

# %%
# Samples
# -------
# The plain flow has to reach every part of the circles from one lump. Bridges remain.
SampleDisplay(samples, labels=["plain flow", "atlas"], data=X).plot()
plt.show()

# %%
# Charts
# ------
# Each row has the colour of its most probable chart, and fades where two charts meet. To the right
# are the codes of the same rows, what ``transform`` returns, and over them the entries of the
# codebook, the centres of the charts. Closed curves do not fit on a line, so a code is longer than
# the dimension of the data.
fig = plt.figure(figsize=(9, 4.2), layout="constrained")
for k, space in enumerate(["data", "embedding"]):
    ax = fig.add_subplot(1, 2, k + 1, projection="3d")
    colors = AtlasDisplay.from_estimator(atlas, X, space=space, ax=ax).chart_colors_
    ax.set_title(space)
plt.show()

# %%
# Coordinates
# -----------
# In a chart a row has coordinates that are standard normal under the model; those along the chart
# come first. Together with the number of the chart they give the row back. Along one of the circles
# the first coordinate runs through one chart after the other.
Z, charts = atlas.chart_transform(X)
print("largest error of the way back:", np.abs(atlas.chart_inverse_transform(Z, charts) - X).max())
print("dimension of the charts:", atlas.chart_dimensions_)

angle = coordinates[:, 0]
first = angle < 2 * np.pi
fig, ax = plt.subplots(figsize=(7, 3), layout="constrained")
points = np.column_stack([angle, Z[:, 0]])[first]
AtlasDisplay(points, atlas.predict_proba(X[first]), colors=colors).plot(ax=ax)
ax.set(xlabel="angle along the first circle", ylabel="coordinate along the chart")
plt.show()
# sphinx_gallery_thumbnail_number = 2
