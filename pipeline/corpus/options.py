"""The options of object stores: ``output.storage_options``, and what the environment says where they say nothing.

Two kinds come in one dictionary: the store's own (credentials, region, endpoint), and those of its HTTP client.
"""

import os
import re
from collections.abc import Mapping
from typing import Any

from pipeline.errors import nearest

ENVIRONMENTS = {"s3": "AWS_", "gs": "GOOGLE_", "az": "AZURE_"}
# Options of the HTTP client. Among the store's they end obstore 0.12 in a Rust panic, "Expected config prefix".
CLIENT_OPTIONS = {
    "allow_http",
    "allow_invalid_certificates",
    "connect_timeout",
    "default_content_type",
    "http1_only",
    "http2_keep_alive_interval",
    "http2_keep_alive_timeout",
    "http2_keep_alive_while_idle",
    "http2_max_frame_size",
    "http2_only",
    "pool_idle_timeout",
    "pool_max_idle_per_host",
    "proxy_ca_certificate",
    "proxy_excludes",
    "proxy_url",
    "randomize_addresses",
    "read_timeout",
    "timeout",
    "user_agent",
}
SOME_OPTIONS = {  # of the stores: those that are often given, to name the nearest of a misspelt one
    "access_key_id",
    "account_key",
    "account_name",
    "endpoint",
    "region",
    "sas_key",
    "secret_access_key",
    "service_account",
    "session_token",
    "skip_signature",
    "virtual_hosted_style_request",
}


def sort_options(scheme: str, options: Mapping[str, str]) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the store's own options and the HTTP client's.

    Of the client's those of the environment are among them, which obstore forgets as soon as it is given one. An
    endpoint without TLS, wherever it was given, is allowed unless that is forbidden.
    """
    prefix = ENVIRONMENTS[scheme]
    from_outside = {key[len(prefix) :].lower(): value for key, value in os.environ.items() if key.startswith(prefix)}
    client: dict[str, Any] = {name: value for name, value in from_outside.items() if name in CLIENT_OPTIONS}
    own, endpoints = {}, [value for name, value in from_outside.items() if _is_endpoint(name)]
    for key, value in options.items():
        name = re.sub("^(aws|google|azure)_", "", key.lower())
        if name in CLIENT_OPTIONS:
            client[name] = value
        else:
            own[key] = value
        if _is_endpoint(name):
            endpoints.append(value)
    if any(endpoint.lower().startswith("http://") for endpoint in endpoints):
        client.setdefault("allow_http", True)
    return own, client


def _is_endpoint(name: str) -> bool:
    return name in ("endpoint", "endpoint_url", "endpoint_url_s3", "storage_endpoint")


def blamed(scheme: str, options: Mapping[str, str], message: str) -> str:
    """Return which of *options* the client's *message* is about, as ``.KEY: ``, and the message."""
    if unknown := re.match("Configuration key: '(.*)' is not valid", message):
        (key,) = unknown.groups()
        return f".{key}: {scheme} has no such option{nearest(key, CLIENT_OPTIONS | SOME_OPTIONS)}"
    at = next((f".{key}" for key, value in options.items() if f'"{value}"' in message), "")
    form = "; expected a number with its unit, such as 30s" if "Duration" in message else ""
    return f"{at}: {message}{form}"
