"""
Strange rows of a table, and the cells that make them so
=========================================================

Nine measurements of tumours, from the breast cancer table of scikit-learn; three values are wrong.
:class:`~skmanifoldflow.NoveltyDetector` learns from other rows what is usual,
marks the strange rows with a known rate of false alarms, and says which cell is to blame.
"""

# %%
# A table with three mistakes
# ---------------------------
# Half of the rows are for the fit. In the other half one value is given in inches, one is mistyped,
# and one belongs to another tumour: by itself this one is not unusual.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from skmanifoldflow import NoveltyDetector
from skmanifoldflow.plotting import AnomalyDisplay, CalibrationDisplay, DensityDisplay

table = load_breast_cancer(as_frame=True).data.iloc[:, :9]
table.columns = [name.removeprefix("mean ") for name in table.columns]
X_train, X_test = train_test_split(table, test_size=0.5, random_state=0)
wrong = X_test.copy()
rows = in_inches, mistyped, mixed_up = wrong.index[[10, 20, 30]]
wrong.loc[in_inches, "radius"] /= 2.54
wrong.loc[mistyped, "smoothness"] = 0.19
wrong.loc[mixed_up, "area"] = wrong["area"].quantile(0.9)
print("rows with mistakes:", *rows)

# %%
# The strangest rows
# ------------------
# Left, the log-densities of all rows of the second half and the threshold, below which five of a
# hundred normal rows are expected. Right, the ten strangest rows with their values; colour is the
# share of a column in the strangeness of a row.
detector = NoveltyDetector(random_state=0).fit(X_train)
AnomalyDisplay.from_estimator(detector, wrong)
plt.show()

# %%
# How sure is that?
# -----------------
# Of rows without mistakes a share p should have p-values up to p: then the curve follows the
# diagonal.
print(f"false alarms: {np.mean(detector.predict(X_test) == -1):.1%}")
for row in rows:
    print(f"row {row}: p = {detector.p_value(wrong.loc[[row]])[0]:.4f}")
CalibrationDisplay.from_estimator(detector, X_test)
plt.show()

# %%
# Why no column alone tells it
# ----------------------------
# The radius of one tumour and the area of another, at the cross: both are common, but not together.
display = DensityDisplay.from_estimator(detector, X_train, columns=("radius", "area"))
display.ax_.scatter(*wrong.loc[mixed_up, ["radius", "area"]], color="#D55E00", marker="X", s=80)
plt.show()
