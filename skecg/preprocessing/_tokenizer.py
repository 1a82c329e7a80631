"""ECGTokenizer: levels of amplitude to tokens, by byte-pair encoding."""

from functools import lru_cache
from numbers import Integral
from pathlib import Path

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted

SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<cls>", "<sep>", "<mask>")  # ids 0 to 6, as in HeartBERT
_FIRST_CHARACTER = 0x4E00  # 20,000 ideographs and more follow: no spaces, no control characters, nothing to normalise
_LINE = 1024  # levels that are trained on together: longer lines cost more, and gave the same tokens


class ECGTokenizer(BaseEstimator):
    """Join frequent sequences of levels to tokens (byte-pair encoding; Sennrich et al., 2016).

    Training starts from one token per level, and makes a new token of the most frequent pair of neighbours until there
    are ``vocab_size``. The work is done by Hugging Face's ``tokenizers``, which ``pip install "skecg[heartbert]"`` installs.

    Parameters
    ----------
    vocab_size : int, default=4096
        Tokens at most, with the seven special ones. A larger vocabulary gives shorter sequences and costs ``vocab_size``
        rows of the network's embedding: from 5,000 to 52,000, one fifth of the tokens were saved on MIT-BIH.
    min_frequency : int, default=2
        A pair that occurs less often is not joined.
    max_token_length : int, default=64
        Levels in a token, at most. Flat signals would otherwise give tokens as long as a window.
    max_samples : int, default=5_000_000
        Levels that are learned from, at most; of more, rows at equal distances are taken.

    Attributes
    ----------
    json_ : str
        The trained tokenizer, in the format of ``tokenizers``.
    n_levels_ : int
        Levels it was made for.
    vocab_size_ : int
        Tokens it has, the special ones included.
    first_character_ : int
        Code point that stands for level 0.

    See Also
    --------
    ECGQuantizer : Signals to levels.

    Notes
    -----
    - Ids are below 65,536 and kept as uint16. 0 to 6 are ``<s> <pad> </s> <unk> <cls> <sep> <mask>``; none of them is ever
      put into what :meth:`encode` returns.
    - Levels are written as characters from U+4E00 on. HeartBERT's start at "A", and level 95 becomes a no-break space,
      which normalisation turns into a word boundary that no token crosses, and that cannot be decoded.
      :meth:`~skecg.preprocessing.ECGTokenizer.from_file` reads its files and reproduces that.
    - The state is text: pickles and :func:`skecg.save` need nothing of ``tokenizers``.

    References
    ----------
    Sennrich R, Haddow B, Birch A. Neural machine translation of rare words with subword units. ACL 2016.

    Examples
    --------
    >>> from skecg.datasets import make_ecg
    >>> from skecg.preprocessing import ECGQuantizer, ECGTokenizer
    >>> X, y, groups = make_ecg(20, duration=5.0, random_state=0)
    >>> levels = ECGQuantizer(n_levels=16, method="lloyd-max").fit_transform(X)[:, 0]
    >>> tokenizer = ECGTokenizer(vocab_size=100).fit(levels)
    >>> ids = tokenizer.encode(levels)
    >>> len(ids), ids[0].dtype, len(ids[0]) < levels.shape[1] / 3
    (20, dtype('uint16'), True)
    >>> bool((tokenizer.decode(ids[0]) == levels[0]).all())
    True
    """

    _parameter_constraints = {
        "vocab_size": [Interval(Integral, 1, 2**16, closed="both")],
        "min_frequency": [Interval(Integral, 1, None, closed="left")],
        "max_token_length": [Interval(Integral, 1, None, closed="left")],
        "max_samples": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(self, vocab_size=4096, *, min_frequency=2, max_token_length=64, max_samples=5_000_000):
        self.vocab_size = vocab_size
        self.min_frequency = min_frequency
        self.max_token_length = max_token_length
        self.max_samples = max_samples

    @classmethod
    def from_file(cls, path, *, n_levels=100, first_character="A"):
        """A fitted tokenizer from a ``tokenizer.json``, such as that of HeartBERT.

        Parameters
        ----------
        path : str or path-like
        n_levels : int, default=100
        first_character : str, default="A"
            What level 0 is written as.

        Returns
        -------
        tokenizer : ECGTokenizer
            Its ids are those of ``tokenizers`` for the text of each line, without special tokens.

        Raises
        ------
        ValueError
            The file is no tokenizer, has no ``<pad>`` or ``<mask>`` with ids 1 and 6, or more than 65,536 tokens.
        """
        text = Path(path).read_text(encoding="utf-8")
        _package()
        try:
            tokenizer = _parsed(text)
        except Exception as error:  # what tokenizers raises is a plain Exception
            raise ValueError(f"{path} is not a tokenizer of the package tokenizers ({error}).") from error
        found = tuple(tokenizer.token_to_id(token) for token in SPECIAL_TOKENS)
        if found != tuple(range(len(SPECIAL_TOKENS))):
            raise ValueError(
                f"{path} has the ids {found} for {' '.join(SPECIAL_TOKENS)}; expected 0 to {len(SPECIAL_TOKENS) - 1}, as in "
                "HeartBERT."
            )
        size = tokenizer.get_vocab_size()
        if size > 2**16:
            raise ValueError(f"{path} has {size} tokens; more than 65,536 do not fit into uint16.")
        new = cls(vocab_size=size)
        new._set(text, n_levels, ord(first_character))
        return new

    def fit(self, levels, n_levels=None):
        """Learn which neighbours to join.

        Parameters
        ----------
        levels : array-like of int, shape (..., n_times)
            As from :class:`ECGQuantizer`; lines of -1 (missing leads) are left out. No token reaches across two lines.
        n_levels : int, default=None
            How many levels there are. None: those up to the largest in ``levels``.

        Returns
        -------
        self

        Raises
        ------
        ImportError
            The package ``tokenizers`` is not installed.
        ValueError
            Not integers, or a vocabulary too small for the levels.
        """
        self._validate_params()
        tokenizers = _package()
        lines = _lines(levels)
        lines = lines[self.rows_to_learn(len(lines), lines.shape[1])]
        lines = lines[lines[:, 0] >= 0]
        n_levels = int(lines.max(initial=0)) + 1 if n_levels is None else n_levels
        _check_range(lines, n_levels)
        if self.vocab_size < n_levels + len(SPECIAL_TOKENS):
            raise ValueError(
                f"vocab_size={self.vocab_size} has no room for {n_levels} levels and {len(SPECIAL_TOKENS)} special tokens. "
                f"Use {n_levels + len(SPECIAL_TOKENS)} at least, or fewer levels."
            )
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=self.vocab_size, min_frequency=self.min_frequency,
            max_token_length=self.max_token_length + 1,  # of tokenizers: no token reaches it
            special_tokens=list(SPECIAL_TOKENS), show_progress=False,
            initial_alphabet=[chr(_FIRST_CHARACTER + level) for level in range(n_levels)],
        )
        pieces = (line[start:start + _LINE] for line in lines for start in range(0, len(line), _LINE))
        tokenizer.train_from_iterator((_text(piece, _FIRST_CHARACTER) for piece in pieces), trainer)
        self._set(tokenizer.to_str(), n_levels, _FIRST_CHARACTER)
        return self

    def rows_to_learn(self, n_rows, n_times):
        """Which of ``n_rows`` lines of ``n_times`` levels ``fit`` learns from, ascending indices."""
        n_learned = min(n_rows, -(-self.max_samples // max(1, n_times)))
        return np.linspace(0, n_rows, n_learned, endpoint=False).astype(np.intp)

    def encode(self, levels):
        """Token ids of each line.

        Parameters
        ----------
        levels : array-like of int, shape (n_lines, n_times)
            A line of -1 (a missing lead) has no tokens.

        Returns
        -------
        ids : list of ndarray of shape (n_tokens,), uint16
            One array a line, without special tokens.
        """
        check_is_fitted(self, "json_")
        _package()
        lines = _lines(levels)
        _check_range(lines, self.n_levels_)
        whole, n_times = _text(lines, self.first_character_), lines.shape[1]
        texts = [
            whole[i * n_times:(i + 1) * n_times] if n_times and line[0] >= 0 else "" for i, line in enumerate(lines)
        ]
        encodings = _parsed(self.json_).encode_batch_fast(texts, add_special_tokens=False)
        return [
            np.array(encoding.ids if text else [], dtype=np.uint16) for encoding, text in zip(encodings, texts, strict=True)
        ]

    def decode(self, ids):
        """Levels of one line; special tokens have none.

        Parameters
        ----------
        ids : array-like of int, shape (n_tokens,)

        Returns
        -------
        levels : ndarray of shape (n_times,), int16

        Raises
        ------
        ValueError
            An id that this tokenizer does not have.
        """
        check_is_fitted(self, "json_")
        _package()
        ids = np.asarray(ids)
        if ids.size and not 0 <= ids.min() <= ids.max() < self.vocab_size_:
            raise ValueError(
                f"ids must lie between 0 and {self.vocab_size_ - 1}; got {ids.min()} to {ids.max()}."
            )
        tokenizer = _parsed(self.json_)
        text = "".join(tokenizer.id_to_token(int(i)) for i in ids if i >= len(SPECIAL_TOKENS))
        if self.first_character_ != _FIRST_CHARACTER and text:
            # a word boundary stands before each line, and for each no-break space
            text = text.replace("\u2581", "\u00a0")
            text = text[1:] if text[0] == "\u00a0" else text
        return (np.frombuffer(text.encode("utf-32-le"), "<u4").astype(np.int64) - self.first_character_).astype(np.int16)

    def _set(self, text, n_levels, first_character):
        self.json_, self.n_levels_, self.first_character_ = text, int(n_levels), first_character
        self.vocab_size_ = _parsed(text).get_vocab_size()


def _package():
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError(
            "ECGTokenizer needs the package tokenizers, which is not installed. Install it with "
            "pip install 'skecg[heartbert]'."
        ) from error
    return tokenizers


@lru_cache(maxsize=8)
def _parsed(text):
    """The tokenizer of a JSON text; kept, because batches are many and texts few."""
    return _package().Tokenizer.from_str(text)


def _lines(levels):
    """Levels as (n_lines, n_times)."""
    levels = np.asarray(levels)
    if levels.ndim < 2 or levels.dtype.kind not in "iu":
        raise ValueError(
            f"levels must be integers of shape (n_lines, n_times), as from ECGQuantizer; got dtype {levels.dtype} and shape "
            f"{levels.shape}."
        )
    return levels.reshape(-1, levels.shape[-1])


def _check_range(lines, n_levels):
    if lines.size and not -1 <= lines.min() <= lines.max() < n_levels:
        raise ValueError(
            f"levels run from {lines.min()} to {lines.max()}, but there are {n_levels}: 0 to {n_levels - 1}, or -1 in a "
            "missing lead."
        )


def _text(levels, first_character):
    """The characters of levels, one after the other, without a loop over them."""
    return (levels.astype("<u4") + np.uint32(first_character)).tobytes().decode("utf-32-le")
