"""The options of object stores: ``output.storage_options``, and what the environment says where they say nothing.

Two kinds come in one dictionary: the store's own (credentials, region, endpoint), and those of its HTTP client. Which
is which, and what there is at all, is asked of obstore.
"""

import ast
import os
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from obstore import exceptions
from obstore.store import HTTPStore

from pipeline.corpus.answers import gist
from pipeline.errors import nearest

ENVIRONMENTS = {"s3": "AWS_", "gs": "GOOGLE_", "az": "AZURE_"}
CLIENT = "ClientConfig"  # obstore's names of its kinds of options
STORES = {"s3": "S3Config", "gs": "GCSConfig", "az": "AzureConfig"}


def sort_options(scheme: str, options: Mapping[str, str]) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the store's own options and the HTTP client's.

    Of the client's those of the environment are among them, which obstore forgets as soon as it is given one. An
    endpoint without TLS, wherever it was given, is allowed unless that is forbidden.
    """
    prefix = ENVIRONMENTS[scheme]
    from_outside = {key[len(prefix) :].lower(): value for key, value in os.environ.items() if key.startswith(prefix)}
    client: dict[str, Any] = {name: value for name, value in from_outside.items() if is_of_client(name)}
    own, endpoints = {}, [value for name, value in from_outside.items() if _is_endpoint(name)]
    for key, value in options.items():
        name = _bare(key)
        if is_of_client(name):
            client[name] = value
        else:
            own[key] = value
        if _is_endpoint(name):
            endpoints.append(value)
    if any(endpoint.lower().startswith("http://") for endpoint in endpoints):
        client.setdefault("allow_http", True)
    return own, client


@cache
def is_of_client(name: str) -> bool:
    """Is *name* an option of the HTTP client? (Among the store's own such a one ends obstore 0.12 in a Rust panic,
    "Expected config prefix".)"""
    return not _client_fault(name, "").startswith("Invalid key")


def known_options(scheme: str) -> frozenset[str]:
    """Return the names of a store's options and of its HTTP client's."""
    return listed(CLIENT) | {_bare(name) for name in listed(STORES[scheme])}


def blamed(scheme: str, options: Mapping[str, str], message: str) -> str:
    """Return which of *options* the client's *message* is about, as ``.KEY: ``, and the message."""
    if unknown := re.match("Configuration key: '(.*)' is not valid", message):
        (key,) = unknown.groups()
        return f".{key}: {scheme} has no such option{nearest(key, known_options(scheme))}"
    at = ""
    for key, value in options.items():
        if f'"{value}"' in message or _client_fault(_bare(key), value) == message:
            at = f".{key}"
            break
    form = "; expected a number with its unit, such as 30s" if "Duration" in message else ""
    return f"{at}: {message}{form}"


def _client_fault(name: str, value: str) -> str:
    """Return what the HTTP client says against one option; ``""`` where it takes it."""
    client: Any = {name: value}
    try:
        HTTPStore("http://localhost", client_options=client)
    except (exceptions.BaseError, ValueError, TypeError) as error:
        return gist(error)
    return ""


@cache
def listed(kind: str) -> frozenset[str]:
    """Return the names of one of obstore's kinds of options, which are written in its stubs alone."""
    for stub in resources.files("obstore").joinpath("_store").iterdir():
        if stub.name.endswith(".pyi"):
            for node in ast.parse(stub.read_text()).body:
                if isinstance(node, ast.ClassDef) and node.name == kind:
                    fields = (item.target for item in node.body if isinstance(item, ast.AnnAssign))
                    return frozenset(field.id for field in fields if isinstance(field, ast.Name))
    return frozenset()


def _bare(key: str) -> str:
    return re.sub("^(aws|google|azure)_", "", key.lower())


def _is_endpoint(name: str) -> bool:
    return name in ("endpoint", "endpoint_url", "endpoint_url_s3", "storage_endpoint")
