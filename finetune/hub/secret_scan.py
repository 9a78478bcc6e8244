"""The files of a model → what in them looks like a credential, whatever their names end in.

    for place, kind in find_secrets(Path("model/README.md"), token):    # "line 12", "an AWS key"

The shapes are those of detect-secrets, which is kept by others, and a few that it lacks. Its
detectors by entropy and by key words (also those of Cloudant, IBM and Softlayer) are left out, as a
vocabulary is full of both; so is that of Artifactory, whose keys look like words in capitals. Those
of addresses, npm, JSON Web Tokens and OpenAI are replaced, as they take quadratic time.
"""

import base64
import json
import re
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

BLOCK = 2**20
OVERLAP = 2**12  # a secret at the end of a block is in the next one, too
MOST = 500  # of a block's that are told: one stops a push
LEAST = 16  # bytes of text in a row that are looked at, among others that are none
IS_TEXT = bytes(97 * (byte == 9 or 32 <= byte < 127) for byte in range(256))  # "a", or zero
# Escapes of JSON, Python and addresses, of which nothing but ASCII matters here.
ESCAPE = re.compile(r"\\{1,8}(?:(?:u00|x)([0-7][0-9A-Fa-f])|[nrtbfv])|%([0-7][0-9A-Fa-f])")
# Module of detect_secrets.plugins → its class, what its secret is called, and in small letters what
# a text with one has: most texts have none of it, and the shapes are slow.
DETECTORS = {
    "aws": ("AWSKeyDetector", "an AWS key", "akia asia abia acca a3t aws"),
    "azure_storage_key": ("AzureStorageKeyDetector", "a key of Azure storage", "accountkey="),
    "discord": ("DiscordBotTokenDetector", "a Discord token", "."),
    "github_token": ("GitHubTokenDetector", "a GitHub token", "ghp_ gho_ ghu_ ghs_ ghr_"),
    "gitlab_token": ("GitLabTokenDetector", "a GitLab token", "gl gr1348941"),
    "mailchimp": ("MailchimpDetector", "a Mailchimp key", "-us"),
    "private_key": ("PrivateKeyDetector", "a private key", "private putty"),
    "pypi_token": ("PypiTokenDetector", "a PyPI token", "pypi-"),
    "sendgrid": ("SendGridDetector", "a SendGrid key", "sg."),
    "slack": ("SlackDetector", "a Slack token", "xox hooks.slack.com"),
    "square_oauth": ("SquareOAuthDetector", "a Square token", "sq0csp-"),
    "stripe": ("StripeDetector", "a Stripe key", "k_live_"),
    "telegram_token": ("TelegramBotTokenDetector", "a Telegram token", ":"),
    "twilio": ("TwilioKeyDetector", "a Twilio key", "ac sk"),
}
# By the marks that their makers gave them. Each takes time in proportion to the text: what repeats
# without a bound begins where no other match can.
OWN = {
    kind: re.compile(rf"(?<![A-Za-z0-9])(?:{shape})")
    for kind, shape in {
        "a Hugging Face token": r"hf_[A-Za-z0-9]{30,}",
        "a Hugging Face key": r"api_org_[A-Za-z0-9]{30,}",
        "a GitHub token": r"github_pat_\w{60,}",
        "an API key": r"sk-[A-Za-z0-9_-]{32,}",
        "a Google API key": r"AIza[0-9A-Za-z_-]{35}",
        "a Google token": r"ya29\.[0-9A-Za-z_-]{20,}|GOCSPX-[0-9A-Za-z_-]{28}",
        "a Groq key": r"gsk_[A-Za-z0-9]{32,}",
        "a Databricks token": r"dapi[0-9a-f]{32}",
        "a Shopify token": r"shp(?:at|ca|pa|ss)_[0-9A-Fa-f]{32}",
        "a DigitalOcean token": r"do[opr]_v1_[0-9a-f]{64}",
        "an npm token": r"npm_[A-Za-z0-9]{36}",
        "a private key": r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY",
        "an age key": r"AGE-SECRET-KEY-1[A-Z0-9]{50,}",
    }.items()
}
NPM_LINE = re.compile(r":_authToken=\s{0,4}[\w-]{30,}")
ADDRESS = re.compile(
    r"""://[^\s:/?\#\[\]@"'<>{}]{1,256}:[^\s/@"'<>{}]{1,256}@"""  # user, password
)
JWT = re.compile(r"(?<![A-Za-z0-9])(eyJ[A-Za-z0-9_-]{4,256}=*)\.[A-Za-z0-9_-]{8}")
# Passwords and keys that are known by their names alone.
NAMED = re.compile(
    r"""(?:(?P<password>pass(?:word|wd))|secret|(?:api|access)[_-]?key
        |(?:access|auth|api|refresh|bearer|hub)[_-]?token|(?-i:[A-Z0-9]_TOKEN))
    (?:[_-]\w{0,32})?  ["']?  [ \t]{0,4}  [:=]{1,2}  [ \t]{0,4}  ["'`]?
    (?P<value>[^\s"'`<>{}()\[\]$,;]{8,256})""",
    re.IGNORECASE | re.VERBOSE,
)
KEY_LENGTH = 20


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
        found: dict[str, tuple[int, str]] = {}  # place → where in the block, and the first kind
        for text in _readings(block):
            for secret, kind in islice(find_in_text(text, token), MOST):
                if is_text:
                    at = text.find(secret)
                    place = f"line {lines + text.count(chr(10), 0, max(at, 0)) + 1:,}"
                else:
                    at = max(block.find(secret.encode("latin-1")), 0)
                    place = f"byte {start + at:,}"
                found.setdefault(place, (at, kind))
        for place, (_, kind) in sorted(found.items(), key=lambda one: one[1]):
            if place not in told:
                yield place, kind
        told |= found.keys()
        lines += block.count(b"\n", 0, BLOCK)


def find_in_text(text: str, token: str = "") -> Iterator[tuple[str, str]]:
    """Each secret in a text, and its kind."""
    if not text:
        return
    if len(token) >= LEAST and token in text:
        yield token, "your token"
    for kind, shape in OWN.items():
        for match in shape.finditer(text):
            yield match[0], kind
    for shape, kind in ((NPM_LINE, "an npm token"), (ADDRESS, "an address with a password")):
        for match in shape.finditer(text):
            yield match[0], kind
    for match in JWT.finditer(text):
        if _is_jwt_header(match[1]):
            yield match[0], "a JSON Web Token"
    for match in NAMED.finditer(text):
        if _is_secret_value(match["value"], match["password"] is not None):
            yield match[0], "a password" if match["password"] else "a secret key"
    small = text.lower()
    for detector, kind, marks in _detectors():
        if any(mark in small for mark in marks):
            for secret in detector.analyze_string(text):
                if secret and not _is_sequence(secret):
                    yield secret, kind


def _readings(block: bytes) -> Iterator[str]:
    """A block as text, whichever text it is: as it stands, and with its escapes read."""
    if b"\0" not in block:
        texts = [block.decode("latin-1")]  # a byte is a character: places stay
    else:
        # Text of two bytes a character, as Windows writes it, is text without its zeros; between
        # other texts they stand as ends.
        texts = ["\n".join(_runs(one)) for one in (block, block.replace(b"\0", b""))]
    for text in texts:
        yield text
        plain = ESCAPE.sub(_unescape, text)
        if plain != text:
            yield plain


def _unescape(escape: re.Match[str]) -> str:
    code = escape[1] or escape[2]
    letter = chr(int(code, 16)) if code else " "
    return " " if letter in "\r\n" else letter  # lines stay


def _runs(block: bytes) -> Iterator[str]:
    """The texts among other bytes."""
    kinds = block.translate(IS_TEXT)
    at = kinds.find(b"a" * LEAST)
    while at >= 0:
        end = kinds.find(b"\0", at)
        end = len(block) if end < 0 else end
        yield block[at:end].decode("ascii")
        at = kinds.find(b"a" * LEAST, end)


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


def _is_jwt_header(text: str) -> bool:
    try:
        header = json.loads(base64.urlsafe_b64decode(text.rstrip("=") + "=="))
    except (ValueError, RecursionError):
        return False
    return isinstance(header, dict) and not header.keys().isdisjoint(("alg", "typ", "enc"))


def _is_secret_value(value: str, is_password: bool) -> bool:
    """Whether what follows a name such as API_KEY is one, rather than a word or a code's name."""
    if "://" in value or value.count(value[0]) == len(value):
        return False
    mixed = any(mark.isdigit() for mark in value) and any(mark.isalpha() for mark in value)
    return mixed if is_password else mixed and len(value) >= KEY_LENGTH


@cache
def _detectors() -> list[tuple[Any, str, list[str]]]:
    from importlib import import_module

    found = []
    for module, (name, kind, marks) in DETECTORS.items():
        detector = getattr(import_module(f"detect_secrets.plugins.{module}"), name)()
        # Theirs are given a line at a time.
        detector.denylist = [
            re.compile(shape.pattern, shape.flags | re.MULTILINE) for shape in detector.denylist
        ]
        found.append((detector, kind, marks.split()))
    return found
