"""Checkpoints of fairseq-signals and ECG-FM: reading them, and their tensors under our names."""

import re

import torch

from .encoders import ConvTransformer
from .objectives import Wav2Vec2CMSC

# of the network that is kept
_NETWORK = (
    (r"feature_extractor\.conv_layers\.(\d+)\.0\.weight", r"convolutions.\1.weight"),
    (r"feature_extractor\.conv_layers\.0\.2\.(weight|bias)", r"time_norm.\1"),
    (r"layer_norm\.(weight|bias)", r"latent_norm.\1"),
    (r"post_extract_proj\.(weight|bias)", r"project.\1"),
    (r"conv_pos\.pos_conv\.0\.bias", "positions.bias"),
    # torch's two layouts of weight normalisation; the first one until January 2025
    (r"conv_pos\.pos_conv\.0\.(weight_g|parametrizations\.weight\.original0)", "positions.gain"),
    (r"conv_pos\.pos_conv\.0\.(weight_v|parametrizations\.weight\.original1)", "positions.direction"),
    (r"encoder\.layer_norm\.(weight|bias)", r"norm.\1"),
    (r"encoder\.layers\.(\d+)\.self_attn\.q_proj\.(weight|bias)", r"blocks.\1.query.\2"),
    (r"encoder\.layers\.(\d+)\.self_attn\.k_proj\.(weight|bias)", r"blocks.\1.key.\2"),
    (r"encoder\.layers\.(\d+)\.self_attn\.v_proj\.(weight|bias)", r"blocks.\1.value.\2"),
    (r"encoder\.layers\.(\d+)\.self_attn\.out_proj\.(weight|bias)", r"blocks.\1.out.\2"),
    (r"encoder\.layers\.(\d+)\.self_attn_layer_norm\.(weight|bias)", r"blocks.\1.norm1.\2"),
    (r"encoder\.layers\.(\d+)\.fc1\.(weight|bias)", r"blocks.\1.mlp.0.\2"),
    (r"encoder\.layers\.(\d+)\.fc2\.(weight|bias)", r"blocks.\1.mlp.2.\2"),
    (r"encoder\.layers\.(\d+)\.final_layer_norm\.(weight|bias)", r"blocks.\1.norm2.\2"),
)
# of the pretraining task
_TASK = (
    (r"mask_emb", "mask_embedding"),
    (r"quantizer\.weight_proj\.(weight|bias)", r"quantizer.choose.\1"),
    (r"quantizer\.vars", "quantizer.codebook"),
    (r"project_q\.(weight|bias)", r"project_target.\1"),
    (r"final_proj\.(weight|bias)", r"project_context.\1"),
)


def read_fairseq(path):
    """The tensors and the model's configuration of a checkpoint, without running any code that it may hold.

    Returns
    -------
    model : dict of Tensors
        As stored.
    config : dict
        Of the model; empty if there is none.

    Raises
    ------
    ValueError
        No checkpoint of that kind, or one with more in it than tensors and plain values.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read as plain weights: {error} If you trust the file, load it once with "
            "torch.load(path, weights_only=False) and save its 'model' and a plain dict of its 'cfg' under another name."
        ) from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("model"), dict):
        found = sorted(map(str, checkpoint)) if isinstance(checkpoint, dict) else type(checkpoint).__name__
        raise ValueError(f"{path} is no checkpoint of fairseq-signals: expected a dict with 'model', got {found}.")
    config = checkpoint.get("cfg")
    config = config.get("model") if isinstance(config, dict) else None
    return checkpoint["model"], config if isinstance(config, dict) else {}


def rename_tensors(model, config):
    """A checkpoint's tensors under our names: those of the network, and those of the pretraining module.

    Raises
    ------
    ValueError
        A tensor that this network does not have.
    """
    if any(str(name).startswith("encoder.feature_extractor.") for name in model):  # a fine-tuned classifier, less its output
        model = {name.removeprefix("encoder."): value for name, value in model.items() if not name.startswith("proj.")}
    network, task, unknown = {}, {}, []
    for name, value in model.items():
        for table, renamed in ((_NETWORK, network), (_TASK, task)):
            match = next((m.expand(new) for old, new in table if (m := re.fullmatch(old, name))), None)
            if match is not None:
                renamed[match] = value.float()
                break
        else:
            unknown.append(name)
    if unknown:
        raise ValueError(
            f"The checkpoint holds tensors that this network does not have: {', '.join(map(str, unknown[:5]))}"
            f"{', ...' if len(unknown) > 5 else ''}. Expected a wav2vec 2.0 model of fairseq-signals with bias-free "
            "convolutions and quantised targets."
        )
    if "quantizer.codebook" in task:
        n_groups = int(config.get("latent_groups", 2))
        codebook = task["quantizer.codebook"]
        task["quantizer.codebook"] = codebook.reshape(n_groups, -1, codebook.shape[-1])  # (G, V, dim / G)
    return network, task


def describe_encoder(network, config, n_heads=None):
    """The encoder whose network has these tensors (under our names). Their shapes decide, not the configuration.

    Raises
    ------
    ValueError
        A tensor is missing, or the configuration is of another architecture.
    """
    for name, expected in (("layer_norm_first", False), ("conv_bias", False), ("extractor_mode", "default")):
        if config.get(name, expected) != expected:
            raise ValueError(f"The checkpoint has {name}={config[name]!r}; only {expected!r} can be loaded.")
    for _, kernel, stride in re.findall(r"\((\d+),\s*(\d+),\s*(\d+)\)", str(config.get("conv_feature_layers", ""))):
        if kernel != stride:
            raise ValueError(
                f"The checkpoint has convolutions of kernel {kernel} and stride {stride}; only convolutions without overlap "
                "can be loaded."
            )
    try:
        embed_dim, conv_dim = network["project.weight"].shape
        direction = network["positions.direction"].shape
        depth = 1 + max(int(name.split(".")[1]) for name in network if name.startswith("blocks."))
        n_convolutions = sum(name.startswith("convolutions.") for name in network)
        strides = tuple(network[f"convolutions.{i}.weight"].shape[-1] for i in range(n_convolutions))
        mlp_dim = network["blocks.0.mlp.0.weight"].shape[0]
    except (KeyError, ValueError) as error:
        raise ValueError(f"The checkpoint lacks a part of the network ({error}).") from error
    if n_heads is None:  # no shape tells; a configuration that does not fit the shapes is not believed
        fits = config.get("encoder_embed_dim") == embed_dim and "encoder_attention_heads" in config
        n_heads = int(config["encoder_attention_heads"]) if fits else embed_dim // 64
    if n_heads < 1 or embed_dim % n_heads:
        raise ValueError(
            f"{n_heads} attention heads do not divide the width of {embed_dim}: pass n_heads, which no tensor tells."
        )
    probabilities = {name: float(config.get(name, 0.1)) for name in ("dropout", "attention_dropout")}
    return ConvTransformer(
        embed_dim, depth, n_heads=n_heads, mlp_ratio=mlp_dim / embed_dim, conv_dim=conv_dim, conv_strides=strides,
        position_kernel=direction[-1], position_groups=embed_dim // direction[1], **probabilities,
        conv_gradient=float(config.get("feature_grad_mult", 0.1)), any_length=True,
    )


def describe_objective(task, config):
    """The pretraining task with these tensors (under our names); a default one if the checkpoint has none."""
    if not task:
        return Wav2Vec2CMSC()
    n_groups, n_codes, width = task["quantizer.codebook"].shape
    defaults = {
        "mask_prob": 0.65, "mask_length": 10, "n_negatives": 100, "temperature": 0.1, "target_dropout": 0.1,
        "gumbel_temperature": (2.0, 0.5, 0.999995),
    }
    names = {"n_negatives": "num_negatives", "temperature": "logit_temp", "target_dropout": "dropout_features",
             "gumbel_temperature": "latent_temp"}
    params = {name: config.get(names.get(name, name), value) for name, value in defaults.items()}
    params["gumbel_temperature"] = tuple(params["gumbel_temperature"])
    return Wav2Vec2CMSC(
        contrast_size=64, codebook_groups=n_groups, codebook_size=n_codes, codebook_dim=n_groups * width,
        target_dim=len(task["project_target.weight"]), **params,
    )
