"""
How many dimensions?
====================

The prior of :class:`~skmanifoldflow.ManifoldPriorFlow` has a learned covariance.
Where the data lie near a manifold, it flattens: as many of its variances stay large as the manifold
has dimensions. This page shows it on a curve and a line in the plane, on images of 1024 pixels that
differ in a single grey value, and on handwritten digits, which have no sharp dimension.
"""

# %%
# A curve and a line
# ------------------
# Both data sets have one dimension and lie in the plane without noise. Left: rows, and samples of
# the fitted flow. Middle: what the flow makes of the rows, in the axes of its prior, and draws of
# the prior; the curve has become straight. Right: the spectrum, two numbers, the second of which is
# as small as the noise that the fit adds. With as many components as columns, `transform` gives all
# coordinates of the latent space.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from skmanifoldflow import ManifoldPriorFlow
from skmanifoldflow.datasets import FadingSquare, Line, SinCurve
from skmanifoldflow.plotting import EmbeddingDisplay, SampleDisplay, SpectrumDisplay

fig, axes = plt.subplots(2, 3, figsize=(11, 6.4), layout="constrained")
for (left, middle, right), data in zip(axes, (SinCurve(noise=0.0), Line(noise=0.0)), strict=True):
    X, _ = data.sample(1000, random_state=0)
    flow = ManifoldPriorFlow(2, n_layers=6, max_iter=60, tol=1e-2, random_state=0).fit(X)
    drawn = flow.sample(1000, random_state=0)
    left.plot(*X.T, ".", markersize=6, label="data")
    left.plot(*drawn.T, ".", markersize=2, label="samples")
    left.set(title=type(data).__name__, xlabel="$x_1$", ylabel="$x_2$")
    middle.plot(*flow.transform(X).T, ".", markersize=6, label="image of the data")
    middle.plot(*flow.transform(drawn).T, ".", markersize=2, label="prior")
    middle.set(title="latent space", xlabel="$z_1$", ylabel="$z_2$", ylim=(-3, 3))
    for ax in (left, middle):
        ax.legend(loc="upper left")
    SpectrumDisplay.from_estimator(flow, ax=right)
    print(f"{type(data).__name__}: dimension {flow.intrinsic_dimension_}")
plt.show()

# %%
# A fading square
# ---------------
# Images of 32 x 32 pixels, black but for a square of one random grey value, and next to no noise.
# Of 1024 variances a single one stands out. The report finds that all pixels share noise of one
# size, below which it reads nothing, so that the images have one dimension: in grey values and in
# units of the pixels.
square = FadingSquare(noise=0.001)
X, grey = square.sample(500, random_state=0)
flow = ManifoldPriorFlow(
    image_shape=(1, 32, 32), n_layers=2, isometry=0.0, max_iter=3, tol=1.0, random_state=0
).fit(X.astype(np.float32))
report = flow.dimension_report_
print(f"in grey values: {report.other_units}")
print(f"each pixel in its own units: {report.dimension}, agreement {report.agreement}")

fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
SpectrumDisplay.from_estimator(flow, ax=left)
left.set_xlim(0, 20.5)
right.plot(flow.transform(X)[:, 0], grey[:, 0] / 6, ".")
right.set(xlabel="component 1", ylabel="grey value")
plt.show()

# %%
# Samples are squares on black. Moving along the one coordinate fades the square.
darkest, brightest = grey[:, 0].argmin(), grey[:, 0].argmax()
path = flow.inverse_transform(np.linspace(*flow.transform(X[[darkest, brightest]]), 10))
panels = np.stack([X[:10], flow.sample(10, random_state=0), path])
SampleDisplay(
    panels, labels=["data", "samples", "along the coordinate"], data=X, image_shape=(1, 32, 32)
).plot()
plt.show()

# %%
# Digits
# ------
# Handwritten digits are no manifold of one dimension: the spectrum falls steadily and no gap stands
# out. The number that is read comes from nearest neighbours, with samples of the flow as their
# measure, and a warning says so. The coordinates tell classes apart.
images, labels = load_digits(return_X_y=True)
flow = ManifoldPriorFlow(
    image_shape=(1, 8, 8),
    dequantize=True,
    hidden_layer_sizes=(16, 128, 128),
    noise_start=1.0,
    noise_floor=0.1,
    max_iter=25,
    tol=0.1,
    random_state=0,
).fit(images)
SpectrumDisplay.from_estimator(flow)
EmbeddingDisplay.from_estimator(flow, images + 0.5, labels, y_name="digit")
plt.show()
