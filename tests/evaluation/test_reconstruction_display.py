import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline

from skecg import ECGSelfSupervisedEmbedder
from skecg.datasets import make_ecg
from skecg.encoders import PatchTransformer, ResNet1d
from skecg.evaluation import ReconstructionDisplay
from skecg.objectives import Batch, MaskedReconstruction, Objective
from skecg.preprocessing import LeadScaler

LEADS = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]
ENCODERS = {"patches": PatchTransformer(10, 16, 1), "resnet": ResNet1d(8, (1,))}


@pytest.fixture(scope="module")
def X():
    return make_ecg(10, duration=2.0, random_state=0)[0]


def fitted(X, encoder="patches", objective=None, **params):
    return ECGSelfSupervisedEmbedder(
        ENCODERS[encoder], objective or MaskedReconstruction(0.4, patch_size=10, lead_shuffle=0.5, lead_fraction=0.5),
        **{"max_epochs": 1, "warm_start": True, "precision": "float32", "random_state": 0, **params}).fit(X)


@pytest.mark.parametrize("crop_size", [None, 70])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_what_is_hidden_is_what_is_predicted(X, encoder, crop_size):
    embedder = fitted(X, encoder, crop_size=crop_size)
    display = ReconstructionDisplay.from_estimator(embedder, X[:3], random_state=0)
    assert display.signal.shape == display.hidden.shape == display.reconstruction.shape == (3, 12, 200)
    np.testing.assert_array_equal(display.signal, X[:3])
    assert (display.hidden == display.hidden[:, :1]).all()  # the same times in every lead
    assert np.isfinite(display.reconstruction).all()
    if crop_size is None:
        assert display.hidden.mean() == 0.4
    assert not np.array_equal(
        display.hidden, ReconstructionDisplay.from_estimator(embedder, X[:3], random_state=1).hidden)
    again = ReconstructionDisplay.from_estimator(embedder, X[:3], random_state=0)
    np.testing.assert_array_equal(display.reconstruction, again.reconstruction)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_predictions_are_in_the_unit_of_X_and_give_the_loss(X, encoder):
    """The mean squared error over what is hidden, over the training variance, is the module's own loss."""
    for unit in (1.0, 1000.0):
        embedder = fitted(unit * X, encoder, MaskedReconstruction(0.4, patch_size=10), max_epochs=5)
        display = ReconstructionDisplay.from_estimator(embedder, unit * X, random_state=0)
        mask = torch.from_numpy(display.hidden[:, 0, ::10])
        batch = Batch(torch.from_numpy(np.float32(unit) * X), given={"mask": mask})
        with torch.no_grad():
            loss = embedder.pretrainer_(batch)["loss"].item()
        error = np.square(display.signal - display.reconstruction)[display.hidden].mean()
        np.testing.assert_allclose(error / embedder.encoder_.scale_**2, loss, rtol=1e-3)


def test_a_schedule_is_shown_at_its_end(X):
    embedder = fitted(X, objective=MaskedReconstruction((0.2, 0.8)), max_epochs=2)
    assert ReconstructionDisplay.from_estimator(embedder, X, random_state=0).hidden.mean() == 0.8


def test_steps_before_the_embedder_are_applied_and_change_the_unit(X):
    pipe = make_pipeline(LeadScaler("record"), clone(fitted(X))).fit(X)
    display = ReconstructionDisplay.from_estimator(pipe, X[:2], random_state=0)
    np.testing.assert_array_equal(display.signal, LeadScaler("record").fit_transform(X[:2]))
    assert display.unit == "units"
    texts = {text.get_text() for text in display.plot(fs=100).ax_.texts}
    gain = next(float(text.split()[2]) for text in texts if text.startswith("25 mm/s"))
    assert "25 mm/s, 10 mm/mV" not in texts and any(text.endswith("mm/unit") for text in texts)
    reach = np.quantile(np.abs(display.signal[0] - np.median(display.signal[0], axis=1, keepdims=True)), 0.999)
    assert 0.3 * 22 < gain * reach <= 0.8 * 22
    alone = ReconstructionDisplay.from_estimator(make_pipeline(FrozenEstimator(fitted(X))), X[:2], random_state=0)
    assert alone.unit == "mV"
    assert "25 mm/s, 10 mm/mV" in {text.get_text() for text in alone.plot(fs=100).ax_.texts}
    assert ReconstructionDisplay.from_estimator(fitted(X), X[:1], unit="µV").unit == "µV"


@pytest.mark.parametrize(("options", "message"), [
    ({"fs": 0}, "fs is 0; expected a positive number"), ({"fs": "100"}, "fs is '100'"), ({"gain": 0}, "gain is 0"),
    ({"sample": 3}, "sample is 3, but there are 2 samples"),
])
def test_bad_scales_are_refused(X, options, message):
    display = ReconstructionDisplay.from_estimator(fitted(X), X[:2], random_state=0)
    with pytest.raises(ValueError, match=message):
        display.plot(**{"fs": 100, **options})


def test_what_is_no_embedder_is_refused(X):
    with pytest.raises(TypeError, match="Got a LeadScaler; expected an ECGSelfSupervisedEmbedder"):
        ReconstructionDisplay.from_estimator(LeadScaler().fit(X), X)


def test_missing_leads_stay_missing(X):
    other = X[:2].copy()
    other[0, 3] = np.nan
    display = ReconstructionDisplay.from_estimator(fitted(X), other, random_state=0)
    assert np.isnan(display.signal[0, 3]).all()
    assert np.isnan(display.reconstruction[0, 3]).all()
    assert not display.hidden[0, 3].any()
    assert np.isfinite(display.reconstruction[1]).all()
    display.plot(fs=100)
    assert "missing" in [text.get_text() for text in display.ax_.texts]


def test_plot_is_in_millimetres_of_paper(X):
    display = ReconstructionDisplay.from_estimator(fitted(X), X[:2], random_state=0)
    assert display.plot(1, fs=100) is display
    width, height = display.figure_.get_size_inches() * 25.4
    left, right = display.ax_.get_xlim()
    bottom, top = display.ax_.get_ylim()
    np.testing.assert_allclose([width, height], [right - left, top - bottom])
    lines = display.ax_.get_lines()
    black = [line for line in lines if line.get_color() == "black"]
    last = max(line.get_xdata().max() for line in lines)
    assert last == pytest.approx(1.99 * 25)  # two seconds at 25 mm/s
    first_lead = [line for line in black if abs(line.get_ydata().mean() + 11) < 11]
    values = np.concatenate([line.get_ydata() for line in first_lead])
    seen = ~display.hidden[1, 0]
    expected = -11 + 10 * (display.signal[1, 0] - np.median(display.signal[1, 0]))
    assert values.max() >= expected[seen].max() - 1e-6
    names = [text.get_text() for text in display.ax_.texts]
    assert [name for name in names if name in LEADS] == LEADS


class Nothing(Objective):
    def build(self, network):
        module = torch.nn.Module()
        module.encoder = network
        module.forward = lambda batch: {"loss": network(batch.x).square().mean()}
        return module


@pytest.mark.parametrize(("params", "message"), [
    ({"warm_start": False}, "Fit it with warm_start=True"),
    ({"objective": MaskedReconstruction(0, lead_shuffle=1.0)}, "does not reconstruct signals"),
    ({"objective": Nothing()}, "Nothing does not reconstruct signals"),
])
def test_an_embedder_that_cannot_reconstruct_is_refused(X, params, message):
    with pytest.raises(ValueError, match=message):
        ReconstructionDisplay.from_estimator(fitted(X, **params), X)
