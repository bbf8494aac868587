"""What an object store's client says when a request has failed: whether to ask again, and the gist in one line.

The client (obstore 0.12, over object_store in Rust) tells only in prose: a first line, the body of the answer (XML,
JSON or a proxy's HTML), and a dump of its own structures, from which the cause of a missing answer is taken.
"""

import json
import re

NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist")
INSUFFICIENT_STORAGE = 507
_FULL = {"QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"}  # of Ceph and MinIO
_ASKED_AGAIN = {408, 425, 429, *range(500, 600)} - {501, 505, INSUFFICIENT_STORAGE}
# Without a status: an answer that did not come, or came in part. Everything else says no, or cannot be read at all.
_UNANSWERED = ("error sending request", "request or response body error", "response body", "list response", "timed out")
_CAUSES = (
    ("IncompleteMessage", "the connection was closed before an answer came"),
    ("InvalidContentType", "it speaks no TLS there: http:// instead of https://?"),
    ("UnknownIssuer", "its certificate is signed by nobody known here"),
    ("TimedOut", "no answer in time"),
    ("IncompleteBody", "the connection was closed in the middle of the answer"),
    ("UnexpectedEof", "the connection was closed in the middle of the answer"),
    ("invalid list response", "the listing is cut off"),
)


def status(error: Exception) -> int | None:
    """Return the HTTP status that the store answered with; None where it did not answer."""
    found = re.search(r"Server returned non-2xx status code: (\d{3})", str(error))
    return int(found[1]) if found else None


def may_be_asked_again(error: Exception) -> bool:
    """Is it busy, or is its answer lost or cut off? (Not: forbidden, missing, or what it does not do, 501.)"""
    code = status(error)
    if code is not None:
        return code in _ASKED_AGAIN
    text = str(error).partition("Debug source:")[0]
    return "builder error" not in text and any(part in text for part in _UNANSWERED)


def is_full(error: Exception) -> bool:
    """Does it take nothing more? (The clouds' own stores are never full.)"""
    return status(error) == INSUFFICIENT_STORAGE or named_fault(error) in _FULL


def named_fault(error: Exception) -> str:
    """Return the store's own code for the fault (``SlowDown``); ``""`` where none is given, as by a proxy."""
    code = re.search(r"<Code>([^<]+)</Code>", str(error))
    return code[1] if code else ""


def is_of_credentials(error: Exception) -> bool:
    """Did it go to the machine's own metadata, where credentials are looked for last?"""
    return "169.254.169.254" in str(error) or "metadata.google.internal" in str(error)


def gist(error: Exception) -> str:
    """Return what has happened, in one line without XML."""
    text, _, debug = str(error).partition("Debug source:")
    text = " ".join(text.split())
    if is_of_credentials(error):
        return "no credentials: none in output.storage_options or the environment, and this machine has none of its own"
    if answered := re.search(r"Server returned non-2xx status code: (\d{3}[^:<{]*):? ?(.*)", text):
        said = _said(answered[2])
        return f"{answered[1].strip()} ({said})" if said else answered[1].strip()
    if "builder error" in text:
        return "the client takes no such endpoint; one with http:// needs allow_http=true"
    if may_be_asked_again(error):
        for sign, cause in _CAUSES:
            if sign in debug or sign in text:
                return cause
        causes = re.findall(r'(?:message|error): "([^"]+)"', debug)
        return f"no answer ({causes[-1]})" if causes else "no answer"
    text = re.sub(r"^Generic (S3|GCS|MicrosoftAzure) error: |^Error performing \w+ \S+ in \S+ - ", "", text)
    return re.sub(r"<[^>]*>", " ", text).strip()[:300] or type(error).__name__


def _said(body: str) -> str:
    """Return code and message of an error's body; ``""`` of one that has none, as a proxy's page."""
    parts = [re.search(rf"<{tag}>([^<]+)</{tag}>", body) for tag in ("Code", "Message")]
    if found := [part[1].strip() for part in parts if part]:
        return ": ".join(found)[:300]
    try:
        return str(json.loads(body)["error"]["message"])[:300]
    except (ValueError, TypeError, KeyError):
        return ""
