"""RoBERTa models as Hugging Face's transformers saves them: reading them, and their tensors under our names."""

import json
import re
from pathlib import Path

import torch
from safetensors.torch import load_file

_LAYER = r"roberta\.encoder\.layer\.(\d+)\."
# of the network that is kept
_NETWORK = (
    (r"roberta\.embeddings\.word_embeddings\.weight", "word.weight"),
    (r"roberta\.embeddings\.position_embeddings\.weight", "position.weight"),
    (r"roberta\.embeddings\.token_type_embeddings\.weight", "segment"),
    (r"roberta\.embeddings\.LayerNorm\.(weight|bias)", r"norm.\1"),
    (_LAYER + r"attention\.self\.(query|key|value)\.(weight|bias)", r"blocks.\1.\2.\3"),
    (_LAYER + r"attention\.output\.dense\.(weight|bias)", r"blocks.\1.out.\2"),
    (_LAYER + r"attention\.output\.LayerNorm\.(weight|bias)", r"blocks.\1.norm1.\2"),
    (_LAYER + r"intermediate\.dense\.(weight|bias)", r"blocks.\1.mlp.0.\2"),
    (_LAYER + r"output\.dense\.(weight|bias)", r"blocks.\1.mlp.2.\2"),
    (_LAYER + r"output\.LayerNorm\.(weight|bias)", r"blocks.\1.norm2.\2"),
)
# of the pretraining task
_TASK = (
    (r"lm_head\.dense\.(weight|bias)", r"dense.\1"),
    (r"lm_head\.layer_norm\.(weight|bias)", r"norm.\1"),
    (r"lm_head\.bias", "bias"),
)
# stored twice, or of no use: the pooler was never trained by the language model, positions are numbers
_LEFT_OUT = r"lm_head\.decoder\.(weight|bias)|roberta\.pooler\..*|roberta\.embeddings\.position_ids"
# what our network computes; a model with other values is another model
_FIXED = {
    "model_type": "roberta", "hidden_act": "gelu", "layer_norm_eps": 1e-12, "type_vocab_size": 1, "pad_token_id": 1,
    "position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False,
}


def read_roberta(folder):
    """Configuration and tensors of a folder by ``save_pretrained``, without running any code that it may hold.

    Parameters
    ----------
    folder : str or path-like
        With ``config.json`` and ``model.safetensors`` or ``pytorch_model.bin``.

    Returns
    -------
    config : dict
    state : dict of str to Tensor
        Names as in the file, all beginning with ``roberta.`` or ``lm_head.``.

    Raises
    ------
    FileNotFoundError
        A file is missing.
    ValueError
        Not a RoBERTa model, or one whose arithmetic is another one.
    """
    folder = Path(folder)
    file = folder / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"There is no {file}. Pass the folder that save_pretrained wrote.")
    config = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        raise ValueError(f"{file} is not the configuration of a model.")
    for name, expected in _FIXED.items():
        # transformers leaves out what has its default
        if (found := config.get(name, {"layer_norm_eps": 1e-12}.get(name, expected))) != expected:
            raise ValueError(
                f"{file} says {name}={found!r}; skecg reads RoBERTa models with {name}={expected!r} only, because any other "
                "one computes something else."
            )
    weights = [folder / name for name in ("model.safetensors", "pytorch_model.bin") if (folder / name).is_file()]
    if not weights:
        raise FileNotFoundError(f"There is neither model.safetensors nor pytorch_model.bin in {folder}.")
    if weights[0].suffix == ".safetensors":
        state = load_file(weights[0])
    else:
        try:
            state = torch.load(weights[0], map_location="cpu", weights_only=True)
        except Exception as error:  # whatever unpickling stumbles over
            raise ValueError(f"{weights[0]} holds more than tensors, or is damaged ({error}).") from error
    # of a bare encoder, the names have no prefix
    bare = not any(name.startswith("roberta.") for name in state)
    return config, {f"roberta.{name}" if bare else name: value for name, value in state.items()}


def rename(state):
    """Tensors of a RoBERTa model by the names of our network and of our language model's head.

    Returns
    -------
    network, task : dict of str to Tensor

    Raises
    ------
    ValueError
        A tensor that is neither known nor known to be superfluous; a decoder of its own weights.
    """
    network, task = {}, {}
    for name, value in state.items():
        for found, patterns in ((network, _NETWORK), (task, _TASK)):
            for pattern, ours in patterns:
                if match := re.fullmatch(pattern, name):
                    found[match.expand(ours)] = value.float()
        if not re.fullmatch("|".join(pattern for pattern, _ in (*_NETWORK, *_TASK)) + f"|{_LEFT_OUT}", name):
            raise ValueError(f"There is a tensor {name!r} in the weights, which no RoBERTa language model has.")
    decoder = state.get("lm_head.decoder.weight")
    if decoder is not None and not torch.equal(decoder.float(), network["word.weight"]):
        raise ValueError("The decoder's weights are not those of the embedding; skecg reads models with tied weights only.")
    return network, task


def load_strictly(module, state, what):
    """Put ``state`` into a network: every parameter once, in its shape.

    Raises
    ------
    ValueError
        A tensor is missing, superfluous, or has another shape.
    """
    own = {name: value for name, value in module.state_dict().items() if name not in ("center", "scale")}
    problems = [f"{name} is missing" for name in own.keys() - state.keys()]
    problems += [f"{name} is not known" for name in state.keys() - own.keys()]
    problems += [
        f"{name} has the shape {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own.keys() & state.keys() if own[name].shape != state[name].shape
    ]
    if problems:
        raise ValueError(f"The weights do not fit {what}: {'; '.join(sorted(problems))}.")
    module.load_state_dict(state, strict=False)
