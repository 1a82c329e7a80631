"""Token ids of many signals, on disk."""

from pathlib import Path

import joblib
import numpy as np

from .._files import write_atomically
from .._validation import as_3d, row_blocks
from ._quantizer import quantize


class TokenCorpus:
    """Ids of the leads of many samples, read from disk where they are needed.

    Parameters
    ----------
    ids : memmap of shape (n_ids,), uint16
        Of all leads, one after the other.
    offsets : memmap of shape (n_samples * n_leads + 1,), int64
        Where each lead begins.
    n_leads : int
    """

    def __init__(self, ids, offsets, n_leads):
        self.ids, self.offsets, self.n_leads = ids, offsets, n_leads

    def leads(self, rows):
        """Ids of the leads of the samples at ``rows``, sample by sample: a list of uint16 arrays."""
        return [
            self.ids[self.offsets[lead]:self.offsets[lead + 1]]
            for row in rows for lead in range(row * self.n_leads, (row + 1) * self.n_leads)
        ]


def open_corpus(X, quantizer, tokenizer, folder):
    """The corpus of X, from ``folder`` if the same signals were encoded by the same thresholds and tokens before.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_leads, n_times) or (n_samples, n_times)
        Read in blocks.
    quantizer, tokenizer : ECGQuantizer, ECGTokenizer
        Fitted.
    folder : str or path-like
        Made if need be. Takes two bytes for each token.

    Returns
    -------
    corpus : TokenCorpus
    """
    X = as_3d(X)
    key = joblib.hash((quantizer.edges_, tokenizer.json_, tokenizer.first_character_, X), coerce_mmap=True)
    ids, offsets = (Path(folder) / f"tokens-{key}{suffix}" for suffix in (".uint16", ".offsets.npy"))
    if not offsets.exists():  # written last
        counts = []

        def write(file):
            for rows in row_blocks(X):
                block = quantize(np.asarray(X[rows]), quantizer.edges_)
                for lead in tokenizer.encode(block):
                    counts.append(len(lead))
                    file.write(lead.astype("<u2").tobytes())

        write_atomically(ids, write)
        write_atomically(offsets, lambda file: np.save(file, np.cumsum([0, *counts], dtype=np.int64)))
    return TokenCorpus(np.memmap(ids, "<u2", mode="r"), np.load(offsets, mmap_mode="r"), X.shape[1])
