"""Pegasus (Zhang et al., ICML 2020); the embeddings are scaled by the stacks."""

from torch import nn
from transformers import PegasusForConditionalGeneration
from transformers.models.pegasus.modeling_pegasus import PegasusAttention

from dq_lightning.models.family import ModelFamily
from dq_lightning.models.layout import BART_LAYOUT

FAMILY = ModelFamily(
    name="pegasus",
    model_types=("pegasus",),
    model_class=PegasusForConditionalGeneration,
    attention_types=(PegasusAttention,),
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
