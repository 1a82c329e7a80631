import json
import pickle
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import skecg
from skecg.datasets import make_ecg
from skecg.preprocessing import ECGQuantizer, ECGTokenizer

X = make_ecg(10, duration=5.0, random_state=0)[0]
LEVELS = ECGQuantizer(16, method="lloyd-max").fit_transform(X)[:, 1]


@pytest.fixture(scope="module")
def tokenizer():
    return ECGTokenizer(200).fit(LEVELS)


def merges_of(tokenizer):
    """Pairs of tuples of levels, in the order in which they were joined."""
    return [
        tuple(tuple(ord(c) - tokenizer.first_character_ for c in part) for part in merge)
        for merge in json.loads(tokenizer.json_)["model"]["merges"]
    ]


def apply_merges(line, merges):
    """Byte-pair encoding as defined: the earliest merge first, from left to right."""
    tokens = [(int(level),) for level in line]
    rank = {pair: i for i, pair in enumerate(merges)}
    while True:
        found = [(rank[pair], pair) for pair in pairwise(tokens) if pair in rank]
        if not found:
            return tokens
        pair, joined, i = min(found)[1], [], 0
        while i < len(tokens):
            if tuple(tokens[i:i + 2]) == pair:
                joined.append(tokens[i] + tokens[i + 1])
                i += 2
            else:
                joined.append(tokens[i])
                i += 1
        tokens = joined


def test_encoding_is_byte_pair_encoding(tokenizer):
    merges = merges_of(tokenizer)
    assert len(merges) == 200 - 7 - 16
    for line, ids in zip(LEVELS[:3], tokenizer.encode(LEVELS[:3]), strict=True):
        expected = apply_merges(line, merges)
        assert [tuple(tokenizer.decode([i])) for i in ids] == expected


def test_each_merge_is_the_most_frequent_pair():
    """The first forty merges against counting by hand."""
    tokenizer = ECGTokenizer(7 + 16 + 40).fit(LEVELS, n_levels=16)
    lines = [[(int(level),) for level in line] for line in LEVELS]
    for k, merge in enumerate(merges_of(tokenizer)):
        counts = Counter()
        for line in lines:
            counts.update(pairwise(line))
        assert counts[merge] == max(counts.values()), k
        lines = [apply_merges_once(line, merge) for line in lines]


def apply_merges_once(tokens, pair):
    joined, i = [], 0
    while i < len(tokens):
        step = 2 if tuple(tokens[i:i + 2]) == pair else 1
        joined.append(sum(tokens[i:i + step], ()))
        i += step
    return joined


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 15), min_size=1, max_size=60), min_size=1, max_size=4))
def test_decoding_returns_every_line(lines):
    fitted = ECGTokenizer(200).fit(LEVELS)
    n_times = min(map(len, lines))
    lines = np.array([line[:n_times] for line in lines])
    for line, ids in zip(lines, fitted.encode(lines), strict=True):
        assert_array_equal(fitted.decode(ids), line)
        assert (ids >= 7).all()  # nothing special, nothing unknown


def test_all_levels_are_in_the_vocabulary():
    """Also those that training did not see: 95 (a no-break space in HeartBERT's alphabet) and 68 (a line break)."""
    tokenizer = ECGTokenizer(2000).fit(np.zeros((2, 50), int), n_levels=1500)
    line = np.arange(1500)[None]
    assert_array_equal(tokenizer.decode(tokenizer.encode(line)[0]), line[0])
    assert tokenizer.encode(line)[0].dtype == np.uint16


def test_no_token_is_longer_than_asked():
    flat = np.zeros((4, 3000), int)
    tokenizer = ECGTokenizer(100, max_token_length=8).fit(flat)
    longest = max(len(tokenizer.decode([i])) for i in range(7, tokenizer.vocab_size_))
    assert longest == 8


def test_missing_leads_have_no_tokens(tokenizer):
    lines = np.stack([LEVELS[0], np.full_like(LEVELS[0], -1)])
    first, missing = tokenizer.encode(lines)
    assert len(first) and not len(missing)
    with_gap = np.concatenate([LEVELS, np.full_like(LEVELS, -1)])
    assert ECGTokenizer(200).fit(with_gap).json_ == tokenizer.json_


def test_training_takes_rows_at_equal_distances():
    tokenizer = ECGTokenizer(max_samples=1000)
    assert_array_equal(tokenizer.rows_to_learn(10, 250), [0, 2, 5, 7])
    assert_array_equal(tokenizer.rows_to_learn(3, 250), [0, 1, 2])
    lines = LEVELS[:, :250]
    few = ECGTokenizer(100, max_samples=1000).fit(lines, n_levels=16)
    assert few.json_ == ECGTokenizer(100).fit(lines[[0, 2, 5, 7]], n_levels=16).json_


def test_fit_is_reproducible(tokenizer):
    assert ECGTokenizer(200).fit(LEVELS).json_ == tokenizer.json_


def test_pickle_and_save(tokenizer, tmp_path):
    skecg.save(tokenizer, tmp_path / "tokenizer")
    for copy in (pickle.loads(pickle.dumps(tokenizer)), skecg.load(tmp_path / "tokenizer")):
        for ids, again in zip(tokenizer.encode(LEVELS), copy.encode(LEVELS), strict=True):
            assert_array_equal(ids, again)


@pytest.mark.parametrize(("levels", "message"), [
    ([[0.5, 1.0]], "must be integers"), ([1, 2], r"shape \(n_lines, n_times\)"), ([[3, -2]], "-2 to 3"),
    ([[3, 16]], "there are 16"),
])
def test_bad_levels_are_refused(tokenizer, levels, message):
    with pytest.raises(ValueError, match=message):
        tokenizer.encode(levels)


def test_vocabulary_must_have_room():
    with pytest.raises(ValueError, match=r"no room for 100 levels and 7 special tokens. Use 107 at least"):
        ECGTokenizer(50).fit(LEVELS, n_levels=100)


def test_unknown_ids_are_refused(tokenizer):
    with pytest.raises(ValueError, match="between 0 and 199"):
        tokenizer.decode([200])


def test_without_the_package_the_extra_is_named():
    code = (
        "import sys; sys.modules['tokenizers'] = None\nfrom skecg.preprocessing import ECGTokenizer\n"
        "ECGTokenizer().fit([[1, 2]])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert "pip install 'skecg[heartbert]'" in result.stderr


# --- files of HeartBERT


def test_ids_are_those_of_the_published_tokenizer(reference):
    known = np.load(reference / "bpe/arrays.npz")
    tokenizer = ECGTokenizer.from_file(reference / "bpe/tokenizer.json")
    fit, test = ((known[f"{part}_signal_digital"].astype(float) - 1024) / 200 for part in ("fit", "test"))
    quantizer = ECGQuantizer(100).fit(fit[None])
    assert_array_equal(quantizer.edges_, known["breakpoints"][:-1])
    assert_array_equal(quantizer.transform(fit[None])[0], known["fit_levels"])
    levels = ECGQuantizer.from_edges(known["breakpoints"][:-1]).transform(test.reshape(-1, 1080))
    assert_array_equal(levels.ravel(), known["test_levels"])
    for lines, flat, offsets in (
        (levels, known["test_ids_flat"], known["test_ids_offsets"]),
        (known["fit_levels"][: 5 * 1080].reshape(5, 1080), known["fit_ids_flat_first5"], known["fit_ids_offsets_first5"]),
    ):
        ids = tokenizer.encode(lines.astype(int))
        assert_array_equal(np.concatenate(ids), flat)
        assert_array_equal(np.cumsum([0, *map(len, ids)]), offsets)
    for line, ids in zip(levels, tokenizer.encode(levels), strict=True):
        assert_array_equal(tokenizer.decode(ids), line)


def test_other_files_are_refused(tmp_path, tokenizer):
    file = tmp_path / "tokenizer.json"
    file.write_text("{}")
    with pytest.raises(ValueError, match="is not a tokenizer of the package tokenizers"):
        ECGTokenizer.from_file(file)
    file.write_text(tokenizer.json_.replace("<mask>", "<hide>"))
    with pytest.raises(ValueError, match="expected 0 to 6"):
        ECGTokenizer.from_file(file)
