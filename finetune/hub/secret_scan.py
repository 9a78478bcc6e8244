"""The files of a model → what in them looks like a credential, whatever their names end in.

    for place, kind in find_secrets(Path("model/README.md"), token):    # "line 12", "an AWS key"

The shapes are those of detect-secrets, which is kept by others, and a few that it lacks. Its
detectors by entropy and by key words (also those of Cloudant, IBM and Softlayer) are left out, as a
vocabulary is full of both; so is that of Artifactory, whose keys look like words in capitals.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

BLOCK = 2**20
OVERLAP = 2**12  # a secret at the end of a block is in the next one, too
LEAST = 16  # bytes of text in a row that are looked at, among others that are none
TEXT = re.compile(rb"[\t\x20-\x7e]{%d,}" % LEAST)
DETECTORS = {  # module of detect_secrets.plugins → its class, and what its secret is called
    "aws": ("AWSKeyDetector", "an AWS key"),
    "azure_storage_key": ("AzureStorageKeyDetector", "a key of Azure storage"),
    "basic_auth": ("BasicAuthDetector", "an address with a password"),
    "discord": ("DiscordBotTokenDetector", "a Discord token"),
    "github_token": ("GitHubTokenDetector", "a GitHub token"),
    "gitlab_token": ("GitLabTokenDetector", "a GitLab token"),
    "jwt": ("JwtTokenDetector", "a JSON Web Token"),
    "mailchimp": ("MailchimpDetector", "a Mailchimp key"),
    "npm": ("NpmDetector", "an npm token"),
    "openai": ("OpenAIDetector", "an API key"),
    "private_key": ("PrivateKeyDetector", "a private key"),
    "pypi_token": ("PypiTokenDetector", "a PyPI token"),
    "sendgrid": ("SendGridDetector", "a SendGrid key"),
    "slack": ("SlackDetector", "a Slack token"),
    "square_oauth": ("SquareOAuthDetector", "a Square token"),
    "stripe": ("StripeDetector", "a Stripe key"),
    "telegram_token": ("TelegramBotTokenDetector", "a Telegram token"),
    "twilio": ("TwilioKeyDetector", "a Twilio key"),
}
OWN = {  # by the marks that their makers gave them
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{30,}\b"),
    "a Hugging Face key": re.compile(r"\bapi_org_[A-Za-z0-9]{30,}\b"),
    "a GitHub token": re.compile(r"\bgithub_pat_\w{60,}\b"),
    "an API key": re.compile(r"\bsk-[A-Za-z0-9_-]{32,}"),
    "a Google API key": re.compile(r"\bAIza[0-9A-Za-z_-]{35}\b"),
    "a private key": re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY"),
    "an age key": re.compile(r"\bAGE-SECRET-KEY-1[A-Z0-9]{50,}"),
}


def find_secrets(file: Path | bytes, token: str) -> Iterator[tuple[str, str]]:
    """Each secret's place and kind; a line's once.

    Args:
        file: a path, or the content.
        token: the user's own, which may be nowhere.
    """
    told: set[str] = set()
    lines = 0
    for start, block in _blocks(file):
        is_text = b"\0" not in block
        text = block.decode("latin-1")  # a byte is a character: places stay
        if not is_text:
            # Text of two bytes a character, as Windows writes it, is text without its zeros.
            runs = TEXT.findall(block.replace(b"\0", b""))
            text = "\n".join(run.decode("ascii") for run in runs)
        found: dict[str, tuple[int, str]] = {}  # place → where in the block, and the first kind
        for secret, kind in find_in_text(text, token):
            at = block.find(secret.encode("latin-1"))
            line = lines + block.count(b"\n", 0, max(at, 0)) + 1
            place = f"line {line:,}" if is_text and at >= 0 else f"byte {start + max(at, 0):,}"
            found.setdefault(place, (at, kind))
        for place, (_, kind) in sorted(found.items(), key=lambda one: one[1]):
            if place not in told:
                yield place, kind
        told |= found.keys()
        lines += block.count(b"\n", 0, BLOCK)


def find_in_text(text: str, token: str = "") -> Iterator[tuple[str, str]]:
    """Each secret in a text, and its kind."""
    if len(token) >= LEAST and token in text:
        yield token, "your token"
    for kind, shape in OWN.items():
        for match in shape.finditer(text):
            yield match[0], kind
    for detector, kind in _detectors():
        for secret in detector.analyze_string(text):
            if secret and not _is_sequence(secret):
                yield secret, kind


def _blocks(file: Path | bytes) -> Iterator[tuple[int, bytes]]:
    """The content, with the place of each block; each begins where the last one's overlap does."""
    if isinstance(file, bytes):
        for start in range(0, max(len(file), 1), BLOCK):
            yield start, file[start : start + BLOCK + OVERLAP]
        return
    with file.open("rb") as stream:
        start, block = 0, stream.read(BLOCK + OVERLAP)
        while block:
            yield start, block
            more = stream.read(BLOCK)
            if not more:
                return
            block = block[BLOCK:] + more
            start += BLOCK


def _is_sequence(secret: str) -> bool:
    """Whether what looks like a rare kind of AWS key is one of DNA: ACCA and letters alone."""
    return secret.startswith("ACCA") and not any(mark.isdigit() for mark in secret)


@cache
def _detectors() -> list[tuple[Any, str]]:
    from importlib import import_module

    found = []
    for module, (name, kind) in DETECTORS.items():
        detector = getattr(import_module(f"detect_secrets.plugins.{module}"), name)()
        # Theirs are given a line at a time.
        detector.denylist = [
            re.compile(shape.pattern, shape.flags | re.MULTILINE) for shape in detector.denylist
        ]
        found.append((detector, kind))
    return found
