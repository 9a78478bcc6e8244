"""Where the Hub's client looks, what it may do, and where it keeps what it downloads."""

import os
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from huggingface_hub import constants, get_token

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


def describe_hub() -> dict[str, Any]:
    """The client's settings, without a secret in them."""
    return {
        "endpoint": mask_credentials(constants.ENDPOINT),
        "offline": [name for name in OFFLINE if is_on(os.environ.get(name, ""))],
        "token": _describe_token(),
        "proxies": {
            name: mask_credentials(value)
            for name in PROXIES
            if (value := os.environ.get(name) or os.environ.get(name.lower()))
        },
    }


def cache_folders() -> dict[str, str]:
    """The folders of the client's and of `datasets`' caches."""
    home = constants.HF_HOME
    return {
        "models and data sets of the Hub": constants.HF_HUB_CACHE,
        "prepared data sets": os.environ.get("HF_DATASETS_CACHE") or os.path.join(home, "datasets"),  # noqa: PTH118 # as the library does
    }


def mask_credentials(url: str) -> str:
    """The address without a user's name, password and query, which may be secrets.

    A proxy may be written without its scheme: `me:secret@proxy:3128`.
    """
    if not set("@?#") & set(url):
        return url
    start = "" if "://" in url else "//"
    try:
        parts = urlsplit(start + url)
        _, at, host = parts.netloc.rpartition("@")
    except ValueError:
        return "not an address"
    if "@" in parts.path + parts.query + parts.fragment:  # a password with a / in it, for one
        return "***"
    netloc = f"***@{host}" if at else host
    masked = urlunsplit((parts.scheme, netloc, parts.path, "***" if parts.query else "", ""))
    return masked.removeprefix(start)


def is_on(value: str) -> bool:
    return value.upper() in {"1", "ON", "YES", "TRUE"}


def _describe_token() -> str:
    if os.environ.get("HF_TOKEN", "").strip():
        return "set (HF_TOKEN)"
    return "not set" if get_token() is None else "set (hf auth login)"
