"""Marian / OPUS-MT (Junczys-Dowmunt et al., ACL 2018), one vocabulary or one a language."""

from torch import nn
from transformers import MarianMTModel
from transformers.models.marian.modeling_marian import MarianAttention

from dq_lightning.models.family import ModelFamily
from dq_lightning.models.layout import BART_LAYOUT

FAMILY = ModelFamily(
    name="marian",
    model_types=("marian",),
    model_class=MarianMTModel,
    attention_types=(MarianAttention,),
    token_embedding_types=(nn.Embedding,),
    keep_embeddings=("*.embed_positions",),
    feed_forward_outputs=("*.fc2",),
    head="lm_head",
    encoder_layers_key="encoder_layers",
    decoder_layers_key="decoder_layers",
    encoder_layer_prefix="model.encoder.layers.",
    decoder_layer_prefix="model.decoder.layers.",
    dropout_keys=("dropout", "attention_dropout", "activation_dropout"),
    layout=BART_LAYOUT,
    layer_dropout_keys=("encoder_layerdrop", "decoder_layerdrop"),
    computed_weights=("*.embed_positions.weight",),  # sinusoidal: checkpoints leave them out
)
