"""The way to a broker: its name, its port, its certificate, and whom it lets in."""

import socket
import ssl
from contextlib import suppress
from dataclasses import replace

from broker.address import BrokerAddress
from broker.mqtt_connection import PATIENCE, MqttSettings
from broker.probe import ProbeError
from console.doctor.examination import Examination
from console.doctor.findings import Findings, failure, graver, ok, told
from console.doctor.identity import within
from protocol.errors import FedfleetError
from runtime.identity import ROOT_FILE

ALERT_SECONDS = 0.3
"""How long a broker is given at least to refuse our certificate: with TLS 1.3 that is after the handshake."""

_RENEW = "renew it with `fedfleet ca renew` where the fleet's root is kept, and restart the broker"
_UNKNOWN = (
    "who signed the broker's certificate is not known",
    "issue it with the root of this fleet, or name who did in broker.authorities",
)
_MISNAMED = (
    "the broker's certificate is for another host",
    "connect under a name that is in it, or issue one for this name with `fedfleet ca issue`",
)
# X509_V_ERR_… of OpenSSL: what is wrong with the certificate that was shown to us.
_VERIFICATION = {
    9: ("the broker's certificate is not valid yet", "check the clock here"),
    10: ("the broker's certificate has expired", _RENEW),
    62: _MISNAMED,
    64: _MISNAMED,
    **dict.fromkeys((2, 7, 18, 19, 20, 21), _UNKNOWN),
}
# Parts of OpenSSL's names for alerts (RFC 8446, section 6.2): what the broker says of ours.
_ALERTS = {
    "CERTIFICATE_EXPIRED": (
        "the broker says that our certificate, or its own revocation list, has expired",
        "look at the dates above, and see that `fedfleet guard` runs beside the broker",
    ),
    "CERTIFICATE_REVOKED": (
        "the broker says that our certificate was revoked",
        "enrol again under a new name, if it was not meant so",
    ),
    # The second one: another root of the same name.
    **dict.fromkeys(
        ("UNKNOWN_CA", "DECRYPT_ERROR"),
        (
            "the broker does not know who signed our certificate",
            "give the broker the root of this fleet, and a revocation list of each issuer",
        ),
    ),
    "PROTOCOL_VERSION": (
        "the broker does not speak TLS 1.3",
        "have it speak TLS 1.3: tls_version tlsv1.3 in mosquitto.conf",
    ),
}


def encryption(examination: Examination) -> Findings:
    """Whether there is any."""
    if examination.address.tls:
        yield ok("mqtts://: encrypted")
    else:
        yield graver(
            examination,
            "mqtt:// is not encrypted: logins and statuses can be read, and nobody's name is certain",
            "write mqtts:// and port 8883, and have the broker ask for certificates",
        )


def name(examination: Examination) -> Findings:
    """What the host's name stands for."""
    address = examination.address
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        yield failure(
            f"{address.host} is not known ({error.strerror})",
            "correct the host in broker.urls, or the name service of this machine",
        )
        return
    yield ok(", ".join(dict.fromkeys(str(one[4][0]) for one in found)))


def reach(examination: Examination) -> Findings:
    """Whether anything answers there."""
    address = examination.address
    try:
        _reach(address).close()
    except socket.gaierror:
        return  # told by the check of the name
    except OSError as error:
        yield failure(
            f"nothing answers at {address.host} port {address.port} ({error.strerror or error})",
            "start the broker, correct broker.urls, or open the port in the firewall",
        )
        return
    yield ok(f"port {address.port} answers")


def handshake(examination: Examination) -> Findings:
    """TLS 1.3 as the program would speak it, both certificates included."""
    address = examination.address
    if not address.tls:
        return
    try:
        context = examination.mqtt().tls
    except FedfleetError as error:
        yield told(error, "correct broker.authorities")
        return
    try:
        certificate, version = _handshake(examination, context or ssl.create_default_context())
    except ssl.SSLCertVerificationError as error:
        yield failure(*_VERIFICATION.get(error.verify_code, (error.verify_message, _UNKNOWN[1])))
    except ssl.SSLError as error:
        yield failure(*_alert(error))
    except OSError as error:
        if _answers(address):
            yield failure(f"the broker hangs up ({error})", "look into the broker's log")
    else:
        yield ok(version)
        yield within("the broker's certificate", certificate, examination.clock.unix(), _RENEW)


def older_tls(examination: Examination) -> Findings:
    """TLS 1.2 must be refused."""
    address = examination.address
    if not address.tls:
        return
    try:
        context = examination.mqtt().tls or ssl.create_default_context()
    except FedfleetError:
        return  # told by the handshake
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        _handshake(examination, context)
    except OSError:
        yield ok("refused")
    else:
        yield failure("the broker accepts TLS 1.2", "write tls_version tlsv1.3 into mosquitto.conf")


def strangers(examination: Examination) -> Findings:
    """Who shows no certificate must be refused, with and without the login."""
    address = examination.address
    nobody = replace(address, user=None, password=None)
    for who, tried in {"a client without a name": nobody, "a login without a certificate": address}.items():
        if who.startswith("a login") and address.user is None:
            continue
        if _lets_in(examination, tried):
            yield failure(
                f"the broker lets in {who}",
                "write allow_anonymous false and require_certificate true into mosquitto.conf",
            )
        else:
            yield ok(f"{who} is refused")


def _lets_in(examination: Examination, address: BrokerAddress) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with suppress(OSError):
        settings = examination.settings
        context.load_verify_locations(settings.broker.authorities or settings.identity / ROOT_FILE)
    stranger = f"stranger-{examination.entropy.bytes(4).hex()}"
    try:
        with examination.connect(MqttSettings((address,), stranger, clean=True, tls=context), address):
            return True
    except ProbeError:
        return False


def _reach(address: BrokerAddress) -> socket.socket:
    return socket.create_connection((address.host, address.port), PATIENCE)


def _answers(address: BrokerAddress) -> bool:
    try:
        _reach(address).close()
    except OSError:
        return False
    return True


def _handshake(examination: Examination, context: ssl.SSLContext) -> tuple[bytes, str]:
    """The broker's certificate, DER, and the version; raises OSError, also when it does not like ours."""
    address, began = examination.address, examination.clock.now()
    with _reach(address) as plain, context.wrap_socket(plain, server_hostname=address.host) as tls:
        certificate, version = tls.getpeercert(binary_form=True), tls.version()
        tls.settimeout(max(ALERT_SECONDS, 3 * (examination.clock.now() - began)))
        with suppress(TimeoutError):  # it waits for us to go on: it is content
            if not tls.recv(1):
                raise ConnectionResetError("without a word")
        return certificate or b"", str(version)


def _alert(error: ssl.SSLError) -> tuple[str, str]:
    reason = error.reason or str(error)
    known = next((words for part, words in _ALERTS.items() if part in reason), None)
    return known or (f"TLS fails: {reason}", "look into the broker's log")
