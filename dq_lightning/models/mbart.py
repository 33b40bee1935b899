"""mBART and mBART-50 (Liu et al., TACL 2020; Tang et al., 2020)."""

from torch import nn
from transformers import MBartForConditionalGeneration
from transformers.models.mbart.modeling_mbart import MBartAttention, MBartScaledWordEmbedding

from dq_lightning.models.family import ModelFamily
from dq_lightning.models.layout import BART_LAYOUT

FAMILY = ModelFamily(
    name="mbart",
    model_types=("mbart",),
    model_class=MBartForConditionalGeneration,
    attention_types=(MBartAttention,),
    token_embedding_types=(MBartScaledWordEmbedding, nn.Embedding),
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
)
