"""The names of the files of a saved model."""

import re

# What `save_pretrained` writes for an encoder with a classification head and its tokenizer; weights
# only as safetensors, or as the graphs of the standard layout, neither of which runs code when it
# is read.
SAVED = r"""
    config\.json
    | model(-\d{5}-of-\d{5})?\.safetensors | model\.safetensors\.index\.json
    | (modeling|configuration|tokenization)_\w+\.py
    | tokenizer(_config)?\.json | tokenizer\.model
    | special_tokens_map\.json | added_tokens\.json
    | vocab\.(json|txt|bpe) | merges\.txt | bpe\.codes | dict\.txt
    | (spiece|spm|sentencepiece(\.bpe)?)\.model
"""
# In the folder itself; in the standard layout, also in two folders of it.
MODEL_FILES = re.compile(
    rf"""
    README\.md | identity\.json | out_of_scope\.safetensors | {SAVED}
    | onnx/model(_quantized)?\.onnx(\.data)?
    | sentence-transformers/(
        {SAVED} | modules\.json | sentence_bert_config\.json
        | \d_\w+/(config\.json | model\.safetensors)
      )
    """,
    re.VERBOSE,
)


def is_model_file(name: str) -> bool:
    """Whether a file of this name belongs to a model."""
    return MODEL_FILES.fullmatch(name) is not None
