"""
A search for the best density
=============================

How much noise should a flow expect, and how many layers does it need? Log-densities of rows that a
fit has not seen answer that as scores do elsewhere in scikit-learn.
:class:`~skmanifoldflow.model_selection.StackedSearchCV` is a grid search that trains alike
candidates together.
"""

# %%
# Two moons
# ---------
# Nine candidates, each in three folds.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons

from skmanifoldflow import NoisyInjectiveFlow
from skmanifoldflow.model_selection import StackedSearchCV
from skmanifoldflow.plotting import CalibrationDisplay, DensityDisplay

X, _ = make_moons(600, noise=0.1, random_state=0)
X_test, _ = make_moons(1000, noise=0.1, random_state=1)
grid = {"noise_floor": [0.02, 0.1, 0.5], "n_layers": [1, 3, 6]}
search = StackedSearchCV(
    NoisyInjectiveFlow(1, max_iter=15, tol=1.0, random_state=0), grid, cv=3
).fit(X)
print("best:", search.best_params_)

# %%
# Noise is a standard deviation in those of the columns. Too much of it blurs the moons; of a flow
# with too few layers they have the wrong shape. Where the scores are level the choice does not
# matter.
scores = search.cv_results_["mean_test_score"].reshape(3, 3)
fig, ax = plt.subplots(figsize=(5, 4), layout="constrained")
image = ax.imshow(scores, cmap="YlGn", vmax=scores.max() + 0.5)
for (i, j), score in np.ndenumerate(scores):
    ax.text(j, i, f"{score:.2f}", ha="center", va="center")
ax.set_xticks(range(3), grid["noise_floor"])
ax.set_yticks(range(3), grid["n_layers"])
ax.set(xlabel="noise_floor", ylabel="n_layers")
fig.colorbar(image, label="log-density out of fold, nats")
plt.show()

# %%
# Worst and best
# --------------
# The same two candidates as regions that hold 95, 75, 50 and 25 % of the probability. The rows are
# those of the fit.
worst = search.cv_results_["params"][scores.argmin()]
best = search.best_estimator_
models = {"worst": search.estimator.set_params(**worst).fit(X), "best": best}
fig, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for ax, (name, model) in zip(axes, models.items(), strict=True):
    DensityDisplay.from_estimator(model, X, ax=ax)
    ax.set(title=f"{name}: {model.score(X_test):.2f} nats on fresh rows")
plt.show()

# %%
# Fresh rows have low densities as often as samples of the model have them, if it is right. Here
# they have them less often: the best of these candidates still lays some probability between the
# moons.
CalibrationDisplay.from_estimator(best, X_test)
plt.show()
# sphinx_gallery_thumbnail_number = 2
