"""Whether the Hub can be reached at all, which its client finds out in half a minute for each file.

The client tries five times, waiting longer each time. Where the name of a model is misspelt and
there is no network, that was two minutes before the first message.
"""

import errno
import os
import socket
import urllib.error
import urllib.request
from http.client import HTTPException

ENDPOINT = "https://huggingface.co"
SECONDS = 10.0  # for an answer; later, the client may still get one
NO_WAY = {errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN}


def is_out_of_reach() -> bool:
    """Whether no way leads to the Hub; False where that is not certain, or a proxy stands between.

    In offline mode False, as the client then asks nobody.
    """
    if any(os.environ.get(name) for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")):
        return False
    endpoint = os.environ.get("HF_ENDPOINT") or ENDPOINT
    if not endpoint.startswith(("http://", "https://")):  # the client says what that is
        return False
    try:
        asked = urllib.request.Request(endpoint, method="HEAD")  # noqa: S310 # checked above
        urllib.request.urlopen(asked, timeout=SECONDS).close()  # noqa: S310 # checked above
    except urllib.error.HTTPError:  # a server's answer
        return False
    except urllib.error.URLError as error:
        why = error.reason
        return isinstance(why, socket.gaierror) or getattr(why, "errno", None) in NO_WAY
    except (OSError, ValueError, HTTPException):
        return False
    return False
