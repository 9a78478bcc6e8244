"""Where the Hub's client looks, what it may do, and where it keeps what it downloads."""

import os
from typing import Any

from huggingface_hub import constants, get_token

from finetune.runtime.credentials import mask_address, register_secret

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


def describe_hub() -> dict[str, Any]:
    """The client's settings, without a secret in them."""
    return {
        "endpoint": mask_address(constants.ENDPOINT),
        "offline": [name for name in OFFLINE if is_on(os.environ.get(name, ""))],
        "token": _describe_token(),
        "proxies": {
            name: mask_address(value)
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


def is_on(value: str) -> bool:
    return value.upper() in {"1", "ON", "YES", "TRUE"}


def _describe_token() -> str:
    if os.environ.get("HF_TOKEN", "").strip():
        return "set (HF_TOKEN)"
    token = get_token()
    if token is None:
        return "not set"
    register_secret(token)
    return "set (hf auth login)"
