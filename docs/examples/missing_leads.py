"""Pretrain on twelve leads, fine-tune for a device that may lack some of them.

A missing lead is NaN. ``lead_dropout`` takes leads away in training, so that predictions do not
rely on any one.
"""

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GroupShuffleSplit

from skecg import ECGClassifier, ECGSelfSupervisedEmbedder
from skecg.datasets import make_ecg
from skecg.encoders import PatchTransformer
from skecg.objectives import MaskedReconstruction
from skecg.preprocessing import LeadSelector

# recordings without labels, of other patients than below; an update works with half of the leads
unlabeled, _, _ = make_ecg(150, duration=4.0, random_state=1)
embedder = ECGSelfSupervisedEmbedder(
    PatchTransformer(patch_size=20, embed_dim=32, depth=2),
    MaskedReconstruction(lead_fraction=0.5, decoder_dim=32),
    max_epochs=10, random_state=0,
).fit(unlabeled)

classes = ("normal", "left bundle branch block")
X, y, groups = make_ecg(150, classes=classes, duration=4.0, random_state=0)
train, test = next(GroupShuffleSplit(1, test_size=0.4, random_state=0).split(X, y, groups))

# a device with three leads under names of its own: the others become NaN
device = LeadSelector(embedder.lead_names_in_, input_lead_names=("MLII", "ECG V1", "v5"))
few = device.fit_transform(X[:, [1, 6, 10]])
present = ~np.isnan(few[0, :, 0])
print("leads:", np.array(device.lead_names_out_)[present].tolist(), "in", few.shape)

for lead_dropout in (0.0, 0.5):
    classifier = ECGClassifier(
        FrozenEstimator(embedder), lead_dropout=lead_dropout, max_epochs=15, random_state=0,
    ).fit(X[train], y[train])
    all_leads, three = (classifier.score(signals[test], y[test]) for signals in (X, few))
    print(f"lead_dropout={lead_dropout}: accuracy {all_leads:.2f} with 12 leads, {three:.2f} with 3")
