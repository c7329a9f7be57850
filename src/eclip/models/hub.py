"""Pretrained files: a Hugging Face repository's name in, a local directory that holds its files out.

The cache is looked at first and used as it is. Only where something is missing does the network come in, and
whether there is one is found out in well under a second, instead of the libraries' half-minute of retries.
"""

from __future__ import annotations

import os
import socket
import threading
import urllib.parse
import urllib.request
from pathlib import Path


class WeightsUnavailable(RuntimeError):
    """Pretrained weights are neither on this machine nor within reach. The message says how to fetch them."""


def snapshot(repo_id: str, files: list[str], advice: str) -> Path:
    """The directory of a cached or freshly downloaded snapshot with all `files`.

    Raises WeightsUnavailable, with the repository and `advice`, where they can be had in neither way.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    cached = [try_to_load_from_cache(repo_id, name) for name in files]
    if all(isinstance(path, str) for path in cached):
        return Path(str(cached[0])).parent
    require_hub(repo_id, advice)
    try:
        paths = [Path(hf_hub_download(repo_id, name)) for name in files]
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise WeightsUnavailable(f"{repo_id} could not be downloaded ({error}). {advice}") from error
    return paths[0].parent


def is_cached(repo_prefix: str) -> bool:
    """Whether the cache holds a repository whose name begins so. Imports nothing heavy."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = "models--" + repo_prefix.replace("/", "--")
    return any(Path(HF_HUB_CACHE).glob(f"{folder}*/snapshots/*/*"))


def require_hub(repo_id: str, advice: str) -> None:
    """Raise WeightsUnavailable within a second unless the hub can be reached."""
    from huggingface_hub.constants import ENDPOINT, is_offline_mode

    if is_offline_mode():
        reason = "HF_HUB_OFFLINE is set"
    elif not answers(ENDPOINT):
        reason = f"{ENDPOINT} cannot be reached"
    else:
        return
    raise WeightsUnavailable(f"{repo_id} is not in the local cache and {reason}. {advice}")


def answers(url: str, seconds: float = 0.8) -> bool:
    """Whether a TCP connection to the host of `url`, or to the proxy set for it, opens within `seconds`.

    In a thread, because looking up a name has no time limit of its own.
    """
    proxy = urllib.request.getproxies().get(urllib.parse.urlsplit(url).scheme)
    host = urllib.parse.urlsplit(url).hostname or ""
    if proxy and not urllib.request.proxy_bypass(host):
        url = proxy if "://" in proxy else f"http://{proxy}"
    target = urllib.parse.urlsplit(url)
    port = target.port or (80 if target.scheme == "http" else 443)
    opened = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection((target.hostname or "", port), timeout=seconds).close()
        except OSError:
            return
        opened.set()

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(seconds)
    return opened.is_set()


def local_path(weights: str | os.PathLike[str] | None, key: str) -> Path | None:
    """`weights` as an existing path; FileNotFoundError with the config key where it does not exist."""
    if weights is None:
        return None
    path = Path(weights).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"{key}={weights}: no such file or directory ({path.absolute()})")
    return path
