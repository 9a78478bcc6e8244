"""Text that may name credentials → the same text with `***` in their place.

    mask_credentials("GET https://me:secret@host/x?token=a")    # "GET https://***@host/x?token=***"
    mask_address("me:secret@proxy:3128")                        # "***@proxy:3128"

The HTTP libraries and the Hub's client quote addresses and headers in their errors, and so do we.
Two things are masked: the credentials of this process, wherever they stand, and whatever has the
form of credentials. All patterns take a time that is linear in the text.
"""

import json
import os
import re
from urllib.parse import quote, quote_plus, unquote, urlsplit, urlunsplit

MASK = "***"
# A shorter credential may be a part of ordinary words.
LEAST = 6
# Environment variables that hold a credential and nothing else.
_NAMES = re.compile(
    r"(?:TOKEN|SECRET|PASSW(?:OR)?D|PASSPHRASE|API_?KEY|ACCESS_KEY|SECRET_KEY)$", re.IGNORECASE
)
# An address of any scheme; the part before the last @ of its authority.
_USER_INFO = re.compile(r"//([^\s/?#]*)@|//([^\s/]*:\S*)@")
_REGISTERED: set[str] = set()  # the process's, as its environment is

# Each pattern keeps its first group. JSON stays JSON, and a list in Python's writing a list: what
# follows the group ends at a quote behind which a comma, colon or bracket goes on, or nothing. Any
# other quote is a password's own. Escapes are taken as a whole.
_END = r"(?!\s{0,5}(?:[,:}\])]|$))"
_ESCAPE = rf"""\\(?:["']{_END}|[\\/bfnrtu]|(?!["'\\/bfnrtu]))"""
_MORE = rf"""{_ESCAPE}|"{_END}|[<>](?=[^\s<>"']{{0,100}}@)"""  # what a password may hold as well
_PATTERNS = tuple(
    re.compile(pattern, re.IGNORECASE | re.VERBOSE)
    for pattern in (
        # `https://user:password@host`. A password may hold slashes or spaces; a port may not.
        rf"""(\b[a-z][a-z0-9+.-]{{0,20}}://)
        (?:[^\s/?\#"<>\\]{{1,4000}}@
        |[^\s/?\#@:"<>\\\[]{{0,200}}:(?!\d+(?:[/?\#\s,;.)'"]|$))
            (?:(?:[^\s"<>\\]|{_MORE}){{1,300}}
            |(?!\s)(?:[^\r\n\t"'<>\\]|{_MORE}|'{_END}){{1,200}})@)""",
        # `//user:password@host`, and `user:password@proxy:3128`; without a port it may be text.
        r"""((?<![^\s"'(=,\[:])//)[^\s/?\#@:"<>\\\[]{0,200}:[^\s/"<>\\]{1,300}@""",
        r"""((?<![^\s"'(=,\[]))[^\s/:@"'<>\\=(,\[]{1,100}:[^\s/"'<>\\]{1,300}@
            (?=[\w.-]{1,253}:\d{1,5}\b)""",
        r"""(proxy["']?\s?[=:]\s?["']?)[^\s/"'<>\\]{1,300}@""",
        # An address within another, as `?redirect=https%3A%2F%2Fuser%3Apassword%40host`.
        r"""(%(?:25){0,3}3A(?:%(?:25){0,3}2F){2})
            (?:(?!%(?:25){0,3}2F)[^\s&"<>\\]){1,300}(?=%(?:25){0,3}40)""",
        # `?token=…`, and the same further on or behind a #.
        r"""([?&;\#][\w.-]{0,40}?
            (?:token|secret|passw(?:or)?d|pwd|signature|\bsig|credential|api_?key|access_?key
            |\bkey|auth)[\w.-]{0,20}=)[^\s&;\#"'<>\\]+""",
        # Headers, as they are sent or in a dictionary.
        r"""(\b(?:authorization|x-api-key|x-auth-token|private-token)["']?\s{0,3}[:=]\s{0,3}
            (?:b?["'])?(?:(?:bearer|basic|digest|token)\s{1,3})?)
            (?:(?<=\s)(?<!:\s)[^\s"'<>\\,]+|[\w.~+/=-]{16,})""",
        r"""(\bbearer\s{1,3})(?=[a-z.~+/=-]{0,200}[\d_])[\w.~+/=-]{8,}""",
        # Assignments to such environment variables, and tokens that are known by their beginning.
        r"""(\b\w{0,40}?(?:_token|_secret|_password|_api_key|_access_key)=["']?)[^\s"'<>\\]+""",
        # Their case matters: `HF_HUB_DISABLE_TELEMETRY` is the name of a setting.
        r"""(\b(?-i:hf|gh[opusr])_)[a-z0-9]{16,}""",
        r"""(\b(?-i:github_pat)_)[a-z0-9_]{16,}""",
    )
)


def mask_credentials(text: str) -> str:
    """The text without the credentials in it: user names and passwords in addresses, and tokens.

    For messages, logs and descriptions of the environment; data stays as it is. E-mail addresses
    are no credentials.
    """
    for secret in _process_secrets():
        text = text.replace(secret, MASK)
    for pattern in _PATTERNS:
        text = pattern.sub(_keep_beginning, text)
    return text


def mask_address(address: str) -> str:
    """What is known to be an address, without its user's name, password and query.

    A proxy may be written without its scheme: `me:secret@proxy:3128`, `secret@proxy`.
    """
    if not set("@?#") & set(address):
        return address
    start = "" if "://" in address else "//"
    try:
        parts = urlsplit(start + address)
        _, at, host = parts.netloc.rpartition("@")
    except ValueError:
        return "not an address"
    if "@" in parts.path + parts.query + parts.fragment:  # a password with a / in it, for one
        return MASK
    netloc = f"{MASK}@{host}" if at else host
    masked = urlunsplit((parts.scheme, netloc, parts.path, MASK if parts.query else "", ""))
    return masked.removeprefix(start)


def register_secret(secret: str) -> None:
    """Have a credential that is in no environment variable, as a saved token, masked as well."""
    _REGISTERED.add(secret)


def _process_secrets() -> list[str]:
    """The credentials of this process as they may be written, the longest first."""
    secrets = {*_REGISTERED}
    for name, value in os.environ.items():
        if _NAMES.search(name):
            secrets.add(value.strip())
        elif "@" in value and (name.lower().endswith("_proxy") or "://" in value):
            secrets |= _passwords(value if "//" in value else f"//{value}")
    written = {form for secret in secrets for form in _written_forms(secret)}
    return sorted((form for form in written if len(form) >= LEAST), key=len, reverse=True)


def _passwords(value: str) -> set[str]:
    """The passwords in the addresses of a value; a user's name without one is a token."""
    found = (match[1] or match[2] or "" for match in _USER_INFO.finditer(value))
    return {user_info.partition(":")[2] or user_info for user_info in found}


def _written_forms(secret: str) -> set[str]:
    plain = {secret, unquote(secret)}
    return {
        form
        for text in plain
        for form in (text, quote(text, ""), quote(text), quote_plus(text), json.dumps(text)[1:-1])
    }


def _keep_beginning(match: re.Match[str]) -> str:
    return f"{match[1]}{MASK}{'@' if match[0].endswith('@') else ''}"
