"""
From one digit to another
=========================

The mean of two images is no digit: it shows both of them, faintly. Between their coordinates in
:class:`~skmanifoldflow.JointManifoldFlow` there are digits on the way, and the density tells which
way leads through them.
"""

# %%
# Between two images
# ------------------
# Means of the pixels: one digit fades out, the other fades in.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from skmanifoldflow import JointManifoldFlow
from skmanifoldflow.plotting import EmbeddingDisplay, ReconstructionDisplay, WalkDisplay

images, labels = load_digits(return_X_y=True)
ends = [int(np.flatnonzero(labels == digit)[0]) for digit in (6, 9)]
t = np.linspace(0, 1, 12)[:, None]
means = images[ends[0]] + t * (images[ends[1]] - images[ends[0]])
WalkDisplay([means], labels=["pixels"], data=images, image_shape=(1, 8, 8)).plot()
plt.show()

# %%
# Between two places
# ------------------
# The coordinates follow a t-SNE of the training images, so that alike digits are near each other.
# The straight walk crosses places where there are no digits; the other one keeps to where the
# density is high, and pays for it with a longer way through other digits.
flow = JointManifoldFlow(
    2,
    guide="tsne",
    image_shape=(1, 8, 8),
    dequantize=True,
    hidden_layer_sizes=(128, 128),
    max_iter=40,
    tol=1.0,
    random_state=0,
).fit(images)
walk = WalkDisplay.from_estimator(flow, images + 0.5, ends=ends)
plt.show()

# %%
# The same two walks on the map, whose shade is the density.
display = EmbeddingDisplay.from_estimator(flow, images + 0.5, labels, y_name="digit", density=True)
for rows, color, label in zip(walk.walks, ("#0072B2", "#D55E00"), walk.labels, strict=True):
    display.ax_.plot(*flow.transform(rows).T, color=color, linewidth=3, label=label)
plt.show()

# %%
# How good are single images?
# ---------------------------
# Ten digits and what two numbers keep of them.
ReconstructionDisplay.from_estimator(flow, images[:10] + 0.5)
plt.show()
# sphinx_gallery_thumbnail_number = 3
