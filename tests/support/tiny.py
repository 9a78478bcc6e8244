"""A word list → a tiny encoder with a tokenizer, in a folder, as a Hub model would stand there.

Random weights, but always the same: every test reads the real thing without the network.
"""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

ARCHITECTURES = (
    "bert",
    "distilbert",
    "roberta",
    "electra",
    "deberta-v2",
    "modernbert",
    "xlm-roberta",
)
HIDDEN = 32
LAYERS = 2
POSITIONS = 64  # tokens a text may have, special ones included

WORDS = """
    a the and or not very of in on with for to from by at is are was were be it this that
    match team goal game win lose score player coach season league cup race final champion
    market share bank price trade stock profit loss rate tax money firm deal growth debt
    chip code data web phone computer software network robot space rocket planet star
    minister vote law court party state war peace treaty border city people school health
    good bad great poor new old big small fast slow first last red green blue one two three
    said says report reports news today week month year day night world country water fire
""".split()  # noqa: SIM905 # a list would be a hundred lines  # a list would be a hundred lines
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,!?"

# Which id each special token has follows what the architecture's own tokenizer does: position ids
# (RoBERTa) and masks count on it.
BERT = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
ROBERTA = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}
SPECIAL = {
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    "mpnet": {**ROBERTA, "unk": "[UNK]"},
    "deberta-v2": {key: BERT[key] for key in ("pad", "cls", "sep", "unk", "mask")},
    "modernbert": {key: BERT[key] for key in ("unk", "cls", "sep", "pad", "mask")},
}


def tiny_encoder(folder: Path, architecture: str = "bert") -> Path:
    """Write a tiny encoder and its tokenizer into `folder`, and return it."""
    tokenizer = tiny_tokenizer(architecture)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModel.from_config(_config(architecture, tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_tokenizer(architecture: str = "bert") -> PreTrainedTokenizerBase:
    """Whole words of the list, and letters for every other word."""
    special = SPECIAL.get(architecture, BERT)
    pieces = [*special.values(), *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=special["unk"]))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    cls, sep = special["cls"], special["sep"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(cls, vocabulary[cls]), (sep, vocabulary[sep])],
    )
    takes_types = architecture in ("albert", "bert", "electra", "deberta-v2")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=POSITIONS,
        model_input_names=["input_ids"] + ["token_type_ids"] * takes_types + ["attention_mask"],
        **{f"{name}_token": token for name, token in special.items()},
    )


def _config(architecture: str, tokenizer: PreTrainedTokenizerBase):
    sizes = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "intermediate_size": 2 * HIDDEN,
        "max_position_embeddings": POSITIONS,
    }
    match architecture:
        case "distilbert":
            more = {"hidden_dim": 2 * HIDDEN}
            del sizes["intermediate_size"]
        case "albert":
            more = {"embedding_size": HIDDEN // 2}
        case "mpnet":  # positions as RoBERTa has them
            more = {"max_position_embeddings": POSITIONS + tokenizer.pad_token_id + 1}
        case "roberta" | "xlm-roberta":
            # Positions are counted from the padding id on: two rows of the table are never used.
            more = {
                "max_position_embeddings": POSITIONS + tokenizer.pad_token_id + 1,
                "type_vocab_size": 1,
                "bos_token_id": tokenizer.cls_token_id,
                "eos_token_id": tokenizer.sep_token_id,
            }
        case "electra":
            more = {"embedding_size": HIDDEN // 2}  # unlike hidden_size, as ELECTRA-small has it
        case "deberta-v2":
            more = {  # what the deberta-v3 checkpoints have
                "relative_attention": True,
                "position_biased_input": False,
                "pos_att_type": ["p2c", "c2p"],
                "share_att_key": True,
                "norm_rel_ebd": "layer_norm",
                "position_buckets": 16,
                "max_relative_positions": -1,
                "type_vocab_size": 0,
                "pooler_hidden_size": HIDDEN,
            }
        case "modernbert":
            more = {
                "global_attn_every_n_layers": 2,
                "local_attention": 16,
                "cls_token_id": tokenizer.cls_token_id,
                "sep_token_id": tokenizer.sep_token_id,
                "bos_token_id": tokenizer.cls_token_id,
                "eos_token_id": tokenizer.sep_token_id,
            }
        case _:
            more = {}
    return AutoConfig.for_model(architecture, **{**sizes, **more})
