"""M2M-100 (Fan et al., JMLR 2021) and the dense NLLB models (NLLB team, 2022)."""

from torch import nn
from transformers import M2M100ForConditionalGeneration
from transformers.models.m2m_100.modeling_m2m_100 import M2M100Attention, M2M100ScaledWordEmbedding

from dq_lightning.models.family import ModelFamily
from dq_lightning.models.layout import BART_LAYOUT

FAMILY = ModelFamily(
    name="m2m100",
    model_types=("m2m_100",),
    model_class=M2M100ForConditionalGeneration,
    attention_types=(M2M100Attention,),
    token_embedding_types=(M2M100ScaledWordEmbedding, nn.Embedding),
    keep_embeddings=(),  # its sinusoidal positions are a buffer, no embedding
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
