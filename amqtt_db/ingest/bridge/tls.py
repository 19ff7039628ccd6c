"""TLS to a broker, and what to say if no connection can be made."""

from __future__ import annotations

import ssl

from amqtt_db.config.broker import BrokerSettings

_UNTRUSTED = "shows a certificate that cannot be trusted"


def tls_context(settings: BrokerSettings) -> ssl.SSLContext | None:
    """Return the context of a TLS connection, None without TLS.  Raises OSError for files that are no certificates."""
    if settings.scheme not in ("mqtts", "wss"):
        return None
    tls = settings.tls
    context = ssl.create_default_context(cafile=tls.ca)
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    if tls.alpn is not None:
        context.set_alpn_protocols([tls.alpn])
    return context


def describe_failure(error: Exception) -> str:
    """Return why no connection could be made; it completes "the broker …"."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{_UNTRUSTED}: {error.verify_message}; check `tls.ca` and the host's name in `url`"
    if isinstance(error, ssl.SSLError):
        said = (error.reason or str(error)).casefold().replace("_", " ")
        return f"does not agree on TLS: {said}; check `tls`, and that the port is one for TLS"
    return f"cannot be reached: {error or 'no answer'}"
