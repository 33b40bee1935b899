"""BART (Lewis et al., ACL 2020)."""

from torch import nn
from transformers import BartForConditionalGeneration
from transformers.models.bart.modeling_bart import BartAttention, BartScaledWordEmbedding

from dq_lightning.models.family import ModelFamily
from dq_lightning.models.layout import BART_LAYOUT

FAMILY = ModelFamily(
    name="bart",
    model_types=("bart",),
    model_class=BartForConditionalGeneration,
    attention_types=(BartAttention,),
    token_embedding_types=(BartScaledWordEmbedding, nn.Embedding),
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
