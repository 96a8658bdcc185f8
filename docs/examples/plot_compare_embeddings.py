"""
Seven pictures of the digits
============================

PCA, Isomap, t-SNE, UMAP, an autoencoder and two flows draw the same handwritten digits in two
dimensions. Beside each picture stands how well it tells classes of digits apart that no method has
been told of, and what else one can do with it.
"""

# %%
# Two thirds of the digits are for the fits, the others are placed by what was learned. t-SNE cannot
# place new rows: it has seen all digits, and its figure is that of digits it has seen.
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE, Isomap
from sklearn.neighbors import KNeighborsClassifier
from torch import nn
from umap import UMAP

from skmanifoldflow import JointManifoldFlow
from skmanifoldflow.plotting import EmbeddingDisplay

images, labels = load_digits(return_X_y=True)
order = np.random.RandomState(0).permutation(len(images))
train, test = order[:1200], order[1200:]


def network(n_inputs, n_outputs):
    """A network of two hidden layers."""
    sizes, layers = (n_inputs, 256, 256, n_outputs), []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


def autoencoder(rows, n_epochs=150):
    """Return the two coordinates from which a network rebuilds its input best."""
    torch.manual_seed(0)
    encoder, decoder = network(64, 2), network(2, 64)
    rows = torch.tensor(rows / 16, dtype=torch.float32)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()])
    for _ in range(n_epochs):
        for batch in rows[train][torch.randperm(len(train))].split(64):
            optimizer.zero_grad()
            (decoder(encoder(batch)) - batch).square().mean().backward()
            optimizer.step()
    return encoder(rows).detach().numpy()


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
    "UMAP\nnew rows, inverse by stored rows": UMAP(random_state=0, n_jobs=1)
    .fit(images[train])
    .transform(images),
    "autoencoder\nnew rows, inverse": autoencoder(images),
    "JointManifoldFlow\nnew rows, inverse, density": plain.transform(images + 0.5),
    "the same, guide='tsne'\nnew rows, inverse, density": guided.transform(images + 0.5),
}

# %%
# The rows are test digits. The number is the accuracy of a classifier by five nearest neighbours in
# the picture.
fig, axes = plt.subplots(2, 4, figsize=(14, 8), layout="constrained")
for ax, (name, Z) in zip(axes.flat, pictures.items(), strict=False):
    neighbors = KNeighborsClassifier(5).fit(Z[train], labels[train])
    accuracy = neighbors.score(Z[test], labels[test])
    display = EmbeddingDisplay(Z[test], labels[test]).plot(ax=ax)
    display.legend_.set_visible(False)
    ax.set(title=f"{name}\n{accuracy:.2f}", xlabel="", ylabel="", xticks=[], yticks=[])
axes[1, 3].set_axis_off()
handles, names = display.legend_.legend_handles, [text.get_text() for text in display.legend_.texts]
axes[1, 3].legend(handles, names, title="digit", loc="center", ncols=2, frameon=False)
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
