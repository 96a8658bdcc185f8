"""Models that were fitted and stored by earlier versions keep their behaviour."""

import importlib.util
import lzma
import pickle
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone

FOLDER = Path(__file__).parent / "stored_models"
spec = importlib.util.spec_from_file_location("stored_models_make", FOLDER / "make.py")
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)

NAMES = sorted(path.stem for path in FOLDER.glob("*.npz"))

# A model says so when another version loads it.
pytestmark = pytest.mark.filterwarnings("ignore:Loading a .* of skmanifoldflow:UserWarning")


def load(name):
    model = pickle.loads(lzma.decompress((FOLDER / f"{name}.pkl.xz").read_bytes()))
    return model, np.load(FOLDER / f"{name}.npz")


def test_every_kind_is_stored():
    assert {f"{kind}_{dtype}" for kind in make.KINDS for dtype in make.DTYPES} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_predictions_are_those_stored(name):
    """To 1e-6 where float64 is computed; in float32 machines differ in their rounding."""
    model, stored = load(name)
    rows = stored["X"]
    dtype = name.rpartition("_")[2]
    answers = {
        key: (values, dtype) for key, values in make.predict(model, rows.astype(dtype)).items()
    }
    if dtype == "float32":
        in_float64 = make.predict(model, rows)
        answers |= {f"float64_{key}": (values, "float64") for key, values in in_float64.items()}
    for key, (values, precision) in answers.items():
        assert values.dtype == precision
        tolerance = 1e-6 if precision == "float64" else 1e-4
        expected = stored[key]
        assert np.isfinite(expected).all()
        np.testing.assert_allclose(values, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("float64")])
def test_a_warm_start_would_go_on(name):
    model, stored = load(name)
    assert model._config.agrees_with(model._choices(stored["X"].shape[1]))


def test_a_warm_start_of_a_model_with_outliers():
    """They were part of the flow, and have become part of the training."""
    model, stored = load("joint_nested_stages_float64")
    assert model._flow.outliers is not None
    model.set_params(warm_start=True, max_iter=1).fit(stored["X"])
    assert model._flow.outliers is None
    assert model._background is not None


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("float64")])
def test_stored_models_can_be_stored_again(name):
    model, stored = load(name)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(
        again.score_samples(stored["X"]), model.score_samples(stored["X"])
    )
    assert model.sample(5, random_state=0).shape == (5, stored["X"].shape[1])


@pytest.mark.parametrize("name", NAMES)
def test_parameters_of_later_versions_have_their_defaults(name):
    """These models know nothing of their columns, and can be fitted anew."""
    model, _ = load(name)
    assert model.get_params()["discrete_features"] == "auto"
    assert "discrete_features" not in repr(model)
    assert clone(model).get_params().keys() == model.get_params().keys()
    assert not hasattr(model, "columns_")
