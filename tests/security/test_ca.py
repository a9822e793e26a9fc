"""The authority: what it signs is checked by OpenSSL in real handshakes."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from tests.support.optional import not_none

from fingerpost.errors import ConfigurationError
from fingerpost.security.ca import Authority, make_authority, spiffe_id
from fingerpost.security.certificate_builder import key_pem, load_key, pem, sign_leaf

pytestmark = pytest.mark.shell

WORKER = "spiffe://vision.example.org/fingerpost/worker/flowers"


@pytest.fixture
def ca(tmp_path):
    return make_authority(tmp_path / "ca", "vision.example.org")


def handshake(server, trusted, *, client=None, host="localhost"):
    """A TLS connection over loopback; returns what the client sees in the server's certificate."""
    accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    accepting.load_cert_chain(server.certificate, server.key)
    connecting = ssl.create_default_context(cafile=trusted)
    if client is not None:
        accepting.load_verify_locations(trusted)
        accepting.verify_mode = ssl.CERT_REQUIRED
        connecting.load_cert_chain(client.certificate, client.key)
    left, right = socket.socketpair()
    failed = []

    def accept():
        try:
            with accepting.wrap_socket(left, server_side=True) as wrapped:
                wrapped.recv(1)
        except OSError as error:
            failed.append(error)
            left.close()

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        with connecting.wrap_socket(right, server_hostname=host) as wrapped:
            wrapped.send(b"x")
            seen = wrapped.getpeercert()
    finally:
        right.close()
        thread.join()
    if failed:
        raise failed[0]
    return seen


def test_a_worker_and_a_client_that_it_signed_trust_each_other(ca):
    worker = ca.issue("worker", "flowers", hosts=["localhost", "127.0.0.1"])
    client = ca.issue("client", "camera-7")
    seen = handshake(worker, ca.certificate, client=client)
    assert ("URI", WORKER) in list(not_none(seen)["subjectAltName"])
    assert handshake(worker, ca.certificate, client=client, host="127.0.0.1")
    assert client.names == ("spiffe://vision.example.org/fingerpost/client/camera-7",)


def test_a_worker_of_several_models_has_the_id_of_each(ca):
    made = ca.issue("worker", "flowers", also=["birds"], hosts=["localhost"])
    again = ca.renew(made.certificate)
    assert again.names == made.names == (WORKER, WORKER.replace("flowers", "birds"), "localhost")


def test_keys_are_for_the_owner_alone(ca):
    made = ca.issue("proxy")
    for path in (made.key, ca.certificate.with_name("ca-key.pem")):
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_client_cannot_serve(ca):
    with pytest.raises(ssl.SSLError):
        handshake(ca.issue("client", "camera-7"), ca.certificate, host="localhost")


def test_a_stolen_key_signs_for_no_other_domain_or_host(ca, tmp_path):
    """The authority's own certificate holds the constraints: OpenSSL refuses what breaks them."""
    authority = x509.load_pem_x509_certificate(ca.certificate.read_bytes())
    signer = load_key(ca.certificate.with_name("ca-key.pem"), "key")
    for number, name in enumerate(
        (
            x509.UniformResourceIdentifier("spiffe://bank.example/fingerpost/worker/flowers"),
            x509.DNSName("bank.example"),
        )
    ):
        key = ec.generate_private_key(ec.SECP256R1())
        forged = sign_leaf(
            signer,
            authority,
            key=key,
            common_name="worker flowers",
            names=[x509.DNSName("localhost"), name],
            ends=ca.expires,
        )
        stolen = ca.issue("worker", f"stolen-{number}", folder=tmp_path)
        stolen.key.write_bytes(key_pem(key))
        stolen.certificate.write_bytes(pem(forged))
        with pytest.raises(ssl.SSLError, match="permitted subtree violation"):
            handshake(stolen, ca.certificate)


def test_hosts_outside_its_names_are_refused_with_the_remedy(ca, tmp_path):
    with pytest.raises(ConfigurationError, match=r"8\.8\.8\.8.*--allow 8\.8\.8\.8"):
        ca.issue("worker", "flowers", hosts=["8.8.8.8"])
    with pytest.raises(ConfigurationError, match="evil-vision.example.org"):
        ca.issue("worker", "flowers", hosts=["evil-vision.example.org"])
    assert not list(ca.certificate.parent.glob("worker*"))
    wide = make_authority(
        tmp_path / "wide", "example.org", allow=[".svc.cluster.local", "8.8.8.0/24"]
    )
    hosts = ["w.vision.svc.cluster.local", "8.8.8.8", "a.example.org"]
    made = wide.issue("worker", "flowers", hosts=hosts)
    assert handshake(made, wide.certificate, host="w.vision.svc.cluster.local")


def test_nothing_is_overwritten(ca):
    before = ca.certificate.read_bytes()
    with pytest.raises(ConfigurationError, match="not overwritten"):
        make_authority(ca.certificate.parent, "vision.example.org")
    assert ca.certificate.read_bytes() == before
    made = ca.issue("worker", "flowers")
    key = made.key.read_bytes()
    with pytest.raises(ConfigurationError, match="fingerpost ca renew"):
        ca.issue("worker", "flowers")
    assert made.key.read_bytes() == key
    assert not list(ca.certificate.parent.glob(".*"))


def test_renewing_keeps_the_key_or_changes_it(ca):
    made = ca.issue("worker", "flowers", days=1)
    key, old = made.key.read_bytes(), made.certificate.read_bytes()
    again = ca.renew(made.certificate, days=3)
    assert made.key.read_bytes() == key
    assert made.certificate.read_bytes() != old
    assert (again.names, again.expires > made.expires) == (made.names, True)
    changed = ca.renew(made.certificate, new_key=True)
    assert made.key.read_bytes() != key
    assert made.key.stat().st_mode & 0o777 == 0o600
    assert handshake(changed, ca.certificate)


def test_a_certificate_of_another_authority_is_not_renewed(ca, tmp_path):
    other = make_authority(tmp_path / "other", "vision.example.org")
    made = other.issue("worker", "flowers")
    with pytest.raises(ConfigurationError, match="was not signed by the authority in"):
        ca.renew(made.certificate)


def test_a_key_that_belongs_to_another_certificate_is_an_error(ca):
    made, other = ca.issue("worker", "flowers"), ca.issue("worker", "birds")
    made.key.write_bytes(other.key.read_bytes())
    with pytest.raises(ConfigurationError, match="is not the key of"):
        ca.renew(made.certificate)


def test_a_key_that_others_can_read_is_an_error(ca):
    ca.certificate.with_name("ca-key.pem").chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        Authority(ca.certificate.parent)


def test_the_authoritys_key_is_changed_while_both_are_trusted(ca):
    before = ca.issue("worker", "flowers")
    after = ca.renew_itself(new_key=True)
    fresh = after.issue("worker", "birds")
    for worker in (before, fresh):
        assert handshake(worker, after.certificate)
    moved = after.renew(before.certificate)
    assert after.renew_itself(retire_old=True).certificate == ca.certificate
    assert handshake(moved, ca.certificate)
    assert len(x509.load_pem_x509_certificates(ca.certificate.read_bytes())) == 1


def test_the_authority_renewed_with_its_key_leaves_everything_valid(ca):
    made = ca.issue("worker", "flowers")
    longer = ca.renew_itself(days=700)
    assert longer.expires > ca.expires
    assert handshake(made, longer.certificate)


def test_an_expired_authority_signs_nothing_until_it_is_renewed(ca):
    folder = ca.certificate.parent
    key = load_key(folder / "ca-key.pem", "key")
    current = x509.load_pem_x509_certificate(ca.certificate.read_bytes())
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    builder = x509.CertificateBuilder(
        issuer_name=current.issuer,
        subject_name=current.subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=past - datetime.timedelta(days=1),
        not_valid_after=past,
        extensions=list(current.extensions),
    )
    ca.certificate.write_bytes(pem(builder.sign(key, hashes.SHA256())))
    expired = Authority(folder)
    with pytest.raises(ConfigurationError, match="expired at .*fingerpost ca renew"):
        expired.issue("worker", "flowers")
    assert expired.renew_itself().issue("worker", "flowers").expires


def test_a_certificate_ends_with_its_authority(tmp_path):
    short = make_authority(tmp_path / "short", "vision.example.org", days=1)
    assert short.issue("proxy", days=30).expires == short.expires


@pytest.mark.parametrize(
    ("domain", "role", "name", "message"),
    [
        ("Vision", "proxy", "", "trust domain 'Vision'"),
        ("a/b", "proxy", "", "trust domain"),
        ("", "proxy", "", "trust domain"),
        ("example.org", "worker", "", "names its service"),
        ("example.org", "worker", "../birds", "not a valid name"),
        ("example.org", "client", "a b", "not a valid name"),
    ],
)
def test_bad_names(domain, role, name, message):
    with pytest.raises(ConfigurationError, match=message):
        spiffe_id(domain, role, name)


@pytest.mark.parametrize("host", ["a host", "10.0.0.7:8501", "", "a..b", "*.example.org"])
def test_bad_hosts(ca, host):
    with pytest.raises(ConfigurationError, match="neither a host name nor"):
        ca.issue("worker", "flowers", hosts=[host])


@pytest.mark.parametrize("days", [0, -1, float("nan"), float("inf"), 1e9])
def test_bad_lives(ca, days):
    with pytest.raises(ConfigurationError, match="life of"):
        ca.issue("worker", "flowers", days=days)


def test_no_authority_and_no_certificate(tmp_path, ca):
    with pytest.raises(ConfigurationError, match="fingerpost ca init"):
        Authority(tmp_path)
    (tmp_path / "x.pem").write_text("hello")
    with pytest.raises(ConfigurationError, match="not a certificate"):
        ca.renew(tmp_path / "x.pem")


def test_the_authority_is_not_renewed_as_one_of_its_certificates(ca):
    with pytest.raises(ConfigurationError, match="the authority itself: renew it by"):
        ca.renew(ca.certificate)


def test_an_old_key_is_not_retired_while_certificates_depend_on_it(ca):
    old, moved = ca.issue("worker", "flowers"), ca.issue("proxy")
    after = ca.renew_itself(new_key=True)
    after.renew(moved.certificate)
    with pytest.raises(ConfigurationError, match=r"worker-flowers\.pem\. Renew") as told:
        after.renew_itself(retire_old=True)
    assert "proxy" not in str(told.value)
    assert handshake(old, ca.certificate)
    after.renew(old.certificate)
    retired = after.renew_itself(retire_old=True)
    assert handshake(old, retired.certificate)


def test_a_certificate_of_a_key_that_was_retired_is_to_be_issued_again(ca, tmp_path):
    old = ca.issue("worker", "flowers", folder=tmp_path / "elsewhere")
    after = ca.renew_itself(new_key=True).renew_itself(retire_old=True)
    with pytest.raises(ConfigurationError, match="an earlier key of that name: .* issue it again"):
        after.renew(old.certificate)


def test_a_file_where_a_folder_should_be(ca, tmp_path):
    (tmp_path / "file").write_text("hello")
    for attempt in (
        lambda: make_authority(tmp_path / "file", "vision.example.org"),
        lambda: ca.issue("proxy", folder=tmp_path / "file" / "x"),
    ):
        with pytest.raises(ConfigurationError, match="the folder .* cannot be made"):
            attempt()
