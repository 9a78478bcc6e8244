"""Model folders with pickles under other names, links that lead out, and secrets in any file."""

import base64
import json
import os
import pickle
import shutil
import time
import zipfile
from pathlib import Path

import pytest
import torch

from finetune.api.prediction import load
from finetune.config.schema import Model
from finetune.hub import model_files, secret_scan
from finetune.modeling import build, pretrained, saved_model, source_checks
from finetune.runtime.errors import InputError
from tests.support.tiny import tiny_encoder


class Bomb:
    """A pickle that leaves a mark where it is read."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    encoder = tiny_encoder(root / "encoder")
    options = Model(source=str(encoder), freeze="none")
    model = build.build_classifier(str(encoder), options, ["a", "b"], "eager", 0)
    tokenizer = pretrained.load_tokenizer(str(encoder), options)
    saved_model.save_classifier(model, tokenizer, root / "model")
    return root / "model"


@pytest.fixture
def folder(saved, tmp_path):
    yield Path(shutil.copytree(saved, tmp_path / "model"))
    assert not (tmp_path / "ran").exists(), "a pickle was read"


def refusals(folder):
    """What training, predicting and publishing say of a folder."""
    problems = []
    for read in (
        lambda: pretrained.load_config(str(folder), Model()),
        lambda: build.build_classifier(str(folder), Model(freeze="none"), ["a", "b"], "eager", 0),
        lambda: load(folder),
        lambda: model_files.collect_files(folder, "ann/model"),
    ):
        with pytest.raises(InputError) as caught:
            read()
        problems.append(str(caught.value))
    return problems


PICKLES = {
    "torch.save": lambda bomb, file: torch.save({"a": bomb}, file),
    "the old torch.save": lambda bomb, file: torch.save(
        {"a": bomb}, file, _use_new_zipfile_serialization=False
    ),
    **{
        f"protocol {number}": lambda bomb, file, number=number: file.write_bytes(
            pickle.dumps(bomb, protocol=number)
        )
        for number in range(6)
    },
    "a zip": lambda bomb, file: zipfile.ZipFile(file, "w").writestr("data.pkl", pickle.dumps(bomb)),
}


@pytest.mark.parametrize("form", PICKLES)
@pytest.mark.parametrize("name", ["model.safetensors", "shard"])
def test_a_pickle_of_any_name_is_never_opened(folder, tmp_path, form, name):
    (folder / "model.safetensors").unlink()
    if name == "shard":
        name = "model-00001-of-00001.safetensors"
        index = {"weight_map": {"classifier.weight": name}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    PICKLES[form](Bomb(tmp_path / "ran"), folder / name)
    for problem in refusals(folder):
        assert "expected weights in" in problem
        assert "\n" not in problem


@pytest.mark.parametrize(
    "named",
    ["pytorch_model.bin", "../elsewhere.safetensors", "/etc/passwd", "sub/model.safetensors",
     "..\\x.safetensors", "weights.pt", "", ".safetensors", "C:x.safetensors", 5, None],
)  # fmt: skip
@pytest.mark.parametrize("with_whole", [True, False])
def test_an_index_names_safetensors_of_its_folder(folder, tmp_path, named, with_whole):
    """Also where there is a whole file that would be read in its place."""
    shutil.copy(folder / "model.safetensors", tmp_path / "elsewhere.safetensors")
    if not with_whole:
        (folder / "model.safetensors").unlink()
    with (folder / "pytorch_model.bin").open("wb") as out:
        pickle.dump(Bomb(tmp_path / "ran"), out)
    index = {"weight_map": {"classifier.weight": named}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for problem in refusals(folder)[:3]:
        assert "expected safetensors files of the same folder" in problem


@pytest.mark.parametrize("index", ["[]", "{", "5", '{"weight_map": 5}', "[" * 10**5, "\udcff"])
def test_an_index_that_is_none(folder, index):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_bytes(index.encode("utf-8", "surrogateescape"))
    for problem in refusals(folder)[:3]:
        assert "model.safetensors.index.json" in problem


@pytest.mark.parametrize(
    "header",
    [b"\xff" * 8, (2**63).to_bytes(8, "little"), (10**9).to_bytes(8, "little") + b"{}", b"", b"{}"],
)
def test_headers_of_absurd_length(folder, header):
    (folder / "model.safetensors").write_bytes(header)
    for problem in refusals(folder):
        assert "expected weights in model.safetensors, found a damaged file" in problem


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "README.md", "vocab.txt"])
@pytest.mark.parametrize("relative", [True, False])
def test_links_that_lead_out_are_neither_read_nor_published(folder, tmp_path, name, relative):
    secret = tmp_path / "secret"
    (secret if not (folder / name).exists() else tmp_path / "none").write_text("mine")
    if (folder / name).exists():
        (folder / name).rename(secret)
    (folder / name).symlink_to(f"../{secret.name}" if relative else secret)
    for problem in refusals(folder):
        assert f"found links that lead out of '{folder}': {name}" in problem


@pytest.mark.parametrize(
    "name",
    ["additional_chat_templates/default.jinja", "a/b/c/.hidden", ".git", "1_Pooling", "a/b"],
)
@pytest.mark.parametrize("target", ["file", "folder", "nothing"])
def test_links_at_any_depth_that_lead_out_are_refused(folder, tmp_path, name, target):
    secret = tmp_path / "secret"
    if target == "folder":
        secret.mkdir()
        (secret / "default.jinja").write_text("mine")
    elif target == "file":
        secret.write_text("mine")
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).symlink_to(secret)
    for problem in refusals(folder):
        assert f"found links that lead out of '{folder}': {name}" in problem


@pytest.mark.parametrize("where", ["file", "additional", "config"])
def test_templates_of_conversations_are_not_carried(folder, tmp_path, where):
    if where == "file":
        (folder / "chat_template.jinja").write_text("mine")
    elif where == "additional":
        (folder / "additional_chat_templates").mkdir()
        (folder / "additional_chat_templates" / "default.jinja").write_text("mine")
    else:
        file = folder / "tokenizer_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": "mine"}))
    assert "chat_template.jinja" not in model_files.collect_files(folder, "ann/model")
    saved_model.save_classifier(*saved_model.load_classifier(folder), tmp_path / "again")
    for file in (tmp_path / "again").rglob("*"):
        assert "template" not in file.name
        assert file.is_dir() or b"mine" not in file.read_bytes()


@pytest.mark.parametrize("key", ["vocab_file", "tokenizer_file", "fast_tokenizer_files"])
def test_a_tokenizer_names_no_file_elsewhere(folder, tmp_path, key):
    (tmp_path / "secret").write_text("mine")
    file = folder / "tokenizer_config.json"
    whole = json.loads(file.read_text())
    for path in (str(tmp_path / "secret"), "../secret"):
        value = [path] if key.endswith("s") else path
        file.write_text(json.dumps(whole | {key: value}))
        with pytest.raises(InputError, match=f"{key}: expected a file of"):
            pretrained.load_tokenizer(str(folder), Model())
    file.write_text(json.dumps(whole | {"special_tokens_map_file": "/nowhere/map.json"}))
    pretrained.load_tokenizer(str(folder), Model())


def test_links_within_a_folder_and_of_the_hubs_cache_are_read(folder, tmp_path):
    (folder / "model.safetensors").rename(folder / "weights")
    (folder / "model.safetensors").symlink_to("weights")
    load(folder)
    (tmp_path / "hub" / "snapshots").mkdir(parents=True)
    snapshot = Path(shutil.copytree(folder, tmp_path / "hub" / "snapshots" / "abc"))
    blob = tmp_path / "hub" / "blobs" / "123"
    blob.parent.mkdir()
    (snapshot / "config.json").rename(blob)
    (snapshot / "config.json").symlink_to("../../blobs/123")
    (snapshot / "1_Pooling").mkdir()
    (snapshot / "1_Pooling" / "config.json").symlink_to("../../../blobs/123")
    (snapshot / "1_Pooling" / "again").symlink_to("../config.json")
    load(snapshot)
    link = tmp_path / "link"
    link.symlink_to(folder)
    load(link)  # the user named it


def test_a_runs_model_that_is_a_link_is_not_taken(folder, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").touch()
    (run / "results.json").touch()
    (run / "model").symlink_to(folder)
    for read in (model_files.find_model_folder, load):
        with pytest.raises(InputError, match="found a link that leads out of it"):
            read(run)


def jwt():
    parts = ({"alg": "HS256", "typ": "JWT"}, {"sub": "1234567890"})
    texts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in parts]
    return ".".join([*texts, "SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV"]).replace("=", "")


# Joined, so that no scanner of this repository takes them for real ones.
SECRETS = {
    "an AWS key": "AKIA" + "IOSFODNN7EXAMPLE",
    "an AWS secret": 'aws_secret_access_key = "' + "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY" + '"',
    "a GitHub token": "ghp_" + "a1B2" * 9,
    "a GitHub fine-grained token": "github_pat_" + "1a" * 41,
    "a GitLab token": "glpat-" + "a1B2c3D4e5F6g7H8i9J0",
    "a Hugging Face token": "hf_" + "aBcD" * 9,
    "a Slack token": "xoxb-" + "123456789012-123456789012-" + "a1B2c3D4e5F6g7H8i9J0k1L2",
    "a Slack hook": "https://hooks.slack.com/services/" + "T01234567/B01234567/" + "a1B2" * 6,
    "a Stripe key": "sk_live_" + "a1B2" * 6,
    "a private key": "-----BEGIN OPENSSH PRIVATE " + "KEY-----",
    "a JWT": jwt(),
    "a password in an address": "postgres://admin:" + "s3cr3tpass" + "@db.example.com/x",
    "a Google key": "AIza" + "a1B2c" * 7,
    "an OpenAI key": "sk-" + "proj-" + "a1B2" * 10,
    "an npm token": "//registry.npmjs.org/:_authToken=npm_" + "a1B2" * 9,
    "a PyPI token": "pypi-AgEIcHlwaS5vcmc" + "a1B2" * 20,
    "a SendGrid key": "SG."
    + "a1B2c3D4e5F6g7H8i9J0k1"
    + "."
    + "a1B2c3D4e5F" * 3
    + "a1B2c3D4e5"[:10],
    "a Telegram token": "110201543:AA" + "HdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"[:33] + "z",
}


@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize("name", ["README.md", "config.json", "tokenizer.model", "merges.txt"])
def test_a_secret_in_any_file_stops_the_push(folder, kind, name):
    secret = SECRETS[kind]
    content = (folder / name).read_bytes() if (folder / name).exists() else b"\x00\x01text\n" * 9
    if name == "config.json":
        content = json.dumps(json.loads(content) | {"note": secret}).encode()
    else:
        content += (
            f"\nfirst {secret} last\n".encode()
            if "Telegram" not in kind
            else (f"\n{secret}\n".encode())
        )
    if name == "config.json" and ("Telegram" in kind or "secret" in kind):
        return  # these shapes count in a line of their own, and with quotes of their own
    (folder / name).write_bytes(content)
    files = model_files.collect_files(folder, "ann/model")
    with pytest.raises(InputError, match="holds what looks like") as caught:
        model_files.refuse_secrets(folder, files, "")
    assert name in str(caught.value)
    assert secret not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("at", [0, secret_scan.BLOCK - 20, secret_scan.BLOCK + 5000])
def test_a_secret_is_found_among_weights_and_across_blocks(tmp_path, encoding, at):
    secret = SECRETS["a GitHub token"]
    noise = os.urandom(2 * secret_scan.BLOCK)
    content = noise[:at] + b"\0\0" + f" {secret} ".encode(encoding) + b"\0\0" + noise[at:]
    (tmp_path / "model.safetensors").write_bytes(content)
    for file in (tmp_path / "model.safetensors", content):
        found = [kind for _, kind in secret_scan.find_secrets(file, "")]
        assert "a GitHub token" in found


TOKEN = "hf_" + "aBcD1" * 8
FORMS = {
    "after a zero": b"\0\0name\0" + TOKEN.encode() + b"\0",
    "after a line break of JSON": json.dumps({"a": f"line\n{TOKEN}"}).encode(),
    "in JSON within JSON": json.dumps(json.dumps({"a": f"line\n{TOKEN}"})).encode(),
    "after a word": f"key_{TOKEN}".encode(),
    "in an address": f"https://a.org/?t%3D{TOKEN}".encode(),
    "in an address, escaped": f"t={TOKEN}".replace("_", "%5F").encode(),
    "with escapes of JSON": f'"\\u0068{TOKEN[1:]}"'.encode(),
    "of UTF-16 without ends": "".join(f"{TOKEN}").encode("utf-16-le"),
    "AWS": b"AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCY" + b"EXAMPLEKEY",
    "Groq": b"gsk_" + b"a1B2" * 13,
    "Databricks": b"dapi" + b"a1" * 16,
    "Google": b"ya29." + b"a0AfH6" * 9,
    "Shopify": b"shpat_" + b"a1" * 16,
    "DigitalOcean": b"dop_v1_" + b"a1" * 32,
    "wandb": b"export WANDB_API_KEY=" + b"a1" * 20,
    "a password": b"password: s3cr3t" + b"Pass",
    "a key of JSON": json.dumps({"api_key": "a1B2" * 8}).encode(),
    "a variable": b"MY_TOKEN='abcdef1234567890" + b"abcdef'",
    "a variable of UTF-16": ("MY_TOKEN='abcdef1234567890" + "abcdef'").encode("utf-16"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_secret_is_found_in_every_form(form):
    for content in (FORMS[form], b"first\n" + FORMS[form], FORMS[form] + b"\0" * 9):
        if "UTF-16" not in form or content.startswith(FORMS[form]):
            assert [*secret_scan.find_secrets(content, "")], content


def test_the_line_of_a_secret_is_right_behind_escapes():
    text = '{"a": "x\\n\\n\\r\\n",\n"b": "\\n' + TOKEN + '"}'
    assert [*secret_scan.find_secrets(text.encode(), "")] == [("line 2", "a Hugging Face token")]


@pytest.mark.parametrize(
    "text",
    [
        '"pad_token": "[PAD]", "tokenizer_class": "PreTrainedTokenizerFast"',
        '"mask_token": "reserved_special_token_250"',
        "password: forgotten_by_me",
        "password: <your-password-1>",
        'token = os.environ["HF_TOKEN_OF_2026"]',
        "api_key=config.the_key_of_the_service",
        '{"password_reset": 5, "secret": 1234567890}',
        "https://{user}:{password1}@host",
    ],
)
def test_names_of_tokens_and_passwords_are_no_secrets(text):
    assert [*secret_scan.find_secrets(text.encode(), "")] == []


@pytest.mark.parametrize(
    "piece",
    [b"a://", b"a://b:", b"eyJ", b"_eyJ", b"eyJa.", b"sk-", b"_sk-", b"//", b"hf_", b"xoxb-1-",
     b"aws", b"secret_", b"%25", b"\\", b"A", b" ", b"a" * 15 + b"\0", b"-----BEGIN ", b"SG.",
     b"SK", b"M" * 20 + b".", b"glagent-", b"12345678:"],
)  # fmt: skip
def test_hostile_files_cost_seconds(piece):
    """A quadratic search takes minutes for a megabyte."""
    begin = time.process_time()
    [*secret_scan.find_secrets(piece * (2**20 // len(piece)), "")]
    assert time.process_time() - begin < 20


def test_many_secrets_cost_seconds():
    begin = time.process_time()
    content = " ".join(f"password=a{n:08}" for n in range(60_000)).encode()
    assert [*secret_scan.find_secrets(content, "")] == [("line 1", "a password")]
    assert time.process_time() - begin < 20


def test_metadata_of_weights_is_searched(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    save_file(weights, folder / "model.safetensors", metadata={"by": SECRETS["an AWS key"]})
    files = model_files.collect_files(folder, "ann/model")
    with pytest.raises(InputError, match=r"model\.safetensors: .* holds what looks like an AWS"):
        model_files.refuse_secrets(folder, files, "")


def test_vocabularies_and_hashes_are_no_secrets(folder):
    """Words of any shape, hashes, DNA and addresses: all that models are full of."""
    import hashlib
    import random
    import string

    draw = random.Random(0)
    letters = string.ascii_letters + string.digits + "/+_-"
    words = ["".join(draw.choices(letters, k=draw.randint(1, 40))) for _ in range(20_000)]
    words += [hashlib.sha256(word.encode()).hexdigest() for word in words[:500]]
    words += ["".join(draw.choices("ACGT", k=30)) for _ in range(2000)]
    words += [
        "password",
        "secret",
        "https://",
        "user@host",
        "AKIA",
        "hf_",
        "sk-",
        "eyJ",
        "APARTMENTS",
    ]
    (folder / "vocab.json").write_text(json.dumps({w: n for n, w in enumerate(words)}, indent=0))
    (folder / "README.md").write_text("See https://example.com:8080/a?b=c and mail me@here.org.\n")
    files = model_files.collect_files(folder, "ann/model")
    model_files.refuse_secrets(folder, files, "")


def test_a_config_that_is_nested_too_deep(folder):
    for name in ("config.json", "tokenizer_config.json"):
        whole = (folder / name).read_text()
        (folder / name).write_text('{"a":' * 20_000 + "1" + "}" * 20_000)
        with pytest.raises(InputError, match=r"in '.*model'"):
            load(folder)
        assert model_files.find_foreign_code(folder) == []
        (folder / name).write_text(whole)
    assert source_checks.MAX_JSON_BYTES < 2**27
