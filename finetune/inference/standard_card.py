"""The card of an export in the standard layout: how other libraries load it, from where it is.

describe_use(folder, "standard")                # from the folder that it is in
describe_use(folder, "ann/model", "onnx")       # from a branch of the Hub
"""

import json
from pathlib import Path

from finetune.inference.sentence_layout import FOLDER

CARD = """---
pipeline_tag: text-classification
tags: [onnx, transformers.js]
---

A document classifier in the standard layout. Its labels are in `config.json`; pooling and head
are in `onnx/model.onnx` (fp32) and `onnx/model_quantized.onnx` (int8, where it predicts as well).

```python
from optimum.onnxruntime import ORTModelForSequenceClassification
from transformers import AutoTokenizer, pipeline

model = ORTModelForSequenceClassification.from_pretrained(
    {place}, subfolder="onnx", file_name="model.onnx"
)
tokenizer = AutoTokenizer.from_pretrained({place})
classify = pipeline("text-classification", model=model, tokenizer=tokenizer)
classify("Shares fell after the bank raised its rate.", truncation=True)
```

```js
import {{ {names} }} from "@huggingface/transformers";

{local}const classify = await pipeline("text-classification", {name}, {options});
await classify("Shares fell after the bank raised its rate.");
```
"""
ENCODER = """
The folder `{inner}` is a sentence encoder, whose embeddings are the logits:

```python
{imports}from sentence_transformers import SentenceTransformer

SentenceTransformer({path}).encode(["Shares fell after the bank raised its rate."])
```
"""


def describe_use(folder: Path, name: str, revision: str | None = None) -> str:
    """The card of an exported folder.

    Args:
        name: of the folder, for who is in the one around it; with a revision, a repository's.
    """
    place, options = json.dumps(name), ['dtype: "fp32"']  # or q8
    names, local = "env, pipeline", 'env.localModelPath = "./";\n'
    imports, path = "", json.dumps(f"{name}/{FOLDER}")
    if revision is not None:
        place += f", revision={json.dumps(revision)}"
        options.append(f"revision: {json.dumps(revision)}")
        names, local = "pipeline", ""
        imports = "from huggingface_hub import snapshot_download\n"
        path = f'snapshot_download({place}) + "/{FOLDER}"'
    card = CARD.format(
        place=place,
        names=names,
        local=local,
        name=json.dumps(name),
        options=f"{{ {', '.join(options)} }}",
    )
    if (folder / FOLDER).is_dir():
        card += ENCODER.format(inner=FOLDER, imports=imports, path=path)
    return card
