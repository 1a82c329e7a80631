import numpy as np
import pytest
from sklearn.base import clone

from skecg import ECGSelfSupervisedEmbedder
from skecg.datasets import make_ecg
from skecg.recipes import joint_spatiotemporal


def test_base_is_the_network_that_is_documented():
    embedder = joint_spatiotemporal(fs=250)
    assert isinstance(embedder, ECGSelfSupervisedEmbedder)
    X = np.random.default_rng(0).normal(size=(2, 12, 2250)).astype(np.float32)
    network = clone(embedder).set_params(max_epochs=0).fit(X).network_
    assert network.patch_size == 75
    assert len(network.blocks) == 12
    assert network.embed_dim == 384
    assert 21e6 < sum(p.numel() for p in network.parameters()) < 22e6
    assert embedder.objective.lead_shuffle == 0.5


@pytest.mark.parametrize("fs", [100, 125.0, 500])
def test_small_has_lengths_in_seconds(fs):
    embedder = joint_spatiotemporal("small", fs=fs)
    assert embedder.encoder.patch_size == round(0.25 * fs)
    assert embedder.crop_size == round(2.5 * fs)


def test_parameters_of_the_embedder_can_be_given():
    X = make_ecg(6, duration=3.0, random_state=0)[0]
    embedder = joint_spatiotemporal("small", fs=100, max_epochs=2, batch_size=3, random_state=0).fit(X)
    assert embedder.batch_size == 3
    assert len(embedder.history_) == 2
    assert {"reconstruction", "lead_cross_entropy", "chest_lead_accuracy"} <= embedder.history_[0].keys()
    n_parameters = sum(p.numel() for p in embedder.network_.parameters())
    assert 0.9e6 < n_parameters < 1.1e6


@pytest.mark.parametrize(("args", "message"), [
    ({"size": "large", "fs": 100}, "size"), ({"fs": 0}, "fs"), ({"fs": None}, "fs"),
])
def test_bad_arguments_are_refused(args, message):
    with pytest.raises(ValueError, match=f"The '{message}' parameter"):
        joint_spatiotemporal(**args)
