"""TLS to a broker, and messages for connections that fail."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from amqtt_db.config.broker import BrokerSettings, TlsSettings

# By OpenSSL's code for the problem with a certificate.
_NO_AUTHORITY: Final = "that no trusted authority has signed: set `tls.ca` to that authority's file"
_OTHER_HOST: Final = "for another host: `url` must contain one of its names"
_UNTRUSTED: Final[Mapping[int, str]] = {
    9: "that is not valid yet: set this machine's clock",
    10: "that has expired: renew it at the broker, or set this machine's clock",
    **dict.fromkeys((18, 19, 20, 21), _NO_AUTHORITY),
    **dict.fromkeys((62, 64), _OTHER_HOST),
}
# By part of OpenSSL's reason; the first match is reported.
_ALERTS: Final[Mapping[str, str]] = {
    "CERTIFICATE_REQUIRED": "asks for a client certificate: set `tls.certificate` and `tls.key`",
    "UNKNOWN_CA": "does not know the authority that signed the client certificate: check `tls.certificate`",
    "CERTIFICATE_EXPIRED": "says that the client certificate has expired: renew `tls.certificate`",
    "CERTIFICATE_REVOKED": "says that the client certificate is revoked: replace `tls.certificate`",
    "ALERT_BAD_CERTIFICATE": "does not accept the client certificate: check `tls.certificate`",
    "NO_APPLICATION_PROTOCOL": "does not know the protocol in `tls.alpn`: check it, or leave it out",
    "HANDSHAKE_FAILURE": (
        "refuses the TLS handshake, perhaps because it needs a client certificate: see `tls.certificate`"
    ),
}


WITH_TLS: Final = ("mqtts", "wss")
NO_TLS: Final = "does not answer in TLS: this may be a port without it, for mqtt:// or ws://"
_FROM_NO_TLS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNEXPECTED_EOF", "HTTP_REQUEST")
"""Parts of OpenSSL's reasons if the other side does not speak TLS, or hangs up because it does not understand it."""


class UnusableFile(OSError):  # noqa: N818 - it reads as what the file is
    """A file that ``tls:`` names cannot be used; the message says which, and why."""


def tls_context(settings: BrokerSettings) -> ssl.SSLContext | None:
    """Return the context of a TLS connection, None without TLS.  Raises UnusableFile for a file of the wrong kind."""
    if settings.scheme not in WITH_TLS:
        return None
    tls = settings.tls
    context = _trusting_context(tls.ca, settings.path)
    _add_certificate(context, tls, settings.path)
    if tls.alpn is not None:
        context.set_alpn_protocols([tls.alpn])
    return context


def describe_failure(error: Exception) -> str:
    """Return why the connection failed, and what to do about it; this completes "the broker …"."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"presents a certificate {_UNTRUSTED.get(error.verify_code, 'that is not valid')} ({error.verify_message})"
        )
    if isinstance(error, ssl.SSLError):
        reason = error.reason or str(error)
        known = next((meaning for part, meaning in _ALERTS.items() if part in reason.upper().replace(" ", "_")), None)
        if any(part in reason.upper().replace(" ", "_") for part in _FROM_NO_TLS):
            return NO_TLS
        said = reason.casefold().replace("_", " ")
        return known or f"cannot agree on TLS: {said}; check `tls`, and that the port is one for TLS"
    return f"cannot be reached: {error or 'no answer'}"


def suspect_tls(settings: BrokerSettings) -> str:
    """Return what to add to the reason if a broker did not answer in MQTT: without TLS, the port may be one for it."""
    return "" if settings.scheme in WITH_TLS else f"; if this is a port for TLS, write {settings.scheme}s://"


def _trusting_context(ca: Path | None, path: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise UnusableFile(f"{path}.tls.ca: {ca} has no certificate in PEM format ({_first_words(error)})") from error


def _add_certificate(context: ssl.SSLContext, tls: TlsSettings, path: str) -> None:
    if tls.certificate is None:
        return
    try:
        context.load_cert_chain(tls.certificate, tls.key, password=_refuse_password)
    except UnusableFile as error:
        raise UnusableFile(f"{path}.tls: {tls.key or tls.certificate} {error}") from error
    except OSError as error:
        files = f"{tls.certificate} and {tls.key}" if tls.key else f"{tls.certificate}"
        raise UnusableFile(
            f"{path}.tls: {files} must be a certificate and its key in PEM format ({_first_words(error)})"
        ) from error


def _refuse_password() -> str:
    """Keep OpenSSL from asking at the terminal."""
    raise UnusableFile("is protected by a password: store the key without one, readable only by this user")


def _first_words(error: OSError) -> str:
    return str((error.reason if isinstance(error, ssl.SSLError) else error.strerror) or error)
