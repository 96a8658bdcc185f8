"""
Six pictures of the digits
==========================

PCA, Isomap, t-SNE, an autoencoder and two flows draw the same handwritten digits in two
dimensions. Beside each picture stands how well it tells classes of digits apart that no method has
been told of, and what else one can do with it.
"""

# sphinx_gallery_thumbnail_number = 1

# %%
# Two thirds of the digits are for the fits, the others are placed where a method can place new rows.
# t-SNE cannot: it has seen all digits, and its figure is that of digits it has seen.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE, Isomap
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPRegressor

from skmanifoldflow import JointManifoldFlow
from skmanifoldflow.plotting import EmbeddingDisplay

images, labels = load_digits(return_X_y=True)
order = np.random.RandomState(0).permutation(len(images))
train, test = order[:1200], order[1200:]


def autoencoder(rows):
    """Coordinates of the middle layer of a network that rebuilds its input."""
    scaled = rows / 16
    sizes = (128, 2, 128)
    net = MLPRegressor(
        hidden_layer_sizes=sizes, activation="tanh", max_iter=150, tol=0, random_state=0
    )
    net.fit(scaled[train], scaled[train])
    hidden = np.tanh(scaled @ net.coefs_[0] + net.intercepts_[0])
    return np.tanh(hidden @ net.coefs_[1] + net.intercepts_[1])


settings = {
    "image_shape": (1, 8, 8),
    "dequantize": True,
    "hidden_layer_sizes": (128, 128),
    "max_iter": 30,
    "tol": 1.0,
    "random_state": 0,
}
plain = JointManifoldFlow(2, **settings).fit(images[train])
guided = JointManifoldFlow(2, guide="tsne", **settings).fit(images[train])
pictures = {
    "PCA\nnew rows, inverse, density": PCA(2).fit(images[train]).transform(images),
    "Isomap\nnew rows": Isomap(n_neighbors=10).fit(images[train]).transform(images),
    "t-SNE": TSNE(random_state=0).fit_transform(images),
    "autoencoder\nnew rows, inverse": autoencoder(images),
    "JointManifoldFlow\nnew rows, inverse, density": plain.transform(images + 0.5),
    "the same, guide='tsne'\nnew rows, inverse, density": guided.transform(images + 0.5),
}

# %%
# The rows are test digits. The number is the accuracy of a classifier by five nearest neighbours in
# the picture.
fig, axes = plt.subplots(2, 3, figsize=(11, 8), layout="constrained")
for ax, (name, Z) in zip(axes.flat, pictures.items(), strict=True):
    neighbors = KNeighborsClassifier(5).fit(Z[train], labels[train])
    accuracy = neighbors.score(Z[test], labels[test])
    display = EmbeddingDisplay(Z[test], labels[test]).plot(ax=ax)
    display.legend_.set_visible(ax is axes[0, 2])
    ax.set(title=f"{name}\n{accuracy:.2f}", xlabel="", ylabel="", xticks=[], yticks=[])
plt.show()

# %%
# What a picture is worth
# -----------------------
# Only the flows have all three: places of new rows, images of places, and a density. So the last
# picture can be read in both directions. Faint are places that are less dense than those of 95 % of
# the rows.
EmbeddingDisplay.from_estimator(
    guided, images[test] + 0.5, labels[test], y_name="digit", density=True, grid=14
)
plt.show()
