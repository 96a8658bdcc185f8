"""
Pictures with an inverse and a density
======================================

The pictures of t-SNE and Isomap, learned by a flow: it places new rows, rebuilds rows from places,
and tells how dense the rows are.
"""

# %%
# Digits by t-SNE
# ---------------
# The rows are test digits, which neither the guide nor the flow has seen.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from skmanifoldflow import JointManifoldFlow
from skmanifoldflow.datasets import SwissRoll
from skmanifoldflow.plotting import EmbeddingDisplay

images, labels = load_digits(return_X_y=True)
order = np.random.RandomState(0).permutation(len(images))
train, test = order[360:], order[:360]
flow = JointManifoldFlow(
    2,
    guide="tsne",
    image_shape=(1, 8, 8),
    dequantize=True,
    hidden_layer_sizes=(128, 128),
    max_iter=40,
    tol=1.0,
    random_state=0,
).fit(images[train])
Z, Z_test = (flow.transform(images[part] + 0.5) for part in (train, test))
print(f"R^2 of the guide's coordinates of rows left out: {flow.guide_score_:.3f}")
accuracy = KNeighborsClassifier(5).fit(Z, labels[train]).score(Z_test, labels[test])
print(f"5-NN accuracy of test digits in the picture: {accuracy:.3f}")

# %%
# Right, a t-SNE of the test digits alone, for comparison; it cannot place other rows. In the middle
# the inverse of the picture: the image that each place of a grid stands for. The shade is the
# density. Faint images are at places that are less dense than those of 95 % of the rows: no digit
# is near.
EmbeddingDisplay.from_estimator(
    flow, images[test] + 0.5, labels[test], y_name="digit", density=True, grid=16, guide=True
)
plt.show()

# %%
# A swiss roll by Isomap
# ----------------------
# Without a guide the roll stays rolled; with Isomap's coordinates as the guide it is unrolled.
roll = SwissRoll(noise=0.05)
X, _ = roll.sample(1500, random_state=0)
X_test, position = roll.sample(1000, random_state=1)
fig, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for ax, guide in zip(axes, (None, "isomap"), strict=True):
    model = JointManifoldFlow(2, guide=guide, max_iter=60, tol=1.0, random_state=0).fit(X)
    ax.scatter(*model.transform(X_test).T, c=position[:, 0], s=6)
    ax.set_title(f"guide={guide!r}")
    gap = roll.log_density(X_test).mean() - model.score(X_test)
    print(f"guide={guide!r}: {gap:.2f} nats below the exact log-density")
plt.show()
