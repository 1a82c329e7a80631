"""Pretrained once on twelve leads, used on fewer: what random lead masking brings.

    python benchmarks/lead_agnostic.py ptbxl_bp100 FOLDER

FOLDER holds PTB-XL as in joint_spatiotemporal.py: a table ``labels.csv`` beside records at 100 Hz. Each network is pretrained
once on all leads of folds 1-8; budgets of labels come from folds 1-8 too, fold 9 is the test part. Then the same weights are
trained with labels on 12, 6, 3, 2 and 1 leads, the missing ones NaN, and tested on those. Superclasses with few and all
labels, and the statements that are arrhythmias of the CinC Challenge 2021 (arrhythmias.py) with all labels, decided at 0.5.

``--cache`` keeps every pretraining, epoch by epoch, and every finished run: the same command goes on where it was stopped.

Arms: a small ConvTransformer after wav2vec 2.0 and CMSC with random lead masking (RLM), after the same without RLM, and from
scratch; ResNet1d after CMSC with RLM, after CMSC, and from scratch, which is a supervised network given the mean in place of
missing leads; linear probes of the frozen embeddings; features with a linear model. "12 leads in training" are networks
that were trained with labels on all leads and merely tested without some.
"""

import argparse
from pathlib import Path

from joint_spatiotemporal import ptbxl_bp100

from skecg import ECGSelfSupervisedEmbedder
from skecg.encoders import ConvTransformer, ResNet1d
from skecg.objectives import Wav2Vec2CMSC

CROP = 500  # samples of the piece that an update of pretraining sees; its halves of 2.5 s are the pairs
RESNET, CONV = "ResNet1d", "ConvTransformer"


def network(name):
    """Parameters of the two networks, for any length of window."""
    if name == RESNET:
        return ResNet1d(any_length=True)
    return ConvTransformer(128, 3, conv_dim=64, conv_strides=(2, 2, 2), dropout=0.1, any_length=True)


def pretrain(X, groups, cache, epochs, seed):
    """The four pretrained embedders by (network, whether with RLM)."""
    return {
        (name, masked): ECGSelfSupervisedEmbedder(
            network(name), Wav2Vec2CMSC(local_weight=float(name == CONV), lead_mask_prob=0.5 * masked), crop_size=CROP,
            max_epochs=epochs[name], checkpoint_dir=cache / "pretrained", random_state=seed,
        ).fit(X, groups=groups)
        for name in (RESNET, CONV) for masked in (True, False)
    }
