import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from sklearn.frozen import FrozenEstimator
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from torch.testing import assert_close

from skecg import ECGClassifier, ECGSelfSupervisedEmbedder, HeadClassifier, HeadRegressor
from skecg._torch import build_seeded
from skecg.encoders import ResNet1d
from skecg.heads import ArcFaceHead

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(("scale", "margin", "tolerance"), [(192.0, 1.0, 1e-3), (64.0, 0.5, 3e-4)])
def test_published_numbers(reference, scale, margin, tolerance, dtype):
    arrays = load_file(reference / "arcface_tiny" / "arrays.safetensors")
    case = f"s{scale:.0f}_m{margin}"
    expected = json.loads((reference / "arcface_tiny" / "meta.json").read_text())[case]
    module = ArcFaceHead(scale, margin).build(16, 30).to(dtype)
    with torch.no_grad():
        module.directions.copy_(arrays["kernel"])
    h = arrays["embeddings"].to(dtype).requires_grad_()
    assert_close((module(h) / scale).float(), arrays["cosines"], rtol=0, atol=1e-6)
    logits = module(h, target=arrays["labels"])
    assert_close(logits.float(), arrays[f"{case}.logits"], rtol=0, atol=tolerance)
    cosine = arrays["cosines"].gather(1, arrays["labels"][:, None])[:, 0]
    fallback = arrays[f"{case}.fallback_used"].bool()
    assert fallback.sum() == expected["n_fallback"] > 0
    assert torch.equal(fallback, cosine <= expected["threshold_cos"])
    loss = F.cross_entropy(logits, arrays["labels"], reduction="none")
    assert_close(loss.float(), arrays[f"{case}.per_sample_loss"], rtol=1e-4, atol=1e-4)
    assert loss.mean().item() == pytest.approx(expected["loss_mean"], rel=1e-4)
    if dtype == torch.float64:
        assert loss.mean().item() == pytest.approx(expected["loss_mean_float64_formula"], rel=1e-9)
    loss.mean().backward()
    for ours, name in ((h.grad, "grad_embeddings"), (module.directions.grad, "grad_kernel")):
        theirs = arrays[f"{case}.{name}"]
        assert_close(ours.float(), theirs, rtol=0, atol=1e-4 * theirs.abs().max().item())


def test_margin_is_an_angle():
    module = build_seeded(lambda: ArcFaceHead(10.0, 0.3).build(2, 5), 0).double()
    h = torch.randn(200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = torch.arange(200) % 5
    plain, margin = module(h) / 10, module(h, target=target) / 10
    own = F.one_hot(target, 5).bool()
    assert torch.equal(plain[~own], margin[~own])
    angle = plain[own].arccos()
    near = angle < np.pi - 0.3
    assert 0 < (~near).sum() < 50
    assert_close(margin[own][near].arccos(), angle[near] + 0.3)
    assert_close(margin[own][~near], plain[own][~near] - 0.3 * np.sin(0.3))
    assert_close(module(7 * h), module(h))  # length does not matter


def test_two_classes_are_two_directions():
    """The single output of two classes has the loss of two logits."""
    module = build_seeded(lambda: ArcFaceHead().build(4, 1), 0).double()
    both = ArcFaceHead().build(4, 2).double()
    both.load_state_dict(module.state_dict())
    h, target = torch.randn(30, 4, dtype=torch.float64), torch.arange(30) % 2
    for given in (None, target):
        logit = module(h, target=None if given is None else target[:, None].double())
        assert logit.shape == (30, 1)
        loss = F.binary_cross_entropy_with_logits(logit[:, 0], target.double())
        assert_close(loss, F.cross_entropy(both(h, target=given), target))


def test_finite_where_an_embedding_is_its_direction():
    module = build_seeded(lambda: ArcFaceHead().build(3, 4), 0)
    h = torch.cat([module.directions.detach(), -module.directions.detach(), torch.zeros(4, 3)]).requires_grad_()
    target = torch.arange(12) % 4
    F.cross_entropy(module(h, target=target), target).backward()
    assert torch.isfinite(h.grad).all()
    assert torch.isfinite(module.directions.grad).all()


@pytest.mark.parametrize("n_classes", [2, 4])
def test_classifies_embeddings(n_classes):
    y = np.arange(120) % n_classes
    X = RNG.normal(size=(120, 6)) + 3 * np.eye(6)[y]
    classifier = HeadClassifier(ArcFaceHead(16.0, 0.2), max_epochs=30, random_state=0).fit(X, np.array(list("abcd"))[y])
    assert classifier.score(X, np.array(list("abcd"))[y]) > 0.85
    np.testing.assert_allclose(classifier.predict_proba(X).sum(axis=1), 1, rtol=1e-5)
    # what is trained on is harder than what is predicted
    plain = HeadClassifier(ArcFaceHead(16.0, 0.0), max_epochs=30, random_state=0).fit(X, y)
    assert classifier.history_[-1]["loss"] > plain.history_[-1]["loss"]


def test_training_on_some_persons_makes_others_recognisable():
    """Persons differ in four of twenty values, the others vary more from recording to recording."""
    rng = torch.Generator().manual_seed(0)
    person = torch.arange(220).repeat_interleave(5)
    own, other = torch.randn(220, 4, generator=rng)[person], 2 * torch.randn(1100, 16, generator=rng)
    x = torch.cat([own + 0.1 * torch.randn(1100, 4, generator=rng), other], dim=1)
    train, first = person < 200, torch.arange(1100) % 5 == 0
    network, head = build_seeded(lambda: (torch.nn.Linear(20, 8), ArcFaceHead(16.0, 0.2).build(8, 200)), 0)
    optimizer = torch.optim.Adam([*network.parameters(), *head.parameters()], lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        F.cross_entropy(head(network(x[train]), target=person[train]), person[train]).backward()
        optimizer.step()

    def rank_one(h):
        gallery, probe = ~train & first, ~train & ~first
        nearest = KNeighborsClassifier(1, metric="cosine").fit(h[gallery], person[gallery])
        return nearest.score(h[probe], person[probe])

    assert rank_one(network(x).detach()) > 0.8  # chance is one in twenty
    assert rank_one(x) < 0.3


def test_classifier_to_identification():
    X = np.random.default_rng(0).normal(size=(24, 2, 40)).astype(np.float32)
    person = np.arange(24) % 6
    embedder = ECGSelfSupervisedEmbedder(ResNet1d(4, (1, 1), kernel_size=3), max_epochs=0, random_state=0)
    classifier = ECGClassifier(embedder, ArcFaceHead(16.0, 0.1), max_epochs=2, random_state=0).fit(X, person)
    assert classifier.predict_proba(X).shape == (24, 6)
    identify = make_pipeline(FrozenEstimator(classifier.embedder_), KNeighborsClassifier(1, metric="cosine"))
    assert (identify.fit(X[:6], person[:6]).predict(X[:6]) == person[:6]).all()


@pytest.mark.parametrize("fit", [
    lambda X: HeadClassifier(ArcFaceHead()).fit(X, np.eye(3, dtype=int)[np.arange(12) % 3]),
    lambda X: HeadRegressor(ArcFaceHead()).fit(X, X[:, 0]),
    lambda X: HeadRegressor(ArcFaceHead()).fit(X, X[:, :2]),
], ids=["labels", "value", "values"])
def test_neither_labels_nor_values(fit):
    with pytest.raises(ValueError, match="ArcFaceHead separates classes of which a sample has one"):
        fit(RNG.normal(size=(12, 4)))
