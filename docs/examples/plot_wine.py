"""
A table of wines: map, columns, new rows
========================================

178 wines of three growers and thirteen measurements, as a data frame. One fit gives a map of the
wines, what a place on the map means in terms of the columns, how a wine changes along the way, and
new wines.
"""

# %%
# A map with a meaning
# --------------------
# Left, the wines, in the colours of growers that the model has not been told of, and the density as
# a shade. Right, the wines that the places stand for: bars of the six columns that vary most over
# the map, upwards where a wine has more than the mean. Faint are places where there are no wines.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_wine
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmanifoldflow import JointManifoldFlow
from skmanifoldflow.plotting import (
    EmbeddingDisplay,
    PairDisplay,
    ReconstructionDisplay,
    WalkDisplay,
)

wine = load_wine(as_frame=True)
growers = wine.target.map(dict(enumerate("ABC"))).rename("grower")
flow = JointManifoldFlow(
    2, guide="tsne", discrete_features=None, max_iter=100, tol=1.0, random_state=0
)
model = make_pipeline(StandardScaler(), flow).fit(wine.data)
EmbeddingDisplay.from_estimator(model, wine.data, growers, density=True, grid=8)
plt.show()

# %%
# From one wine to another
# ------------------------
# The columns that change most between a wine of grower A and one of grower C, straight over the map
# and along the density.
ends = [int(np.flatnonzero(growers == name)[0]) for name in "AC"]
WalkDisplay.from_estimator(model, wine.data, ends=ends)
plt.show()

# %%
# What two numbers leave out
# --------------------------
# Rows as they are and rebuilt from their place on the map, and the share of the variance of each
# column that the map does not tell.
ReconstructionDisplay.from_estimator(model, wine.data)
plt.show()

# %%
# New wines
# ---------
# Samples beside the rows, in the four columns whose distributions differ most. With 178 rows a
# density of thirteen columns has much to guess; for samples alone a Gaussian mixture may serve as
# well.
PairDisplay.from_estimator(model, wine.data)
plt.show()
